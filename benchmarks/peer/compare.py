"""duoflow's joint training step against the same step in PyTorch, in turns on this machine: ratios with their spread.

    .venv/bin/python benchmarks/peer/compare.py [--config quickstart|small|FILE] [--precision bf16|fp32] [--ranks 1,2]
        [--variants eager,eager-matmul,compile] [--steps 30] [--repeats 5] [--device cpu|cuda] [--quick]
        [--work FOLDER] [KEY=VALUE]..

small: the quickstart's config at width 192 and 256 latents. FILE: a joint config that gives the sizes of its tokenizers,
training.global_batch_size and train_steps, or has them given by KEY=VALUE. A variant is eager or compile, then -matmul (two
products and a softmax instead of scaled_dot_product_attention) and -kept (no work on tokens of the last blocks that nobody
reads) if wanted. One thread a rank, the same global batch in one micro-step of every rank. --quick: quickstart, bf16, two
ranks, eager and eager-matmul, few steps; --steps and --repeats can still be given. With --device cuda name the GPU build in
DUOFLOW_BINARY. Exit code 1: a program failed, or the peer's steps are not duoflow's.

A step's time is the slowest rank's. duoflow's has everything in it: reading the batch, rays, statistics, skip policy, its
log line. The peer holds its batch in memory, made ready, and logs nothing.
"""

import argparse
import json
import os
import pathlib
import platform
import re
import shutil
import statistics
import sys

import yaml

import inputs

QUICKSTART = inputs.SOURCE / "configs" / "quickstart_joint.yaml"
SIZES = {"quickstart": [], "small": ["model.transformer.d=192", "model.transformer.n_latent_vectors=256"]}


def parse(words):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="quickstart")
    parser.add_argument("--precision", default="bf16", choices=("bf16", "fp32"))
    parser.add_argument("--ranks", default=None, help="default 1,2; 2 with --quick")
    parser.add_argument("--variants", default=None, help="default eager,eager-matmul,compile; the first two with --quick")
    parser.add_argument("--steps", type=int, default=None, help="timed steps of a run; default 30, 12 with --quick")
    parser.add_argument("--warm-up", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=None, help="default 5, 2 with --quick")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--work", type=pathlib.Path, default=inputs.SOURCE / "runs" / "peer")
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_intermixed_args(words)
    defaults = {"ranks": "2", "variants": "eager,eager-matmul", "steps": 12, "repeats": 2} if arguments.quick else \
        {"ranks": "1,2", "variants": "eager,eager-matmul,compile", "steps": 30, "repeats": 5}
    for key, value in defaults.items():
        if getattr(arguments, key) is None:
            setattr(arguments, key, value)
    arguments.ranks = [int(word) for word in arguments.ranks.split(",")]
    arguments.variants = arguments.variants.split(",")
    return arguments


