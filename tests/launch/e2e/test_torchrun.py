"""A real torchrun (python -m torch.distributed.run) starts the ranks. Its agent serves the keys they meet by."""

import subprocess
import sys
import unittest

from common import PROGRAM, launch, metrics, needs_program, run_command, train_arguments
from ranks import free_port
from test_trajectory import TrajectoryTest


def setUpModule():
    needs_program()
    check = subprocess.run([sys.executable, "-c", "import torch.distributed.run"], capture_output=True, text=True)
    if check.returncode != 0:
        raise unittest.SkipTest(f"this Python has no torch that works ({check.stderr.strip().splitlines()[-1]}): launch/setup.sh --full installs it")


# `--`: else torchrun takes the program's --run for an abbreviation of an option of its own.
def torchrun(ranks, arguments, *options, code=0):
    command = [sys.executable, "-m", "torch.distributed.run", "--no-python", "--nproc-per-node", str(ranks), "--master-port", str(free_port()), *options,
               "--", str(PROGRAM), *map(str, arguments)]
    return run_command(command, code, 200)


class TorchrunTest(TrajectoryTest):
    """Borrows how TrajectoryTest compares, none of its cases (load_tests)."""

    options = ("training.train_steps=10", "model.transformer.editor.flow_matching.render_loss_weight=500")

    def test_it_trains_what_mpirun_trains(self):
        reference = self.folder / "mpirun"
        launch(2, *train_arguments("joint", reference, *self.options))
        run = self.folder / "torchrun"
        outcome = torchrun(2, train_arguments("joint", run, *self.options))
        self.assertEqual(outcome.errors, [])
        self.assert_same(reference, run)

    def test_a_wrong_configuration_is_one_message_of_ours(self):
        outcome = torchrun(2, train_arguments("joint", self.folder / "wrong", "training.lr=-1"), code=None)
        self.assertNotEqual(outcome.code, 0)
        self.assertEqual(len(outcome.errors), 1, outcome)
        self.assertRegex(outcome.err, r"exitcode\s*: 2", outcome)

    def test_ranks_that_died_are_started_again_and_go_on_from_the_checkpoint(self):
        # The shell kills its rank once, in the middle of the run; the agent starts both again.
        run, mark = self.folder / "restarted", self.folder / "killed-once"
        arguments = train_arguments("joint", run, "training.train_steps=400", "training.checkpoint_every=20", "dist.timeout_s=10")
        script = (f'if [ "$RANK" = 1 ] && [ ! -e {mark} ]; then touch {mark}; "$0" "$@" & pid=$!; '
                  f'while [ ! -e {run}/checkpoints/latest ]; do sleep 0.05; done; kill -9 $pid; wait $pid; exit 137; fi; exec "$0" "$@"')
        command = [sys.executable, "-m", "torch.distributed.run", "--no-python", "--nproc-per-node", "2", "--max-restarts", "1", "--monitor-interval", "0.2",
                   "--master-port", str(free_port()), "--", "sh", "-c", script, str(PROGRAM), *map(str, arguments)]
        outcome = run_command(command, 0, 200)
        self.assertTrue(mark.exists(), outcome)
        self.assertEqual([line["step"] for line in metrics(run)], list(range(1, 401)), outcome)


def load_tests(loader, _tests, _pattern):
    return unittest.TestSuite(TorchrunTest(name) for name in loader.getTestCaseNames(TorchrunTest) if name in vars(TorchrunTest))


if __name__ == "__main__":
    unittest.main()
