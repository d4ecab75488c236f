#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Mixtures of distributions beside PyTorch eager: the same shapes, dtype and threads, taking turns in one run.

./dev peers combine                                  N = 3, B = 32, V = 128256, bf16
./dev peers combine --rows 1 --models 2 --turns 5

PyTorch does what a host writes today: f32 copies of the logits, log_softmax, weighted sums, multinomial, gather. Our side is
bench-combine. Figures are microseconds per row, medians over the turns.
"""
import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

BENCH = Path(__file__).resolve().parents[2] / "build/release/bin/bench-combine"
DTYPES = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}


def linear_row(logits, weights):
    return sum(w * torch.softmax(x.float(), -1) for w, x in zip(weights, logits)).div(sum(weights)).log()


def log_linear_row(logits, weights):
    return torch.log_softmax(sum(w * x.float() for w, x in zip(weights, logits)), -1)


def sampled(log_probs):
    token = torch.multinomial(log_probs.exp(), 1)
    return token, log_probs.gather(-1, token)


CASES = {
    "linear row": linear_row,
    "log-linear row": log_linear_row,
    "linear sample": lambda x, w: sampled(linear_row(x, w)),
    "log-linear sample": lambda x, w: sampled(log_linear_row(x, w)),
}


def torch_turn(logits, weights, rows):
    """Microseconds per row of each case, the better of two calls."""
    result = {}
    for name, function in CASES.items():
        times = []
        for _ in range(2):
            begin = time.perf_counter()
            function(logits, weights)
            times.append(time.perf_counter() - begin)
        result[name] = min(times) / rows * 1e6
    return result


def our_turn(options):
    arguments = [f"--{name}={value}".split("=") for name, value in options.items()]
    done = subprocess.run([BENCH, "--json", "--rounds", "3", *sum(arguments, [])], capture_output=True, text=True, check=True)
    return {r["name"]: r for r in json.loads(done.stdout)["results"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocab", type=int, default=128256)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--models", type=int, default=3)
    parser.add_argument("--dtype", choices=DTYPES, default="bf16")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    if not BENCH.exists():
        sys.exit(f"{BENCH} is missing; ./dev build release bench-combine makes it")
    torch.set_num_threads(options.threads)
    torch.manual_seed(1)
    logits = [(torch.randn(options.rows, options.vocab) * 3).to(DTYPES[options.dtype]) for _ in range(options.models)]
    weights = [1 / (i + 1) for i in range(options.models)]
    theirs, ours = [], []
    for _ in range(options.turns):
        theirs.append(torch_turn(logits, weights, options.rows))
        ours.append(our_turn({k: v for k, v in vars(options).items() if k != "turns"}))
    print(f"N={options.models} B={options.rows} V={options.vocab} {options.dtype}, {options.threads} threads, "
          f"PyTorch {torch.__version__}; us per row")
    print(f"{'':20}{'PyTorch':>10}{'chorus':>10}{'faster':>9}{'of a plain sum':>16}")
    for name in CASES:
        their = statistics.median(t[name] for t in theirs)
        our = statistics.median(t[name]["us_per_row"] for t in ours)
        floor = statistics.median(t[name]["times_floor"] for t in ours)
        print(f"{name:20}{their:10.1f}{our:10.1f}{their / our:8.1f}x{floor:15.2f}x")


if __name__ == "__main__":
    main()
