import unittest

from bench.peers import page, table
from bench.peers.tests.made import CPU, DELIVERIES, outcome, ramp, run, typed


def rows(markdown: str) -> list[list[str]]:
    return [line.strip("|").split(" | ") for line in markdown.splitlines() if line.startswith("| ")][2:]


class Table(unittest.TestCase):
    def test_a_row_has_figures_ratios_and_verdicts(self):
        found = [typed("wiresocket", 2.0), typed("wiresocket", 4.0, 2), typed("y-sweet", 6.0), typed("y-sweet", 6.0, 2)]
        metric = CPU | {"target": [{"at_most": 0.7, "of": "y-sweet"}, {"below": 1}]}
        (cells,) = rows(table.markdown(outcome(found, metric, meta={"rounds": 2})))
        self.assertEqual(
            [cell.strip() for cell in cells],
            ["**S** Title", "CPU per delivery, µs", "**3** (2–4)", "6 (6–6) ×2", "–", "✓ ≤ 0.7 × Y-Sweet: 0.50 ×<br>✗ < 1 µs"],
        )

    def test_equal_notes_share_a_number(self):
        found = [ramp(peer, 10.0, out_of_time=True) for peer in ("wiresocket", "y-sweet")]
        found.append(run("uwebsockets", None, status="failed", reason="it | crashed"))
        markdown = table.markdown(outcome(found, DELIVERIES))
        self.assertEqual([cell.strip() for cell in rows(markdown)[0][2:5]], ["**≥ 10.0** [1]", "≥ 10.0 [1]", "failed [2]"])
        self.assertIn("[1] at least that: the search ran out of time", markdown)
        self.assertIn("[2] failed: it / crashed", markdown)

    def test_a_narrowed_and_unfinished_comparison_says_so(self):
        meta = {"narrowed": ["ROUNDS=1", "PEERS=wiresocket"], "runs": 4, "rounds": 1}
        markdown = table.markdown(outcome([typed("wiresocket", 1.0)], meta=meta))
        self.assertIn("Not the whole comparison: ROUNDS=1 PEERS=wiresocket.", markdown)
        self.assertIn("1 of 4 runs were done.", markdown)
        self.assertIn("One round", markdown)

    def test_noisy_runs_are_starred_and_explained(self):
        markdown = table.markdown(outcome([typed("wiresocket", 1.0, busy=True)]))
        self.assertEqual(rows(markdown)[0][2], "**1**\\*")
        self.assertIn("\\* Other processes", markdown)


class Page(unittest.TestCase):
    def test_the_page_says_what_the_table_says(self):
        found = [ramp("wiresocket", 10.0, out_of_time=True), ramp("y-sweet", 5.0)]
        html = page.html(outcome(found, DELIVERIES | {"target": [{"at_least": 9}]}, title="A <title>"))
        for part in ("≥ 10.0", "×≤ 0.50", "[1]", "✓ ≥ 9", "1 of 1 targets reached", "A &lt;title&gt;", "ran out of time"):
            self.assertIn(part, html)
