"""Footnotes, and what is said above and below a comparison: the same for the table and the page."""

from pathlib import Path

from bench.peers.figures import at
from bench.peers.results import Cell, Outcome


class Notes:
    """Numbers footnotes in the order in which cells need them."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def marks(self, cell: Cell) -> str:
        """" [1] [3]" for the notes of a cell."""
        for note in cell.notes:
            if note not in self.texts:
                self.texts.append(note)
        return "".join(f" [{self.texts.index(note) + 1}]" for note in cell.notes)


def above(outcome: Outcome) -> list[str]:
    meta = outcome.meta
    versions = "; ".join(f"{peer['title']} {peer['version']}" for peer in outcome.peers.values())
    apart = meta["server_core"] != meta["generator_core"]
    cores = (
        f"The server has core {meta['server_core']} for itself, the load tester core {meta['generator_core']}"
        if apart
        else f"The server and the load tester share core {meta['server_core']}"
    )
    lines = [
        f"{meta['date']}, commit {meta['commit']}, {meta['processor']}, {meta['cores']} cores, "
        f"{meta['memory_gib']} GiB, Linux {meta['kernel']}. {cores}; a fresh server for each run, the peers in turn.",
        f"Versions: {versions}.",
        f"{rounds(meta['rounds'])} (lowest–highest) unless a title says otherwise; × is the peer's median by "
        "WireSocket's. Targets: ✓ reached, ✗ missed, ? not measured.",
    ]
    if meta.get("narrowed"):
        lines.append(f"Not the whole comparison: {' '.join(meta['narrowed'])}.")
    if len(outcome.found) < meta.get("runs", 0):
        lines.append(f"Not all of it: {len(outcome.found)} of {meta['runs']} runs were done.")
    return lines


def rounds(number: int) -> str:
    return "One round" if number == 1 else f"Median of {number} rounds"


def below(outcome: Outcome, notes: Notes) -> list[str]:
    lines = [f"[{number}] {note}" for number, note in enumerate(notes.texts, 1)]
    for scenario in outcome.scenarios:
        histories = {at(found, "report.result.join.trace") for found in outcome.runs(scenario)} - {None}
        lines += [f"{scenario['id']}: the history is {Path(history).name}." for history in sorted(histories)]
    lines += [f"{scenario['id']} was skipped: {scenario['skipped']}." for scenario in outcome.skipped]
    lines += [f"{peer} was left out: {why}." for peer, why in outcome.meta["missing"].items()]
    if outcome.marked:
        lines.append(
            f"* Other processes used more than a tenth of a core, before or during {len(outcome.marked)} of "
            f"{len(outcome.found)} runs, or memory was short, or cores were shared."
        )
    return lines


def commands(outcome: Outcome) -> list[str]:
    """How each scenario was run."""
    return [f"{scenario['id']}: wiresocket-loadtest run {' '.join(scenario['args'])}" for scenario in outcome.scenarios]
