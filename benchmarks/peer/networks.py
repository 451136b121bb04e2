"""The joint step's networks as a user of PyTorch would tune them: parameters, initial shapes and state-dict keys are the
twin's (tests/golden/twin.py), the arithmetic here is batched and takes PyTorch's fast paths.

Shapes: B samples, L tokens, K latents, D width, H heads, C head width, T target views, P patch side.
"""

import math
import pathlib
import sys

import torch
import torch.nn.functional as F
import torch.utils.checkpoint

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tests" / "golden"))
import twin


def matmul_attention(q_BHLC, k_BHLC, v_BHLC):
    """Two products and a softmax: on CPU in bf16 faster than the fused kernel."""
    scores = (q_BHLC * (1 / math.sqrt(q_BHLC.shape[-1]))) @ k_BHLC.transpose(-2, -1)
    return scores.softmax(-1) @ v_BHLC


ATTENTION = {"sdpa": F.scaled_dot_product_attention, "matmul": matmul_attention}


def patchify(pictures, p):
    """[B,V,C,h,w] -> [B, V*N, p*p*C], features (row, column, channel)."""
    b, v, c, h, w = pictures.shape
    cut = pictures.reshape(b, v, c, h // p, p, w // p, p).permute(0, 1, 3, 5, 4, 6, 2)
    return cut.reshape(b, v * (h // p) * (w // p), p * p * c)


def head_norm(norm, x_BHLC):
    return F.rms_norm(x_BHLC.float(), (x_BHLC.shape[-1],), norm.weight, eps=1e-5).to(x_BHLC.dtype)


class Networks(twin.Twin):
    """attention: a name of ATTENTION. last_block: `all` runs the last block of a part on every token, as the reference
    does; `kept` drops the queries and the MLP of the tokens that nobody reads, as duoflow does. recompute: keep only the
    inputs of blocks for the backward.
    """

    def __init__(self, o, attention="sdpa", last_block="all", recompute=False):
        super().__init__(o)
        self.attend, self.trims, self.recompute = ATTENTION[attention], last_block == "kept", recompute
        half = o.d // 2
        self.register_buffer("frequencies", torch.exp(torch.arange(half).double() * (-math.log(10000) / (half - 1))), persistent=False)

    def attention(self, layer, x_BLD, keep):
        d, heads = x_BLD.shape[2], lambda y: y.unflatten(-1, (-1, self.o.d_head)).transpose(1, 2)
        if keep == x_BLD.shape[1]:
            q, k, v = map(heads, layer.to_qkv(x_BLD).chunk(3, dim=2))
        else:
            q = heads(F.linear(x_BLD[:, :keep], layer.to_qkv.weight[:d]))
            k, v = map(heads, F.linear(x_BLD, layer.to_qkv.weight[d:]).chunk(2, dim=2))
        if self.o.use_qk_norm:
            q, k = head_norm(layer.q_norm, q), head_norm(layer.k_norm, k)
        return layer.fc(self.attend(q, k, v).transpose(1, 2).flatten(2))

    def block(self, layer, x, keep, condition):
        if condition is None:
            x = x[:, :keep] + self.attention(layer.attn, layer.norm1(x), keep)
            return x + layer.mlp(layer.norm2(x))
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = layer.adaLN_modulation(condition)[:, None].chunk(6, dim=2)
        plain = lambda y: F.layer_norm(y, (y.shape[-1],), eps=1e-6)
        x = x[:, :keep] + gate_a * self.attention(layer.attn, plain(x) * (1 + scale_a) + shift_a, keep)
        return x + gate_m * layer.mlp(plain(x) * (1 + scale_m) + shift_m)

    def run(self, layers, x_BLD, wanted, condition=None):
        """The first `wanted` tokens behind the blocks."""
        for layer in layers:
            keep = wanted if self.trims and layer is layers[-1] else x_BLD.shape[1]
            if self.recompute and torch.is_grad_enabled():
                x_BLD = torch.utils.checkpoint.checkpoint(self.block, layer, x_BLD, keep, condition, use_reentrant=False)
            else:
                x_BLD = self.block(layer, x_BLD, keep, condition)
        return x_BLD[:, :wanted]

    def velocity(self, x_t_BKD, t_B, env):
        """env [B,E,9,h,w], already of the tokenizer's size."""
        light = self.env_tokenizer[1](patchify(env, self.o.patch_size))
        angles = t_B.double()[:, None] * self.o.time_scale * self.frequencies
        condition = self.time_embedder(torch.cat([angles.sin(), angles.cos()], dim=1).float())
        if self.o.light_in_adaln:
            condition = condition + self.light_embedder(F.layer_norm(light, (self.o.d,), eps=1e-6)).mean(1)
        x = self.run(self.transformer_editor, torch.cat([x_t_BKD, light], dim=1), x_t_BKD.shape[1], condition)
        return self.editor_velocity_head(x) if self.o.velocity_head else x

    def render(self, latents_BKD, rays):
        """rays [B,T,6,h,w] -> pictures [B,T,3,h,w]; all views in one pass."""
        b, t, _, h, w = rays.shape
        p, k = self.o.patch_size, latents_BKD.shape[1]
        poses = self.target_pose_tokenizer[1](patchify(rays, p)).reshape(b * t, -1, self.o.d)
        latents = latents_BKD[:, None].expand(-1, t, -1, -1).reshape(b * t, k, self.o.d)
        x = self.run(self.transformer_decoder, self.transformer_input_layernorm_decoder(torch.cat([poses, latents], dim=1)), poses.shape[1])
        colours = self.image_token_decoder(x).reshape(b, t, h // p, w // p, p, p, 3)
        return colours.permute(0, 1, 6, 2, 4, 3, 5).reshape(b, t, 3, h, w)
