"""Reproducible mode: the rank count changes the speed and nothing else, not one bit of the log or of a checkpoint."""

import unittest

from common import MEASURED, EndToEndTest, checkpoint, launch, metrics, needs_program, samples, tensors, train_arguments

STEPS = 4
FLOW = "model.transformer.editor.flow_matching."
REPRODUCIBLE = ("dist.reproducible=true", "dist.virtual_shards=8", "training.global_batch_size=16", "dist.bucket_mib=0.02",
                "dist.first_bucket_mib=0.01")
# Weights with a memory, both terms at work at v_pred, the renderer trainable, the norm clipped; an average, samples without light,
# rates by depth.
JOINT = (f"{FLOW}render_loss_weight=500", f"{FLOW}weight_ema=0.5", "training.grad_clip_norm=0.5", "training.allowed_gradnorm_factor=0",
         "training.ema_decay=0.5", "training.light_dropout=0.3", "training.layer_lr_decay=0.5",
         "training.freeze_reconstructor_renderer=false")


def setUpModule():
    needs_program()


class ReproducibleTest(EndToEndTest):
    def train(self, ranks, *overrides, objective="joint", steps=STEPS, run=None, data=None):
        run = run or self.folder / f"run-{len(list(self.folder.iterdir()))}"
        extra = JOINT if objective == "joint" else ()
        launch(ranks, *train_arguments(objective, run, *REPRODUCIBLE, *extra, f"training.train_steps={steps}", *overrides, data=data))
        return run

    def assert_same_bits(self, run, other, what):
        def comparable(folder):
            return [{key: value for key, value in line.items() if key not in MEASURED} for line in metrics(folder)]

        self.assertEqual([line["step"] for line in metrics(run)], list(range(1, len(metrics(run)) + 1)))
        self.assertEqual(comparable(run), comparable(other), what)
        for part in ("model", "state"):
            ours, theirs = tensors(checkpoint(run), part), tensors(checkpoint(other), part)
            self.assertEqual(ours.keys(), theirs.keys())
            for name, value in ours.items():
                self.assertEqual(value.tobytes(), theirs[name].tobytes(), f"{what}: {name}")

    def test_joint_has_the_same_bits_at_any_rank_count_sharded_or_not(self):
        one = self.train(1)
        for ranks in (2, 4, 8):
            self.assert_same_bits(self.train(ranks), one, f"{ranks} ranks")
            self.assert_same_bits(self.train(ranks, "dist.zero=1"), one, f"{ranks} ranks, ZeRO-1")

    def test_online_latents_lagged_statistics_and_recomputed_blocks_too(self):
        options = ("latents=online", f"{FLOW}statistics=lagged", "training.grad_checkpoint_every=1")
        one = self.train(1, *options, data=samples() / "scenes")
        for ranks, zero in ((2, 1), (8, 0)):
            self.assert_same_bits(self.train(ranks, *options, f"dist.zero={zero}", data=samples() / "scenes"), one, f"{ranks} ranks")

    def test_weightings_that_measure_or_take_turns_with_chunks_frozen_and_slow_parameters_too(self):
        shaped = ("training.render_view_chunk=1", "training.freeze=[env_tokenizer.*]", "training.lr_scale=[transformer_editor.0.*=0.5]")
        for options in ((f"{FLOW}weighting=gradient_balance", f"{FLOW}gradient_space=parameters", f"{FLOW}gradient_interval=2", *shaped),
                        (f"{FLOW}weighting=alternating", f"{FLOW}weight_ema=0", f"{FLOW}alternating_period=1", *shaped)):
            one = self.train(1, *options)
            self.assert_same_bits(self.train(4, *options, "dist.zero=1"), one, f"4 ranks, ZeRO-1, {options[0]}")

    def test_reconstruction_too(self):
        one = self.train(1, objective="reconstruction")
        self.assert_same_bits(self.train(4, "dist.zero=1", objective="reconstruction"), one, "4 ranks")

    def test_threads_are_the_configs_and_not_the_rank_counts(self):
        one = self.train(1, "dist.threads=2")
        self.assert_same_bits(self.train(2, "dist.threads=2"), one, "2 ranks")

    def test_a_run_begun_on_four_ranks_goes_on_with_the_same_bits_on_any(self):
        whole = self.train(4, steps=2 * STEPS)
        for ranks, zero in ((1, 0), (2, 1), (8, 1)):
            run = self.train(4, "dist.zero=1")
            self.train(ranks, f"dist.zero={zero}", steps=2 * STEPS, run=run)
            self.assert_same_bits(run, whole, f"4 then {ranks} ranks")

    def test_what_cannot_be_reproduced_is_refused_with_what_to_change(self):
        for ranks, override, words in (
            (3, "dist.zero=0", ("on 3 ranks", "powers of two")),
            (2, "dist.virtual_shards=12", ("virtual_shards = 12", "powers of two")),
            (2, "dist.virtual_shards=1", ("on 2 ranks", "as many shards as ranks")),
            (1, "training.global_batch_size=20", ("20", "not a multiple")),
            (1, "training.global_batch_size=0", ("global_batch_size is not set",)),
            (2, "dist.gradient_dtype=bf16", ("gradient_dtype = bf16", "rank count")),
            (1, "training.batch_size_per_gpu=1", ("a shard has 2 samples", "batch_size_per_gpu = 1")),
        ):
            refused = launch(ranks, *train_arguments("joint", self.folder / "refused", *REPRODUCIBLE, override), code=2)
            self.assertEqual(len(refused.errors), 1, refused)
            for word in words:
                self.assertIn(word, refused.errors[0])


