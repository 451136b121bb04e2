"""duoflow's data folders from Python (numpy and h5py; torch only where it is asked for).

Read. Numbers come straight from the file at the manifest's offsets, bf16 as its exact bits (h5py would take 150 ms for a row of
4.7 MB, this takes one read):

    import duoflow_h5
    pairs = duoflow_h5.Folder("pairs")
    for row in pairs.rows():                      # object, light, view_set, latents (float32), target_images, ..., env
        print(row["object"], row["light"], row["latents"].std())
    x0, x1 = pairs.pair(0)                        # two such rows
    latents = duoflow_h5.to_torch(pairs.read(shard=0, dataset="latents", first=0, count=8), "bf16")   # torch.bfloat16
    for scene in duoflow_h5.Folder("scenes").scenes():
        print(scene["object"], scene["light"], scene["images"].shape, scene["c2w"].shape)

Write shards of the schema (data/shards/shard_schema.h), then let `duoflow index` check them and write the manifest, hashes included:

    # Latents of your own model: every scene under every light, views 0-3 in, the others as targets.
    import torch, duoflow_h5
    for number, name in enumerate(objects):
        rows = []
        for light in lights:
            scene = load(name, light)                              # your loader
            with torch.no_grad():
                latents = model.encode(scene.images[:4], scene.c2w[:4], scene.fxfycxcy[:4])   # [n,d]
            rows.append({
                "object": name, "light": light, "latents": latents,
                "target_images": scene.images_u8[4:],              # u8 [T,H,W,3], over white
                "target_c2w": scene.normalised_c2w[4:],            # [T,4,4] OpenCV, in the frame the latents were made in
                "target_fxfycxcy": scene.fxfycxcy[4:],             # [T,4] pixels
                "env": scene.light_map,                            # [h,2h,3] linear, Z up
                "world_to_norm": scene.world_to_norm,              # [4,4], from the map's frame to the latents'
            })
        duoflow_h5.write_pair_shard(f"pairs/pairs-{number:05d}.h5", rows, dtype="bf16", producer="my-model-1")
    duoflow_h5.index("pairs", program="build/duoflow")

Then: build/duoflow verify pairs; build/duoflow train --data pairs ... data.allow_other_producer=true
"""

import itertools
import json
import os
import pathlib
import subprocess

import h5py
import numpy as np

SCHEMA_VERSION = 1
NAME_BYTES = 64
# How numpy holds what is stored; bf16, which numpy lacks, as its bits.
STORED = {"u8": "<u1", "i64": "<i8", "f16": "<f2", "bf16": "<u2", "f32": "<f4", "name": f"S{NAME_BYTES}"}
CONVENTIONS = {"camera_convention": "opencv c2w, pixel corners at integers", "image_colour": "8-bit gamma 1/2.2 over white"}


def to_float32(stored, dtype):
    """Exact: every f16 and bf16 is a float32."""
    if dtype == "bf16":
        return (stored.astype(np.uint32) << 16).view(np.float32)
    return stored.astype(np.float32)


def to_torch(stored, dtype):
    """The same bits as a tensor of that type, without a copy where the array may be written to."""
    import torch

    array = np.require(stored, requirements=["C", "W"])
    return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16) if dtype == "bf16" else torch.from_numpy(array)


def from_float(values, dtype):
    """To what is stored, rounded to nearest with ties to even. ValueError for what is not finite or does not fit."""
    values = np.ascontiguousarray(_numpy(values), dtype=np.float32)
    if not np.isfinite(values).all():
        raise ValueError(f"number {np.flatnonzero(~np.isfinite(values.ravel()))[0]} is not finite (training on it would spoil the model)")
    with np.errstate(over="ignore"):
        if dtype == "bf16":
            bits = values.view(np.uint32)
            stored = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
        else:
            stored = values.astype(STORED[dtype])
    if not np.isfinite(to_float32(stored, dtype)).all():
        raise ValueError(f"the largest number, {np.abs(values).max()}, is beyond {dtype}: store another type")
    return stored


