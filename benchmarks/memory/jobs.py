"""The sizes of a job that are none of a model: ranks, and the data. Rows for growth.py.

Ranks: `train` with 2 samples a rank; processor time of a rank a step (of runs of STEPS and of few steps, so that starting is not
in it: with more ranks than cores nobody's clock says anything) and the peak of the largest rank's resident memory. Data: sparse folders
of 128 rows a shard; from the start of a process to its first batch, and its peak. Needs mpirun and .venv (h5py).
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

SOURCE = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("DUOFLOW_BUILD", SOURCE / "build"))
CONFIG = SOURCE / "configs" / "quickstart_joint.yaml"
FEW, STEPS = 4, 44
RANKS, SHARDS = (1, 2, 4, 8), (125, 250, 500, 1000)


def measured(command):
    """(output, processor seconds of the program and all it waited for, peak MiB of the largest of them)."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    with tempfile.TemporaryFile("w+") as out:
        program = subprocess.Popen([str(word) for word in command], stdout=out, stderr=subprocess.STDOUT, env=environment)
        _, status, usage = os.wait4(program.pid, 0)
        out.seek(0)
        said = out.read()
    if status != 0:
        raise SystemExit(f"{command} failed: {said[-2000:]}")
    return said, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def ranks(pairs, stage1):
    results = []
    with tempfile.TemporaryDirectory(prefix="duoflow-growth-") as scratch:
        def run(count, steps):
            return measured(["mpirun", "-n", count, "--oversubscribe", "--bind-to", "none", BUILD / "duoflow", "train", "--config", CONFIG,
                             "--data", pairs, "--run", f"{scratch}/{count}-{steps}", f"training.init_from={stage1}", f"training.train_steps={steps}",
                             "training.batch_size_per_gpu=2", f"training.global_batch_size={2 * count}", "dist.threads=1"])
        for count in RANKS:
            few, whole = run(count, FEW), run(count, STEPS)
            results.append((whole[2], 1e3 * (whole[1] - few[1]) / (STEPS - FEW) / count))
    return "ranks, a rank's share", RANKS, results


def shards():
    sys.path.insert(0, str(SOURCE / "benchmarks" / "data"))
    import reader_folders

    results = []
    with tempfile.TemporaryDirectory(prefix="duoflow-growth-") as scratch:
        for count in SHARDS:
            folder = pathlib.Path(scratch) / str(count)
            reader_folders.make_sparse(folder, shards=count, rows=128)
            said, _, peak = measured([BUILD / "reader_benchmark", "startup", folder])
            found = json.loads(said)
            results.append((peak, found["index_ms"] + found["tables_ms"] + found["first_batch_ms"]))
    return "shards of data, a start", SHARDS, results
