"""Data folders made of data folders: repack, split, merge, index; and what inspect says of them."""

import json
import shutil
import sys
import unittest

import numpy as np

from common import PROGRAM, SOURCE, launch, metrics, needs_program, picture, samples, train_arguments
from foreign import write_foreign
from refusal import RefusalTest

sys.path.insert(0, str(SOURCE / "launch"))
import duoflow_h5  # noqa: E402


def setUpModule():
    needs_program()


def same_files(a, b):
    return sorted(path.name for path in a.iterdir()) == sorted(path.name for path in b.iterdir()) and all(
        path.read_bytes() == (b / path.name).read_bytes() for path in a.iterdir())


class RewriteTest(RefusalTest):
    def test_repacked_folders_train_as_before(self):
        out = self.folder / "repacked"
        launch(0, "repack", samples() / "pairs", "--out", out)
        launch(0, "verify", out)
        losses = {}
        for data in (samples() / "pairs", out):
            run = self.folder / f"run-{data.name}"
            launch(0, *train_arguments("joint", run, data=data))
            losses[data.name] = [line["total_loss"] for line in metrics(run)]
        np.testing.assert_allclose(losses["repacked"], losses["pairs"], rtol=1e-6)  # the statistics are summed in another order

    def test_foreign_layouts_are_rewritten_to_the_bytes_of_ours(self):
        expected = self.folder / "expected"
        launch(0, "repack", samples() / "pairs", "--out", expected)
        for name, how in {"chunked": {"chunks": True}, "compressed": {"compression": "gzip"}, "userblock": {}, "swapped": {}, "marked": {}}.items():
            data, out = self.folder / name, self.folder / f"{name}-repacked"
            data.mkdir()
            for shard in sorted((samples() / "pairs").glob("*.h5")):
                write_foreign(shard, data / shard.name, name, how)
            launch(0, "repack", data, "--out", out)  # without manifest
            for path in expected.glob("*.h5"):
                self.assertEqual(path.read_bytes(), (out / path.name).read_bytes(), name)

    def test_types_of_latents_are_converted_with_the_rounding_of_torch(self):
        import torch

        f32, f16, back = (self.folder / name for name in ("f32", "f16", "back"))
        launch(0, "repack", samples() / "pairs", "--out", f32, "--dtype", "f32")
        launch(0, "repack", f32, "--out", back, "--dtype", "bf16")
        launch(0, "repack", f32, "--out", f16, "--dtype", "f16")
        wide = duoflow_h5.Folder(f32).read(0, "latents")
        stored = duoflow_h5.to_torch(duoflow_h5.Folder(back).read(0, "latents"), "bf16")
        self.assertTrue(torch.equal(torch.from_numpy(wide).bfloat16(), stored))
        self.assertTrue(torch.equal(torch.from_numpy(wide).half(), duoflow_h5.to_torch(duoflow_h5.Folder(f16).read(0, "latents"), "f16")))

    def test_rounding_is_that_of_torch_for_any_number(self):
        import torch

        numbers = np.random.default_rng(5).standard_normal((4, 64, 33)).astype(np.float32) * 1e3
        rows = [row | {"latents": values} for row, values in zip(duoflow_h5.Folder(samples() / "pairs").rows(), numbers, strict=False)]
        data, out = self.folder / "any", self.folder / "any16"
        duoflow_h5.write_pair_shard(data / "pairs-00000.h5", rows, dtype="f32")
        for dtype, cast in (("bf16", torch.bfloat16), ("f16", torch.float16)):
            shutil.rmtree(out, ignore_errors=True)
            launch(0, "repack", data, "--out", out, "--dtype", dtype)
            for row, bits in zip(rows, duoflow_h5.Folder(out).read(0, "latents"), strict=True):
                expected = torch.from_numpy(row["latents"]).to(cast)
                self.assertTrue(torch.equal(expected, duoflow_h5.to_torch(bits, dtype)), dtype)
                np.testing.assert_array_equal(duoflow_h5.from_float(row["latents"], dtype), bits)

    def test_parts_share_nothing_and_merge_to_the_whole(self):
        out, whole, merged = (self.folder / name for name in ("parts", "whole", "merged"))
        launch(0, "split", samples() / "scenes", "a=0.5", "b=0.5", "--seed", "1", "--by", "light", "--out", out)
        lights = {part: {scene["light"] for scene in duoflow_h5.Folder(out / part).scenes()} for part in "ab"}
        self.assertFalse(lights["a"] & lights["b"])
        self.assertEqual(len(lights["a"] | lights["b"]), 5)
        launch(0, "repack", samples() / "scenes", "--out", whole)
        launch(0, "merge", out / "b", out / "a", "--out", merged)
        self.assertTrue(same_files(whole, merged))

    def test_what_cannot_be_is_refused(self):
        pairs, out = samples() / "pairs", self.folder / "no"
        self.refuse(["merge", pairs, samples() / "scenes", "--out", out], 3, "kind scene", "has pair", ranks=0)
        self.refuse(["merge", pairs, pairs, "--out", out], 3, "is in", "pairs-00000.h5", "count twice", ranks=0)
        self.refuse(["split", pairs, "a:1", "--out", out], 2, "NAME=FRACTION", ranks=0)
        self.refuse(["repack", pairs, "--out", pairs], 3, "is there already", ranks=0)
        self.refuse(["index", pairs], 3, "has a manifest.json", ranks=0)
        for command in (["repack", pairs, "--out", out], ["merge", pairs, pairs, "--out", out], ["split", pairs, "a=1", "--out", out],
                        ["index", pairs], ["inspect", pairs], ["import", pairs, out]):
            self.refuse(command, 2, command[0], "one process", "without mpirun")
        self.assertEqual([path.name for path in self.folder.iterdir() if path.name.startswith("no")], [])


