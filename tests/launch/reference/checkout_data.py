"""The family's data path on a folder of its own scenes, against ingest and encode.

Pictures, intrinsics and light maps as its Dataset class gives them, cameras as it normalises them (over all views it drew).
"""

import json
import random
import sys

import numpy as np
import torch
import yaml
from easydict import EasyDict

import checkout_step
import parity_table as tolerance
from checkout_cases import FLOW, PATCH, RESIDUAL, Case
from checkout_parts import SOURCE, quietly

sys.path.insert(0, str(SOURCE / "launch"))
import duoflow_h5  # noqa: E402

SIZE, OBJECT, PREFIX = 40, "suzi", "/data/relit/lvsm_scenes"
LIGHTS, LIGHTS_GLOB = ("env_0", "env_1", "env_2"), "env_[012]"
INPUTS, TARGETS, FRAMES = (0, 3, 6, 9), (1, 5, 10), 12
SQUARE = {"image_size": SIZE, "patch_size": PATCH}


def spelled(frames):
    return ",".join(map(str, frames))


def case_of(class_name, **training):
    editor = dict(use_residual_mode=True) if class_name == RESIDUAL else {}
    case = Case("data", class_name, "", len(INPUTS), len(TARGETS), dict(n_latent_vectors=40), editor, training)
    config = case.config()
    for name in ("image_tokenizer", "target_pose_tokenizer"):
        config["model"][name] |= SQUARE
    return case, config


def ingest(program, scenes):
    listed, out = program.scratch / "scenes.txt", program.scratch / "scenes"
    names = sorted(path.name for path in (scenes / "test" / "metadata").glob(f"{OBJECT}_*.json"))  # the class draws from all of them
    listed.write_text("".join(f"{PREFIX}/test/metadata/{name}\n" for name in names))
    program("ingest", "--scenes", listed, "--remap", f"{PREFIX}={scenes}", "--out", out, "--size", SIZE)
    return listed, out


def dataset_sample(listed, scenes, light, order):
    """The family's Dataset at one scene with the views `order`, in that order, as in its inference."""
    from data.dataset_scene import Dataset

    views = listed.parent / "views.json"
    name = f"{OBJECT}_{light}"
    views.write_text(json.dumps({name: {"context": list(order), "target": []}}))
    config = case_of(FLOW)[1]
    config["training"] |= {"dataset_path": str(listed), "og_dataset_base": PREFIX, "local_dataset_base": str(scenes), "square_crop": True,
                           "scene_scale_factor": 1.35}
    random.seed(5)  # which light it relights to
    config["inference"] = {"if_inference": True, "view_idx_file_path": str(views)}
    return quietly(lambda: Dataset(EasyDict(config))[0])


def encoded(program, checkpoint, folder, inputs, targets, name, lights="*", *overrides):
    out = program.scratch / name
    program("encode", "--checkpoint", checkpoint, "--data", folder, "--out", out, "--dtype", "f32", "--target-frames", spelled(targets),
            "--lights", lights, f"data.input_frames={spelled(inputs)}", f"training.num_input_views={len(inputs)}", *overrides)
    return duoflow_h5.Folder(out)


def imported(program, config, model, name):
    """duoflow's checkpoint of a state dict, and the state dict given to the class."""
    file, path = program.scratch / f"{name}.pt", program.scratch / f"{name}.yaml"
    torch.save({"model": checkout_step.own(model.state_dict())}, file)
    path.write_text(yaml.safe_dump(config))
    program("import", file, program.scratch / name, "--config", path)
    return program.scratch / name


def looked_up(map_HWC, directions):
    """Bilinear look-up of a world-frame map (Z up, centre +X, left quarter +Y) towards unit directions [N,3]."""
    h, w, _ = map_HWC.shape
    u = (0.5 - np.arctan2(directions[:, 1], directions[:, 0]) / (2 * np.pi)) * w - 0.5
    v = np.arccos(np.clip(directions[:, 2], -1, 1)) / np.pi * h - 0.5
    i, j = np.floor(u).astype(int), np.floor(v).astype(int)
    a, b = (u - i)[:, None], (v - j)[:, None]
    at = lambda row, column: map_HWC[np.clip(row, 0, h - 1), column % w]
    return (1 - b) * ((1 - a) * at(j, i) + a * at(j, i + 1)) + b * ((1 - a) * at(j + 1, i) + a * at(j + 1, i + 1))


