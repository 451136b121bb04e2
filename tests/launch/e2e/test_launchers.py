"""Ranks started by environment variables, without MPI: the same training as under mpirun, and the same care when one fails."""

import os
import signal
import time
import unittest

from common import MEASURED, EndToEndTest, checkpoint, checkpoint_steps, launch, metrics, needs_program, tensors, train_arguments
from ranks import Ranks, errors, free_port, launch_by, plain, slurm
from test_reproducible import JOINT, REPRODUCIBLE
from test_trajectory import TrajectoryTest

RANKS = 3
DEADLINE = 3.0
GRACE = 2.0  # beyond the deadline: the report, and the others' turn to leave
ENDLESS = 1000000
EXCHANGE = r"[a-z_]+ #\d+ \((?:statistics|bucket \d+)\) of \d+ (?:Float|Double)"
KINDS = {"plain": plain, "slurm": slurm}


def setUpModule():
    needs_program()


class SameTrainingTest(TrajectoryTest):
    """Borrows how TrajectoryTest compares, none of its cases (load_tests)."""

    def train_by(self, kind, ranks, *overrides):
        run = self.folder / f"by-{len(list(self.folder.iterdir()))}"
        outcomes = launch_by(kind, ranks, train_arguments("joint", run, *overrides))
        self.assertEqual(errors(outcomes), [])
        return run

    def test_reproducible_mode_has_the_bits_of_mpirun_at_one_two_and_four_ranks(self):
        options = (*REPRODUCIBLE, *JOINT, "training.train_steps=4")
        reference = self.folder / "mpirun"
        launch(2, *train_arguments("joint", reference, *options))

        def comparable(run):
            return [{key: value for key, value in line.items() if key not in MEASURED} for line in metrics(run)]

        self.assertEqual(len(metrics(reference)), 4)
        for name, kind in KINDS.items():
            for ranks, zero in ((1, 0), (2, 0), (2, 1), (4, 1)):
                run = self.train_by(kind, ranks, *options, f"dist.zero={zero}")
                self.assertEqual(comparable(run), comparable(reference), f"{ranks} ranks by {name}")
                ours, theirs = tensors(checkpoint(run), "model"), tensors(checkpoint(reference), "model")
                self.assertEqual(ours.keys(), theirs.keys())
                for key, value in ours.items():
                    self.assertEqual(value.tobytes(), theirs[key].tobytes(), f"{ranks} ranks by {name}: {key}")

    def test_the_default_mode_follows_mpirun(self):
        options = ("training.train_steps=10", "model.transformer.editor.flow_matching.render_loss_weight=500")
        reference = self.folder / "mpirun-default"
        launch(2, *train_arguments("joint", reference, *options))
        for name, kind in KINDS.items():
            for ranks in (2, 3):
                with self.subTest(kind=name, ranks=ranks):
                    self.assert_same(reference, self.train_by(kind, ranks, *options))

    def test_a_run_goes_on_under_another_launcher(self):
        options = (*REPRODUCIBLE, *JOINT)
        whole, run = self.folder / "whole", self.folder / "begun-by-mpirun"
        launch(2, *train_arguments("joint", whole, *options, "training.train_steps=6"))
        launch(2, *train_arguments("joint", run, *options, "training.train_steps=3"))
        launch_by(plain, 4, train_arguments("joint", run, *options, "training.train_steps=6"))
        for name, value in tensors(checkpoint(run), "model").items():
            self.assertEqual(value.tobytes(), tensors(checkpoint(whole), "model")[name].tobytes(), name)


class FailureTest(EndToEndTest):
    def hurt(self, rank, how):
        """Signals one rank in the middle of a run: (outcomes by rank, seconds until every process has ended)."""
        run = self.folder / f"{self._testMethodName}-{rank}"
        arguments = train_arguments("joint", run, f"dist.timeout_s={DEADLINE}", f"training.train_steps={ENDLESS}",
                                    f"training.checkpoint_every={ENDLESS}")
        port = free_port()
        with Ranks([(plain(other, RANKS, port), arguments) for other in range(RANKS)]) as job:
            job.wait_until(lambda: (run / "metrics.jsonl").exists() and len(metrics(run)) > 5, "a few steps")
            job.signal(rank, how)
            begin = time.monotonic()
            outcomes = job.outcomes(timeout=60)
            seconds = time.monotonic() - begin
        print(f"rank {rank}, {how.name}: all ended after {seconds:.2f} s; {' '.join(errors(outcomes))}")
        return run, outcomes, seconds

    def test_a_stopped_rank_is_named_and_ended(self):
        for rank in range(RANKS):
            with self.subTest(rank=rank):
                _, outcomes, seconds = self.hurt(rank, signal.SIGSTOP)
                others = [other for other in range(RANKS) if other != rank]
                self.assertEqual([outcomes[other].code for other in others], [4, 4], list(map(str, outcomes)))
                self.assertEqual(outcomes[rank].code, -signal.SIGKILL)
                (message,) = errors(outcomes)
                host = os.uname().nodename
                self.assertRegex(message, rf"^duoflow: rank [{others[0]}{others[1]}] on {host}: {EXCHANGE} is not complete on rank \d after 3\.\d s")
                # Stopped in the middle of a collective it may have let one rank on and not the other: that one waits in it, alive.
                self.assertRegex(message, rf"(?:not arrived|arrived, then silent): .*rank {rank} on host {host}, [^;]*\(no sign of life for 3\.\d s")
                self.assertEqual(message.count("no sign of life"), 1, message)
                for other in others:
                    self.assertRegex(message, rf"arrived: ranks? (?:\d, )*{other}\b|rank {other} on host {host}, [^;]*\(alive")
                self.assertLessEqual(seconds, DEADLINE + GRACE, message)

    def test_a_killed_rank_is_named(self):
        for rank in range(RANKS):
            with self.subTest(rank=rank):
                _, outcomes, seconds = self.hurt(rank, signal.SIGKILL)
                self.assertEqual([outcome.code for outcome in outcomes], [-signal.SIGKILL if other == rank else 4 for other in range(RANKS)],
                                 list(map(str, outcomes)))
                (message,) = errors(outcomes)
                self.assertRegex(message, rf"rank {rank} on host {os.uname().nodename} has left {EXCHANGE} ")
                self.assertLessEqual(seconds, DEADLINE + GRACE, message)

    def test_a_stop_signal_to_one_rank_is_a_checkpoint_of_all(self):
        run, outcomes, _ = self.hurt(1, signal.SIGTERM)
        self.assertEqual([outcome.code for outcome in outcomes], [75] * RANKS, list(map(str, outcomes)))
        self.assertEqual(len(checkpoint_steps(run)), 1)

    def test_another_configuration(self):
        run, port = self.folder / "config", free_port()
        starts = [(plain(0, 2, port), train_arguments("joint", run)), (plain(1, 2, port), train_arguments("joint", run, "training.lr=0.5"))]
        with Ranks(starts) as job:
            outcomes = job.outcomes()
        self.assertEqual([outcome.code for outcome in outcomes], [2, 2], list(map(str, outcomes)))
        (message,) = errors(outcomes)
        self.assertRegex(message, r"training\.lr is 0\.001 on rank 0 on host \S+, 0\.5 on rank 1 on host ")


