"""Measures reading and prints the tables of benchmarks/results/reader.md. See reader.sh."""

import json
import os
import pathlib
import platform
import resource
import statistics
import subprocess
import sys
import time

import reader_folders

PROGRAM = pathlib.Path("build/reader_benchmark")
ROUNDS = 5  # every question is asked this often, all in turn: a slow minute of the machine hits them alike
BATCH = 8
CORES = os.cpu_count()


def ask(*words):
    done = subprocess.run([PROGRAM, *map(str, words)], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


class LittleMemory:
    """Programs started within have `mib` of memory, page cache included: a control group (version 1 or 2) of their own. OSError where this
    process may not make one."""

    def __init__(self, mib):
        root = pathlib.Path("/sys/fs/cgroup")
        old = (root / "memory").is_dir()
        self.parent = root / "memory" if old else root
        self.group = self.parent / f"duoflow-reader-{os.getpid()}"
        self.group.mkdir()
        (self.group / ("memory.limit_in_bytes" if old else "memory.max")).write_text(str(mib << 20))

    def __enter__(self):
        (self.group / "cgroup.procs").write_text(str(os.getpid()))

    def __exit__(self, *_):
        (self.parent / "cgroup.procs").write_text(str(os.getpid()))
        self.group.rmdir()


def more_than_memory(full, mib=600):
    """Full and block shuffle on a folder that is several times the memory."""
    title = f"A folder of {sum(path.stat().st_size for path in full.glob('*.h5')) >> 20} MiB with {mib} MiB of memory, {CORES} threads, from the disk"
    questions = {"full shuffle": lambda: ask("loader", full, CORES, 80, BATCH, "first_touch"),
                 "block shuffle, blocks of 32 MiB, 256 MiB mixed": lambda: ask("blocks", full, CORES, 80, BATCH, 32, 256)}
    try:
        with LittleMemory(mib):
            runs = in_turn(questions, lambda: forget(full))
    except OSError as error:
        print(f"\n### {title}\n\nNot measured: no control group can be made here ({error}).")
        return
    speed_table(title, runs, "full shuffle")


def forget(folder):
    """The folder's files leave the page cache."""
    for path in pathlib.Path(folder).iterdir():
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def dataloader(folder, workers, batches, convert):
    """PyTorch's DataLoader over h5py in a process of its own, as the others are."""
    done = subprocess.run([sys.executable, "-B", __file__, "--dataloader", folder, str(workers), str(batches), str(int(convert))], check=True,
                          capture_output=True, text=True)
    return json.loads(done.stdout)


def run_dataloader(folder, workers, batches, convert):
    import h5py
    import numpy as np
    import torch

    fields = {"x0": "latents", "x1": "latents", "target_images": "target_images", "target_c2w": "target_c2w", "target_fxfycxcy": "target_fxfycxcy",
              "world_to_norm": "world_to_norm", "env": "env"}

    class Pairs(torch.utils.data.Dataset):
        """Reads whole batches into their tensors, so that nothing is collated or copied again."""

        def __init__(self):
            self.paths = sorted(pathlib.Path(folder).glob("*.h5"))
            self.files = {}  # opened by the worker that reads them: a forked handle gives wrong data
            self.pairs = []
            for number, path in enumerate(self.paths):
                with h5py.File(path, "r") as file:
                    self.pairs += [(number, int(a), int(b)) for a, b in file["pairs"]]

        def __len__(self):
            return len(self.pairs)

        def dataset(self, shard, name):
            if (shard, name) not in self.files:
                self.files[shard, name] = h5py.File(self.paths[shard], "r")[name].id
            return self.files[shard, name]

        def __getitems__(self, numbers):
            batch = {}
            for field, name in fields.items():
                stored = self.dataset(0, name)
                kind = {"latents": np.float32 if convert else np.uint16, "env": np.uint16, "target_images": np.uint8}.get(name, np.float32)
                batch[field] = np.empty((len(numbers), *stored.shape[1:]), kind)
                for i, number in enumerate(numbers):
                    shard, x0, x1 = self.pairs[number]
                    self.read(self.dataset(shard, name), x0 if field == "x0" else x1, batch[field][i:i + 1], convert and name == "latents")
            return {name: torch.from_numpy(values.view(np.int16) if values.dtype == np.uint16 else values) for name, values in batch.items()}

        @staticmethod
        def read(stored, row, out, in_library):
            space = stored.get_space()
            space.select_hyperslab((row, *[0] * (space.get_simple_extent_ndims() - 1)), (1, *stored.shape[1:]))
            stored.read(h5py.h5s.create_simple(out.shape), space, out, mtype=None if in_library else stored.get_type())

    data = Pairs()
    loader = torch.utils.data.DataLoader(data, BATCH, shuffle=True, num_workers=workers, drop_last=True, collate_fn=lambda batch: batch,
                                         generator=torch.Generator().manual_seed(1), prefetch_factor=2 if workers else None)
    iterator = iter(loader)
    next(iterator)  # the workers' start is not counted
    row_bytes = sum(np.prod(data.dataset(0, name).shape[1:]) * data.dataset(0, name).get_type().get_size() for name in fields.values())
    cpu, start = sum(resource.getrusage(resource.RUSAGE_SELF)[:2]), time.monotonic()
    for _ in range(batches):
        next(iterator)
    seconds, total = time.monotonic() - start, float(row_bytes) * BATCH * batches
    answer = {"what": "dataloader", "gb_s": 1e-9 * total / seconds}
    if workers == 0:  # else most of the work is in other processes
        answer["cpu_s_per_gb"] = (sum(resource.getrusage(resource.RUSAGE_SELF)[:2]) - cpu) / (1e-9 * total)
    print(json.dumps(answer))


def in_turn(questions, before=lambda: None):
    """{name: question} -> {name: its answers}, asked in turns."""
    answers = {name: [] for name in questions}
    for _ in range(ROUNDS):
        for name, question in questions.items():
            before()
            answers[name].append(question())
    return answers


def median(answers, key):
    return statistics.median(answer[key] for answer in answers)


def speed_table(title, answers, reference):
    print(f"\n### {title}\n\n| | GB/s, median (least - most) | of {reference} | CPU s per GB |\n|---|---|---|---|")
    base = median(answers[reference], "gb_s")
    for name, runs in answers.items():
        rates = [run["gb_s"] for run in runs]
        cpu = f"{median(runs, 'cpu_s_per_gb'):.2f}" if "cpu_s_per_gb" in runs[0] else ""
        print(f"| {name} | {statistics.median(rates):.2f} ({min(rates):.2f} - {max(rates):.2f}) | {statistics.median(rates) / base:.2f} | {cpu} |")


def speeds(folder, threads, batches, python=True):
    questions = {"raw pread": lambda: ask("raw", folder, threads, batches, BATCH)}
    for verify in ("first_touch", "always", "never"):
        questions[f"loader, verify {verify}"] = lambda verify=verify: ask("loader", folder, threads, batches, BATCH, verify)
    if python:
        for workers in (0, 2):
            questions[f"DataLoader and h5py, {workers} workers"] = lambda workers=workers: dataloader(folder, workers, batches, False)
    if python and threads == 1:
        questions["DataLoader and h5py, bf16 converted by it"] = lambda: dataloader(folder, 0, 2, True)
    return questions


def main(folder):
    folder = pathlib.Path(folder)
    full, sparse = folder / "full", folder / "sparse"
    if not (full / "manifest.json").exists():
        reader_folders.make_full(full, shards=4, rows=80)
    if not (sparse / "manifest.json").exists():
        reader_folders.make_sparse(sparse, shards=1000, rows=128)
    load = os.getloadavg()[0]
    print(f"Machine: {platform.processor() or platform.machine()}, {CORES} cores, load {load:.1f} at the start. Command: `benchmarks/data/reader.sh`.")
    print(f"Every figure is the median of {ROUNDS} runs, the rows of a table run in turn. A sample is two latents of 3072 x 768 bf16, eight pictures of")
    print("256 px, a light map of 256 x 512 f16 and cameras, 11.8 MB; batches of 8, GB are of stored bytes.")
    for path in full.glob("*.h5"):  # into the page cache
        path.read_bytes()
    for threads in sorted({1, CORES}):
        questions = speeds(full, threads, 40) | {"raw io_uring": lambda threads=threads: ask("uring", full, threads, 40, BATCH)}
        speed_table(f"From the page cache, {threads} thread{'s' if threads > 1 else ''}", in_turn(questions), "raw pread")
    questions = speeds(full, CORES, 16, python=False) | {"raw pread with O_DIRECT": lambda: ask("direct", full, CORES, 16, BATCH),
                                                             "raw io_uring": lambda: ask("uring", full, CORES, 16, BATCH)}
    speed_table(f"From the disk (the page cache emptied of the files), {CORES} threads", in_turn(questions, lambda: forget(full)), "raw pread")
    more_than_memory(full)
    for path in full.glob("*.h5"):
        path.read_bytes()
    consume = [ask("consume", full, 1, 100, BATCH, 1.0) for _ in range(3)]
    print(f"\n### A consumer of 1 GB/s (a batch every {consume[0]['step_ms']:.0f} ms), 1 thread\n\nWaited {median(consume, 'wait_percent'):.3f} % of the time;"
          f" {median(consume, 'cores'):.2f} cores busy.")
    verify = {"1 thread": lambda: ask("verify", full, 1), f"{CORES} threads": lambda: ask("verify", full, CORES)}
    speed_table("`duoflow verify` of the folder, from the page cache", in_turn(verify), "1 thread")
    memory = ask("memory", full, CORES, 10000, 1)
    print(f"\n### Memory over {memory['batches']} batches (of one sample)\n\nResident MiB at each tenth: {', '.join(f'{x:.0f}' for x in memory['resident_mib'])}.")
    print("\n### Start on 1000 shards (128 000 rows, 896 000 pairs, a manifest of 42 MB)\n\n| | index | tables | first batch | in all |\n|---|---|---|---|---|")
    for name, before in (("warm", lambda: None), ("cold", lambda: forget(sparse))):
        runs = in_turn({name: lambda: ask("startup", sparse)}, before)[name]
        parts = [median(runs, key) for key in ("index_ms", "tables_ms", "first_batch_ms")]
        print(f"| {name} | {parts[0]:.0f} ms | {parts[1]:.0f} ms | {parts[2]:.0f} ms | {sum(parts):.0f} ms |")
    print("\n### First batch after a resume, by the position\n\n| position | ms |\n|---|---|")
    positions = (0, 10**6, 10**12, 10**18)
    resumed = in_turn({position: lambda position=position: ask("resume", full, 1, position) for position in positions})
    for position, runs in resumed.items():
        print(f"| {position:.0e} | {median(runs, 'first_batch_ms'):.1f} |")


if __name__ == "__main__":
    if sys.argv[1] == "--dataloader":
        run_dataloader(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5] == "1")
    else:
        main(sys.argv[1])