def compare_samples(program, table, listed, scenes, folder, checkpoint):
    order = list(range(FRAMES))
    stored = {scene["light"]: scene for scene in duoflow_h5.Folder(folder).scenes()}
    rows = {row["light"]: row for row in encoded(program, checkpoint, folder, order, order, "pairs_all").rows()}
    scale = lambda image: torch.from_numpy(np.asarray(image)).permute(0, 3, 1, 2).float() / 255
    errors = {name: {} for name in ("pictures", "intrinsics", "light maps", "cameras, same views")}
    for light in LIGHTS:
        sample, scene, row = dataset_sample(listed, scenes, light, order), stored[light], rows[light]
        relit = sample["relit_scene_name"].removeprefix(OBJECT + "_")
        errors["pictures"][light] = tolerance.absolute(scale(scene["images"]), sample["image"])
        errors["intrinsics"][light] = tolerance.relative(torch.from_numpy(np.asarray(scene["fxfycxcy"])), sample["fxfycxcy"])
        errors["cameras, same views"][light] = tolerance.absolute(torch.from_numpy(np.asarray(row["target_c2w"])), sample["c2w"])
        for name in ("env_ldr", "env_hdr"):
            errors["light maps"][f"{name} of {relit}"] = tolerance.absolute(scale(stored[relit][name]), sample[name])
    # A picture composited over white is a float there and eight bits here: half a step.
    for name, allowed in (("pictures", 0.5 / 255 + 1e-6), ("intrinsics", 1e-6), ("light maps", 1e-7), ("cameras, same views", 2e-6)):
        table.add("data path", f"{name} (Dataset against shards)", errors[name], allowed)
    compare_directions(table, sample, rows[relit])
    compare_frames(program, table, listed, scenes, folder, checkpoint)


def compare_frames(program, table, listed, scenes, folder, checkpoint):
    """Of four inputs and three targets: its classes normalise over all seven, and so does a config that names one of them."""
    errors = {}
    for frame in ("all", "inputs"):
        shards = encoded(program, checkpoint, folder, INPUTS, TARGETS, f"pairs_{frame}", LIGHTS_GLOB, f"data.camera_frame={frame}")
        row = next(iter(shards.rows()))
        theirs = dataset_sample(listed, scenes, row["light"], [*INPUTS, *TARGETS])["c2w"][len(INPUTS):]
        errors[frame] = tolerance.absolute(torch.from_numpy(np.asarray(row["target_c2w"])), theirs)
    table.add("data path", "cameras of targets that are no inputs", {"all": errors["all"]}, 2e-6)
    table.note("data path", "the same under duoflow's own default, data.camera_frame: inputs", [errors["inputs"]])


def compare_directions(table, sample, row):
    """Where its per-view maps say that light comes from, in the normalised frame, and what duoflow's one map has there."""
    from utils.data_utils import ProcessData

    h, w = sample["env_ldr"].shape[2:]
    directions = ProcessData(EasyDict(case_of(FLOW)[1])).compute_env_dir(sample["c2w"][None], h, w, "cpu")[0]
    turn = np.asarray(row["world_to_norm"], np.float64)[:3, :3]
    turn /= np.cbrt(np.linalg.det(turn))
    median, far, mirrored = {}, {}, []
    for view in range(FRAMES):
        world = directions[view].permute(1, 2, 0).reshape(-1, 3).double().numpy() @ turn  # a rotation's inverse is its transpose
        theirs = sample["env_ldr"][view].permute(1, 2, 0).reshape(-1, 3).double().numpy()
        seen = lambda towards: np.abs(np.clip(looked_up(np.asarray(row["env"], np.float64), towards), 0, 1) ** (1 / 2.2) - theirs)
        error = seen(world)
        median[f"view {view}"], far[f"view {view}"] = float(np.median(error)), float(np.mean(error > 0.1))
        mirrored.append(float(np.mean(seen(world * [1, -1, 1]) > 0.1)))
    # Its maps are 64 rows of one picture each, duoflow's comes from the first of them, resampled: edges of lamps are blurred.
    table.add("data path", "light towards its directions, LDR, median difference", median, 2 / 255)
    table.add("data path", f"the same, share more than 0.1 off (mirrored it would be {np.mean(mirrored):.2f})", far, 0.1)


def compare(program, table, scenes):
    """(the ingested folder, a checkpoint of the flow class) for what else is compared on them."""
    listed, folder = ingest(program, scenes)
    _, config = case_of(FLOW)
    model = quietly(lambda: checkout_step.build(config))
    checkout_step.given_weights(model)
    checkpoint = imported(program, config, model, "plain")
    compare_samples(program, table, listed, scenes, folder, checkpoint)
    return folder, checkpoint
