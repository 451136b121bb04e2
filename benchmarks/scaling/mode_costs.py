"""What does the exchange of the loss statistics cost, against a blocking all-reduce of scalars, and what does reproducible mode?

    python3 benchmarks/scaling/mode_costs.py --data PAIRS --init STAGE1 [--steps 30] [--rounds 3]

Two ranks on this host, one thread each. Statistics (step_profile): milliseconds that handing over and awaiting them take
of the step, hidden behind the renderer's backward or at once; medians. Reproducible mode (`duoflow train`, S = 8, four
samples a virtual shard, so 16 a rank) against the default mode with the same 4 micro-steps, and against the default
with all 16 in one micro-step; rounds alternate, the median of each is taken.
"""

import argparse
import pathlib
import statistics
import tempfile

from common import BUILD, CONFIG, QUICKSTART, median_of_metrics, mpirun, profile, run, table

parser = argparse.ArgumentParser()
parser.add_argument("--data", required=True)
parser.add_argument("--init", required=True)
parser.add_argument("--config", default=CONFIG)
parser.add_argument("--steps", type=int, default=30)
parser.add_argument("--rounds", type=int, default=3)
options = parser.parse_args()

rows = [["statistics", "step ms", "handing over ms", "waiting ms", "share of the step"]]
kinds = ("hidden", "blocking")
found = {kind: [] for kind in kinds}
for _ in range(options.rounds):
    for kind in kinds:
        found[kind].append(profile(mpirun(2), QUICKSTART, "--statistics", kind, steps=options.steps)["filled"])
for kind in kinds:
    step, send, wait = (statistics.median(one[key] for one in found[kind]) for key in ("step_ms", "send_ms", "await_ms"))
    rows.append([kind, f"{step:.2f}", f"{send:.4f}", f"{wait:.4f}", f"{(send + wait) / step:.3%}"])
print(table(rows), "\n")

MODES = {
    "default, 1 micro-step of 16": ["training.batch_size_per_gpu=16"],
    "default, 4 micro-steps of 4": ["training.batch_size_per_gpu=4"],
    "reproducible, S = 8": ["training.batch_size_per_gpu=16", "dist.reproducible=true", "dist.virtual_shards=8"],
}
steps = {name: [] for name in MODES}
with tempfile.TemporaryDirectory(prefix="duoflow-costs-") as scratch:
    for round_number in range(options.rounds):
        for number, (name, overrides) in enumerate(MODES.items()):
            folder = pathlib.Path(scratch) / f"{round_number}-{number}"
            run([*mpirun(2), BUILD / "duoflow", "train", "--config", options.config, "--data", options.data, "--run", folder,
                 "--resume", "never", f"training.init_from={options.init}", "training.global_batch_size=32",
                 f"training.train_steps={options.steps}", "training.print_every=1", "dist.threads=1", *overrides])
            steps[name].append(median_of_metrics(folder, "step_ms"))
medians = {name: statistics.median(values) for name, values in steps.items()}
rows = [["mode", "step ms", *(f"over {name}" for name in list(MODES)[:2])]]
for name, value in medians.items():
    rows.append([name, f"{value:.1f}", *(f"{value / medians[other]:.2f}" for other in list(MODES)[:2])])
print(table(rows))
