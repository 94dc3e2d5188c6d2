"""What the runs found: medians of rounds, spreads, ratios and targets. No files, no formats."""

from dataclasses import dataclass
from statistics import median

OURS = "wiresocket"


def value(found: dict, metric: dict) -> float | None:
    """A metric of one run, in the table's unit. A wrong result has none: it may be fast for being wrong."""
    if found["status"] != "ok":
        return None
    result = found["report"]["result"]
    number = at(result, metric["path"])
    by = at(result, metric["by"]) if "by" in metric else 1
    return number * metric.get("scale", 1.0) / by if number is not None and by else None


def at(result: dict, path: str) -> float | None:
    """What is at a path of keys and of places in lists."""
    for key in path.split("."):
        if isinstance(result, list):
            place = int(key)
            result = result[place] if -len(result) <= place < len(result) else None
        else:
            result = result.get(key) if isinstance(result, dict) else None
    return result


def text(number: float) -> str:
    """Three digits that mean something; none behind the point for thousands."""
    if number >= 1000:
        return f"{round(number, 2 - len(str(int(number)))):,.0f}"
    return f"{number:.0f}" if number >= 100 else f"{number:.1f}" if number >= 10 else f"{number:.2f}"


@dataclass
class Cell:
    """One peer in one row: the values of its rounds, or why there are none."""

    values: list[float]
    reason: str
    rounds: int
    busy: bool

    @property
    def median(self) -> float | None:
        return median(self.values) if self.values else None


@dataclass
class Target:
    text: str
    # None: not measured.
    reached: bool | None


@dataclass
class Row:
    scenario: dict
    metric: dict
    cells: dict[str, Cell]
    targets: list[Target]

    @property
    def unit(self) -> str:
        return self.metric["unit"]

    def ratio(self, peer: str) -> float | None:
        """The peer's median by ours."""
        ours, theirs = self.cells.get(OURS), self.cells.get(peer)
        if not ours or not theirs or not ours.median or theirs.median is None or peer == OURS:
            return None
        return theirs.median / ours.median


class Outcome:
    """All rows of a comparison, in the plan's order."""

    def __init__(self, meta: dict, scenarios: list[dict], found: list[dict]):
        self.meta = meta
        self.found = found
        self.peers: dict[str, dict] = meta["peers"]
        self.skipped = [scenario for scenario in scenarios if "skipped" in scenario]
        self.rows = [self._row(scenario, metric) for scenario in scenarios for metric in scenario["metric"]
                     if "skipped" not in scenario]

    @property
    def marked(self) -> list[dict]:
        return [found for found in self.found if found.get("busy")]

    def title(self, peer: str) -> str:
        return self.peers[peer]["title"] if peer in self.peers else peer

    def _row(self, scenario: dict, metric: dict) -> Row:
        cells = {}
        for peer in self.peers:
            runs = [found for found in self.found if (found["scenario"], found["peer"]) == (scenario["id"], peer)]
            if not runs:
                continue
            values = [number for found in runs if (number := value(found, metric)) is not None]
            reasons = [f"{found['status']}: {found['reason']}" for found in runs if found["status"] != "ok"]
            reason = reasons[0] if reasons else "" if values else "the load tester doesn't report it"
            cells[peer] = Cell(values, reason, len(runs), any(found.get("busy") for found in runs))
        row = Row(scenario, metric, cells, [])
        row.targets = [self._target(row, target) for target in metric.get("target", [])]
        return row

    def _target(self, row: Row, target: dict) -> Target:
        at_least = "above" in target
        bound = target["above"] if at_least else target["below"]
        sign = "≥" if at_least else "≤"
        wanted: float | None = bound
        says = f"{sign} {bound:,} {row.unit}".strip()
        if other := target.get("of"):
            cell = row.cells.get(other)
            wanted = bound * cell.median if cell and cell.median is not None else None
            says = f"{sign} {bound} × {self.title(other)}"
        ours = row.cells.get(OURS)
        if wanted is None or ours is None or ours.median is None:
            return Target(says, None)
        if ours.reason:  # a round that failed, or was wrong: no figure of the others makes up for it
            return Target(says, False)
        return Target(says, ours.median >= wanted if at_least else ours.median <= wanted)
