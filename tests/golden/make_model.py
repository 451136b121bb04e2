"""Writes model_{weights,reference,duoflow}.safetensors, the golden values of tests/model/scene_model_test.cpp.

    .venv/bin/python tests/golden/make_model.py

model_weights: `weight.<key>` of both variants and the inputs `in.*`; the other two: `out.*` and `grad.<key>` of joint_chain with
the reference's choices and with duoflow's.
"""

import pathlib

import safetensors.torch
import torch

import twin

HERE = pathlib.Path(__file__).parent


def inputs(o, generator):
    uniform = lambda *shape: torch.rand(shape, generator=generator)
    normal = lambda *shape: torch.randn(shape, generator=generator)
    b, v, t, size = 2, 2, 3, 16
    turns = torch.linalg.qr(normal(b, v + t, 3, 3)).Q
    c2w = torch.zeros(b, v + t, 4, 4)
    c2w[..., :3, :3], c2w[..., :3, 3], c2w[..., 3, 3] = turns, normal(b, v + t, 3), 1
    intrinsics = torch.tensor([20.0, 22.0, 8.5, 7.5]) + uniform(b, v + t, 4)
    rays = twin.pluecker(c2w, intrinsics, size, size)
    return {
        "c2w": c2w,
        "fxfycxcy": intrinsics,
        "all_rays": rays,
        "images": uniform(b, v, 3, size, size),
        "rays": rays[:, :v].contiguous(),
        "target_rays": rays[:, v:].contiguous(),
        "target_image": uniform(b, t, 3, size, size),
        "env": normal(b, 2, 9, 6, 12),  # two maps, of another size than the tokenizer's
        "x1": normal(b, o.n_latent_vectors, o.d),
        "target_velocity": normal(b, o.n_latent_vectors, o.d),
        "t": torch.tensor([0.15, 0.8]),
    }


def run(o, weights, batch):
    model = twin.Twin(o)
    model.load_state_dict({key: weights[key] for key in model.state_dict()})
    out = twin.joint_chain(model, batch)
    out["loss"].backward()
    named = {f"out.{key}": value.detach() for key, value in out.items()}
    named |= {f"grad.{key}": value.grad for key, value in model.named_parameters()}
    return {key: value.contiguous() for key, value in named.items()}


def main():
    generator = torch.Generator().manual_seed(20)
    ours = twin.Options()
    weights = twin.random_weights(twin.Twin(ours), generator)
    batch = inputs(ours, generator)
    # One entry: safetensors writes several in random order, and the files would differ from run to run.
    metadata = {"made_by": f"tests/golden/make_model.py, format 1, torch {torch.__version__}"}
    saved = {f"weight.{key}": value for key, value in weights.items()} | {f"in.{key}": value for key, value in batch.items()}
    safetensors.torch.save_file(saved, HERE / "model_weights.safetensors", metadata)
    safetensors.torch.save_file(run(twin.Options(**twin.REFERENCE), weights, batch), HERE / "model_reference.safetensors", metadata)
    safetensors.torch.save_file(run(ours, weights, batch), HERE / "model_duoflow.safetensors", metadata)


if __name__ == "__main__":
    main()
