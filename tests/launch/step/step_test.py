"""`duoflow step` against the golden values of tests/golden/make_step.py, made by an independent PyTorch implementation.

    DUOFLOW_BINARY=build/duoflow .venv/bin/python tests/launch/step/step_test.py

Tolerances: what another fp32 implementation of the reference was measured to need (activations, losses, gradients, parameters
after ten updates); loosen only with a reason that also covers the twin.
"""

import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

import numpy as np
from safetensors.numpy import load_file, save_file

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
import loss_files

SOURCE = pathlib.Path(__file__).resolve().parents[3]
PROGRAM = pathlib.Path(os.environ.get("DUOFLOW_BINARY", SOURCE / "build" / "duoflow")).resolve()
GOLDEN = SOURCE / "tests" / "golden"
STEPS = 10
OWN_KEYS = ("editor_velocity_head.", "light_embedder.", "latent_")  # not in a state dict of the reference

ACTIVATIONS = {"x0", "x1", "x_t", "velocity", "x_hat", "render"}
LOSSES = {"velocity_loss", "render_loss", "total_loss", "psnr", "psnr_batch"}
CUT_GRADIENTS = {"g_velocity", "g_render"}
FLOW = "model.transformer.editor.flow_matching."


def relative_error(value, expected):
    return np.abs(value.astype(np.float64) - expected).max() / np.abs(expected.astype(np.float64)).max()


def starting_with(prefix, tensors):
    return {name: value for name, value in tensors.items() if name.startswith(prefix)}


class StepTestCase(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = pathlib.Path(scratch.name)
        self.weights = load_file(GOLDEN / "step_weights.safetensors")
        self.batch = load_file(GOLDEN / "step_batch.safetensors")

    def start(self, config, *arguments):
        save_file(self.weights, self.folder / "weights.safetensors")
        save_file(self.batch, self.folder / "batch.safetensors")
        files = ["--weights", self.folder / "weights.safetensors", "--batch", self.folder / "batch.safetensors"]
        command = [PROGRAM, "step", "--config", GOLDEN / f"step_{config}.yaml", *files, "--out", self.folder / "out.safetensors"]
        return subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=100)

    def step(self, config, *arguments):
        done = self.start(config, *arguments)
        self.assertEqual(done.returncode, 0, done.stderr)
        return load_file(self.folder / "out.safetensors")

    def refused(self, code, phrase, config, *arguments):
        done = self.start(config, *arguments)
        self.assertEqual(done.returncode, code, done.stderr)
        self.assertIn(phrase, done.stderr)

    def like_the_reference(self):
        self.weights = {name: value for name, value in self.weights.items() if not name.startswith(OWN_KEYS)}
        del self.batch["x0"], self.batch["x1"]

    def assert_close(self, out, expected, names, tolerance):
        for name in sorted(names):
            with self.subTest(tensor=name):
                self.assertEqual(out[name].shape, expected[name].shape)
                self.assertLess(relative_error(out[name], expected[name]), tolerance)


class GoldenStepTest(StepTestCase):
    def assert_golden(self, out, golden):
        expected = load_file(GOLDEN / f"step_{golden}.safetensors")
        gradients = starting_with("grad.", expected)
        self.assertEqual({name for name in out if not name.startswith("param.")},
                         ACTIVATIONS | LOSSES | CUT_GRADIENTS | set(gradients) | {"trajectory"})
        self.assert_close(out, expected, ACTIVATIONS, 5e-6)
        self.assert_close(out, expected, LOSSES, 1e-6)
        self.assert_close(out, expected, CUT_GRADIENTS | set(gradients), 3e-5)
        for column, number in enumerate(("total_loss", "velocity_loss", "render_loss", "psnr", "gradient norm")):
            with self.subTest(trajectory=number):
                self.assertEqual(out["trajectory"].shape, (STEPS, 5))
                np.testing.assert_allclose(out["trajectory"][:, column], expected["trajectory"][:, column], rtol=3e-6)
        for name, value in starting_with("param.", out).items():
            with self.subTest(tensor=name):
                wanted = expected.get(name, self.weights[name.removeprefix("param.")])  # without a gradient: as given
                np.testing.assert_allclose(value, wanted, rtol=0, atol=1e-5)

    def test_reference_behaviour_gives_the_twins_numbers_and_ten_updates(self):
        self.like_the_reference()
        self.assert_golden(self.step("reference", "--steps", str(STEPS)), "reference")

    def test_own_behaviour_gives_the_twins_numbers_and_ten_updates(self):
        self.assert_golden(self.step("duoflow", "--steps", str(STEPS)), "duoflow")


