"""What the LVSM family's code needs around it to run on a CPU without its accounts, downloads and CUDA kernels.

It is taken from a checkout as it is; nothing of it is in this tree. Replaced are, each said where it is done: xformers (one
function, by scaled_dot_product_attention), wandb and the visualisation (nothing), `setup` (arguments, process group: one CPU
process), the DataLoader (one batch for ever), DDP's device ids, the two downloads (VGG19, VGG16) by files given here.
"""

import os
import pathlib
import sys
import types

import numpy as np
import torch
import torch.nn.functional as F

VGG19_WIDTHS = [64, 64, 128, 128, 256, 256, 256, 256] + [512] * 8
VGG19_PLACES = [0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34]


def module(name, **members):
    made = types.ModuleType(name)
    made.__dict__.update(members)
    sys.modules[name] = made
    return made


def plain_attention(q, k, v, attn_bias=None, p=0.0, op=None):
    """xformers' layout: [batch, token, head, width]."""
    assert attn_bias is None and p == 0.0
    return F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2)


def stub_xformers():
    flash = types.SimpleNamespace(FwOp=None, BwOp=None)
    ops = module("xformers.ops", memory_efficient_attention=plain_attention, fmha=types.SimpleNamespace(flash=flash))
    module("xformers", ops=ops)


def stub_wandb():
    module("wandb", log=lambda *a, **k: None, init=lambda *a, **k: None, run=types.SimpleNamespace(log_code=lambda *a, **k: None))


def write_vgg19_mat(path, seed=11):
    """imagenet-vgg-verydeep-19.mat's layout with seeded numbers: nobody may pass the real file on."""
    import scipy.io

    generator, inputs = np.random.default_rng(seed), 3
    layers = np.empty((1, 37), dtype=object)
    for place in range(37):
        layers[0, place] = {"type": "relu", "name": f"layer{place}", "weights": np.empty((1, 0), dtype=object)}
    for place, width in zip(VGG19_PLACES, VGG19_WIDTHS):
        weights = np.empty((1, 2), dtype=object)
        weights[0, 0] = (generator.standard_normal((3, 3, inputs, width)) * np.sqrt(2 / (9 * inputs))).astype(np.float32)
        weights[0, 1] = (generator.standard_normal((width, 1)) * 0.05).astype(np.float32)
        layers[0, place] = {"type": "conv", "name": f"conv{place}", "weights": weights}
        inputs = width
    path.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(path, {"layers": layers})


def use_vgg16(weights):
    """What lpips takes from torchvision's download, from the safetensors file that launch/setup.sh --perceptual makes."""
    import torchvision
    from safetensors.torch import load_file

    original = torchvision.models.vgg16

    def vgg16(pretrained=False, **_):
        network = original(weights=None)
        stored = {key: value for key, value in load_file(weights).items() if key.startswith("features.")}
        network.features.load_state_dict({key.removeprefix("features."): value for key, value in stored.items()}, strict=True)
        return network

    torchvision.models.vgg16 = vgg16


def one_process(scratch):
    """A process group of one: the family asks for its rank everywhere."""
    if torch.distributed.is_initialized():
        return
    store = pathlib.Path(scratch) / f"store-{os.getpid()}-{len(list(pathlib.Path(scratch).iterdir()))}"
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=0, world_size=1)


def prepare(reference, scratch, vgg16):
    """Makes `import model.…` mean the checkout; its relative paths lie in `scratch` from here on."""
    torch.set_num_threads(1)
    os.environ["HOME"] = str(scratch)  # one of its programs leaves a log there
    sys.path.insert(0, str(reference))
    sys.dont_write_bytecode = True
    os.chdir(scratch)
    stub_xformers()
    stub_wandb()
    write_vgg19_mat(pathlib.Path(scratch) / "metric_checkpoint" / "imagenet-vgg-verydeep-19.mat")
    if vgg16:
        use_vgg16(vgg16)
    one_process(scratch)
