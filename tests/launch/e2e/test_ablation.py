"""The harness of benchmarks/ablation: a file of runs is trained, evaluated, gone on with and collected."""

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time

from common import ENVIRONMENT, PROGRAM, SOURCE, EndToEndTest, checkpoint_steps, needs_program, samples

HARNESS = SOURCE / "benchmarks/ablation"
PLAN = """
config = "{samples}/joint.yaml"
init = "{samples}/stage1"
train = "{samples}/pairs"
baseline = "fixed"
seeds = [1, 2]
steps = [1, 2]
overrides = ["training.train_steps={steps}", "flow_matching.weighting=fixed"]
[tests]
same = "{samples}/pairs"
[runs]
fixed = []
fast = ["training.lr=2e-2"]
"""


def setUpModule():
    needs_program()


class AblationTest(EndToEndTest):
    def harness(self, program, *arguments, code=0):
        plan = self.folder / "plan.toml"
        done = subprocess.run([sys.executable, HARNESS / program, plan, "--work", self.folder / "work", *map(str, arguments)],
                              env=ENVIRONMENT | {"DUOFLOW_BUILD": str(PROGRAM.parent)}, capture_output=True, text=True, timeout=300)
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        return done

    def write_plan(self, steps=3):
        (self.folder / "plan.toml").write_text(PLAN.format(samples=samples(), steps=steps))

    def result(self, run):
        return json.loads((self.folder / "work" / run / "result.json").read_text())

    def test_a_plan_is_run_gone_on_with_and_collected(self):
        self.write_plan()
        self.harness("run.py", "--index", 3)  # what one task of a job array does
        self.assertEqual(self.harness("run.py", "--list").stdout.splitlines(),
                         [f"{line} {self.folder}/work/{name}/run" for line, name in
                          (("0 fixed 1 open", "fixed-seed1"), ("1 fast 1 open", "fast-seed1"), ("2 fixed 2 open", "fixed-seed2"),
                           ("3 fast 2 done", "fast-seed2"))])
        made = os.stat(self.folder / "work/fast-seed2/result.json").st_mtime_ns
        said = self.harness("run.py", "--jobs", 2).stdout
        self.assertEqual(os.stat(self.folder / "work/fast-seed2/result.json").st_mtime_ns, made)
        self.assertNotIn("fast seed 2", said)

        edits = {name: [line["psnr_masked"] for seed in (1, 2) for line in self.result(f"{name}-seed{seed}")["tests"]["same"]["sweep"]
                        if line["steps"] == 2] for name in ("fixed", "fast")}
        self.assertNotEqual(edits["fixed"][0], edits["fixed"][1])  # the seed reaches the run
        row = next(line for line in said.splitlines() if line.startswith("| fast | 2 |")).split(" | ")
        self.assertEqual(row[3], f"{statistics.mean(edits['fast']):.2f} ± {statistics.stdev(edits['fast']):.2f}")
        differences = [fast - fixed for fast, fixed in zip(edits["fast"], edits["fixed"])]
        # Two seeds: the half width is t(1 degree of freedom) times half their distance.
        half = 12.706 * abs(differences[0] - differences[1]) / 2
        mean = statistics.mean(differences)
        self.assertEqual(row[5], f"{mean:+.2f} ({mean - half:+.2f} to {mean + half:+.2f})")

        plot = self.folder / "plot.svg"
        self.harness("table.py", "--plot", plot)
        self.assertEqual(plot.read_text().count("<circle"), 8)  # 2 runs x 2 seeds x 2 numbers of steps

        self.write_plan(steps=4)  # other runs do not get the results of these
        shutil.rmtree(self.folder / "work/fixed-seed1")
        (self.folder / "work/fast-seed1/result.json").unlink()
        failed = self.harness("run.py", code=1)
        self.assertIn("was made with another overrides", failed.stderr)
        self.assertIn("fixed seed 1: same", failed.stdout)

    def test_a_stopped_plan_goes_on_where_it_stopped(self):
        self.write_plan(steps=400)
        command = [sys.executable, HARNESS / "run.py", self.folder / "plan.toml", "--work", self.folder / "stopped", "--index", "0"]
        environment = ENVIRONMENT | {"DUOFLOW_BUILD": str(PROGRAM.parent)}
        run = self.folder / "stopped" / "fixed-seed1" / "run"
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            while process.poll() is None and not (run / "metrics.jsonl").exists():
                time.sleep(0.01)
            process.send_signal(signal.SIGUSR2)
            said = process.communicate(timeout=60)[0]
        self.assertEqual(process.returncode, 75, said)
        self.assertIn("1 of 1 runs are open", said)
        (step,) = checkpoint_steps(run)
        self.assertLess(step, 400)
        subprocess.run(command, env=environment, check=True, timeout=120, capture_output=True)
        self.assertIn(f"(step {step})", (run / "log.txt").read_text())
        self.assertTrue((run.parent / "result.json").exists())

    def test_a_wrong_plan_is_refused(self):
        (self.folder / "plan.toml").write_text(PLAN.format(samples=samples(), steps=1).replace('baseline = "fixed"', 'baseline = "fixd"'))
        self.assertIn("baseline 'fixd' is none of the runs fixed, fast", self.harness("run.py", code=1).stderr)
        (self.folder / "plan.toml").write_text('seeds = [1]\nsede = 2\n')
        self.assertIn("unknown keys ['sede']", self.harness("run.py", code=1).stderr)
