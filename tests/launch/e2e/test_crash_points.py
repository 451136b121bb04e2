"""A rank that dies by SIGKILL at any file operation of a checkpoint's writing costs at most the steps since the last one.

DUOFLOW_CRASH_STRIDE: every so manieth operation is tried (default 80; the write of each tensor is one); 1 tries all.
"""

import os
import unittest

from common import MEASURED, EndToEndTest, checkpoint, launch, metrics, needs_program, train_arguments

RANKS = 2
STRIDE = int(os.environ.get("DUOFLOW_CRASH_STRIDE", "80"))
# Checkpoints begin at steps 2 and 4 while training goes on; the last, at 5, is waited for.
OPTIONS = ("training.train_steps=5", "training.checkpoint_every=2", "training.keep_last=2", "training.ema_decay=0.9")


def setUpModule():
    needs_program()


class CrashPointTest(EndToEndTest):
    def train(self, run, fault=None, code=0):
        environment = {"DUOFLOW_FAULT": fault} if fault else None
        return launch(RANKS, *train_arguments("joint", run, *OPTIONS), code=code, environment=environment)

    def contents(self, run):
        """Every byte of the tensors, every number that is not measured."""
        lines = [{key: value for key, value in line.items() if key not in MEASURED} for line in metrics(run)]
        files = {path.name: path.read_bytes() for path in checkpoint(run, 5).glob("*.safetensors")}
        self.assertEqual([line["step"] for line in lines], [1, 2, 3, 4, 5])
        self.assertEqual(len(files), 2 * RANKS)
        return lines, files

    def try_all(self, rank, least):
        whole = self.folder / f"whole-{rank}"
        self.train(whole)
        expected = self.contents(whole)
        died = 0
        for point in range(rank, 1000, STRIDE):
            run = self.folder / f"rank{rank}-at{point}"
            crashed = self.train(run, f"{rank}:{point}:kill", code=None)
            if crashed.code == 0:
                break
            died += 1
            self.assertEqual(crashed.code, 137, crashed)
            resumed = self.train(run)
            self.assertNotIn("rejected", resumed.err, "what has a final name is whole")
            self.assertEqual(self.contents(run), expected, f"rank {rank}, operation {point}")
            left = sorted(path.name for path in (run / "checkpoints").iterdir())
            self.assertEqual(left, ["latest", "step_000000004", "step_000000005"], f"rank {rank}, operation {point}")
        self.assertEqual(crashed.code, 0, crashed)
        self.assertGreaterEqual(died, least // STRIDE, "operations were tried")

    def test_rank_0_which_publishes(self):
        self.try_all(0, 160)

    def test_another_rank(self):
        self.try_all(1, 200)


if __name__ == "__main__":
    unittest.main()
