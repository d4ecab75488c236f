#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""chorus merge beside mergekit: equal results on small seeded models, then time and memory on large ones.

./dev peers merge                  both parts, 5 interleaved runs of linear
./dev peers merge --check          the comparison alone
./dev peers merge --runs 5 --methods linear,slerp,task_arithmetic --folder /big/disk

Both programs read the same files from a warm page cache in one session, taking turns. A time ends when the output is on
the disk (`sync -f`). The floor is what the disk and the system need at least, measured here: `cat` of the inputs, once for each pass
of the method, and one synced write of the output's size.
"""
import argparse
import json
import os
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
CHORUS = ROOT / "build/release/bin/chorus"
MERGEKIT = Path(sys.executable).parent / "mergekit-yaml"
WIDTH = {"BF16": 2, "F16": 2, "F32": 4}
PASSES = {"linear": 1, "task_arithmetic": 1, "slerp": 2}
ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false",
               "CUDA_VISIBLE_DEVICES": ""}


# ---- Models ---------------------------------------------------------------------------------------------------------

def llama_config(layers, hidden, intermediate, vocabulary, dtype):
    return {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden, "intermediate_size": intermediate,
            "num_hidden_layers": layers, "num_attention_heads": hidden // 64, "num_key_value_heads": hidden // 64,
            "vocab_size": vocabulary, "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "tie_word_embeddings": False,
            "torch_dtype": {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}[dtype]}


def llama_shapes(config):
    h, i, v = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    yield "model.embed_tokens.weight", (v, h)
    for layer in range(config["num_hidden_layers"]):
        p = f"model.layers.{layer}."
        yield p + "input_layernorm.weight", (h,)
        yield p + "post_attention_layernorm.weight", (h,)
        for name in "qkvo":
            yield f"{p}self_attn.{name}_proj.weight", (h, h)
        yield p + "mlp.gate_proj.weight", (i, h)
        yield p + "mlp.up_proj.weight", (i, h)
        yield p + "mlp.down_proj.weight", (h, i)
    yield "model.norm.weight", (h,)
    yield "lm_head.weight", (v, h)


def encode(values, dtype):
    if dtype == "F32":
        return values.astype("<f4")
    if dtype == "F16":
        return values.astype("<f2")
    bits = values.astype("<f4").view("<u4")
    return ((bits + ((bits >> 16) & 1) + 0x7FFF) >> 16).astype("<u2")


def decode(raw, dtype):
    if dtype == "BF16":
        return (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4").astype(np.float64)
    return np.frombuffer(raw, "<f4" if dtype == "F32" else "<f2").astype(np.float64)


def save(folder, config, dtype, values_of):
    """values_of(name, shape) -> the bytes of that tensor, written as they come."""
    folder.mkdir(parents=True)
    header, end = {}, 0
    for name, shape in llama_shapes(config):
        size = int(np.prod(shape)) * WIDTH[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    text += b" " * (-len(text) % 8)
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, shape in llama_shapes(config):
            file.write(values_of(name, shape))
    (folder / "config.json").write_text(json.dumps(config, indent=2))


def load(folder):
    """{name: (dtype, shape, raw bytes)} of all shards."""
    out = {}
    for path in sorted(folder.glob("*.safetensors")):
        with open(path, "rb") as file:
            length, = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
            start = 8 + length
            for name, entry in header.items():
                if name != "__metadata__":
                    begin, end = entry["data_offsets"]
                    file.seek(start + begin)
                    out[name] = entry["dtype"], entry["shape"], file.read(end - begin)
    return out


# ---- Recipes --------------------------------------------------------------------------------------------------------

def recipe(method, folder, names, dtype):
    lines = [f"merge_method: {method}"] + ([f"dtype: {dtype}"] if dtype else [])
    if method == "slerp":
        names = names[:2]
        lines += ["parameters: {t: 0.4}"]
    if method != "linear":
        lines += [f"base_model: {folder / names[0]}"]
    lines += ["models:"]
    for i, name in enumerate(names):
        lines += [f"  - model: {folder / name}"]
        if method == "linear" or (method == "task_arithmetic" and i > 0):
            lines += [f"    parameters: {{weight: {0.3 + 0.2 * i}}}"]
    return "\n".join(lines) + "\n"


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


def ours(path, output):
    return run([CHORUS, "merge", path, "--progress", "none", output])


def rival(path, output):
    return run([MERGEKIT, path, "--no-copy-tokenizer", output])


# ---- Comparison -----------------------------------------------------------------------------------------------------

def ulp(values, dtype):
    bits, least = {"BF16": (8, -133), "F16": (11, -24), "F32": (24, -149)}[dtype]
    _, exponent = np.frexp(values)
    return np.ldexp(1.0, np.maximum(np.where(values == 0, least, exponent - bits), least))


def allowed(method, models, name, want, dtype):
    """What mergekit's own rounding may be away from the truth, beyond one ulp of the output (docs/numerics.md)."""
    if method == "linear":  # sums in float32 there, in double precision here
        terms = sum((0.3 + 0.2 * i) * np.abs(decode(model[name][2], dtype)) for i, model in enumerate(models))
        return ulp(want, dtype) + 2.0 ** -23 * len(models) * terms / sum(0.3 + 0.2 * i for i in range(len(models)))
    if method == "slerp":
        return 2 * ulp(want, dtype) + 1e-6 * np.abs(want).max()
    # Weights, deltas, products and sums each round once in mergekit, relative to the deltas.
    base = decode(models[0][name][2], dtype)
    deltas = sum(abs(0.3 + 0.2 * i) * np.abs(decode(model[name][2], dtype) - base) for i, model in enumerate(models) if i > 0)
    epsilon = {"BF16": 2.0 ** -8, "F16": 2.0 ** -11, "F32": 2.0 ** -24}[dtype]
    return ulp(want, dtype) + 4 * epsilon * deltas


