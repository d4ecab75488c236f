#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Gives the host application bad input: it must say what is wrong, never crash, and leave nothing behind.

    errors.py HOST FAMILY
"""
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

FAILURES = []


def expect(name: str, arguments: list, code: int, word: str, **environment: str):
    with tempfile.TemporaryDirectory() as temporary:
        run = subprocess.run(arguments, capture_output=True, text=True, 
                             env={**os.environ, "TMPDIR": temporary, **environment})
        left = os.listdir(temporary)
    good = run.returncode == code and word in run.stderr and not left
    print(f"{'ok  ' if good else 'FAIL'} {name}: exit {run.returncode}: {run.stderr.strip()[:200]} {left or ''}")
    if not good:
        FAILURES.append(name)


def edit_config(folder: pathlib.Path, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def truncate(path: pathlib.Path):
    path.write_bytes(path.read_bytes()[:-1000])


def main() -> int:
    host, family = sys.argv[1], pathlib.Path(sys.argv[2])
    expect("no folder", [host], 2, "chorus-host FOLDER")
    expect("unknown option", [host, family, "--jsn"], 2, "chorus-host FOLDER")
    expect("a folder that is not there", [host, "no/such/folder"], 1, "no/such/folder/base")
    expect("a library that is not there", [host, family], 1, "no/such/library", CHORUS_LIBRARY="/no/such/library.so")
    damages = {
        "a model cut short": (lambda base: truncate(base / "model.safetensors"), "model.safetensors"),
        "another hidden size": (lambda base: edit_config(base, hidden_size=64), "model.embed_tokens.weight"),
        "a size of -1": (lambda base: edit_config(base, num_hidden_layers=-1), "num_hidden_layers"),
        "heads that do not divide": (lambda base: edit_config(base, num_key_value_heads=3), "num_key_value_heads"),
        "a tokenizer that is none": (lambda base: (base / "tokenizer.json").write_text("{"), "tokenizer.json"),
        "an empty text": (lambda base: (base.parent / "held-out/legal.txt").write_text(""), "legal.txt is empty"),
        "a text that is not UTF-8": (lambda base: (base.parent / "held-out/legal.txt").write_bytes(b"a\xff"), "UTF-8"),
    }
    for name, (damage, word) in damages.items():
        with tempfile.TemporaryDirectory() as folder:
            copy = pathlib.Path(folder)
            shutil.copytree(family / "base", copy / "base")
            shutil.copytree(family / "held-out", copy / "held-out")
            damage(copy / "base")
            expect(name, [host, copy], 1, word)
    print(f"{len(FAILURES)} failed" if FAILURES else "all hold")
    return 1 if FAILURES else 0


if __name__ == "__main__":
    sys.exit(main())
