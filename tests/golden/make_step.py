"""Writes step_{weights,batch,reference,duoflow}.safetensors, the golden values of tests/launch/step/step_test.py.

    .venv/bin/python tests/golden/make_step.py

step_weights: the state dict, latent statistics included; step_batch: every tensor `duoflow step` reads; the other two: what it
writes for step_{reference,duoflow}.yaml. The reference run encodes both ends (x0 with its graph); the duoflow run is given
them as constants.
"""

import copy
import math
import pathlib

import safetensors.torch
import torch
import torch.nn.functional as F
import yaml

import twin

HERE = pathlib.Path(__file__).parent
STEPS = 10


def read_config(name):
    return yaml.safe_load((HERE / f"step_{name}.yaml").read_text())


def make_batch(o, size, generator):
    uniform = lambda *shape: torch.rand(shape, generator=generator)
    normal = lambda *shape: torch.randn(shape, generator=generator)
    b, inputs, targets, maps = 2, 2, 2, 2

    def cameras(views):
        c2w = torch.eye(4).repeat(b, views, 1, 1)
        c2w[..., :3, :3], c2w[..., :3, 3] = torch.linalg.qr(normal(b, views, 3, 3)).Q, normal(b, views, 3)
        return c2w, torch.tensor([10.0, 11.0, 4.5, 3.5]) + uniform(b, views, 4)

    batch = {"t": torch.tensor([0.35, 0.9])}
    batch["input_c2w"], batch["input_fxfycxcy"] = cameras(inputs)
    batch["target_c2w"], batch["target_fxfycxcy"] = cameras(targets)
    for name, views in (("input", inputs), ("relit", inputs), ("target", targets)):
        batch[f"{name}_image"] = uniform(b, views, 3, size, size)
    batch["env_ldr"], batch["env_hdr"] = uniform(b, maps, 3, 3, 6), 3 * uniform(b, maps, 3, 3, 6)
    batch["env_dir"] = F.normalize(normal(b, maps, 3, 4, 8), dim=2)  # of another size than the two maps
    batch["x0"], batch["x1"] = (normal(b, o.n_latent_vectors, o.d) for _ in range(2))
    return batch


def resized(maps, size):
    return torch.stack([F.interpolate(sample, size=size, mode="bilinear", align_corners=False) for sample in maps])


def constant_ends(model, batch):
    return batch["x0"], batch["x1"]


def encoded_ends(model, batch):
    rays = twin.pluecker(batch["input_c2w"], batch["input_fxfycxcy"], *batch["input_image"].shape[-2:])
    with torch.no_grad():
        x1 = model.reconstruct(batch["relit_image"], rays)
    return model.reconstruct(batch["input_image"], rays), x1


def forward(model, batch, ends):
    """The outputs of `duoflow step` up to the two losses, the unweighted ones."""
    out = {}
    out["x0"], out["x1"] = ends(model, batch)
    size = batch["env_dir"].shape[-2:]
    light = model.light_tokens(torch.cat([resized(batch["env_ldr"], size), resized(batch["env_hdr"], size), batch["env_dir"]], dim=2))
    rays = twin.pluecker(batch["target_c2w"], batch["target_fxfycxcy"], *batch["target_image"].shape[-2:])
    times = batch["t"] if model.o.knows_time else torch.zeros_like(batch["t"])
    t = times[:, None, None]
    source, z1 = model.to_flow_space(out["x0"]), model.to_flow_space(out["x1"])
    z0 = batch["noise"] if model.o.kind == "noise_to_relit" else source
    out["x_t"] = (1 - t) * z0 + t * z1
    out["velocity"] = model.velocity(out["x_t"], times, light, source)
    out["x_hat"] = model.from_flow_space(out["x_t"] + (1 - t) * out["velocity"])
    out["render"] = model.render(out["x_hat"], rays)
    mse_per_image = (out["render"] - batch["target_image"]).square().mean(dim=(2, 3, 4))
    out["psnr"] = (-10 * mse_per_image.log10()).mean()
    out["psnr_batch"] = -10 * mse_per_image.mean().log10()
    out["velocity_loss"] = F.mse_loss(out["velocity"], z1 - z0)
    out["mse"] = mse_per_image.mean()
    return out


