"""The comparison as one HTML page: for each metric a bar for each peer, whiskers from the lowest to the highest round.

Self-contained: no script, no font, nothing from elsewhere. Follows the system's light or dark; the drawing is as wide
as the page, so a phone shows it too. The colours say only "ours" or "a peer": names and figures are text.
"""

from html import escape

from bench.peers import notes, results
from bench.peers.notes import Notes
from bench.peers.results import Outcome, Row

WIDTH, NAMES, BAR, GAP, FIGURES = 440, 120, 18, 10, 150
CLASSES = {True: "good", False: "bad", None: "soft"}

STYLE = """
:root { color-scheme: light dark; --page: #fff; --ink: #1a1c1f; --soft: #667; --line: #d8dbe0; --ours: #1f6feb; --peer: #9aa4b2; --good: #1a7f37; --bad: #b3261e }
@media (prefers-color-scheme: dark) { :root { --page: #14161a; --ink: #e8eaed; --soft: #9aa0aa; --line: #34383f; --ours: #5a9cff; --peer: #6b7686; --good: #5fd17a; --bad: #ff8a80 } }
body { margin: 0 auto; max-width: 46rem; padding: 1.5rem 1rem 4rem; background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, sans-serif }
h1 { font-size: 1.5rem; margin: 0 0 .5rem } h2 { font-size: 1.1rem; margin: 2.25rem 0 .25rem } h3 { font-size: .95rem; font-weight: 600; margin: 1rem 0 .25rem }
p { margin: .3rem 0 } .soft { color: var(--soft); font-size: .875rem }
svg { display: block; width: 100%; max-width: 34rem; height: auto; overflow: visible } text { font-size: 13px; fill: var(--ink) }
text.soft { fill: var(--soft); font-size: 13px } .ours { fill: var(--ours) } .peer { fill: var(--peer) } .whisker { stroke: var(--ink); stroke-width: 1.5 } .axis { stroke: var(--line) }
.good { color: var(--good) } .bad { color: var(--bad) } ul { margin: .25rem 0; padding-left: 1.25rem }
"""


def html(outcome: Outcome) -> str:
    body = [f"<h1>WireSocket beside its peers</h1>{summary(outcome)}"]
    body += [f'<p class="soft">{escape(line)}</p>' for line in notes.above(outcome)]
    marks = Notes()
    scenario = None
    for row in outcome.rows:
        if row.scenario is not scenario:
            scenario = row.scenario
            body.append(f"<h2>{escape(scenario['id'])}: {escape(outcome.describe(scenario))}</h2>")
        body.append(figure(outcome, row, marks))
    if lines := notes.below(outcome, marks):
        body.append(f"<h2>Notes</h2>{listed(lines)}")
    body.append(f"<h2>What was run</h2>{listed(notes.commands(outcome))}")
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    return (
        f'<!doctype html><html lang="en"><head>{head}<title>WireSocket beside its peers</title>'
        f"<style>{STYLE}</style></head><body>{''.join(body)}</body></html>\n"
    )


def listed(lines: list[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


def summary(outcome: Outcome) -> str:
    targets = [target for row in outcome.rows for target in row.targets]
    reached = sum(target.reached is True for target in targets)
    open_ = sum(target.reached is None for target in targets)
    return f"<p>{reached} of {len(targets)} targets reached{f', {open_} not measured' if open_ else ''}.</p>"


def figure(outcome: Outcome, row: Row, marks: Notes) -> str:
    better = "more is better" if row.metric.get("better") == "high" else "less is better"
    unit = f"{row.unit}, " if row.unit else ""
    targets = "".join(
        f'<p class="{CLASSES[target.reached]}">{target.verdict} {escape(target.text)}</p>' for target in row.targets
    )
    title = f"<h3>{escape(row.metric['name'])} <span class=\"soft\">({escape(unit)}{better})</span></h3>"
    return f"<section>{title}{bars(outcome, row, marks)}{targets}</section>"


def bars(outcome: Outcome, row: Row, marks: Notes) -> str:
    highest = max((max(found.values) for found in row.cells.values() if found.values), default=0) or 1
    scale = (WIDTH - NAMES - FIGURES) / highest
    height = len(row.cells) * (BAR + GAP)
    label = f"{row.metric['name']}: " + ", ".join(
        f"{outcome.title(peer)} {found.text}" for peer, found in row.cells.items()
    )
    parts = [f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(label)}">']
    parts.append(f'<line class="axis" x1="{NAMES}" x2="{NAMES}" y1="0" y2="{height - GAP}"/>')
    for at, peer in enumerate(row.cells):
        parts.append(bar(outcome, row, peer, at * (BAR + GAP), scale, marks))
    return "".join(parts) + "</svg>"


def bar(outcome: Outcome, row: Row, peer: str, top: int, scale: float, marks: Notes) -> str:
    found = row.cells[peer]
    middle = top + BAR / 2
    name = f'<text x="{NAMES - 8}" y="{middle + 4.5}" text-anchor="end">{escape(outcome.title(peer))}</text>'
    note = marks.marks(found)
    if found.median is None:
        return f'{name}<text class="soft" x="{NAMES + 6}" y="{middle + 4.5}">failed{note}</text>'
    length, low, high = (edge * scale for edge in (found.median, min(found.values), max(found.values)))
    ratio = row.ratio(peer)
    times = f' <tspan class="soft" fill-opacity=".75">{ratio}</tspan>' if ratio else ""
    whisker = ""
    if len(found.values) > 1:
        left, right = NAMES + low, NAMES + high
        whisker = (
            f'<path class="whisker" fill="none" d="M{left:.1f} {middle}H{right:.1f}M{left:.1f} {middle - 4}v8'
            f'M{right:.1f} {middle - 4}v8"/>'
        )
    kind = "ours" if peer == results.OURS else "peer"
    return (
        f'{name}<rect class="{kind}" x="{NAMES}" y="{top}" width="{max(1.0, length):.1f}" height="{BAR}" rx="2"/>'
        f'{whisker}<text x="{NAMES + max(length, high) + 8:.1f}" y="{middle + 4.5}">'
        f"{found.text}{times}{'*' if found.busy else ''}{note}</text>"
    )
