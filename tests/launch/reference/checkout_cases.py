"""The configurations at which duoflow and a checkout of the LVSM family are compared: none of the golden files' sizes.

A case's YAML is one file for both programs. Pictures are not square, light maps have other sizes than the tokenizer's and each
other; several views' maps or one of them (`single_env_map`), another view for each sample.
"""

import copy
import dataclasses
import random

import torch
import torch.nn.functional as F

HEIGHT, WIDTH, PATCH, SAMPLES = 40, 56, 8, 2


@dataclasses.dataclass
class Case:
    name: str
    class_name: str
    script: str
    inputs: int = 2
    targets: int = 3
    transformer: dict = dataclasses.field(default_factory=dict)
    editor: dict = dataclasses.field(default_factory=dict)
    training: dict = dataclasses.field(default_factory=dict)
    steps: int = 10

    @property
    def perceptual(self):
        return self.training.get("perceptual_loss_weight", 0) > 0

    @property
    def jumps(self):
        """The gradient of a loss network does: at a feature's zero (ReLU), where another wins (max pooling), and VGG19's loss is
        a sum of absolute values."""
        return self.perceptual or self.training.get("lpips_loss_weight", 0) > 0

    @property
    def reconstructs(self):
        return "Images2LatentScene" in self.class_name

    @property
    def flows(self):
        return "FlowMatchEditor" in self.class_name

    def config(self):
        sizes = dict(d=64, d_head=32, encoder_n_layer=2, decoder_n_layer=3, special_init=True, depth_init=True, use_qk_norm=True,
                     n_latent_vectors=9, editor={"n_layer": 2} | self.editor)
        tokenizer = lambda channels, size=HEIGHT: {"image_size": size, "patch_size": PATCH, "in_channels": channels}
        model = {"class_name": f"model.{self.class_name}", "image_tokenizer": tokenizer(9), "target_pose_tokenizer": tokenizer(6),
                 "env_tokenizer": tokenizer(9, 256), "transformer": sizes | self.transformer}
        return copy.deepcopy({"model": model, "training": TRAINING | self.views() | self.training, "inference": {"if_inference": False}})

    def views(self):
        return {"num_input_views": self.inputs, "num_target_views": self.targets, "num_views": self.inputs + self.targets}


TRAINING = dict(
    amp_dtype="bf16", use_amp=False, use_tf32=False, batch_size_per_gpu=SAMPLES, grad_accum_steps=1, beta1=0.9, beta2=0.95, lr=0.0004,
    weight_decay=0.05, warmup=4, train_steps=30, grad_clip_norm=1.0, allowed_gradnorm_factor=1000, grad_checkpoint_every=1,
    l2_loss_weight=1.0, lpips_loss_weight=0.0, perceptual_loss_weight=0.0, target_has_input=False, checkpoint_every=1000000,
    print_every=1000000, vis_every=1000000000, num_threads=1, num_workers=0, prefetch_factor=1, dataset_name="fixed_batch.Dataset",
    dataset_path="", api_key_path="", wandb_exp_name="", wandb_log_every=1000000, wandb_project="",
    flow_match={"inference_steps": 1, "inference_method": "euler"})

FLOW, NOISE = "LVSM_flow_match_editor.FlowMatchEditor", "LVSM_flow_match_editor_noise2relit.FlowMatchEditor"
RESIDUAL = "LVSM_scene_encoder_decoder_wEditor_residual.LatentSceneEditor"
ONE_STEP, SCENE = "LVSM_scene_encoder_decoder_wEditor.LatentSceneEditor", "LVSM_scene_encoder_decoder.Images2LatentScene"
WIDE = dict(d=96, encoder_n_layer=3, decoder_n_layer=2, n_latent_vectors=11)
# Where a gradient jumps, steps of the usual size carry one jump to the next.
SMALL_STEPS = dict(lr=0.00001)
VGG19 = SMALL_STEPS | dict(perceptual_loss_weight=0.3)
ONE_MAP = dict(single_env_map=True)