class VariablesTest(EndToEndTest):
    def refuse(self, code, variables, *words):
        """A single process that ends with `code` and one error that has all the words in it."""
        run = self.folder / "refused"
        with Ranks([(variables, train_arguments("joint", run))]) as job:
            (outcome,) = job.outcomes(timeout=60)
        self.assertEqual(outcome.code, code, outcome)
        self.assertEqual(len(outcome.errors), 1, outcome)
        for word in words:
            self.assertIn(word, outcome.errors[0])
        self.assertFalse(run.exists())

    def test_variables_that_do_not_fit_together(self):
        good = plain(1, 2, free_port())
        self.refuse(2, {"RANK": 1}, "RANK = 1", "WORLD_SIZE is not", "unset RANK")
        self.refuse(2, {"WORLD_SIZE": 2}, "WORLD_SIZE = 2", "RANK is not")
        self.refuse(2, good | {"RANK": 2}, "RANK = 2 and WORLD_SIZE = 2")
        self.refuse(2, good | {"MASTER_PORT": "http"}, 'MASTER_PORT = "http"')
        self.refuse(2, slurm(3, 2, 7), "SLURM_PROCID = 3 and SLURM_STEP_NUM_TASKS = 2")
        self.refuse(2, good | {"DUOFLOW_START_TIMEOUT_S": "soon"}, 'DUOFLOW_START_TIMEOUT_S = "soon"')
        self.refuse(2, {"PMI_SIZE": 2, "PMI_RANK": 0}, "PMI_SIZE = 2", "mpirun", "srun --mpi=none")

    def test_nobody_at_the_address(self):
        port = free_port()
        self.refuse(4, plain(1, 2, port) | {"DUOFLOW_START_TIMEOUT_S": 1}, f"MASTER_ADDR = localhost, MASTER_PORT = {port}", "within 1 s", "start rank 0")

    def test_a_rank_that_does_not_come(self):
        self.refuse(4, plain(0, 2, free_port()) | {"DUOFLOW_START_TIMEOUT_S": 1}, "rank 1 of 2 has not come within 1 s")

    def test_a_port_that_is_taken(self):
        import socket

        with socket.socket() as taken:
            taken.bind(("", 0))
            taken.listen()
            port = taken.getsockname()[1]
            self.refuse(4, plain(0, 2, port), f"port {port}", "choose another MASTER_PORT")

    def refuse_together(self, starts, codes, *words):
        with Ranks([(variables | {"DUOFLOW_START_TIMEOUT_S": 30}, train_arguments("joint", self.folder / "together")) for variables in starts]) as job:
            begin = time.monotonic()
            outcomes = job.outcomes()
        self.assertLess(time.monotonic() - begin, 25, "nobody waits for the one that has gone")
        self.assertEqual(sorted(outcome.code for outcome in outcomes), codes, list(map(str, outcomes)))
        for word in words:
            self.assertTrue(any(word in message for message in errors(outcomes)), list(map(str, outcomes)))

    def test_ranks_with_different_ideas_of_their_number(self):
        port = free_port()
        self.refuse_together([plain(0, 2, port), plain(1, 3, port)], [2, 4], "WORLD_SIZE is 3 on host", "2 on host")

    def test_a_rank_that_is_there_twice(self):
        port = free_port()
        self.refuse_together([plain(0, 3, port), plain(1, 3, port), plain(1, 3, port)], [2, 4, 4], "RANK = 1 is taken")


def load_tests(loader, _tests, _pattern):
    own = unittest.TestSuite(SameTrainingTest(name) for name in loader.getTestCaseNames(SameTrainingTest) if name in vars(SameTrainingTest))
    return unittest.TestSuite([own, loader.loadTestsFromTestCase(FailureTest), loader.loadTestsFromTestCase(VariablesTest)])


if __name__ == "__main__":
    unittest.main()
