#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes targets/packed.safetensors from docs/combining.md, "Target files", alone: what tests/unit/combine/targets.cpp reads."""
import json
import struct
from pathlib import Path

K, V, B = 3, 1000, 5
# (tail logit as f16 bits, range as f16 bits, {id: code}): logit -2 and R = 8; no tail; nothing but the tail.
ROWS = [(0xC000, 0x4800, {5: 0, 700: 31, 999: 10}), (0xFC00, 0x3C00, {256: 31, 0: 0}), (0x7C00, 0, {})]


def record(logit, distance, tokens):
    low = (V // K).bit_length() - 1
    bits = []

    def put(value, count):
        bits.extend(value >> i & 1 for i in range(count))

    ids = sorted(tokens)
    put(len(ids), K.bit_length())
    put(logit, 16)
    put(distance, 16)
    for j in range(K):
        put(ids[j] % (1 << low) if j < len(ids) else 0, low)
    high = [0] * (K + ((V - 1) >> low))
    for j, token in enumerate(ids):
        high[(token >> low) + j] = 1
    bits.extend(high)
    for token in ids:
        put(tokens[token], B)
    for _ in range(K - len(ids)):
        put(0, B)
    return bytes(sum(bit << i for i, bit in enumerate(bits[at:at + 8])) for at in range(0, len(bits), 8))


def main():
    data = b"".join(record(*row) for row in ROWS)
    metadata = {"chorus.targets": "1", "form": "packed", "k": str(K), "n_tokens": str(V), "rows": str(len(ROWS)),
                "bits": str(B), "dtype": "", "temperature": "1.5", "rule": "0", "weights": "0.75 0.25",
                "fingerprint": f"{2:016x}{1:016x}"}
    shape = [len(ROWS), len(data) // len(ROWS)]
    header = json.dumps({"__metadata__": metadata,
                         "targets": {"dtype": "U8", "shape": shape, "data_offsets": [0, len(data)]}}).encode()
    header += b" " * (-len(header) % 8)
    folder = Path(__file__).resolve().parent / "targets"
    folder.mkdir(exist_ok=True)
    (folder / "packed.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + data)


if __name__ == "__main__":
    main()
