import json
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from bench.peers import arguments, plan, publish, results, servers, targets
from bench.peers.figures import at, size_bytes
from bench.peers.plan import Plan
from bench.peers.run import is_failure
from bench.peers.tests.made import CPU, META, typed


def environment(**variables):
    return mock.patch.dict("os.environ", variables, clear=True)


class Arguments(unittest.TestCase):
    def test_wrong_ones_are_told_with_those_allowed(self):
        for variables, allowed in (
            ({"ROUNDS": "x"}, "1 to 100"),
            ({"ROUNDS": "0"}, "1 to 100"),
            ({"SCENARIOS": "A,Z"}, "A-fast"),
            ({"PEERS": "y-sweat"}, "y-sweet"),
            ({"SCENARIOS": "D-tokens", "PEERS": "y-sweet"}, "D-tokens"),
        ):
            with environment(**variables), self.assertRaisesRegex(arguments.ArgumentError, allowed):
                Plan.from_environment()

    def test_each_that_narrows_is_noted(self):
        with environment(ROUNDS="1", SCENARIOS="C A", PEERS="y-sweet"):
            self.assertEqual(Plan.from_environment().narrowed, ["ROUNDS=1", "SCENARIOS=A,C", "PEERS=y-sweet"])
        with environment(ROUNDS="3"):
            self.assertEqual(Plan.from_environment().narrowed, [])

    def test_each_round_begins_with_another_peer(self):
        with environment(SCENARIOS="A", PEERS="wiresocket,y-sweet"):
            found = [(run.round, run.peer.name) for run in Plan.from_environment().runs()]
        self.assertEqual([peer for _, peer in found], ["wiresocket", "y-sweet", "y-sweet", "wiresocket"] + ["wiresocket", "y-sweet"])


class ThePlan(unittest.TestCase):
    def test_every_metric_and_target_means_something(self):
        peers = {peer.name for peer in servers.ALL}
        for scenario in plan.read():
            takers = set(scenario.get("peers", peers))
            self.assertLessEqual(takers, peers)
            for note in scenario.get("note", []):
                self.assertLessEqual(set(note["peers"]), takers)
            for metric in scenario["metric"]:
                for target in metric.get("target", []):
                    self.assertIn(targets.kind(target), targets.SIGNS)
                    self.assertIn(target.get("of", results.OURS), takers)

    def test_our_configuration_says_what_a_receiver_may_hold(self):
        self.assertGreater(size_bytes(servers.limits()["outbox_bytes_max"]), 0)


class Publishing(unittest.TestCase):
    def publish(self, **meta):
        with tempfile.TemporaryDirectory() as place, mock.patch.object(publish, "RESULTS", Path(place)):
            (Path(place) / "run").mkdir()
            scenario = {"id": "S", "title": "T", "args": ["s"], "metric": [CPU]}
            written = publish.write(Path(place) / "run", META | meta, [scenario], [typed("wiresocket", 1.0)])
            return [str(path.relative_to(place)) for path in written], (Path(place) / "peers.md").exists()

    def test_only_a_whole_comparison_replaces_the_table(self):
        self.assertEqual(self.publish(runs=1), (["peers.md", "peers.html"], True))
        for partial in ({"narrowed": ["ROUNDS=1"], "runs": 1}, {"runs": 2}):
            self.assertEqual(self.publish(**partial), (["run/peers.md", "run/peers.html"], False))

    def test_a_report_describes_what_was_run_then(self):
        with tempfile.TemporaryDirectory() as place:
            then = {"id": "A", "title": "as it was", "args": ["a", "--old"], "metric": []}
            (Path(place) / "meta.json").write_text(json.dumps({"meta": META, "scenarios": [then]}))
            _, (scenario,), found = publish.read(Path(place))
        self.assertEqual((scenario["title"], scenario["args"], found), ("as it was", ["a", "--old"], []))
        self.assertTrue(scenario["metric"], "with today's metrics")


class Failures(unittest.TestCase):
    def test_a_peers_wrong_result_is_a_finding_and_ours_a_failure(self):
        for peer, status, expected in (
            ("y-sweet", "wrong", False), ("wiresocket", "wrong", True), ("y-sweet", "timeout", True),
            ("y-sweet", "failed", True), ("wiresocket", "ok", False),
        ):  # fmt: skip
            self.assertEqual(is_failure({"peer": peer, "status": status}), expected)


class Figures(unittest.TestCase):
    def test_paths_lead_through_lists(self):
        report = {"slices": [{"us": 3}, {"us": 9}, {}]}
        self.assertEqual([at(report, path) for path in ("slices.0.us", "slices.max.us", "slices.7.us", "x.y")], [3, 9, None, None])

    def test_sizes_have_units(self):
        self.assertEqual([size_bytes(size) for size in (5, "7 B", "2 KiB", "1MiB")], [5, 7, 2048, 2**20])
        self.assertRaises(ValueError, size_bytes, "1 mile")
