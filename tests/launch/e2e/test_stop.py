"""A stop signal ends every command but `train` within seconds: one message, a failure's exit code, no final names."""

import os
import signal
import time
import unittest

from common import EndToEndTest, Job, needs_program, samples

SECONDS = 10


def setUpModule():
    needs_program()


class StopTest(EndToEndTest):
    def stop(self, ranks, arguments, begun, number=signal.SIGTERM, whom=lambda job: job.process.pid):
        """How a job ended that was sent a signal once `begun()` held."""
        with Job(ranks, *arguments) as job:
            job.wait_until(begun, "the beginning of the work")
            os.kill(whom(job), number)
            sent = time.monotonic()
            outcome = job.outcome(timeout=60)
            self.assertLess(time.monotonic() - sent, SECONDS, outcome)
        self.assertNotEqual(outcome.code, 0, outcome)
        self.assertEqual(len(outcome.errors), 1, outcome)
        self.assertRegex(outcome.errors[0], f"ended by {number.name} before the command was done", outcome)
        return outcome

    def stop_synth(self, number):
        out = self.folder / f"scenes-{number.name}"
        long = ["synth", "--out", out, "--objects", 1, "--lights", 2, "--views", 4, "--size", 512, "--spp", 2048]
        outcome = self.stop(0, long, lambda: out.exists() and any(out.iterdir()), number)
        self.assertEqual(outcome.code, -number, outcome)
        self.assertEqual([path.name for path in out.iterdir() if path.suffix in (".h5", ".json")], [])

    def test_synth(self):
        self.stop_synth(signal.SIGTERM)

    def test_synth_by_the_other_stop_signal(self):
        self.stop_synth(signal.SIGUSR2)

    def stop_evaluate(self, name, whom):
        out = self.folder / name
        long = ["evaluate", "--checkpoint", samples() / "stage1", "--data", samples() / "pairs", "--out", out]
        self.stop(2, [*long, "--steps", 10000000], out.exists, whom=whom)
        self.assertEqual(list(out.iterdir()), [])

    def test_evaluate_by_its_launcher(self):
        self.stop_evaluate("launcher", lambda job: job.process.pid)

    def test_evaluate_by_one_of_its_ranks(self):
        self.stop_evaluate("rank", lambda job: job.ranks()[-1])


if __name__ == "__main__":
    unittest.main()
