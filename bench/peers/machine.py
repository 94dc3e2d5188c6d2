"""The machine under the benchmarks: which cores to use, how busy they are, and what it is called in a report."""

import os
import platform
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
# The machine is quiet when everything on it together uses less than this much of one core, over one look …
QUIET_PERCENT = 10
LOOK_S = 1.0
# … and something is left for the server, the load tester and the kernel's buffers.
FREE_MIB = 1024
# How long to wait for it: before one run, and before all together.
QUIET_WAIT_S = 30
QUIET_WAITS_S = 300


@dataclass(frozen=True)
class Cores:
    server: int
    generator: int

    @property
    def apart(self) -> bool:
        return self.server != self.generator


def cores() -> Cores:
    """Two physical cores if there are two. Of each, the first thread that this process may use."""
    physical: dict[str, int] = {}
    for cpu in sorted(os.sched_getaffinity(0)):
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        name = siblings.read_text().strip() if siblings.exists() else str(cpu)
        physical.setdefault(name, cpu)
    first = list(physical.values())
    return Cores(first[0], first[1] if len(first) > 1 else first[0])


def busy_s(core: int | None) -> float:
    """How long this core, or all, worked since the machine started, interrupts and stolen time included."""
    for line in Path("/proc/stat").read_text().splitlines():
        name, *ticks = line.split()
        if name == ("cpu" if core is None else f"cpu{core}"):
            user, nice, system, _idle, _wait, irq, softirq, steal = map(int, ticks[:8])
            return (user + nice + system + irq + softirq + steal) / TICKS_PER_S
    return 0.0


def cpu_s(pid: int) -> float:
    """User and system time of a process, all its threads."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def precise_cpu_s(pid: int) -> float:
    """The same from the scheduler's own clock, in nanoseconds instead of ticks. Threads that ended don't count."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def noise() -> str:
    """What would disturb a run that began now, or nothing. Looks for LOOK_S."""
    at, before = time.monotonic(), busy_s(None)
    time.sleep(LOOK_S)
    percent = 100 * (busy_s(None) - before) / (time.monotonic() - at)
    free_mib = memory_kib("MemAvailable") / 1024
    found = [f"others used {percent:.0f} % of a core"] if percent > QUIET_PERCENT else []
    found += [f"only {free_mib:.0f} MiB of memory were free"] if free_mib < FREE_MIB else []
    return ", ".join(found)


class Quiet:
    """Waits before each run until the machine is quiet, as long as there is patience left."""

    def __init__(self, look: Callable[[], str] = noise, clock: Callable[[], float] = time.monotonic):
        self.look = look
        self.clock = clock
        self.patience_s = QUIET_WAITS_S

    def wait(self) -> str:
        """The noise that is still there, or nothing."""
        at = self.clock()
        until = at + min(QUIET_WAIT_S, self.patience_s)
        while (found := self.look()) and self.clock() < until:
            pass
        # What a look itself takes is part of every run.
        self.patience_s -= max(0.0, self.clock() - at - LOOK_S)
        return found


def memory_kib(field: str) -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1])
    return 0


@dataclass
class Strangers:
    """Finds out how much of the two cores others used during a run: such a run is marked."""

    used: Cores
    at: float
    busy: dict[int, float]

    @classmethod
    def watch(cls, used: Cores) -> "Strangers":
        return cls(used, time.monotonic(), {core: busy_s(core) for core in {used.server, used.generator}})

    def percent(self, ours_s: float) -> float:
        """Of one core, on both together. `ours_s`: CPU time of the server and the load tester."""
        took = time.monotonic() - self.at
        busy = sum(busy_s(core) - before for core, before in self.busy.items())
        return max(0.0, 100 * (busy - ours_s) / took)


def output(*command: str | Path, cwd: Path | None = None) -> str:
    """The first line that a command prints, or nothing if there is no such command."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, cwd=cwd)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return (done.stdout.strip().splitlines() or [""])[0] if done.returncode == 0 else ""


def describe(root: Path, used: Cores) -> dict:
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    dirty = output("git", "status", "--porcelain", "--untracked-files=no", cwd=root)
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "memory_gib": round(memory_kib("MemTotal") / 2**20, 1),
        "kernel": platform.release(),
        "server_core": used.server,
        "generator_core": used.generator,
        "commit": output("git", "rev-parse", "--short=12", "HEAD", cwd=root) + (" + changes" if dirty else ""),
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    }