class Objective:
    """Losses weighted as the config says; with `normalized` it remembers its smoothed weight."""

    def __init__(self, config):
        flow = config["model"]["transformer"]["editor"].get("flow_matching", {})
        training = config["training"]
        self.lambda_v = training.get("flow_loss_weight", flow.get("velocity_loss_weight"))
        self.lambda_r = flow.get("render_loss_weight", 1.0)
        self.l2 = training.get("l2_loss_weight", 1.0)
        self.normalized = flow.get("weighting") == "normalized"
        self.ema, self.weight = flow.get("weight_ema", 0.0), None

    def __call__(self, out):
        """(weighted velocity loss, weighted render loss); adds render_loss and total_loss to `out`."""
        out["render_loss"] = self.l2 * out.pop("mse")
        weight = 1.0
        if self.normalized:
            raw = out["render_loss"].item() / (out["velocity_loss"].item() + 1e-8)
            weight = raw if self.weight is None else self.ema * self.weight + (1 - self.ema) * raw
            self.weight = weight
        weighted = self.lambda_v * weight * out["velocity_loss"], self.lambda_r * out["render_loss"]
        out["total_loss"] = sum(weighted)
        return weighted


def one_step(model, batch, ends, objective):
    out = forward(model, batch, ends)
    weighted = objective(out)
    out["g_velocity"], out["g_render"] = (torch.autograd.grad(loss, out["velocity"], retain_graph=True)[0] for loss in weighted)
    out["total_loss"].backward()
    return out | {f"grad.{key}": value.grad for key, value in model.named_parameters() if value.grad is not None}


def rate(training, update):
    """Hugging Face's schedules with warm-up."""
    if update < training["warmup"]:
        return training["lr"] * update / training["warmup"]
    done = (update - training["warmup"]) / (training["train_steps"] - training["warmup"])
    return training["lr"] * {"cosine": 0.5 * (1 + math.cos(math.pi * done)), "linear": 1 - done}[training["scheduler_type"]]


def train(model, batch, ends, objective, training):
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.dim() != 1], "weight_decay": training["weight_decay"]},
        {"params": [p for p in parameters if p.dim() == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, betas=(training["beta1"], training["beta2"]), fused=False, foreach=False)
    trajectory = []
    for step in range(STEPS):
        optimizer.zero_grad(set_to_none=True)
        out = forward(model, batch, ends)
        objective(out)
        out["total_loss"].backward()
        norm = torch.nn.utils.clip_grad_norm_(parameters, training["grad_clip_norm"])
        for group in optimizer.param_groups:
            group["lr"] = rate(training, step)
        optimizer.step()
        trajectory.append(torch.stack([out["total_loss"], out["velocity_loss"], out["render_loss"], out["psnr"], norm]).detach())
    return {"trajectory": torch.stack(trajectory)} | {f"param.{key}": value for key, value in model.named_parameters()}


def run(name, ends, weights, batch):
    config = read_config(name)
    model = twin.Twin(twin.options(config))
    model.load_state_dict({key: weights[key] for key in model.state_dict()})
    values = one_step(copy.deepcopy(model), batch, ends, Objective(config))
    values |= train(model, batch, ends, Objective(config), config["training"])
    # A part without a gradient stays as it was given: nothing to store.
    untouched = {f"param.{key}" for key, _ in model.named_parameters() if f"grad.{key}" not in values}
    return {key: value for key, value in values.items() if key not in untouched}


def save(name, tensors):
    # One entry: safetensors writes several in random order, and the files would differ from run to run.
    metadata = {"made_by": f"tests/golden/make_step.py, format 1, torch {torch.__version__}"}
    tensors = {key: value.detach().clone().contiguous() for key, value in tensors.items()}
    safetensors.torch.save_file(tensors, HERE / f"step_{name}.safetensors", metadata)


def main():
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(21)
    o = twin.options(read_config("duoflow"))
    weights = twin.random_weights(twin.Twin(o), generator)
    batch = make_batch(o, read_config("duoflow")["model"]["image_tokenizer"]["image_size"], generator)
    save("weights", weights)
    save("batch", batch)
    save("reference", run("reference", encoded_ends, weights, batch))
    save("duoflow", run("duoflow", constant_ends, weights, batch))


if __name__ == "__main__":
    main()
