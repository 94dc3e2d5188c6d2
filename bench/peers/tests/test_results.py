import unittest

from bench.peers.tests.made import CPU, DELIVERIES, outcome, ramp, run, typed

TIME = "the search ran out of time"
TESTER = "the load tester was the limit, not the server"


def row(found, metric=CPU, **others):
    return outcome(found, metric, **others).rows[0]


def targets(found, *wanted, metric=CPU, **others):
    made = row(found, metric | {"target": list(wanted)}, **others).targets
    return [(target.reached, target.text) for target in made]


class Cells(unittest.TestCase):
    def test_a_cell_is_the_median_of_its_rounds(self):
        cell = row([typed("wiresocket", cpu, at) for at, cpu in enumerate((9.0, 2.0, 4.0), 1)]).cells["wiresocket"]
        self.assertEqual((cell.text, min(cell.values), max(cell.values)), ("4", 2.0, 9.0))

    def test_a_wrong_result_has_no_figure_but_says_how_wrong_it_is(self):
        lost = {"name": "lost", "unit": "", "path": "typing.verification.lost", "even_if_wrong": True}
        result = {"typing": {"cpu_per_delivery_us": 1.0, "verification": {"lost": 7}}}
        found = [run("y-sweet", result, status="wrong", reason="7 lost")]
        self.assertEqual(row(found).cells["y-sweet"].text, "failed")
        self.assertEqual(row(found, lost).cells["y-sweet"].text, "7")
        self.assertEqual(row(found, lost).cells["y-sweet"].notes, ["wrong: 7 lost"])

    def test_a_round_that_failed_is_told_beside_those_that_did_not(self):
        found = [typed("y-sweet", 3.0), run("y-sweet", None, 2, status="timeout", reason="not done after 9 s")]
        cell = row(found).cells["y-sweet"]
        self.assertEqual((cell.text, cell.notes), ("3", ["in 1 of 2 rounds timeout: not done after 9 s"]))

    def test_a_figure_of_fewer_joins_than_asked_for_says_so(self):
        metric = {"name": "CPU per join", "unit": "ms", "path": "join.cpu_per_join_ms"}
        found = [
            run(peer, {"join": {"joins": joins, "joins_asked": 4000, "cpu_per_join_ms": 1.0}})
            for peer, joins in (("wiresocket", 4000), ("y-sweet", 800))
        ]
        notes = [cell.notes for cell in row(found, metric).cells.values()]
        self.assertEqual(notes, [[], ["the time was up before all 4,000 joins: the figure is of those until then"]])

    def test_a_scenario_may_have_something_to_say_of_a_peer(self):
        found = [typed("wiresocket", 1.0), typed("uwebsockets", 1.0)]
        cells = row(found, note=[{"peers": ["uwebsockets"], "text": "holds nothing"}]).cells
        self.assertEqual([cells[peer].notes for peer in cells], [[], ["holds nothing"]])


class LowerBounds(unittest.TestCase):
    def test_a_search_that_found_the_servers_limit_is_exact(self):
        for limit in ({}, {"lowerBound": False, "limitedBy": "server"}):
            cell = row([ramp("wiresocket", 500.0, **limit)], DELIVERIES).cells["wiresocket"]
            self.assertEqual((cell.text, cell.notes), ("500", []))

    def test_one_that_did_not_is_at_least_so_much_and_says_why(self):
        for limit, why in (
            ({"out_of_time": True}, TIME),
            ({"lowerBound": True, "limitedBy": "time"}, TIME),
            ({"lowerBound": True, "limitedBy": "load tester"}, TESTER),
        ):
            cell = row([ramp("wiresocket", 500.0, **limit)], DELIVERIES).cells["wiresocket"]
            self.assertEqual((cell.text, cell.notes), ("≥ 500", [f"at least that: {why}"]))

    def test_each_reason_is_told_with_its_rounds(self):
        found = [
            ramp("wiresocket", 1.0, 1),
            ramp("wiresocket", 2.0, 2, out_of_time=True),
            ramp("wiresocket", 3.0, 3, lowerBound=True, limitedBy="load tester"),
        ]
        notes = row(found, DELIVERIES).cells["wiresocket"].notes
        self.assertEqual(notes, [f"at least that: in 1 of 3 rounds {why}" for why in (TESTER, TIME)])

    def test_ratios_of_lower_bounds_claim_no_more_than_is_known(self):
        bound = {"out_of_time": True}
        for ours, theirs, ratio in (({}, {}, "×0.50"), (bound, {}, "×≤ 0.50"), ({}, bound, "×≥ 0.50"), (bound, bound, "")):
            made = row([ramp("wiresocket", 10.0, **ours), ramp("y-sweet", 5.0, **theirs)], DELIVERIES)
            self.assertEqual(made.ratio("y-sweet"), ratio)