class InspectTest(RefusalTest):
    def test_json_says_what_the_folders_hold(self):
        told = json.loads(launch(0, "inspect", samples() / "pairs", "--json", "--rows").out)
        rows = list(duoflow_h5.Folder(samples() / "pairs").rows())
        latents = np.stack([row["latents"] for row in rows]).astype(np.float64)
        self.assertEqual((told["kind"], told["rows"], told["pairs"], told["tokens"], told["dim"]), ("pair", 10, 40, 8, 32))
        np.testing.assert_allclose(told["latents"]["mean"], latents.mean((0, 1)), rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(told["latents"]["std"], latents.std((0, 1)), rtol=1e-5)
        np.testing.assert_allclose(told["latents"]["values"], [latents.min(), latents.max()])
        rms = np.sqrt((latents**2).mean((1, 2)))
        np.testing.assert_allclose(told["latents"]["rms"], [rms.min(), rms.max()])
        self.assertEqual({name: len(lights) for name, lights in told["lights"].items()}, {row["object"]: 5 for row in rows})
        self.assertEqual(told["bytes"], sum(path.stat().st_size for path in (samples() / "pairs").glob("*.h5")))
        scenes = list(duoflow_h5.Folder(samples() / "scenes").scenes())
        told = json.loads(launch(0, "inspect", samples() / "scenes", "--json").out)
        distances = np.concatenate([np.linalg.norm(scene["c2w"][:, :3, 3], axis=1) for scene in scenes])
        np.testing.assert_allclose(told["camera_distance"], [distances.min(), distances.max()], rtol=1e-6)
        self.assertEqual((told["scenes"], told["frames"]), (10, sum(len(scene["images"]) for scene in scenes)))

    def test_a_row_that_stands_out_is_named(self):
        rows = list(duoflow_h5.Folder(samples() / "pairs").rows())
        rows[3]["latents"] = rows[3]["latents"] * 10
        data = self.folder / "outlier"
        duoflow_h5.write_pair_shard(data / "pairs-00000.h5", rows)
        duoflow_h5.index(data, PROGRAM)
        told = launch(0, "inspect", data, "--rows").out
        self.assertIn(f"pairs-00000.h5 row 3 ({rows[3]['object']} under {rows[3]['light']})", told)

    def test_sheet_shows_every_object_under_every_light(self):
        sheet = self.folder / "sheet.png"
        launch(0, "inspect", samples() / "scenes", "--sheet", sheet)
        pixels = picture(sheet)
        self.assertEqual(pixels.shape, (12 + 2 * 100, 132 + 5 * 100, 3))
        cell = pixels[12 : 12 + 96, 132 : 132 + 96]
        first = next(duoflow_h5.Folder(samples() / "scenes").scenes())["images"][0]
        self.assertLess(np.abs(cell.reshape(16, 6, 16, 6, 3).mean((1, 3)) - first).mean(), 6, "the first picture, six times as large")
        small = self.folder / "small.png"
        said = launch(0, "inspect", samples() / "pairs", "--sheet", small, "--sheet-objects", "1", "--sheet-lights", "2")
        self.assertEqual(picture(small).shape, (112, 332, 3))
        self.assertIn("1 objects and 3 lights left out", said.out + said.err)

    def test_options_of_data_folders_are_refused_elsewhere(self):
        self.refuse(["inspect", samples() / "stage1", "--json"], 2, "no data folder", ranks=0)
        self.refuse(["inspect", samples() / "scenes", "--rows"], 3, "scene shards", ranks=0)
        self.refuse(["inspect", samples() / "scenes", "--sheet", self.folder], 2, "a folder", ranks=0)


if __name__ == "__main__":
    unittest.main()
