"""launch/run.sh: what it makes of every exit code, by commands that only pretend; and a real training that loses ranks, is
stopped, loses its terminal or its supervisor."""

import os
import pathlib
import pty
import re
import shutil
import signal
import subprocess
import time
import unittest
from unittest import mock

from common import ENVIRONMENT, EndToEndTest, checkpoint, checkpoint_steps, command_line, launch, metrics, needs_program, tensors, train_arguments
from supervised import SUPERVISOR, Supervised, is_alive, restarts

RANKS = 2
ENDLESS = 1000000
FAST = ("--delays", "0,0,0")


def setUpModule():
    needs_program()


class PretendedTest(EndToEndTest):
    """The command is a shell script; $RUN is its run folder and $n counts its starts from 1."""

    def setUp(self):
        self.run_folder = self.folder / self._testMethodName
        self.run_folder.mkdir()

    def command(self, script, *arguments):
        counted = 'RUN=$1; shift; echo "$*" >> $RUN/starts; n=$(wc -l < $RUN/starts)\n'
        return ["bash", "-c", counted + script, "pretended", self.run_folder, "--run", self.run_folder, *arguments]

    def supervise(self, script, *arguments, options=FAST):
        with Supervised(self.command(script, *arguments), *options) as job:
            return job.outcome(timeout=60)

    def starts(self):
        return (self.run_folder / "starts").read_text().splitlines()

    def test_success_and_errors_that_stay_end_it_at_once(self):
        for code, word in ((0, "done"), (2, "configuration"), (3, "data or checkpoints"), (75, "stopped on request"), (126, "cannot be started"),
                           (127, "cannot be started")):
            with self.subTest(code=code):
                before = len(self.starts()) if (self.run_folder / "starts").exists() else 0
                outcome = self.supervise(f"exit {code}")
                self.assertEqual(outcome.code, code, outcome)
                self.assertEqual(len(self.starts()), before + 1, outcome)
                self.assertEqual(restarts(self.run_folder)[-1][:2], (code, 0))
                self.assertIn(word, restarts(self.run_folder)[-1][2])

    def test_success_of_a_training_that_has_not_said_finished_is_none(self):
        outcome = self.supervise('[ $n -lt 3 ] || echo "2026-01-31 12:00:00 info: finished: $RUN" >> $RUN/log.txt', "train")
        self.assertEqual((outcome.code, len(self.starts())), (0, 3), outcome)
        outcome = self.supervise("true", "train")  # what an earlier attempt said does not count
        self.assertEqual((outcome.code, len(self.starts())), (1, 3 + 4), outcome)

    def test_a_signal_to_the_whole_group_ends_no_helper(self):
        with Supervised(self.command("trap 'sleep 0.1; exit 75' USR2; touch $RUN/ready; while :; do sleep 0.02; done"), *FAST) as job:
            job.wait_until((self.run_folder / "ready").exists, "the command")
            os.killpg(job.process.pid, signal.SIGUSR2)
            time.sleep(0.01)
            deadline = time.monotonic() + 10
            while job.process.poll() is None and time.monotonic() < deadline:
                os.killpg(job.process.pid, signal.SIGUSR2)
                time.sleep(0.002)
            self.assertEqual(job.outcome(timeout=1).code, 75)
        self.assertEqual(len(restarts(self.run_folder)), 1)

    def test_three_restarts_in_a_row_without_progress_are_the_last(self):
        outcome = self.supervise('echo "duoflow: rank 1 on here: lost ($n)" >&2; echo later >&2; exit 4')
        self.assertEqual(outcome.code, 4, outcome)
        self.assertEqual(len(self.starts()), 1 + 3)
        self.assertRegex(outcome.err, r"(?m)^run: error: 3 restarts in a row made no progress .*last error: duoflow: rank 1 on here: lost \(4\)")
        self.assertEqual([code for code, _, _ in restarts(self.run_folder)], [4] * 4)
        self.assertRegex(restarts(self.run_folder)[-1][2], r"^given up; last error: duoflow: rank 1 on here: lost \(4\)$")

    def test_a_job_is_not_queued_again_for_ever_at_one_step(self):
        tools = self.run_folder / "tools"
        tools.mkdir()
        (tools / "scontrol").write_text(f'#!/bin/sh\necho "$*" >> {self.run_folder}/queued\n')
        (tools / "scontrol").chmod(0o755)
        queued = lambda: (self.run_folder / "queued").read_text().splitlines()
        with mock.patch.dict(ENVIRONMENT, {"PATH": f"{tools}:{os.environ['PATH']}", "SLURM_JOB_ID": "41"}):
            stop = lambda step: self.supervise(f'echo \'{{"step": {step}}}\' >> $RUN/metrics.jsonl; exit 75', options=("--stopped", "requeue", *FAST))
            for times in (1, 2, 3):
                self.assertEqual(stop(5).code, 75)
                self.assertEqual(queued(), ["requeue 41"] * times)
            outcome = stop(5)
            self.assertEqual((outcome.code, len(queued())), (75, 3), outcome)
            self.assertRegex(outcome.err, "not queued again: 3 times it was, at this step")
            self.assertEqual((stop(6).code, len(queued())), (75, 4))

    def test_progress_in_the_log_or_by_a_checkpoint_begins_the_count_anew(self):
        log = 'printf \'{"step":%d,"samples":1}\\n{"st\' $n > $RUN/metrics.jsonl'  # the last line is unfinished, as after a kill
        save = 'mkdir -p $RUN/checkpoints/step_00000010$n; touch $RUN/checkpoints/step_00000010$n/manifest.json'
        outcome = self.supervise(f'if [ $n -lt 5 ]; then {log}; elif [ $n -lt 9 ]; then {save}; fi; exit 1')
        self.assertEqual(outcome.code, 1, outcome)
        self.assertEqual([step for _, step, _ in restarts(self.run_folder)], [1, 2, 3, 4, 105, 106, 107, 108, 108, 108, 108])

    def test_the_same_step_again_is_no_progress_nor_is_a_checkpoint_without_manifest(self):
        outcome = self.supervise('mkdir -p $RUN/checkpoints/step_00000090$n $RUN/checkpoints/step_000000800.tmp-1; '
                                 'touch $RUN/checkpoints/step_000000800.tmp-1/manifest.json; echo \'{"step":7}\' > $RUN/metrics.jsonl; exit 137')
        self.assertEqual(outcome.code, 137, outcome)
        self.assertEqual([step for _, step, _ in restarts(self.run_folder)], [7] * 4)

    def test_it_waits_longer_the_longer_nothing_moves(self):
        outcome = self.supervise("exit 1", options=("--delays", "0,0.2,0.1"))
        decisions = [decision for _, _, decision in restarts(self.run_folder)]
        self.assertEqual([decision.split(";")[0] for decision in decisions],
                         ["starting again in 0 s", "starting again in 0.2 s", "starting again in 0.1 s", "given up"], outcome)

    def test_a_restart_resumes_from_the_newest_checkpoint_once_there_is_one_of_its_own(self):
        earlier = self.run_folder / "checkpoints" / "step_000000003"
        earlier.mkdir(parents=True)
        (earlier / "manifest.json").touch()
        save = 'mkdir -p $RUN/checkpoints/step_000000001; rm -rf $RUN/checkpoints/step_000000003; touch $RUN/checkpoints/step_000000001/manifest.json'
        for words in (("--resume", "elsewhere"), ("--resume=never",)):
            (self.run_folder / "starts").unlink(missing_ok=True)
            self.supervise(f'if [ $n = 3 ]; then {save}; fi; [ $n = 4 ]', *words, "key=1")
            given, later = " ".join(words), " ".join(words).replace("elsewhere", "auto").replace("never", "auto")
            self.assertEqual([line.removeprefix(f"--run {self.run_folder} ") for line in self.starts()], [f"{given} key=1"] * 3 + [f"{later} key=1"])
            (earlier).mkdir(exist_ok=True)
            (earlier / "manifest.json").touch()
            (self.run_folder / "checkpoints" / "step_000000001" / "manifest.json").unlink()

    def test_a_stop_on_request_may_go_on(self):
        outcome = self.supervise("[ $n = 3 ] || exit 75", options=(*FAST, "--stopped", "restart"))
        self.assertEqual((outcome.code, len(self.starts())), (0, 3), outcome)

    def test_a_stop_between_two_attempts_is_obeyed_at_once(self):
        for number, code in ((signal.SIGUSR2, 75), (signal.SIGTERM, 143), (signal.SIGINT, 130)):
            (self.run_folder / "starts").unlink(missing_ok=True)
            with Supervised(self.command("exit 1"), "--delays", "60") as job:
                job.wait_until(lambda: "starting again in 60 s" in job.said(), "the pause")
                job.signal(number)
                self.assertEqual(job.outcome(timeout=10).code, code)
            self.assertEqual(len(self.starts()), 1)

    def test_a_signal_reaches_the_command_which_is_not_started_again(self):
        script = 'trap "echo got it; exit 9" {0}; touch $RUN/ready; while :; do sleep 0.02; done'
        for number, code in ((signal.SIGUSR2, 75), (signal.SIGTERM, 9), (signal.SIGINT, 9)):
            (self.run_folder / "ready").unlink(missing_ok=True)
            with Supervised(self.command(script.format(number.name)), *FAST) as job:
                job.wait_until((self.run_folder / "ready").exists, "the command")
                job.signal(number)
                outcome = job.outcome(timeout=10)
            self.assertEqual(outcome.code, code, outcome)  # USR2: whatever the code, what was saved before stands
            self.assertIn("got it", outcome.err)
        self.assertEqual(len(self.starts()), 3)

    def test_a_request_to_stop_takes_the_form_that_the_launcher_hands_on(self):
        for launcher, sent, handed_on in (("mpirun", signal.SIGTERM, "USR2"), ("torchrun", signal.SIGUSR2, "TERM"), ("torchrun", signal.SIGTERM, "TERM"),
                                          ("srun", signal.SIGUSR2, "USR2"), ("srun", signal.SIGTERM, "TERM")):
            with self.subTest(launcher=launcher, sent=sent.name):
                program = self.run_folder / launcher
                program.write_text(f"#!/bin/bash\ntrap 'exit 75' {handed_on}; touch {self.run_folder}/ready; while :; do sleep 0.02; done\n")
                program.chmod(0o755)
                (self.run_folder / "ready").unlink(missing_ok=True)
                with Supervised([program, "--run", self.run_folder], *FAST) as job:
                    job.wait_until((self.run_folder / "ready").exists, "the command")
                    job.signal(sent)
                    self.assertEqual(job.outcome(timeout=10).code, 75)
                self.assertEqual(restarts(self.run_folder)[-1][0], 75)

    def test_what_the_command_leaves_behind_is_killed_before_the_next_start(self):
        script = 'setsid sleep 1000 & echo $! >> $RUN/left; [ $n = 2 ] || exit 1'
        outcome = self.supervise(script)
        self.assertEqual(outcome.code, 0, outcome)
        left = [int(pid) for pid in (self.run_folder / "left").read_text().split()]
        self.assertEqual((len(left), [pid for pid in left if is_alive(pid)]), (2, []), (self.run_folder / "restarts.log").read_text())
        self.assertEqual((self.run_folder / "restarts.log").read_text().count("killed what was left"), 2)

    def test_a_process_whose_environment_is_not_there_for_a_moment_is_found(self):
        """As while it becomes another program: here two looks in three find nothing."""
        tools = self.run_folder / "tools"
        tools.mkdir()
        (tools / "grep").write_text(f"""#!/bin/sh
            case $1 in -lzsxF) echo >> {self.run_folder}/looks; [ $(($(wc -l < {self.run_folder}/looks) % 3)) = 0 ] || exit 1 ;; esac
            exec {shutil.which("grep")} "$@"\n""")
        (tools / "grep").chmod(0o755)
        with mock.patch.dict(ENVIRONMENT, {"PATH": f"{tools}:{os.environ['PATH']}"}):
            outcome = self.supervise("setsid sleep 1000 & echo $! > $RUN/left")
        self.assertEqual(outcome.code, 0, outcome)
        self.assertGreater(len((self.run_folder / "looks").read_text()), 3)
        self.assertFalse(is_alive(int((self.run_folder / "left").read_text())))
        self.assertIn("killed what was left", (self.run_folder / "restarts.log").read_text())

    def refuse(self, words, *arguments):
        done = subprocess.run([SUPERVISOR, *arguments], capture_output=True, text=True, env=ENVIRONMENT, timeout=30)
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertRegex(done.stderr, f"^run: error: {words}")

    def test_a_wrong_command_line(self):
        self.refuse("mpirun is not an option .*behind --", "mpirun", "--run", "R")
        self.refuse("there is no COMMAND", "--run", "R", "--")
        self.refuse("COMMAND has no --run", "--", "true")
        self.refuse("--stopped never, expected", "--stopped", "never", "--", "true", "--run", "R")
        self.refuse("--stopped requeue outside a Slurm job", "--stopped", "requeue", "--", "true", "--run", "R")
        self.refuse('--delays: "soon" is no number', "--delays", "1,soon", "--", "true", "--run", "R")
        self.refuse("--run is the last word", "--run")


