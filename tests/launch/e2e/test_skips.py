"""Updates with numbers that are not finite are skipped by all ranks alike, told, and end the run when they do not stop."""

import json
import re
import unittest

import numpy as np

import damage
from common import MEASURED, EndToEndTest, checkpoint, launch, metrics, needs_program, samples, tensors, train_arguments

STEPS = 12
NULL_WHEN_SKIPPED = ("velocity_loss", "total_loss")


def setUpModule():
    needs_program()


class SkipTest(EndToEndTest):
    def pairs_with_nan(self, rows, dataset="latents"):
        """A valid data folder with a NaN in these rows of one of the first shard's datasets ([] all rows of all shards)."""
        data = self.copy_of("pairs")
        shards = [data / "pairs-00000.h5"] if rows else sorted(data.glob("*.h5"))
        for shard in shards:
            manifest = json.loads((data / "manifest.json").read_text())
            (info,) = [item for item in manifest["shards"] if item["file"] == shard.name]
            nan = {"bf16": b"\xc0\x7f", "f16": b"\x00\x7e", "f32": b"\x00\x00\xc0\x7f"}[info["datasets"][dataset]["dtype"]]
            for row in rows or range(info["datasets"][dataset]["shape"][0]):
                damage.overwrite(shard, damage.place(shard, dataset, row)[0], nan)
        damage.rehash(data)
        return data

    def train(self, ranks, data, *overrides, code=0, run=""):
        run = self.folder / f"{self._testMethodName}-{ranks}-{run.replace(' ', '-')}"
        options = ("training.global_batch_size=2", f"training.train_steps={STEPS}",
                   "model.transformer.editor.flow_matching.weight_ema=0.5")
        return run, launch(ranks, *train_arguments("joint", run, *options, *overrides, data=data), code=code)

    def test_rehash_reproduces_a_manifest(self):
        data = self.copy_of("pairs")
        before = (data / "manifest.json").read_text()
        damage.rehash(data)
        self.assertEqual((data / "manifest.json").read_text(), before)

    def test_skipped_step_changes_nothing_on_any_rank(self):
        data = self.pairs_with_nan([0])
        alone, outcome = self.train(1, data)
        together, both = self.train(2, data)
        lines, twins = metrics(alone), metrics(together)
        skipped = [line["step"] for line in lines if line["skipped"]]
        self.assertTrue(0 < len(skipped) < STEPS, skipped)
        self.assertEqual([line["step"] for line in twins if line["skipped"]], skipped)
        for line, twin in zip(lines, twins, strict=True):
            for name in NULL_WHEN_SKIPPED:
                self.assertEqual(line[name] is None, line["skipped"], line)
                self.assertEqual(twin[name] is None, line["skipped"], twin)
        # Replicas that had drifted apart would show in every later loss and in the weights.
        for line, twin in zip(lines, twins, strict=True):
            if not line["skipped"]:
                self.assertAlmostEqual(line["total_loss"], twin["total_loss"], delta=1e-5 * line["total_loss"])
        theirs = tensors(checkpoint(together))
        for name, value in tensors(checkpoint(alone)).items():
            self.assertTrue(np.isfinite(value).all(), name)
            np.testing.assert_allclose(value, theirs[name], rtol=1e-3, atol=2e-5, err_msg=name)
        self.assertEqual(int(tensors(checkpoint(alone), "state")["update_count"]), STEPS - len(skipped))
        for said in (outcome.err, both.err):
            for step in skipped:
                self.assertRegex(said, rf"warning: step {step} skipped: .*samples \d+ to \d+")

    def test_every_mode_skips_the_same_steps_and_names_a_micro_step_that_holds_the_nan(self):
        """Which pairs hold the NaN row is known; the order of samples is read off a run that takes them one by one."""
        data = self.pairs_with_nan([0])
        bad = self.bad_positions(data, 6 * STEPS)
        expected = sorted({position // 6 + 1 for position in bad})
        self.assertTrue(0 < len(expected) < STEPS, expected)
        flow = "model.transformer.editor.flow_matching."
        modes = {
            "K = 3": ("training.batch_size_per_gpu=1",),
            "lagged": (f"{flow}statistics=lagged", "training.batch_size_per_gpu=1"),
            "ZeRO-1": ("dist.zero=1", "training.batch_size_per_gpu=2"),
            "bf16": ("dist.gradient_dtype=bf16",),
            "the renderer too": ("training.freeze_reconstructor_renderer=false", "dist.zero=1", "training.batch_size_per_gpu=1"),
        }
        for name, overrides in modes.items():
            with self.subTest(name):
                run, outcome = self.train(2, data, "training.global_batch_size=6", *overrides, run=name)
                self.assertEqual([line["step"] for line in metrics(run) if line["skipped"]], expected)
                for key, value in (tensors(checkpoint(run)) | tensors(checkpoint(run), "state")).items():
                    self.assertTrue(np.isfinite(value).all(), key)
                self.assertEqual(int(tensors(checkpoint(run), "state")["update_count"]), STEPS - len(expected))
                named = re.findall(r"step (\d+) skipped: a loss is not finite on rank (\d), samples (\d+) to (\d+) of the order", outcome.err)
                self.assertEqual([int(step) for step, *_ in named], expected)
                for step, rank, first, last in (map(int, words) for words in named):
                    begin = 6 * (step - 1) + 3 * rank
                    self.assertTrue(begin <= first <= last < begin + 3, named)
                    self.assertTrue(bad & set(range(first, last + 1)), named)

    def bad_positions(self, data, positions):
        """The positions of the order whose sample cannot be trained on."""
        run, _ = self.train(1, data, "training.global_batch_size=1", f"training.train_steps={positions}", "training.max_skips_in_a_row=1000",
                            run="one-by-one")
        return {line["step"] - 1 for line in metrics(run) if line["skipped"]}

    def test_skipped_steps_are_reproducible_too(self):
        data = self.pairs_with_nan([0])
        options = ("dist.reproducible=true", "dist.virtual_shards=4", "training.global_batch_size=4", "training.batch_size_per_gpu=1")
        one, _ = self.train(1, data, *options)
        self.assertTrue(0 < sum(line["skipped"] for line in metrics(one)) < STEPS)
        for ranks, zero in ((2, 0), (4, 1)):
            run, _ = self.train(ranks, data, *options, f"dist.zero={zero}")
            for line, twin in zip(metrics(run), metrics(one), strict=True):
                self.assertEqual(*({key: value for key, value in each.items() if key not in MEASURED} for each in (line, twin)))
            for part in ("model", "state"):
                theirs = tensors(checkpoint(one), part)
                for name, value in tensors(checkpoint(run), part).items():
                    self.assertEqual(value.tobytes(), theirs[name].tobytes(), name)

    def test_a_nan_in_a_light_map_is_skipped(self):
        run, outcome = self.train(2, self.pairs_with_nan([0], "env"))
        skipped = [line["step"] for line in metrics(run) if line["skipped"]]
        self.assertTrue(0 < len(skipped) < STEPS, skipped)
        self.assertRegex(outcome.err, rf"step {skipped[0]} skipped: a loss is not finite on rank \d, samples \d+ to \d+ of the order")
        for name, value in tensors(checkpoint(run)).items():
            self.assertTrue(np.isfinite(value).all(), name)

    def test_a_nan_in_a_camera_is_skipped_in_reconstruction_too(self):
        data = self.copy_of("scenes")
        for frame in range(6):  # of the first shard's first scene
            damage.overwrite(data / "scenes-00000.h5", damage.place(data / "scenes-00000.h5", "fxfycxcy", frame)[0], b"\x00\x00\xc0\x7f")
        damage.rehash(data)
        run = self.folder / self._testMethodName
        outcome = launch(2, *train_arguments("reconstruction", run, "training.global_batch_size=2", f"training.train_steps={STEPS}",
                                             "dist.zero=1", data=data))
        skipped = [line["step"] for line in metrics(run) if line["skipped"]]
        self.assertTrue(0 < len(skipped) < STEPS, skipped)
        self.assertEqual([int(step) for step in re.findall(r"step (\d+) skipped: a loss is not finite on rank \d, samples", outcome.err)], skipped)
        for name, value in tensors(checkpoint(run)).items():
            self.assertTrue(np.isfinite(value).all(), name)
        self.assertEqual(int(tensors(checkpoint(run), "state")["update_count"]), STEPS - len(skipped))

    def test_samples_named_hold_the_nan(self):
        """With one sample per rank the log names the very sample, at its position in the order."""
        data = self.pairs_with_nan([0])
        _, outcome = self.train(2, data)
        named = [line for line in outcome.err.splitlines() if "skipped: a loss is not finite" in line]
        self.assertTrue(named, outcome)
        for line in named:
            step = int(line.split("step ")[1].split()[0])
            rank = int(line.split("on rank ")[1].split(",")[0])
            self.assertIn(f"samples {2 * (step - 1) + rank} to {2 * (step - 1) + rank} of the order", line)

    def test_gradients_far_out_of_bounds_name_the_whole_step_and_end_the_run(self):
        """More than allowed_gradnorm_factor x grad_clip_norm."""
        run, outcome = self.train(2, samples() / "pairs", "training.grad_clip_norm=1e-6", "training.allowed_gradnorm_factor=1",
                                  "training.max_skips_in_a_row=3", code=1)
        for step in (1, 2, 3):
            self.assertRegex(outcome.err, rf"step {step} skipped: the gradient's norm is \S+, samples {2 * step - 2} to {2 * step - 1} of the order")
        self.assertEqual(len(outcome.errors), 1, outcome)
        self.assertRegex(outcome.errors[0], r"3 updates in a row were skipped, the last at step 3 \(losses or gradients are not finite or far out of")
        self.assertTrue(all(line["skipped"] and line["velocity_loss"] > 0 for line in metrics(run)))  # the losses are fine
        self.assertFalse((run / "checkpoints").exists())

    def test_skips_in_a_row_end_the_run(self):
        data = self.pairs_with_nan([])
        run, outcome = self.train(2, data, "training.train_steps=1000", code=1)
        self.assertEqual(len(outcome.errors), 1, outcome)
        self.assertIn("20 updates in a row were skipped, the last at step 20", outcome.errors[0])
        self.assertTrue(all(line["skipped"] for line in metrics(run)))
        self.assertFalse((run / "checkpoints").exists())


if __name__ == "__main__":
    unittest.main()
