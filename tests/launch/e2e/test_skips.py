"""Updates with numbers that are not finite are skipped by all ranks alike, told, and end the run when they do not stop."""

import json
import unittest

import numpy as np

import damage
from common import EndToEndTest, checkpoint, launch, metrics, needs_program, tensors, train_arguments

STEPS = 12
NULL_WHEN_SKIPPED = ("velocity_loss", "total_loss")


def setUpModule():
    needs_program()


class SkipTest(EndToEndTest):
    def pairs_with_nan(self, rows):
        """A valid data folder whose latents hold a NaN in these rows of the first shard ([] all rows of all shards)."""
        data = self.copy_of("pairs")
        shards = [data / "pairs-00000.h5"] if rows else sorted(data.glob("*.h5"))
        for shard in shards:
            manifest = json.loads((data / "manifest.json").read_text())
            (info,) = [item for item in manifest["shards"] if item["file"] == shard.name]
            nan = {"bf16": b"\xc0\x7f", "f16": b"\x00\x7e", "f32": b"\x00\x00\xc0\x7f"}[info["datasets"]["latents"]["dtype"]]
            for row in rows or range(info["datasets"]["latents"]["shape"][0]):
                damage.overwrite(shard, damage.place(shard, "latents", row)[0], nan)
        damage.rehash(data)
        return data

    def train(self, ranks, data, *overrides, code=0):
        run = self.folder / f"{self._testMethodName}-{ranks}"
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

    def test_skips_in_a_row_end_the_run(self):
        data = self.pairs_with_nan([])
        run, outcome = self.train(2, data, "training.train_steps=1000", code=1)
        self.assertEqual(len(outcome.errors), 1, outcome)
        self.assertIn("20 updates in a row were skipped, the last at step 20", outcome.errors[0])
        self.assertTrue(all(line["skipped"] for line in metrics(run)))
        self.assertFalse((run / "checkpoints").exists())


if __name__ == "__main__":
    unittest.main()
