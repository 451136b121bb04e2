"""Writes image_losses.safetensors, the golden values of tests/model/flow_loss/image_losses_test.cpp.

    .venv/bin/python tests/golden/make_image_losses.py

The image terms of the render loss once more, in PyTorch and independently of the C++ code: LPIPS as its package computes it
(division by the length + 1e-10), the perceptual loss as the reference cuts its VGG19 into slices. In double precision, with
the formula weights of tests/model/loss_networks.h at a sixteenth of the networks' channels.
"""

import math
import pathlib

import safetensors.torch
import torch
from torch import nn

HERE = pathlib.Path(__file__).parent
DIVISOR = 16

SHIFT, SCALE = torch.tensor([-0.030, -0.088, -0.188]).double(), torch.tensor([0.458, 0.448, 0.450]).double()
MEAN = torch.tensor([123.68, 116.779, 103.939]).double()


def waves(shape, phase, linear, square):
    i = torch.arange(math.prod(shape), dtype=torch.float64)
    return torch.cos(phase + linear * i + square * i * i).reshape(shape)


def images(shape, phase):
    return 0.5 + 0.45 * waves(shape, phase, 0.31, 0.0019)


def vgg(blocks, pool):
    """torchvision's vgg.features with so many convolutions a block; every pool kept."""
    layers, inputs = [], 3
    for block, count in enumerate(blocks):
        width = 512 // DIVISOR if block > 2 else 64 * 2**block // DIVISOR
        for _ in range(count):
            layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU()]
            inputs = width
        layers.append(pool(2, 2))
    return nn.Sequential(*layers)


def alexnet():
    a, b, c, d = (width // DIVISOR for width in (64, 192, 384, 256))
    return nn.Sequential(nn.Conv2d(3, a, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Conv2d(a, b, 5, padding=2), nn.ReLU(),
                         nn.MaxPool2d(3, 2), nn.Conv2d(b, c, 3, padding=1), nn.ReLU(), nn.Conv2d(c, d, 3, padding=1), nn.ReLU(),
                         nn.Conv2d(d, d, 3, padding=1), nn.ReLU())


def fill(network, last=None):
    """Formula weights in the order of the layers; returns how many tensors there are. Layers behind `last` are left out."""
    network.double()
    tensors = 0
    for index, layer in enumerate(network):
        if isinstance(layer, nn.Conv2d) and (last is None or index <= last):
            fan_in = math.prod(layer.weight.shape[1:])
            layer.weight.data = math.sqrt(4 / fan_in) * waves(layer.weight.shape, tensors, 0.7, 0.0137)
            layer.bias.data = 0.1 * waves(layer.bias.shape, tensors + 1, 0.7, 0.0137)
            tensors += 2
    return tensors


def lpips(network, taps, image, target, mask=None):
    """`mask` [N,H,W]: the mean of the package's spatial map over it, instead of the mean of each tap."""
    tensors = fill(network)
    total = 0
    x, y = ((2 * picture - 1 - SHIFT[:, None, None]) / SCALE[:, None, None] for picture in (image, target))
    for index, layer in enumerate(network):
        x, y = layer(x), layer(y)
        if index in taps:
            number = taps.index(index)
            lin = 0.05 + 0.04 * waves((1, x.shape[1], 1, 1), tensors + number, 0.7, 0.0137)
            unit = [f / (f.pow(2).sum(1, keepdim=True).sqrt() + 1e-10) for f in (x, y)]
            tap = (lin * (unit[0] - unit[1]) ** 2).sum(1, keepdim=True)
            whole = nn.functional.interpolate(tap, size=image.shape[2:], mode="bilinear", align_corners=False)[:, 0]
            total = total + (tap.mean((1, 2, 3)) if mask is None else torch.stack([w[m].mean() for w, m in zip(whole, mask)]))
    return total


def perceptual(image, target):
    network = vgg([2, 2, 4, 4, 4], nn.AvgPool2d)
    fill(network, last=30)
    x, y = (255 * picture - MEAN[:, None, None] for picture in (image, target))
    per_image = lambda: (x - y).abs().mean((1, 2, 3))
    errors = [per_image()]
    for begin, end in ((0, 4), (4, 9), (9, 14), (14, 23), (23, 32)):
        x, y = network[begin:end](x), network[begin:end](y)
        errors.append(per_image())
    e0, e1, e2, e3, e4, e5 = errors
    return (e0 + e1 / 2.6 + e2 / 4.8 + e3 / 3.7 + e4 / 5.6 + e5 * 10 / 1.5) / 255


def finite_differences(image, target):
    e = image - target
    return (e[..., 1:] - e[..., :-1]).abs().mean((1, 2, 3)) + (e[..., 1:, :] - e[..., :-1, :]).abs().mean((1, 2, 3))


TERMS = {
    "lpips_vgg": lambda x, y: lpips(vgg([2, 2, 3, 3, 3], nn.MaxPool2d), [3, 8, 15, 22, 29], x, y),
    "lpips_alex": lambda x, y: lpips(alexnet(), [1, 4, 7, 9, 11], x, y),
    "perceptual": perceptual,
    "l1": lambda x, y: (x - y).abs().mean((1, 2, 3)),
    "gradient": finite_differences,
}


def main():
    values = {}
    for name, term in TERMS.items():
        image, target = images((2, 3, 32, 37), 0.0).requires_grad_(), images((2, 3, 32, 37), 1.0)
        value = term(image, target)
        values[name] = value.detach()
        if name not in ("l1", "gradient"):
            values[f"{name}.grad"] = torch.autograd.grad(value.sum(), image)[0][1].float().contiguous()  # of the second picture
    image, target = images((2, 3, 32, 37), 0.0), images((2, 3, 32, 37), 1.0)
    values["lpips_vgg.masked"] = lpips(vgg([2, 2, 3, 3, 3], nn.MaxPool2d), [3, 8, 15, 22, 29], image, target, mask=target[:, 0] > 0.6)
    metadata = {"made_by": f"tests/golden/make_image_losses.py, format 1, torch {torch.__version__}"}
    safetensors.torch.save_file(values, HERE / "image_losses.safetensors", metadata)


if __name__ == "__main__":
    main()
