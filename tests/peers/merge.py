#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""chorus merge beside mergekit: results on small seeded models by every method, then time and memory on large ones.

./dev peers merge                  both parts, 5 interleaved runs of linear
./dev peers merge --check          the comparison alone; --methods ties,sce for some of them
./dev peers merge --runs 5 --methods linear,slerp,task_arithmetic --folder /big/disk
./dev peers merge --write-golden   make tests/vectors/merge_golden.npz anew, which CI compares with

Compared are numerics "mergekit" with mergekit in the models' format, and "accurate" with mergekit computing in float32.
Both programs read the same files from a warm page cache in one session, taking turns. A time ends when the output is on
the disk (`sync -f`). The floor is what the disk and the system need at least, measured here: `cat` of the inputs, once for each pass
of the method, and one synced write of the output's size into reserved space, as a merge writes.
"""
import argparse
import contextlib
import io
import json
import logging
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from merging.compare import compare
from merging.models import NAMES, encode, fine_tunes, llama_config, llama_shapes, load, rounded, save
from merging.recipes import METHODS, recipe_text

ROOT = Path(__file__).resolve().parents[2]
CHORUS = ROOT / "build/release/bin/chorus"
GOLDEN = ROOT / "tests/vectors/merge_golden.npz"
MERGEKIT = Path(sys.executable).parent / "mergekit-yaml"
ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false",
               "CUDA_VISIBLE_DEVICES": ""}


# ---- The two programs -----------------------------------------------------------------------------------------------

def run(command):
    """(seconds until the output is on the disk, peak resident bytes)."""
    output = Path(command[-1])
    shutil.rmtree(output, ignore_errors=True)
    start = time.perf_counter()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen([str(part) for part in command], stdout=log, stderr=log, env=ENVIRONMENT)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = status
        if status != 0:
            log.seek(0)
            sys.exit(f"{command[0]} failed:\n" + log.read().decode(errors="replace")[-3000:])
    subprocess.run(["sync", "-f", str(output)], check=True)
    return time.perf_counter() - start, usage.ru_maxrss * 1024


def ours(path, output, numerics="accurate"):
    return run([CHORUS, "merge", path, "--progress", "none", "--numerics", numerics, output])


def rival(path, output):
    return run([MERGEKIT, path, "--no-copy-tokenizer", output])


class Rival:
    """mergekit in this process: a start of the program takes longer than a small merge."""

    def __init__(self):
        os.environ.update(ENVIRONMENT)
        import torch
        import yaml
        from mergekit.config import MergeConfiguration
        from mergekit.merge import run_merge
        from mergekit.options import MergeOptions
        logging.disable(logging.WARNING)
        torch.set_num_threads(1)
        self.parse = lambda text: MergeConfiguration.model_validate(yaml.safe_load(text))
        self.merge = lambda config, output: run_merge(config, str(output), MergeOptions(copy_tokenizer=False, quiet=True))

    def __call__(self, path, output):
        shutil.rmtree(output, ignore_errors=True)
        with contextlib.redirect_stderr(io.StringIO()):
            self.merge(self.parse(path.read_text()), output)


# ---- Comparison -----------------------------------------------------------------------------------------------------

def cases(methods):
    """(method, format of the models, how many of them)."""
    for method in methods:
        for dtype in NAMES:
            for count in METHODS[method].counts:
                yield method, dtype, count


def write_models(folder, config, dtype, models):
    for i, model in enumerate(models):
        save(folder / f"{dtype}-{i}", config, dtype, lambda name, shape, model=model: model[name])


def check(folder, methods):
    """Number of comparisons that failed."""
    rival_in_process, failures = Rival(), 0
    for dtype in NAMES:
        config = llama_config(1, 128, 192, 300, dtype)
        write_models(folder, config, dtype, fine_tunes(config, dtype, 5))
    print(f"{'method':<17} {'models':<6} {'':>2} {'numerics':<9} {'equal bits':>10} {'tied':>6} {'worst':>9}")
    for method, dtype, count in cases(methods):
        names = [folder / f"{dtype}-{i}" for i in range(count)]
        models = [load(name) for name in names]
        path = folder / "recipe.yml"
        for numerics in ("mergekit", "accurate"):
            steps = dtype if numerics == "mergekit" else "F32"
            path.write_text(recipe_text(method, names, None if steps == dtype else "float32"))
            rival_in_process(path, folder / "rival")
            path.write_text(recipe_text(method, names, None, NAMES[steps]))
            ours(path, folder / "ours", numerics)
            result = compare(method, models, load(folder / "ours"), load(folder / "rival"), numerics, steps)
            failures += result.failed()
            note = f"  FAILED {result.problem or result.where}" if result.failed() else ""
            print(f"{method:<17} {dtype:<6} {count:>2} {numerics:<9} {result.equal / max(1, result.total):>10.4%} "
                  f"{result.skipped:>6} {result.worst:>9.3g}{note}", flush=True)
    print("all within their bounds" if failures == 0 else f"{failures} comparisons failed")
    return failures


# ---- The golden set -------------------------------------------------------------------------------------------------

def golden_cases():
    """Not the random ones; in float32 three models only, to keep the file small."""
    for method, dtype, count in cases(METHODS):
        if METHODS[method].kind not in ("random", "fusion") and (dtype != "F32" or count == METHODS[method].counts[-1]):
            yield method, dtype, count


def write_golden(folder):
    """Inputs and mergekit's outputs, raw, in one compressed file: {"F32/0": model, "ties/BF16/3": merge}."""
    rival_in_process, arrays = Rival(), {}
    for dtype in NAMES:
        config = llama_config(1, 16, 24, 24, dtype, head=16)
        models = fine_tunes(config, dtype, 5)
        write_models(folder, config, dtype, models)
        for i, model in enumerate(models):
            arrays[f"{dtype}/{i}"] = np.frombuffer(b"".join(model[name] for name, _ in llama_shapes(config)), np.uint8)
    for method, dtype, count in golden_cases():
        path = folder / "recipe.yml"
        path.write_text(recipe_text(method, [folder / f"{dtype}-{i}" for i in range(count)]))
        rival_in_process(path, folder / "rival")
        merged = load(folder / "rival")
        raw = b"".join(rounded(merged[name], dtype) for name, _ in llama_shapes(llama_config(1, 16, 24, 24, dtype, head=16)))
        arrays[f"{method}/{dtype}/{count}"] = np.frombuffer(raw, np.uint8)
    np.savez_compressed(GOLDEN, **arrays)
    print(f"{GOLDEN}: {len(arrays)} arrays, {GOLDEN.stat().st_size} bytes")


