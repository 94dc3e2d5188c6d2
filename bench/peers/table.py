"""The comparison as one Markdown table."""

from bench.peers import results
from bench.peers.results import Cell, Outcome, Row

VERDICT = {True: "✓", False: "✗", None: "?"}


def markdown(outcome: Outcome) -> str:
    peers = list(outcome.peers)
    lines = [
        "| scenario | metric | " + " | ".join(outcome.title(peer) for peer in peers) + " | target |",
        "| --- | --- | " + " | ".join("---:" for _ in peers) + " | --- |",
    ]
    notes: list[str] = []
    for at, row in enumerate(outcome.rows):
        first = at == 0 or outcome.rows[at - 1].scenario is not row.scenario
        title = f"**{row.scenario['id']}** {row.scenario['title']}" if first else ""
        cells = [cell(row, peer, notes) for peer in peers]
        targets = "<br>".join(f"{VERDICT[target.reached]} {target.text}" for target in row.targets)
        name = f"{row.metric['name']}, {row.unit}" if row.unit else row.metric["name"]
        lines.append(f"| {title} | {name} | " + " | ".join(cells) + f" | {targets} |")
    return "\n".join([*about(outcome), "", *lines, "", *footnotes(outcome, notes)]) + "\n"


def cell(row: Row, peer: str, notes: list[str]) -> str:
    found = row.cells.get(peer)
    if found is None:
        return "–"
    number = ""
    if found.reason:
        note = found.reason.replace("|", "/").replace("\n", " ")
        if note not in notes:
            notes.append(note)
        number = f" [{notes.index(note) + 1}]"
    if found.median is None:
        return f"failed{number}"
    ratio = row.ratio(peer)
    times = f" ×{results.text(ratio)}" if ratio is not None else ""
    median = results.text(found.median)
    return f"{f'**{median}**' if peer == results.OURS else median}{spread(found)}{times}{'*' if found.busy else ''}{number}"


def spread(found: Cell) -> str:
    if len(found.values) < 2:
        return ""
    return f" ({results.text(min(found.values))}–{results.text(max(found.values))})"


def about(outcome: Outcome) -> list[str]:
    meta = outcome.meta
    versions = ", ".join(f"{peer['title']} {peer['version']}" for peer in outcome.peers.values())
    return [
        f"{meta['date']}, commit {meta['commit']}, {meta['processor']}, {meta['cores']} cores, "
        f"{meta['memory_gib']} GiB, Linux {meta['kernel']}. The server has core {meta['server_core']} for itself, the "
        f"load tester core {meta['generator_core']}; a fresh server for each run, the peers in turn.",
        f"Versions: {versions}.",
        f"Median of the rounds (lowest–highest), {meta['rounds']} of them where nothing else is said; × is the peer's median by WireSocket's. "
        "Targets: ✓ reached, ✗ missed, ? not measured.",
    ]


def footnotes(outcome: Outcome, notes: list[str]) -> list[str]:
    lines = [f"[{number}] {note}" for number, note in enumerate(notes, 1)]
    lines += [f"{scenario['id']} was skipped: {scenario['skipped']}." for scenario in outcome.skipped]
    lines += [f"{peer} was left out: {why}." for peer, why in outcome.meta["missing"].items()]
    if outcome.marked:
        lines.append(f"\\* In {len(outcome.marked)} runs other processes used more than a tenth of a core, or cores were shared.")
    return [part for line in lines for part in (line, "")]
