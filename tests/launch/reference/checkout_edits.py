"""The classes' own inference (reconstructor, ODE or one edit, renderer) against encode and evaluate, on pair shards of real scenes."""

import csv

import numpy as np
import torch
import torch.nn.functional as F
from easydict import EasyDict

import checkout_step
import parity_table as tolerance
from checkout_cases import FLOW, ONE_STEP, RESIDUAL
from checkout_data import INPUTS, LIGHTS_GLOB, TARGETS, case_of, duoflow_h5, encoded, imported
from checkout_parts import quietly


def views_of(c2w, intrinsics, image):
    from utils.data_utils import ProcessData

    tensor = lambda x: torch.from_numpy(np.asarray(x)).float()[None]
    pixels = tensor(image).permute(0, 1, 4, 2, 3) / 255
    h, w = pixels.shape[-2:]
    origin, direction = ProcessData(EasyDict(case_of(FLOW)[1])).compute_rays(tensor(c2w), tensor(intrinsics), h, w, "cpu")
    return EasyDict(image=pixels, ray_o=origin, ray_d=direction, c2w=tensor(c2w), fxfycxcy=tensor(intrinsics), image_h_w=(h, w))


def light_inputs(row, to_norm):
    """The three maps of a view from a linear one, as the family encodes them, with their directions in the normalised frame."""
    linear = torch.from_numpy(np.asarray(row["env"], np.float32)).permute(2, 0, 1)[None]
    linear = F.interpolate(linear, size=(256, 512), mode="bilinear", align_corners=False).clamp_min(0)
    log = torch.log1p(10 * linear)
    theta = (torch.arange(256).double() + 0.5) * np.pi / 256
    phi = np.pi - (torch.arange(512).double() + 0.5) * 2 * np.pi / 512
    world = torch.stack([theta.sin()[:, None] * phi.cos(), theta.sin()[:, None] * phi.sin(), theta.cos()[:, None].expand(256, 512)])
    turned = torch.einsum("ij,jhw->ihw", torch.from_numpy(to_norm), world)
    directions = F.normalize(turned, dim=0).float()
    return {"env_ldr": linear.clamp(0, 1).pow(1 / 2.2)[None], "env_hdr": (log / log.max())[None], "env_dir": directions[None, None]}


def sharpen(model):
    """Random blocks average their tokens away: with a plain renderer no picture would depend on the light."""
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.startswith("transformer_") and name.endswith(("q_norm.weight", "attn.fc.weight")):
                value *= 4


def edited(model, rows, x0, x1, given, solver):
    """PSNR of the class's own answer: latents from its reconstructor, moved by its ODE (or once), rendered."""
    turn = np.asarray(rows[x0]["world_to_norm"], np.float64)[:3, :3]
    given.update(light_inputs(rows[x1], turn / np.cbrt(np.linalg.det(turn))))
    target = views_of(rows[x0]["target_c2w"], rows[x0]["target_fxfycxcy"], rows[x1]["target_images"])
    with torch.no_grad():
        if solver:
            image = model.flow_match_inference(None, steps=solver[1], method=solver[0], input=given, target=target).render
        else:
            latents, patches, d = model.reconstructor(given)
            image = model.renderer(model.edit_scene_with_env(latents, given), target, patches, d)
    return (-10 * (image - target.image).square().mean(dim=(2, 3, 4)).log10()).mean().item()


def sharp_model(config):
    model = quietly(lambda: checkout_step.build(config))
    checkout_step.given_weights(model)
    sharpen(model)
    quietly(model.eval)
    return model


def encoded_inputs(program, table, folder, checkpoint, model, name):
    """(pair shards, their rows by light, each light's input views as the class takes them); compares the latents."""
    shards = encoded(program, checkpoint, folder, INPUTS, TARGETS, f"pairs_{name}", LIGHTS_GLOB)
    rows = {row["light"]: row for row in shards.rows()}
    stored = {scene["light"]: scene for scene in duoflow_h5.Folder(folder).scenes()}
    # The inputs' cameras in the same frame: views that are targets too count once.
    seen = encoded(program, checkpoint, folder, INPUTS, (*INPUTS, *TARGETS), f"inputs_{name}", LIGHTS_GLOB)
    given, latents, n = {}, {}, len(INPUTS)
    for row in seen.rows():
        light = row["light"]
        given[light] = views_of(row["target_c2w"][:n], row["target_fxfycxcy"][:n], stored[light]["images"][list(INPUTS)])
        with torch.no_grad():
            tokens = model.reconstructor(given[light])[0][0]
        latents[light] = tolerance.relative(torch.from_numpy(np.asarray(rows[light]["latents"])), tokens)
    table.add(f"{name}, encode", "latents of its reconstructor", latents, tolerance.ACTIVATIONS)
    return shards, rows, given


def compare_edits(program, table, folder, class_name, name, solvers):
    """solvers: (method, steps), None for an editor that knows no time. The class's PSNR on every pair against evaluate's."""
    _, config = case_of(class_name, single_env_map=True)
    model = sharp_model(config)
    checkpoint = imported(program, config, model, name)
    shards, rows, given = encoded_inputs(program, table, folder, checkpoint, model, name)
    answers = []
    for solver in solvers:
        out = program.scratch / f"evaluation_{name}_{solver[0] if solver else 'once'}"
        options = ["--solver", solver[0], "--steps", solver[1]] if solver else []
        program("evaluate", "--checkpoint", checkpoint, "--data", shards.path, "--out", out, *options)
        with open(out / "pairs.csv") as file:
            pairs = list(csv.DictReader(file))
        answers.append([float(pair["psnr"]) for pair in pairs])
        errors = {}
        for pair in pairs:
            x0, x1 = pair["light_x0"], pair["light_x1"]
            errors[f"{x0} to {x1}"] = abs(float(pair["psnr"]) - edited(model, rows, x0, x1, given[x0], solver))
        moved = max(abs(float(pair["psnr"]) - float(pair["no_edit_psnr"])) for pair in pairs)
        after = "%s in %d steps" % solver if solver else "edit_scene_with_env"
        table.add(f"{name}, evaluate", f"PSNR in dB after its {after} (which moves it by up to {moved:.2f})", errors, 2e-5)
    if len(answers) == 2:
        table.note(f"{name}, evaluate", "difference of the two solvers in dB", [max(abs(a - b) for a, b in zip(*answers))])


def compare(program, table, folder):
    compare_edits(program, table, folder, FLOW, "flow editor", [("euler", 4), ("heun", 4)])
    compare_edits(program, table, folder, ONE_STEP, "one-step editor", [None])
    compare_edits(program, table, folder, RESIDUAL, "residual editor", [None])
