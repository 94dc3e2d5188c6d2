"""The comparison as one Markdown table."""

from bench.peers import figures, notes, results
from bench.peers.notes import Notes
from bench.peers.results import Cell, Outcome, Row


def markdown(outcome: Outcome) -> str:
    peers = list(outcome.peers)
    lines = [
        "| scenario | metric | " + " | ".join(outcome.title(peer) for peer in peers) + " | target |",
        "| --- | --- | " + " | ".join("---:" for _ in peers) + " | --- |",
    ]
    marks = Notes()
    for at, row in enumerate(outcome.rows):
        first = at == 0 or outcome.rows[at - 1].scenario is not row.scenario
        title = f"**{row.scenario['id']}** {plain(outcome.describe(row.scenario))}" if first else ""
        cells = [cell(row, peer, marks) for peer in peers]
        wanted = "<br>".join(f"{target.verdict} {plain(target.text)}" for target in row.targets)
        name = f"{row.metric['name']}, {row.unit}" if row.unit else row.metric["name"]
        lines.append(f"| {title} | {name} | " + " | ".join(cells) + f" | {wanted} |")
    footnotes = [part for line in notes.below(outcome, marks) for part in (plain(line), "")]
    ran = [f"- `{line}`" for line in notes.commands(outcome)]
    return "\n".join([*notes.above(outcome), "", *lines, "", *footnotes, "What was run:", "", *ran]) + "\n"


def plain(text: str) -> str:
    """So that neither the table nor emphasis breaks on it."""
    return text.replace("|", "/").replace("\n", " ").replace("*", "\\*")


def cell(row: Row, peer: str, marks: Notes) -> str:
    found = row.cells.get(peer)
    if found is None:
        return "–"
    number = marks.marks(found)
    if found.median is None:
        return f"failed{number}"
    parts = [f"**{found.text}**" if peer == results.OURS else found.text, spread(found), row.ratio(peer)]
    return " ".join(part for part in parts if part) + ("\\*" if found.busy else "") + number


def spread(found: Cell) -> str:
    if len(found.values) < 2:
        return ""
    return f"({figures.text(min(found.values))}–{figures.text(max(found.values))})"
