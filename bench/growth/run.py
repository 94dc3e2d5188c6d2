"""`make bench-growth`: CPU time per delivery of our server as documents, histories, rooms and shards grow.

ROUNDS=3, CURVES=history,shards and POINTS_MAX=1000 narrow it; WIRESOCKET= and LOADTEST= are other binaries.
Writes bench/results/growth.{json,md,html}; until it is done, or if it is narrowed, growth-partial.* instead. Exit codes
as of bench-peers.
"""

import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

from bench.growth import page
from bench.peers import arguments, machine, servers
from bench.peers.measure import STRANGERS_PERCENT
from bench.peers.publish import RESULTS
from bench.peers.run import STOPPED, say
from bench.peers.servers import LOADTEST, ROOT, ServerError

ROUNDS, ROUNDS_MAX, POINTS_MAX = 3, 100, 10**9

OCCUPY_S = 120
RUN_S = 90


def occupied(server: servers.Server, kind: str, count: int, core: int) -> subprocess.Popen:
    """A process that fills the server and stays connected."""
    command = [sys.executable, "-m", "bench.growth.occupy", kind, count, server.port, server.folder / "token"]
    # A shell's `timeout` rather than a thread here: reading the pipe blocks.
    command = ["timeout", OCCUPY_S + RUN_S, *command]
    with open(server.folder / "occupy", "wb") as errors:
        process = servers.child(command, core, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors)
    if process.stdout.readline() != b"ready\n":
        servers.end(process)
        last = (server.folder / "occupy").read_text(errors="replace").strip().splitlines()[-1:]
        raise ServerError(f"it can't be filled with {count} ({kind}): {' '.join(last)}")
    return process


def drive(server: servers.Server, curve: dict, point: int, used: machine.Cores) -> dict:
    filled = {"{point}": str(point), "{writers}": str(min(10, point))}
    arguments = [filled.get(part, part) for part in curve["args"]]
    command = [LOADTEST, "run", *arguments, "--url", f"ws://127.0.0.1:{server.port}", *server.credentials]
    tester = servers.child(
        [*command, "--pid", server.pid, "--json"], used.generator, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        report, errors = tester.communicate(timeout=RUN_S)
    except subprocess.TimeoutExpired:
        return {"reason": f"not done after {RUN_S} s"}
    finally:
        servers.end(tester)
    try:
        report = json.loads(report)
    except ValueError:
        return {"reason": errors.decode(errors="replace").strip()[-300:] or f"exit code {tester.returncode}"}
    typing = report["result"]["typing"]
    found = typing["verification"]
    wrong = found["lost"] + found["duplicated"] + found["reordered"] + (0 if curve.get("foreign") else found["foreign"])
    if wrong or (not report["ok"] and not curve.get("foreign")):
        return {"reason": "; ".join(report["failures"])[:300]}
    return {
        "reason": "",
        "cpu_per_delivery_us": typing["cpu_per_delivery_us"],
        "resident_mb": typing["server"]["memory_before"]["resident_bytes"] / 2**20,
    }


def measure(curve: dict, point: int, used: machine.Cores) -> dict:
    shards = point if "shards" in curve else 1
    strangers, before_s = machine.Strangers.watch(used), sum(os.times()[:4])
    occupier = None
    try:
        server = servers.ALL[0].start(used.server, shards)
    except (ServerError, OSError, subprocess.SubprocessError) as error:
        return {"point": point, "reason": f"it doesn't start: {error}", "busy": False}
    try:
        if "occupy" in curve:
            occupier = occupied(server, curve["occupy"], point, used.generator)
        found = drive(server, curve, point, used)
    except ServerError as error:
        found = {"reason": str(error)}
    finally:
        if occupier:
            servers.end(occupier)
            occupier.stdout.close()
        server.stop()
    percent = strangers.percent(sum(os.times()[:4]) - before_s)
    return found | {"point": point, "busy": percent > STRANGERS_PERCENT or not used.apart}


def write(name: str, meta: dict, curves: list[dict]) -> None:
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps({"meta": meta, "curves": curves}, indent=1))
    (RESULTS / f"{name}.md").write_text(page.markdown(meta, curves))
    (RESULTS / f"{name}.html").write_text(page.html(meta, curves))


def asked() -> tuple[list[dict], int, int, bool]:
    """Curves, rounds, and the largest point, as the environment asks for them; and whether that is everything."""
    with open(Path(__file__).parent / "curves.toml", "rb") as file:
        curves = tomllib.load(file)["curve"]
    wanted = arguments.names("CURVES", [curve["id"] for curve in curves])
    rounds = arguments.number("ROUNDS", ROUNDS, ROUNDS_MAX)
    points_max = arguments.number("POINTS_MAX", POINTS_MAX, POINTS_MAX)
    is_whole = rounds == ROUNDS and points_max == POINTS_MAX and len(wanted) == len(curves)
    return [curve | {"runs": []} for curve in curves if curve["id"] in wanted], rounds, points_max, is_whole


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    curves, rounds, points_max, is_whole = asked()
    servers.check_programs()
    used = machine.cores()
    meta = machine.describe(ROOT, used) | {"rounds": rounds}
    runs = [
        (curve, point)
        for _ in range(rounds)
        for curve in curves
        for point in curve["points"]
        if point <= points_max
    ]
    say(f"{len(runs)} points, about {sum(curve['takes_s'] for curve, _ in runs) / 60:.0f} minutes")
    try:
        for number, (curve, point) in enumerate(runs, 1):
            found = measure(curve, point, used)
            curve["runs"].append(found)
            result = found["reason"] or f"{found['cpu_per_delivery_us']:.2f} µs, {found['resident_mb']:.1f} MB before"
            mark = " (another process was busy)" if found["busy"] else ""
            say(f"[{number}/{len(runs)}] {curve['id']} {point:,}: {result}{mark}")
            write("growth-partial", meta, curves)
            time.sleep(0.3)
    except KeyboardInterrupt:
        say("stopped: the table has what was measured until now")
        return STOPPED
    name = "growth" if is_whole else "growth-partial"
    write(name, meta, curves)
    print((RESULTS / f"{name}.md").read_text())
    say(f"page: {RESULTS / name}.html")
    return arguments.EXIT_FAILED if any(found["reason"] for curve in curves for found in curve["runs"]) else 0


def again() -> int:
    """Writes table and page from the last measurement."""
    last = json.loads((RESULTS / "growth.json").read_text())
    write("growth", last["meta"], last["curves"])
    return 0


if __name__ == "__main__":
    try:
        sys.exit(again() if sys.argv[1:] == ["again"] else main())
    except arguments.ArgumentError as error:
        say(str(error))
        sys.exit(arguments.EXIT_WRONG_ARGUMENT)
