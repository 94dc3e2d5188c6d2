"""What is to be run: the scenarios of plan.toml, as far as ROUNDS, SCENARIOS and PEERS ask for them, in order."""

import subprocess
import tomllib
from dataclasses import dataclass

from bench.peers import arguments, machine, servers
from bench.peers.servers import LOADTEST, PEERS, ROOT

ROUNDS, ROUNDS_MAX = 3, 100


@dataclass
class Run:
    scenario: dict
    peer: servers.Peer
    round: int


@dataclass
class Plan:
    rounds: int
    scenarios: list[dict]
    peers: list[servers.Peer]
    # The variables that make this another comparison than the whole one.
    narrowed: list[str]

    @classmethod
    def from_environment(cls) -> "Plan":
        scenarios = read()
        rounds = arguments.number("ROUNDS", ROUNDS, ROUNDS_MAX)
        wanted = arguments.names("SCENARIOS", [scenario["id"] for scenario in scenarios])
        names = arguments.names("PEERS", [peer.name for peer in servers.ALL])
        narrowed = []
        if rounds != ROUNDS:
            narrowed.append(f"ROUNDS={rounds}")
        if len(wanted) < len(scenarios):
            narrowed.append(f"SCENARIOS={','.join(wanted)}")
        if len(names) < len(servers.ALL):
            narrowed.append(f"PEERS={','.join(names)}")
        plan = cls(
            rounds,
            [scenario for scenario in scenarios if scenario["id"] in wanted],
            [peer for peer in servers.ALL if peer.name in names],
            narrowed,
        )
        if not plan.runs():
            raise arguments.ArgumentError(
                f"PEERS and SCENARIOS: {', '.join(names)} take no part in {', '.join(wanted)} (see bench/peers/plan.toml)"
            )
        return plan

    def skip_what_is_not_known(self) -> None:
        """Marks the scenarios that this load tester doesn't know."""
        usage = subprocess.run([LOADTEST, "run", "--help"], capture_output=True, text=True).stdout
        for scenario in self.scenarios:
            if unknown := not_known(scenario, usage):
                scenario["skipped"] = f"the load tester doesn't know {unknown}"

    def runs(self) -> list[Run]:
        """Each round goes through the scenarios, and in each through the peers."""
        found = []
        for number in range(1, self.rounds + 1):
            # Each round starts with another peer: nobody always runs after the same neighbour.
            shift = (number - 1) % len(self.peers) if self.peers else 0
            for scenario in self.scenarios:
                if number > scenario.get("rounds", self.rounds) or "skipped" in scenario:
                    continue
                for peer in self.peers[shift:] + self.peers[:shift]:
                    if peer.name in scenario.get("peers", [peer.name]):
                        found.append(Run(scenario, peer, number))
        return found


def read() -> list[dict]:
    with open(PEERS / "plan.toml", "rb") as file:
        return tomllib.load(file)["scenario"]


def not_known(scenario: dict, usage: str) -> str:
    """What of a scenario a load tester with this usage can't do, or nothing."""
    name, *options = scenario["args"]
    built_in = (ROOT / "loadtest" / "scenarios" / f"{name}.toml").exists() or name in usage
    unknown = [] if built_in else [f"the scenario {name}"]
    unknown += [option for option in options if option.startswith("--") and f"{option} " not in usage.replace("\n", " ")]
    return ", ".join(unknown)


def takes_s(run: Run) -> float:
    return run.scenario["takes_s"] + machine.LOOK_S