def check(folder):
    config = llama_config(2, 128, 256, 500, "F32")
    failures = 0
    print(f"{'method':<16} {'dtype':<6} {'models':>6} {'equal bits':>11} {'worst':>10}")
    for dtype in ("BF16", "F16", "F32"):
        config = llama_config(2, 128, 256, 500, dtype)
        bases = {}
        for i in range(5):
            random = np.random.default_rng(i)

            def values(name, shape):
                # Fine-tunes: small deltas from a common base, heavily tied after rounding.
                base = bases.setdefault(name, np.random.default_rng(len(name) + 100).normal(0, 0.02, shape))
                return encode(base + (0 if i == 0 else random.normal(0, 0.0004, shape)), dtype).tobytes()
            save(folder / f"{dtype}-{i}", config, dtype, values)
        for method in PASSES:
            for count in (2, 3, 5) if method != "slerp" else (2,):
                names = [f"{dtype}-{i}" for i in range(count)]
                path = folder / "recipe.yml"
                path.write_text(recipe(method, folder, names, None))
                ours(path, folder / "ours")
                rival(path, folder / "rival")
                got, want = load(folder / "ours"), load(folder / "rival")
                if set(got) != set(want):
                    sys.exit(f"{method} {dtype}: other tensors: {sorted(set(got) ^ set(want))}")
                models = [load(folder / name) for name in names]
                equal = total = 0
                worst = 0.0
                for name, (got_dtype, shape, raw) in got.items():
                    if (got_dtype, shape) != want[name][:2]:
                        sys.exit(f"{method} {dtype}: {name} is {got_dtype} {shape}, mergekit gives {want[name][:2]}")
                    a, b = decode(raw, dtype), decode(want[name][2], dtype)
                    equal += int(np.sum(a == b))
                    total += a.size
                    worst = max(worst, float(np.max(np.abs(a - b) / allowed(method, models, name, b, dtype))))
                failures += worst > 1
                print(f"{method:<16} {dtype:<6} {count:>6} {equal / total:>11.4%} {worst:>7.2f} of the bound{'' if worst <= 1 else '  FAILED'}",
                      flush=True)
    return failures


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


def floor(folder, names, passes, output_bytes):
    """Seconds of reading the inputs by `cat`, once per pass, and of writing the output's bytes, synced."""
    files = [str(folder / name / "model.safetensors") for name in names]
    start = time.perf_counter()
    for _ in range(passes):
        subprocess.run(["sh", "-c", 'cat "$@" > /dev/null', "-"] + files, check=True)
    reading = time.perf_counter() - start
    start = time.perf_counter()
    subprocess.run(["sh", "-c", f'head -c {output_bytes} "$1" > "$2" && sync -f "$2"', "-", files[0], str(folder / "floor")], check=True)
    writing = time.perf_counter() - start
    (folder / "floor").unlink()
    return reading + writing


def measure(folder, output, methods, runs, as_json):
    print("making three models of 0.85 billion parameters …", flush=True)
    parameters = make_large(folder)
    results = []
    for method in methods:
        names = ["large-0", "large-1"] if method == "slerp" else ["large-0", "large-1", "large-2"]
        path = folder / "recipe.yml"
        path.write_text(recipe(method, folder, names, "bfloat16"))
        for name in names:  # warm
            subprocess.run(["sh", "-c", f'cat "{folder / name / "model.safetensors"}" > /dev/null'], check=True)
        times = {"chorus": [], "mergekit": [], "floor": []}
        memory = {"chorus": 0, "mergekit": 0}
        for _ in range(runs):
            times["floor"].append(floor(folder, names, PASSES[method], parameters * 2))
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
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--methods", default="linear", help=f"of {','.join(PASSES)}, comma separated")
    parser.add_argument("--folder", default=None, help="where the models go; needs 8 GB")
    parser.add_argument("--output", default=None, help="where outputs go, for example a tmpfs; default: beside the models")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    methods = arguments.methods.split(",")
    if unknown := [method for method in methods if method not in PASSES]:
        parser.error(f"no method {unknown[0]}; there are {', '.join(PASSES)}")
    failures = 0
    with tempfile.TemporaryDirectory(prefix="chorus-peers-", dir=arguments.folder) as name:
        folder = Path(name)
        if not arguments.measure:
            failures = check(folder)
        if not arguments.check:
            with tempfile.TemporaryDirectory(prefix="chorus-peers-", dir=arguments.output or name) as output:
                measure(folder, Path(output), methods, arguments.runs, arguments.json)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
