"""The LVSM family's training code as far as its checkpoints go, on the networks of tests/golden/twin.py: AdamW in two groups, a
LambdaLR schedule, the file's five parts. Written from the description of the method, not from that code."""

import functools
import math
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

import torch
import yaml

SOURCE = pathlib.Path(__file__).resolve().parents[3]
PROGRAM = pathlib.Path(os.environ.get("DUOFLOW_BINARY", SOURCE / "build" / "duoflow")).resolve()
sys.path.insert(0, str(SOURCE / "tests" / "golden"))

import make_step  # noqa: E402
import twin  # noqa: E402

torch.set_num_threads(1)
EDITOR = ("env_tokenizer.", "transformer_editor.", "time_embedder.", "editor_residual_head.")
OWN = ("latent_mean", "latent_std")  # no part of the family's state dict


def config(kind="flow", freeze=False, **training):
    """A config with the family's choices written out: class_name would bring the light maps to 256 x 512."""
    values = yaml.safe_load((SOURCE / "tests" / "golden" / "step_reference.yaml").read_text())
    editor = values["model"]["transformer"]["editor"]
    editor["kind"] = kind
    if kind == "noise_to_relit":
        editor["latent_scale"] = 0.136
    if kind == "residual":
        editor["residual_scale"] = 0.05
    if kind in ("one_step", "residual"):
        values["training"]["flow_loss_weight"] = 0.0
    values["model"]["transformer"]["freeze_reconstructor_renderer"] = freeze
    values["training"] |= training
    return values


def scale(training, update):
    return make_step.rate(training | {"lr": 1.0}, update)


class Run:
    """One run of that code on one batch that never changes."""

    def __init__(self, values, frozen=False, fused=True, objective="joint"):
        generator = torch.Generator().manual_seed(33)
        self.config, self.objective = values, objective
        self.training = values["training"]
        self.skips_renderer = self.training.get("skip_renderer", False)
        o = twin.options(values)
        self.model = twin.Twin(o)
        self.model.load_state_dict(twin.random_weights(self.model, generator) | {"latent_mean": torch.zeros(o.d), "latent_std": torch.ones(o.d)})
        self.batch = make_step.make_batch(o, values["model"]["image_tokenizer"]["image_size"], generator)
        del self.batch["x0"], self.batch["x1"]
        self.batch["noise"] = torch.randn(2, o.n_latent_vectors, o.d, generator=generator)
        self.forward_passes = self.updates = 0
        self.make_optimizer(frozen, fused)

    def make_optimizer(self, frozen, fused):
        named = [(name, value) for name, value in self.model.named_parameters() if self.trains(name, frozen)]
        for name, value in self.model.named_parameters():
            value.requires_grad_(self.trains(name, frozen))
        groups = [{"params": [p for _, p in named if p.dim() != 1], "weight_decay": self.training["weight_decay"]},
                  {"params": [p for _, p in named if p.dim() == 1], "weight_decay": 0.0}]
        self.trained = [p for _, p in named]
        betas = (self.training["beta1"], self.training["beta2"])
        self.optimizer = torch.optim.AdamW(groups, lr=self.training["lr"], betas=betas, fused=fused)
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, functools.partial(scale, self.training))

    def trains(self, name, frozen):
        if self.objective == "reconstruction":
            return not name.startswith(EDITOR)
        return not frozen or name.startswith(EDITOR)

    def forward(self):
        batch, model = self.batch, self.model
        if self.objective == "joint":
            out = make_step.forward(model, batch, make_step.encoded_ends)
            velocity, _ = make_step.Objective(self.config)(out)
            if self.skips_renderer:
                out["total_loss"] = velocity
            return out
        rays = {views: twin.pluecker(batch[f"{views}_c2w"], batch[f"{views}_fxfycxcy"], *batch[f"{views}_image"].shape[-2:])
                for views in ("input", "target")}
        out = {"x0": model.reconstruct(batch["input_image"], rays["input"])}
        out["render"] = model.render(out["x0"], rays["target"])
        errors = (out["render"] - batch["target_image"]).square().mean(dim=(2, 3, 4))
        out["psnr"] = (-10 * errors.log10()).mean()
        out["velocity_loss"] = torch.zeros(())
        out["render_loss"] = out["total_loss"] = self.training["l2_loss_weight"] * errors.mean()
        return out

    def step(self, skip=False):
        self.optimizer.zero_grad(set_to_none=True)
        out = self.forward()
        out["total_loss"].backward()
        self.forward_passes += 1
        norm = torch.nn.utils.clip_grad_norm_(self.trained, self.training["grad_clip_norm"])
        if not skip:
            self.optimizer.step()
            self.updates += 1
        self.scheduler.step()
        return torch.stack([out["total_loss"], out["velocity_loss"], out["render_loss"], out["psnr"], norm]).detach()

    def state_dict(self):
        drop = OWN + (EDITOR if self.objective == "reconstruction" else ())
        return type(self.model.state_dict())((k, v) for k, v in self.model.state_dict().items() if not k.startswith(drop))

    def checkpoint(self):
        return {"model": self.state_dict(), "optimizer": self.optimizer.state_dict(), "lr_scheduler": self.scheduler.state_dict(),
                "fwdbwd_pass_step": self.forward_passes, "param_update_step": self.updates}


def loss_networks():
    """As the family's bundle: each convolution under two names, one storage."""
    generator = torch.Generator().manual_seed(5)
    weight = torch.randn(4, 3, 3, 3, generator=generator)
    return {"loss_computer.perceptual_loss_module.vgg.features.0.weight": weight,
            "loss_computer.perceptual_loss_module.blocks.0.0.weight": weight,
            "loss_computer.lpips_loss_module.lin0.model.1.weight": torch.rand(1, 4, 1, 1, generator=generator)}


class ReferenceTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        scratch = tempfile.TemporaryDirectory(prefix="duoflow-reference-")
        cls.addClassCleanup(scratch.cleanup)
        cls.root = pathlib.Path(scratch.name)

    def setUp(self):
        self.folder = self.root / self._testMethodName
        self.folder.mkdir()

    def duoflow(self, *arguments, code=0):
        done = subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, text=True, timeout=100)
        self.assertEqual(done.returncode, code, done.stderr)
        return done.stderr

    def yaml(self, values):
        path = self.folder / "config.yaml"
        path.write_text(yaml.safe_dump(values))
        return path
