"""What duoflow writes, read by others: h5py, safetensors, TensorBoard, json, csv, Pillow."""

import csv
import json
import shutil
import sys
import types
import unittest
from unittest import mock

import h5py
import numpy as np
from PIL import Image

from common import SOURCE, EndToEndTest, checkpoint, launch, metrics, needs_program, picture, samples, tensors, train_arguments
from damage import xxh3
from lvsm_scenes import ingest_arguments, make_lvsm_scenes

LINE_KEYS = ["step", "samples", "velocity_loss", "render_loss", "total_loss", "velocity_loss_ratio", "mse", "lpips", "perceptual", "psnr", "latent_std",
             "velocity_weight", "render_weight", "grad_norm", "grad_ratio", "grad_cosine", "lr", "skipped", "step_ms", "data_wait_ms",
             "comm_wait_ms", "samples_per_s", "gpu_mem_mib", "slowest_rank"]
ANSWERS = ["", "no_edit_", "oracle_", "shuffled_light_", "mean_light_"]
EVALUATION_KEYS = [answer + metric for answer in ANSWERS for metric in ("psnr", "psnr_masked", "ssim", "ssim_masked", "lpips", "lpips_masked")] + ["pairs"]


def setUpModule():
    needs_program()


def text(value):
    return value.decode() if isinstance(value, bytes) else str(value)


class ShardFormatTest(EndToEndTest):
    def assert_dataset(self, file, name, dtype, shape):
        stored = file[name]
        self.assertEqual((stored.dtype, stored.shape), (np.dtype(dtype), shape), name)
        self.assertIsNone(stored.chunks, name)
        self.assertIsNotNone(stored.id.get_offset(), name)

    def test_scene_shard(self):
        with h5py.File(samples() / "scenes" / "scenes-00001.h5", "r") as file:
            self.assertEqual((file.attrs["schema_version"], text(file.attrs["kind"])), (1, "scene"))
            for name, dtype, shape in [
                ("images", np.uint8, (30, 16, 16, 3)), ("alpha", np.uint8, (30, 16, 16)), ("c2w", np.float32, (30, 4, 4)),
                ("fxfycxcy", np.float32, (30, 4)), ("env", np.float16, (5, 16, 32, 3)), ("scene/object", "S64", (5,)),
                ("scene/light", "S64", (5,)), ("scene/first_frame", np.int64, (5,)), ("scene/frame_count", np.int64, (5,)),
                ("scene/env_row", np.int64, (5,)), ("scene/env_rotation", np.float32, (5, 3, 3)),
            ]:
                self.assert_dataset(file, name, dtype, shape)
            self.assertEqual(list(file["scene/first_frame"]), [0, 6, 12, 18, 24])
            self.assertEqual(len(set(file["scene/light"])), 5)
            self.assertTrue((file["env"][:] >= 0).all() and (file["env"][:] > 1).any(), "linear light, brighter than white somewhere")
            rotations = file["c2w"][:, :3, :3].astype(np.float64)
            np.testing.assert_allclose(rotations @ rotations.transpose(0, 2, 1), np.broadcast_to(np.eye(3), (30, 3, 3)), atol=1e-5)
            np.testing.assert_allclose(np.linalg.det(rotations), 1, atol=1e-5)

    def test_pair_shard(self):
        producers = set()
        for number in range(2):
            with (h5py.File(samples() / "pairs" / f"pairs-{number:05d}.h5", "r") as file,
                  h5py.File(samples() / "scenes" / f"scenes-{number:05d}.h5", "r") as scenes):
                self.assertEqual((file.attrs["schema_version"], text(file.attrs["kind"])), (1, "pair"))
                producers.add(text(file.attrs["producer"]))
                for name, dtype, shape in [
                    ("target_images", np.uint8, (5, 2, 16, 16, 3)), ("target_alpha", np.uint8, (5, 2, 16, 16)),
                    ("target_c2w", np.float32, (5, 2, 4, 4)), ("target_fxfycxcy", np.float32, (5, 2, 4)), ("env_row", np.int64, (5,)),
                    ("env", np.float16, (5, 16, 32, 3)), ("world_to_norm", np.float32, (5, 4, 4)), ("row/object", "S64", (5,)),
                    ("row/light", "S64", (5,)), ("row/view_set", np.int64, (5,)), ("pairs", np.int64, (20, 2)),
                ]:
                    self.assert_dataset(file, name, dtype, shape)
                self.assertEqual(sorted(map(tuple, file["pairs"])), [(a, b) for a in range(5) for b in range(5) if a != b])
                self.assertEqual(list(file["row/light"]), list(scenes["scene/light"]))
                # Inputs are frames 0 and 3 of 6, targets are spread over the others: 1 and 4.
                targets = scenes["images"][:].reshape(5, 6, 16, 16, 3)[:, [1, 4]]
                np.testing.assert_array_equal(file["target_images"][:], targets)
                np.testing.assert_array_equal(file["env"][:], scenes["env"][:])
                self.assert_normalised_cameras(file, scenes)
        self.assertEqual(len(producers), 1)

    def assert_normalised_cameras(self, file, scenes):
        for row in range(5):
            to_norm, centres = file["world_to_norm"][row].astype(np.float64), scenes["c2w"][[6 * row + 1, 6 * row + 4], :, 3].astype(np.float64)
            np.testing.assert_allclose(centres @ to_norm.T, file["target_c2w"][row][:, :, 3], atol=1e-5)

    def test_latents_of_every_type(self):
        stored = {}
        for dtype, name in (("bf16", "b"), ("f16", "h"), ("f32", "f")):
            out = self.folder / dtype
            launch(2, "encode", "--checkpoint", samples() / "stage1", "--data", samples() / "scenes", "--out", out, "--dtype", dtype)
            with h5py.File(out / "pairs-00000.h5", "r") as file:
                latents = file["latents"]
                self.assertEqual((latents.shape, latents.id.get_type().get_size()), ((5, 8, 32), {"b": 2, "h": 2, "f": 4}[name]))
                stored[name] = latents[:].astype(np.float32)
                values = latents[:].astype(np.float64).reshape(-1, 32)
                np.testing.assert_allclose(file.attrs["latent_mean"], values.mean(0), atol=1e-5)
                np.testing.assert_allclose(file.attrs["latent_std"], values.std(0), rtol=1e-3)
        np.testing.assert_allclose(stored["h"], stored["f"], rtol=2**-11, atol=1e-7)
        np.testing.assert_allclose(stored["b"], stored["f"], rtol=2**-8)
        with h5py.File(self.folder / "bf16" / "pairs-00000.h5", "r") as file:
            bits = np.fromfile(file.filename, np.uint16, count=5 * 8 * 32, offset=file["latents"].id.get_offset())
        np.testing.assert_array_equal((bits.astype(np.uint32) << 16).view(np.float32).reshape(5, 8, 32), stored["b"])