class StepTest(StepTestCase):
    def test_frozen_parts_keep_their_bits_while_the_editor_moves(self):
        self.like_the_reference()
        out = self.step("reference", "--steps", "2", "model.transformer.freeze_reconstructor_renderer=true")
        moved = {name for name, value in self.weights.items() if not np.array_equal(out["param." + name], value)}
        editor = ("env_tokenizer.", "transformer_editor.", "time_embedder.")
        self.assertEqual(moved, {name for name in self.weights if name.startswith(editor)})

    def test_without_steps_there_is_neither_trajectory_nor_parameters(self):
        out = self.step("duoflow")
        self.assertFalse(starting_with("param.", out) or "trajectory" in out)

    def test_a_loss_of_weight_zero_moves_nothing(self):
        fixed = (FLOW + "weighting=fixed", FLOW + "weight_ema=0")
        out = self.step("duoflow", "--steps", "2", FLOW + "render_loss_weight=0", *fixed)
        self.assertFalse({"render", "render_loss", "psnr", "psnr_batch", "g_render"} & set(out))
        self.assertGreater(out["velocity_loss"], 0)
        weight = 0.6  # velocity_loss_weight of the config
        np.testing.assert_allclose(out["total_loss"], weight * out["velocity_loss"], rtol=1e-6)
        renderer = starting_with(("target_pose_tokenizer.", "transformer_decoder.", "image_token_decoder."), self.weights)
        for name, value in renderer.items():  # weight decay included
            np.testing.assert_array_equal(out["param." + name], value, err_msg=name)

    def test_a_velocity_loss_of_weight_zero_is_left_out(self):
        out = self.step("duoflow", FLOW + "velocity_loss_weight=0", FLOW + "weighting=fixed", FLOW + "weight_ema=0")
        self.assertFalse({"velocity_loss", "g_velocity"} & set(out))
        self.assertGreater(out["render_loss"], 0)
        self.assertGreater(out["total_loss"], 0)

    def test_pictures_outside_0_to_1_are_a_warning(self):
        self.batch["target_image"][0, 0, 0, 0, 0] = 1.5
        done = self.start("duoflow")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stderr, "target_image holds numbers from .* to 1.5")

    def test_loss_networks_in_a_state_dict_are_set_aside(self):
        self.weights["loss_computer.perceptual_loss_module.vgg.features.0.bias"] = np.zeros(64, np.float32)
        self.step("duoflow")

    def test_what_is_not_used_is_named(self):
        self.like_the_reference()
        self.batch["noise"] = self.batch["t"]
        done = self.start("reference")
        for unused in ("tensor noise", "model.image_tokenizer.in_channels"):
            self.assertIn(f"{unused} is not used", done.stderr)

    def test_an_update_above_the_allowed_norm_is_skipped(self):
        out = self.step("duoflow", "--steps", "2", "training.grad_clip_norm=1e-3", "training.allowed_gradnorm_factor=2")
        for name, value in starting_with("param.", out).items():
            np.testing.assert_array_equal(value, self.weights[name.removeprefix("param.")], err_msg=name)


