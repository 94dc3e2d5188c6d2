"""Where results are: each measurement has a folder with its runs, its table and its page.

A whole comparison, done to its end, is also what bench/results/peers.md and peers.html show; nothing less replaces it.
"""

import json
import os
import time
from pathlib import Path

from bench.peers import arguments, page, plan, table
from bench.peers.results import Outcome
from bench.peers.servers import ROOT

RESULTS = ROOT / "bench" / "results"
RUNS = RESULTS / "runs"


def new_folder(meta: dict, scenarios: list[dict]) -> Path:
    folder = RUNS / time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    folder.mkdir(parents=True)
    (folder / "meta.json").write_text(json.dumps({"meta": meta, "scenarios": scenarios}, indent=1))
    return folder


def is_whole(meta: dict, found: list[dict]) -> bool:
    # Measurements of before this was noted count as narrowed.
    return meta.get("narrowed") == [] and len(found) == meta["runs"]


def write(folder: Path, meta: dict, scenarios: list[dict], found: list[dict]) -> list[Path]:
    """Writes the table and the page of what was found until now; returns where."""
    outcome = Outcome(meta, scenarios, found)
    texts = {"peers.md": table.markdown(outcome), "peers.html": page.html(outcome)}
    folders = [RESULTS, folder] if is_whole(meta, found) else [folder]
    for place in folders:
        for name, text in texts.items():
            (place / name).write_text(text)
    return [folders[0] / name for name in texts]


def read(folder: Path) -> tuple[dict, list[dict], list[dict]]:
    """A measurement's meta, its scenarios with today's metrics and targets, and its runs."""
    known = json.loads((folder / "meta.json").read_text())
    current = {scenario["id"]: scenario for scenario in plan.read()}
    scenarios = []
    for scenario in known["scenarios"]:
        # What was run stays as it was: the title and the arguments.
        now = current.get(scenario["id"], {})
        scenarios.append(scenario | {key: now[key] for key in ("metric", "note") if key in now})
    found = [json.loads(path.read_text()) for path in sorted(folder.glob("[0-9]*.json"))]
    return known["meta"], scenarios, found


def chosen_folder() -> Path:
    """RUNS=, or the newest whole comparison, or the newest measurement."""
    folders = sorted(RUNS.iterdir(), reverse=True) if RUNS.exists() else []
    if not folders:
        raise SystemExit("there are no results yet: run make bench-peers")
    if os.environ.get("RUNS"):
        return RUNS / arguments.names("RUNS", [folder.name for folder in folders])[0]
    whole = (folder for folder in folders if is_whole(*(read(folder)[at] for at in (0, 2))))
    return next(whole, folders[0])
