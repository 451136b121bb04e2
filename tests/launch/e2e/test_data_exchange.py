"""Data that comes from elsewhere: plain arrays by `import`, shards by launch/duoflow_h5.py; up to training on them."""

import pathlib
import subprocess
import sys
import unittest

import h5py
import numpy as np

import damage
from common import PROGRAM, SOURCE, launch, metrics, needs_program, samples, train_arguments
from foreign import write_foreign
from refusal import RefusalTest

sys.path.insert(0, str(SOURCE / "launch"))
import duoflow_h5  # noqa: E402


def setUpModule():
    needs_program()


def plain_pairs(count):
    """P plain pairs of the samples' sizes, made of two of their rows."""
    x0, x1 = duoflow_h5.Folder(samples() / "pairs").pair(3)
    repeated = {name: np.stack([x1[name]] * count) for name in ("target_images", "target_c2w", "target_fxfycxcy", "world_to_norm", "env")}
    return {"x0": np.stack([x0["latents"]] * count), "x1": np.stack([x1["latents"]] * count)} | repeated


class ImportPairsTest(RefusalTest):
    def import_and_train(self, source, pairs, *options, training=()):
        out, run = self.folder / f"out-{self._testMethodName}-{source.name}", self.folder / f"run-{self._testMethodName}-{source.name}"
        launch(0, "import", source, out, *options)
        launch(0, "verify", out)
        self.assertEqual(duoflow_h5.Folder(out).pair_count(), pairs)
        launch(0, *train_arguments("joint", run, *training, data=out), "data.allow_other_producer=true", "training.train_steps=2")
        self.assertEqual(len(metrics(run)), 2)
        return duoflow_h5.Folder(out), metrics(run)

    def test_npy(self):
        source = self.folder / "arrays"
        source.mkdir()
        for name, values in plain_pairs(2).items():
            np.save(source / f"{name}.npy", values)
        imported, _ = self.import_and_train(source, 2)
        x0, x1 = imported.pair(1)
        expected = plain_pairs(2)
        np.testing.assert_array_equal(x0["latents"], expected["x0"][1])
        np.testing.assert_array_equal(x1["latents"], expected["x1"][1])
        np.testing.assert_array_equal(x1["target_images"], expected["target_images"][1])
        np.testing.assert_array_equal(x1["env"], expected["env"][1])
        self.assertEqual(x0["object"], "arrays-000001")

    def test_safetensors_with_bf16(self):
        import torch
        from safetensors.torch import save_file

        tensors = {name: torch.from_numpy(values) for name, values in plain_pairs(3).items()}
        tensors |= {name: tensors[name].bfloat16() for name in ("x0", "x1")}
        source = self.folder / "pairs.safetensors"
        save_file(tensors, source)
        imported, _ = self.import_and_train(source, 3)
        self.assertEqual(imported.dtype("latents"), "bf16")
        self.assertTrue(torch.equal(duoflow_h5.to_torch(imported.read(0, "latents", 1, 1)[0], "bf16"), tensors["x1"][0]))

    def test_hdf5_with_marked_bits_and_compression(self):
        source = self.folder / "marked.h5"
        with h5py.File(source, "w") as file:
            for name, values in plain_pairs(2).items():
                if name in ("x0", "x1"):
                    file.create_dataset(name, data=duoflow_h5.from_float(values, "bf16"), chunks=(1, 2, 32)).attrs["dtype"] = "bfloat16"
                else:
                    file.create_dataset(name, data=values.astype(">f8") if values.dtype == np.float64 else values, compression="gzip")
        imported, _ = self.import_and_train(source, 2)
        np.testing.assert_array_equal(imported.pair(0)[1]["latents"], plain_pairs(1)["x1"][0])  # they came from bf16

    def test_a_folder_with_one_file_per_pair(self):
        source = self.folder / "single"
        source.mkdir()
        for number in range(3):
            with h5py.File(source / f"{number}.h5", "w") as file:
                for name, values in plain_pairs(1).items():
                    file[name] = values[0] + np.float32(number) if name == "x0" else values[0]
        imported, _ = self.import_and_train(source, 3)
        np.testing.assert_array_equal(imported.pair(2)[0]["latents"], plain_pairs(1)["x0"][0] + np.float32(2))

    def test_latents_alone_train_the_velocity_loss(self):
        source = self.folder / "bare.h5"
        with h5py.File(source, "w") as file:
            for name in ("x0", "x1"):
                file[name] = plain_pairs(4)[name]
        self.refuse(["import", source, self.folder / "none"], 3, "bare.h5 has no env", "--latents-only", ranks=0)
        flow = "model.transformer.editor.flow_matching"
        _, lines = self.import_and_train(source, 4, "--latents-only", "16", training=[
            f"{flow}.render_loss_weight=0", f"{flow}.weighting=fixed", "training.num_target_views=1"])
        self.assertGreater(lines[-1]["velocity_loss"], 0)

    def test_damaged_files_are_refused_by_name(self):
        source = self.folder / "damaged"
        source.mkdir()
        for name, values in plain_pairs(2).items():
            np.save(source / f"{name}.npy", values)
        out = self.folder / "no"
        damage.truncate(source / "x1.npy", 0.9)
        self.refuse(["import", source, out], 3, "x1.npy", "cut short", ranks=0)
        np.save(source / "x1.npy", np.array([{}, {}], dtype=object), allow_pickle=True)
        self.refuse(["import", source, out], 3, "x1.npy", "Python objects", ranks=0)
        bad = plain_pairs(2)["x1"].copy()
        bad[1, 2, 3] = np.inf
        np.save(source / "x1.npy", bad)
        self.refuse(["import", source, out], 3, "x1.npy row 1 number 67 is inf", ranks=0)
        empty = self.folder / "empty"
        empty.mkdir()
        self.refuse(["import", empty, out], 3, "holds no pairs", ranks=0)
        self.refuse(["import", source, out, "--weights-only"], 3, "it is not a file", ranks=0)
        self.refuse(["import", samples() / "pairs" / "pairs-00000.h5", out], 3, "is a shard already", ranks=0)
        self.assertFalse(out.exists())


