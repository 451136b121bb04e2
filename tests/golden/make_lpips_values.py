"""Prints what the lpips package gives for the pictures of tests/launch/loss_weights_test.cpp, with the networks of
launch/setup.sh --perceptual, and how far the learned weights of the two sources are apart.

    python tests/golden/make_lpips_values.py .cache/weights [PICTURE TARGET]...

Needs torch, torchvision, lpips 0.1.4 and Pillow, in an environment of its own. Further pairs of pictures are measured as
`duoflow compare` would.
"""

import pathlib
import re
import sys

import lpips
import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

NAMES = {"vgg": "lpips_vgg16", "alex": "lpips_alex"}


def images(shape, phase):
    i = torch.arange(int(np.prod(shape)), dtype=torch.float64)
    return (0.5 + 0.45 * torch.cos(phase + 0.31 * i + 0.0019 * i * i)).reshape(shape).float()


def network(name, folder):
    stored = load_file(pathlib.Path(folder) / f"{NAMES[name]}.safetensors")
    model = lpips.LPIPS(net=name, pnet_rand=True, verbose=False).eval()
    for key, parameter in model.net.named_parameters():
        parameter.data = stored["features." + re.sub(r"^slice\d+\.", "", key)]
    for number in range(5):
        own = getattr(model, f"lin{number}").model[1].weight
        print(f"{name} lin{number}: largest difference {(own - stored[f'lin{number}.weight']).abs().max().item():.3g}")
    return model


def picture(path):
    return torch.from_numpy(np.asarray(Image.open(path).convert("RGB")).copy()).permute(2, 0, 1)[None].float() / 255


def main():
    pairs = {"formula": (images((1, 3, 64, 72), 0.0), images((1, 3, 64, 72), 1.0))}
    for a, b in zip(sys.argv[2::2], sys.argv[3::2]):
        pairs[f"{a} {b}"] = picture(a), picture(b)
    with torch.no_grad():
        for name in NAMES:
            model = network(name, sys.argv[1])
            for what, (x, y) in pairs.items():
                print(f"{name} {what}: {model(2 * x - 1, 2 * y - 1).item():.8f}")


if __name__ == "__main__":
    main()
