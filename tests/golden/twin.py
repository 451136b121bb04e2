"""The networks of model/ once more, in PyTorch and independently of the C++ code: same state-dict keys, same arithmetic.

Written from the formulas (blocks, order of tokens, eps) and used to make the golden values of tests/model. Straightforward on
purpose: nothing is skipped, fused or shared here.
"""

import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import nn


@dataclasses.dataclass
class Options:
    d: int = 32
    d_head: int = 16
    patch_size: int = 4
    encoder_n_layer: int = 2
    decoder_n_layer: int = 2
    editor_n_layer: int = 2
    n_latent_vectors: int = 6
    env_height: int = 8
    use_qk_norm: bool = True
    time_scale: float = 1000.0
    velocity_head: bool = True
    light_in_adaln: bool = True
    normalize_latents: bool = True
    kind: str = "flow"  # noise_to_relit, one_step, residual
    latent_scale: float = 1.0
    residual_scale: float = 1.0

    @property
    def knows_time(self):
        return self.kind in ("flow", "noise_to_relit")


REFERENCE = dict(time_scale=1.0, velocity_head=False, light_in_adaln=False, normalize_latents=False)


def options(config):
    """Of a config's model section."""
    transformer = config["model"]["transformer"]
    editor = transformer["editor"]
    sizes = {key: transformer[key] for key in ("d", "d_head", "encoder_n_layer", "decoder_n_layer", "n_latent_vectors")}
    choices = {key: editor[key] for key in (*REFERENCE, "kind", "latent_scale", "residual_scale") if key in editor}
    return Options(
        **sizes,
        **choices,
        editor_n_layer=editor["n_layer"],
        patch_size=config["model"]["image_tokenizer"]["patch_size"],
        env_height=config["model"]["env_tokenizer"]["image_size"],
    )


class HeadNorm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return F.rms_norm(x, (x.shape[-1],), self.weight, eps=1e-5)


