"""What does a checkpoint in the background cost a training?

    python3 benchmarks/checkpoint/overhead.py [--rounds 3] [--steps 240] [--every 40]

The quickstart's second stage with a wider editor, two mpirun ranks, saving every so many steps. What a save costs is how
much longer than the run's median step the steps are in which it is begun and written (WINDOW of them, more than it takes
to be on disk), summed; divided by 60 s it is the share of a run that saves once a minute. Medians and spread over all
saves of all rounds: whole runs differ by more than what is measured. Standard library only; needs build/duoflow.
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
WINDOW = 10  # steps
# Ten times the quickstart's state, so that a save is more than noise.
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


def costs_of_saves(work, name, steps, every):
    """ms beyond the median step, of every save but the first, which makes its memory, and the last, which ends the run."""
    said = run("mpirun", "-n", 2, "--oversubscribe", "--bind-to", "none", DUOFLOW, "train", "--config", SOURCE / "configs/quickstart_joint.yaml",
               "--data", work / "pairs", "--run", work / name, f"training.init_from={work / 'stage1'}", f"training.train_steps={steps}",
               "training.print_every=1", f"training.checkpoint_every={every}", "training.keep_last=1", "data.exclude_lights=none",
               "data.target_frames=0-15", "dist.threads=1", *WIDE)
    times = [json.loads(line)["step_ms"] for line in (work / name / "metrics.jsonl").read_text().splitlines()]
    median = statistics.median(times)
    saves = range(2 * every, steps, every)  # the save follows the step of this number, which is the line before times[save]
    costs = [sum(times[save:save + WINDOW]) - WINDOW * median for save in saves]
    quiet = [sum(times[save - WINDOW:save]) - WINDOW * median for save in saves]  # as many steps before it: what noise looks like
    return costs, quiet, median, [line.split("checkpoint ")[1].split("(")[1] for line in said.splitlines() if "training held " in line]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--every", type=int, default=40)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="duoflow-overhead-") as folder:
        work = pathlib.Path(folder)
        make_pairs(work)
        costs, quiet = [], []
        for number in range(options.rounds):
            more, before, median, said = costs_of_saves(work, f"saving-{number}", options.steps, options.every)
            costs += more
            quiet += before
            print(f"round {number}: median step {median:.1f} ms; saves: {'; '.join(said)}", flush=True)
        for name, values in (("a save costs", costs), ("as many steps before it", quiet)):
            print(f"{name}: {statistics.median(values):.0f} ms (of {len(values)}: {min(values):.0f} to {max(values):.0f}), at one a minute "
                  f"{100 * statistics.median(values) / 60000:.2f} % of the run")


if __name__ == "__main__":
    main()
