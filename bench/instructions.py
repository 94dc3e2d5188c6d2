"""`make bench-instructions`: how many instructions each hot path takes, counted by callgrind.

Counts hardly vary between runs, and not with what else the machine does, so a change of one percent is a change. They
do vary between processors (libraries choose their code by it) and compilers: compare on one machine.

PATHS="turn|apply" narrows it (a regular expression); BASE=FILE compares with the JSON of another commit.
Writes bench/results/instructions.json and instructions.md.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.peers import machine
from bench.peers.servers import ROOT, TARGET

PROGRAM = TARGET / "instructions"
RESULTS = ROOT / "bench" / "results"
CASES = 4
TIMEOUT_S = 300


def count(name: str, folder: Path) -> int:
    """Instructions of all cases of a path together."""
    command = [
        "valgrind", "--tool=callgrind", "--collect-atstart=no", "--toggle-collect=*instructions*measured*",
        f"--callgrind-out-file={folder / 'profile'}", PROGRAM, name, str(CASES),
    ]  # fmt: skip
    key = {"WIRESOCKET_BENCH_KEY": str(folder / "key.pem")}
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, env=os.environ | key)
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode or not found or int(found[1]) == 0:
        raise SystemExit(f"{name}: callgrind counted nothing: {done.stderr.strip()[-500:]}")
    return int(found[1])


def table(meta: dict, found: dict[str, float], base: dict | None) -> str:
    before = base["instructions"] if base else {}
    lines = [f"Instructions for each operation: {meta['date']}, commit {meta['commit']}, {meta['processor']}.", ""]
    lines += [f"Compared with commit {base['meta']['commit']}, {base['meta']['processor']}.", ""] if base else []
    lines.append("| path | instructions |" + (" before | change |" if base else ""))
    lines.append("| --- | ---: |" + (" ---: | ---: |" if base else ""))
    for name, each in found.items():
        row = f"| {name} | {each:,.0f} |"
        if base:
            old = before.get(name)
            row += f" {old:,.0f} | {100 * (each / old - 1):+.1f} % |" if old else " – | – |"
        lines.append(row)
    return "\n".join(lines) + "\n"


def main() -> None:
    if not shutil.which("valgrind"):
        raise SystemExit("needs valgrind: apt-get install valgrind")
    base = json.loads(Path(os.environ["BASE"]).read_text()) if os.environ.get("BASE") else None
    wanted = re.compile(os.environ.get("PATHS") or "")
    listed = subprocess.run([PROGRAM], capture_output=True, text=True, check=True).stdout.splitlines()
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        # Looking for primes would take minutes under callgrind.
        subprocess.run([PROGRAM, "--key", Path(folder) / "key.pem"], check=True)
        for operations, name in (line.split("\t") for line in listed):
            if wanted.search(name):
                found[name] = count(name, Path(folder)) / CASES / int(operations)
                print(f"{found[name]:>14,.0f}  {name}", file=sys.stderr, flush=True)
    meta = machine.describe(ROOT, machine.cores())
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "instructions.json").write_text(json.dumps({"meta": meta, "instructions": found}, indent=1))
    (RESULTS / "instructions.md").write_text(table(meta, found, base))
    print(table(meta, found, base))


if __name__ == "__main__":
    main()
