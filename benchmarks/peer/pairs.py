"""A batch of cached pairs from duoflow's pair shards, as the tensors that `duoflow step` reads (DESIGN section 9)."""

import json
import math
import pathlib

import h5py
import numpy as np
import torch
import torch.nn.functional as F

import networks  # also puts the twin on the path
import twin


def open_shard(folder):
    """The folder's first shard: any of them has the shapes of all."""
    name = json.loads((pathlib.Path(folder) / "manifest.json").read_text())["shards"][0]["file"]
    shard = h5py.File(pathlib.Path(folder) / name)
    if shard["latents"].dtype not in (np.float16, np.float32):
        raise SystemExit(f"{folder}/{name}: the latents are {shard['latents'].dtype} (h5py has no such numbers), encode with --dtype f32")
    return shard


def latent_statistics(folder):
    with open_shard(folder) as shard:
        return {f"latent_{name}": torch.tensor(shard.attrs[f"latent_{name}"], dtype=torch.float32) for name in ("mean", "std")}


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
    with open_shard(folder) as shard:
        count = len(shard["pairs"])
        if samples > count or targets > shard["target_images"].shape[1]:
            raise SystemExit(f"{folder}: {count} pairs of {shard['target_images'].shape[1]} views (the batch is of {samples} pairs, "
                             f"{targets} views), encode more, or ask for fewer")
        rows = [shard["pairs"][i * count // samples] for i in range(samples)]
        of_target = lambda name: torch.tensor(np.stack([shard[name][row[1], :targets] for row in rows]))
        batch = {f"x{end}": torch.tensor(np.stack([shard["latents"][row[end]] for row in rows])).float() for end in (0, 1)}
        batch["t"] = torch.linspace(0.05, 0.95, samples)
        batch["target_image"] = of_target("target_images").movedim(-1, -3).float().div(255).contiguous()
        batch |= {f"target_{name}": of_target(f"target_{name}") for name in ("c2w", "fxfycxcy")}
        lights = [shard["env"][shard["env_row"][row[1]]] for row in rows]
        return batch | light_maps(torch.tensor(np.stack(lights)), env_height)


def held_in_memory(batch, rank, ranks, device):
    """The rank's block of the batch with all that duoflow makes anew in every step made once: rays, joined light maps."""
    share = len(batch["t"]) // ranks
    own = {name: value[rank * share : (rank + 1) * share] for name, value in batch.items()}
    held = {name: own[name] for name in ("x0", "x1", "t", "target_image")}
    held["env"] = torch.cat([own["env_ldr"], own["env_hdr"], own["env_dir"]], dim=2)
    held["target_rays"] = twin.pluecker(own["target_c2w"], own["target_fxfycxcy"], *own["target_image"].shape[-2:])
    return {name: value.contiguous().to(device) for name, value in held.items()}
