"""Averages, frozen and slow parameters, samples without light, editors that start from other blocks: end to end."""

import csv
import json
import unittest

import numpy as np

from common import checkpoint, launch, metrics, needs_program, samples, tensors, train_arguments
from refusal import RefusalTest

EDITOR = "model.transformer.editor."


def setUpModule():
    needs_program()


class FeaturesTest(RefusalTest):
    def train(self, name, *overrides, ranks=1, objective="joint", data=None):
        run = self.folder / name
        launch(ranks, *train_arguments(objective, run, *overrides, data=data))
        return run

    def evaluate(self, run, name, *options):
        out = self.folder / name
        said = launch(1, "evaluate", "--checkpoint", run, "--data", samples() / "pairs", "--out", out, "--rows", 0, *options)
        with open(out / "pairs.csv") as file:
            rows = list(csv.reader(file))
        return json.loads((out / "metrics.json").read_text()), rows, said.err

    def test_views_in_chunks_and_recomputed_parts_are_the_same_run(self):
        runs = [metrics(self.train(name, "training.train_steps=3", *overrides)) for name, overrides in (
            ("whole", ()), ("chunks", ("training.render_view_chunk=1",)),
            ("parts", ("training.grad_checkpoint_every=1", "training.grad_checkpoint_part=attention")),
            ("segments", ("training.grad_checkpoint_every=2",)))]
        for run in runs[1:]:
            for line, twin in zip(run, runs[0], strict=True):
                for name in ("velocity_loss", "render_loss", "grad_norm", "psnr"):
                    self.assertAlmostEqual(line[name], twin[name], delta=1e-5 * abs(twin[name]), msg=name)


if __name__ == "__main__":
    unittest.main()
