"""The numbers of benchmarks/gpu.sh: needs Python's torch and nothing else.

    gpu_report.py batch OUT SIZE ENV_HEIGHT         a seeded batch for `duoflow step`
    gpu_report.py compare A B [LIMIT]               largest relative differences of two outputs of `duoflow step`
    gpu_report.py losses RUN_A RUN_B [LIMIT]        the same of two runs' losses
    gpu_report.py timing RUN [SKIP [PEAK_TFLOPS]]   samples/s, FLOP/s and memory of a joint run, SKIP steps of warm-up left out
    gpu_report.py matmul                            what a large bf16 matrix product reaches on this GPU
"""

import json
import math
import pathlib
import re
import statistics
import sys
import time

import torch

TYPES = {"F32": torch.float32, "F64": torch.float64, "BF16": torch.bfloat16, "F16": torch.float16, "I64": torch.int64}


def write_safetensors(path, tensors):
    header, offset = {}, 0
    for name, tensor in tensors.items():
        size = tensor.numel() * 4
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            file.write(bytes(tensor.float().contiguous().view(torch.uint8).flatten().tolist()))


def read_safetensors(path):
    content = bytearray(pathlib.Path(path).read_bytes())
    start = 8 + int.from_bytes(content[:8], "little")
    tensors = {}
    for name, entry in json.loads(content[8:start]).items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        flat = torch.frombuffer(content, dtype=torch.uint8, count=end - begin, offset=start + begin)
        tensors[name] = flat.clone().view(TYPES[entry["dtype"]]).view(entry["shape"]).double()
    return tensors


def cameras(samples, views, size, generator):
    """On a sphere of radius 2, looking at the origin; OpenCV axes."""
    c2w = torch.zeros(samples, views, 4, 4)
    at = torch.nn.functional.normalize(torch.randn(samples, views, 3, generator=generator), dim=-1)
    right = torch.nn.functional.normalize(torch.linalg.cross(-at, torch.tensor([0.1, 0.2, 1.0]).expand_as(at)), dim=-1)
    c2w[..., :3, :3] = torch.stack([right, torch.linalg.cross(-at, right), -at], dim=-1)
    c2w[..., :3, 3], c2w[..., 3, 3] = 2 * at, 1
    return c2w, torch.tensor([1.2 * size, 1.2 * size, size / 2, size / 2]).expand(samples, views, 4)


def batch(out, size, env_height):
    size, env_height = int(size), int(env_height)
    generator = torch.Generator().manual_seed(11)
    uniform = lambda *shape: torch.rand(shape, generator=generator)
    samples, inputs, targets = 2, 4, 3
    tensors = {"t": torch.tensor([0.2, 0.7])}
    for prefix, views in (("input", inputs), ("target", targets)):
        tensors[prefix + "_image"] = uniform(samples, views, 3, size, size)
        tensors[prefix + "_c2w"], tensors[prefix + "_fxfycxcy"] = cameras(samples, views, size, generator)
    tensors["relit_image"] = uniform(samples, inputs, 3, size, size)
    tensors["env_ldr"], tensors["env_hdr"] = (uniform(samples, 1, 3, env_height, 2 * env_height) for _ in range(2))
    tensors["env_dir"] = torch.nn.functional.normalize(torch.randn(samples, 1, 3, env_height, 2 * env_height, generator=generator), dim=2)
    write_safetensors(out, tensors)


def relative(a, b):
    """Largest difference over the largest value: elements near zero have no relative accuracy of their own."""
    return ((a - b).abs().max() / b.abs().max().clamp_min(1e-30)).item()


def compare(path_a, path_b, limit="inf"):
    a, b = read_safetensors(path_a), read_safetensors(path_b)
    if a.keys() != b.keys():
        sys.exit(f"compare: {path_a} and {path_b} hold other tensors: {sorted(a.keys() ^ b.keys())[:5]}")
    differences = {name: relative(a[name], b[name]) for name in a}
    plain = {name: value for name, value in differences.items() if not name.startswith("grad.")}
    gradients = {name: value for name, value in differences.items() if name.startswith("grad.")}
    for name, value in plain.items():
        print(f"  {name:<16} {value:.2e}")
    for name, value in sorted(gradients.items(), key=lambda item: -item[1])[:3]:
        print(f"  {name:<60} {value:.2e}")
    worst = max(differences, key=lambda name: math.inf if math.isnan(differences[name]) else differences[name])
    print(f"  largest of {len(plain)} outputs and {len(gradients)} gradients: {differences[worst]:.2e} ({worst})")
    if not differences[worst] <= float(limit):
        sys.exit(f"compare: {worst} differs by {differences[worst]:.2e}, more than {limit}")


def metrics(run):
    return [json.loads(line) for line in (pathlib.Path(run) / "metrics.jsonl").read_text().splitlines()]


