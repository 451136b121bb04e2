"""LPIPS and the VGG19 loss in training and evaluation, and `compare`. Networks with random weights unless a test says otherwise."""

import io
import json
import math
import os
import pickle
import subprocess
import sys
import unittest

import numpy as np
from PIL import Image
from safetensors.numpy import load_file, save_file

import loss_files
from common import MEASURED, SOURCE, checkpoint, launch, metrics, needs_program, samples, tensors, train_arguments
from refusal import RefusalTest

REPRODUCIBLE = ("dist.reproducible=true", "dist.virtual_shards=4", "training.global_batch_size=8", "training.train_steps=2")


def setUpModule():
    needs_program()


class TrainingTest(RefusalTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        loss_files.write_lpips_vgg16(cls.folder / "lpips_vgg16.safetensors")
        loss_files.write_vgg19(cls.folder / "vgg19.safetensors")
        cls.terms = ("training.l2_loss_weight=1.5", "training.lpips_loss_weight=0.5", "training.perceptual_loss_weight=0.25",
                     f"training.lpips_weights={cls.folder / 'lpips_vgg16.safetensors'}",
                     f"training.perceptual_weights={cls.folder / 'vgg19.safetensors'}")

    def assert_sums(self, lines):
        for line in lines:
            expected = 1.5 * line["mse"] + 0.5 * line["lpips"] + 0.25 * line["perceptual"]
            self.assertAlmostEqual(line["render_loss"], expected, delta=1e-5 * expected)
            self.assertGreater(line["lpips"], 0)
            self.assertGreater(line["perceptual"], 0)
            self.assertFalse(line["skipped"])

    def test_joint_has_the_same_bits_on_one_and_two_ranks_and_frozen_networks(self):
        runs = []
        for ranks in (1, 2):
            runs.append(self.folder / f"joint{ranks}")
            launch(ranks, *train_arguments("joint", runs[-1], *REPRODUCIBLE, *self.terms, "training.perceptual_min_t=0.3",
                                           "training.freeze_reconstructor_renderer=false"))
        one, two = (metrics(run) for run in runs)
        self.assert_sums(one)
        unmeasured = [[{key: value for key, value in line.items() if key not in MEASURED} for line in lines] for lines in (one, two)]
        self.assertEqual(*unmeasured)
        ours, theirs = (tensors(checkpoint(run), "model") for run in runs)
        plain = tensors(checkpoint(samples() / "stage1"), "model")
        self.assertEqual(set(ours), set(plain), "the networks are no part of the state dict")
        for name, value in ours.items():
            self.assertEqual(value.tobytes(), theirs[name].tobytes(), name)

    def test_reconstruction_and_a_run_without_them(self):
        run = self.folder / "reconstruction"
        launch(0, *train_arguments("reconstruction", run, *self.terms, "training.train_steps=2", "training.use_amp=true"))
        self.assert_sums(metrics(run))
        plain = self.folder / "plain"
        launch(0, *train_arguments("reconstruction", plain, "training.train_steps=1"))
        self.assertEqual((metrics(plain)[0]["lpips"], metrics(plain)[0]["perceptual"]), (None, None))

    def test_what_is_missing_or_damaged_is_said_before_training(self):
        run = self.folder / "refused"
        self.refuse(train_arguments("joint", run, "training.lpips_loss_weight=1"), 2, "launch/setup.sh --perceptual")
        self.refuse(train_arguments("joint", run, "training.perceptual_loss_weight=1"), 2, "launch/loss_weights.py vgg19")
        broken = self.folder / "broken.safetensors"
        broken.write_bytes((self.folder / "vgg19.safetensors").read_bytes()[:100000])
        self.refuse(train_arguments("joint", run, "training.perceptual_loss_weight=1", f"training.perceptual_weights={broken}"), 3, "broken.safetensors")
        other = f"training.perceptual_weights={self.folder / 'lpips_vgg16.safetensors'}"
        self.refuse(train_arguments("joint", run, "training.perceptual_loss_weight=1", other), 3, "features.16.weight")

    def test_other_weights_under_the_same_name_are_listed_by_a_resume(self):
        weights, run = self.folder / "changing.safetensors", self.folder / "changing"
        loss_files.write_lpips_vgg16(weights)
        changed = "changed since the checkpoint: weights of the render loss's networks: lpips "

        def train_to(step):
            return launch(0, *train_arguments("joint", run, "training.lpips_loss_weight=0.5", f"training.lpips_weights={weights}",
                                              f"training.train_steps={step}")).err

        train_to(1)
        self.assertNotIn("render loss's networks", train_to(2))
        tensors_ = load_file(weights)
        tensors_["lin0.weight"] *= np.float32(0.5)
        save_file(tensors_, weights)
        self.assertIn(changed, train_to(3))
        self.assertNotIn(changed, train_to(4))

    def test_evaluate_has_lpips_where_the_weights_are_and_says_so_where_not(self):
        arguments = ["evaluate", "--checkpoint", samples() / "stage1", "--data", samples() / "pairs", "--out"]
        done = launch(0, *arguments, self.folder / "without")
        self.assertIn("metrics.json has no lpips", done.err)
        numbers = json.loads((self.folder / "without" / "metrics.json").read_text())
        self.assertIsNone(numbers["lpips"])
        launch(0, *arguments, self.folder / "with", environment={"DUOFLOW_WEIGHTS": str(self.folder)})
        numbers = json.loads((self.folder / "with" / "metrics.json").read_text())
        for answer in ("", "no_edit_", "oracle_", "shuffled_light_"):
            self.assertGreater(numbers[answer + "lpips"], 0)
        self.assertLess(numbers["oracle_lpips"], numbers["no_edit_lpips"])


class CompareTest(RefusalTest):
    def setUp(self):
        self.scratch = self.folder / self._testMethodName
        generator = np.random.default_rng(1)
        self.pictures = [generator.integers(0, 256, (40, 48, 3), np.uint8) for _ in range(3)]
        for folder in ("a", "b"):
            (self.scratch / folder).mkdir(parents=True)

    def write(self, name, pixels):
        Image.fromarray(pixels).save(self.scratch / name)
        return self.scratch / name

    def compare(self, *arguments, **options):
        done = launch(0, "compare", *arguments, **options)
        return json.loads(done.out), done.err

    def psnr(self, x, y):
        return -10 * math.log10(np.mean((x / 255 - y / 255) ** 2))

    def test_two_pictures(self):
        a, b = self.write("a.png", self.pictures[0]), self.write("b.png", self.pictures[1])
        numbers, said = self.compare(a, b)
        self.assertEqual(list(numbers), ["psnr", "ssim", "lpips_vgg", "lpips_alex"])
        self.assertAlmostEqual(numbers["psnr"], self.psnr(*self.pictures[:2]), delta=1e-4)
        self.assertLess(abs(numbers["ssim"]), 0.1)
        self.assertIsNone(numbers["lpips_vgg"])
        self.assertIsNone(numbers["lpips_alex"])
        for name in ("lpips_vgg", "lpips_alex"):
            self.assertIn(f"{name} is null: no weights", said)
        self.assertIn("launch/setup.sh --perceptual", said)
        same, _ = self.compare(a, a)
        self.assertEqual((same["psnr"], round(same["ssim"], 6)), (100, 1))

    def test_two_folders(self):
        for number, pixels in enumerate(self.pictures):
            self.write(f"a/{number}.png", pixels)
            self.write(f"b/{number}.png", 255 - pixels)
        (self.scratch / "a" / "notes.txt").write_text("no picture")
        numbers, _ = self.compare(self.scratch / "a", self.scratch / "b")
        expected = [self.psnr(pixels, 255.0 - pixels) for pixels in self.pictures]
        self.assertEqual((numbers["pictures"], list(numbers["images"])), (3, ["0.png", "1.png", "2.png"]))
        self.assertAlmostEqual(numbers["psnr"], np.mean(expected), delta=1e-4)
        for image, value in zip(numbers["images"].values(), expected):
            self.assertAlmostEqual(image["psnr"], value, delta=1e-4)

    def test_a_transparent_picture_lies_on_white(self):
        clear = np.zeros((16, 16, 4), np.uint8)
        numbers, said = self.compare(self.write("clear.png", clear), self.write("white.png", np.full((16, 16, 3), 255, np.uint8)))
        self.assertEqual(numbers["psnr"], 100)

    def test_small_pictures_have_no_ssim(self):
        a, b = (self.write(f"{name}.png", picture[:8, :8].copy()) for name, picture in zip("ab", self.pictures))
        numbers, said = self.compare(a, b)
        self.assertIsNone(numbers["ssim"])
        self.assertIn("ssim is null for pictures with a side below 11 pixels", said)

    def test_what_cannot_be_compared_is_refused(self):
        a, small = self.write("a.png", self.pictures[0]), self.write("small.png", self.pictures[1][:30].copy())
        self.refuse(["compare", a, self.scratch / "nowhere.png"], 3, "nowhere.png", ranks=0)
        self.refuse(["compare", a, small], 3, "40 x 48", "30 x 48", ranks=0)
        self.refuse(["compare", a, self.scratch / "a"], 2, "one is a folder", ranks=0)
        self.refuse(["compare", self.scratch / "a", self.scratch / "b"], 3, "no PNG or JPEG", ranks=0)
        self.write("a/x.png", self.pictures[0])
        self.refuse(["compare", self.scratch / "a", self.scratch / "b"], 3, "x.png", ranks=0)
        (self.scratch / "text.png").write_text("no picture")
        self.refuse(["compare", a, self.scratch / "text.png"], 3, "text.png", ranks=0)

    @unittest.skipUnless(loss_files.have_real(), f"the weights of LPIPS are not in {loss_files.REAL}: launch/setup.sh --perceptual")
    def test_the_real_networks(self):
        a, b = self.write("a.png", self.pictures[0]), self.write("b.png", self.pictures[1])
        real = {"DUOFLOW_WEIGHTS": str(loss_files.REAL)}
        same, _ = self.compare(a, a, environment=real)
        self.assertEqual((same["lpips_vgg"], same["lpips_alex"]), (0, 0))
        numbers, _ = self.compare(a, b, environment=real)
        self.assertTrue(0.1 < numbers["lpips_vgg"] < 1.5 and 0.1 < numbers["lpips_alex"] < 2, numbers)


class ConverterTest(RefusalTest):
    """launch/loss_weights.py."""

    def convert(self, *arguments, code=0):
        done = subprocess.run([sys.executable, SOURCE / "launch" / "loss_weights.py", *arguments], capture_output=True, text=True)
        self.assertEqual(done.returncode, code, done.stderr)
        return done.stderr

    def test_a_vgg19_is_found_in_a_state_dict_of_the_reference(self):
        vgg = loss_files.random_vgg(loss_files.VGG19)
        prefix = "loss_computer.perceptual_loss_module."
        held = {f"{prefix}vgg.{key}": value for key, value in vgg.items()} | {"n_light_field_latent": np.zeros((2, 3), np.float32)}
        held |= {f"{prefix}blocks.0.0.weight": vgg["features.0.weight"]}  # each convolution is there twice
        save_file(held, self.folder / "state.safetensors")
        self.convert("vgg19", self.folder / "state.safetensors", self.folder / "new" / "vgg19.safetensors")
        converted = load_file(self.folder / "new" / "vgg19.safetensors")
        self.assertEqual(set(converted), set(vgg))
        for name, value in vgg.items():
            np.testing.assert_array_equal(converted[name], value)
        del held[f"{prefix}vgg.features.30.bias"]
        save_file(held, self.folder / "state.safetensors")
        self.assertIn("features.30.bias", self.convert("vgg19", self.folder / "state.safetensors", self.folder / "x.safetensors", code=1))
        self.assertFalse((self.folder / "x.safetensors").exists())

    def test_another_archive_is_refused(self):
        archive = self.folder / "archive"
        (archive / "weights").mkdir(parents=True)
        self.assertIn("has no vgg16.ckpt", self.convert("lpips", archive, self.folder / "out", code=1))
        (archive / "weights" / "vgg16.ckpt").write_bytes(b"other")
        self.assertIn("has sha256", self.convert("lpips", archive, self.folder / "out", code=1))
        self.assertIn("cannot be read", self.convert("lpips", self.folder / "nowhere.tar.gz", self.folder / "out", code=1))
        self.assertFalse((self.folder / "out").exists())

    def test_a_pickle_makes_arrays_and_nothing_else(self):
        sys.path.append(str(SOURCE / "launch"))
        import loss_weights

        arrays = {"a": {"b": np.arange(3, dtype=np.float32)}}
        loaded = loss_weights.ArraysOnly(io.BytesIO(pickle.dumps(arrays, protocol=3))).load()
        np.testing.assert_array_equal(loaded["a"]["b"], arrays["a"]["b"])
        with self.assertRaisesRegex(SystemExit, "getcwd, which is no array"):
            loss_weights.ArraysOnly(io.BytesIO(pickle.dumps(os.getcwd, protocol=3))).load()


class RealWeightsTest(unittest.TestCase):
    @unittest.skipUnless(loss_files.have_real(), f"the weights of LPIPS are not in {loss_files.REAL}: launch/setup.sh --perceptual")
    def test_the_files_are_the_converted_ones(self):
        vgg, alex = (load_file(loss_files.REAL / name) for name in loss_files.NAMES)
        np.testing.assert_allclose(vgg["features.0.weight"][0, :, 0, 0], [-0.5537306, 0.1754839, 0.3130256], rtol=1e-6)
        self.assertEqual(vgg["features.28.weight"].shape, (512, 512, 3, 3))
        self.assertEqual(alex["features.0.weight"].shape, (64, 3, 11, 11))
        for tensors_, widths in ((vgg, (64, 128, 256, 512, 512)), (alex, (64, 192, 384, 256, 256))):
            for number, width in enumerate(widths):
                lin = tensors_[f"lin{number}.weight"]
                self.assertEqual(lin.shape, (1, width, 1, 1))
                self.assertGreaterEqual(lin.min(), 0)


if __name__ == "__main__":
    unittest.main()
