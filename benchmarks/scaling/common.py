"""What the scaling benchmarks share: how programs are started on one host or on two, and the sizes that are measured.

Standard library only: any python3 runs them. Programs: cmake --build build --target duoflow collectives step_profile
"""

import json
import os
import pathlib
import statistics
import subprocess

SOURCE = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("DUOFLOW_BUILD", SOURCE / "build"))
TWO_HOSTS = SOURCE / "tests/launch/e2e/two_hosts.sh"
ENVIRONMENT = os.environ | {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
CONFIG = SOURCE / "configs/quickstart_joint.yaml"
TRANSFORMER = "model.transformer."

# The quickstart's pictures and tokens, renderer and editor trained: gradients come during the whole backward. On two
# cores and links of 1 Gbit/s (wide) and 100 Mbit/s (narrow) a step computes about as long as it sends.
BOTH = "training.freeze_reconstructor_renderer=false"
WIDE = [f"{TRANSFORMER}d=256", f"{TRANSFORMER}editor.n_layer=4", "training.batch_size_per_gpu=6", "training.global_batch_size=12", BOTH]
QUICKSTART = ["training.batch_size_per_gpu=16", "training.global_batch_size=32"]
NARROW = [*QUICKSTART, BOTH]


def run(command, timeout=300):
    command = [str(word) for word in command]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=timeout)
    if done.returncode != 0:
        raise SystemExit(f"exit code {done.returncode}: {' '.join(command)}\n{done.stdout[-1000:]}{done.stderr[-2000:]}")
    return done.stdout


def mpirun(ranks):
    return ["mpirun", "-n", ranks, "--oversubscribe", "--bind-to", "none"]


def two_hosts(rate):
    """Two ranks, one on each of two hosts, over a link of `rate` (None: not shaped)."""
    return [TWO_HOSTS, "--slots", "1", *(["--rate", rate] if rate else []), "mpirun", "-n", "2", "--bind-to", "none"]


def profile(launcher, sizes, *options, steps=12):
    """step_profile's JSON on one thread a rank; `options`: its own and config overrides."""
    own = [word for word in options if "=" not in word]
    overrides = [word for word in options if "=" in word]
    out = run([*launcher, BUILD / "step_profile", "--steps", steps, *own, CONFIG, "dist.threads=1", *sizes, *overrides])
    return json.loads(out)


def megabit(rate):
    """'1gbit' -> 1000."""
    return float(rate.removesuffix("gbit")) * 1000 if rate.endswith("gbit") else float(rate.removesuffix("mbit"))


def median_of_metrics(run_folder, key, skip=3):
    lines = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
    return statistics.median(line[key] for line in lines[skip:])


def table(rows):
    """Markdown; the first row is the head."""
    rows = [[str(cell) for cell in row] for row in rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in [rows[0], ["---"] * len(rows[0]), *rows[1:]])
