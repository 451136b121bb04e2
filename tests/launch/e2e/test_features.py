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
        self.settings = json.loads((out / "settings.json").read_text())
        return json.loads((out / "metrics.json").read_text()), rows, said.err

    def test_the_average_is_what_evaluation_export_and_the_next_run_take(self):
        from safetensors.numpy import load_file

        run = self.train("averaged", "training.ema_decay=0.9", "training.train_steps=6", "training.lr=0.01")
        state, model = tensors(checkpoint(run), "state"), tensors(checkpoint(run), "model")
        averages = {name.removeprefix("ema."): value for name, value in state.items() if name.startswith("ema.")}
        self.assertIn("transformer_editor.0.attn.fc.weight", averages)
        exported = {}
        for weights in ("auto", "ema", "trained"):
            out = self.folder / f"{weights}.safetensors"
            launch(0, "export", run, out, "--weights", weights)
            exported[weights] = load_file(out)
            for name, value in exported[weights].items():
                expected = model[name] if weights == "trained" else averages.get(name, model[name])
                self.assertEqual(value.tobytes(), expected.tobytes(), f"{weights} {name}")
        by_choice = {}
        for weights, taken in (("auto", "ema"), ("trained", "trained"), ("ema", "ema")):
            by_choice[weights] = self.evaluate(run, f"eval-{weights}", "--weights", weights)
            self.assertEqual((self.settings["weights"], self.settings["step"]), (taken, 6))
        self.assertEqual(by_choice["auto"][:2], by_choice["ema"][:2])
        self.assertNotEqual(by_choice["auto"][1], by_choice["trained"][1])
        self.assertIn("the average of its weights", by_choice["auto"][2])
        self.assertNotIn("the average of its weights", by_choice["trained"][2])
        for weights in ("ema", "trained"):
            later = self.train(f"from-{weights}", f"training.init_from={run}", f"training.init_weights={weights}", "training.train_steps=1",
                               "training.lr=0")
            for name, value in tensors(checkpoint(later), "model").items():
                self.assertEqual(value.tobytes(), exported[weights][name].tobytes(), f"{weights} {name}")
        self.refuse(["evaluate", "--checkpoint", samples() / "stage1", "--data", samples() / "pairs", "--out", self.folder / "none",
                     "--weights", "ema"], 3, "stage1", "training.ema_decay", ranks=0)
        self.refuse(["export", run, self.folder / "x.pt", "--format", "reference", "--weights", "ema"], 2, "--weights ema", ranks=0)
        self.refuse(train_arguments("joint", self.folder / "file", f"training.init_from={self.folder / 'auto.safetensors'}",
                                    "training.init_weights=ema"), 2, "auto.safetensors", "once", ranks=0)

    def test_the_average_of_stage_1_encodes_and_renders_in_stage_2(self):
        stage1 = self.train("stage1-averaged", "training.ema_decay=0.5", "training.train_steps=3", objective="reconstruction")
        pairs = self.folder / "pairs-averaged"
        launch(0, "encode", "--checkpoint", stage1, "--data", samples() / "scenes", "--out", pairs)
        start = f"training.init_from={stage1}"
        joint = self.train("joint-averaged", start, "training.train_steps=1", data=pairs)
        launch(0, "evaluate", "--checkpoint", joint, "--data", pairs, "--out", self.folder / "evaluated", "--rows", 0)
        self.refuse(train_arguments("joint", self.folder / "trained", start, "training.init_weights=trained", data=pairs), 3, "producer", ranks=0)

    def test_frozen_parameters_stay_and_slow_ones_move_less(self):
        frozen = self.train("frozen", "training.freeze=[env_tokenizer.*, transformer_editor.0.*]", "training.train_steps=2", ranks=2)
        before, after = (tensors(checkpoint(run), "model") for run in (samples() / "stage1", frozen))
        for name, value in after.items():
            still = name.startswith(("env_tokenizer.", "transformer_editor.0.")) or not name.startswith(
                ("transformer_editor.", "time_embedder.", "light_embedder.", "editor_velocity_head."))
            if still and not name.startswith("latent_"):
                self.assertEqual(value.tobytes(), before[name].tobytes(), name)
        self.assertFalse([name for name in tensors(checkpoint(frozen), "state") if "env_tokenizer" in name])
        self.assertFalse(np.array_equal(after["editor_velocity_head.1.weight"], before["editor_velocity_head.1.weight"]))
        arguments = train_arguments("joint", self.folder / "bad")
        self.refuse([*arguments, "training.freeze=env_tokeniser.*"], 2, "env_tokeniser.*", "env_tokenizer.1.weight", ranks=0)
        self.refuse([*arguments, "training.lr_scale=transformer_decoder.*=0.5"], 2, "transformer_decoder.*", "do not train", ranks=0)

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

    def test_an_editor_starts_from_the_renderer_or_from_a_one_step_editor(self):
        still = ("training.train_steps=1", "training.lr=0")
        decoder = tensors(checkpoint(self.train("decoder", f"{EDITOR}init=decoder", f"{EDITOR}n_layer=1", 'training.init_from='
                                                f"{self.without_editor()}", *still)), "model")
        np.testing.assert_array_equal(decoder["transformer_editor.0.attn.to_qkv.weight"], decoder["transformer_decoder.0.attn.to_qkv.weight"])
        one_step = self.train("one-step", f"{EDITOR}kind=one_step", f"{EDITOR}flow_matching.num_ode_steps=1",
                              f"training.init_from={self.without_editor()}", "training.train_steps=2")
        started = tensors(checkpoint(self.train("started", f"{EDITOR}init=one_step", f"{EDITOR}init_checkpoint={one_step}", *still)), "model")
        source = tensors(checkpoint(one_step), "model")
        for name in ("transformer_editor.1.mlp.mlp.0.weight", "env_tokenizer.1.weight"):
            np.testing.assert_array_equal(started[name], source[name])
        bias = started["transformer_editor.1.adaLN_modulation.1.bias"].reshape(6, -1)
        np.testing.assert_allclose(bias[1] + 1, source["transformer_editor.1.norm1.weight"], atol=1e-6)
        np.testing.assert_array_equal(bias[2], 1)
        self.refuse(train_arguments("joint", self.folder / "bad", f"{EDITOR}init=decoder"), 2, "transformer_decoder.1.",
                    "the nearest is transformer_decoder.0.", ranks=0)  # the editor has two blocks, the renderer one

    def without_editor(self):
        out = self.folder / "without_editor.safetensors"
        if not out.exists():
            launch(0, "export", samples() / "stage1", out, "--parts", "reconstructor,renderer")
        return out

    def test_a_collapse_of_the_latents_may_end_the_run(self):
        refused = launch(2, *train_arguments(
            "joint", self.folder / "collapsed", "latents=online", "training.freeze_reconstructor_renderer=false", "training.collapse_guard=0.999",
            "training.collapse_action=stop", "training.train_steps=300", "training.lr=0.01", "training.weight_decay=5",
            data=samples() / "scenes"), code=1)
        self.assertIn("training.collapse_guard = 0.999", refused.err)

    def test_a_step_that_cannot_be_captured_says_why_and_is_the_same(self):
        plain = self.train("plain", "training.train_steps=5")
        asked = launch(1, *train_arguments("joint", self.folder / "asked", "training.train_steps=5", "training.cuda_graph=true"))
        self.assertIn("training.cuda_graph: steps are not captured: the device is cpu", asked.err)
        for line, twin in zip(metrics(self.folder / "asked"), metrics(plain), strict=True):
            for name in ("velocity_loss", "render_loss", "grad_norm"):
                self.assertEqual(line[name], twin[name], name)

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
