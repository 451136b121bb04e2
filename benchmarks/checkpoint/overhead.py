"""What does a checkpoint in the background cost a training?

    python3 benchmarks/checkpoint/overhead.py [--rounds 4] [--steps 240] [--every 60]

The quickstart's second stage on random pairs of its sizes, two mpirun ranks: runs that save every so many steps and runs
that save at their end alone, in turns. The sum of the step times of the one less that of the other, without each run's
first and last steps, is what the saves cost; divided by 60 s it is the share of a run that saves once a minute. Standard
library only; needs build/duoflow.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import tempfile

SOURCE = pathlib.Path(__file__).resolve().parents[2]
DUOFLOW = pathlib.Path(os.environ.get("DUOFLOW_BUILD", SOURCE / "build")) / "duoflow"
ENVIRONMENT = os.environ | {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
WARM_UP = 20
# Where a step is one of 60 in a minute, a state of 8 M parameters is 100 MB.
WIDE = ["model.transformer.d=384", "model.transformer.editor.n_layer=4", "training.batch_size_per_gpu=2", "training.global_batch_size=4"]


def run(*words):
    done = subprocess.run([str(word) for word in words], env=ENVIRONMENT, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"exit code {done.returncode}: {' '.join(map(str, words))}\n{done.stderr[-2000:]}")
    return done.stderr


def make_pairs(work):
    run(DUOFLOW, "synth", "--out", work / "scenes", "--objects", 1, "--lights", 6, "--views", 16, "--size", 64, "--spp", 4, "--env-height", 32)
    run(DUOFLOW, "train", "--config", SOURCE / "configs/quickstart_reconstruction.yaml", "--data", work / "scenes", "--run", work / "stage1",
        "training.train_steps=2", "data.exclude_lights=none", "data.target_frames=0-15", "model.transformer.d=384")
    run(DUOFLOW, "encode", "--checkpoint", work / "stage1", "--data", work / "scenes", "--out", work / "pairs")


def step_times(work, name, steps, every):
    said = run("mpirun", "-n", 2, "--oversubscribe", "--bind-to", "none", DUOFLOW, "train", "--config", SOURCE / "configs/quickstart_joint.yaml",
               "--data", work / "pairs", "--run", work / name, f"training.init_from={work / 'stage1'}", f"training.train_steps={steps}",
               "training.print_every=1", f"training.checkpoint_every={every}", "training.keep_last=1", "data.exclude_lights=none",
               "data.target_frames=0-15", "dist.threads=1", *WIDE)
    lines = [json.loads(line) for line in (work / name / "metrics.jsonl").read_text().splitlines()]
    held = [line.split("training held ")[1].split(",")[0] for line in said.splitlines() if "training held " in line]
    size = [line.split(", ")[2] for line in said.splitlines() if "training held " in line]
    return [line["step_ms"] for line in lines[WARM_UP:]], held, size[-1] if size else "?"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--every", type=int, default=60)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="duoflow-overhead-") as folder:
        work = pathlib.Path(folder)
        make_pairs(work)
        costs, medians = [], []
        for number in range(options.rounds):
            saving, held, size = step_times(work, f"saving-{number}", options.steps, options.every)
            bare, _, _ = step_times(work, f"bare-{number}", options.steps, 10 * options.steps)
            saves = len(range(WARM_UP + 1, options.steps)) // options.every
            costs.append((sum(saving) - sum(bare)) / saves)
            medians.append((statistics.median(saving), statistics.median(bare)))
            print(f"round {number}: median step {medians[-1][0]:.1f} ms with saves, {medians[-1][1]:.1f} without; a save of {size} costs "
                  f"{costs[-1]:.0f} ms, of them held {', '.join(held)}", flush=True)
        cost = statistics.median(costs)
        print(f"a save costs {cost:.0f} ms ({min(costs):.0f} to {max(costs):.0f}): at one a minute {100 * cost / 60000:.2f} % of the run")


if __name__ == "__main__":
    main()