class ShardedTest(EndToEndTest):
    """ZeRO-1 in the default mode: the same optimizer, other sums."""

    def test_zero_follows_the_unsharded_run_at_any_rank_count_and_resumes_on_another(self):
        def train(ranks, *overrides, run=None, steps=10):
            run = run or self.folder / f"run-{len(list(self.folder.iterdir()))}"
            launch(ranks, *train_arguments("joint", run, *JOINT, f"training.train_steps={steps}", "dist.bucket_mib=0.02", *overrides))
            return run

        plain = train(1)
        for ranks in (1, 2, 3, 4):
            sharded = train(ranks, "dist.zero=1", steps=5)
            train({1: 3, 2: 1, 3: 2, 4: 4}[ranks], "dist.zero=1", run=sharded)
            for line, twin in zip(metrics(sharded), metrics(plain), strict=True):
                for name in ("velocity_loss", "render_loss", "grad_norm", "velocity_weight", "psnr"):
                    self.assertAlmostEqual(line[name], twin[name], delta=5e-5 * abs(twin[name]), msg=f"{name} on {ranks} ranks")
            for name, value in tensors(checkpoint(sharded), "model").items():
                self.assertLessEqual(float(abs(value - tensors(checkpoint(plain), "model")[name]).max()), 2e-5, name)

    def test_gradients_may_travel_in_bf16_sharded_or_not(self):
        runs = []
        for options in ((), ("dist.zero=1",)):
            run = self.folder / f"bf16-{len(runs)}"
            launch(2, *train_arguments("joint", run, *JOINT, "training.train_steps=5", "dist.gradient_dtype=bf16", *options))
            runs.append(metrics(run))
        plain = self.folder / "f32"
        launch(2, *train_arguments("joint", plain, *JOINT, "training.train_steps=5"))
        for line, half, sharded in zip(metrics(plain), *runs, strict=True):
            for other in (half, sharded):
                self.assertAlmostEqual(line["velocity_loss"], other["velocity_loss"], delta=1e-2 * line["velocity_loss"])
                self.assertAlmostEqual(line["grad_norm"], other["grad_norm"], delta=1e-2 * line["grad_norm"])
        self.assertNotEqual([line["grad_norm"] for line in metrics(plain)], [line["grad_norm"] for line in runs[0]])


if __name__ == "__main__":
    unittest.main()