def losses(run_a, run_b, limit="inf"):
    worst = 0.0
    for a, b in zip(metrics(run_a), metrics(run_b), strict=True):
        difference = max(abs(a[key] - b[key]) / abs(b[key]) for key in ("total_loss", "velocity_loss", "render_loss", "grad_norm"))
        print(f"  step {a['step']}: total_loss {a['total_loss']:.6f} and {b['total_loss']:.6f}, largest relative difference {difference:.2e}")
        worst = max(worst, difference)
    if not worst <= float(limit):
        sys.exit(f"losses: a loss or gradient norm differs by {worst:.2e}, more than {limit}")


def setting(config, *path):
    """One value of a run's config.yaml, whose sections are indented by two spaces a level."""
    depth = 0
    for line in config.splitlines():
        found = re.match(r"( *)([\w.]+):(.*)", line)
        if not found:
            continue
        level = len(found[1]) // 2
        if level < depth:
            break
        if level == depth and found[2] == path[depth]:
            depth += 1
            if depth == len(path):
                return found[3].strip().strip('"')
    sys.exit(f"timing: config.yaml has no {'.'.join(path)}")


def flops_per_sample(config):
    """Matrix products of one sample of a joint step with frozen renderer; 2 FLOPs a multiply-add, no recomputation counted.

    A block on L tokens of width d: linear 24 d^2 L (qkv 6, output 2, MLP 16), attention 4 L^2 d (scores and values).
    Forward + backward: the editor's linear layers 3x (outputs, input gradients, weight gradients), the frozen renderer's 2x (no
    weight gradients), attention 3x in both.
    """
    number = lambda *path: int(setting(config, *path))
    if setting(config, "training", "freeze_reconstructor_renderer") != "true":
        sys.exit("timing: the count of FLOPs is for a frozen renderer, this run trains it")
    transformer = ("model", "transformer")
    d, patch = number(*transformer, "d"), number("model", "image_tokenizer", "patch_size")
    latents, env = number(*transformer, "n_latent_vectors"), number("model", "env_tokenizer", "image_size")
    edit_tokens = latents + (env // patch) * (2 * env // patch)
    render_tokens = latents + (number("model", "image_tokenizer", "image_size") // patch) ** 2
    linear, attention = lambda tokens: 24 * d * d * tokens, lambda tokens: 4 * tokens * tokens * d
    editor = number(*transformer, "editor", "n_layer") * 3 * (linear(edit_tokens) + attention(edit_tokens))
    view = number(*transformer, "decoder_n_layer") * (2 * linear(render_tokens) + 3 * attention(render_tokens))
    return editor + number("training", "num_target_views") * view


def timing(run, skip="10", peak="0"):
    config = (pathlib.Path(run) / "config.yaml").read_text()
    lines = metrics(run)
    timed = lines[int(skip):]
    if not timed:
        sys.exit(f"timing: {run} has {len(lines)} steps, none after {skip} of warm-up")
    times = sorted(line["step_ms"] for line in timed)
    samples = lines[0]["samples"]
    rate = 1e3 * samples / statistics.median(times)
    flops = flops_per_sample(config)
    print(f"  {samples} samples a step, {len(times)} steps timed: median {statistics.median(times):.1f} ms (fastest {times[0]:.1f}, slowest {times[-1]:.1f}), "
          f"host waited for data {statistics.median(line['data_wait_ms'] for line in timed):.2f} ms")
    print(f"  {rate:.2f} samples/s, {flops / 1e12:.4g} TFLOP a sample, {rate * flops / 1e12:.4g} TFLOP/s"
          + (f", MFU {100 * rate * flops / 1e12 / float(peak):.1f} % of {float(peak):g} TFLOP/s" if float(peak) > 0 else " (MFU: no peak known or given)"))
    memory = [line["gpu_mem_mib"] for line in lines if line["gpu_mem_mib"] is not None]
    print(f"  peak GPU memory of tensors {max(memory):.0f} MiB" if memory else "  peak GPU memory: none (CPU)")
    print(f"  losses first and last: {lines[0]['total_loss']:.5f}, {lines[-1]['total_loss']:.5f}; steps skipped: {sum(line['skipped'] for line in lines)}")


def matmul(side=8192, times=20):
    if not torch.cuda.is_available():
        print("  no CUDA device: not measured")
        return
    a = torch.randn(side, side, device="cuda", dtype=torch.bfloat16)
    for _ in range(3):
        a @ a
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(times):
        a @ a
    torch.cuda.synchronize()
    print(f"  bf16 product of {side} x {side}: {times * 2 * side**3 / (time.perf_counter() - start) / 1e12:.0f} TFLOP/s")


if __name__ == "__main__":
    commands = {function.__name__: function for function in (batch, compare, losses, timing, matmul)}
    if len(sys.argv) < 2 or sys.argv[1] not in commands:
        sys.exit(__doc__)
    commands[sys.argv[1]](*sys.argv[2:])
