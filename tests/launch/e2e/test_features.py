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

    def test_guidance_needs_a_model_that_knows_no_light(self):
        run = self.train("dropped", "training.light_dropout=0.5", "training.train_steps=4", "training.lr=0.01")
        plain, guided = (self.evaluate(run, f"guided-{scale}", "--guidance", scale)[1] for scale in (1, 3))
        self.assertNotEqual(plain, guided)
        self.refuse(["evaluate", "--checkpoint", samples() / "stage1", "--data", samples() / "pairs", "--out", self.folder / "none",
                     "--guidance", 2], 2, "--guidance 2", "training.light_dropout", ranks=0)

    def test_stochastic_sampling_is_its_seeds_at_any_rank_count(self):
        run = self.train("noise", f"{EDITOR}kind=noise_to_relit", "training.train_steps=2", "training.lr=0.01")
        out = {}
        for name, ranks, options in (("one", 1, (5,)), ("two", 2, (5,)), ("other", 1, (6,))):
            launch(ranks, "evaluate", "--checkpoint", run, "--data", samples() / "pairs", "--out", self.folder / name, "--rows", 0,
                   "--stochastic", 0.3, "--steps", 3, "--noise-seed", *options)
            out[name] = (self.folder / name / "pairs.csv").read_text()
        self.assertEqual(out["one"], out["two"])
        self.assertNotEqual(out["one"], out["other"])
        self.refuse(["evaluate", "--checkpoint", samples() / "stage1", "--data", samples() / "pairs", "--out", self.folder / "none",
                     "--stochastic", 0.3], 2, "--stochastic 0.3", "kind flow", ranks=0)

    def test_a_collapse_of_the_latents_may_end_the_run(self):
        refused = launch(2, *train_arguments(
            "joint", self.folder / "collapsed", "latents=online", "training.freeze_reconstructor_renderer=false", "training.collapse_guard=0.999",
            "training.collapse_action=stop", "training.train_steps=300", "training.lr=0.01", "training.weight_decay=5",
            data=samples() / "scenes"), code=1)
        self.assertIn("training.collapse_guard = 0.999", refused.err)

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
