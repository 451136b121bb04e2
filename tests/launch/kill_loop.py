#!/usr/bin/env python3
"""Kills random ranks of a training at random moments, again and again, and compares what becomes of it with a run that
was never touched: weights, optimizer state and log have to be the same bytes.

    .venv/bin/python tests/launch/kill_loop.py [--kills 100] [--seed S] [--ranks 2] [--every 5] [--keep DIR] [key=value]...

The training is a small one, under launch/run.sh and mpirun, with a checkpoint every --every steps. One kill in four
comes within --span seconds after the ranks' start, while they load; the others within --span seconds after the first
step, while they train or write. After the last kill the run is stopped by SIGUSR2, goes on for some steps, and ends.
One line a kill, then a summary; exit code 1 when anything differs. A seed gives the same ranks and delays again, though
not the same steps.
key=value goes to the config of both runs, such as dist.zero=1. DUOFLOW_BINARY as for the end-to-end tests.
"""

import argparse
import os
import pathlib
import random
import signal
import statistics
import sys
import tempfile
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "e2e"))

from common import MEASURED, checkpoint, checkpoint_steps, launch, metrics, needs_program, tensors, train_arguments  # noqa: E402
from supervised import Supervised, is_alive, restarts  # noqa: E402

ENDLESS = 1000000000
STEPS_AFTER = 7  # of the last part, which ends by itself: no multiple of --every
LOST_S = 120  # a start, a stop or an end that takes longer than this is a failure of the supervisor


def last_step(run):
    return max([0, *checkpoint_steps(run)])


def log_state(run):
    """Changes with every step (and when a resume cuts the log)."""
    try:
        state = (run / "metrics.jsonl").stat()
    except FileNotFoundError:
        return None
    return state.st_size, state.st_mtime_ns


def new_ranks(job, count, gone):
    """All ranks of the attempt after the one of the processes `gone`."""
    found = {}

    def started():
        nonlocal found
        found = job.ranks()
        return len(found) == count and not set(found.values()) & gone

    job.wait_until(started, f"{count} ranks", timeout=LOST_S)
    return found


class Killer:
    def __init__(self, options):
        self.options = options
        self.random = random.Random(options.seed)
        self.killed = [0] * options.ranks
        self.ended_s, self.again_s, self.saved = [], [], 0

    def kill(self, job, run, number, ranks):
        """One kill: the processes of the attempt that it ended."""
        rank, early, moment = self.random.randrange(self.options.ranks), self.random.random() < 0.25, self.random.uniform(0, self.options.span)
        if not early:
            trained = log_state(run)
            job.wait_until(lambda: log_state(run) != trained, "the first step", timeout=LOST_S)
        time.sleep(moment)
        writing = any((run / "checkpoints").glob("*.tmp-*"))
        before = last_step(run)
        os.kill(ranks[rank], signal.SIGKILL)
        begin = time.monotonic()
        job.wait_until(lambda: not any(map(is_alive, ranks.values())), "the end of the attempt", timeout=LOST_S)
        ended = time.monotonic() - begin
        gone = set(ranks.values())
        ranks = new_ranks(job, self.options.ranks, gone)
        again = time.monotonic() - begin
        self.killed[rank] += 1
        self.ended_s.append(ended)
        self.again_s.append(again)
        self.saved += writing
        print(f"kill {number}/{self.options.kills}: rank {rank} {moment:.2f} s after its {'start' if early else 'first step'}, newest checkpoint {before}"
              f"{', while one was written' if writing else ''}; all ended after {ended:.2f} s, started again after {again:.2f} s", flush=True)
        return ranks

    def summary(self, run, seconds):
        attempts = restarts(run)
        print(f"kill_loop: seed {self.options.seed}: {sum(self.killed)} kills (by rank: {', '.join(map(str, self.killed))}; {self.saved} while a checkpoint was "
              f"written), {len(attempts)} attempts, {metrics(run)[-1]['step']} steps, {seconds:.0f} s")
        for name, values in (("kill to the end of all ranks", self.ended_s), ("kill to the ranks' next start", self.again_s)):
            print(f"kill_loop: {name}: median {statistics.median(values):.2f} s, at most {max(values):.2f} s")


