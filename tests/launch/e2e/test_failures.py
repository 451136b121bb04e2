"""A rank that stops, dies, or joins with something else ends the job on all ranks, in time, with one message, and leaves no
process behind."""

import os
import re
import shutil
import signal
import time
import unittest

from common import EndToEndTest, Job, checkpoint, launch, launch_apart, metrics, needs_program, samples, tensors, train_arguments
from supervised import is_alive, rank_of

RANKS = 3
DEADLINE = 3.0
GRACE = 2.0  # beyond the deadline: the report, MPI_Abort, and mpirun's second between its two signals
ENDLESS = 1000000
COLLECTIVE = r"[a-z_]+ #\d+ \((?:statistics|bucket \d+)\) of \d+ (?:Float|Double)"


def setUpModule():
    needs_program()


class FailureTest(EndToEndTest):
    def hurt(self, rank, how):
        """Signals one rank in the middle of a run: (outcome, seconds until mpirun and every rank have ended)."""
        run = self.folder / f"{self._testMethodName}-{rank}"
        arguments = train_arguments("joint", run, f"dist.timeout_s={DEADLINE}", f"training.train_steps={ENDLESS}",
                                    "training.checkpoint_every=1000000")
        with Job(RANKS, *arguments) as job:
            job.wait_until(lambda: (run / "metrics.jsonl").exists() and len(metrics(run)) > 5, "a few steps")
            ranks = {rank_of(pid): pid for pid in job.ranks()}
            self.assertEqual(sorted(ranks), list(range(RANKS)))
            os.kill(ranks[rank], how)
            begin = time.monotonic()
            outcome = job.outcome(timeout=60)
            while any(map(is_alive, ranks.values())) and time.monotonic() < begin + 20:
                time.sleep(0.01)  # mpirun does not wait for those that it kills
            seconds = time.monotonic() - begin
            self.assertEqual([pid for pid in ranks.values() if is_alive(pid)], [], "no process is left")
        print(f"rank {rank}, {signal.Signals(how).name}: ended after {seconds:.2f} s; {' '.join(outcome.errors)}")
        return outcome, seconds

    def test_a_stopped_rank(self):
        for rank in range(RANKS):
            with self.subTest(rank=rank):
                outcome, seconds = self.hurt(rank, signal.SIGSTOP)
                self.assertEqual(outcome.code, 4, outcome)
                self.assertEqual(len(outcome.errors), 1, outcome)
                (message,) = outcome.errors
                others = [other for other in range(RANKS) if other != rank]
                host, speaker = os.uname().nodename, rf"[{others[0]}{others[1]}]"
                self.assertRegex(message, rf"^duoflow: rank {speaker} on {host}: {COLLECTIVE} is not complete on rank {speaker} after 3\.\d s")
                self.assertRegex(message, rf"arrived: ranks {others[0]}, {others[1]}; (?:not arrived|arrived, then silent): rank {rank} on host {host}, ")
                self.assertRegex(message, r"last seen (?:in|after) [a-z_]+ #\d+ \((?:statistics|bucket \d+)\) \d\.\d s ago, step \d+ \(no sign of life for 3\.\d s")
                self.assertLessEqual(seconds, DEADLINE + GRACE, outcome)

    def test_a_killed_rank(self):
        outcome, seconds = self.hurt(1, signal.SIGKILL)
        self.assertEqual(outcome.code, 128 + signal.SIGKILL, outcome)
        self.assertRegex(outcome.err, r"process rank 1 .* on node \S+ exited on signal 9")  # mpirun's words
        self.assertLessEqual(seconds, DEADLINE + GRACE, outcome)  # mpirun needs two seconds, whatever the deadline

    def refuse_apart(self, code, mine, other, *patterns, folders=None):
        outcome = launch_apart([mine, other], code=code, folders=folders)
        self.assertEqual(len(outcome.errors), 1, outcome)
        for pattern in patterns:
            self.assertRegex(outcome.errors[0], pattern)

    def test_another_configuration(self):
        run = self.folder / "config"
        self.refuse_apart(2, train_arguments("joint", run), train_arguments("joint", run, "training.lr=0.5"),
                          r"training\.lr is 0\.001 on rank 0 on host \S+, 0\.5 on rank 1 on host ")

    def test_another_objective(self):
        run = self.folder / "objective"
        self.refuse_apart(2, train_arguments("joint", run), train_arguments("reconstruction", run),
                          r'objective is "joint" on rank 0 on host \S+, "reconstruction" on rank 1 on host ')

    def test_another_data_folder(self):
        run, other = self.folder / "data", self.copy_of("scenes")
        launch_apart([[*train_arguments("reconstruction", run, "training.train_steps=1")],
                      [*train_arguments("reconstruction", run, "training.train_steps=1", data=other)]])  # the same content
        run = self.folder / "other-data"
        self.make_other_scenes(other)
        self.refuse_apart(3, train_arguments("reconstruction", run), train_arguments("reconstruction", run, data=other),
                          rf"different data: \S+scenes \(fingerprint \w+\) on rank 0 on host \S+, {re.escape(str(other))} \(fingerprint \w+\) on rank 1")

    def test_another_run_folder(self):
        run, other = self.folder / "run", self.folder / "elsewhere"
        self.refuse_apart(2, train_arguments("joint", run), train_arguments("joint", other),
                          rf"what rank 0 on host \S+ wrote into {run} is not seen by rank 1 on host \S+ in {other};")

    def other_weights(self, prefix):
        """Two working directories; in the second `start.safetensors` has another number in one tensor named `prefix`..."""
        from safetensors.numpy import save_file

        folders = [self.folder / f"{self._testMethodName}-{rank}" for rank in range(2)]
        weights = tensors(checkpoint(samples() / "stage1"), "model")
        (name, *_) = [name for name in sorted(weights) if name.startswith(prefix)]
        for rank, folder in enumerate(folders):
            folder.mkdir()
            weights[name].flat[0] += rank
            save_file(weights, folder / "start.safetensors")
        return folders, name

    def refuse_other_weights(self, objective, prefix):
        folders, name = self.other_weights(prefix)
        run = self.folder / f"{self._testMethodName}-run"
        arguments = train_arguments(objective, run, "training.init_from=start.safetensors", "training.train_steps=1")
        self.refuse_apart(2, arguments, arguments,
                          rf"start from different weights: the hash of {re.escape(name)} is \w+ on rank 0 on host \S+, \w+ on rank 1 on host ",
                          folders=folders)
        self.assertFalse((run / "checkpoints").exists())
        launch_apart([arguments, arguments], folders=[folders[0]] * 2)  # the same file: it trains

    def test_other_weights_in_a_part_that_trains(self):
        self.refuse_other_weights("reconstruction", "transformer_decoder")

    def test_other_weights_in_a_frozen_part(self):
        self.refuse_other_weights("joint", "transformer_decoder")

    def test_another_checkpoint_to_resume_from(self):
        folders = [self.folder / f"{self._testMethodName}-{rank}" for rank in range(2)]
        for rank, folder in enumerate(folders):
            launch(0, *train_arguments("joint", folder / "before", f"training.train_steps={1 + rank}"))
        arguments = train_arguments("joint", self.folder / "resumed", resume="before")
        self.refuse_apart(2, arguments, arguments, r"start from different weights: .* or checkpoint, with the same content", folders=folders)

    def test_a_data_folder_that_one_rank_does_not_have(self):
        run = self.folder / "no-data"
        self.refuse_apart(3, train_arguments("joint", run), train_arguments("joint", run, data=self.folder / "missing"),
                          rf"^duoflow: rank 1 on \S+: \S*{self.folder}/missing")

    @staticmethod
    def make_other_scenes(folder):
        shutil.rmtree(folder)
        launch(0, "synth", "--out", folder, "--size", 16, "--views", 6, "--lights", 5, "--objects", 2, "--spp", 8, "--env-height", 16, "--seed", 5)


if __name__ == "__main__":
    unittest.main()
