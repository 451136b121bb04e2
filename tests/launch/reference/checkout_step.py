"""One forward and backward of the family's own class, opened up: every intermediate, loss and gradient that `duoflow step` writes."""

import importlib

import torch
from easydict import EasyDict

from checkout_cases import Drawn


def build(config):
    module, name = config["model"]["class_name"].rsplit(".", 1)
    return getattr(importlib.import_module(module), name)(EasyDict(config))


def own(state_dict):
    """Without the loss networks that the family carries in its state dict."""
    return {key: value for key, value in state_dict.items() if not key.startswith("loss_computer.")}


def given_weights(model, seed=17):
    """Nothing zero, one or negligible (fresh gates are zero and hide the blocks behind them)."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in own(model.state_dict()).items():
        noise = torch.randn(value.shape, generator=generator)
        if value.dim() == 0:
            continue  # a buffer the family never uses
        scale = 0.1 if value.dim() == 1 else 0.7 / value.shape[1] ** 0.5
        gain = value.dim() == 1 and name.endswith("weight")
        value.copy_(1 + 0.2 * noise if gain else noise if name == "n_light_field_latent" else scale * noise)


class Opened:
    """Remembers what goes through the methods that the class's forward calls."""

    def __init__(self, model):
        self.model, self.seen = model, {}
        self.latents = model.config.model.transformer.n_latent_vectors
        for name in ("renderer", "pass_editor_layers", "_apply_editor_once", "reconstructor"):
            if hasattr(model, name):
                setattr(model, name, self.watch(name, getattr(model, name)))
        if not hasattr(model, "reconstructor"):
            self.watch_encoder()

    def watch(self, name, method):
        def call(*arguments, **options):
            result = method(*arguments, **options)
            self.seen.setdefault(name, []).append((arguments, result))
            return result
        return call

    def watch_encoder(self):
        """The scene class has its reconstructor inline: its latents are the first of the encoder's tokens."""
        through = self.model.pass_layers

        def pass_layers(blocks, *arguments, **options):
            tokens = through(blocks, *arguments, **options)
            if blocks is self.model.transformer_encoder:
                self.seen["latents"] = tokens[:, : self.latents]
            return tokens
        self.model.pass_layers = pass_layers


def activations(case, opened, result):
    seen, n = opened.seen, opened.latents
    out = {"x0": seen["latents"] if case.reconstructs else seen["reconstructor"][0][1][0]}
    if case.flows:
        (tokens, *_), moved = seen["pass_editor_layers"][0]
        out |= {"x1": seen["reconstructor"][1][1][0], "x_t": tokens[:, :n], "velocity": moved[:, :n]}
    elif not case.reconstructs:
        out["velocity"] = seen["_apply_editor_once"][0][1] - out["x0"]
    if "renderer" in seen:
        out["x_hat"] = seen["renderer"][0][0][0]
    if case.reconstructs or "renderer" in seen:
        out["render"] = result.render
    return out


def losses(case, result, config):
    metrics, training = result.loss_metrics, config["training"]
    out = {"total_loss": metrics.loss}
    if case.flows:
        out["velocity_loss"] = metrics.flow_loss
    if training.get("skip_renderer"):
        return out
    out["render_loss"] = metrics.reconstruction_loss if case.flows else metrics.loss
    out["psnr_batch"] = metrics.psnr
    if training["lpips_loss_weight"] > 0:
        out["lpips"] = metrics.lpips_loss
    if training["perceptual_loss_weight"] > 0:
        out["perceptual"] = metrics.perceptual_loss
    return out


def gradients(case, model, scalars, moved, config):
    """Of every parameter; in flow classes also of each weighted loss at the editor's output `moved`."""
    out = {}
    if case.flows:
        alone = "render_loss" not in scalars  # then the class leaves the weight out
        terms = {"g_velocity": (1.0 if alone else config["training"].get("flow_loss_weight", 1.0)) * scalars["velocity_loss"]}
        terms |= {} if alone else {"g_render": scalars["render_loss"]}
        n = model.config.model.transformer.n_latent_vectors
        out = {name: torch.autograd.grad(loss, moved, retain_graph=True)[0][:, :n] for name, loss in terms.items()}
    scalars["total_loss"].backward()
    return out | {f"grad.{name}": value.grad for name, value in model.named_parameters() if value.grad is not None}


def first_step(case, model, config, batch, drawn):
    """(activations, losses, gradients, what the class returned)."""
    model.train()
    opened = Opened(model)
    options = {"skip_renderer": bool(config["training"].get("skip_renderer"))} if case.flows else {}
    with drawn:
        Drawn.same_targets()
        result = model(dict(batch), **options)
    values, scalars = activations(case, opened, result), losses(case, result, config)
    moved = opened.seen["pass_editor_layers"][0][1] if case.flows else None
    return values, scalars, gradients(case, model, scalars, moved, config), result


def duoflow_batch(case, result, drawn, config):
    """The same numbers under the names of `duoflow step`, cameras and directions as the family's own code prepared them."""
    given, target = result.input, result.target
    batch = {f"{prefix}_{name}": views[name] for prefix, views in (("input", given), ("target", target)) for name in ("c2w", "fxfycxcy")}
    batch |= {"input_image": given.image, "target_image": target.image if case.reconstructs else target.relit_images}
    if not case.reconstructs:
        rows = torch.arange(len(drawn.view))
        one = lambda maps: maps[rows, drawn.view].unsqueeze(1) if config["training"].get("single_env_map") else maps
        batch |= {"relit_image": given.relit_images, "t": drawn.t, "noise": drawn.noise}
        batch |= {name: one(given[name]) for name in ("env_ldr", "env_hdr", "env_dir")}
    return {name: value.contiguous() for name, value in batch.items()}