class Case:
    """One config at one precision: its files, and runs of both programs on them."""

    def __init__(self, arguments):
        self.arguments = arguments
        named = arguments.config in SIZES
        self.overrides = [*SIZES.get(arguments.config, []), *arguments.overrides]
        config = QUICKSTART if named else pathlib.Path(arguments.config)
        shape = "-".join(word.rsplit(".", 1)[-1].replace("/", "_") for word in arguments.overrides)
        self.folder = arguments.work / "-".join(filter(None, (config.stem if not named else arguments.config, shape)))
        self.pairs, self.weights = self.folder / "pairs", self.folder / "weights.safetensors"
        self.reference = self.folder / f"reference-{arguments.precision}.safetensors"
        self.prepare(config)

    def prepare(self, config):
        samples = inputs.given(config, self.overrides, "training.global_batch_size")
        overrides = [*self.overrides, *inputs.VIEWS, *inputs.SAME, f"dist.device={self.arguments.device}"]
        inputs.make_pairs(self.folder, config, overrides, samples)
        self.config = inputs.effective_config(config, self.pairs, self.folder / "effective", overrides)
        self.config["training"].update(global_batch_size=samples, use_amp=self.arguments.precision == "bf16", print_every=1)
        inputs.write_weights(self.weights, self.config, self.folder / "stage1", self.pairs)
        inputs.write_reference(self.reference, self.config_file(1), self.weights, self.pairs)

    def config_file(self, ranks):
        training = self.config["training"]
        if training["global_batch_size"] % ranks:
            raise SystemExit(f"compare: {ranks} ranks do not divide the global batch of {training['global_batch_size']}, choose other ranks")
        path = self.folder / f"config-{self.arguments.precision}-{ranks}.yaml"
        path.write_text(yaml.safe_dump(self.config | {"training": training | {"batch_size_per_gpu": training["global_batch_size"] // ranks}}))
        return path

    def time_duoflow(self, ranks):
        """(median milliseconds of a step, peak MiB of a rank)"""
        run, steps = self.folder / "run", self.arguments.warm_up + self.arguments.steps
        shutil.rmtree(run, ignore_errors=True)
        inputs.mpirun(ranks, inputs.PROGRAM, "train", "--config", self.config_file(ranks), "--data", self.pairs, "--run", run,
                      "--resume", "never", f"training.train_steps={steps}", f"training.init_from={self.weights}")
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        if len(lines) != steps or any(line["skipped"] for line in lines):
            raise SystemExit(f"compare: {run}/metrics.jsonl has {len(lines)} lines or skipped steps ({steps} updates were to be timed)")
        resident = re.search(r"peak resident memory of a rank: (\d+) MiB", (run / "log.txt").read_text())[1]
        peak = lines[-1]["gpu_mem_mib"] if self.arguments.device == "cuda" else float(resident)
        return statistics.median(line["step_ms"] for line in lines[self.arguments.warm_up :]), peak

    def time_peer(self, ranks, variant):
        """(median milliseconds of a step, peak MiB of a rank, MiB before the model was made, differences from duoflow)"""
        result = inputs.peer(ranks, "--config", self.config_file(ranks), "--pairs", self.pairs, "--weights", self.weights, "--reference",
                             self.reference, "--variant", variant, "--steps", self.arguments.steps, "--warm-up", self.arguments.warm_up,
                             "--device", self.arguments.device, cache=self.arguments.work / "compiled")
        return statistics.median(result["step_ms"]), result["peak_mib"], result["start_mib"], result["differences"]


def spread(values):
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def compare(case, ranks, arguments):
    """Prints the table's rows of one rank count: in every repeat all programs run once, one after another. Returns a line
    on how closely they agree."""
    ours, theirs = [], {variant: [] for variant in arguments.variants}
    for _ in range(arguments.repeats):
        ours.append(case.time_duoflow(ranks))
        for variant in arguments.variants:
            theirs[variant].append(case.time_peer(ranks, variant))
    middle = lambda runs, column: statistics.median(run[column] for run in runs)
    print(f"| {ranks} | duoflow | {middle(ours, 0):.1f} | | {middle(ours, 1):.0f} | |", flush=True)
    for variant, runs in theirs.items():
        speed = [their[0] / our[0] for our, their in zip(ours, runs)]
        memory = [our[1] / their[1] for our, their in zip(ours, runs)]
        print(f"| {ranks} | PyTorch {variant} | {middle(runs, 0):.1f} | {spread(speed)} | {middle(runs, 1):.0f} ({middle(runs, 2):.0f} at start) "
              f"| {spread(memory)} |", flush=True)
    worst = [max(column) for column in zip(*(run[3] for runs in theirs.values() for run in runs))]
    return "largest relative difference from duoflow: of a loss {:.1e}, of a gradient norm {:.1e}, of a gradient {:.1e}".format(*worst)


def main(words):
    arguments = parse(words)
    try:
        case = Case(arguments)
        batch = case.config["training"]["global_batch_size"]
        print(f"{inputs.processor()}, {os.cpu_count()} cores, Python {platform.python_version()}, torch {inputs.torch.__version__}; "
              f"{' '.join([arguments.config, *arguments.overrides])} in {arguments.precision}, {batch} samples a step, one thread a rank; "
              f"{arguments.repeats} turns of {arguments.steps} steps; load before {os.getloadavg()[0]:.1f}\n")
        print("| ranks | program | step ms | PyTorch's time / duoflow's (min to max) | peak MiB of a rank | duoflow's memory / PyTorch's |")
        print("|---|---|---|---|---|---|")
        agreements = {ranks: compare(case, ranks, arguments) for ranks in arguments.ranks}
        print()
        for ranks, text in agreements.items():
            print(f"{ranks} rank(s), {text}")
    except inputs.ProgramFailed as failure:
        print(f"compare: {failure}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