class Folder:
    """A finished data folder. Nothing is read before it is asked for; hashes are `duoflow verify`'s business."""

    def __init__(self, path):
        self.path = pathlib.Path(path)
        manifest = self.path / "manifest.json"
        if not manifest.exists():
            raise FileNotFoundError(f"{manifest} is not there: `duoflow index {path}` writes it for finished shards")
        contents = json.loads(manifest.read_text())
        if not 1 <= contents["schema_version"] <= SCHEMA_VERSION:
            raise ValueError(f"{manifest} has schema version {contents['schema_version']}, this module knows {SCHEMA_VERSION}")
        self.kind, self.shards = contents["kind"], contents["shards"]

    def dtype(self, dataset, shard=0):
        return self.shards[shard]["datasets"][dataset]["dtype"]

    def read(self, shard, dataset, first=0, count=None):
        """Rows as stored (STORED has the types), with the dataset's shape."""
        place = self.shards[shard]["datasets"][dataset]
        count = place["shape"][0] - first if count is None else count
        if first < 0 or count < 0 or first + count > place["shape"][0]:
            raise IndexError(f"rows {first} to {first + count} of {dataset}, which has {place['shape'][0]}")
        shape, stored = (count, *place["shape"][1:]), np.dtype(STORED[place["dtype"]])
        if not place["raw"]:
            return self._read_by_library(shard, dataset, first, shape, stored)
        row_bytes = stored.itemsize * int(np.prod(shape[1:], dtype=np.int64))
        array = np.empty(shape, stored)
        with open(self.path / self.shards[shard]["file"], "rb") as file:
            file.seek(place["offset"] + first * row_bytes)
            if file.readinto(array.reshape(-1).view(np.uint8)) != count * row_bytes:
                raise EOFError(f"{file.name} ends inside {dataset}: it was cut short")
        return array

    def _read_by_library(self, shard, dataset, first, shape, stored):
        with h5py.File(self.path / self.shards[shard]["file"], "r") as file:
            source = file[dataset].id
            space, kind = source.get_space(), source.get_type()
            space.select_hyperslab((first, *[0] * (len(shape) - 1)), shape)
            array = np.empty(shape, stored)
            source.read(h5py.h5s.create_simple(shape), space, array, mtype=kind)  # the file's own type: nothing is converted
            big = array.itemsize > 1 and stored.kind != "S" and kind.get_order() == h5py.h5t.ORDER_BE
            return array.byteswap() if big else array

    def names(self, shard, dataset):
        return [name.decode() for name in self.read(shard, dataset)]

    def rows(self):
        """Every row of a pair folder as a dictionary, in the folder's order; latents and env as float32."""
        self._require("pair")
        for shard in range(len(self.shards)):
            for row in range(self.shards[shard]["datasets"]["latents"]["shape"][0]):
                yield self._row(shard, row)

    def pair_count(self):
        self._require("pair")
        return sum(shard["datasets"]["pairs"]["shape"][0] for shard in self.shards)

    def pair(self, number):
        """The rows of x0 and x1 of pair `number`, counted over all shards."""
        self._require("pair")
        for shard, info in enumerate(self.shards):
            count = info["datasets"]["pairs"]["shape"][0]
            if 0 <= number < count:
                return tuple(self._row(shard, int(row)) for row in self.read(shard, "pairs", number, 1)[0])
            number -= count
        raise IndexError("no such pair")

    def scenes(self):
        """Every scene of a scene folder as a dictionary, in the folder's order; `env` where the folder has maps of scenes."""
        self._require("scene")
        for shard, info in enumerate(self.shards):
            table = {name: self.read(shard, f"scene/{name}") for name in ("object", "light", "first_frame", "frame_count", "env_row", "env_rotation")}
            for scene in range(len(table["object"])):
                first, count = int(table["first_frame"][scene]), int(table["frame_count"][scene])
                result = {"object": table["object"][scene].decode(), "light": table["light"][scene].decode(), "env_rotation": table["env_rotation"][scene]}
                for name in ("images", "alpha", "c2w", "fxfycxcy", "env_ldr", "env_hdr"):
                    if name in info["datasets"]:
                        result[name] = self.read(shard, name, first, count)
                if table["env_row"][scene] >= 0:
                    result["env"] = to_float32(self.read(shard, "env", int(table["env_row"][scene]), 1)[0], "f16")
                yield result

    def _row(self, shard, row):
        result = {"object": self.read(shard, "row/object", row, 1)[0].decode(), "light": self.read(shard, "row/light", row, 1)[0].decode(),
                  "view_set": int(self.read(shard, "row/view_set", row, 1)[0])}
        result["latents"] = to_float32(self.read(shard, "latents", row, 1)[0], self.dtype("latents", shard))
        for name in ("target_images", "target_alpha", "target_c2w", "target_fxfycxcy", "world_to_norm"):
            if name in self.shards[shard]["datasets"]:
                result[name] = self.read(shard, name, row, 1)[0]
        result["env"] = to_float32(self.read(shard, "env", int(self.read(shard, "env_row", row, 1)[0]), 1)[0], "f16")
        return result

    def _require(self, kind):
        if self.kind != kind:
            raise ValueError(f"{self.path} holds {self.kind} shards, this needs {kind} shards")


