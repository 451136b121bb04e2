#!/usr/bin/env python3
"""Kills a rank by SIGKILL at its n-th system call of a kind while it writes checkpoints, with strace and without a hook of ours;
then resumes the run and compares it with one that was never touched: weights, optimizer state and log have to be the same bytes,
nothing may be rejected, and no temporary name may stay.

    .venv/bin/python tests/launch/strace_kill.py [--calls rename,fsync,..] [--most N]

Needs strace and the right to trace. --most: calls of a kind that are tried for each of two ranks (default 12), spread over those
that a whole run makes. One line a kill, then a summary; exit code 1 when anything differs. DUOFLOW_BINARY as for the end-to-end
tests, whose samples it makes anew."""

import argparse
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "e2e"))

import common  # noqa: E402
from common import MEASURED, checkpoint, launch, metrics, train_arguments  # noqa: E402

RANKS = 2
# Checkpoints begin at steps 2 and 4 while training goes on; the last, at 5, is waited for.
OPTIONS = ("training.train_steps=5", "training.checkpoint_every=2", "training.keep_last=2", "training.ema_decay=0.9")
KEPT = ["latest", "step_000000004", "step_000000005"]
KINDS = {"rename": "rename,renameat,renameat2", "fsync": "fsync,fdatasync", "mkdir": "mkdir,mkdirat", "unlink": "unlink,unlinkat,rmdir",
         "pwrite": "pwrite64,pwritev", "write": "write,writev", "truncate": "ftruncate,fallocate", "open": "openat,open"}


def train(run, rank=None, options=()):
    """Under mpirun, one rank under strace; its exit code and what strace wrote."""
    log = run.parent / "strace.txt"
    log.unlink(missing_ok=True)
    program = ["mpirun", "-n", str(RANKS), "bash", "-c",
               f'if [ "$OMPI_COMM_WORLD_RANK" = {rank} ]; then exec strace -f -o {log} {" ".join(options)} "$0" "$@"; else exec "$0" "$@"; fi',
               str(common.PROGRAM), *map(str, train_arguments("joint", run, *OPTIONS))]
    done = subprocess.run(program, env=common.ENVIRONMENT, capture_output=True, text=True, timeout=300)
    return done.returncode, log.read_text(errors="replace") if log.exists() else ""


def contents(run):
    lines = [{key: value for key, value in line.items() if key not in MEASURED} for line in metrics(run)]
    return lines, {path.name: path.read_bytes() for path in checkpoint(run, 5).glob("*.safetensors")}


def difference(run, expected):
    """After a resume: "" or what is not as it has to be."""
    resumed = launch(RANKS, *train_arguments("joint", run, *OPTIONS))
    left = sorted(path.name for path in (run / "checkpoints").iterdir())
    if "rejected" in resumed.err:
        return "a checkpoint with a final name was rejected"
    if contents(run) != expected:
        return "other bytes"
    return "" if left == KEPT else f"left behind: {[name for name in left if name not in KEPT]}"


def moments(run, rank, kind, most):
    """Of the calls that a whole run makes from its first checkpoint folder on: `most` of them, as counts from its start."""
    _, text = train(run, rank, ("-e", f"trace={KINDS[kind]},mkdir,mkdirat"))
    calls = [line for line in text.splitlines() if re.match(rf"\d+ +({KINDS[kind].replace(',', '|')})\(", line)]
    first = next((i for i, line in enumerate(calls) if "/checkpoints" in line), None)
    if first is None and kind in ("write", "fsync", "truncate", "pwrite"):  # they name no path
        first = 0
    if first is None:
        return []
    numbers = range(first + 1, len(calls) + 1)
    step = max(1, -(-len(numbers) // most))
    return [*numbers[::step]]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", default=",".join(KINDS))
    parser.add_argument("--most", type=int, default=12)
    arguments = parser.parse_args()
    if shutil.which("strace") is None:
        sys.exit("strace_kill: error: there is no strace here; install it")
    kills = differing = 0
    with tempfile.TemporaryDirectory(prefix="duoflow-strace-") as folder:
        folder = pathlib.Path(folder)
        whole = folder / "whole"
        launch(RANKS, *train_arguments("joint", whole, *OPTIONS))
        expected = contents(whole)
        for rank in range(RANKS):
            for kind in arguments.calls.split(","):
                for count in moments(folder / f"count-{rank}-{kind}", rank, kind, arguments.most):
                    run = folder / f"{rank}-{kind}-{count}"
                    code, _ = train(run, rank, ("-e", f"trace={KINDS[kind]}", "-e", f"inject={KINDS[kind]}:signal=SIGKILL:when={count}"))
                    if code == 0:
                        continue  # threads take turns otherwise in every run: this call was not reached
                    kills += 1
                    problem = difference(run, expected)
                    differing += problem != ""
                    print(f"rank {rank} at {kind} {count}: {problem or 'the same bytes'}", flush=True)
                    shutil.rmtree(run)
    print(f"{kills} kills, {differing} with a difference")
    sys.exit(1 if differing or not kills else 0)


if __name__ == "__main__":
    main()
