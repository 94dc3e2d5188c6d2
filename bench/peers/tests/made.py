"""Runs as the load tester reports them, made up."""

from bench.peers.results import Outcome

PEERS = {name: {"title": name.title(), "version": "1"} for name in ("wiresocket", "y-sweet", "uwebsockets")}
META = {
    "processor": "P", "cores": 2, "memory_gib": 4.0, "kernel": "6", "server_core": 0, "generator_core": 1, "commit": "c",
    "date": "d", "rounds": 3, "narrowed": [], "runs": 0, "outbox_bytes_max": 2**20, "peers": PEERS, "missing": {},
}  # fmt: skip
CPU = {"name": "CPU per delivery", "unit": "µs", "path": "typing.cpu_per_delivery_us"}
DELIVERIES = {"name": "deliveries/s", "unit": "", "path": "ramp.best.deliveries_per_s", "better": "high"}


def run(peer: str, result: dict | None, round_: int = 1, **others) -> dict:
    found = {"scenario": "S", "peer": peer, "round": round_, "status": "ok", "reason": "", "busy": False}
    if result is not None:
        found["report"] = {"result": result, "scenario": {"clients": 50}}
    return found | others


def typed(peer: str, cpu_us: float, round_: int = 1, **others) -> dict:
    return run(peer, {"typing": {"cpu_per_delivery_us": cpu_us}}, round_, **others)


def ramp(peer: str, most: float, round_: int = 1, **limit) -> dict:
    return run(peer, {"ramp": {"best": {"deliveries_per_s": most}, "out_of_time": False} | limit}, round_)


def outcome(found: list[dict], metric: dict = CPU, title: str = "Title", meta: dict = {}, **scenario) -> Outcome:
    return Outcome(META | meta, [{"id": "S", "title": title, "args": ["s"], "metric": [metric], **scenario}], found)