# ---- Measurement ----------------------------------------------------------------------------------------------------

def make_large(folder):
    config = llama_config(16, 2048, 4608, 32000, "BF16")
    parameters = sum(int(np.prod(shape)) for _, shape in llama_shapes(config))
    for i in range(3):
        block = encode(np.random.default_rng(i).normal(0, 0.02, 1 << 24), "BF16")
        random = np.random.default_rng(100 + i)

        def values(name, shape):
            size, start = int(np.prod(shape)), int(random.integers(0, len(block)))
            return np.resize(np.roll(block, -start), size).tobytes()
        save(folder / f"large-{i}", config, "BF16", values)
    return parameters


def floor(folder, output, names, passes, output_bytes):
    """Seconds of reading the inputs by `cat`, once per pass, and of writing the output's bytes where it goes, synced."""
    files = [str(folder / name / "model.safetensors") for name in names]
    start = time.perf_counter()
    for _ in range(passes):
        subprocess.run(["sh", "-c", 'cat "$@" > /dev/null', "-"] + files, check=True)
    reading = time.perf_counter() - start
    target = output / "floor"
    block = memoryview(os.urandom(1 << 22))
    start = time.perf_counter()
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.posix_fallocate(descriptor, 0, output_bytes)
    for at in range(0, output_bytes, len(block)):
        os.pwrite(descriptor, block[:output_bytes - at], at)
    os.close(descriptor)
    subprocess.run(["sync", "-f", str(target)], check=True)
    writing = time.perf_counter() - start
    target.unlink()
    return reading + writing


def measure(folder, output, methods, runs, as_json):
    print("making three models of 0.85 billion parameters …", flush=True)
    parameters = make_large(folder)
    results = []
    for method in methods:
        names = [f"large-{i}" for i in range(3 if 3 in METHODS[method].counts else METHODS[method].counts[-1])]
        path = folder / "recipe.yml"
        path.write_text(recipe_text(method, [folder / name for name in names], "bfloat16"))
        for name in names:  # warm
            subprocess.run(["sh", "-c", f'cat "{folder / name / "model.safetensors"}" > /dev/null'], check=True)
        times = {"chorus": [], "mergekit": [], "floor": []}
        memory = {"chorus": 0, "mergekit": 0}
        for _ in range(runs):
            times["floor"].append(floor(folder, output, names, METHODS[method].passes, parameters * 2))
            for program, call in (("mergekit", rival), ("chorus", ours)):
                seconds, peak = call(path, output / program)
                times[program].append(seconds)
                memory[program] = max(memory[program], peak)
                shutil.rmtree(output / program)
        medians = {name: statistics.median(values) for name, values in times.items()}
        result = {"method": method, "parameters": parameters, "models": len(names), "runs": runs,
                  "seconds": {name: {"median": medians[name], "min": min(values)} for name, values in times.items()},
                  "peak_bytes": memory, "ratio_median": medians["mergekit"] / medians["chorus"],
                  "ratio_min": min(times["mergekit"]) / min(times["chorus"]), "to_floor": medians["chorus"] / medians["floor"]}
        results.append(result)
        if not as_json:
            print(f"{method}: {len(names)} models, {runs} interleaved runs, median (min) in s: "
                  + ", ".join(f"{name} {medians[name]:.2f} ({min(values):.2f})" for name, values in times.items())
                  + f"; {result['ratio_median']:.1f}x faster than mergekit ({result['ratio_min']:.1f}x by the minima), "
                  f"{result['to_floor']:.2f}x of the floor; peak {memory['chorus'] / 2**30:.2f} GiB, mergekit {memory['mergekit'] / 2**30:.2f} GiB",
                  flush=True)
    if as_json:
        print(json.dumps(results, indent=2))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare results alone")
    parser.add_argument("--measure", action="store_true", help="measure alone")
    parser.add_argument("--write-golden", action="store_true", help=f"write {GOLDEN.relative_to(ROOT)}")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--methods", default=None, help="comma separated; default: all are compared, linear is measured")
    parser.add_argument("--folder", default=None, help="where the models go; measuring needs 8 GB")
    parser.add_argument("--output", default=None, help="where outputs go, for example a tmpfs; default: beside the models")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    methods = arguments.methods.split(",") if arguments.methods else None
    if unknown := [method for method in methods or [] if method not in METHODS]:
        parser.error(f"no method {unknown[0]}; there are {', '.join(METHODS)}")
    failures = 0
    with tempfile.TemporaryDirectory(prefix="chorus-peers-", dir=arguments.folder) as name:
        folder = Path(name)
        if arguments.write_golden:
            return write_golden(folder)
        if not arguments.measure:
            failures = check(folder, methods or list(METHODS))
        if not arguments.check:
            with tempfile.TemporaryDirectory(prefix="chorus-peers-", dir=arguments.output or name) as output:
                measure(folder, Path(output), methods or ["linear"], arguments.runs, arguments.json)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