class WeightingTest(StepTestCase):
    """What the other weightings make of the step; lambda_v is 0.6 and lambda_r 1.4 in the config."""

    def weighted(self, name, *arguments):
        return self.step("duoflow", FLOW + f"weighting={name}", FLOW + "weight_ema=0", *arguments)

    def test_normalized_each_scales_the_renderers_gradients_too(self):
        fixed, each = self.weighted("fixed"), self.weighted("normalized_each")
        weight = 1 / each["render_loss"].astype(np.float64)
        np.testing.assert_allclose(each["total_loss"], 0.6 + 1.4, rtol=1e-6)
        names = {name for name in fixed if name.startswith(("grad.transformer_decoder.", "grad.image_token_decoder."))}
        self.assertTrue(names)
        self.assert_close(each, {name: weight * fixed[name] for name in names}, names, 1e-6)
        self.assert_close(each, {"g_render": weight * fixed["g_render"]}, {"g_render"}, 1e-6)

    def test_gradient_balance_takes_the_step_before(self):
        out = self.weighted("gradient_balance", "--steps", "3")
        norm = {name: np.linalg.norm(out[name].astype(np.float64)) for name in CUT_GRADIENTS}
        weight = (norm["g_render"] / 1.4) / (norm["g_velocity"] / 0.6)
        total, velocity, render = out["trajectory"][:, :3].astype(np.float64).T
        np.testing.assert_allclose(total[0], 0.6 * velocity[0] + 1.4 * render[0], rtol=1e-6)
        np.testing.assert_allclose(total[1], 0.6 * weight * velocity[1] + 1.4 * render[1], rtol=1e-5)
        self.refused(2, "gradient_space = v_pred", "duoflow", FLOW + "weighting=gradient_balance", FLOW + "gradient_space=parameters")

    def test_uncertainty_starts_at_one_and_learns(self):
        out = self.weighted("uncertainty", "--steps", "2", FLOW + "uncertainty_lr=0.5")
        total, velocity, render = out["trajectory"][:, :3].astype(np.float64).T
        np.testing.assert_allclose(total[0], 0.6 * velocity[0] + 1.4 * render[0], rtol=1e-6)
        v, r = (np.exp(0.5 * np.clip(1 - loss[0], -1, 1)) for loss in (velocity, render))
        np.testing.assert_allclose(total[1], 0.6 * v * velocity[1] + 1.4 * r * render[1], rtol=1e-5)

    def test_alternating_leaves_the_renderer_alone_in_a_step_of_the_velocity_loss(self):
        renderer = starting_with(("target_pose_tokenizer.", "transformer_decoder.", "image_token_decoder."), self.weights)
        out = self.weighted("alternating", "--steps", "1", "training.warmup=0")
        for name, value in renderer.items():  # weight decay included
            np.testing.assert_array_equal(out["param." + name], value, err_msg=name)
        self.assertEqual(out["trajectory"][0, 2], 0)
        out = self.weighted("alternating", "--steps", "2", "training.warmup=0")
        self.assertFalse(all(np.array_equal(out["param." + name], value) for name, value in renderer.items()))
        self.assertEqual(out["trajectory"][1, 1], 0)

    def test_separate_graphs_keep_the_render_loss_from_the_editor(self):
        both = self.weighted("separate_graphs")
        velocity = self.weighted("fixed", FLOW + "render_loss_weight=0")
        fixed = self.weighted("fixed")
        editor = {name for name in both if name.startswith("grad.transformer_editor.")}
        renderer = {name for name in both if name.startswith("grad.transformer_decoder.")}
        self.assertTrue(editor and renderer)
        self.assert_close(both, velocity, editor, 1e-6)
        self.assert_close(both, fixed, renderer, 1e-6)


