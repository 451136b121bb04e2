"""Ways to hurt a data folder, and to make a hurt one look whole: the hashes of shards and manifest as duoflow writes them."""

import ctypes
import ctypes.util
import functools
import json
import math
import pathlib

import h5py

ITEM_BYTES = {"u8": 1, "i64": 8, "f16": 2, "bf16": 2, "f32": 4}


@functools.cache
def _xxh3():
    library = ctypes.CDLL(ctypes.util.find_library("xxhash") or "libxxhash.so.0")
    library.XXH3_64bits.restype = ctypes.c_uint64
    library.XXH3_64bits.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
    return library.XXH3_64bits


def xxh3(data):
    return f"{_xxh3()(data, len(data)):016x}"


def place(shard, dataset, row):
    """(offset, bytes) of one row of a contiguous dataset, as HDF5 itself reports it."""
    with h5py.File(shard, "r") as file:
        stored = file[dataset]
        row_bytes = stored.id.get_type().get_size() * math.prod(stored.shape[1:])  # h5py shows bf16 as float32
        return stored.id.get_offset() + row * row_bytes, row_bytes


def overwrite(path, offset, data):
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data)


def flip_bit(path, offset):
    overwrite(path, offset, bytes([path.read_bytes()[offset] ^ 1]))


def flip_every_row(shard, dataset):
    """One bit of every row: whatever is read first is damaged."""
    with h5py.File(shard, "r") as file:
        rows = file[dataset].shape[0]
    for row in range(rows):
        flip_bit(shard, place(shard, dataset, row)[0])


def truncate(path, share):
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])


def manifest_text(manifest):
    """The text with its own hash in it; of an unaltered manifest it is the file."""
    body = {key: value for key, value in manifest.items() if key != "xxh3"}
    body["xxh3"] = xxh3(_dump(body).encode())
    return _dump(body) + "\n"


def _dump(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def rehash(folder):
    """Makes the manifest describe the shards as they are now."""
    path = pathlib.Path(folder) / "manifest.json"
    manifest = json.loads(path.read_text())
    for shard in manifest["shards"]:
        data = (pathlib.Path(folder) / shard["file"]).read_bytes()
        shard["bytes"], shard["xxh3"] = len(data), xxh3(data)
        for dataset in shard["datasets"].values():
            if dataset["dtype"] not in ITEM_BYTES:
                continue
            rows, row_bytes = dataset["shape"][0], ITEM_BYTES[dataset["dtype"]] * math.prod(dataset["shape"][1:])
            begins = [dataset["offset"] + row * row_bytes for row in range(rows)]
            dataset["row_xxh3"] = [xxh3(data[begin : begin + row_bytes]) for begin in begins]
    path.write_text(manifest_text(manifest))
