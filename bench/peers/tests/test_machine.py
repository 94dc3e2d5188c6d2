import unittest

from bench.peers import machine
from bench.peers.machine import Quiet


class Quietness(unittest.TestCase):
    def setUp(self):
        self.now = 0.0
        self.noisy_until = 0.0

    def look(self) -> str:
        self.now += machine.LOOK_S
        return "noise" if self.now <= self.noisy_until else ""

    def quiet(self) -> Quiet:
        return Quiet(self.look, lambda: self.now)

    def test_a_quiet_machine_costs_one_look(self):
        quiet = self.quiet()
        self.assertEqual((quiet.wait(), self.now, quiet.patience_s), ("", machine.LOOK_S, machine.QUIET_WAITS_S))

    def test_noise_that_ends_is_waited_for(self):
        self.noisy_until = 5.0
        self.assertEqual((self.quiet().wait(), self.now), ("", 6.0))

    def test_noise_that_stays_is_told_and_not_waited_for_without_end(self):
        self.noisy_until = float("inf")
        quiet = self.quiet()
        runs = 100
        self.assertEqual({quiet.wait() for _ in range(runs)}, {"noise"})
        self.assertLessEqual(self.now, machine.QUIET_WAITS_S + (runs + 1) * machine.LOOK_S)
