"""What our figures have to be: bounds, fixed or by a peer's figure or by our configuration."""

from dataclasses import dataclass
from statistics import median

from bench.peers.figures import at, text

SIGNS = {"below": "<", "at_most": "≤", "at_least": "≥"}
VERDICTS = {True: "✓", False: "✗", None: "?"}
# Forms of a document in memory, and what catches two readers up: as tests/stalled.rs allows them.
TEXTS_IN_MEMORY = 6


@dataclass
class Target:
    text: str
    # None: not measured.
    reached: bool | None

    @property
    def verdict(self) -> str:
        return VERDICTS[self.reached]


@dataclass
class Bound:
    # In the table's unit; None if what it depends on wasn't measured.
    wanted: float | None
    # What it is made of, if a reader couldn't know.
    made_of: str = ""


def kind(target: dict) -> str:
    return next(sign for sign in SIGNS if sign in target)


def holds(target: dict, ours: float, wanted: float) -> bool:
    return {"below": ours < wanted, "at_most": ours <= wanted, "at_least": ours >= wanted}[kind(target)]


def bound(target: dict, metric: dict, meta: dict, runs: list[dict], other: float | None) -> Bound:
    """`runs`: ours, with reports. `other`: the median of the peer that the target is `of`."""
    limit = target[kind(target)]
    if limit == "stalled readers' memory":
        return stalled_memory(metric, meta, runs)
    if "of" in target:
        return Bound(limit * other if other is not None else None)
    return Bound(limit)


def text_of(target: dict, unit: str, bound: Bound, other: str) -> str:
    sign, limit = SIGNS[kind(target)], target[kind(target)]
    if "of" in target:
        return f"{sign} {limit} × {other}"
    if isinstance(limit, str):
        return f"{sign} {text(bound.wanted)} {unit} ({bound.made_of})" if bound.wanted is not None else f"{sign} {limit}"
    return f"{sign} {limit:,} {unit}".strip()


def stalled_memory(metric: dict, meta: dict, runs: list[dict]) -> Bound:
    """What a node may take while readers don't read: each may have its configured queue; the rest is the document."""
    queue = meta.get("outbox_bytes_max")
    found = [typing for run in runs if (typing := at(run["report"], "result.typing"))]
    if not queue or not found:
        return Bound(None)
    readers = at(found[0], "slow_readers.slow_readers")
    before = median(at(typing, "server.memory_before.resident_bytes") for typing in found)
    typed = median(typed_bytes(run["report"]) for run in runs)
    scale = metric["scale"]
    parts = (
        f"{text(before * scale)} at the start, {readers} × outbox_bytes_max of {text(queue * scale)}, "
        f"{TEXTS_IN_MEMORY} × the {text(typed * scale)} typed"
    )
    return Bound((before + readers * queue + TEXTS_IN_MEMORY * typed) * scale, parts)


def typed_bytes(report: dict) -> float:
    """What all writers typed: updates by the mean length of the scenario's mix."""
    mix = at(report, "scenario.typing.mix") or {"characters": 1}
    characters, pastes, formatting = (mix.get(kind) or 0 for kind in ("characters", "pastes", "formatting"))
    mean = (characters + pastes * mix.get("paste_length", 0)) / (characters + pastes + formatting)
    return at(report, "result.typing.updates_sent") * mean