def train(run, options):
    """The run with the kills; its number of steps."""
    def arguments(steps):
        return train_arguments("joint", run, f"training.checkpoint_every={options.every}", f"training.train_steps={steps}", *options.overrides)

    begin, killer = time.monotonic(), Killer(options)
    # A kill may come before any progress, several times in a row: as many attempts as there are kills.
    with Supervised.training(options.ranks, arguments(ENDLESS), "--delays", ",".join(["0.1"] * (options.kills + 1))) as job:
        ranks = new_ranks(job, options.ranks, set())
        for number in range(1, options.kills + 1):
            ranks = killer.kill(job, run, number, ranks)
        before = last_step(run)
        job.wait_until(lambda: last_step(run) > before, "a checkpoint after the last kill", timeout=LOST_S)
        job.signal(signal.SIGUSR2)
        outcome = job.outcome(LOST_S)
    if outcome.code != 75:
        raise AssertionError(f"exit code 75 expected after SIGUSR2\n{outcome}")
    steps = last_step(run) + STEPS_AFTER
    with Supervised.training(options.ranks, arguments(steps)) as job:
        outcome = job.outcome(LOST_S)
    if outcome.code != 0:
        raise AssertionError(f"exit code 0 expected at the end\n{outcome}")
    killer.summary(run, time.monotonic() - begin)
    return steps


def differences(run, whole, steps):
    """What differs between the final checkpoints and the logs of two runs; prints what was compared."""
    found = []
    for part in ("model", "state"):
        ours, theirs = tensors(checkpoint(run, steps), part), tensors(checkpoint(whole, steps), part)
        found += [f"{part}: {name} is in one of the two" for name in sorted(ours.keys() ^ theirs.keys())]
        found += [f"{part}: {name} differs" for name in sorted(ours.keys() & theirs.keys()) if ours[name].tobytes() != theirs[name].tobytes()]
        print(f"kill_loop: {part}: {len(ours)} tensors, {sum(value.nbytes for value in ours.values())} bytes compared")

    def comparable(folder):
        return [{key: value for key, value in line.items() if key not in MEASURED} for line in metrics(folder)]

    ours, theirs = comparable(run), comparable(whole)
    print(f"kill_loop: log: {len(theirs)} lines compared")
    if len(ours) != len(theirs):
        found.append(f"log: {len(ours)} lines, {len(theirs)} in the run without kills")
    return found + [f"log: step {theirs_line['step']} differs" for ours_line, theirs_line in zip(ours, theirs) if ours_line != theirs_line][:5]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--every", type=int, default=5, help="steps between checkpoints")
    parser.add_argument("--span", type=float, default=1.0, help="seconds within which a kill comes")
    parser.add_argument("--keep", type=pathlib.Path, help="an empty or new folder for both runs, kept; else a temporary one")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    options = parser.parse_args()
    try:
        needs_program()
    except unittest.SkipTest as reason:
        print(f"skipped: {reason}")
        return 0
    with tempfile.TemporaryDirectory(prefix="duoflow-kill-loop-") as scratch:
        folder = options.keep or pathlib.Path(scratch)
        if options.keep and options.keep.exists() and any(options.keep.iterdir()):
            parser.error(f"--keep {options.keep} is not empty, give another folder")
        run, whole = folder / "killed", folder / "whole"
        steps = train(run, options)
        launch(options.ranks, *train_arguments("joint", whole, f"training.checkpoint_every={ENDLESS}", f"training.train_steps={steps}", *options.overrides),
               timeout=3600)
        found = differences(run, whole, steps)
    print(f"kill_loop: final weights, optimizer state and log of {steps} steps: {'; '.join(found) if found else 'equal to the run without kills'}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
