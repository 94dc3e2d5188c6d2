"""`make bench-peers`: every scenario of plan.toml against every peer, interleaved, a fresh server for each run.

ROUNDS=3, SCENARIOS=A,B-ramp and PEERS=wiresocket,y-sweet narrow it; WIRESOCKET= and LOADTEST= are other binaries.
One JSON file for each run goes to bench/results/runs/<when>/; publish.py says where table and page go.

Exit codes: 0; 1 if a run failed, or a result of ours is wrong; 2 for a wrong argument; 130 if it was stopped. That a peer's
result is wrong is a finding, not a failure.
"""

import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from bench.peers import arguments, machine, measure, plan, publish, results, servers
from bench.peers.figures import size_bytes, text
from bench.peers.plan import Plan, Run
from bench.peers.servers import PEERS, ROOT

STOPPED = 130


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def leave_out_missing(asked: Plan, meta: dict) -> None:
    for peer in list(asked.peers):
        if why := peer.missing():
            say(f"leaving {peer.title} out: {why}")
            meta["missing"][peer.name] = why
            asked.peers.remove(peer)
        else:
            meta["peers"][peer.name] = {"title": peer.title, "version": peer.version()}
    if not asked.peers:
        raise SystemExit(f"none of the peers is installed: run make bench-peers-install, and see {PEERS / 'installed'}/install.log")


def line(found: dict, scenario: dict) -> str:
    values = [
        f"{metric['name']} {text(value)} {metric['unit']}".strip()
        for metric in scenario["metric"]
        if (value := results.value(found, metric)) is not None
    ]
    if found["reason"]:
        values.append(f"{found['status'].upper()}: {found['reason']}")
    if found["busy"]:
        during = f"{found['strangers_percent']} % of a core was used by others during it"
        values.append(f"NOISY: {found['noise_before'] or during}")
    return "; ".join(values)


def is_failure(found: dict) -> bool:
    return found["status"] in ("failed", "timeout") or (found["status"] == "wrong" and found["peer"] == results.OURS)


def measure_all(
    runs: list[Run], used: machine.Cores, folder: Path, after_round: Callable[[list[dict]], object]
) -> list[dict]:
    """Carries the runs out. Stops early if it is interrupted."""
    left_s = sum(map(plan.takes_s, runs))
    done: list[dict] = []
    quiet = machine.Quiet()
    try:
        for number, run in enumerate(runs, 1):
            say(f"[{number}/{len(runs)}, {left_s / 60:.0f} min left] round {run.round} {run.scenario['id']} {run.peer.title}")
            found = measure.carry_out(run, used, quiet)
            left_s -= plan.takes_s(run)
            say(f"    {line(found, run.scenario)}")
            (folder / f"{number:03}-{found['scenario']}-{found['peer']}-{found['round']}.json").write_text(
                json.dumps(found, indent=1)
            )
            done.append(found)
            if number < len(runs) and runs[number].round != run.round:
                after_round(done)
    except KeyboardInterrupt:
        say("stopped: the table has what was measured until now")
    return done


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    asked = Plan.from_environment()
    servers.check_programs()
    used = machine.cores()
    meta = machine.describe(ROOT, used) | {
        "rounds": asked.rounds,
        "narrowed": asked.narrowed,
        "outbox_bytes_max": size_bytes(servers.limits()["outbox_bytes_max"]),
        "peers": {},
        "missing": {},
    }
    leave_out_missing(asked, meta)
    asked.skip_what_is_not_known()
    for scenario in asked.scenarios:
        if "skipped" in scenario:
            say(f"skipping {scenario['id']}: {scenario['skipped']}")
    runs = asked.runs()
    if not runs:
        raise SystemExit("nothing is left to run: see above")
    if not used.apart:
        say("only one core: server and load tester share it, and every run is marked")
    minutes = sum(map(plan.takes_s, runs)) / 60
    say(f"{len(runs)} runs, about {minutes:.0f} minutes; core {used.server} serves, core {used.generator} drives")
    meta["runs"] = len(runs)
    folder = publish.new_folder(meta, asked.scenarios)
    done = measure_all(runs, used, folder, lambda found: publish.write(folder, meta, asked.scenarios, found))
    written = publish.write(folder, meta, asked.scenarios, done)
    print(written[0].read_text())
    tell_where(meta, written)
    say(f"runs:  {folder}")
    if len(done) < len(runs):
        return STOPPED
    failed = [found for found in done if is_failure(found)]
    for found in failed:
        say(f"{found['status']}: {found['scenario']}, {found['peer']}, round {found['round']}: {found['reason']}")
    return arguments.EXIT_FAILED if failed else 0


def again() -> int:
    """Writes a measurement's table and page once more."""
    folder = publish.chosen_folder()
    meta, scenarios, found = publish.read(folder)
    tell_where(meta, publish.write(folder, meta, scenarios, found))
    say(f"from {len(found)} runs in {folder}")
    return 0


def tell_where(meta: dict, written: list[Path]) -> None:
    for name, path in zip(("table:", "page: "), written):
        say(f"{name} {path}")
    if written[0].parent != publish.RESULTS:
        say(f"(the whole comparison's are in {publish.RESULTS}: this one isn't whole, and leaves them as they are)")


COMMANDS = {"": main, "again": again, "check": lambda: Plan.from_environment() and 0}

if __name__ == "__main__":
    try:
        sys.exit(COMMANDS[" ".join(sys.argv[1:])]())
    except arguments.ArgumentError as error:
        say(str(error))
        sys.exit(arguments.EXIT_WRONG_ARGUMENT)
