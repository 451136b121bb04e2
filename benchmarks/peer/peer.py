"""The joint step in PyTorch, timed once it agrees with duoflow's.

    .venv/bin/torchrun --standalone --nproc-per-node N benchmarks/peer/peer.py --config RUN/config.yaml --pairs FOLDER
        --weights FILE --reference FILE [--variant eager|compile[-matmul][-kept]] [--steps 30] [--warm-up 5]
    mpirun -n N .venv/bin/python benchmarks/peer/peer.py .. --rendezvous FILE      the ranks meet through a file, made by them

config: the effective one; weights: the state dict; reference: what `duoflow step --steps 4` wrote for these two on the
batch of pairs.read_batch (benchmarks/peer/compare.py makes them all). Prints one JSON object: the slowest rank's
milliseconds of each step, the most MiB that a rank has held, and held before it made the model, the largest relative
differences from duoflow of a loss, a gradient norm and a gradient. Exit code 3: they disagree. One rank needs no torchrun.
"""

import argparse
import json
import os
import sys
import time

import safetensors.torch
import torch
import torch.distributed as dist
import yaml

import agreement
import networks
import pairs
import training


def parse(words):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("config", "pairs", "weights", "reference"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--variant", default="eager")
    parser.add_argument("--rendezvous")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--warm-up", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda"))
    return parser.parse_args(words)


def from_launcher(name, otherwise):
    """WORLD_SIZE, RANK or LOCAL_RANK, of torchrun or of Open MPI's mpirun."""
    mpirun = {"WORLD_SIZE": "OMPI_COMM_WORLD_SIZE", "RANK": "OMPI_COMM_WORLD_RANK", "LOCAL_RANK": "OMPI_COMM_WORLD_LOCAL_RANK"}
    return int(os.environ.get(name, os.environ.get(mpirun[name], otherwise)))


def parse_variant(name):
    """eager-matmul -> options of networks.Networks, and whether it is compiled."""
    mode, *rest = name.split("-")
    if mode not in ("eager", "compile") or set(rest) - {"matmul", "kept"}:
        raise SystemExit(f"peer: unknown variant {name} (known: eager or compile, then -matmul and -kept if wanted), use one of them")
    options = {"attention": "matmul" if "matmul" in rest else "sdpa", "last_block": "kept" if "kept" in rest else "all"}
    return options, mode == "compile"


def load_training(arguments, config, rank, ranks, device):
    """(the rank's training, the whole batch)"""
    options, compiled = parse_variant(arguments.variant)
    o = training.model_options(config)
    model = networks.Networks(o, **options, recompute=training.value_at(config, "training.grad_checkpoint_every") == 1)
    weights = safetensors.torch.load_file(arguments.weights)
    model.load_state_dict({key: weights[key] for key in model.state_dict()})
    batch = pairs.read_batch(arguments.pairs, config["training"]["global_batch_size"], config["training"]["num_target_views"], o.env_height)
    return training.Training(model.to(device), config, pairs.held_in_memory(batch, rank, ranks, device), compiled), batch


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


def run(arguments, rank, ranks):
    """What is printed. Throws agreement.Disagreement on every rank alike."""
    device = torch.device(arguments.device, from_launcher("LOCAL_RANK", 0) if arguments.device == "cuda" else None)
    with open(arguments.config) as file:
        config = yaml.safe_load(file)
    start_mib = max(of_all_ranks(peak_mib(device), ranks))
    training.check_config(config, ranks)
    own, batch = load_training(arguments, config, rank, ranks, device)
    reference = safetensors.torch.load_file(arguments.reference)
    agreement.check_batch(batch, reference)
    differences = agreement.check_first_steps(own, reference, "bf16" if config["training"]["use_amp"] else "fp32")
    del reference, batch
    for _ in range(arguments.warm_up):
        own.step()
    steps = of_all_ranks(timed_steps(own, arguments.steps, device), ranks)
    memory = of_all_ranks(peak_mib(device), ranks)
    return {"variant": arguments.variant, "step_ms": [max(step) for step in zip(*steps)], "peak_mib": max(memory), "start_mib": start_mib,
            "differences": differences}


def main(words):
    arguments = parse(words)
    rank, ranks = from_launcher("RANK", 0), from_launcher("WORLD_SIZE", 1)
    torch.set_num_threads(1)
    if arguments.device == "cuda":
        torch.cuda.set_device(from_launcher("LOCAL_RANK", 0))
    if ranks > 1:
        meeting = f"file://{os.path.abspath(arguments.rendezvous)}" if arguments.rendezvous else "env://"
        dist.init_process_group("nccl" if arguments.device == "cuda" else "gloo", init_method=meeting, rank=rank, world_size=ranks)
    try:
        result = run(arguments, rank, ranks)
    except agreement.Disagreement as problem:
        if rank == 0:
            print(f"peer: {problem}", file=sys.stderr)
        return 3
    if rank == 0:
        print(json.dumps(result), flush=True)
    if ranks > 1:
        dist.barrier()
        # gloo's threads now and then outlive what they work for, and abort a process that has said all it had to.
        os._exit(0)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
