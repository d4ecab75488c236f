#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes checkpoints/*.safetensors with the Python library safetensors 0.8: what the writer's bytes must equal.

Byte i of a tensor's data is (31 i + 7) mod 256. tests/unit/checkpoint/write.cpp declares the same tensors.
"""
import ctypes
from pathlib import Path

from safetensors import TensorSpec, serialize

HERE = Path(__file__).resolve().parent / "checkpoints"
TYPES = {"bool": 8, "uint8": 8, "int8": 8, "float8_e5m2": 8, "float8_e4m3fn": 8, "float8_e8m0fnu": 8, "int16": 16,
         "uint16": 16, "float16": 16, "bfloat16": 16, "int32": 32, "uint32": 32, "float32": 32, "complex64": 64,
         "float64": 64, "int64": 64, "uint64": 64}


KEPT = []  # buffers that the library only borrows


def tensor(dtype, shape):
    count = TYPES[dtype] // 8
    for size in shape:
        count *= size
    data = ctypes.create_string_buffer(bytes((31 * i + 7) % 256 for i in range(count)), max(count, 1))
    KEPT.append(data)
    return TensorSpec(dtype=dtype, shape=shape, data_ptr=ctypes.addressof(data), data_len=count)


def main():
    HERE.mkdir(exist_ok=True)
    files = {
        "all_types": ({name: tensor(name, [2, 3]) for name in TYPES}, {"format": "pt"}),
        "empty": ({}, None),
        "odd_names": ({'a "quoted" name\n\t\\ é 日本 \x01\x7f': tensor("float32", []),
                       "zero": tensor("float32", [4, 0, 2]), "one": tensor("bfloat16", [1] * 9)}, {"k": 'v"\n'}),
    }
    for name, (tensors, metadata) in files.items():
        (HERE / f"{name}.safetensors").write_bytes(serialize(tensors, metadata))


if __name__ == "__main__":
    main()
