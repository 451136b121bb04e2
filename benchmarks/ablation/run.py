#!/usr/bin/env python3
"""Trains and evaluates every run of a file of runs (runs.py), then prints the table. Only what is missing is done: a call
that was stopped goes on where it stopped, a run in its middle from its last checkpoint.

    benchmarks/ablation/run.py benchmarks/ablation/synth.toml [--work DIR] [--jobs N] [--threads N] [--index I] [--list]

--jobs: runs at once; --threads: of each (more than --jobs x --threads cores help nobody). --index I: only the I-th run, for a
job array: launch/slurm/array.sbatch. SIGUSR2 and SIGTERM stop it: what trains writes a checkpoint, exit code 75. Standard
library only.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import signal
import subprocess
import sys

import runs
import table

DUOFLOW = pathlib.Path(os.environ.get("DUOFLOW_BUILD", runs.SOURCE / "build")) / "duoflow"


STOPPED_ON_REQUEST = 75


class Stopped(Exception):
    pass


class Stop:
    """The signals go to what is running in any thread; nothing is begun after them."""

    def __init__(self):
        self.came = False
        self.running = set()

    def catch(self):
        for number in (signal.SIGUSR2, signal.SIGTERM):
            signal.signal(number, self.request)

    def request(self, *_):
        self.came = True
        for program in list(self.running):
            program.send_signal(signal.SIGUSR2)

    def wait(self, program):
        self.running.add(program)
        if self.came:  # between its start and the line above
            program.send_signal(signal.SIGUSR2)
        code = program.wait()
        self.running.discard(program)
        return code


stop = Stop()


def call(words, log, environment=os.environ):
    """One program, its output to `log`; an error names the last lines."""
    if stop.came:
        raise Stopped
    with open(log, "a") as file:
        code = stop.wait(subprocess.Popen([str(w) for w in words], cwd=runs.SOURCE, stdout=file, stderr=subprocess.STDOUT, env=environment))
    if code != 0 and stop.came:
        raise Stopped
    if code != 0:
        last = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
        raise RuntimeError(f"exit code {code}: {' '.join(str(w) for w in words)}\n{last}\n(all of it: {log})")


def same_definition(run, definition):
    """A folder belongs to one definition: results of two are not mixed."""
    path = run.folder / "definition.json"
    if path.exists() and (earlier := json.loads(path.read_text())) != definition:
        changed = [k for k in definition if earlier.get(k) != definition[k]]
        raise RuntimeError(f"{run.folder}: was made with another {', '.join(changed)} ({[earlier.get(k) for k in changed]} before, "
                           f"{[definition[k] for k in changed]} now); remove it or give another --work")
    path.write_text(json.dumps(definition, indent=1))


def mean_of_last(lines, key, count=10):
    values = [line[key] for line in lines[-count:] if line.get(key) is not None]
    return sum(values) / len(values) if values else None


def trained_in(run):
    return run.folder / "run"


def execute(plan, run, threads):
    run.folder.mkdir(parents=True, exist_ok=True)
    same_definition(run, {"config": plan.config, "init": plan.init, "train": plan.train, "overrides": run.overrides,
                          "tests": plan.tests, "steps": plan.steps})
    log = run.folder / "log.txt"
    trained = trained_in(run)
    call([DUOFLOW, "train", "--config", plan.config, "--data", plan.train, "--run", trained, f"training.init_from={plan.init}",
          "training.keep_last=1", f"dist.threads={threads}", *run.overrides], log)
    # Where no weights of LPIPS are to be found, evaluate leaves it out.
    environment = dict(os.environ) if plan.lpips else os.environ | {"DUOFLOW_WEIGHTS": "/nowhere"}
    result = {"name": run.name, "seed": run.seed, "tests": {}}
    for test, pairs in plan.tests.items():
        out = run.folder / test
        call([DUOFLOW, "evaluate", "--checkpoint", trained, "--data", pairs, "--train-data", plan.train, "--out", out,
              f"dist.threads={threads}", "--sweep-steps", ",".join(map(str, plan.steps))], log, environment)
        result["tests"][test] = json.loads((out / "metrics.json").read_text())
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    result["training"] = {key: mean_of_last(lines, key)
                          for key in ("velocity_loss", "render_loss", "grad_ratio", "grad_cosine", "velocity_weight", "render_weight")}
    temporary = run.result.with_suffix(".tmp")
    temporary.write_text(json.dumps(result, indent=1))
    temporary.replace(run.result)


def execute_all(plan, pending, jobs, threads):
    """Exit code: 1 when a run failed; the others are done all the same. 75 when a signal left some of them open."""
    failed, open_ones = 0, 0
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        futures = {pool.submit(execute, plan, run, threads): run for run in pending}
        for number, future in enumerate(concurrent.futures.as_completed(futures), 1):
            run = futures[future]
            try:
                future.result()
                print(f"ablation: {number} of {len(pending)}: {run.name} seed {run.seed}: {table.one_line(plan, run.read_result())}", flush=True)
            except Stopped:
                open_ones += 1
            except Exception as error:  # one run that fails must not cost the others
                failed = 1
                print(f"ablation: {run.name} seed {run.seed} failed: {error}", file=sys.stderr, flush=True)
    if open_ones:
        print(f"ablation: stopped on request, {open_ones} of {len(pending)} runs are open; the same command goes on", flush=True)
        return STOPPED_ON_REQUEST
    return failed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan")
    parser.add_argument("--work", help="default: runs/ablation/<name of the file>")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--index", type=int)
    parser.add_argument("--only", help="comma-separated names of runs")
    parser.add_argument("--list", action="store_true", help="number, name, seed, state and run folder of every run, or of that of --index")
    options = parser.parse_args()
    plan = runs.Plan(options.plan, options.work or runs.SOURCE / "runs/ablation" / pathlib.Path(options.plan).stem)
    if options.list:
        for index, run in enumerate(plan.runs):
            if options.index in (None, index):
                print(index, run.name, run.seed, "done" if run.result.exists() else "open", trained_in(run))
        return 0
    chosen = plan.runs if options.index is None else plan.runs[options.index:options.index + 1]
    if options.only:
        unknown = set(options.only.split(",")) - set(plan.names)
        if unknown:
            raise SystemExit(f"--only: no run named {', '.join(sorted(unknown))}; there are {', '.join(plan.names)}")
        chosen = [run for run in chosen if run.name in options.only.split(",")]
    if not chosen:
        raise SystemExit(f"--index {options.index}: there are {len(plan.runs)} runs, counted from 0")
    stop.catch()
    failed = execute_all(plan, [run for run in chosen if not run.result.exists()], options.jobs, options.threads)
    if options.index is None:
        print(table.markdown(plan))
    return failed


if __name__ == "__main__":
    sys.exit(main())
