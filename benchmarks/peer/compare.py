"""duoflow's joint training step against the same step in PyTorch, in turns on this machine: ratios with their spread.

    .venv/bin/python benchmarks/peer/compare.py [--config quickstart|small|FILE] [--precision bf16|fp32] [--ranks 1,2]
        [--variants eager,eager-matmul,compile] [--steps 30] [--repeats 5] [--device cpu|cuda] [--quick] [--stay] [--agreement]
        [--attention measured|library|cudnn|flash|efficient|matmul] [--pairs FOLDER --stage1 RUN] [--work FOLDER] [KEY=VALUE]..

small: the quickstart's config at width 192 and 256 latents. FILE: a joint config that gives the sizes of its tokenizers and
training.train_steps, or has them given by KEY=VALUE. A variant is eager or compile, then -matmul (two products and a softmax
instead of scaled_dot_product_attention) and -kept (no work on tokens of the last blocks that nobody reads) if wanted. One
thread a rank, the same global batch in one micro-step of every rank: training.global_batch_size, without it
training.batch_size_per_gpu of the largest number of ranks. --quick: quickstart, bf16, two ranks, eager and eager-matmul, few
steps; --steps and --repeats can still be given. --attention: the peer's; by default what peer.py says. --stay, for one rank:
each variant is one process that waits between its turns, so torch.compile works once; one that is not ready within
--start-limit seconds is left out. --agreement: no times. --pairs, --stage1:
pairs that are there, and the run that encoded them, instead of new ones. With --device cuda name the GPU build in
DUOFLOW_BINARY. Exit code 1: a program failed, or the peer's steps are not duoflow's; the other variants are still timed.

A step's time is the slowest rank's. duoflow's has everything in it: reading the batch, rays, statistics, skip policy, its
log line. The peer holds its batch in memory, made ready, and logs nothing.
"""

import argparse
import hashlib
import json
import os
import pathlib
import platform
import re
import shutil
import statistics
import sys

import yaml

import attention
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
    parser.add_argument("--stay", action="store_true")
    parser.add_argument("--start-limit", type=float, default=1200)
    parser.add_argument("--agreement", action="store_true")
    parser.add_argument("--attention", choices=attention.NAMES)
    parser.add_argument("--pairs", type=pathlib.Path)
    parser.add_argument("--stage1", type=pathlib.Path)
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
    if (arguments.pairs is None) != (arguments.stage1 is None):
        parser.error("--pairs and --stage1 go together")
    if arguments.stay and arguments.ranks != [1]:
        parser.error("--stay is for --ranks 1")
    return arguments


class Case:
    """One config at one precision: its files, and runs of both programs on them."""

    def __init__(self, arguments):
        self.arguments, self.staying = arguments, []
        named = arguments.config in SIZES
        self.overrides = [*SIZES.get(arguments.config, []), *arguments.overrides]
        config = QUICKSTART if named else pathlib.Path(arguments.config)
        shape = "-".join(word.rsplit(".", 1)[-1].replace("/", "_") for word in arguments.overrides)
        if len(shape) > 100:  # a name of a folder has 255 bytes
            shape = hashlib.sha256(shape.encode()).hexdigest()[:16]
        self.folder = arguments.work / "-".join(filter(None, (config.stem if not named else arguments.config, shape)))
        self.pairs = arguments.pairs or self.folder / "pairs"
        self.stage1 = arguments.stage1 or self.folder / "stage1"
        self.weights = self.folder / "weights.safetensors"
        self.reference = self.folder / f"reference-{arguments.precision}.safetensors"
        self.prepare(config)

    def prepare(self, config):
        number = lambda key, otherwise: inputs.given(config, self.overrides, key, otherwise)
        samples = number("training.global_batch_size", 0) or number("training.batch_size_per_gpu", 1) * max(self.arguments.ranks)
        overrides = [*self.overrides, *inputs.SAME, f"dist.device={self.arguments.device}"]
        if self.arguments.pairs is None:
            overrides += inputs.VIEWS
            inputs.make_pairs(self.folder, config, overrides, samples)
        self.config = inputs.effective_config(config, self.pairs, self.folder / "effective", overrides)
        self.config["training"].update(global_batch_size=samples, use_amp=self.arguments.precision == "bf16", print_every=1)
        inputs.write_weights(self.weights, self.config, self.stage1, self.pairs)
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
        inputs.run(*inputs.launch_line(ranks, inputs.PROGRAM, "train", "--config", self.config_file(ranks), "--data", self.pairs, "--run", run,
                                       "--resume", "never", f"training.train_steps={steps}", f"training.init_from={self.weights}"))
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        if len(lines) != steps or any(line["skipped"] for line in lines):
            raise SystemExit(f"compare: {run}/metrics.jsonl has {len(lines)} lines or skipped steps ({steps} updates were to be timed)")
        resident = re.search(r"peak resident memory of a rank: (\d+) MiB", (run / "log.txt").read_text())[1]
        peak = lines[-1]["gpu_mem_mib"] if self.arguments.device == "cuda" else float(resident)
        return statistics.median(line["step_ms"] for line in lines[self.arguments.warm_up :]), peak

    def peer_arguments(self, ranks, variant):
        chosen = ["--attention", self.arguments.attention] if self.arguments.attention else []
        return ["--config", self.config_file(ranks), "--pairs", self.pairs, "--weights", self.weights, "--reference", self.reference,
                "--variant", variant, "--steps", self.arguments.steps, "--warm-up", self.arguments.warm_up, "--device", self.arguments.device,
                *chosen]

    def peer(self, ranks, variant):
        """A function that takes a turn: -> (median milliseconds of a step, peak MiB of a rank, MiB before the model was made,
        differences from duoflow, attention)."""
        command, cache = self.peer_arguments(ranks, variant), self.arguments.work.resolve() / "compiled"
        if self.arguments.stay:
            staying = inputs.StayingPeer(*command, cache=cache, start_limit_s=self.arguments.start_limit)
            self.staying.append(staying)
        turn = staying.turn if self.arguments.stay else lambda: inputs.peer(ranks, *command, cache=cache)

        def timed():
            result = turn()
            return statistics.median(result["step_ms"]), *(result[key] for key in ("peak_mib", "start_mib", "differences", "attention"))

        return timed

    def close(self):
        for staying in self.staying:
            staying.close()


