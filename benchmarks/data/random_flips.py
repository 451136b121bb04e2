"""Flips one random bit of a random file of a data folder, asks `duoflow verify` for it, and puts it back, many times.

    benchmarks/data/random_flips.py FOLDER [FLIPS] [SEED]     on a copy of the folder; exits 1 when a flip was not named
"""

import collections
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile

PROGRAM = pathlib.Path("build/duoflow")


def main(folder, flips=300, seed=1):
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory() as scratch:
        copy = pathlib.Path(scratch) / "data"
        shutil.copytree(folder, copy)
        files = sorted(path for path in copy.iterdir() if path.suffix in (".h5", ".json"))
        named, missed = collections.Counter(), []
        for _ in range(flips):
            path = draw.choice(files)
            at, bit = draw.randrange(path.stat().st_size), 1 << draw.randrange(8)
            flip(path, at, bit)
            done = subprocess.run([PROGRAM, "verify", copy], capture_output=True, text=True)
            if done.returncode == 3 and path.name in done.stdout:
                named[kind(path, done.stdout)] += 1
            else:
                missed.append((path.name, at, bit, done.returncode))
            flip(path, at, bit)
        intact = subprocess.run([PROGRAM, "verify", copy], capture_output=True).returncode == 0
    print(f"{flips} flips (seed {seed}) in {len(files)} files: {sum(named.values())} found and named, {len(missed)} not; put back: "
          f"{'intact' if intact else 'NOT INTACT'}")
    for what, count in named.most_common():
        print(f"  {count:4} {what}")
    for miss in missed:
        print("  missed:", *miss)
    return 1 if missed or not intact else 0


def kind(path, said):
    if path.suffix == ".json":
        return "in the manifest"
    if "outside every directly read row" in said:
        return "in HDF5 metadata, attributes or padding"
    return "in a row, which was named" if " row " in said else "in a file, which was named"


def flip(path, at, bit):
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ bit]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], *(int(word) for word in sys.argv[2:])))
