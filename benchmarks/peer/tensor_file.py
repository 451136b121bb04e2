"""Safetensors files with torch alone: a machine with a GPU may have neither that package nor numpy."""

import json
import math

import torch

TYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64, "I32": torch.int32,
         "U8": torch.uint8, "BOOL": torch.bool}
NAMES = {dtype: name for name, dtype in TYPES.items()}


def read_array(file, offset, dtype, shape):
    """A tensor whose bytes lie at `offset` of an open file."""
    count = math.prod(shape)
    if count == 0:
        return torch.empty(shape, dtype=dtype)
    file.seek(offset)
    content = bytearray(count * dtype.itemsize)
    if file.readinto(content) != len(content):
        raise SystemExit(f"{file.name}: ends before byte {offset + len(content)} (a tensor of shape {list(shape)}), write it again")
    return torch.frombuffer(content, dtype=dtype).view(shape)


def load(path):
    """{name: tensor}"""
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header.pop("__metadata__", None)
        return {name: read_array(file, 8 + size + entry["data_offsets"][0], TYPES[entry["dtype"]], entry["shape"]) for name, entry in header.items()}


def save(tensors, path):
    header, offset = {}, 0
    for name, tensor in tensors.items():
        header[name] = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [offset, offset + tensor.nbytes]}
        offset += tensor.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in filter(torch.Tensor.numel, tensors.values()):
            content = bytearray(tensor.nbytes)
            torch.frombuffer(content, dtype=tensor.dtype).copy_(tensor.detach().flatten())
            file.write(content)
