#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs the host application on the family and checks what the demo promises, with Python's standard library alone.

    check.py HOST HOST_LOGITS README
"""
import json
import math
import pathlib
import re
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
DOMAINS = ("legal", "technical", "code")
FAILURES = []


def expect(holds: bool, what: str):
    print(f"{'ok  ' if holds else 'FAIL'} {what}")
    if not holds:
        FAILURES.append(what)


def check_forward(program: str):
    """The host's tokens and logits against those of transformers (peer.py --write)."""
    from peer import TEXT, TOLERANCE
    for name, expected in json.loads((HERE / "expected.json").read_text()).items():
        ours = json.loads(subprocess.run([program, HERE / name, TEXT], check=True, capture_output=True).stdout)
        expect(ours["tokens"] == expected["tokens"], f"{name}: tokens are those of the Python library")
        worst = max(abs(ours["logits"][int(p)][i] - v) for p, top in expected["top"].items() for i, v in top)
        expect(worst <= TOLERANCE, f"{name}: logits are those of transformers, largest difference {worst:.1e}")


def check_models(of: dict):
    for model in DOMAINS:
        expect(of[model][model] < of["base"][model], f"{model}: better than base on its domain")
        expect(all(of[model][model] < of[other][model] for other in DOMAINS if other != model),
               f"{model}: the best fine-tune on its domain")
    for name, measure in of.items():
        expect(all(1 < measure[d] < 1536 for d in DOMAINS), f"{name}: perplexities are between 1 and the vocabulary")
        expect(min(measure[d] for d in DOMAINS) <= measure["all"] <= max(measure[d] for d in DOMAINS),
               f"{name}: all lies between its parts")


def check_mixtures(of: dict):
    best = min(of[d]["all"] for d in DOMAINS)
    mean = math.exp(sum(math.log(of[d]["all"]) for d in DOMAINS) / 3)
    for rule in ("linear", "log-linear"):
        mixed = of[f"{rule}: legal, technical, code"]["all"]
        expect(mixed <= best, f"{rule} mixture: no worse than the best member")
        expect(mixed <= mean, f"{rule} mixture: no worse than the mean loss, which for equal weights is a theorem")
    core = of["base + 0.5 legal - 0.5 code"]
    expect(core["legal"] < of["base"]["legal"], "core + positive - negative: better where the positive is at home")
    expect(core["code"] > of["base"]["code"], "core + positive - negative: worse where the negative is at home")


def check_merges(of: dict, told: float):
    average = of["average: legal, technical, code"]["all"]
    expect(average <= min(of[d]["all"] for d in DOMAINS), "average of fine-tunes: no worse than the best of them")
    expect(of["base + 0.4 (each fine-tune - base)"]["all"] < of["base"]["all"], "task arithmetic: better than base")
    late = of["average: late-1, late-2"]["all"]
    expect(late <= min(of["late-1"]["all"], of["late-2"]["all"]), "average of late checkpoints: no worse than either")
    ratio = of["average: base, other-start"]["all"] / max(of["base"]["all"], of["other-start"]["all"])
    expect(ratio >= 3, f"average of different starts: {ratio:.1f} times worse than the worse parent, at least 3")
    expect(math.isclose(ratio, told, rel_tol=1e-9), "the ratio told is that of the measures")


def check_experts(of: dict, experts: dict):
    e, k, layers = experts["experts"], experts["experts_per_token"], experts["layers"]
    expect(e >= 4, f"{e} experts, at least 4")
    for domain in DOMAINS:
        loads, tokens = experts["loads"][domain], experts["tokens"][domain]
        expect(len(loads) == layers and all(len(load) == e and sum(load) == tokens * k for load in loads),
               f"experts, {domain}: counts of each layer sum to tokens * k = {tokens * k}")
    config = json.loads((HERE / "mixture-of-experts" / "config.json").read_text())
    gate = 1 / (3 * config["intermediate_size"])  # of an expert-token's flops: hidden * E / (E * 3 * hidden * inner)
    expect(math.isclose(experts["flops_skipped"], 1 - k / e - gate, rel_tol=1e-6),
           "flops skipped: 1 - k/E less the gate")
    expect(of["mixture-of-experts"]["all"] < of["base"]["all"], "mixture of experts: better than base")


def check_readme(readme: str, of: dict, kernels: dict):
    """The README's table is the program's output: every measure, every number."""
    number = r"\s+(\d+\.\d+)"
    for name, measure in of.items():
        line = re.search(r"^  " + re.escape(name) + number * 5 + r"$", readme, re.MULTILINE)
        wanted = [measure[d] for d in DOMAINS] + [measure["all"], measure["bits_per_byte"]]
        # Half a unit of the last digit, and a little for another processor's rounding.
        same = line and all(abs(float(told) - value) <= 0.51 * 10.0 ** -len(told.split(".")[1])
                            for told, value in zip(line.groups(), wanted))
        expect(bool(same), f"README: the line of '{name}' is what the program prints")
    for op, kernel in kernels.items():
        expect(f"{op} by {kernel}" in " ".join(readme.split()), f"README: says that {op} is done by {kernel}")


def main() -> int:
    program, logits, readme = sys.argv[1:]
    check_forward(logits)
    data = json.loads(subprocess.run([program, HERE, "--json"], check=True, stdout=subprocess.PIPE).stdout)
    of = data["measures"]
    check_models(of)
    check_mixtures(of)
    check_merges(of, data["other_start_ratio"])
    check_experts(of, data["experts"])
    expect(len(data["generated"]["text"]) > 50, "a mixture generates text")
    expect("cpu" in data["plugins"].split(", "), "the cpu plugin was loaded at run time")
    expect(set(data["kernels"]) == {"combine.rows", "merge", "route.topk", "experts.ffn"}, "all operations were used")
    for op, kernel in data["kernels"].items():
        expect(all(name.startswith("cpu/") for name in kernel.split(", ")), f"{op} is done by the plugin: {kernel}")
    check_readme(pathlib.Path(readme).read_text(), of, data["kernels"])
    print(f"{len(FAILURES)} failed" if FAILURES else "all hold")
    return 1 if FAILURES else 0


if __name__ == "__main__":
    sys.exit(main())
