"""Which attention the peer takes: like duoflow (launch/attention_choice.cpp) the fastest of those that can run, forward and
backward, at the step's own shape on this device."""

import contextlib
import time

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

import networks

BACKENDS = {"cudnn": SDPBackend.CUDNN_ATTENTION, "flash": SDPBackend.FLASH_ATTENTION, "efficient": SDPBackend.EFFICIENT_ATTENTION}
NAMES = ("measured", "library", *BACKENDS, "matmul")


def shape_of(o, config):
    """[sequences, heads, tokens, width of a head]: the renderer's, what most of a step's attention is spent on."""
    side = config["model"]["image_tokenizer"]["image_size"] // o.patch_size
    sequences = config["training"]["batch_size_per_gpu"] * config["training"]["num_target_views"]
    return sequences, o.d // o.d_head, o.n_latent_vectors + side * side, o.d_head


def milliseconds(attend, shape, dtype, device):
    """Of a forward and a backward: the best of a few after one that makes workspaces and plans."""
    q, k, v = (torch.full(shape, 0.1, dtype=dtype, device=device, requires_grad=True) for _ in range(3))
    gradient, times = torch.full_like(q, 0.1), []
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    for _ in range(5):
        wait()
        begin = time.perf_counter()
        attend(q, k, v).backward(gradient)
        wait()
        times.append(1e3 * (time.perf_counter() - begin))
    return min(times[1:])


def measure(shape, dtype, device):
    """{name: milliseconds}, None for one that has no kernel for this shape, type or device, or no memory for it."""
    times = {}
    for name in (*BACKENDS, "matmul"):
        only = sdpa_kernel(BACKENDS[name]) if name in BACKENDS else contextlib.nullcontext()
        try:
            with only:
                times[name] = milliseconds(F.scaled_dot_product_attention if name in BACKENDS else networks.matmul_attention, shape, dtype, device)
        except RuntimeError:
            times[name] = None
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    return times


def choose(wanted, shape, dtype, device):
    """(name, what was measured as text)"""
    if wanted == "library":
        return wanted, "the library's choice"
    times = measure(shape, dtype, device)
    runs = {name: ms for name, ms in times.items() if ms is not None}
    if wanted != "measured" and wanted not in runs:
        raise SystemExit(f"peer: attention by {wanted} cannot run {list(shape)} in {dtype} on {device}, choose another of {', '.join(NAMES)}")
    name = min(runs, key=runs.get) if wanted == "measured" else wanted
    return name, ", ".join(f"{one} {'cannot run' if ms is None else f'{ms:.3f} ms'}" for one, ms in times.items())


def take(name):
    """For the rest of the process, with the plain formula for what the backend refuses."""
    if name in BACKENDS:
        torch.backends.cuda.enable_cudnn_sdp(name == "cudnn")
        torch.backends.cuda.enable_flash_sdp(name == "flash")
        torch.backends.cuda.enable_mem_efficient_sdp(name == "efficient")
        torch.backends.cuda.enable_math_sdp(True)
