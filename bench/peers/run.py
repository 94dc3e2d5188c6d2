"""`make bench-peers`: every scenario of plan.toml against every peer, interleaved, a fresh server for each run.

ROUNDS=3, SCENARIOS=A,B-ramp and PEERS=wiresocket,y-sweet narrow it; WIRESOCKET= and LOADTEST= are other binaries.
One JSON file for each run goes to bench/results/runs/<when>/; the table and the page are written after each round.
"""

import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

from bench.peers import machine, page, results, servers, table
from bench.peers.servers import LOADTEST, PEERS, ROOT

RESULTS = ROOT / "bench" / "results"
TRACES = ROOT.parent / "shared" / "traces"
# A run during which others used more of the two cores than this is marked.
STRANGERS_PERCENT = 10
BETWEEN_RUNS_S = 0.5


@dataclass
class Run:
    scenario: dict
    peer: servers.Peer
    round: int


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def chosen(variable: str, known: list[str]) -> list[str]:
    """The names in a variable, separated by commas or blanks; all, if there are none."""
    names = os.environ.get(variable, "").replace(",", " ").split()
    unknown = [name for name in names if name not in known]
    if unknown:
        raise SystemExit(f"{variable}: there is no {unknown[0]!r}; known are {', '.join(known)}")
    return [name for name in known if not names or name in names]


def not_known(scenario: dict) -> str:
    """What of a scenario this load tester can't do yet, or nothing."""
    usage = subprocess.run([LOADTEST, "run", "--help"], capture_output=True, text=True).stdout
    name, *options = scenario["args"]
    built_in = (ROOT / "loadtest" / "scenarios" / f"{name}.toml").exists() or name in usage
    unknown = [] if built_in else [f"the scenario {name}"]
    unknown += [option for option in options if option.startswith("--") and f"{option} " not in usage.replace("\n", " ")]
    return ", ".join(unknown)


def plan(peers: list[servers.Peer], rounds: int) -> tuple[list[dict], list[Run]]:
    """Scenarios and runs in order: each round goes through the scenarios, and in each through the peers."""
    with open(PEERS / "plan.toml", "rb") as file:
        scenarios = tomllib.load(file)["scenario"]
    wanted = chosen("SCENARIOS", [scenario["id"] for scenario in scenarios])
    scenarios = [scenario for scenario in scenarios if scenario["id"] in wanted]
    for scenario in scenarios:
        if unknown := not_known(scenario):
            say(f"skipping {scenario['id']}: {LOADTEST.name} doesn't know {unknown}")
            scenario["skipped"] = f"the load tester doesn't know {unknown}"
    runs = []
    for number in range(1, rounds + 1):
        for scenario in scenarios:
            if number > scenario.get("rounds", rounds) or "skipped" in scenario:
                continue
            # Each round starts with another peer: nobody always runs after the same neighbour.
            shift = (number - 1) % len(peers)
            for peer in peers[shift:] + peers[:shift]:
                if peer.name in scenario.get("peers", [peer.name]):
                    runs.append(Run(scenario, peer, number))
    return scenarios, runs


def drive(run: Run, server: servers.Server, used: machine.Cores) -> dict:
    """Lets the load tester at a server. What went wrong is in `reason`, never an exception."""
    arguments = [part.format(key_file=server.key_file, claims=server.claims) for part in run.scenario["args"]]
    command = [LOADTEST, "run", *arguments, "--url", f"ws://127.0.0.1:{server.port}", *run.peer.arguments]
    if "--key-file" not in arguments:
        command += server.credentials
    variables = dict(os.environ)
    if TRACES.is_dir():
        variables.setdefault("WIRESOCKET_TRACES", str(TRACES))
    with open(server.folder / "report", "wb") as report, open(server.folder / "errors", "wb") as errors:
        tester = servers.child(
            [*command, "--pid", server.pid, "--json"], used.generator, env=variables, stdout=report, stderr=errors
        )
        try:
            tester.wait(run.scenario["timeout_s"])
        except subprocess.TimeoutExpired:
            return {"status": "timeout", "reason": f"not done after {run.scenario['timeout_s']} s"}
        finally:
            servers.end(tester)
    return judged(server, tester.returncode)


def judged(server: servers.Server, code: int) -> dict:
    errors = (server.folder / "errors").read_text(errors="replace").strip()
    try:
        report = json.loads((server.folder / "report").read_text())
    except ValueError:
        crash = f"; the server ended with {server.process.returncode}" if server.process.poll() is not None else ""
        return {"status": "failed", "reason": (errors.replace("\n", " ")[-300:] or f"exit code {code}") + crash}
    if code == 0 and report["ok"]:
        return {"status": "ok", "reason": "", "report": report}
    return {"status": "wrong", "reason": "; ".join(report["failures"])[:300], "report": report}


