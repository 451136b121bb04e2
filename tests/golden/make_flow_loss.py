"""Writes flow_loss.safetensors, the golden values of tests/model/flow_loss.

    .venv/bin/python tests/golden/make_flow_loss.py

Random numbers from a Philox in Python integers; metrics from their definitions, window by window, in double precision; the joint
step as the method's author writes it: one forward, one weighted sum, one backward() (networks: twin.py; weights and inputs:
model_weights.safetensors, made by make_model.py).
"""

import math
import pathlib

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F

import twin

HERE = pathlib.Path(__file__).parent
WORD = 0xFFFFFFFF


def philox(counter, key):
    c, k = list(counter), list(key)
    for _ in range(10):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(b >> 32) ^ c[1] ^ k[0], b & WORD, (a >> 32) ^ c[3] ^ k[1], a & WORD]
        k = [(k[0] + 0x9E3779B9) & WORD, (k[1] + 0xBB67AE85) & WORD]
    return c


def block(seed, position, stream, index):
    return philox([index & WORD, index >> 32, position & WORD, (position >> 32) | (stream << 24)], [seed & WORD, seed >> 32])


def unit(high, low):
    return (2 * ((high << 32 | low) >> 12) + 1) / 2**53


def uniform01(seed, position, stream, counter):
    words = block(seed, position, stream, counter)
    return unit(words[1], words[0])