def write_scene_shard(path, scenes, producer="", note="duoflow_h5.py"):
    """`scenes`: dictionaries with object, light, images u8 [V,H,W,3], c2w [V,4,4] (OpenCV, world), fxfycxcy [V,4], and, in all
    of them or in none, alpha u8 [V,H,W]; env [h,w,3] (linear) with an optional env_rotation [3,3]."""
    scenes = list(scenes)
    counts = [len(scene["images"]) for scene in scenes]
    has_env, has_alpha = _in_all(scenes, "env"), _in_all(scenes, "alpha")
    datasets = {
        "images": ("u8", _joined(scenes, "images")),
        "c2w": ("f32", _joined(scenes, "c2w")),
        "fxfycxcy": ("f32", _joined(scenes, "fxfycxcy")),
        "scene/object": ("name", [scene["object"] for scene in scenes]),
        "scene/light": ("name", [scene["light"] for scene in scenes]),
        "scene/first_frame": ("i64", [0, *itertools.accumulate(counts)][:-1]),
        "scene/frame_count": ("i64", counts),
        "scene/env_row": ("i64", range(len(scenes)) if has_env else [-1] * len(scenes)),
        "scene/env_rotation": ("f32", [_numpy(scene.get("env_rotation", np.eye(3))) for scene in scenes]),
    }
    if has_alpha:
        datasets["alpha"] = ("u8", _joined(scenes, "alpha"))
    if has_env:
        datasets["env"] = ("f16", [_half_map(scene["env"]) for scene in scenes])
    _write(path, "scene", datasets, {"producer": producer, "note": note})


def write_pair_shard(path, rows, pairs=None, dtype="bf16", producer="", note="duoflow_h5.py"):
    """`rows`: dictionaries with object, light, latents [n,d], target_images u8 [T,H,W,3], target_c2w [T,4,4] (normalised),
    target_fxfycxcy [T,4], env [h,w,3] (linear); optional view_set (0), world_to_norm [4,4] (identity), and target_alpha u8 [T,H,W]
    in all of them or in none. `pairs`: [P,2], rows of x0 and x1; None: all ordered pairs of rows of one object and view set."""
    rows = list(rows)
    keys = [(row["object"], row.get("view_set", 0)) for row in rows]
    if pairs is None:
        pairs = [(a, b) for a in range(len(rows)) for b in range(len(rows)) if a != b and keys[a] == keys[b]]
    latents = [_stored_latents(row, number, dtype) for number, row in enumerate(rows)]
    tokens = np.concatenate([to_float32(row, dtype) for row in latents]).astype(np.float64)
    datasets = {
        "latents": (dtype, latents),
        "target_images": ("u8", [_numpy(row["target_images"]) for row in rows]),
        "target_c2w": ("f32", [_numpy(row["target_c2w"]) for row in rows]),
        "target_fxfycxcy": ("f32", [_numpy(row["target_fxfycxcy"]) for row in rows]),
        "world_to_norm": ("f32", [_numpy(row.get("world_to_norm", np.eye(4))) for row in rows]),
        "env": ("f16", [_half_map(row["env"]) for row in rows]),
        "env_row": ("i64", range(len(rows))),
        "row/object": ("name", [row["object"] for row in rows]),
        "row/light": ("name", [row["light"] for row in rows]),
        "row/view_set": ("i64", [key[1] for key in keys]),
        "pairs": ("i64", np.asarray(pairs, np.int64).reshape(-1, 2)),
    }
    if _in_all(rows, "target_alpha"):
        datasets["target_alpha"] = ("u8", [_numpy(row["target_alpha"]) for row in rows])
    _write(path, "pair", datasets, {"producer": producer, "note": note, "latent_mean": tokens.mean(0).astype(np.float32),
                                    "latent_std": np.maximum(tokens.std(0), 1e-6).astype(np.float32)})


