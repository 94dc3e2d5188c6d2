"""What the runs found: medians of rounds, spreads, ratios and what has to be said of them. No files, no formats."""

import re
from dataclasses import dataclass, field
from statistics import median

from bench.peers import targets
from bench.peers.figures import at, text
from bench.peers.targets import Target

OURS = "wiresocket"
LIMITS = {
    "time": "the search ran out of time",
    "load tester": "the load tester was the limit, not the server",
}


def value(found: dict, metric: dict) -> float | None:
    """A metric of one run, in the table's unit. A wrong result has none (it may be fast for being wrong), except where
    the metric says how wrong it is.
    """
    if "report" not in found or (found["status"] != "ok" and not metric.get("even_if_wrong")):
        return None
    result = found["report"]["result"]
    number = at(result, metric["path"])
    by = at(result, metric["by"]) if "by" in metric else 1
    return number * metric.get("scale", 1.0) / by if number is not None and by else None


def lower_bound(found: dict, metric: dict) -> str:
    """Why the server could do more than this run shows, or nothing. Only searches for a maximum have it."""
    ramp = found["report"]["result"].get("ramp") if "report" in found else None
    if not ramp or not metric["path"].startswith("ramp."):
        return ""
    # Load testers of before this was noted knew only of the time.
    if not ramp.get("lowerBound", ramp["out_of_time"]):
        return ""
    return LIMITS[ramp.get("limitedBy", "time")]


def cut_short(found: dict) -> str:
    """What a run did less of than it was asked for, or nothing."""
    join = at(found, "report.result.join") or {}
    if join.get("joins", 0) >= join.get("joins_asked", 0):
        return ""
    return f"the time was up before all {join['joins_asked']:,} joins: the figure is of those until then"


@dataclass
class Cell:
    """One peer in one row: the values of its rounds, and what has to be said of them."""

    rounds: int
    values: list[float]
    # Why rounds failed or are wrong: the first of them.
    reason: str = ""
    at_least: bool = False
    busy: bool = False
    notes: list[str] = field(default_factory=list)

    @property
    def median(self) -> float | None:
        return median(self.values) if self.values else None

    @property
    def text(self) -> str:
        if self.median is None:
            return "failed"
        return f"{'≥ ' if self.at_least else ''}{text(self.median)}"


@dataclass
class Row:
    scenario: dict
    metric: dict
    cells: dict[str, Cell]
    targets: list[Target] = field(default_factory=list)

    @property
    def unit(self) -> str:
        return self.metric["unit"]

    def ratio(self, peer: str) -> str:
        """The peer's median by ours, or nothing if it can't be told: two lower bounds have no ratio."""
        ours, theirs = self.cells.get(OURS), self.cells.get(peer)
        if peer == OURS or not ours or not theirs or not ours.median or theirs.median is None:
            return ""
        if ours.at_least and theirs.at_least:
            return ""
        sign = "≤ " if ours.at_least else "≥ " if theirs.at_least else ""
        return f"×{sign}{text(theirs.median / ours.median)}"


class Outcome:
    """All rows of a comparison, in the plan's order."""

    def __init__(self, meta: dict, scenarios: list[dict], found: list[dict]):
        self.meta = meta
        self.found = found
        self.peers: dict[str, dict] = meta["peers"]
        self.skipped = [scenario for scenario in scenarios if "skipped" in scenario]
        self.scenarios = [scenario for scenario in scenarios if "skipped" not in scenario]
        self.rows = [self._row(scenario, metric) for scenario in self.scenarios for metric in scenario["metric"]]

    @property
    def marked(self) -> list[dict]:
        return [found for found in self.found if found.get("busy")]

    def title(self, peer: str) -> str:
        return self.peers[peer]["title"] if peer in self.peers else peer

    def runs(self, scenario: dict, peer: str | None = None) -> list[dict]:
        return [
            found for found in self.found
            if found["scenario"] == scenario["id"] and peer in (None, found["peer"])
        ]  # fmt: skip

    def describe(self, scenario: dict) -> str:
        """The scenario's title, with the figures of what was really run."""
        reports = [found["report"] for found in self.runs(scenario) if "report" in found]

        def figure(match: re.Match) -> str:
            found = next((found for report in reports if (found := at(report, match[1])) is not None), None)
            return "?" if found is None else f"{found:,.0f}" if isinstance(found, float) else f"{found:,}"

        rounds = max((found["round"] for found in self.runs(scenario)), default=0)
        fewer = f" ({rounds} round{'s' if rounds != 1 else ''})" if rounds != self.meta["rounds"] else ""
        return re.sub(r"\{([\w.-]+)\}", figure, scenario["title"]) + fewer

    def _row(self, scenario: dict, metric: dict) -> Row:
        cells = {peer: self._cell(scenario, metric, peer) for peer in self.peers if self.runs(scenario, peer)}
        row = Row(scenario, metric, cells)
        row.targets = [self._target(row, target) for target in metric.get("target", [])]
        return row

    def _cell(self, scenario: dict, metric: dict, peer: str) -> Cell:
        runs = self.runs(scenario, peer)
        measured = [(number, found) for found in runs if (number := value(found, metric)) is not None]
        cell = Cell(len(runs), [number for number, _ in measured], busy=any(found.get("busy") for found in runs))
        if failed := [found for found in runs if found["status"] != "ok"]:
            cell.reason = f"{failed[0]['status']}: {failed[0]['reason']}"
            cell.notes.append(share(len(failed), len(runs)) + cell.reason)
        elif not cell.values:
            cell.notes.append("the load tester doesn't report it")
        limits = [limit for _, found in measured if (limit := lower_bound(found, metric))]
        cell.at_least = bool(limits)
        for limit in sorted(set(limits)):
            cell.notes.append(f"at least that: {share(limits.count(limit), len(runs))}{limit}")
        cell.notes += sorted({short for _, found in measured if (short := cut_short(found))})
        cell.notes += [note["text"] for note in scenario.get("note", []) if peer in note["peers"]]
        return cell

    def _target(self, row: Row, target: dict) -> Target:
        ours = row.cells.get(OURS)
        other = row.cells.get(target.get("of", ""))
        runs = [found for found in self.runs(row.scenario, OURS) if "report" in found]
        bound = targets.bound(target, row.metric, self.meta, runs, other.median if other else None)
        says = targets.text_of(target, row.unit, bound, self.title(target.get("of", "")))
        if bound.wanted is None or ours is None or not (ours.values or ours.reason):
            return Target(says, None)
        if ours.reason or ours.median is None:
            # A round that failed, or was wrong: no figure of the others makes up for it.
            return Target(says, False)
        if other and other.median:
            says += f": {text(ours.median / other.median)} ×"
        return Target(says, targets.holds(target, ours.median, bound.wanted))


def share(some: int, all_: int) -> str:
    return f"in {some} of {all_} rounds " if some < all_ else ""
