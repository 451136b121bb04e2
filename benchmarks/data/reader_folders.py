"""Pair folders to measure with: shards by h5py, the manifest as duoflow writes it."""

import ctypes
import ctypes.util
import json
import math
import os
import pathlib

import h5py
import numpy as np

BF16 = h5py.h5t.IEEE_F32LE.copy()
BF16.set_fields(15, 7, 8, 0, 7)
BF16.set_ebias(127)
BF16.set_precision(16)
BF16.set_size(2)
U8, I64, F16, F32 = h5py.h5t.STD_U8LE, h5py.h5t.STD_I64LE, h5py.h5t.IEEE_F16LE, h5py.h5t.IEEE_F32LE
NAME = h5py.h5t.C_S1.copy()
NAME.set_size(64)
NAME.set_strpad(h5py.h5t.STR_NULLPAD)
ITEM = {"u8": 1, "i64": 8, "f16": 2, "bf16": 2, "f32": 4, "name": 64}
LIGHTS = 8  # of an object: 7 pairs a row

_xxhash = ctypes.CDLL(ctypes.util.find_library("xxhash") or "libxxhash.so.0")
_xxhash.XXH3_64bits.restype = ctypes.c_uint64
_xxhash.XXH3_64bits.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


def xxh3(data):
    view = np.frombuffer(data, np.uint8)
    return f"{_xxhash.XXH3_64bits(view.ctypes.data, view.size):016x}"


def layout(rows, tokens, dim, targets, size, env):
    return {"latents": ("bf16", BF16, (rows, tokens, dim)), "target_images": ("u8", U8, (rows, targets, size, size, 3)),
            "env": ("f16", F16, (rows, env, 2 * env, 3)), "target_c2w": ("f32", F32, (rows, targets, 4, 4)),
            "target_fxfycxcy": ("f32", F32, (rows, targets, 4)), "world_to_norm": ("f32", F32, (rows, 4, 4)), "env_row": ("i64", I64, (rows,)),
            "row/object": ("name", NAME, (rows,)), "row/light": ("name", NAME, (rows,)), "row/view_set": ("i64", I64, (rows,)),
            "pairs": ("i64", I64, (rows * (LIGHTS - 1), 2))}


def tables(rows, shard):
    """The small datasets: `rows` latents of rows / LIGHTS objects, every ordered pair of an object's lights."""
    objects = [f"object_{shard:05d}_{row // LIGHTS:03d}" for row in range(rows)]
    pairs = [(row, other) for row in range(rows) for other in range(row // LIGHTS * LIGHTS, (row // LIGHTS + 1) * LIGHTS) if other != row]
    camera = np.eye(4, dtype=np.float32)
    return {"row/object": np.array(objects, "S64"), "row/light": np.array([f"env_{row % LIGHTS:03d}" for row in range(rows)], "S64"),
            "row/view_set": np.zeros(rows, np.int64), "env_row": np.arange(rows), "pairs": np.array(pairs, np.int64),
            "world_to_norm": np.tile(camera, (rows, 1, 1))}


def write_shard(path, shapes, values):
    """Early allocation without a fill: what is not in `values` stays a hole in the file."""
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_libver_bounds(h5py.h5f.LIBVER_EARLIEST, h5py.h5f.LIBVER_LATEST)
    access.set_alignment(65536, 4096)
    with h5py.File(h5py.h5f.create(str(path).encode(), h5py.h5f.ACC_TRUNC, fapl=access)) as file:
        file.attrs["schema_version"] = np.int64(1)
        for name, text in (("kind", "pair"), ("producer", "benchmark"), ("note", "made for a benchmark")):
            file.attrs[name] = np.bytes_(text)
        file.create_group("row")
        for name, (_, kind, shape) in shapes.items():
            how = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            how.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
            how.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
            made = h5py.h5d.create(file.id, name.encode(), kind, h5py.h5s.create_simple(shape), how)
            if name in values:
                made.write(h5py.h5s.ALL, h5py.h5s.ALL, np.ascontiguousarray(values[name]), mtype=kind)
        return {name: file[name].id.get_offset() for name in shapes}


def gaps(shapes, offsets, size):
    at = 0
    for offset, name in sorted((offset, name) for name, offset in offsets.items()):
        yield at, offset
        at = offset + ITEM[shapes[name][0]] * math.prod(shapes[name][2])
    yield at, size


def describe(path, shapes, offsets, row_hashes, whole):
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        rest = b"".join(os.pread(file.fileno(), end - begin, begin) for begin, end in gaps(shapes, offsets, size))
    datasets = {name: {"dtype": kind, "shape": list(shape), "offset": offsets[name], "raw": True, "row_xxh3": row_hashes[name]}
                for name, (kind, _, shape) in shapes.items()}
    attributes = {"producer": "benchmark", "note": "made for a benchmark", "latent_mean": [], "latent_std": []}
    return {"file": path.name, "bytes": size, "xxh3": whole, "rest_xxh3": xxh3(rest), "attributes": attributes, "datasets": datasets}


def hashes_of(data, shapes, name):
    kind, _, shape = shapes[name]
    row = ITEM[kind] * math.prod(shape[1:])
    return [xxh3(data[at:at + row]) for at in range(0, row * shape[0], row)]


def write_manifest(folder, shards):
    body = {"kind": "pair", "schema_version": 1, "shards": shards}
    dump = lambda value: json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    (folder / "manifest.json").write_text(dump(body | {"xxh3": xxh3(dump(body).encode())}) + "\n")


def make_full(folder, shards, rows, tokens=3072, dim=768, targets=8, size=256, env=256):
    """Real bytes: random latents (finite), pictures and lights."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    shapes = layout(rows, tokens, dim, targets, size, env)
    random = np.random.default_rng(1)
    entries = []
    for shard in range(shards):
        path = folder / f"pairs-{shard:05d}.h5"
        values = tables(rows, shard)
        for name in ("latents", "env"):
            values[name] = random.integers(0, 1 << 14, shapes[name][2], np.uint16)
        values["target_images"] = random.integers(0, 256, shapes["target_images"][2], np.uint8)
        values["target_c2w"] = np.tile(np.eye(4, dtype=np.float32), (rows, targets, 1, 1))
        values["target_fxfycxcy"] = np.tile(np.array([size, size, size / 2, size / 2], np.float32), (rows, targets, 1))
        offsets = write_shard(path, shapes, values)
        data = path.read_bytes()
        rows_of = {name: hashes_of(memoryview(data)[offset:], shapes, name) for name, offset in offsets.items()}
        entries.append(describe(path, shapes, offsets, rows_of, xxh3(data)))
    write_manifest(folder, entries)


def make_sparse(folder, shards, rows, **sizes):
    """Latents, pictures and lights are holes (zeros); the hashes of whole files are made up: only the start is measured."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    shapes = layout(rows, **({"tokens": 3072, "dim": 768, "targets": 8, "size": 256, "env": 256} | sizes))
    zeros = {}
    for name, (kind, _, shape) in shapes.items():
        zeros[name] = [xxh3(bytes(ITEM[kind] * math.prod(shape[1:])))] * shape[0]
    entries = []
    for shard in range(shards):
        path, values = folder / f"pairs-{shard:05d}.h5", tables(rows, shard)
        offsets = write_shard(path, shapes, values)
        known = {name: hashes_of(np.ascontiguousarray(value).tobytes(), shapes, name) for name, value in values.items()}
        entries.append(describe(path, shapes, offsets, zeros | known, f"{shard:016x}"))
    write_manifest(folder, entries)
