#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""chorus merge beside mergekit on what recipes say of tokenizers and adapters: the row of every token, the vocabulary, the weights.

./dev peers recipes
"""
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from merge import CHORUS, ENVIRONMENT, MERGEKIT, decode, encode, llama_config, load, save

TEXTS = {"p": "the cat sat on the mat and the dog sat on the cat " * 20, "q": "a quick brown fox jumps over the lazy dog and the cat " * 20,
         "r": "the rain in Spain stays mainly in the plain, says the dog " * 20}
ADDED = {"p": ["<pad>"], "q": ["<pad>", "<|im_start|>"], "r": ["<pad>", "<tool>"]}
DTYPE = "F32"


def tokenizer(name, byte_level):
    out = Tokenizer(models.BPE(unk_token=None if byte_level else "<unk>", byte_fallback=not byte_level))
    if byte_level:
        out.pre_tokenizer, out.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
        trainer = trainers.BpeTrainer(vocab_size=330, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    else:
        out.pre_tokenizer, out.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
        trainer = trainers.BpeTrainer(vocab_size=90, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False)
    out.train_from_iterator([TEXTS[name]], trainer)
    out.add_tokens([AddedToken(token, special=True, normalized=False) for token in ADDED[name]])
    return out


def make_models(folder, byte_level):
    for seed, name in enumerate("pqr"):
        tok = tokenizer(name, byte_level)
        rows = tok.get_vocab_size() + (6 if name == "q" else 0)  # q has rows without tokens
        config = {**llama_config(1, 64, 64, rows, DTYPE), "head_dim": 64}
        random = np.random.default_rng(seed)
        save(folder / name, config, DTYPE, lambda _, shape: encode(random.normal(0, 0.02, shape), DTYPE).tobytes())
        tok.save(str(folder / name / "tokenizer.json"))
        (folder / name / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>"}))


def make_adapter(folder):
    random = np.random.default_rng(9)
    prefix, tensors = "base_model.model.model.layers.0.", {}
    for module, (out, inner) in {"self_attn.q_proj": (64, 64), "mlp.up_proj": (64, 64)}.items():
        tensors[f"{prefix}{module}.lora_A.weight"] = random.normal(0, 0.1, (4, inner)).astype("f4")
        tensors[f"{prefix}{module}.lora_B.weight"] = random.normal(0, 0.1, (out, 4)).astype("f4")
    (folder / "lora").mkdir()
    save_file(tensors, folder / "lora/adapter_model.safetensors")
    (folder / "lora/adapter_config.json").write_text(json.dumps(
        {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 6, "use_rslora": True, "alpha_pattern": {"up_proj": 12},
         "target_modules": ["q_proj", "up_proj"], "base_model_name_or_path": str(folder / "p"), "bias": "none"}))


LINEAR = "merge_method: linear\nmodels:\n" + "".join(f"  - {{model: {{F}}/{m}, parameters: {{weight: {w}}}}}\n" for m, w in zip("pqr", (0.5, 0.3, 0.2)))
BASED = "merge_method: task_arithmetic\nbase_model: {F}/p\nmodels: [{model: {F}/q}, {model: {F}/r}]\nparameters: {weight: 0.5}\n"
RECIPES = {
    "union, no base": LINEAR + "tokenizer_source: union\n",
    "union, base": BASED + "tokenizer_source: union\n",
    "base": BASED + "tokenizer_source: base\n",
    "a model": LINEAR + "tokenizer_source: {F}/r\n",
    "padding": BASED + "tokenizer: {source: union, pad_to_multiple_of: 64}\n",
    "rules": BASED + """tokenizer:
  source: union
  tokens:
    <|im_start|>: {source: {kind: zero}}
    <tool>: {source: {kind: model_token, model: {F}/q, token: <pad>}, force: true}
    <pad>: {source: {F}/q, force: true}
""",
    "adapter": "merge_method: linear\nmodels: [{model: {F}/p+{F}/lora, parameters: {weight: 1}}]\n",
    "adapter and base": "merge_method: task_arithmetic\nbase_model: {F}/p\nmodels: [{model: {F}/p+{F}/lora, parameters: {weight: 0.7}}]\n",
}


def run(command):
    process = subprocess.run([str(part) for part in command], capture_output=True, text=True, env=ENVIRONMENT)
    if process.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}:\n{process.stderr[-3000:]}")


def vocabulary(folder):
    return Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab(with_added_tokens=True)


# Largest difference of any weight, rows of tokens compared by token; what is no number of rows is an error.
def worst(ours, rival, by_token):
    got, want = load(ours), load(rival)
    if set(got) != set(want):
        sys.exit(f"other tensors: {sorted(set(got) ^ set(want))}")
    ids, rival_ids = (vocabulary(ours), vocabulary(rival)) if by_token else ({}, {})
    if set(ids) != set(rival_ids):
        sys.exit(f"other tokens: {sorted(set(ids) ^ set(rival_ids))}")
    out = 0.0
    for name, (dtype, shape, raw) in got.items():
        if shape != want[name][1]:
            sys.exit(f"{name} is {shape}, mergekit gives {want[name][1]}")
        a, b = (decode(data, kind).reshape(shape) for kind, data in ((dtype, raw), (want[name][0], want[name][2])))
        if by_token and re.search("embed_tokens|lm_head", name):
            order, rival_order = ([table[token] for token in sorted(ids)] for table in (ids, rival_ids))
            padding = slice(len(ids), None)
            out = max(out, float(np.abs(a[padding] - b[padding]).max(initial=0)))
            a, b = a[order], b[rival_order]
        out = max(out, float(np.abs(a - b).max()))
    return out


def main():
    failures = 0
    for byte_level in (True, False):
        with tempfile.TemporaryDirectory(prefix="chorus-peers-") as name:
            folder = Path(name)
            make_models(folder, byte_level)
            make_adapter(folder)
            for what, text in RECIPES.items():
                if not byte_level and "adapter" in what:
                    continue
                path = folder / "recipe.yml"
                path.write_text(text.replace("{F}", str(folder)))
                shutil.rmtree(folder / "rival", ignore_errors=True)
                run([CHORUS, "merge", path, "--progress", "none", "--replace", folder / "ours"])
                run([MERGEKIT, path, "--lora-merge-cache", folder / "cache", folder / "rival"])
                difference = worst(folder / "ours", folder / "rival", "adapter" not in what)
                sizes = [json.loads((folder / side / "config.json").read_text())["vocab_size"] for side in ("ours", "rival")]
                good = difference < 1e-7 and sizes[0] == sizes[1]
                failures += not good
                print(f"{'byte-level' if byte_level else 'metaspace':<11} {what:<17} largest difference {difference:.2g}, vocab_size {sizes[0]}"
                      f"{'' if good else f', mergekit {sizes[1]}  FAILED'}", flush=True)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
