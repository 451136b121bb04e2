"""Checkpoints that are damaged, of other data or of another model."""

import shutil
import unittest

import numpy as np

import damage
from common import checkpoint, checkpoint_steps, launch, metrics, needs_program, samples, tensors, train_arguments
from refusal import RefusalTest


def setUpModule():
    needs_program()


class BadCheckpointTest(RefusalTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.run_folder = cls.folder / "run"
        launch(2, *cls.arguments(cls.run_folder, 4))

    @staticmethod
    def arguments(run, steps, *overrides, **options):
        return train_arguments("joint", run, "training.checkpoint_every=2", f"training.train_steps={steps}", *overrides, **options)

    def damaged_run(self):
        """A copy of the run with its newest checkpoint cut short."""
        run = self.folder / self._testMethodName
        shutil.copytree(self.run_folder, run)
        self.assertEqual(checkpoint_steps(run), [2, 4])
        damage.truncate(sorted(checkpoint(run).glob("model-*.safetensors"))[0], 0.5)
        return run

    def test_named_checkpoint_cut_short_is_refused(self):
        run = self.damaged_run()
        self.refuse(self.arguments(self.folder / "next", 6, resume=checkpoint(run)), 3, "step_000000004", "model-0000", "bytes")

    def test_auto_falls_back_to_the_older_one_and_says_so(self):
        run = self.damaged_run()
        resumed = launch(2, *self.arguments(run, 4))
        self.assertRegex(resumed.err, r"warning: .*step_000000004 rejected: .*model-0000")
        self.assertEqual(resumed.err.count("rejected: "), 1, "said by one rank")
        self.assertIn("(step 2)", resumed.err)
        self.assertEqual([line["step"] for line in metrics(run)], [1, 2, 3, 4])
        theirs = tensors(checkpoint(self.run_folder), "model")
        for name, value in tensors(checkpoint(run), "model").items():
            self.assertEqual(value.tobytes(), theirs[name].tobytes(), name)

    def test_flipped_bit_is_found_by_every_reader(self):
        run = self.damaged_run()
        shutil.rmtree(checkpoint(run))
        state = sorted(checkpoint(run).glob("state-*.safetensors"))[0]
        damage.flip_bit(state, len(state.read_bytes()) - 5)
        self.refuse(self.arguments(self.folder / "next", 6, resume=checkpoint(run)), 3, state.name, "xxh3")
        self.refuse(["verify", run], 3, "1 of 1", ranks=0)
        self.refuse(["inspect", checkpoint(run)], 3, state.name, ranks=0)

    def test_missing_checkpoint(self):
        nowhere = self.folder / "nowhere"
        self.refuse(self.arguments(self.folder / "next", 6, resume=nowhere), 3, "nowhere", "no checkpoint")
        self.refuse(self.arguments(self.folder / "next", 6, f"training.init_from={nowhere}"), 3, "nowhere")
        self.refuse(["encode", "--checkpoint", nowhere, "--data", samples() / "scenes", "--out", self.folder / "out"], 3, "nowhere")

    def test_resuming_on_other_data(self):
        some = self.folder / "some-lights"
        launch(0, "encode", "--checkpoint", samples() / "stage1", "--data", samples() / "scenes", "--out", some, "--lights", "env_00[0-2]")
        before = (self.run_folder / "metrics.jsonl").read_bytes()
        self.refuse(self.arguments(self.run_folder, 6, data=some), 3, "other data", "fingerprint")
        self.assertEqual((self.run_folder / "metrics.jsonl").read_bytes(), before)

    def test_resuming_with_another_objective(self):
        self.refuse(train_arguments("reconstruction", self.run_folder), 3)

    def test_weights_of_another_model(self):
        self.refuse(self.arguments(self.folder / "wide", 6, "model.transformer.d=64", data=samples() / "pairs"), 2, "other", "stage1")

    def test_weights_that_are_not_whole_or_no_numbers_are_refused_before_training(self):
        from safetensors.numpy import load_file, save_file

        whole, given = self.folder / "whole.safetensors", self.folder / "given.safetensors"
        launch(0, "export", samples() / "stage1", whole)
        key, twin = "transformer_decoder.0.attn.to_qkv.weight", "transformer_decoder.0.attn.to_qvk.weight"

        def refuse(change, code, *words, name="init_from"):
            weights = load_file(whole)
            change(weights)
            save_file(weights, given)
            run = self.folder / f"refused-{name}"
            option = f"training.init_from={given}" if name == "init_from" else f"model.transformer.editor.init_checkpoint={given}"
            start = () if name == "init_from" else ("model.transformer.editor.init=one_step",)
            self.refuse(self.arguments(run, 2, option, *start), code, "given.safetensors", *words, ranks=0)
            self.assertFalse((run / "metrics.jsonl").exists())

        refuse(lambda w: w.pop(key), 3, key, "nearest is transformer_encoder.0.attn.to_qkv.weight", "random")
        without_renderer = self.folder / "reconstructor.safetensors"
        launch(0, "export", samples() / "stage1", without_renderer, "--parts", "reconstructor")
        kept = load_file(without_renderer)
        refuse(lambda w: [w.pop(name) for name in list(w) if name not in kept], 2, "has no renderer", "nothing here trains them")
        refuse(lambda w: w.update({twin: w.pop(key)}), 2, twin, f"nearest is {key}")
        refuse(lambda w: w.update({"foo.bar": w[key]}), 2, "foo.bar", "does not have")
        refuse(lambda w: w.update({key: w[key][:32]}), 2, key, "[32,32]", "[96,32]")
        refuse(lambda w: w.update({key: w[key].astype(np.int64)}), 3, key, "holds Long")
        refuse(lambda w: w[key].put([7, 9], [np.nan, np.inf]), 3, f"2 of the 3072 numbers of {key} are not finite")
        refuse(lambda w: w[key].put(7, np.nan), 3, key, "not finite", name="init_checkpoint")
        refuse(lambda w: [w.pop(k) for k in list(w)] + [w.update({"latent_std": np.ones(32, np.float32)})], 3, "none of its 1 tensors")
        deeper = self.arguments(self.folder / "deeper", 2, f"training.init_from={whole}", "model.transformer.decoder_n_layer=2")
        self.refuse(deeper, 3, "8 tensors of the model are missing", "nearest is transformer_decoder.0.", ranks=0)

    def test_a_run_may_be_called_best(self):
        import shutil

        for name in ("runbest", "best"):
            shutil.copytree(samples() / "stage1", self.folder / "named" / name)
            launch(0, "export", self.folder / "named" / name, self.folder / f"{name}.safetensors")

    def test_pairs_of_another_encoder(self):
        fresh = ['training.init_from=""', "training.seed=1"]
        self.refuse(self.arguments(self.folder / "fresh", 2, *fresh), 3, "producer", "data.allow_other_producer")
        accepted = launch(2, *self.arguments(self.folder / "accepted", 2, *fresh, "data.allow_other_producer=true"))
        self.assertEqual(accepted.err.count("accepted by data.allow_other_producer"), 1, accepted)

    def test_start_over_keeps_the_old_checkpoints_aside(self):
        run = self.damaged_run()
        launch(2, *self.arguments(run, 2, resume="never"))
        self.assertEqual(checkpoint_steps(run), [2])
        self.assertTrue((run / "checkpoints.old-1" / "step_000000004").exists())
        self.assertEqual([line["step"] for line in metrics(run)], [1, 2])


if __name__ == "__main__":
    unittest.main()
