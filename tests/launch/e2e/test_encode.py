"""encode: interrupted and gone on with, one writer and one reconstructor a folder, a disk without room."""

import fcntl
import os
import shutil
import subprocess
import unittest

import damage
from common import ENVIRONMENT, PROGRAM, Job, launch, needs_program, samples, train_arguments
from refusal import RefusalTest


def setUpModule():
    needs_program()


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class EncodeTest(RefusalTest):
    def arguments(self, out, *options, checkpoint=None, data=None):
        return ["encode", "--checkpoint", checkpoint or samples() / "stage1", "--data", data or samples() / "scenes", "--out", out, *options]

    def stopped_half_way(self):
        """(folder with its first shard alone, as an error left it; the scenes it was made from, whole again)."""
        data, out = self.copy_of("scenes"), self.folder / f"{self._testMethodName}-out"
        whole = (data / "scenes-00001.h5").read_bytes()
        damage.flip_every_row(data / "scenes-00001.h5", "images")
        self.refuse(self.arguments(out, data=data), 3, "scenes-00001.h5", ranks=0)
        (data / "scenes-00001.h5").write_bytes(whole)
        self.assertEqual(sorted(contents(out)), ["pairs-00000.h5", "pairs-00000.h5.receipt"])
        return out, data

    def test_goes_on_where_it_stopped_and_ends_with_the_same_bytes(self):
        out, data = self.stopped_half_way()
        first = (out / "pairs-00000.h5").stat()
        (out / "pairs-00001.h5.tmp-12345").write_bytes(b"left by a process that was killed")
        said = launch(2, *self.arguments(out, data=data)).err
        self.assertIn("1 of 2 shards were finished before and are kept", said)
        self.assertEqual((out / "pairs-00000.h5").stat().st_ino, first.st_ino)
        self.assertEqual(contents(out), contents(samples() / "pairs"))
        again = launch(0, *self.arguments(out, data=data)).err  # a finished folder: nothing is left to do
        self.assertIn("2 of 2 shards were finished before", again)
        self.assertEqual(contents(out), contents(samples() / "pairs"))

    def test_a_kill_in_the_middle_changes_no_byte(self):
        scenes, whole, out = self.folder / "many", self.folder / "whole", self.folder / "killed"
        launch(0, "synth", "--out", scenes, "--size", 16, "--views", 6, "--lights", 3, "--objects", 8, "--spp", 1, "--env-height", 16)
        launch(0, *self.arguments(whole, data=scenes))
        kills = 0
        while not (out / "manifest.json").exists() and kills < 4:
            before = set(out.glob("*.receipt")) if out.exists() else set()
            with Job(0, *self.arguments(out, data=scenes)) as job:
                job.wait_until(lambda: job.process.poll() is not None or (out.exists() and set(out.glob("*.receipt")) - before), "a finished shard")
                os.kill(job.process.pid, 9) if job.process.poll() is None else None
            kills += 1
        launch(2, *self.arguments(out, data=scenes))
        self.assertEqual(contents(out), contents(whole))

    def test_what_was_made_from_something_else_is_made_again(self):
        for change in (["--dtype", "f16"], ["--lights", "env_00[0-3]"]):
            out, data = self.stopped_half_way()
            said = launch(0, *self.arguments(out, *change, data=data)).err
            self.assertNotIn("are kept", said)
            fresh = self.folder / "fresh"
            launch(0, *self.arguments(fresh, *change, data=data))
            self.assertEqual(contents(out), contents(fresh), change)
            for folder in (out, data, fresh):
                shutil.rmtree(folder)

    def test_a_kept_shard_is_as_it_was_written(self):
        out, data = self.stopped_half_way()
        damage.flip_bit(out / "pairs-00000.h5", 5000)
        said = launch(0, *self.arguments(out, data=data)).err
        self.assertNotIn("are kept", said)
        self.assertEqual(contents(out), contents(samples() / "pairs"))

    def test_two_reconstructors_do_not_mix(self):
        other, out = self.folder / "other", self.folder / "mixed"
        launch(0, *train_arguments("reconstruction", other, "training.train_steps=1", "training.seed=5"))
        unfinished, data = self.stopped_half_way()
        shutil.copytree(samples() / "pairs", out)
        for folder in (out, unfinished):
            before = contents(folder)
            self.refuse(self.arguments(folder, checkpoint=other, data=data), 3, "pairs-00000.h5 was encoded by", "do not mix", "--overwrite")
            self.assertEqual(contents(folder), before)
            launch(0, *self.arguments(folder, "--overwrite", checkpoint=other, data=data))
            launch(0, "verify", folder)
        self.assertEqual(contents(out), contents(unfinished))
        self.assertNotEqual(contents(out), contents(samples() / "pairs"))

    def test_what_it_did_not_make_is_not_written_over(self):
        out = self.copy_of("pairs")
        other = self.folder / "other"
        launch(0, *train_arguments("reconstruction", other, "training.train_steps=1", "training.seed=5", data=samples() / "scenes"))
        for damaged in (lambda path: path.write_bytes(path.read_bytes()[:-5]), lambda path: path.unlink()):
            damaged(out / "manifest.json")
            before = contents(out)
            self.refuse(self.arguments(out, checkpoint=other), 3, "pairs-0000", "was made by something else", ranks=0)
            self.assertEqual({name: data for name, data in contents(out).items() if name != "writer.lock"}, before)
        launch(0, *self.arguments(out))  # its own reconstructor's: gone on with
        self.assertEqual(contents(out), contents(samples() / "pairs"))
        strangers = self.folder / "strangers"
        strangers.mkdir()
        for name in ("pairs-mine.h5", "pairs-notes.tmp-x"):
            (strangers / name).write_bytes(b"not a shard")
        self.refuse(self.arguments(strangers), 3, "pairs-mine.h5", "cannot be read", ranks=0)
        (strangers / "pairs-mine.h5").unlink()
        launch(0, *self.arguments(strangers))
        self.assertEqual((strangers / "pairs-notes.tmp-x").read_bytes(), b"not a shard")

    def test_scenes_are_not_written_over(self):
        data = self.copy_of("scenes")
        before = contents(data)
        self.refuse(self.arguments(data, data=data), 3, "holds scene shards", "another folder", ranks=0)
        self.assertEqual(contents(data), before)

    def test_two_writers_are_one_too_many(self):
        out = self.folder / "shared"
        out.mkdir()
        with open(out / "writer.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.refuse(self.arguments(out), 3, str(out), "being written by", ranks=2)
        launch(0, *self.arguments(out))
        self.assertEqual(contents(out), contents(samples() / "pairs"))

    @unittest.skipUnless(os.geteuid() == 0, "a small file system can be mounted by root alone")
    def test_a_full_disk_is_said_with_what_is_missing(self):
        out = self.folder / "full"
        out.mkdir()
        encode = " ".join(str(word) for word in [PROGRAM, *self.arguments(out)])
        for room, words in (("16k", ["disk is full", "MiB missing"]), ("36k", ["No space left on device", "make room"])):
            script = f"mount -t tmpfs -o size={room} none {out} && {{ {encode}; code=$?; ls {out} >&2; exit $code; }}"
            done = subprocess.run(["unshare", "-m", "bash", "-c", script], env=ENVIRONMENT, capture_output=True, text=True, timeout=150)
            self.assertEqual(done.returncode, 3, done.stderr)
            for word in ["pairs-00000.h5", *words]:
                self.assertIn(word, done.stderr)
            self.assertNotIn("\npairs-00000.h5\n", done.stderr, "a partial shard under its final name")
            self.assertNotIn("manifest.json", done.stderr)


if __name__ == "__main__":
    unittest.main()
