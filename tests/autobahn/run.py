#!/usr/bin/env python3
"""Autobahn's WebSocket cases against the echo server (echo.rs): tests/autobahn/run.py ECHO KOSOKU [CASES...]

CASES are patterns such as 9.* or 6.4.1; without any, all but 9.* (performance: minutes) and 12.*, 13.* (compression,
which the server doesn't negotiate). Reads the report that kosoku writes, prints every case that failed, and exits with 1
if one did or if fewer ran than there are.
"""
import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

LONG, COMPRESSION = "9.*", ["12.*", "13.*"]
# What a run without arguments must have: a selection that matches nothing proves nothing.
CASES_MIN = 240
# Autobahn's words: a case that may be done in several ways is NON-STRICT in one of them, INFORMATIONAL has no wrong one.
GOOD = {"OK", "NON-STRICT", "INFORMATIONAL"}


def selection(patterns: list[str]) -> list[str]:
    if patterns:
        return [word for pattern in patterns for word in ("-i", pattern)]
    return [word for pattern in [LONG, *COMPRESSION] for word in ("-x", pattern)]


def run(echo: str, kosoku: str, patterns: list[str], folder: Path) -> dict[str, dict[str, str]]:
    """Every case with its result."""
    with subprocess.Popen([echo], stdout=subprocess.PIPE, text=True) as server:
        try:
            address = server.stdout.readline().strip()
            command = [kosoku, "-m", "fuzzingclient", *selection(patterns), "-p", "2", "-o", str(folder), address]
            # Its exit code says what the report says; without a report it says why.
            client = subprocess.run(command, capture_output=True, text=True, check=False)
        finally:
            server.kill()
    index = folder / "index.json"
    if not index.is_file():
        sys.exit(f"kosoku wrote no report:\n{client.stdout}{client.stderr}")
    (results,) = json.loads(index.read_text()).values()
    return results


def main() -> None:
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    echo, kosoku, *patterns = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        results = run(echo, kosoku, patterns, Path(folder))
    failed = {
        case: result
        for case, result in results.items()
        if result["behavior"] not in GOOD or result["behaviorClose"] not in GOOD
    }
    by_number = sorted(failed, key=lambda case: [int(part) for part in case.split(".")])
    for case in by_number:
        print(f"case {case}: {failed[case]['behavior']}, closing {failed[case]['behaviorClose']}")
    counts = Counter(result["behavior"] for result in results.values())
    told = ", ".join(f"{count} {behavior}" for behavior, count in sorted(counts.items()))
    print(f"Autobahn: {len(results)} cases, {len(failed)} failed ({told})")
    if not patterns and len(results) < CASES_MIN:
        sys.exit(f"only {len(results)} cases ran; there are {CASES_MIN} or more")
    sys.exit(1 if failed or not results else 0)


if __name__ == "__main__":
    main()