def carry_out(run: Run, used: machine.Cores) -> dict:
    started = time.monotonic()
    found = {
        "scenario": run.scenario["id"],
        "peer": run.peer.name,
        "round": run.round,
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "load_average": os.getloadavg()[0],
        "strangers_percent": 0.0,
        "busy": False,
        "took_s": 0.0,
    }
    strangers = machine.Strangers.watch(used)
    before_s = sum(os.times()[:4])
    try:
        server = run.peer.start(used.server)
    except (servers.ServerError, OSError, subprocess.SubprocessError) as error:
        return found | {"status": "failed", "reason": f"it doesn't start: {error}"}
    try:
        found |= drive(run, server, used)
    finally:
        server.stop()
    # Both have ended and been waited for: their time is among that of this process's children.
    ours_s = sum(os.times()[:4]) - before_s
    found["strangers_percent"] = round(strangers.percent(ours_s), 1)
    found["busy"] = found["strangers_percent"] > STRANGERS_PERCENT or not used.apart
    found["took_s"] = round(time.monotonic() - started, 1)
    return found


def line(found: dict, scenario: dict) -> str:
    values = [
        f"{metric['name']} {results.text(value)} {metric['unit']}".strip()
        for metric in scenario["metric"]
        if (value := results.value(found, metric)) is not None
    ]
    mark = " (another process was busy)" if found.get("busy") else ""
    return ", ".join(values) + (f" — {found['status'].upper()}: {found['reason']}" if found["reason"] else "") + mark


def write(meta: dict, scenarios: list[dict], found: list[dict]) -> None:
    outcome = results.Outcome(meta, scenarios, found)
    (RESULTS / "peers.md").write_text(table.markdown(outcome))
    (RESULTS / "peers.html").write_text(page.html(outcome))


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    servers.check_programs()
    rounds = int(os.environ.get("ROUNDS") or 3)
    names = chosen("PEERS", [peer.name for peer in servers.ALL])
    used = machine.cores()
    present = []
    meta = machine.describe(ROOT, used) | {"rounds": rounds, "peers": {}, "missing": {}}
    for peer in servers.ALL:
        if peer.name not in names:
            continue
        if why := peer.missing():
            say(f"leaving {peer.title} out: {why}")
            meta["missing"][peer.name] = why
            continue
        present.append(peer)
        meta["peers"][peer.name] = {"title": peer.title, "version": peer.version()}
    if not present:
        raise SystemExit("no peer is installed: run bench/peers/install.sh")
    scenarios, runs = plan(present, rounds)
    if not used.apart:
        say("only one core: server and load tester share it, and every run is marked")
    if not runs:
        raise SystemExit("nothing to run: these PEERS take part in none of these SCENARIOS, or ROUNDS is 0")
    estimate = sum(run.scenario["takes_s"] for run in runs)
    say(f"{len(runs)} runs, about {estimate / 60:.0f} minutes; core {used.server} serves, core {used.generator} drives")
    folder = RESULTS / "runs" / time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    folder.mkdir(parents=True)
    (folder / "meta.json").write_text(json.dumps({"meta": meta, "scenarios": scenarios}, indent=1))
    done: list[dict] = []
    left_s = estimate
    try:
        for number, run in enumerate(runs, 1):
            say(f"[{number}/{len(runs)}, {left_s / 60:.0f} min left] round {run.round} {run.scenario['id']} {run.peer.title}")
            found = carry_out(run, used)
            left_s -= run.scenario["takes_s"]
            say(f"    {line(found, run.scenario)}")
            name = f"{number:03}-{found['scenario']}-{found['peer']}-{found['round']}.json"
            (folder / name).write_text(json.dumps(found, indent=1))
            done.append(found)
            if number == len(runs) or runs[number].round != run.round:
                write(meta, scenarios, done)
            time.sleep(BETWEEN_RUNS_S)
    except KeyboardInterrupt:
        say("stopped: the table has what was measured until now")
        write(meta, scenarios, done)
        return 130
    print((RESULTS / "peers.md").read_text())
    say(f"table: {RESULTS / 'peers.md'}\npage:  {RESULTS / 'peers.html'}\nruns:  {folder}")
    return 0


def again() -> int:
    """Writes table and page from the newest folder of runs."""
    folder = max((RESULTS / "runs").iterdir(), default=None) if (RESULTS / "runs").exists() else None
    if folder is None:
        raise SystemExit("there are no results yet: run make bench-peers")
    known = json.loads((folder / "meta.json").read_text())
    with open(PEERS / "plan.toml", "rb") as file:
        current = {scenario["id"]: scenario for scenario in tomllib.load(file)["scenario"]}
    scenarios = [current.get(scenario["id"], scenario) for scenario in known["scenarios"]]
    found = [json.loads(path.read_text()) for path in sorted(folder.glob("[0-9]*.json"))]
    write(known["meta"], scenarios, found)
    say(f"written from {len(found)} runs in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(again() if sys.argv[1:] == ["again"] else main())
