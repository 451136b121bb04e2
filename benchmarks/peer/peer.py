"""The joint step in PyTorch, timed once it agrees with duoflow's.

    .venv/bin/torchrun --standalone --nproc-per-node N benchmarks/peer/peer.py --config RUN/config.yaml --pairs FOLDER
        --weights FILE --reference FILE [--variant eager|compile[-matmul][-kept]] [--steps 30] [--warm-up 5]
        [--attention measured|library|cudnn|flash|efficient|matmul] [--stay]
    mpirun -n N .venv/bin/python benchmarks/peer/peer.py .. --rendezvous FILE      the ranks meet through a file, made by them

config: the effective one; weights: the state dict; reference: what `duoflow step --steps 4` wrote for these two on the
batch of pairs.read_batch (benchmarks/peer/compare.py makes them all). Prints one JSON object: the slowest rank's
milliseconds of each step, the most MiB that a rank has held, and held before it made the model, the largest relative
differences from duoflow of a loss, a gradient norm and a gradient, and the attention taken (by default the library's choice on
the CPU, the fastest as measured on CUDA). Exit code 3: they disagree. One rank needs no torchrun. --stay, for one rank: prints
a line when it has agreed, then such an object for every line that it reads.
"""

import argparse
import json
import os
import sys
import time

import torch
import torch.distributed as dist
import yaml

import agreement
import attention
import networks
import pairs
import tensor_file
import training


def parse(words):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("config", "pairs", "weights", "reference"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--variant", default="eager")
    parser.add_argument("--rendezvous")
    parser.add_argument("--attention", choices=attention.NAMES)
    parser.add_argument("--stay", action="store_true")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--warm-up", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda"))
    return parser.parse_args(words)


def from_launcher(name, otherwise):
    """WORLD_SIZE, RANK or LOCAL_RANK, of torchrun or of Open MPI's mpirun."""
    mpirun = {"WORLD_SIZE": "OMPI_COMM_WORLD_SIZE", "RANK": "OMPI_COMM_WORLD_RANK", "LOCAL_RANK": "OMPI_COMM_WORLD_LOCAL_RANK"}
    return int(os.environ.get(name, os.environ.get(mpirun[name], otherwise)))


def parse_variant(name):
    """eager-matmul -> whether attention is by matmul, whether the last block is trimmed, whether it is compiled."""
    mode, *rest = name.split("-")
    if mode not in ("eager", "compile") or set(rest) - {"matmul", "kept"}:
        raise SystemExit(f"peer: unknown variant {name} (known: eager or compile, then -matmul and -kept if wanted), use one of them")
    return "matmul" in rest, "kept" in rest, mode == "compile"


def choose_attention(arguments, o, config, device):
    """(name, text), and the process has it."""
    wanted = arguments.attention or ("measured" if device.type == "cuda" else "library")
    dtype = torch.bfloat16 if config["training"]["use_amp"] else torch.float32
    name, text = attention.choose(wanted, attention.shape_of(o, config), dtype, device)
    attention.take(name)
    return name, text


def load_training(arguments, config, rank, ranks, device):
    """(the rank's training, the whole batch, what its attention is)"""
    by_matmul, kept, compiled = parse_variant(arguments.variant)
    o = training.model_options(config)
    chosen, why = ("matmul", "by the variant's name") if by_matmul else choose_attention(arguments, o, config, device)
    model = networks.Networks(o, attention="matmul" if chosen == "matmul" else "sdpa", last_block="kept" if kept else "all",
                              recompute=training.value_at(config, "training.grad_checkpoint_every") == 1)
    weights = tensor_file.load(arguments.weights)
    model.load_state_dict({key: weights[key] for key in model.state_dict()})
    batch = pairs.read_batch(arguments.pairs, config["training"]["global_batch_size"], config["training"]["num_target_views"], o.env_height)
    held = pairs.held_in_memory(batch, rank, ranks, device)
    return training.Training(model.to(device), config, held, compiled), batch, f"{chosen} ({why})"


def timed_steps(run, count, device):
    """Milliseconds of each step. On CUDA from events, so that the host runs ahead as in training."""
    if device.type == "cuda":
        marks = [torch.cuda.Event(enable_timing=True) for _ in range(count + 1)]
        for mark in marks[:-1]:
            mark.record()
            run.step()
        marks[-1].record()
        torch.cuda.synchronize()
        return [first.elapsed_time(second) for first, second in zip(marks, marks[1:])]
    times = [time.perf_counter()]
    for _ in range(count):
        run.step()
        times.append(time.perf_counter())
    return [1e3 * (second - first) for first, second in zip(times, times[1:])]


def peak_mib(device):
    """Of this process: resident on the CPU, allocated on a GPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024


def of_all_ranks(value, ranks):
    if ranks == 1:
        return [value]
    values = [None] * ranks
    dist.all_gather_object(values, value)
    return values


class Peer:
    """The training of one rank, which agrees with duoflow's. agreement.Disagreement on every rank alike."""

    def __init__(self, arguments, rank, ranks):
        self.arguments, self.ranks = arguments, ranks
        self.device = torch.device(arguments.device, from_launcher("LOCAL_RANK", 0) if arguments.device == "cuda" else None)
        with open(arguments.config) as file:
            config = yaml.safe_load(file)
        self.start_mib = max(of_all_ranks(peak_mib(self.device), ranks))
        training.check_config(config, ranks)
        self.training, batch, self.attention = load_training(arguments, config, rank, ranks, self.device)
        reference = tensor_file.load(arguments.reference)
        agreement.check_batch(batch, reference)
        self.differences = agreement.check_first_steps(self.training, reference, "bf16" if config["training"]["use_amp"] else "fp32")

    def timed(self):
        """What is printed. Leaves the memory that it does not hold to the other programs."""
        for _ in range(self.arguments.warm_up):
            self.training.step()
        steps = of_all_ranks(timed_steps(self.training, self.arguments.steps, self.device), self.ranks)
        memory = of_all_ranks(peak_mib(self.device), self.ranks)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return {"variant": self.arguments.variant, "step_ms": [max(step) for step in zip(*steps)], "peak_mib": max(memory),
                "start_mib": self.start_mib, "differences": self.differences, "attention": self.attention}


def run(arguments, rank, ranks):
    """What is printed, one object after another."""
    peer = Peer(arguments, rank, ranks)
    if not arguments.stay:
        yield peer.timed()
        return
    yield {"variant": arguments.variant, "attention": peer.attention}
    for _ in sys.stdin:
        yield peer.timed()


def main(words):
    arguments = parse(words)
    rank, ranks = from_launcher("RANK", 0), from_launcher("WORLD_SIZE", 1)
    if arguments.stay and ranks > 1:
        raise SystemExit(f"peer: --stay with {ranks} ranks (only one reads what comes in), leave it out")
    torch.set_num_threads(1)
    if arguments.device == "cuda":
        torch.cuda.set_device(from_launcher("LOCAL_RANK", 0))
    if ranks > 1:
        meeting = f"file://{os.path.abspath(arguments.rendezvous)}" if arguments.rendezvous else "env://"
        dist.init_process_group("nccl" if arguments.device == "cuda" else "gloo", init_method=meeting, rank=rank, world_size=ranks)
    try:
        for result in run(arguments, rank, ranks):
            if rank == 0:
                print(json.dumps(result), flush=True)
    except agreement.Disagreement as problem:
        if rank == 0:
            print(f"peer: {problem}", file=sys.stderr)
        return 3
    if ranks > 1:
        dist.barrier()
        # gloo's threads now and then outlive what they work for, and abort a process that has said all it had to.
        os._exit(0)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
