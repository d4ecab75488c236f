#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compares the host's forward pass with transformers' on one held-out text, every model, every logit.

    peer.py HOST_LOGITS            # exits 77, which CTest reads as skipped, where transformers is not installed
    peer.py HOST_LOGITS --write    # renews expected.json, which check.py compares with where there is no torch

expected.json holds for each model the window's tokens and, at a few positions, the largest logits.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
MODELS = sorted(p.parent.name for p in HERE.glob("*/model.safetensors"))
TEXT = HERE / "held-out" / "technical.txt"
# Both compute in f32 from the same bf16 weights; sums of 128 to 352 products in another order.
TOLERANCE = 1e-4
POSITIONS, TOP = (0, 1, 100, 255), 5


def host(program: str, model: str) -> dict:
    out = subprocess.run([program, HERE / model, TEXT], check=True, capture_output=True, text=True).stdout
    return json.loads(out)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    try:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ImportError as missing:
        python = os.environ.get("CHORUS_PEERS_PYTHON", HERE.parents[2] / ".venv-peers" / "bin" / "python3")
        if os.path.exists(python) and os.environ.get("CHORUS_PEER_TRIED") is None:
            os.execve(python, [python, *sys.argv], {**os.environ, "CHORUS_PEER_TRIED": "1"})
        print(f"skipped: {missing}; `./dev peers` and `./dev train` install it")
        return 77
    torch.set_num_threads(1)
    expected, failed = {}, 0
    for name in MODELS:
        ours = host(arguments.program, name)
        tokenizer = AutoTokenizer.from_pretrained(HERE / name)
        ids = [tokenizer.bos_token_id, *tokenizer(TEXT.read_text(), add_special_tokens=False)["input_ids"]][:256]
        model = AutoModelForCausalLM.from_pretrained(HERE / name, dtype=torch.float32).eval()
        with torch.no_grad():
            theirs = model(input_ids=torch.tensor([ids])).logits[0]
        worst = (theirs - torch.tensor(ours["logits"])).abs().max().item()
        good = ids == ours["tokens"] and worst <= TOLERANCE
        failed += not good
        print(f"{'ok  ' if good else 'FAIL'} {name}: tokens {'equal' if ids == ours['tokens'] else 'differ'}, "
              f"largest difference of {theirs.numel()} logits {worst:.2e}, largest {theirs.abs().max().item():.1f}")
        top = {p: theirs[p].topk(TOP) for p in POSITIONS}
        expected[name] = {"tokens": ids, "top": {p: [[int(i), round(float(v), 6)] for v, i in zip(t.values, t.indices)]
                                                 for p, t in top.items()}}
    if arguments.write:
        (HERE / "expected.json").write_text(json.dumps(expected) + "\n")
    print(f"{len(MODELS) - failed} passed, {failed} failed")
    return 1 if failed or not MODELS else 0


if __name__ == "__main__":
    sys.exit(main())