class ImageTermsTest(StepTestCase):
    """Every term of the render loss, on pictures of 16 pixels a side; the networks have random weights."""

    @classmethod
    def setUpClass(cls):
        scratch = tempfile.TemporaryDirectory()
        cls.addClassCleanup(scratch.cleanup)
        networks = pathlib.Path(scratch.name)
        loss_files.write_lpips_vgg16(networks / "lpips.safetensors")
        loss_files.write_vgg19(networks / "vgg19.safetensors")
        cls.networks = ("model.image_tokenizer.image_size=16", "model.target_pose_tokenizer.image_size=16",
                        f"training.lpips_weights={networks / 'lpips.safetensors'}", f"training.perceptual_weights={networks / 'vgg19.safetensors'}",
                        "training.lpips_loss_weight=0.5", "training.perceptual_loss_weight=0.25")

    def setUp(self):
        super().setUp()
        self.batch["target_image"] = np.random.default_rng(2).random((2, 2, 3, 16, 16), np.float32)

    def test_the_render_loss_is_the_weighted_sum(self):
        pixels = ("training.l2_loss_weight=1.5", "training.l1_loss_weight=0.75", "training.gradient_loss_weight=2")
        out = self.step("duoflow", "--steps", "2", *self.networks, *pixels)
        error = out["render"].astype(np.float64) - self.batch["target_image"]
        differences = np.abs(np.diff(error, axis=-1)).mean() + np.abs(np.diff(error, axis=-2)).mean()
        expected = 1.5 * (error**2).mean() + 0.75 * np.abs(error).mean() + 2 * differences + 0.5 * out["lpips"] + 0.25 * out["perceptual"]
        np.testing.assert_allclose(out["render_loss"], expected, rtol=2e-6)
        self.assertGreater(out["lpips"], 0)
        self.assertGreater(out["perceptual"], 0)
        self.assertTrue(np.isfinite(out["trajectory"]).all())

    def test_of_a_reconstruction_too(self):
        self.like_the_reference()
        random = np.random.default_rng(3)
        self.batch["input_image"] = random.random((2, 2, 3, 16, 16), np.float32)
        out = self.step("duoflow", *self.networks, "objective=reconstruction")
        error = out["render"].astype(np.float64) - self.batch["target_image"]
        self.assertTrue(out["lpips"] > 0 and out["perceptual"] > 0)
        np.testing.assert_allclose(out["render_loss"], (error**2).mean() + 0.5 * out["lpips"] + 0.25 * out["perceptual"], rtol=2e-6)

    def test_a_gate_that_no_time_reaches_leaves_the_pixel_terms(self):
        plain = self.step("duoflow", *self.networks[:2])
        gated = self.step("duoflow", *self.networks, "training.perceptual_min_t=0.95")  # t is 0.35 and 0.9
        half = self.step("duoflow", *self.networks, "training.perceptual_min_t=0.5")
        whole = self.step("duoflow", *self.networks)
        self.assertEqual(gated["lpips"], 0)
        np.testing.assert_array_equal(gated["g_render"], plain["g_render"])
        self.assertTrue(0 < half["lpips"] < whole["lpips"])
        np.testing.assert_array_equal(half["g_render"][0], plain["g_render"][0])
        self.assertFalse(np.array_equal(half["g_render"][1], plain["g_render"][1]))


class StepRefusalTest(StepTestCase):
    def test_an_image_term_without_its_network(self):
        bigger = ("model.image_tokenizer.image_size=16", "model.target_pose_tokenizer.image_size=16")
        self.refused(2, "launch/loss_weights.py vgg19", "duoflow", *bigger, "training.perceptual_loss_weight=1.0")
        self.refused(2, "nowhere.safetensors is not a file", "duoflow", *bigger, "training.lpips_loss_weight=1.0",
                     "training.lpips_weights=/nowhere.safetensors")

    def test_perceptual_weight_of_the_references_yaml(self):
        self.refused(2, "perceptual_loss_weight", "reference", "training.perceptual_loss_weight=1.0")

    def test_missing_weight(self):
        del self.weights["time_embedder.mlp.2.bias"]
        self.refused(3, "time_embedder.mlp.2.bias", "duoflow")

    def test_missing_batch_tensor(self):
        del self.batch["env_dir"]
        self.refused(3, "env_dir", "duoflow")

    def test_one_end_without_the_other(self):
        del self.batch["x1"]
        self.refused(3, "x1", "duoflow")

    def test_tensor_of_another_shape(self):
        self.batch["target_c2w"] = np.ascontiguousarray(self.batch["target_c2w"][:, :1])
        self.refused(3, "target_c2w has shape [2,1,4,4]", "duoflow")

    def test_numbers_that_are_not_finite(self):
        for name, number in (("target_image", np.nan), ("env_hdr", np.inf), ("x1", -np.inf)):
            with self.subTest(tensor=name):
                kept = self.batch[name].copy()
                self.batch[name].flat[3] = number
                self.refused(3, f"{name} holds numbers that are not finite", "duoflow")
                self.assertFalse((self.folder / "out.safetensors").exists())
                self.batch[name] = kept

    def test_an_output_that_is_a_folder(self):
        (self.folder / "out.safetensors").mkdir()
        self.refused(2, "out.safetensors: a folder", "duoflow")


if __name__ == "__main__":
    unittest.main()
