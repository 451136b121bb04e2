"""What does ZeRO-1 (dist.zero=1) save in resident memory per rank, against what it should?

    python3 benchmarks/scaling/zero_memory.py [--ranks 1,2,4] [--d 512] [--layers 8] [--steps 3] [key=value]...

`duoflow train` on pictures of 16 x 16 pixels with a model whose weights are all that counts; a checkpoint at the end.
The moments take 8 bytes a trainable parameter, over W ranks 8/W. Peak: the most that a rank's process ever had resident
(ru_maxrss), checkpoint and start-up included; of the ranks the largest. Saved: less than without ZeRO-1 at as many
ranks; expected: 8 bytes x parameters x (1 - 1/W). More than expected is scratch of the sums, which are of whole buckets
and their gathering without ZeRO-1.
"""

import argparse
import json
import os
import pathlib
import re
import resource
import subprocess
import sys
import tempfile

from common import BUILD, TRANSFORMER, mpirun, run, table

MIB = 1 << 20
CONFIG = """
objective: reconstruction
model:
  image_tokenizer: {image_size: 16, patch_size: 8}
  env_tokenizer: {image_size: 16}
  transformer: {d_head: 64, n_latent_vectors: 8, editor: {n_layer: 1}}
training: {batch_size_per_gpu: 1, num_input_views: 2, num_target_views: 2, warmup: 0, scheduler_type: constant}
dist: {threads: 1, device: cpu}
"""


def measure(folder, command):
    """One rank: runs the command and leaves its peak in the folder."""
    code = subprocess.run(command).returncode
    rank = os.environ.get("OMPI_COMM_WORLD_RANK", "0")
    (folder / rank).write_text(json.dumps(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024))
    raise SystemExit(code)


def train(scratch, ranks, zero, options):
    """(trainable parameters, the largest of the ranks' peaks in bytes)"""
    peaks, folder = scratch / f"peaks-{ranks}-{zero}", scratch / f"run-{ranks}-{zero}"
    peaks.mkdir()
    run([*mpirun(ranks), sys.executable, __file__, "--measure", peaks, BUILD / "duoflow", "train", "--config", scratch / "config.yaml",
         "--data", scratch / "scenes", "--run", folder, f"{TRANSFORMER}d={options.d}", f"{TRANSFORMER}encoder_n_layer={options.layers}",
         f"{TRANSFORMER}decoder_n_layer={options.layers}", f"training.global_batch_size={max(map(int, options.ranks.split(',')))}",
         "training.batch_size_per_gpu=8", f"training.train_steps={options.steps}", f"dist.zero={zero}", *options.overrides])
    millions = re.search(r"([\d.]+) M trainable parameters", (folder / "log.txt").read_text()).group(1)
    found = [json.loads(path.read_text()) for path in peaks.iterdir()]
    if len(found) != ranks:
        raise SystemExit(f"{len(found)} of {ranks} ranks were measured")
    subprocess.run(["rm", "-rf", folder], check=True)
    return float(millions) * 1e6, max(found)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--ranks", default="1,2,4")
    parser.add_argument("--d", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_args()
    rows = [["ranks", "dist.zero", "M parameters", "moments of a rank MiB", "peak of a rank MiB", "saved MiB", "expected MiB"]]
    with tempfile.TemporaryDirectory(prefix="duoflow-zero-") as name:
        scratch = pathlib.Path(name)
        (scratch / "config.yaml").write_text(CONFIG)
        run([BUILD / "duoflow", "synth", "--out", scratch / "scenes", "--size", 16, "--views", 4, "--lights", 4, "--objects", 1, "--spp", 1,
             "--env-height", 16])
        for ranks in map(int, options.ranks.split(",")):
            plain = 0
            for zero in (0, 1):
                parameters, peak = train(scratch, ranks, zero, options)
                plain = plain or peak
                moments = 8 * parameters / (ranks if zero else 1)
                saved = [f"{(plain - peak) / MIB:.0f}", f"{(8 * parameters - moments) / MIB:.0f}"] if zero else ["", ""]
                rows.append([ranks, zero, f"{parameters / 1e6:.2f}", f"{moments / MIB:.0f}", f"{peak / MIB:.0f}", *saved])
    print(table(rows))


if sys.argv[1:2] == ["--measure"]:
    measure(pathlib.Path(sys.argv[2]), sys.argv[3:])
main()
