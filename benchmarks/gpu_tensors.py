"""What benchmarks/gpu.sh does with tensors: needs Python's torch and nothing else.

    gpu_tensors.py batch OUT SIZE ENV_HEIGHT    a seeded batch for `duoflow step`
    gpu_tensors.py compare A B [LIMIT]          largest relative differences of two outputs of `duoflow step`
    gpu_tensors.py matmul                       what a large bf16 matrix product reaches on this GPU
"""

import math
import pathlib
import sys
import time

import torch

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "peer"))
import tensor_file


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
    tensor_file.save(tensors, out)


def relative(a, b):
    """Largest difference over the largest value: elements near zero have no relative accuracy of their own."""
    return ((a - b).abs().max() / b.abs().max().clamp_min(1e-30)).item()


def compare(path_a, path_b, limit="inf"):
    a, b = ({name: value.double() for name, value in tensor_file.load(path).items()} for path in (path_a, path_b))
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
    commands = {function.__name__: function for function in (batch, compare, matmul)}
    if len(sys.argv) < 2 or sys.argv[1] not in commands:
        sys.exit(__doc__)
    commands[sys.argv[1]](*sys.argv[2:])
