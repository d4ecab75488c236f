#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""example_files.py FOLDER: the files of docs/cli.md. Two models' logits for 200 rows of 50 tokens, the tokens that came next,
and gate logits of 1000 tokens for 8 experts. Integer arithmetic alone makes them, so that they are the same everywhere."""
import json
import struct
import sys
from pathlib import Path


def numbers(count, seed):
    """Multiples of 1/64 in [-4, 4)."""
    out = []
    for _ in range(count):
        seed = (seed * 6364136223846793005 + 1442695040888963407) % 2 ** 64
        out.append((seed >> 40) % 512 / 64 - 4)
    return out


def write(path, name, dtype, shape, data):
    header = json.dumps({name: {"dtype": dtype, "shape": shape, "data_offsets": [0, len(data)]}}).encode()
    header += b" " * (-len(header) % 8)
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)


def main(folder):
    rows, tokens, experts = 200, 50, 8
    targets = [int(x * 64) % tokens for x in numbers(rows, 3)]
    for model, seed in (("a", 1), ("b", 2)):
        logits = numbers(rows * tokens, seed)
        for row, target in enumerate(targets):
            if (row + seed) % 3 > 0:  # each model knows two thirds of the rows, half of them the same
                logits[row * tokens + target] += 6
        write(folder / f"{model}.safetensors", "logits", "F32", [rows, tokens], struct.pack(f"<{len(logits)}f", *logits))
    write(folder / "next.safetensors", "targets", "I64", [rows], struct.pack(f"<{rows}q", *targets))
    gate = [x / 4 + (0.5 if i % experts == 3 else 0) for i, x in enumerate(numbers(1000 * experts, 4))]
    write(folder / "gate.safetensors", "logits", "F32", [1000, experts], struct.pack(f"<{len(gate)}f", *gate))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
