"""Ingest as its users start it: under mpirun, killed and started again, by two at once, from archives, with source maps."""

import fcntl
import hashlib
import json
import shlex
import shutil
import subprocess
import tarfile
import unittest

import numpy as np
from PIL import Image

from common import PROGRAM, Job, needs_program, samples
from lvsm_scenes import ingest_arguments, make_lvsm_scenes
from refusal import RefusalTest


def setUpModule():
    needs_program()


def hashes(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


class IngestTest(RefusalTest):
    def setUp(self):
        self.scenes, self.out = (self.folder / f"{part}-{self._testMethodName}" for part in ("lvsm", "out"))
        make_lvsm_scenes(self.scenes)

    def test_killed_and_started_again_with_other_ranks_gives_the_same_bytes(self):
        # Large pictures: the second shard takes long enough to be killed in.
        arguments = [*ingest_arguments(self.scenes, self.out, size=1024), "--scenes-per-shard", 1]
        with Job(0, *arguments, "--threads", 1) as job:
            job.wait_until(lambda: (self.out / "scenes-00000.h5.receipt").exists(), "a finished shard")
            job.kill()
        self.assertFalse((self.out / "manifest.json").exists())
        first = (self.out / "scenes-00000.h5").stat()
        again = self.launch(3, *arguments)
        self.assertIn("scenes-00000.h5: 1 scenes, kept from before", again.out + again.err)
        self.assertEqual((self.out / "scenes-00000.h5").stat().st_mtime_ns, first.st_mtime_ns)
        self.assertEqual(sorted(hashes(self.out)), ["manifest.json", "scenes-00000.h5", "scenes-00001.h5"])
        fresh = self.folder / "fresh"
        self.launch(2, *[fresh if word == self.out else word for word in arguments])
        self.assertEqual(hashes(fresh), hashes(self.out))
        self.launch(0, "verify", self.out)

    def test_a_second_writer_is_refused(self):
        self.out.mkdir()
        with open(self.out / "writer.lock", "w") as lock:
            lock.write("process 1 on elsewhere")
            lock.flush()
            fcntl.flock(lock, fcntl.LOCK_EX)
            for ranks in 0, 2:
                self.refuse(ingest_arguments(self.scenes, self.out), 3, "is being written by process 1 on elsewhere", ranks=ranks)
            self.assertFalse((self.out / "manifest.json").exists())
        self.launch(0, *ingest_arguments(self.scenes, self.out))  # the lock went with its holder
        self.assertFalse((self.out / "writer.lock").exists())

    def test_a_limit_on_file_sizes_leaves_no_partial_shard(self):
        command = shlex.join([str(PROGRAM), *map(str, ingest_arguments(self.scenes, self.out))])
        done = subprocess.run(["bash", "-c", f"ulimit -f 2; {command}"], capture_output=True, text=True)  # in KiB
        self.assertEqual(done.returncode, 3, done.stderr)
        self.assertIn("are missing", done.stderr)
        self.assertEqual(list(self.out.glob("*")) if self.out.exists() else [], [])

    def test_a_data_set_of_another_command_is_not_written_over(self):
        for name in "scenes", "pairs":
            taken = self.folder / f"taken-{name}"
            shutil.copytree(samples() / name, taken)
            before = hashes(taken)
            self.refuse(ingest_arguments(self.scenes, taken), 3, f"{name}-0000", "it would be lost", ranks=0)
            self.assertEqual(hashes(taken), before)

    def test_a_tar_and_its_folder_give_the_same_bytes(self):
        self.launch(0, *ingest_arguments(self.scenes, self.out))
        with tarfile.open(self.scenes / "set.tar", "w") as archive:
            for part in "full_list.txt", "metadata", "images", "envmaps":
                archive.add(self.scenes / part, f"set/{part}")
        packed = self.folder / "packed"
        self.launch(0, "ingest", "--scenes", self.scenes / "set.tar", "--out", packed, "--size", 16, "--env-height", 16)
        self.assertEqual(hashes(packed), hashes(self.out))

    def test_paths_of_another_machine_come_with_the_remap(self):
        message = self.refuse(["ingest", "--scenes", self.scenes, "--out", self.out], 3, f"give --remap /elsewhere={self.scenes}")
        self.assertIn("nothing was written", message)

    def test_dry_run_lists_every_fault_and_draws_the_cameras(self):
        def change(scene, edit):
            path = self.scenes / "metadata" / f"{scene}.json"
            metadata = json.loads(path.read_text())
            edit(metadata["frames"])
            path.write_text(json.dumps(metadata))

        change("ball_env_0", lambda frames: frames[1]["w2c"][0].__setitem__(0, float("nan")))
        change("ball_env_1", lambda frames: frames[2].update(fxfycxcy=[1.25, 1.25, 0.5, 0.5]))
        (self.scenes / "images" / "ball_env_1" / "00003.png").unlink()
        census = self.launch(0, *ingest_arguments(self.scenes, self.out), "--dry-run")
        for words in "scene ball_env_0 frame 1: camera", "scene ball_env_1 frame 2: camera", "scene ball_env_1 frame 3: picture", "3 problem(s)":
            self.assertIn(words, census.out + census.err)
        self.assertFalse(self.out.exists())
        make_lvsm_scenes(self.folder / "whole")
        self.launch(0, *ingest_arguments(self.folder / "whole", self.out), "--dry-run", "--check-cameras", self.folder / "sheet.png")
        self.assertEqual(np.array(Image.open(self.folder / "sheet.png")).shape, (192, 6 * 192, 3))


if __name__ == "__main__":
    unittest.main()
