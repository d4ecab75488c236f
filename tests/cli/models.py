# SPDX-License-Identifier: Apache-2.0
"""Small models for the tests of merging: folders of random weights under the names of a Llama."""
import json
import os

import numpy as np

from program import Case

SHAPES = {"model.embed_tokens.weight": (96, 32), "model.norm.weight": (32,), "lm_head.weight": (96, 32)}
for layer in range(4):
    SHAPES[f"model.layers.{layer}.self_attn.q_proj.weight"] = (32, 32)
    SHAPES[f"model.layers.{layer}.mlp.up_proj.weight"] = (128, 32)
    SHAPES[f"model.layers.{layer}.input_layernorm.weight"] = (32,)


def random_tensors(seed, shapes=None, base=None, scale=0.02):
    """Of `base` with small changes, or from nothing."""
    random = np.random.default_rng(seed)
    return {name: (0 if base is None else base[name]) + random.normal(0, scale, shape).astype(np.float32)
            for name, shape in (shapes or SHAPES).items()}


class MergeCase(Case):
    """Models base, a and b below the test's folder; recipes name them by path."""

    def setUp(self):
        super().setUp()
        base = random_tensors(1)
        self.model("base", base)
        for seed, name in enumerate("ab"):
            self.model(name, random_tensors(seed + 2, base=base, scale=0.002))

    def model(self, name, tensors, config=None):
        self.write(f"{name}/model.safetensors", tensors)
        self.write(f"{name}/config.json", json.dumps(config or {"num_hidden_layers": 4}).encode())
        return self.path(name)

    def recipe(self, text, name="recipe.yml"):
        return self.write(name, text.encode())

    def files(self, folder):
        """Bytes of every file of a folder by name; of no folder None."""
        path = self.path(folder)
        if not os.path.isdir(path):
            return None
        out = {}
        for name in os.listdir(path):
            with open(os.path.join(path, name), "rb") as file:
                out[name] = file.read()
        return out

    def hidden(self):
        return [name for name in os.listdir(self.folder) if name.startswith(".")]


TIES = """\
merge_method: ties
base_model: base
models:
  - {model: a, parameters: {density: 0.5, weight: 0.6}}
  - {model: b, parameters: {density: 0.4, weight: 0.5}}
dtype: bfloat16
"""
LINEAR = """\
merge_method: linear
models:
  - {model: a, parameters: {weight: 0.6}}
  - {model: b, parameters: {weight: 0.4}}
"""
