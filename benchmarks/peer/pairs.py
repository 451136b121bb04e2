"""A batch of cached pairs from duoflow's pair shards, as the tensors that `duoflow step` reads (DESIGN section 9). The numbers
come from where the folder's manifest says that they lie: no HDF5 is needed."""

import json
import math
import pathlib

import torch
import torch.nn.functional as F

import networks  # also puts the twin on the path
import tensor_file
import twin

TYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16, "i64": torch.int64, "u8": torch.uint8}


class Shard:
    """The folder's first: any of them has the shapes of all."""

    def __init__(self, folder):
        described = json.loads((pathlib.Path(folder) / "manifest.json").read_text())["shards"][0]
        self.path, self.datasets, self.attributes = pathlib.Path(folder) / described["file"], described["datasets"], described["attributes"]

    def shape(self, name):
        return self.datasets[name]["shape"]

    def row(self, name, number):
        dataset = self.datasets[name]
        if not dataset["raw"]:
            raise SystemExit(f"{self.path}: {name} is not plain bytes in the file, write it again with `duoflow repack`")
        dtype, shape = TYPES[dataset["dtype"]], dataset["shape"][1:]
        with open(self.path, "rb") as file:
            return tensor_file.read_array(file, dataset["offset"] + number * math.prod(shape) * dtype.itemsize, dtype, shape)


def latent_statistics(folder):
    attributes = Shard(folder).attributes
    return {f"latent_{name}": torch.tensor(attributes[f"latent_{name}"], dtype=torch.float32) for name in ("mean", "std")}


def light_maps(env, height):
    """[R,h,w,3] linear -> LDR, HDR and direction maps [R,1,3,height,2*height]. One encoding whatever data.light_encoding
    says: both programs get these very values, and no time depends on them."""
    radiance = F.interpolate(env.permute(0, 3, 1, 2).float().clamp_min(0), size=(height, 2 * height), mode="bilinear", align_corners=False)
    theta = ((torch.arange(height) + 0.5) * (math.pi / height))[:, None]
    phi = (math.pi - (torch.arange(2 * height) + 0.5) * (math.pi / height))[None]
    directions = torch.stack([theta.sin() * phi.cos(), theta.sin() * phi.sin(), theta.cos().expand(-1, 2 * height)])
    maps = radiance, radiance.log1p(), directions.expand_as(radiance)
    return {f"env_{name}": value[:, None].contiguous() for name, value in zip(("ldr", "hdr", "dir"), maps, strict=True)}


def read_batch(folder, samples, targets, env_height):
    """`samples` pairs spread over the shard, each with its first `targets` views; t from 0.05 to 0.95."""
    shard = Shard(folder)
    count, views = shard.shape("pairs")[0], shard.shape("target_images")[1]
    if samples > count or targets > views:
        raise SystemExit(f"{folder}: {count} pairs of {views} views (the batch is of {samples} pairs, {targets} views), encode more, or ask for fewer")
    ends = [shard.row("pairs", i * count // samples).tolist() for i in range(samples)]
    of_target = lambda name: torch.stack([shard.row(name, end[1])[:targets] for end in ends])
    batch = {f"x{which}": torch.stack([shard.row("latents", end[which]) for end in ends]).float() for which in (0, 1)}
    batch["t"] = torch.linspace(0.05, 0.95, samples)
    batch["target_image"] = of_target("target_images").movedim(-1, -3).float().div(255).contiguous()
    batch |= {f"target_{name}": of_target(f"target_{name}") for name in ("c2w", "fxfycxcy")}
    lights = [shard.row("env", int(shard.row("env_row", end[1]))) for end in ends]
    return batch | light_maps(torch.stack(lights), env_height)


def held_in_memory(batch, rank, ranks, device):
    """The rank's block of the batch with all that duoflow makes anew in every step made once: rays, joined light maps."""
    share = len(batch["t"]) // ranks
    own = {name: value[rank * share : (rank + 1) * share] for name, value in batch.items()}
    held = {name: own[name] for name in ("x0", "x1", "t", "target_image")}
    held["env"] = torch.cat([own["env_ldr"], own["env_hdr"], own["env_dir"]], dim=2)
    held["target_rays"] = twin.pluecker(own["target_c2w"], own["target_fxfycxcy"], *own["target_image"].shape[-2:])
    return {name: value.contiguous().to(device) for name, value in held.items()}