def index(folder, program="duoflow"):
    """Checks the folder's shards and writes its manifest; subprocess.CalledProcessError, with the reason on stderr."""
    subprocess.run([str(program), "index", str(folder)], check=True)


def _numpy(values):
    if hasattr(values, "detach"):  # a tensor
        values = values.detach().cpu()
        values = (values.float() if values.is_floating_point() else values).numpy()
    return np.asarray(values)


def _in_all(items, key):
    found = sum(key in item for item in items)
    if found not in (0, len(items)):
        raise ValueError(f"{key} is in {found} of {len(items)}: give it in all or in none")
    return found > 0


def _joined(scenes, key):
    for scene in scenes:
        if len(scene[key]) != len(scene["images"]):
            raise ValueError(f"{scene['object']} under {scene['light']} has {len(scene[key])} {key} for {len(scene['images'])} images")
    return np.concatenate([_numpy(scene[key]) for scene in scenes])


def _stored_latents(row, number, dtype):
    try:
        return from_float(row["latents"], dtype)
    except ValueError as problem:
        raise ValueError(f"latents of row {number} ({row['object']} under {row['light']}): {problem}") from None


def _half_map(values):
    values = _numpy(values).astype(np.float32)
    if np.isnan(values).any():
        raise ValueError("a light map holds NaN")
    return np.clip(values, 0, 65504).astype("<f2")


def _names(names):
    encoded = [name.encode() for name in names]
    for name in encoded:
        if len(name) > NAME_BYTES or b"\0" in name:
            raise ValueError(f"name {name!r} does not fit into {NAME_BYTES} bytes without NUL")
    return np.array(encoded, STORED["name"])


def _hdf5_type(dtype):
    if dtype == "name":
        kind = h5py.h5t.C_S1.copy()
        kind.set_size(NAME_BYTES)
        kind.set_strpad(h5py.h5t.STR_NULLPAD)
        return kind
    if dtype != "bf16":
        return {"u8": h5py.h5t.STD_U8LE, "i64": h5py.h5t.STD_I64LE, "f16": h5py.h5t.IEEE_F16LE, "f32": h5py.h5t.IEEE_F32LE}[dtype].copy()
    kind = h5py.h5t.IEEE_F32LE.copy()  # made from the 32-bit type, as HDF5 before 2.0 has none
    kind.set_fields(15, 7, 8, 0, 7)
    kind.set_ebias(127)
    kind.set_precision(16)
    kind.set_size(2)
    return kind


def _stored_array(name, dtype, values):
    if dtype == "name":
        return _names(values)
    array = np.ascontiguousarray(np.stack([_numpy(value) for value in values]) if isinstance(values, list) else np.asarray(values))
    if dtype == "u8" and array.dtype != np.uint8:
        raise ValueError(f"{name} is {array.dtype}: pictures are uint8, 0 to 255")
    if dtype == "f32" and not np.isfinite(array.astype(np.float32)).all():
        raise ValueError(f"{name} holds a number that is not finite")
    return array.astype(STORED[dtype], copy=False)


def _write(path, kind, datasets, attributes):
    """Contiguous, unfiltered, allocated early, aligned; under its name when it is complete."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    try:
        access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
        access.set_alignment(65536, 4096)
        access.set_libver_bounds(h5py.h5f.LIBVER_V18, h5py.h5f.LIBVER_V18)
        with h5py.File(h5py.h5f.create(os.fsencode(temporary), h5py.h5f.ACC_TRUNC, fapl=access)) as file:
            for group in {name.split("/")[0] for name in datasets if "/" in name}:
                file.create_group(group)
            for name, (dtype, values) in datasets.items():
                _write_dataset(file, name, dtype, _stored_array(name, dtype, values))
            file.attrs["schema_version"] = np.int64(SCHEMA_VERSION)
            for name, value in ({"kind": kind} | CONVENTIONS | attributes).items():
                file.attrs[name] = value
        with open(temporary, "rb") as finished:
            os.fsync(finished.fileno())
        temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)


def _write_dataset(file, name, dtype, array):
    how = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    how.set_layout(h5py.h5d.CONTIGUOUS)
    how.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    how.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    how.set_obj_track_times(False)
    kind = _hdf5_type(dtype)
    made = h5py.h5d.create(file.id, name.encode(), kind, h5py.h5s.create_simple(array.shape), dcpl=how)
    if array.size:
        made.write(h5py.h5s.ALL, h5py.h5s.ALL, array, mtype=kind)  # the file's own type: nothing is converted
