"""The commands around training: edit, inspect, verify, doctor, ingest, export, --version, --help."""

import os
import pathlib
import re
import shutil
import unittest

import h5py
import numpy as np

import damage
from common import REAL_SCENES, SOURCE, checkpoint, launch, needs_program, picture, samples, tensors
from lvsm_scenes import ingest_arguments, make_lvsm_scenes
from refusal import RefusalTest


def setUpModule():
    needs_program()


class CommandsTest(RefusalTest):
    def test_version_and_help(self):
        self.assertRegex(launch(0, "--version").out, r"^\d+\.\d+\.\d+\n$")
        helped = launch(0, "--help").out
        for name in ("synth", "ingest", "encode", "split", "merge", "repack", "index", "train", "evaluate", "edit", "step", "inspect", "verify", "import", "export", "compare",
                     "doctor"):
            self.assertRegex(helped, rf"(?m)^  {name} ")
        self.assertRegex(launch(0, "train", "--version").out, r"^\d+\.\d+\.\d+\n$")

    def test_doctor_tells_of_every_rank(self):
        said = launch(2, "doctor").out
        for what in ("LibTorch", "HDF5", "MPI", "NCCL", "rank 0 on", "rank 1 on"):
            self.assertEqual(len(re.findall(f"(?m)^{what} .", said)), 1, said)

    def test_doctor_tells_the_thread_level_of_mpi(self):
        self.assertRegex(launch(2, "doctor").out, r"(?m)^thread level MPI_THREAD_MULTIPLE$")
        self.assertRegex(launch(0, "doctor").out, r"(?m)^thread level none \(")

    def test_ranks_heed_omp_num_threads(self):
        for wish in (1, 3):
            said = launch(2, "doctor", environment={"OMP_NUM_THREADS": str(wish)}).out
            self.assertEqual(re.findall(r" (\d+) compute threads", said), [str(wish)] * 2, said)

    def test_doctor_checks_a_shared_folder(self):
        self.assertIn("every rank sees the same folder", launch(2, "doctor", "--shared", self.folder).out)
        self.refuse(["doctor", "--shared", self.folder / "nowhere"], 3, "nowhere", "cannot write", ranks=0)

    def test_a_checkpoint_is_known_by_its_manifest(self):
        renamed = self.folder / "renamed"
        shutil.copytree(checkpoint(samples() / "stage1"), renamed)
        self.assertIn("every hash is as written", launch(0, "verify", renamed).out)
        self.assertIn("every hash is as written", launch(0, "verify", f"{checkpoint(samples() / 'stage1')}/").out)
        self.assertIn(": valid", launch(0, "verify", samples() / "stage1" / "checkpoints").out)
        self.assertIn("step 60", launch(0, "inspect", renamed).out)

    def test_encoding_again_leaves_no_shard_of_before(self):
        out = self.folder / "again"
        encode = ["encode", "--checkpoint", samples() / "stage1", "--data", samples() / "scenes", "--out", out]
        launch(0, *encode)
        stray = out / "pairs-00007.h5"
        shutil.copy(out / "pairs-00000.h5", stray)
        launch(0, *encode)
        self.assertFalse(stray.exists())
        self.assertEqual(len(list(out.glob("pairs-*.h5"))), 2)

    def test_an_output_that_cannot_be_made_is_said(self):
        for command in (["synth", "--out", "/proc/nowhere"], ["evaluate", "--checkpoint", samples() / "stage1", "--data", samples() / "pairs", "--out", "/proc/nowhere"]):
            self.refuse(command, 3, "/proc/nowhere", ranks=0)

    def test_inspect_says_what_is_there(self):
        self.assertIn("10 scenes of 2 objects, pictures 16 x 16", launch(0, "inspect", samples() / "scenes").out)
        self.assertIn("40 ordered pairs of 10 rows, latents 8 x 32 bf16, 2 targets", launch(0, "inspect", samples() / "pairs").out)
        self.assertIn("step 60, 51 model tensors", launch(0, "inspect", samples() / "stage1").out)
        weights = next(checkpoint(samples() / "stage1").glob("model-*.safetensors"))
        self.assertIn("n_light_field_latent F32 [8,32]", launch(0, "inspect", weights).out)
        self.refuse(["inspect", self.folder / "nowhere"], 3, "nowhere", ranks=0)

    def test_verify_finds_what_is_altered(self):
        for good in ("scenes", "pairs", "stage1"):
            launch(0, "verify", samples() / good)
        launch(0, "verify", checkpoint(samples() / "stage1"))
        data = self.copy_of("scenes")
        shard = data / "scenes-00000.h5"
        damage.flip_bit(shard, damage.place(shard, "images", 7)[0] + 5)
        found = launch(0, "verify", data, code=3)
        self.assertRegex(found.out, "scenes-00000.h5.*images row 7")

    def test_export_gives_the_named_parts(self):
        from safetensors.numpy import load_file

        out = self.folder / "renderer.safetensors"
        launch(0, "export", samples() / "stage1", out, "--parts", "reconstructor,renderer")
        exported, whole = load_file(out), tensors(checkpoint(samples() / "stage1"), "model")
        self.assertFalse([name for name in exported if "editor" in name])
        for name, value in exported.items():
            np.testing.assert_array_equal(value, whole[name])

    def test_export_onto_a_folder_is_refused_and_leaves_nothing(self):
        out = self.folder / "exports" / "taken"
        out.mkdir(parents=True)
        for name in (out, f"{self.folder}/exports/new/"):
            export = ["export", samples() / "stage1", name]
            self.refuse(export, 2, str(name), "a folder", "give the name of a file", ranks=0)
        self.assertEqual([path.name for path in out.parent.rglob("*")], ["taken"])

    def test_verify_names_a_shard_that_is_not_in_the_manifest(self):
        data = self.copy_of("pairs")
        shutil.copy(data / "pairs-00000.h5", data / "pairs-00007.h5")
        found = launch(0, "verify", data, code=3)
        self.assertRegex(found.out, "pairs-00007.h5: the file is not in the manifest")
        self.assertIn("1 problem", found.err)

    def test_edit_writes_a_picture_per_target(self):
        light = self.folder / "light.exr"
        self.write_exr(light)
        out = self.folder / "relit"
        launch(0, "edit", "--checkpoint", samples() / "stage1", "--data", samples() / "scenes", "--scene", self.first_scene(), "--env", light, "--out", out)
        self.assertEqual(sorted(path.name for path in out.iterdir()), ["00001.png", "00004.png"])
        for path in out.iterdir():
            self.assertEqual(picture(path).shape, (16, 16, 3))
        self.refuse(["edit", "--checkpoint", samples() / "stage1", "--data", samples() / "scenes", "--scene", "nobody_env_9", "--env", light,
                     "--out", self.folder / "none"], 3, "nobody_env_9", self.first_scene(), ranks=0)

    @staticmethod
    def write_exr(path):
        """An uncompressed 32-bit float OpenEXR of 8 x 16 pixels, all 0.5, by the format's own description."""
        import struct

        height, width = 8, 16

        def attribute(name, kind, value):
            return name + b"\0" + kind + b"\0" + struct.pack("<i", len(value)) + value

        channels = b"".join(name + b"\0" + struct.pack("<iiii", 2, 0, 1, 1) for name in (b"B", b"G", b"R")) + b"\0"
        window = struct.pack("<4i", 0, 0, width - 1, height - 1)
        header = struct.pack("<ii", 20000630, 2) + b"".join([
            attribute(b"channels", b"chlist", channels), attribute(b"compression", b"compression", b"\0"),
            attribute(b"dataWindow", b"box2i", window), attribute(b"displayWindow", b"box2i", window),
            attribute(b"lineOrder", b"lineOrder", b"\0"), attribute(b"pixelAspectRatio", b"float", struct.pack("<f", 1)),
            attribute(b"screenWindowCenter", b"v2f", struct.pack("<ff", 0, 0)), attribute(b"screenWindowWidth", b"float", struct.pack("<f", 1)),
        ]) + b"\0"
        row = struct.pack("<f", 0.5) * 3 * width
        first = len(header) + 8 * height
        offsets = b"".join(struct.pack("<Q", first + y * (8 + len(row))) for y in range(height))
        path.write_bytes(header + offsets + b"".join(struct.pack("<ii", y, len(row)) + row for y in range(height)))

    def test_ingested_scenes_are_the_pictures(self):
        scenes = self.folder / "lvsm"
        make_lvsm_scenes(scenes)
        here = pathlib.Path(os.path.relpath(scenes))  # paths of the command line are meant from where it is given
        launch(1, *ingest_arguments(here, self.folder / "ingested-1"))
        launch(2, *ingest_arguments(scenes, self.folder / "ingested-2"))
        one, two = ((self.folder / f"ingested-{ranks}" / "manifest.json").read_text() for ranks in (1, 2))
        self.assertEqual(one, two)
        with h5py.File(self.folder / "ingested-2" / "scenes-00000.h5", "r") as file:
            source = picture(scenes / "images" / "ball_env_1" / "00002.png").astype(np.float64)
            over_white = source[..., :3] * source[..., 3:] / 255 + 255 - source[..., 3:]
            self.assertLessEqual(np.abs(file["images"][4 + 2] - over_white).max(), 1)
            np.testing.assert_array_equal(file["alpha"][4 + 2], source[..., 3])

    @unittest.skipUnless((REAL_SCENES / "train" / "full_list.txt").exists(), f"no real scenes in {REAL_SCENES.relative_to(SOURCE.parent)}")
    def test_real_scenes_pass_the_dry_run(self):
        said = launch(0, "ingest", "--scenes", REAL_SCENES / "test" / "full_list.txt", "--remap", f"/data/relit/lvsm_scenes={REAL_SCENES}", "--dry-run")
        self.assertTrue(re.search(r"2 objects, 14 scenes, 168 frames, 80 pairs", said.out + said.err), said)


if __name__ == "__main__":
    unittest.main()