def spread(values):
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


class Turns:
    """The runs of one rank count: in every repeat all programs run once, one after another. A variant that fails is said and
    left out from there."""

    def __init__(self, case, ranks):
        self.case, self.ranks, self.failed = case, ranks, {}
        self.ours, self.theirs = [], {variant: [] for variant in case.arguments.variants}
        self.peers = {}
        for variant in case.arguments.variants:
            self.attempt(variant, self.start)

    def attempt(self, variant, action):
        try:
            action(variant)
        except inputs.ProgramFailed as failure:
            self.failed[variant] = str(failure)
            self.peers.pop(variant, None)
            print(f"compare: PyTorch {variant} is not measured: {failure}", file=sys.stderr, flush=True)

    def start(self, variant):
        self.peers[variant] = self.case.peer(self.ranks, variant)

    def turn(self, variant):
        self.theirs[variant].append(self.peers[variant]())

    def take(self, repeats, with_ours=True):
        for _ in range(repeats):
            if with_ours:
                self.ours.append(self.case.time_duoflow(self.ranks))
            for variant in list(self.peers):
                self.attempt(variant, self.turn)

    def rows(self):
        middle = lambda runs, column: statistics.median(run[column] for run in runs)
        yield f"| {self.ranks} | duoflow | {middle(self.ours, 0):.1f} | | {middle(self.ours, 1):.0f} | |"
        for variant, runs in self.theirs.items():
            if variant in self.failed:
                yield f"| {self.ranks} | PyTorch {variant} | failed | | | |"
                continue
            speed = [their[0] / our[0] for our, their in zip(self.ours, runs, strict=True)]
            memory = [our[1] / their[1] for our, their in zip(self.ours, runs, strict=True)]
            yield (f"| {self.ranks} | PyTorch {variant} | {middle(runs, 0):.1f} | {spread(speed)} | {middle(runs, 1):.0f} "
                   f"({middle(runs, 2):.0f} at start) | {spread(memory)} |")

    def agreement(self):
        """How closely the programs agree, and the attention of each variant."""
        done = {variant: runs for variant, runs in self.theirs.items() if runs}
        if not done:
            return
        worst = [max(column) for column in zip(*(run[3] for runs in done.values() for run in runs))]
        yield (f"{self.ranks} rank(s), largest relative difference from duoflow: of a loss {worst[0]:.1e}, of a gradient norm "
               f"{worst[1]:.1e}, of a gradient {worst[2]:.1e}")
        for variant, runs in done.items():
            yield f"{self.ranks} rank(s), attention of PyTorch {variant}: {runs[0][4]}"


def compare(case, arguments):
    """Prints it all; whether every variant ran."""
    batch = case.config["training"]["global_batch_size"]
    print(f"{arguments.device}, {inputs.processor()}, {os.cpu_count()} cores, Python {platform.python_version()}, torch {inputs.torch.__version__}; "
          f"{' '.join([arguments.config, *arguments.overrides])} in {arguments.precision}, {batch} samples a step, one thread a rank; "
          + ("agreement only\n" if arguments.agreement else
             f"{arguments.repeats} turns of {arguments.steps} steps; load before {os.getloadavg()[0]:.1f}\n"))
    if not arguments.agreement:
        print("| ranks | program | step ms | PyTorch's time / duoflow's (min to max) | peak MiB of a rank | duoflow's memory / PyTorch's |")
        print("|---|---|---|---|---|---|", flush=True)
    turns = []
    for ranks in arguments.ranks:
        turns.append(Turns(case, ranks))
        turns[-1].take(1 if arguments.agreement else arguments.repeats, with_ours=not arguments.agreement)
        if not arguments.agreement:
            print("\n".join(turns[-1].rows()), flush=True)
    print()
    for one in turns:
        for line in one.agreement():
            print(line)
    return not any(one.failed for one in turns)


def main(words):
    arguments = parse(words)
    if arguments.agreement:
        arguments.steps, arguments.warm_up = 1, 0
    case = None
    try:
        case = Case(arguments)
        return 0 if compare(case, arguments) else 1
    except inputs.ProgramFailed as failure:
        print(f"compare: {failure}", file=sys.stderr)
        return 1
    finally:
        if case:
            case.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
