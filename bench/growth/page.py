"""The growth curves as Markdown tables and as one self-contained HTML page with plots."""

import math
from html import escape
from statistics import median

from bench.peers.page import STYLE
from bench.peers.figures import text

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 440, 200, 44, 16, 18, 40


def points(curve: dict) -> list[tuple[int, list[float], bool]]:
    """Each point with its rounds' µs per delivery, and whether another process was busy during one."""
    found = []
    for point in sorted({run["point"] for run in curve["runs"]}):
        runs = [run for run in curve["runs"] if run["point"] == point and not run["reason"]]
        if runs:
            found.append((point, [run["cpu_per_delivery_us"] for run in runs], any(run["busy"] for run in runs)))
    return found


def failures(curve: dict) -> list[str]:
    return sorted({f"{run['point']:,}: {run['reason']}" for run in curve["runs"] if run["reason"]})


def verdict(curve: dict) -> str:
    medians = [median(values) for _, values, _ in points(curve)]
    if len(medians) < 2:
        return ""
    return f"Last by first point: ×{text(medians[-1] / medians[0])}; highest by lowest: ×{text(max(medians) / min(medians))}."


def about(meta: dict) -> str:
    return (
        f"{meta['date']}, commit {meta['commit']}, {meta['processor']}, Linux {meta['kernel']}; the server on core "
        f"{meta['server_core']}. CPU time (user and system) of the server for each delivery: median, lowest and highest "
        f"of the rounds ({meta['rounds']}). A star: another process was busy meanwhile."
    )


def markdown(meta: dict, curves: list[dict]) -> str:
    lines = [about(meta), ""]
    for curve in curves:
        lines += [f"### {curve['title']}", "", f"| {curve['axis']} | CPU per delivery | lowest–highest | memory before |"]
        lines.append("| ---: | ---: | ---: | ---: |")
        for point, values, busy in points(curve):
            before = median(run["resident_mb"] for run in curve["runs"] if run["point"] == point and not run["reason"])
            spread = f"{text(min(values))}–{text(max(values))} µs"
            lines.append(f"| {point:,} | {text(median(values))} µs{'*' if busy else ''} | {spread} | {text(before)} MB |")
        lines += ["", *(f"Failed at {failure}" for failure in failures(curve)), verdict(curve), curve["says"], ""]
    return "\n".join(lines)


def html(meta: dict, curves: list[dict]) -> str:
    body = [f'<h1>What a delivery costs as work grows</h1><p class="soft">{escape(about(meta))}</p>']
    for curve in curves:
        body.append(f"<h2>{escape(curve['title'])}</h2>{plot(curve)}<p>{escape(verdict(curve))}</p>")
        body += [f'<p class="bad">Failed at {escape(failure)}</p>' for failure in failures(curve)]
        body.append(f'<p class="soft">{escape(curve["says"])}</p>')
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    return (
        f'<!doctype html><html lang="en"><head>{head}<title>What a delivery costs as work grows</title>'
        f"<style>{STYLE}</style></head><body>{''.join(body)}</body></html>\n"
    )


def plot(curve: dict) -> str:
    """Both axes start where they should: the upright one at zero, the other, by powers, at the first point."""
    found = points(curve)
    if not found:
        return "<p>Nothing was measured.</p>"
    first, last = math.log(found[0][0]), math.log(found[-1][0])
    highest = nice(max(max(values) for _, values, _ in found))

    def x(point: int) -> float:
        share = (math.log(point) - first) / (last - first) if last > first else 0.5
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(us: float) -> float:
        return HEIGHT - BOTTOM - us / highest * (HEIGHT - TOP - BOTTOM)

    label = f"{curve['title']}: " + ", ".join(f"{point} {text(median(values))} µs" for point, values, _ in found)
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">']
    for us in (0, highest / 2, highest):
        parts.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(us):.1f}" y2="{y(us):.1f}"/>')
        parts.append(f'<text class="soft" x="{LEFT - 6}" y="{y(us) + 4:.1f}" text-anchor="end">{us:g}</text>')
    line = " ".join(f"{x(point):.1f},{y(median(values)):.1f}" for point, values, _ in found)
    parts.append(f'<polyline points="{line}" fill="none" stroke="var(--ours)" stroke-width="2"/>')
    for point, values, _ in found:
        at, low, high = x(point), y(min(values)), y(max(values))
        parts.append(f'<line class="whisker" x1="{at:.1f}" x2="{at:.1f}" y1="{low:.1f}" y2="{high:.1f}"/>')
        parts.append(f'<circle class="ours" cx="{at:.1f}" cy="{y(median(values)):.1f}" r="4"/>')
        parts.append(f'<text x="{at:.1f}" y="{HEIGHT - BOTTOM + 17}" text-anchor="middle">{short(point)}</text>')
    parts.append(f'<text class="soft" x="{WIDTH - RIGHT}" y="{HEIGHT - 6}" text-anchor="end">{escape(curve["axis"])}</text>')
    parts.append(f'<text class="soft" x="0" y="11">µs per delivery</text></svg>')
    return "".join(parts)


def nice(highest: float) -> float:
    """The next of 1, 2, 4, 6, 8 and 10 times a power of ten."""
    power = 10 ** math.floor(math.log10(highest))
    return next(step * power for step in (1, 2, 4, 6, 8, 10) if step * power >= highest)


def short(number: int) -> str:
    for unit, name in ((10**6, "M"), (10**3, "k")):
        if number >= unit and number % unit == 0:
            return f"{number // unit}{name}"
    return str(number)
