"""How does `duoflow train` scale over ranks, with the global batch fixed (strong) and with the batch per rank fixed (weak)?

    python3 benchmarks/scaling/strong_weak.py --data PAIRS --init STAGE1 [--config F] [--ranks 1,2] [--samples 16] [--steps 30]
        [--launcher "mpirun --hostfile H --bind-to core"] [key=value]...

PAIRS, STAGE1: pair shards and the run folder that encoded them (the quickstart's train_pairs and stage1, or the
end-to-end tests' samples). One thread a rank unless an override says otherwise. Medians over the steps of metrics.jsonl, the
first three left out; step_ms is the slowest rank's. Efficiency: samples/s over ranks x samples/s of the first count.
"""

import argparse
import pathlib
import shlex
import tempfile

from common import BUILD, CONFIG, median_of_metrics, run, table

parser = argparse.ArgumentParser()
parser.add_argument("--data", required=True)
parser.add_argument("--init", required=True)
parser.add_argument("--config", default=CONFIG)
parser.add_argument("--ranks", default="1,2")
parser.add_argument("--samples", type=int, default=16, help="global batch of strong scaling; a rank's share of it at the first count in weak scaling")
parser.add_argument("--steps", type=int, default=30)
parser.add_argument("--launcher", default="mpirun --oversubscribe --bind-to none")
parser.add_argument("overrides", nargs="*")
options = parser.parse_args()
counts = [int(count) for count in options.ranks.split(",")]

rows = [["scaling", "ranks", "samples per step", "step ms", "samples/s", "waiting for communication ms", "efficiency"]]
with tempfile.TemporaryDirectory(prefix="duoflow-scaling-") as scratch:
    for kind in ("strong", "weak"):
        base = None
        for ranks in counts:
            batch = options.samples if kind == "strong" else options.samples // counts[0] * ranks
            folder = pathlib.Path(scratch) / f"{kind}-{ranks}"
            # One micro-step on every rank: else the editors run forward twice, and fewer ranks look slower than they are.
            run([*shlex.split(options.launcher), "-n", ranks, BUILD / "duoflow", "train", "--config", options.config, "--data", options.data,
                 "--run", folder, "--resume", "never", f"training.init_from={options.init}", f"training.global_batch_size={batch}",
                 f"training.batch_size_per_gpu={-(-batch // ranks)}", f"training.train_steps={options.steps}", "training.print_every=1",
                 "dist.threads=1", *options.overrides])
            rate = median_of_metrics(folder, "samples_per_s")
            base = base or rate / ranks
            rows.append([kind, ranks, batch, f"{median_of_metrics(folder, 'step_ms'):.1f}", f"{rate:.1f}",
                         f"{median_of_metrics(folder, 'comm_wait_ms'):.2f}", f"{rate / ranks / base:.1%}"])
print(table(rows))
