"""Loss networks for the end-to-end tests: files of the right layout with seeded random weights, and where the real ones are."""

import os
import pathlib

import numpy as np
from safetensors.numpy import save_file

from common import SOURCE

REAL = pathlib.Path(os.environ.get("DUOFLOW_WEIGHTS", SOURCE / ".cache" / "weights"))
NAMES = ("lpips_vgg16.safetensors", "lpips_alex.safetensors")
VGG16 = {0: 64, 2: 64, 5: 128, 7: 128, 10: 256, 12: 256, 14: 256, 17: 512, 19: 512, 21: 512, 24: 512, 26: 512, 28: 512}
VGG19 = {0: 64, 2: 64, 5: 128, 7: 128, 10: 256, 12: 256, 14: 256, 16: 256, 19: 512, 21: 512, 23: 512, 25: 512, 28: 512, 30: 512}


def have_real():
    return all((REAL / name).exists() for name in NAMES)


def random_vgg(layers, lin=()):
    generator = np.random.default_rng(3)
    tensors, inputs = {}, 3
    for index, width in layers.items():
        scale = np.float32(np.sqrt(2 / (9 * inputs)))
        tensors[f"features.{index}.weight"] = generator.standard_normal((width, inputs, 3, 3), np.float32) * scale
        tensors[f"features.{index}.bias"] = np.zeros(width, np.float32)
        inputs = width
    for number, width in enumerate(lin):
        tensors[f"lin{number}.weight"] = generator.random((1, width, 1, 1), np.float32) / width
    return tensors


def write_lpips_vgg16(path):
    save_file(random_vgg(VGG16, (64, 128, 256, 512, 512)), path)


def write_vgg19(path):
    save_file(random_vgg(VGG19), path)
