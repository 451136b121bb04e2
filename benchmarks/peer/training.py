"""The joint step on cached pairs in PyTorch: forward of both losses, weights from the step's global losses, one backward
under DDP, clip, fused AdamW with the schedule's rate. Nothing on the way waits for a number to reach the host.
"""

import dataclasses
import math

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel

import networks  # also puts the twin on the path
import twin

# What the peer does is the step with these values; anything else is another step. Keys of the effective config.
ONLY = {
    "objective": ("joint",), "latents": ("cached",), "model.transformer.editor.kind": ("flow",),
    "model.transformer.editor.flow_matching.weighting": ("fixed", "normalized"),
    "model.transformer.editor.flow_matching.statistics": ("current",), "model.transformer.editor.flow_matching.path": ("linear",),
    "training.lpips_loss_weight": (0,), "training.perceptual_loss_weight": (0,), "training.l1_loss_weight": (0,),
    "training.gradient_loss_weight": (0,), "training.freeze_reconstructor_renderer": (True,), "training.freeze": ([],),
    "training.lr_scale": ([],), "training.layer_lr_decay": (1,), "training.ema_decay": (0,), "training.light_dropout": (0,),
    "training.render_view_chunk": (0,), "training.grad_checkpoint_every": (0, 1), "training.grad_checkpoint_part": ("block",),
    "training.amp_dtype": ("bf16",), "dist.gradient_dtype": ("f32",),
}
TRAINED = ("transformer_editor.", "editor_", "env_tokenizer.", "time_embedder.", "light_embedder.")  # prefixes of the editor's keys


def value_at(config, key, otherwise=None):
    """The value of a dotted key; an effective config (RUN/config.yaml of a duoflow run) has all of them."""
    for word in key.split("."):
        if not isinstance(config, dict) or word not in config:
            if otherwise is not None:
                return otherwise
            raise SystemExit(f"peer: the config has no {key} (the peer knows no defaults), write it out or take the config.yaml of a duoflow run")
        config = config[word]
    return config


def check_config(config, ranks):
    for key, known in ONLY.items():
        if value_at(config, key) not in known:
            raise SystemExit(f"peer: {key} is {value_at(config, key)} (the peer's step knows {', '.join(map(str, known))}), set one of them")
    share, whole = (value_at(config, f"training.{name}") for name in ("batch_size_per_gpu", "global_batch_size"))
    if share * ranks != whole:
        raise SystemExit(f"peer: {ranks} ranks of batch_size_per_gpu {share} make no global_batch_size {whole} (the peer takes one micro-step), "
                         "make them agree")


def model_options(config):
    return dataclasses.replace(twin.options(config), use_qk_norm=value_at(config, "model.transformer.use_qk_norm"))


class Losses(torch.nn.Module):
    """What DDP wraps: a held batch -> the bare velocity and render loss, stacked."""

    def __init__(self, model, config):
        super().__init__()
        self.model = model
        self.bf16, self.l2 = value_at(config, "training.use_amp"), value_at(config, "training.l2_loss_weight")

    def forward(self, batch):
        model, t = self.model, batch["t"][:, None, None]
        z0, z1 = model.to_flow_space(batch["x0"]), model.to_flow_space(batch["x1"])
        x_t = torch.lerp(z0, z1, t)
        with torch.autocast(x_t.device.type, torch.bfloat16, enabled=self.bf16):
            velocity = model.velocity(x_t, batch["t"], batch["env"]).float()
            image = model.render(model.from_flow_space(x_t + (1 - t) * velocity), batch["target_rays"])
        return torch.stack([F.mse_loss(velocity, z1 - z0), self.l2 * F.mse_loss(image.float(), batch["target_image"])])


class Weighting:
    """fixed: the lambdas; normalized: the velocity loss brought to the size of the render loss, clamped and smoothed."""

    def __init__(self, config, device):
        flow = lambda key: value_at(config, f"model.transformer.editor.flow_matching.{key}")
        self.lambdas = torch.tensor([flow("velocity_loss_weight"), flow("render_loss_weight")], dtype=torch.float32, device=device)
        self.normalized, self.ema, self.weight = flow("weighting") == "normalized", flow("weight_ema"), None
        bounds = flow("weight_clamp")
        self.bounds = (bounds if len(bounds) == 2 else [0, *bounds]) if bounds and bounds[-1] > 0 else None

    def __call__(self, losses):
        """[2] detached global losses -> [2] weights."""
        if not self.normalized:
            return self.lambdas
        raw = losses[1] / (losses[0] + 1e-8)
        raw = raw if self.bounds is None else raw.clamp(*self.bounds)
        self.weight = raw if self.weight is None else self.ema * self.weight + (1 - self.ema) * raw
        return self.lambdas * torch.stack([self.weight, torch.ones_like(self.weight)])


class Training:
    """One rank's training of `model` on one batch that it holds. `compiled`: through torch.compile."""

    def __init__(self, model, config, batch, compiled=False):
        self.batch, self.ranks = batch, dist.get_world_size() if dist.is_initialized() else 1
        self.options = config["training"]
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name.startswith(TRAINED))
        self.model = model
        self.parameters = [parameter for _, parameter in self.trained()]
        device = batch["t"].device
        self.losses = Losses(model, config).to(device)
        if self.ranks > 1:  # torch.compile splits the graph at DDP's buckets itself, which a static graph forbids
            self.losses = DistributedDataParallel(self.losses, gradient_as_bucket_view=True, static_graph=not compiled,
                                                  device_ids=[device] if device.type == "cuda" else None)
        if compiled:
            self.losses = torch.compile(self.losses)
        self.weighting = Weighting(config, device)
        self.optimizer = torch.optim.AdamW(self.groups(), betas=(self.options["beta1"], self.options["beta2"]), fused=True)
        self.updates = 0

    def trained(self):
        """(key, parameter) of all that the optimizer has."""
        return [(key, parameter) for key, parameter in self.model.named_parameters() if parameter.requires_grad]

    def clip_factor(self, norm):
        """What the clip has multiplied gradients of this norm by (torch.nn.utils.clip_grad_norm_)."""
        most = self.options["grad_clip_norm"]
        return min(1.0, most / (norm + 1e-6)) if most else 1.0

    def groups(self):
        matrices, vectors = ([p for p in self.parameters if (p.dim() != 1) == wanted] for wanted in (True, False))
        return [{"params": matrices, "weight_decay": self.options["weight_decay"]}, {"params": vectors, "weight_decay": 0.0}]

    def rate(self):
        o, at = self.options, self.updates
        if at < o["warmup"]:
            return o["lr"] * at / o["warmup"]
        done = (at - o["warmup"]) / max(1, o["train_steps"] - o["warmup"])
        return o["lr"] * {"cosine": 0.5 * (1 + math.cos(math.pi * done)), "linear": 1 - done, "constant": 1.0}[o["scheduler_type"]]

    def step(self):
        """[4]: total, velocity and render loss over all ranks, and the gradient's norm before the clip."""
        self.optimizer.zero_grad(set_to_none=True)
        own = self.losses(self.batch)
        losses = own.detach().clone()
        if self.ranks > 1:
            # The weights of the step are those of its global losses, on every rank: two numbers that the backward waits for.
            dist.all_reduce(losses)
            losses /= self.ranks
        weights = self.weighting(losses)
        (weights * own).sum().backward()
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.options["grad_clip_norm"] or math.inf)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate()
        self.optimizer.step()
        self.updates += 1
        return torch.cat([(weights * losses).sum()[None], losses, norm.detach()[None]])