class Attention(nn.Module):
    def __init__(self, o):
        super().__init__()
        self.o = o
        self.to_qkv = nn.Linear(o.d, 3 * o.d, bias=False)
        self.fc = nn.Linear(o.d, o.d, bias=False)
        if o.use_qk_norm:
            self.q_norm = HeadNorm(o.d_head)
            self.k_norm = HeadNorm(o.d_head)

    def forward(self, x):
        batch, length, d = x.shape
        split = [part.reshape(batch, length, d // self.o.d_head, self.o.d_head) for part in self.to_qkv(x).split(d, dim=2)]
        if self.o.use_qk_norm:
            split[0], split[1] = self.q_norm(split[0]), self.k_norm(split[1])
        scores = torch.einsum("bqhc,bkhc->bhqk", split[0], split[1]) / math.sqrt(self.o.d_head)
        return self.fc(torch.einsum("bhqk,bkhc->bqhc", scores.softmax(-1), split[2]).reshape(batch, length, d))


class Mlp(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(d, 4 * d, bias=False), nn.GELU(), nn.Linear(4 * d, d, bias=False))

    def forward(self, x):
        return self.mlp(x)


class Block(nn.Module):
    def __init__(self, o):
        super().__init__()
        self.norm1 = nn.LayerNorm(o.d, bias=False)
        self.attn = Attention(o)
        self.norm2 = nn.LayerNorm(o.d, bias=False)
        self.mlp = Mlp(o.d)

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class AdaLnBlock(nn.Module):
    def __init__(self, o):
        super().__init__()
        self.attn = Attention(o)
        self.mlp = Mlp(o.d)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(o.d, 6 * o.d))

    def forward(self, x, condition):
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.adaLN_modulation(condition)[:, None].chunk(6, dim=2)
        plain = lambda y: F.layer_norm(y, (y.shape[-1],), eps=1e-6)
        x = x + gate_a * self.attn(plain(x) * (1 + scale_a) + shift_a)
        return x + gate_m * self.mlp(plain(x) * (1 + scale_m) + shift_m)


class ConditionMlp(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(d, d), nn.SiLU(), nn.Linear(d, d))

    def forward(self, x):
        return self.mlp(x)


def sinusoid(t, d):
    half = d // 2
    frequencies = torch.tensor([10000.0 ** (-i / (half - 1)) for i in range(half)], dtype=torch.float64)
    angles = t.double()[:, None] * frequencies[None]
    return torch.cat([angles.sin(), angles.cos()], dim=1).float()


def patches(pictures, p):
    """[B,V,C,h,w] -> [B, V*N, p*p*C], one patch after another, features (row, column, channel)."""
    b, v, _, h, w = pictures.shape
    rows = [
        torch.stack([view[:, i : i + p, j : j + p].permute(1, 2, 0).flatten() for view in sample for i in range(0, h, p) for j in range(0, w, p)])
        for sample in pictures
    ]
    assert len(rows) == b and rows[0].shape[0] == v * (h // p) * (w // p)
    return torch.stack(rows)


class Tokenizer(nn.Sequential):
    def __init__(self, channels, o):
        super().__init__(nn.Identity(), nn.Linear(channels * o.patch_size**2, o.d, bias=False))
        self.p = o.patch_size

    def forward(self, pictures):
        return self[1](patches(pictures, self.p))


class Twin(nn.Module):
    """Parameters are registered in the order of the reference's named_parameters."""

    def __init__(self, o):
        super().__init__()
        self.o = o
        self.n_light_field_latent = nn.Parameter(torch.zeros(o.n_latent_vectors, o.d))
        self.image_tokenizer = Tokenizer(9, o)
        self.target_pose_tokenizer = Tokenizer(6, o)
        self.env_tokenizer = Tokenizer(9, o)
        self.image_token_decoder = nn.Sequential(nn.LayerNorm(o.d, bias=False), nn.Linear(o.d, 3 * o.patch_size**2, bias=False), nn.Sigmoid())
        self.transformer_encoder = nn.ModuleList(Block(o) for _ in range(o.encoder_n_layer))
        self.transformer_decoder = nn.ModuleList(Block(o) for _ in range(o.decoder_n_layer))
        self.transformer_input_layernorm_decoder = nn.LayerNorm(o.d, bias=False)
        self.transformer_editor = nn.ModuleList((AdaLnBlock if o.knows_time else Block)(o) for _ in range(o.editor_n_layer))
        if o.kind == "residual":
            self.editor_residual_head = nn.Linear(o.d, o.d, bias=False)
        if o.knows_time:
            self.time_embedder = ConditionMlp(o.d)
        if o.kind == "noise_to_relit":
            self.register_buffer("noise_scale_ema", torch.tensor(1.0))
        if o.velocity_head:
            self.editor_velocity_head = nn.Sequential(nn.LayerNorm(o.d, bias=False), nn.Linear(o.d, o.d, bias=False))
        if o.light_in_adaln:
            self.light_embedder = ConditionMlp(o.d)
        self.register_buffer("latent_mean", torch.zeros(o.d))
        self.register_buffer("latent_std", torch.ones(o.d))

    def reconstruct(self, images, rays):
        pictures = self.image_tokenizer(torch.cat([2 * images - 1, rays], dim=2))
        x = torch.cat([self.n_light_field_latent.expand(len(images), -1, -1), pictures], dim=1)
        for block in self.transformer_encoder:
            x = block(x)
        return x[:, : self.o.n_latent_vectors]

    def light_tokens(self, env):
        size = (self.o.env_height, 2 * self.o.env_height)
        if tuple(env.shape[3:]) != size:
            env = torch.stack([F.interpolate(sample, size=size, mode="bilinear", align_corners=False) for sample in env])
        return self.env_tokenizer(env)

    def edited_at_once(self, x0, light):
        x = torch.cat([x0, light], dim=1)
        for block in self.transformer_editor:
            x = block(x)
        x = x[:, : self.o.n_latent_vectors]
        return x if self.o.kind == "one_step" else x0 + self.o.residual_scale * self.editor_residual_head(x)

    def velocity(self, x_t, t, light, source=None):
        if not self.o.knows_time:
            return self.edited_at_once(x_t, light) - x_t
        condition = self.time_embedder(sinusoid(t.double() * self.o.time_scale, self.o.d))
        if self.o.light_in_adaln:
            condition = condition + self.light_embedder(F.layer_norm(light, (self.o.d,), eps=1e-6)).mean(1)
        x = torch.cat([x_t, light] if self.o.kind == "flow" else [x_t, source, light], dim=1)
        for block in self.transformer_editor:
            x = block(x, condition)
        x = x[:, : self.o.n_latent_vectors]
        return self.editor_velocity_head(x) if self.o.velocity_head else x

    def render(self, latents, rays):
        b, views, _, h, w = rays.shape
        p = self.o.patch_size
        out = []
        for view in range(views):
            poses = self.target_pose_tokenizer(rays[:, view : view + 1])
            x = self.transformer_input_layernorm_decoder(torch.cat([poses, latents], dim=1))
            for block in self.transformer_decoder:
                x = block(x)
            colours = self.image_token_decoder(x[:, : poses.shape[1]]).reshape(b, h // p, w // p, p, p, 3)
            out.append(colours.permute(0, 5, 1, 3, 2, 4).reshape(b, 3, h, w))
        return torch.stack(out, dim=1)

    def to_flow_space(self, latents):
        centred = (latents - self.latent_mean) / self.latent_std if self.o.normalize_latents else latents
        return centred * self.o.latent_scale

    def from_flow_space(self, latents):
        centred = latents / self.o.latent_scale
        return centred * self.latent_std + self.latent_mean if self.o.normalize_latents else centred


def pluecker(c2w, fxfycxcy, h, w):
    """[o x d, d] of every pixel centre, OpenCV axes, in double precision."""
    c2w, k = c2w.double(), fxfycxcy.double()
    i, j = torch.meshgrid(torch.arange(h).double(), torch.arange(w).double(), indexing="ij")
    at = [(j[None, None] + 0.5 - k[..., 2, None, None]) / k[..., 0, None, None], (i[None, None] + 0.5 - k[..., 3, None, None]) / k[..., 1, None, None]]
    local = torch.stack([*at, torch.ones_like(at[0])], dim=2)
    d = F.normalize(torch.einsum("bvij,bvjhw->bvihw", c2w[..., :3, :3], local), dim=2)
    o = c2w[..., :3, 3, None, None].expand_as(d)
    return torch.cat([torch.linalg.cross(o, d, dim=2), d], dim=2).float()


def random_weights(model, generator):
    """Nothing zero, one or negligible: a wrong gain or a forgotten bias must show."""
    weights = {}
    for key, value in model.state_dict().items():
        noise = torch.randn(value.shape, generator=generator)
        if key.startswith("latent_"):
            weights[key] = 0.3 * noise if key == "latent_mean" else 0.5 + noise.abs()
        elif value.dim() == 0:
            weights[key] = 0.5 + noise.abs()
        elif value.dim() == 1 and key.endswith("weight"):
            weights[key] = 1 + 0.2 * noise
        elif "latent" in key:
            weights[key] = noise
        else:
            weights[key] = noise * (0.1 if value.dim() == 1 else 0.7 / value.shape[1] ** 0.5)
    return weights


def joint_chain(model, batch):
    """Every function of the model in one graph: returns the intermediates and the sum of the two losses."""
    flow = model.to_flow_space
    out = {}
    out["latents"] = model.reconstruct(batch["images"], batch["rays"])
    out["light_tokens"] = model.light_tokens(batch["env"])
    t = batch["t"][:, None, None]
    out["x_t"] = (1 - t) * flow(out["latents"]) + t * flow(batch["x1"])
    out["velocity"] = model.velocity(out["x_t"], batch["t"], out["light_tokens"])
    out["x_hat"] = model.from_flow_space(out["x_t"] + (1 - t) * out["velocity"])
    out["render"] = model.render(out["x_hat"], batch["target_rays"])
    out["loss"] = ((out["velocity"] - batch["target_velocity"]) ** 2).mean() + ((out["render"] - batch["target_image"]) ** 2).mean()
    return out