class TrainingTest(EndToEndTest):
    def arguments(self, run, steps, *overrides):
        return train_arguments("joint", run, f"training.train_steps={steps}", "training.checkpoint_every=5", *overrides)

    def wait_for_steps(self, job, run, count):
        job.wait_until(lambda: (run / "metrics.jsonl").exists() and len((run / "metrics.jsonl").read_bytes().splitlines()) > count, "a few steps")

    def assert_nothing_left(self, pids):
        deadline = time.monotonic() + 10
        while any(map(is_alive, pids)) and time.monotonic() < deadline:
            time.sleep(0.01)
        self.assertEqual([pid for pid in pids if is_alive(pid)], [])

    def assert_same_weights(self, run, step):
        whole = self.folder / f"{run.name}-whole"
        launch(RANKS, *self.arguments(whole, step))
        for part in ("model", "state"):
            ours, theirs = tensors(checkpoint(run, step), part), tensors(checkpoint(whole, step), part)
            self.assertEqual({name: value.tobytes() for name, value in ours.items()}, {name: value.tobytes() for name, value in theirs.items()})

    def test_a_killed_rank_costs_the_steps_since_the_last_checkpoint(self):
        run = self.folder / "killed"
        with Supervised.training(RANKS, self.arguments(run, ENDLESS)) as job:
            for rank in range(RANKS):
                self.wait_for_steps(job, run, len(metrics(run)) + 8 if rank else 8)
                job.wait_until(lambda: checkpoint_steps(run), "a checkpoint")  # it is written beside the steps and may come later
                ranks = job.ranks()
                self.assertEqual(sorted(ranks), list(range(RANKS)))
                os.kill(ranks[rank], signal.SIGKILL)
                begin = time.monotonic()
                job.wait_until(lambda gone=ranks: not any(map(is_alive, gone.values())), "the end of the attempt")
                ended = time.monotonic() - begin
                job.wait_until(lambda gone=ranks: len(job.ranks()) == RANKS and not set(job.ranks().values()) & set(gone.values()), "new ranks")
                print(f"rank {rank} killed: all ended after {ended:.2f} s, started again after {time.monotonic() - begin:.2f} s")
            job.wait_until(lambda: job.said().count("resumed from") == 2, "the second resume")
            last = checkpoint_steps(run)[-1]
            job.wait_until(lambda: checkpoint_steps(run)[-1] > last, "a checkpoint after it")
            below = job.below()
            job.signal(signal.SIGUSR2)
            outcome = job.outcome()
        self.assertEqual(outcome.code, 75, outcome)
        self.assert_nothing_left(below)
        self.assertEqual([(code, decision.split(";")[0]) for code, _, decision in restarts(run)],
                         [(137, "starting again in 1 s")] * 2 + [(75, "stopped on request")])
        stopped = checkpoint_steps(run)[-1]
        self.assertEqual(restarts(run)[-1][1], stopped)
        with Supervised.training(RANKS, self.arguments(run, stopped + 7)) as job:
            outcome = job.outcome()
        self.assertEqual(outcome.code, 0, outcome)
        self.assertEqual([line["step"] for line in metrics(run)], list(range(1, stopped + 8)))
        self.assert_same_weights(run, stopped + 7)

    def test_a_killed_launcher_is_started_again_after_its_ranks_are_gone(self):
        run = self.folder / "launcher"
        with Supervised.training(RANKS, self.arguments(run, ENDLESS)) as job:
            self.wait_for_steps(job, run, 8)
            ranks = job.ranks()
            (launcher,) = {int(re.search(r"PPid:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text())[1]) for pid in ranks.values()}
            os.kill(launcher, signal.SIGKILL)
            job.wait_until(lambda: job.said().count("resumed from") == 1, "the resume")
            self.assertEqual([pid for pid in ranks.values() if is_alive(pid)], [])
            job.signal(signal.SIGUSR2)
            outcome = job.outcome()
        self.assertEqual(outcome.code, 75, outcome)
        self.assertEqual([code for code, _, _ in restarts(run)], [137, 75])

    def test_a_wrong_configuration_is_tried_once(self):
        run = self.folder / "wrong"
        with Supervised.training(RANKS, self.arguments(run, 5, "training.lr=-1")) as job:
            outcome = job.outcome()
        self.assertEqual((outcome.code, len(outcome.errors), len(restarts(run))), (2, 1, 1), outcome)

    def test_the_terminal_may_close(self):
        run = self.folder / "terminal"
        command = [SUPERVISOR, "--", *command_line(RANKS, self.arguments(run, 150))]
        pid, terminal = pty.fork()
        if pid == 0:
            os.execvpe(command[0], [str(word) for word in command], ENVIRONMENT)
        try:
            seen = b""
            while b"step 20/" not in seen:
                seen += os.read(terminal, 4096)
            os.close(terminal)  # the kernel sends SIGHUP, and writing there is an error from now on
            _, status = os.waitpid(pid, 0)
        finally:
            if is_alive(pid):
                os.kill(pid, signal.SIGKILL)
        self.assertEqual(os.waitstatus_to_exitcode(status), 0, seen)
        self.assertEqual([(code, step) for code, step, _ in restarts(run)], [(0, 150)])

    def test_sigterm_ends_it_after_a_checkpoint(self):
        run = self.folder / "terminated"
        with Supervised.training(RANKS, self.arguments(run, ENDLESS, "training.checkpoint_every=1000000"), "--stopped", "restart") as job:
            self.wait_for_steps(job, run, 3)
            job.signal(signal.SIGTERM)
            outcome = job.outcome(timeout=30)
        self.assertEqual(outcome.code, 75, outcome)
        self.assertEqual([(75, *checkpoint_steps(run), "ended by SIGTERM")], restarts(run))

    def test_ctrl_c_ends_it(self):
        run = self.folder / "interrupted"
        with Supervised.training(RANKS, self.arguments(run, ENDLESS)) as job:
            self.wait_for_steps(job, run, 3)
            below = job.below()
            os.killpg(job.process.pid, signal.SIGINT)
            outcome = job.outcome(timeout=30)
        self.assertNotIn(outcome.code, (0, 75), outcome)
        self.assert_nothing_left(below)
        self.assertEqual([decision for _, _, decision in restarts(run)], ["ended by SIGINT"], outcome)

    def test_a_killed_supervisor_takes_the_job_with_it(self):
        run = self.folder / "unsupervised"
        with Supervised.training(RANKS, self.arguments(run, ENDLESS)) as job:
            self.wait_for_steps(job, run, 3)
            below = job.below()
            self.assertGreaterEqual(len(below), 1 + RANKS)
            job.signal(signal.SIGKILL)
            job.process.wait()
            self.assert_nothing_left(below)


if __name__ == "__main__":
    unittest.main()