class Targets(unittest.TestCase):
    def test_strict_and_inclusive_bounds_differ_at_the_bound(self):
        found = [typed("wiresocket", 5.0)]
        self.assertEqual(
            targets(found, {"below": 5}, {"at_most": 5}, {"at_least": 5}),
            [(False, "< 5 µs"), (True, "≤ 5 µs"), (True, "≥ 5 µs")],
        )

    def test_a_target_of_a_peer_says_the_ratio_that_was_measured(self):
        found = [typed("wiresocket", 6.0), typed("y-sweet", 10.0), typed("uwebsockets", 5.0)]
        self.assertEqual(
            targets(found, {"at_most": 0.7, "of": "y-sweet"}, {"at_most": 1.0, "of": "uwebsockets"}),
            [(True, "≤ 0.7 × Y-Sweet: 0.60 ×"), (False, "≤ 1.0 × Uwebsockets: 1.20 ×")],
        )

    def test_what_was_not_measured_is_neither_reached_nor_missed(self):
        self.assertEqual(targets([typed("y-sweet", 1.0)], {"at_most": 1}), [(None, "≤ 1 µs")])
        self.assertEqual(targets([typed("wiresocket", 1.0)], {"at_most": 1, "of": "y-sweet"}), [(None, "≤ 1 × Y-Sweet")])

    def test_a_failed_round_of_ours_misses_every_target(self):
        found = [typed("wiresocket", 1.0), run("wiresocket", None, 2, status="failed", reason="it crashed")]
        self.assertEqual(targets(found, {"at_most": 5}), [(False, "≤ 5 µs")])

    def test_stalled_readers_may_have_their_configured_queues(self):
        mib = 2**20
        metric = {"name": "most memory", "unit": "MB", "scale": 1 / mib, "path": "typing.slow_readers.resident_peak_bytes"}
        for peak, reached in ((24 * mib, True), (25 * mib, False)):
            typing = {
                "slow_readers": {"slow_readers": 2, "resident_peak_bytes": peak},
                "server": {"memory_before": {"resident_bytes": 10 * mib}},
                "updates_sent": 4096,
            }
            found = run("wiresocket", {"typing": typing})
            found["report"]["scenario"]["typing"] = {
                "mix": {"characters": 1, "pastes": 1, "paste_length": 1023, "formatting": None}
            }
            says = "≤ 24 MB (10 at the start, 2 × outbox_bytes_max of 1, 6 × the 2 typed)"
            wanted = {"at_most": "stalled readers' memory"}
            # 4,096 updates of 512 characters: 2 MiB. 10 + 2 × 1 + 6 × 2 = 24.
            self.assertEqual(targets([found], wanted, metric=metric), [(reached, says.replace("24", "24.0").replace("10 at", "10.0 at"))])


class Titles(unittest.TestCase):
    def test_a_title_tells_what_was_run(self):
        found = [typed("wiresocket", 4900.0, at) for at in (1, 2, 3)]
        made = outcome(found, title="{scenario.clients} clients, {result.typing.cpu_per_delivery_us}/s, {result.nothing}")
        self.assertEqual(made.describe(made.scenarios[0]), "50 clients, 4,900/s, ?")

    def test_fewer_rounds_than_the_others_are_told(self):
        made = outcome([typed("wiresocket", 1.0)])
        self.assertEqual(made.describe(made.scenarios[0]), "Title (1 round)")
