"""How long the data tools take: repack (as it is, and to another type), split, verify for comparison, and inspect of 1000 shards.

    .venv/bin/python benchmarks/data/tools.py [FOLDER] [--rows 64] [--program build/duoflow]

One row is 3072 x 768 bf16 latents (4.7 MB), two targets of 256 x 256 and a map of 128 x 256. Each command runs once before it is timed, so
files are in the page cache. Prints wall and CPU seconds and GB/s of the shards read."""

import argparse
import pathlib
import resource
import shutil
import subprocess
import sys
import tempfile
import time

import numpy as np

SOURCE = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(SOURCE / "launch"))
import duoflow_h5  # noqa: E402


def rows(objects, lights, tokens, dim, size, env):
    numbers = np.random.default_rng(1)
    for name in objects:
        for light in range(lights):
            yield {"object": name, "light": f"env_{light}", "latents": numbers.standard_normal((tokens, dim), dtype=np.float32),
                   "target_images": numbers.integers(0, 256, (2, size, size, 3), np.uint8), "target_c2w": np.stack([np.eye(4)] * 2),
                   "target_fxfycxcy": np.full((2, 4), size / 2), "env": numbers.random((env, 2 * env, 3), dtype=np.float32)}


def timed(program, *arguments, out=None, read_bytes=0):
    for _ in range(2):
        if out:
            shutil.rmtree(out, ignore_errors=True)
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        subprocess.run([program, *map(str, arguments)], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wall, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    speed = f"{read_bytes / wall / 1e9:6.2f} GB/s" if read_bytes else ""
    print(f"{arguments[0]:8} {' '.join(map(str, arguments[-2:])) if str(arguments[-2]).startswith('--') else '':16} {wall:7.2f} s {cpu:7.2f} CPU-s {speed}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", nargs="?", default=tempfile.mkdtemp(prefix="duoflow-tools-"))
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--program", default=SOURCE / "build" / "duoflow")
    given = parser.parse_args()
    folder = pathlib.Path(given.folder)
    large, many, out = folder / "large", folder / "many", folder / "out"
    for shard in range(given.rows // 16):
        duoflow_h5.write_pair_shard(large / f"pairs-{shard:05d}.h5", rows([f"object_{shard}_{i}" for i in range(4)], 4, 3072, 768, 256, 128))
    duoflow_h5.index(large, given.program)
    size = sum(path.stat().st_size for path in large.glob("*.h5"))
    print(f"{given.rows} rows, {size / 1e9:.2f} GB")
    timed(given.program, "verify", large, read_bytes=size)
    timed(given.program, "repack", large, "--out", out, out=out, read_bytes=size)
    timed(given.program, "repack", large, "--out", out, "--dtype", "f16", out=out, read_bytes=size)
    timed(given.program, "split", large, "a=0.5", "b=0.5", "--out", out, out=out, read_bytes=size)
    timed(given.program, "inspect", large, "--rows", read_bytes=size)
    shutil.rmtree(out)
    for shard in range(1000):
        duoflow_h5.write_pair_shard(many / f"pairs-{shard:05d}.h5", rows([f"object_{shard}"], 4, 8, 16, 16, 8))
    duoflow_h5.index(many, given.program)
    print("1000 shards of 4 rows")
    timed(given.program, "inspect", many)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