def standard_normal(seed, position, stream, counter):
    words = block(seed, position, stream, counter // 2)
    radius, angle = math.sqrt(-2 * math.log(unit(words[1], words[0]))), 2 * math.pi * unit(words[3], words[2])
    return radius * (math.sin(angle) if counter % 2 else math.cos(angle))


# seed, position, stream, counter: small ones and ones that need every word of key and counter block
DRAWS = [(0, 0, 0, 0), (0, 0, 0, 1), (0, 1, 0, 0), (1, 0, 0, 0), (7, 5, 1, 0), (7, 5, 2, 0), (7, 5, 1, 1), (7, 5, 1, 2**32),
         (2**32, 5, 1, 3), (7, 2**32, 1, 3), (2**63 - 25, 2**55 + 17, 2, 2**40 + 5)]


def random_values():
    return {
        "random.draws": torch.tensor(DRAWS, dtype=torch.int64),
        "random.uniform": torch.tensor([uniform01(*d) for d in DRAWS], dtype=torch.float64),
        "random.normal": torch.tensor([standard_normal(*d) for d in DRAWS], dtype=torch.float64),
        "random.tensor": torch.tensor([standard_normal(11, 3, 1, i) for i in range(15)], dtype=torch.float64).float().reshape(3, 5),
    }


def psnr(image, target):
    return -10 * math.log10(np.mean((image - target) ** 2))


def ssim(image, target):
    """Mean over channels and over every place where the 11 x 11 Gaussian window (sigma 1.5) fits."""
    offsets = np.arange(-5, 6)
    window = np.exp(-(offsets[:, None] ** 2 + offsets[None] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    values = []
    for x, y in zip(image, target):
        for i in range(x.shape[0] - 10):
            for j in range(x.shape[1] - 10):
                a, b = x[i : i + 11, j : j + 11], y[i : i + 11, j : j + 11]
                ma, mb = (window * a).sum(), (window * b).sum()
                va, vb = (window * (a - ma) ** 2).sum(), (window * (b - mb) ** 2).sum()
                cov = (window * (a - ma) * (b - mb)).sum()
                values.append((2 * ma * mb + 1e-4) * (2 * cov + 9e-4) / ((ma**2 + mb**2 + 1e-4) * (va + vb + 9e-4)))
    return np.mean(values)


def metric_values(generator):
    height, width = 13, 17
    rows, columns = torch.meshgrid(torch.arange(height) / height, torch.arange(width) / width, indexing="ij")
    smooth = torch.stack([rows, columns, (rows + columns) / 2]).expand(4, 3, height, width)
    noise = torch.randn(4, 3, height, width, generator=generator) * torch.tensor([0.0, 0.02, 0.1, 0.4]).view(4, 1, 1, 1)
    target = (smooth * 0.8 + 0.1).contiguous()
    image = (target + noise).clamp(0, 1)
    image[0] = 1 - target[0]  # negative structure
    mask = torch.rand(4, height, width, generator=generator) < torch.tensor([0.5, 0.05, 0.9, 0.3]).view(4, 1, 1)
    x, y, m = image.double().numpy(), target.double().numpy(), mask.numpy()
    return {
        "metrics.image": image,
        "metrics.target": target,
        "metrics.mask": mask,
        "metrics.psnr": torch.tensor([psnr(a, b) for a, b in zip(x, y)]),
        "metrics.psnr_masked": torch.tensor([psnr(a[:, k], b[:, k]) for a, b, k in zip(x, y, m)]),
        "metrics.ssim": torch.tensor([ssim(a, b) for a, b in zip(x, y)]),
    }


LAMBDA_V, LAMBDA_R = 0.7, 1.3


def joint_values(generator):
    stored = safetensors.torch.load_file(HERE / "model_weights.safetensors")
    batch = {key[3:]: value for key, value in stored.items() if key.startswith("in.")}
    model = twin.Twin(twin.Options())
    model.load_state_dict({key: stored[f"weight.{key}"] for key in model.state_dict()})
    x0 = torch.randn(batch["x1"].shape, generator=generator)

    t = batch["t"][:, None, None]
    a, b = model.to_flow_space(x0), model.to_flow_space(batch["x1"])
    x_t = (1 - t) * a + t * b
    v_pred = model.velocity(x_t, batch["t"], model.light_tokens(batch["env"]))
    v_pred.retain_grad()
    velocity_loss = F.mse_loss(v_pred, b - a)
    x_hat = model.from_flow_space(x_t + (1 - t) * v_pred)
    image = model.render(x_hat, batch["target_rays"])
    render_loss = F.mse_loss(image, batch["target_image"])
    weight = render_loss.item() / (velocity_loss.item() + 1e-8)
    total = LAMBDA_R * render_loss + LAMBDA_V * weight * velocity_loss
    total.backward()

    gradients = {key: value.grad for key, value in model.named_parameters() if value.grad is not None}
    whole = ["env_tokenizer.1.weight", "target_pose_tokenizer.1.weight", "time_embedder.mlp.0.bias", "light_embedder.mlp.2.bias",
             "editor_velocity_head.0.weight", "editor_velocity_head.1.weight", "transformer_decoder.0.norm1.weight"]
    per_image = [psnr(p.double().numpy(), q.double().numpy()) for p, q in zip(image.detach().flatten(0, 1), batch["target_image"].flatten(0, 1))]
    named = {
        "x0": x0, "x_t": x_t, "x_hat": x_hat, "velocity": v_pred, "render": image, "g": v_pred.grad,
        "velocity_loss": velocity_loss, "render_loss": render_loss, "total_loss": total,
        "velocity_weight": torch.tensor(weight), "psnr": torch.tensor(np.mean(per_image)),
    }
    named |= {f"grad.{key}": gradients[key] for key in whole}
    named |= {f"grad_norm.{key}": value.double().norm() for key, value in gradients.items()}
    return {f"joint.{key}": value.detach().contiguous() for key, value in named.items()}


def main():
    generator = torch.Generator().manual_seed(31)
    values = random_values() | metric_values(generator) | joint_values(generator)
    # One entry: safetensors writes several in random order, and the file would differ from run to run.
    metadata = {"made_by": f"tests/golden/make_flow_loss.py, format 1, torch {torch.__version__}"}
    safetensors.torch.save_file(values, HERE / "flow_loss.safetensors", metadata)


if __name__ == "__main__":
    main()
