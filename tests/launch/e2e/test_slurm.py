"""launch/slurm/train.sbatch on a real Slurm, two nodes of this machine: a job that is stopped is queued again and goes on, a
rank that dies is started again in the allocation, a wrong configuration and scancel end it."""

import json
import os
import pathlib
import re
import signal
import subprocess
import time
import unittest

from common import ENVIRONMENT, PROGRAM, SOURCE, EndToEndTest, checkpoint, checkpoint_steps, launch, metrics, needs_program, samples, tensors, train_arguments
from supervised import is_alive, restarts
from test_ablation import PLAN

CLUSTER = pathlib.Path(__file__).with_name("one_machine_slurm.sh")
SCRIPT = SOURCE / "launch" / "slurm" / "train.sbatch"
CANNOT = 77  # one_machine_slurm.sh: no Slurm on this machine
NODES = 2
ENDLESS = 1000000
STEPS = 300  # seconds, in which the job has to be stopped
# Of the script's own settings these want what the machine has not.
OPTIONS = (f"--nodes={NODES}", "--ntasks-per-node=1", "--cpus-per-task=1", "--gpus-per-node=0")


def setUpModule():
    needs_program()
    check = subprocess.run([CLUSTER, "--only-check"], capture_output=True, text=True)
    if check.returncode == CANNOT:
        raise unittest.SkipTest(check.stderr.strip().removeprefix("one_machine_slurm: skipped: "))