class PythonHelperTest(RefusalTest):
    def test_written_scenes_are_read_verified_and_trained_on(self):
        scenes = list(duoflow_h5.Folder(samples() / "scenes").scenes())
        data, run = self.folder / "scenes", self.folder / "stage1"
        for number in range(0, 10, 4):
            duoflow_h5.write_scene_shard(data / f"scenes-{number:05d}.h5", scenes[number : number + 4])
        duoflow_h5.index(data, PROGRAM)
        launch(0, "verify", data)
        for ours, theirs in zip(duoflow_h5.Folder(data).scenes(), scenes, strict=True):
            self.assertEqual(ours.keys(), theirs.keys())
            for name in ours:
                np.testing.assert_array_equal(ours[name], theirs[name])
        launch(0, *train_arguments("reconstruction", run, data=data))
        whole, again = self.folder / "whole", self.folder / "again"
        launch(0, "repack", samples() / "scenes", "--out", whole)
        launch(0, "repack", data, "--out", again)
        rows = [shard["datasets"]["images"]["row_xxh3"] for folder in (whole, again) for shard in duoflow_h5.Folder(folder).shards]
        self.assertEqual(rows[0], rows[1])

    def test_written_pairs_are_read_verified_and_trained_on(self):
        source = duoflow_h5.Folder(samples() / "pairs")
        rows = list(source.rows())
        for dtype in ("bf16", "f16", "f32"):
            data = self.folder / f"pairs-{dtype}"
            duoflow_h5.write_pair_shard(data / "pairs-00000.h5", rows, dtype=dtype, producer=source.shards[0]["attributes"]["producer"])
            with h5py.File(data / "pairs-00000.h5") as file:  # h5py's own reading, by conversion
                np.testing.assert_array_equal(file["latents"][()].astype(np.float32), np.stack([duoflow_h5.to_float32(duoflow_h5.from_float(row["latents"], dtype), dtype) for row in rows]))
                self.assertEqual(file["target_images"].id.get_offset() % 512, 0)
            duoflow_h5.index(data, PROGRAM)
            launch(0, "verify", data)
            self.assertTrue(all(dataset["raw"] for dataset in duoflow_h5.Folder(data).shards[0]["datasets"].values()))
            self.assertEqual(duoflow_h5.Folder(data).pair_count(), 40)
        for ours, theirs in zip(duoflow_h5.Folder(self.folder / "pairs-f32").rows(), rows, strict=True):
            for name in theirs:
                np.testing.assert_array_equal(ours[name], theirs[name])
        run = self.folder / "stage2"
        launch(0, *train_arguments("joint", run, data=self.folder / "pairs-bf16"))  # the producer is right: no option
        self.assertEqual(len(metrics(run)), 3)

    def test_layouts_of_others_are_read_exactly(self):
        data = self.folder / "chunked"
        data.mkdir()
        for name in ("chunked", "swapped"):
            write_foreign(samples() / "pairs" / "pairs-00000.h5", data / f"pairs-{name}.h5", name, {"compression": "gzip"})
        launch(0, "index", data)
        found = duoflow_h5.Folder(data)
        self.assertFalse(found.shards[0]["datasets"]["latents"]["raw"])
        expected = duoflow_h5.Folder(samples() / "pairs")
        for shard in (0, 1):
            for dataset in ("latents", "target_images", "target_c2w", "pairs", "row/light"):
                np.testing.assert_array_equal(found.read(shard, dataset), expected.read(0, dataset), err_msg=dataset)

    def test_numbers_that_are_not_finite_are_refused(self):
        rows = list(duoflow_h5.Folder(samples() / "pairs").rows())
        rows[2]["latents"][1, 1] = np.nan
        with self.assertRaisesRegex(ValueError, "latents of row 2 .* number 33 is not finite"):
            duoflow_h5.write_pair_shard(self.folder / "nan" / "pairs-00000.h5", rows)
        rows[2]["latents"][1, 1] = 1e6
        with self.assertRaisesRegex(ValueError, "beyond f16"):
            duoflow_h5.write_pair_shard(self.folder / "nan" / "pairs-00000.h5", rows, dtype="f16")
        self.assertEqual(list((self.folder / "nan").iterdir()) if (self.folder / "nan").exists() else [], [])
        with self.assertRaisesRegex(FileNotFoundError, "duoflow index"):
            duoflow_h5.Folder(self.folder)

    def test_index_refuses_half_a_data_set(self):
        data = self.folder / "half"
        data.mkdir()
        with h5py.File(data / "pairs-00000.h5", "w") as file:
            file.attrs.update({"schema_version": 1, "kind": "pair"})
            file["latents"] = np.zeros((1, 2, 3), np.float32)
        with self.assertRaises(subprocess.CalledProcessError):
            duoflow_h5.index(data, PROGRAM)
        self.assertEqual([path.name for path in pathlib.Path(data).iterdir()], ["pairs-00000.h5"])


if __name__ == "__main__":
    unittest.main()
