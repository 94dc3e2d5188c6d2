"""One run: a fresh server, the load tester at it, and what else the machine did meanwhile."""

import json
import os
import subprocess
import time
from pathlib import Path

from bench.peers import machine, servers
from bench.peers.plan import Run
from bench.peers.servers import LOADTEST

# A run during which others used more of the two cores than this is marked.
STRANGERS_PERCENT = 10


def drive(run: Run, server: servers.Server, used: machine.Cores) -> dict:
    """Lets the load tester at a server. What went wrong is in `reason`, never an exception."""
    arguments = [part.format(key_file=server.key_file, claims=server.claims) for part in run.scenario["args"]]
    command = [LOADTEST, "run", *arguments, "--url", f"ws://127.0.0.1:{server.port}", *run.peer.arguments]
    if "--key-file" not in arguments:
        command += server.credentials
    with open(server.folder / "report", "wb") as report, open(server.folder / "errors", "wb") as errors:
        tester = servers.child(
            [*command, "--pid", server.pid, "--json"], used.generator, stdout=report, stderr=errors
        )
        try:
            tester.wait(run.scenario["timeout_s"])
        except subprocess.TimeoutExpired:
            return {"status": "timeout", "reason": f"not done after {run.scenario['timeout_s']} s"}
        finally:
            servers.end(tester)
    crash = f"; the server ended with {server.process.returncode}" if server.process.poll() is not None else ""
    return judged(server.folder, tester.returncode, crash)


def judged(folder: Path, code: int, crash: str) -> dict:
    errors = (folder / "errors").read_text(errors="replace").strip()
    try:
        report = json.loads((folder / "report").read_text())
    except ValueError:
        return {"status": "failed", "reason": (errors.replace("\n", " ")[-300:] or f"exit code {code}") + crash}
    if code == 0 and report["ok"]:
        return {"status": "ok", "reason": "", "report": report}
    return {"status": "wrong", "reason": "; ".join(report["failures"])[:300], "report": report}


def carry_out(run: Run, used: machine.Cores, quiet: machine.Quiet) -> dict:
    noise = quiet.wait()
    started, before_s = time.monotonic(), sum(os.times()[:4])
    strangers = machine.Strangers.watch(used)
    found = {
        "scenario": run.scenario["id"],
        "peer": run.peer.name,
        "round": run.round,
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "noise_before": noise,
    }
    try:
        server = run.peer.start(used.server)
    except (servers.ServerError, OSError, subprocess.SubprocessError) as error:
        found |= {"status": "failed", "reason": f"it doesn't start: {error}"}
    else:
        try:
            found |= drive(run, server, used)
        finally:
            server.stop()
    # Both have ended and been waited for: their time is among that of this process's children.
    percent = strangers.percent(sum(os.times()[:4]) - before_s)
    return found | {
        "strangers_percent": round(percent, 1),
        "busy": bool(noise) or percent > STRANGERS_PERCENT or not used.apart,
        "took_s": round(time.monotonic() - started, 1),
    }