class Slurm:
    """The cluster, until end(), with its jobs."""

    def __init__(self):
        # `cat` ends when its input does, even if this process is killed.
        self.process = subprocess.Popen([CLUSTER, "--nodes", str(NODES), "sh", "-c", 'echo "$SLURM_CONF"; exec cat'], env=ENVIRONMENT, text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.conf = self.process.stdout.readline().strip()
        if not self.conf:
            raise AssertionError(f"no Slurm has come up: exit code {self.process.wait()}")

    def end(self):
        self.process.stdin.close()
        self.process.wait(60)
        self.process.stdout.close()

    def call(self, *command, **variables):
        done = subprocess.run([str(word) for word in command], env=ENVIRONMENT | {"SLURM_CONF": self.conf} | variables, cwd=SOURCE, capture_output=True,
                              text=True, timeout=60)
        if done.returncode != 0:
            raise AssertionError(f"exit code {done.returncode}: {' '.join(map(str, command))}\n{done.stderr}")
        return done.stdout

    def submit(self, log, launcher, arguments):
        """The job's number."""
        return self.call("sbatch", "--parsable", f"--output={log}", *OPTIONS, SCRIPT, *arguments[1:], DUOFLOW_BINARY=str(PROGRAM), DUOFLOW_LAUNCHER=launcher).strip()

    def job(self, number):
        """What scontrol tells about it: {"JobState": ..., "ExitCode": ..., "Restarts": ...}."""
        return dict(re.findall(r"(\S+?)=(\S*)", self.call("scontrol", "show", "job", number)))

    def ends_as(self, number, timeout=120):
        """Its state once it is over."""
        deadline = time.monotonic() + timeout
        while (job := self.job(number))["JobState"] in ("PENDING", "RUNNING", "COMPLETING", "REQUEUED"):
            if time.monotonic() > deadline:
                raise AssertionError(f"job {number} has not ended: {json.dumps(job)}")
            time.sleep(0.2)
        return job


class SlurmTest(EndToEndTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.slurm = Slurm()
        cls.addClassCleanup(cls.slurm.end)

    def arguments(self, run, steps, *overrides):
        return train_arguments("joint", run, f"training.train_steps={steps}", f"training.checkpoint_every={ENDLESS}", *overrides)

    def start(self, run, launcher, steps, *overrides, begun=True):
        self.log = self.folder / f"{run.name}.log"
        number = self.slurm.submit(self.log, launcher, self.arguments(run, steps, *overrides))
        if begun:
            self.wait_until(lambda: (run / "metrics.jsonl").exists() and len(metrics(run)) > 3, "a few steps", number)
        return number

    def wait_until(self, condition, what, number, timeout=120):
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                self.fail(f"{what} was not seen\n{self.slurm.job(number)}\n{self.log.read_text()}")
            time.sleep(0.1)

    @staticmethod
    def ranks(run):
        """Process numbers of the program in jobs for this run folder."""
        found = []
        for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = path.read_bytes().split(b"\0")
                if str(run).encode() in words and os.path.samefile(path.with_name("exe"), PROGRAM):
                    found.append(int(path.parent.name))
            except (FileNotFoundError, ProcessLookupError):
                pass
        return found

    def assert_same_weights(self, run):
        """As those of ranks that mpirun started on this host."""
        whole = self.folder / "whole"
        if not whole.exists():
            launch(NODES, *self.arguments(whole, STEPS))
        for part in ("model", "state"):
            ours, theirs = tensors(checkpoint(run, STEPS), part), tensors(checkpoint(whole, STEPS), part)
            self.assertEqual({name: value.tobytes() for name, value in ours.items()}, {name: value.tobytes() for name, value in theirs.items()})

    def requeue(self, launcher):
        run = self.folder / f"requeued-{launcher}"
        number = self.start(run, launcher, STEPS)
        self.slurm.call("scancel", "--signal=USR2", "--batch", number)
        job = self.slurm.ends_as(number)
        log = self.log.read_text()
        self.assertEqual((job["JobState"], job["ExitCode"], job["Restarts"]), ("COMPLETED", "0:0", "1"), log)
        (stop, step, decision), end = restarts(run)
        self.assertEqual((stop, decision, end), (75, f"stopped on request; queued again: job {number}", (0, STEPS, "done")), log)
        self.assertLess(step, STEPS)
        self.assertEqual(checkpoint_steps(run), [step, STEPS])
        self.assertIn(f"(step {step})", log)
        self.assertEqual([line["step"] for line in metrics(run)], list(range(1, STEPS + 1)))
        self.assert_same_weights(run)

    def needs_pmix(self):
        if "pmix" not in self.slurm.call("sh", "-c", "srun --mpi=list 2>&1"):
            self.skipTest("this Slurm has no pmix plugin (srun --mpi=list)")

    def test_a_stopped_job_is_queued_again_and_goes_on_by_srun_and_mpi(self):
        self.needs_pmix()
        self.requeue("pmix")

    def test_a_stopped_job_is_queued_again_and_goes_on_by_mpirun(self):
        self.requeue("mpirun")

    def test_a_stopped_job_is_queued_again_and_goes_on_by_srun_alone(self):
        self.requeue("plain")

    def start_again(self, launcher):
        run = self.folder / f"killed-{launcher}"
        number = self.start(run, launcher, ENDLESS, "training.checkpoint_every=5")
        self.wait_until(lambda: checkpoint_steps(run), "a checkpoint", number)
        ranks = self.ranks(run)
        self.assertEqual(len(ranks), NODES)
        os.kill(ranks[0], signal.SIGKILL)
        self.wait_until(lambda: (run / "restarts.log").read_text().count("  started") == 2, "the second start", number)
        self.wait_until(lambda: self.log.read_text().count("resumed from") == 1, "the resume", number)
        self.slurm.call("scancel", number)
        job = self.slurm.ends_as(number)
        self.assertEqual((job["JobState"], job["Restarts"]), ("CANCELLED", "0"))
        self.assertEqual([decision.split(";")[0] for _, _, decision in restarts(run)], ["starting again in 1 s", "ended by SIGTERM"])
        self.wait_until(lambda: not self.ranks(run), "the end of all ranks", number)
        self.assertEqual([pid for pid in ranks if is_alive(pid)], [])

    def test_a_killed_rank_is_started_again_in_the_allocation_by_mpirun(self):
        self.start_again("mpirun")

    def test_a_killed_rank_is_started_again_in_the_allocation_by_srun(self):
        self.needs_pmix()
        self.start_again("pmix")

    def test_a_stopped_task_of_an_array_goes_on_too(self):
        plan, work = self.folder / "plan.toml", self.folder / "work"
        plan.write_text(PLAN.format(samples=samples(), steps=STEPS))
        array = self.slurm.call("sbatch", "--parsable", "--array=2", f"--output={self.folder / 'array.log'}", "--cpus-per-task=1",
                                SOURCE / "launch" / "slurm" / "array.sbatch", plan, "--work", work, DUOFLOW_BUILD=str(PROGRAM.parent)).strip()
        self.log, run, task = self.folder / "array.log", work / "fixed-seed2" / "run", f"{array}_2"
        self.wait_until(lambda: (run / "metrics.jsonl").exists() and len(metrics(run)) > 3, "a few steps", task)
        self.slurm.call("scancel", "--signal=USR2", "--batch", task)
        job = self.slurm.ends_as(task)
        self.assertEqual((job["JobState"], job["Restarts"]), ("COMPLETED", "1"), self.log.read_text())
        self.assertEqual([code for code, _, _ in restarts(run)], [75, 0])
        self.assertEqual(metrics(run)[-1]["step"], STEPS)
        self.assertTrue((run.parent / "result.json").exists())

    def test_a_wrong_configuration_ends_the_job(self):
        run = self.folder / "wrong"
        number = self.start(run, "mpirun", 5, "training.lr=-1", begun=False)
        job = self.slurm.ends_as(number)
        self.assertEqual((job["JobState"], job["ExitCode"], job["Restarts"]), ("FAILED", "2:0", "0"), self.log.read_text())
        self.assertEqual([code for code, _, _ in restarts(run)], [2])


if __name__ == "__main__":
    unittest.main()