CASES = [
    Case("scene encoder/decoder, l2 + LPIPS + VGG19", SCENE, "train.py", 3, 2, WIDE, training=VGG19 | dict(lpips_loss_weight=0.5)),
    Case("scene encoder/decoder, no QK norm, linear schedule", SCENE, "train.py", 2, 3, dict(use_qk_norm=False, d_head=16),
         training=dict(target_has_input=True, scheduler_type="linear")),
    Case("flow editor, both losses, VGG19", FLOW, "train_flowmatch_editor.py", 2, 3, {},
         training=ONE_MAP | VGG19 | dict(flow_loss_weight=0.7)),
    Case("flow editor, ends frozen, a map a view", FLOW, "train_flowmatch_editor.py", 2, 1, dict(use_qk_norm=False),
         training=dict(freeze_reconstructor_renderer=True, flow_loss_weight=2.0, target_has_input=True)),
    Case("flow editor, noise_scale, clipped hard", FLOW, "train_flowmatch_editor.py", 3, 2, WIDE, dict(n_layer=3),
         ONE_MAP | dict(grad_clip_norm=0.05, flow_match={"noise_scale": 0.3, "inference_steps": 1, "inference_method": "euler"})),
    Case("flow editor, velocity loss alone", FLOW, "train_flowmatch_editor.py", training=ONE_MAP | dict(skip_renderer=True)),
    Case("noise to relit, l2 + LPIPS", NOISE, "train_flowmatch_editor.py", 2, 2, training=ONE_MAP | SMALL_STEPS | dict(lpips_loss_weight=0.4)),
    Case("noise to relit, ends frozen", NOISE, "train_flowmatch_editor.py", 2, 2, WIDE,
         training=ONE_MAP | dict(freeze_reconstructor_renderer=True, flow_loss_weight=0.5)),
    Case("one-step editor, l2 + VGG19", ONE_STEP, "train_editor.py", 2, 2, WIDE, dict(n_layer=3), ONE_MAP | VGG19),
    Case("one-step editor, ends frozen, constant schedule", ONE_STEP, "train_editor.py", 2, 2,
         training=ONE_MAP | dict(freeze_reconstructor_renderer=True, scheduler_type="constant")),
]

CHECKPOINTS = [
    Case("flow editor, VGG19 and LPIPS in the file", FLOW, "train_flowmatch_editor.py", 2, 2,
         training=ONE_MAP | VGG19 | dict(lpips_loss_weight=0.5)),
    Case("flow editor, frozen, file", FLOW, "train_flowmatch_editor.py", 2, 2, training=ONE_MAP | dict(freeze_reconstructor_renderer=True)),
    Case("noise to relit, file", NOISE, "train_flowmatch_editor.py", 3, 2, WIDE, training=ONE_MAP),
    Case("one-step editor, file", ONE_STEP, "train_editor.py", 2, 2, training=ONE_MAP),
    Case("scene encoder/decoder, file", SCENE, "train.py", 2, 2, WIDE),
]


def cameras(views, generator):
    """Random but sane: near a sphere, turned anyhow; every view with its own intrinsics."""
    c2w = torch.eye(4).repeat(SAMPLES, views, 1, 1)
    c2w[..., :3, :3] = torch.linalg.qr(torch.randn(SAMPLES, views, 3, 3, generator=generator)).Q
    c2w[..., :3, 3] = 0.7 * torch.randn(SAMPLES, views, 3, generator=generator)
    return c2w, torch.tensor([45.0, 47.0, WIDTH / 2, HEIGHT / 2]) + 3 * torch.rand(SAMPLES, views, 4, generator=generator) - 1.5


def make_batch(case, seed=29):
    """What the family's data loader gives."""
    generator = torch.Generator().manual_seed(seed)
    uniform = lambda *shape: torch.rand(shape, generator=generator)
    views = case.inputs + case.targets
    c2w, intrinsics = cameras(views, generator)

    def pictures():
        smooth = F.interpolate(uniform(SAMPLES * views, 3, 5, 7), size=(HEIGHT, WIDTH), mode="bicubic")
        return smooth.clamp(0, 1).view(SAMPLES, views, 3, HEIGHT, WIDTH)

    return {"image": pictures(), "relit_images": pictures(), "c2w": c2w, "fxfycxcy": intrinsics,
            "env_ldr": uniform(SAMPLES, views, 3, 24, 40), "env_hdr": uniform(SAMPLES, views, 3, 18, 30),
            "index": torch.zeros(SAMPLES, views, 2, dtype=torch.long), "scene_name": ["a", "b"]}


class Drawn:
    """The random numbers of a step, given from outside: times, noise, which view's map, which targets."""

    def __init__(self, case, seed=31):
        generator = torch.Generator().manual_seed(seed)
        transformer = case.config()["model"]["transformer"]
        self.t = 0.05 + 0.9 * torch.rand(SAMPLES, generator=generator)
        self.noise = torch.randn(SAMPLES, transformer["n_latent_vectors"], transformer["d"], generator=generator)
        self.view = torch.arange(SAMPLES).flip(0) % case.inputs

    def __enter__(self):
        self.kept = torch.rand, torch.randn_like, torch.randint
        rand, randn_like, randint = self.kept
        given = lambda tensor, shape, otherwise: tensor.clone() if tuple(shape) == tuple(tensor.shape) else otherwise()
        torch.rand = lambda *size, **o: given(self.t, size[0] if isinstance(size[0], tuple) else size, lambda: rand(*size, **o))
        torch.randn_like = lambda like, **o: given(self.noise, like.shape, lambda: randn_like(like, **o))
        torch.randint = lambda *a, **o: self.view.clone() if a[-1] == (SAMPLES,) else randint(*a, **o)
        return self

    def __exit__(self, *_):
        torch.rand, torch.randn_like, torch.randint = self.kept

    @staticmethod
    def same_targets():
        random.seed(3)
