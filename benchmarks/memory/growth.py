"""How do time and memory of a joint micro-step grow with its sizes?

    .venv/bin/python benchmarks/memory/growth.py [--steps 5] [--plot FILE.svg] [--data PAIRS --init STAGE1]
        after cmake --build build --target activation_memory duoflow reader_benchmark

From the small configuration (configs/quickstart_joint.yaml, here with 2 samples) one size at a time is doubled; one
thread. The exponent p of growth ~ size^p is the slope between the two largest values in logarithms: what is linear has 1,
attention's scores have 2 in the tokens. With --data and --init (the quickstart's train_pairs and stage1) ranks and data too (jobs.py).
"""

import argparse
import itertools
import math
import os
import pathlib
import subprocess

import jobs

SOURCE = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = pathlib.Path(os.environ.get("DUOFLOW_BUILD", SOURCE / "build")) / "activation_memory"
CONFIG = SOURCE / "configs" / "quickstart_joint.yaml"
SIZES = {
    "samples": ("training.batch_size_per_gpu", (1, 2, 4, 8, 16)),
    "target views": ("training.num_target_views", (1, 2, 4, 8, 16)),
    "latent tokens": ("model.transformer.n_latent_vectors", (64, 128, 256, 512, 1024)),
    "picture side": ("model.image_tokenizer.image_size", (32, 64, 128, 256)),
    "editor blocks": ("model.transformer.editor.n_layer", (1, 2, 4, 8, 16)),
    "renderer blocks": ("model.transformer.decoder_n_layer", (1, 2, 4, 8, 16)),
    "width": ("model.transformer.d", (64, 128, 256, 512)),
}


def measure(steps, *overrides):
    base = ["training.batch_size_per_gpu=2"] if not any(word.startswith("training.batch") for word in overrides) else []
    done = subprocess.run([str(PROGRAM), "--time", str(steps), str(CONFIG), *base, *overrides], capture_output=True, text=True,
                          env=os.environ | {"OMP_NUM_THREADS": "1"})
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    mib, ms = map(float, done.stdout.split())
    return mib, ms


def exponent(values, results):
    return math.log(results[-1] / results[-2]) / math.log(values[-1] / values[-2])


def polyline(values, results, column, left, colour):
    """In logarithms, relative to the first value: 200 x 200 pixels are a factor of 1024 each way."""
    points = " ".join(f"{left + 20 * math.log2(value / values[0]):.0f},{220 - 20 * math.log2(max(1, result[column] / results[0][column])):.0f}"
                      for value, result in zip(values, results))
    return f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'


def plot(path, rows):
    colours = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#17becf", "#7f7f7f", "#e377c2")
    parts = []
    for column, left, title in ((0, 40, "memory"), (1, 300, "time")):
        parts.append(f'<text x="{left}" y="14">{title}, against the size; both doubled a grid line</text>')
        parts += [f'<text x="{left + 40 * i - 4}" y="233">x{4**i}</text>' for i in range(5)]
        parts += [f'<text x="{left - 4}" y="{224 - 40 * i}" text-anchor="end">x{4**i}</text>' for i in range(5)]
        parts += [f'<path d="M{left + 20 * i} 20V220M{left} {20 * i + 20}H{left + 200}" stroke="#ddd"/>' for i in range(11)]
        parts += [polyline(values, results, column, left, colour) for (_, values, results), colour in zip(rows, colours)]
    parts += [f'<text x="525" y="{40 + 18 * i}" fill="{colour}">{name}</text>' for i, ((name, _, _), colour) in enumerate(zip(rows, colours))]
    path.write_text('<svg xmlns="http://www.w3.org/2000/svg" width="690" height="240" font-family="sans-serif" font-size="11">'
                    f'<rect width="690" height="240" fill="white"/>{"".join(parts)}</svg>\n')


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--plot", type=pathlib.Path)
    parser.add_argument("--data")
    parser.add_argument("--init")
    options = parser.parse_args()
    print("| size | values | MiB | exponent | ms | exponent |\n|---|---|---|---|---|---|")
    rows = []
    made = ((name, values, [measure(options.steps, f"{key}={value}") for value in values]) for name, (key, values) in SIZES.items())
    of_jobs = (make() for make in (lambda: jobs.ranks(options.data, options.init), jobs.shards) if options.data)
    for name, values, results in itertools.chain(made, of_jobs):
        rows.append((name, values, results))
        mib, ms = ([result[column] for result in results] for column in (0, 1))
        print(f"| {name} | {', '.join(map(str, values))} | {', '.join(f'{x:.1f}' for x in mib)} | {exponent(values, mib):.2f} | "
              f"{', '.join(f'{x:.1f}' for x in ms)} | {exponent(values, ms):.2f} |", flush=True)
    if options.plot:
        plot(options.plot, rows)


if __name__ == "__main__":
    main()