class RunFormatTest(EndToEndTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.run_folder = cls.folder / "run"
        launch(2, *train_arguments("joint", cls.run_folder, "training.train_steps=6", "training.print_every=2", "training.vis_every=3"))

    def test_metrics_lines(self):
        lines = metrics(self.run_folder)
        self.assertEqual([line["step"] for line in lines], [2, 4, 6])
        for line in lines:
            self.assertEqual(sorted(line), sorted(LINE_KEYS))
            self.assertEqual(line["samples"], 12 * line["step"])
            self.assertIs(line["skipped"], False)
            self.assertIn(line["slowest_rank"], (0, 1))
            self.assertAlmostEqual(line["samples_per_s"], 12e3 / line["step_ms"], delta=1e-6 * line["samples_per_s"])
            self.assertIsNone(line["gpu_mem_mib"])

    def test_tensorboard_shows_the_same_numbers(self):
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(self.run_folder), size_guidance={"scalars": 0})
        events.Reload()
        lines = metrics(self.run_folder)
        names = {name for name in LINE_KEYS if name not in ("step", "skipped") and lines[0][name] is not None}
        self.assertLessEqual(names, set(events.Tags()["scalars"]))
        for name in names:
            points = [(event.step, event.value) for event in events.Scalars(name)]
            self.assertEqual([step for step, _ in points], [2, 4, 6])
            np.testing.assert_allclose([value for _, value in points], [line[name] for line in lines], rtol=1e-6)

    def test_checkpoint(self):
        folder = checkpoint(self.run_folder)
        self.assertEqual((self.run_folder / "checkpoints" / "latest").read_text().strip(), folder.name)
        model, manifest = tensors(folder, "model"), json.loads((folder / "manifest.json").read_text())
        self.assertEqual((manifest["step"], manifest["world_size"], manifest["format"]), (6, 2, "duoflow-checkpoint"))
        listed = {entry["name"]: (entry["dtype"], tuple(entry["shape"])) for entry in manifest["tensors"] if entry["part"] == "model"}
        self.assertEqual(listed, {name: ("F32", value.shape) for name, value in model.items()})
        self.assertEqual(model["n_light_field_latent"].shape, (8, 32))
        state = tensors(folder, "state")
        self.assertEqual(int(state["update_count"]), 6)
        for name in state:
            if name.startswith("exp_avg."):
                self.assertEqual(state[name].shape, model[name.removeprefix("exp_avg.")].shape)
        frozen = tensors(checkpoint(samples() / "stage1"), "model")
        np.testing.assert_array_equal(model["n_light_field_latent"], frozen["n_light_field_latent"])

    def test_the_reader_printed_in_the_documentation_reads_a_checkpoint_and_finds_damage(self):
        code = (SOURCE / "docs/checkpoints.md").read_text().split("```python\n")[1].split("```")[0]
        names = {}
        with mock.patch.dict(sys.modules, {"xxhash": types.SimpleNamespace(xxh3_64_hexdigest=lambda data: xxh3(data.encode() if isinstance(data, str) else data))}):
            exec(code, names)  # pylint: disable=exec-used
        folder = checkpoint(self.run_folder)
        manifest, model, state = names["read_checkpoint"](folder)
        self.assertEqual(manifest["step"], 6)
        for part, found in (("model", model), ("state", state)):
            expected = tensors(folder, part)
            self.assertEqual(found.keys(), expected.keys())
            for name, value in expected.items():
                self.assertEqual((found[name].shape, found[name].tobytes()), (value.shape, value.tobytes()), name)
        damaged = self.folder / "damaged-checkpoint"
        shutil.copytree(folder, damaged)
        for name in [file["name"] for file in manifest["files"]] + ["manifest.json"]:
            original = (damaged / name).read_bytes()
            (damaged / name).write_bytes(original[:-3] + bytes([original[-3] ^ 1]) + original[-2:])
            with self.assertRaises((AssertionError, ValueError), msg=name):
                names["read_checkpoint"](damaged)
            (damaged / name).write_bytes(original)

    def test_run_folder(self):
        names = {path.name for path in self.run_folder.iterdir() if not path.name.startswith("events.out.tfevents.")}
        self.assertEqual(names, {"config.yaml", "metrics.jsonl", "log.txt", "checkpoints", "images"})
        self.assertEqual(sorted(path.name for path in (self.run_folder / "images").iterdir()), ["step_000000003.png", "step_000000006.png"])
        for path in (self.run_folder / "images").iterdir():
            self.assertEqual(picture(path).shape[2], 3)
        again = self.folder / "again"  # the effective config is a config
        launch(2, "train", "--config", self.run_folder / "config.yaml", "--data", samples() / "pairs", "--run", again)
        self.assertEqual((again / "config.yaml").read_text(), (self.run_folder / "config.yaml").read_text())

    def test_evaluation(self):
        numbers = {}
        for ranks in (1, 2):
            out = self.folder / f"evaluation-{ranks}"
            launch(ranks, "evaluate", "--checkpoint", self.run_folder, "--data", samples() / "pairs", "--out", out, "--train-data", samples() / "pairs")
            numbers[ranks] = json.loads((out / "metrics.json").read_text())
            self.assertEqual(sorted(numbers[ranks]), sorted(EVALUATION_KEYS))
            self.assertEqual(numbers[ranks]["pairs"], 40)
            self.assert_rows(out / "pairs.csv", numbers[ranks])
            self.assertGreater(picture(out / "contact_sheet.png").shape[0], 8 * 16, "eight rows")
        for name, value in numbers[1].items():
            if value is not None:
                self.assertAlmostEqual(value, numbers[2][name], delta=1e-4 * abs(value), msg=name)

    def test_a_sweep_over_solvers_and_steps_agrees_with_single_evaluations(self):
        single, swept = self.folder / "single", self.folder / "swept"
        chosen = ("--solver", "heun", "--steps", "2")
        launch(0, "evaluate", "--checkpoint", self.run_folder, "--data", samples() / "pairs", "--out", single, *chosen)
        launch(2, "evaluate", "--checkpoint", self.run_folder, "--data", samples() / "pairs", "--out", swept,
               "--sweep-steps", "1,2,16", "--sweep-solvers", "euler,heun,dopri5", "dist.threads=1")
        numbers = json.loads((swept / "metrics.json").read_text())["sweep"]
        rows = list(csv.DictReader((swept / "sweep.csv").read_text().splitlines()))
        self.assertEqual([(row["solver"], row["steps"]) for row in rows],
                         [(solver, steps) for solver in ("euler", "heun") for steps in ("1", "2", "16")] + [("dopri5", "")])
        psnr = {(line["solver"], line["steps"]): line["psnr"] for line in numbers}
        for row, line in zip(rows, numbers, strict=True):
            self.assertAlmostEqual(float(row["psnr"]), line["psnr"])
        alone = json.loads((single / "metrics.json").read_text())
        self.assertNotIn("sweep", alone)
        self.assertAlmostEqual(psnr["heun", 2], alone["psnr"], delta=1e-4 * abs(alone["psnr"]))
        self.assertAlmostEqual(psnr["heun", 16], psnr["dopri5", None], delta=0.01)  # both near the field's own end
        refused = launch(0, "evaluate", "--checkpoint", self.run_folder, "--data", samples() / "pairs", "--out", self.folder / "no",
                         "--sweep-steps", "1", "--sweep-solvers", "rk5", code=2)
        self.assertIn("rk4", refused.err)

    def test_figures_that_do_not_exist_are_null(self):
        scenes, ingested, pairs, out = (self.folder / f"see_through_{what}" for what in ("png", "h5", "pairs", "out"))
        make_lvsm_scenes(scenes)
        for path in (scenes / "images").rglob("*.png"):
            pixels = picture(path).copy()
            pixels[..., 3] = 127  # no pixel is foreground (alpha > 0.5)
            Image.fromarray(pixels, "RGBA").save(path)
        model = ["--checkpoint", samples() / "stage1"]
        launch(0, *ingest_arguments(scenes, ingested))
        launch(0, "encode", *model, "--data", ingested, "--out", pairs, 'data.input_frames="0,1"')
        launch(0, "evaluate", *model, "--data", pairs, "--out", out)

        def refuse(constant):
            raise AssertionError(f"{constant} is not JSON")

        numbers = json.loads((out / "metrics.json").read_text(), parse_constant=refuse)
        self.assertEqual(sorted(numbers), sorted(EVALUATION_KEYS))
        # Two lights leave no third one to edit under; without --train-data there is no mean light.
        exist = {f"{answer}{metric}" for answer in ("", "no_edit_", "oracle_") for metric in ("psnr", "ssim")}
        self.assertEqual({name for name, value in numbers.items() if value is not None}, exist | {"pairs"})
        rows = list(csv.DictReader((out / "pairs.csv").read_text().splitlines()))
        self.assertEqual({row["psnr_masked"] for row in rows}, {""})
        mean = sum(float(row["psnr"]) for row in rows) / len(rows)
        self.assertAlmostEqual(mean, numbers["psnr"], delta=1e-4 * abs(mean))

    def assert_rows(self, path, means):
        rows = list(csv.DictReader(path.read_text().splitlines()))
        self.assertEqual([int(row["pair"]) for row in rows], list(range(40)))
        self.assertEqual(len({(row["object"], row["light_x0"], row["light_x1"]) for row in rows}), 40)
        for name in ("psnr", "oracle_psnr_masked", "shuffled_light_ssim"):
            values = [float(row[name]) for row in rows if row[name]]
            self.assertAlmostEqual(sum(values) / len(values), means[name], delta=1e-4 * abs(means[name]), msg=name)


if __name__ == "__main__":
    unittest.main()
