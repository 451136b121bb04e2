"""Damaged or unfitting data: the exit code says whose fault, one message names the place, and nothing half-made stays."""

import json
import shutil
import unittest

import h5py
import numpy as np

import damage
from common import needs_program, samples, train_arguments
from lvsm_scenes import ingest_arguments, make_lvsm_scenes
from refusal import RefusalTest


def setUpModule():
    needs_program()


class BadShardTest(RefusalTest):
    def refuse_training(self, objective, data, *words, overrides=()):
        run = self.folder / self._testMethodName
        self.refuse(train_arguments(objective, run, *overrides, data=data), 3, *words)
        self.assertFalse((run / "checkpoints").exists())

    def test_truncated_shard(self):
        data = self.copy_of("scenes")
        damage.truncate(data / "scenes-00001.h5", 0.6)
        self.refuse_training("reconstruction", data, "scenes-00001.h5", "bytes")

    def test_flipped_bit_in_images(self):
        data = self.copy_of("scenes")
        damage.flip_every_row(data / "scenes-00000.h5", "images")
        damage.flip_every_row(data / "scenes-00001.h5", "images")
        self.refuse_training("reconstruction", data, ".h5", "images row", "altered", "xxh3")

    def test_flipped_bit_in_latents(self):
        data = self.copy_of("pairs")
        damage.flip_every_row(data / "pairs-00001.h5", "latents")
        self.refuse_training("joint", data, "pairs-00001.h5", "latents row", "altered", "xxh3")

    def test_flipped_bit_in_the_manifest(self):
        data = self.copy_of("pairs")
        damage.flip_bit(data / "manifest.json", len((data / "manifest.json").read_bytes()) // 2)
        self.refuse_training("joint", data, "manifest.json")

    def test_missing_shard(self):
        data = self.copy_of("pairs")
        (data / "pairs-00000.h5").unlink()
        self.refuse_training("joint", data, "pairs-00000.h5")

    def test_missing_folder(self):
        self.refuse_training("joint", self.folder / "nowhere", "nowhere", "manifest.json")

    def test_shards_of_the_other_kind(self):
        self.refuse_training("joint", samples() / "scenes", "scene shards", "joint", "encode")
        self.refuse_training("reconstruction", samples() / "pairs", "pair shards", "reconstruction", "synth")

    def test_encode_of_single_lights_finds_no_pair(self):
        self.refuse(["encode", "--checkpoint", samples() / "stage1", "--data", samples() / "scenes", "--out", self.folder / "single",
                     "--lights", "env_000"], 3, "no object has two lights", "add lights")

    def test_encode_of_no_scenes_at_once(self):
        outcome = self.launch(0, "encode", "--checkpoint", samples() / "stage1", "--data", samples() / "scenes", "--out",
                              self.folder / "none", "--batch", "0", code=2)
        self.assertIn("--batch", outcome.err)

    def test_encode_leaves_no_shard_of_damaged_scenes(self):
        data, out = self.copy_of("scenes"), self.folder / "encoded"
        damage.flip_every_row(data / "scenes-00001.h5", "images")
        self.refuse(["encode", "--checkpoint", samples() / "stage1", "--data", data, "--out", out], 3, "scenes-00001.h5", "images row")
        self.assertFalse((out / "manifest.json").exists())
        self.assertFalse((out / "pairs-00001.h5").exists(), "the shard of the damaged object")

    def scenes_with_another_camera(self, dataset, frame, change):
        """Valid scenes of one shard in which one frame of the object's last light has another camera."""
        data = self.copy_of("scenes")
        shard = data / "scenes-00000.h5"
        with h5py.File(shard, "r") as file:
            first = int(file["scene/first_frame"][-1])
            scene = [file[f"scene/{part}"][-1].decode() for part in ("object", "light")]
            values = file[dataset][first + frame].ravel()
        change(values)
        damage.overwrite(shard, damage.place(shard, dataset, first + frame)[0], values.astype("<f4").tobytes())
        damage.rehash(data)
        return data, scene

    def test_lights_of_one_object_with_different_cameras(self):
        """One frame index is one camera: else the picture under the new light would be compared from another place."""
        def moved(c2w):
            c2w[3] += 0.01

        def zoomed(fxfycxcy):
            fxfycxcy[:2] *= 1.01

        for dataset, frame, change in (("c2w", 4, moved), ("fxfycxcy", 1, zoomed)):
            data, (name, light) = self.scenes_with_another_camera(dataset, frame, change)
            words = (f"object {name}: frame {frame} has another camera under light {light} than under ", "make the scenes again")
            for ranks in (0, 2):
                out = self.folder / f"encoded-{dataset}-{ranks}"
                self.refuse(["encode", "--checkpoint", samples() / "stage1", "--data", data, "--out", out], 3, *words, ranks=ranks)
                self.assertFalse((out / "manifest.json").exists())
            self.refuse_training("joint", data, *words, overrides=["latents=online"])
            shutil.rmtree(data)

    def test_fewer_samples_than_ranks(self):
        run = self.folder / "few"
        self.refuse(train_arguments("reconstruction", run, 'data.exclude_lights="env_00[0-3]"'), 3, "2 samples", "3 ranks", ranks=3)


class BadPictureTest(RefusalTest):
    def setUp(self):
        self.scenes, self.out = self.folder / f"lvsm-{self._testMethodName}", self.folder / f"out-{self._testMethodName}"
        make_lvsm_scenes(self.scenes)

    def refuse_ingest(self, *words):
        self.refuse(ingest_arguments(self.scenes, self.out), 3, *words, "nothing was written")
        self.assertFalse(self.out.exists() and any(self.out.iterdir()))

    def change_metadata(self, scene, change):
        path = self.scenes / "metadata" / f"{scene}.json"
        metadata = json.loads(path.read_text())
        change(metadata["frames"])
        path.write_text(json.dumps(metadata))

    def test_missing_picture(self):
        self.change_metadata("ball_env_1", lambda frames: frames[2].update(image_path="/elsewhere/images/gone.png"))
        self.refuse_ingest("scene ball_env_1 frame 2", "gone.png is missing")

    def test_picture_cut_short(self):
        damage.truncate(self.scenes / "images" / "ball_env_0" / "00003.png", 0.7)
        self.refuse_ingest("scene ball_env_0 frame 3", "00003.png")

    def test_camera_that_is_no_rotation(self):
        def shear(frames):
            frames[1]["w2c"] = (np.array(frames[1]["w2c"]) @ np.diag([1.0, 1.1, 1.0, 1.0])).tolist()

        self.change_metadata("ball_env_1", shear)
        self.refuse_ingest("scene ball_env_1 frame 1", "camera")

    def test_fewer_frames_than_the_objects_other_lights(self):
        self.change_metadata("ball_env_1", lambda frames: frames.pop())
        self.refuse_ingest("scene ball_env_1", "it has 3 frames", "has 4")

    def test_bad_scene_is_skipped_on_request_and_listed(self):
        (self.scenes / "images" / "ball_env_0" / "00001.png").unlink()
        done = self.launch(2, *ingest_arguments(self.scenes, self.out), "--skip-bad")
        self.assertIn("ball_env_0", (self.out / "skipped.txt").read_text())
        self.assertIn("ball_env_0", done.out + done.err)
        self.launch(0, "verify", self.out)

    def test_light_map_that_is_a_png_inside(self):
        maps = self.folder / "maps"
        maps.mkdir()
        fake = maps / "light.exr"
        fake.write_bytes((self.scenes / "envmaps" / "ball_env_0" / "00000_ldr.png").read_bytes())
        out = self.folder / "relit"
        self.refuse(["synth", "--out", out, "--envmaps", maps, "--size", 16, "--views", 2, "--lights", 2, "--spp", 1], 3, "light.exr", "PNG", ranks=0)
        self.assertFalse((out / "manifest.json").exists())
        self.refuse(["edit", "--checkpoint", samples() / "stage1", "--data", samples() / "scenes", "--scene", self.first_scene(),
                     "--env", fake, "--out", out], 3, "light.exr", "PNG", ranks=0)
        self.assertEqual(list(out.glob("*.png")), [])


if __name__ == "__main__":
    unittest.main()
