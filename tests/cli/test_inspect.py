# SPDX-License-Identifier: Apache-2.0
"""`chorus inspect`: sound models of several kinds, and models that do not hold together."""
import json
import os
import struct
import unittest

from program import Case, np

HIDDEN, INNER, TOKENS, LAYERS, EXPERTS = 8, 12, 20, 2, 3
CONFIG = {"architectures": ["LlamaForCausalLM"], "hidden_size": HIDDEN, "intermediate_size": INNER, "vocab_size": TOKENS,
          "num_hidden_layers": LAYERS, "num_attention_heads": 2, "num_key_value_heads": 1, "tie_word_embeddings": False}


def zeros(*shape):
    return np.zeros(shape, np.float16)


def llama(experts=None):
    """Tensors of a small Llama; experts: None, 'separate' or 'fused'."""
    tensors = {"model.embed_tokens.weight": zeros(TOKENS, HIDDEN), "model.norm.weight": zeros(HIDDEN),
               "lm_head.weight": zeros(TOKENS, HIDDEN)}
    for layer in range(LAYERS):
        at = f"model.layers.{layer}."
        tensors |= {at + "self_attn.q_proj.weight": zeros(HIDDEN, HIDDEN), at + "self_attn.k_proj.weight": zeros(4, HIDDEN),
                    at + "self_attn.v_proj.weight": zeros(4, HIDDEN), at + "self_attn.o_proj.weight": zeros(HIDDEN, HIDDEN),
                    at + "input_layernorm.weight": zeros(HIDDEN)}
        mlp = {"gate_proj.weight": zeros(INNER, HIDDEN), "up_proj.weight": zeros(INNER, HIDDEN),
               "down_proj.weight": zeros(HIDDEN, INNER)}
        if experts is None:
            tensors |= {at + "mlp." + name: value for name, value in mlp.items()}
            continue
        tensors[at + "mlp.gate.weight"] = zeros(EXPERTS, HIDDEN)
        if experts == "separate":
            tensors |= {f"{at}mlp.experts.{e}.{name}": value for e in range(EXPERTS) for name, value in mlp.items()}
        else:
            tensors |= {at + "mlp.experts.gate_up_proj": zeros(EXPERTS, 2 * INNER, HIDDEN),
                        at + "mlp.experts.down_proj": zeros(EXPERTS, HIDDEN, INNER)}
    return tensors


class Inspect(Case):
    def model(self, tensors, config=None, name="m"):
        self.write(f"{name}/model.safetensors", tensors)
        if config is not None:
            self.write(f"{name}/config.json", json.dumps(config).encode())
        return name

    def unsound(self, name, *says):
        found = self.json_of("inspect", name, code=3)
        self.assertFalse(found["sound"])
        for text in says:
            self.assertIn(text, " | ".join(found["problems"]))
        done = self.run_chorus("inspect", name, code=3)
        self.assertIn("not sound:", done.stdout)
        self.assertIn(f"{len(found['problems'])} problems", done.stderr)

    def test_dense(self):
        found = self.json_of("inspect", self.model(llama(), CONFIG), "--tensors")
        tensors = llama()
        self.assertEqual((found["sound"], found["problems"]), (True, []))
        self.assertEqual((found["tensors"], found["layers"], found["expert_layers"]), (len(tensors), LAYERS, []))
        elements = sum(value.size for value in tensors.values())
        self.assertEqual(found["dtypes"], {"F16": {"tensors": len(tensors), "parameters": elements, "bytes": 2 * elements}})
        self.assertEqual({tensor["name"]: tensor["shape"] for tensor in found["tensor_list"]},
                         {name: list(value.shape) for name, value in tensors.items()})
        kinds = {tensor["name"]: (tensor["kind"], tensor.get("part"), tensor.get("layer")) for tensor in found["tensor_list"]}
        self.assertEqual(kinds["model.layers.1.self_attn.k_proj.weight"], ("attention", "key", 1))
        self.assertEqual(kinds["lm_head.weight"], ("head", None, None))
        text = self.run_chorus("inspect", "m", "--tensors").stdout
        for part in ("LlamaForCausalLM", "sound:", "experts       none", "model.layers.1.self_attn.k_proj.weight"):
            self.assertIn(part, text)

    def test_experts(self):
        config = CONFIG | {"num_local_experts": EXPERTS}
        for kind in ("separate", "fused"):
            found = self.json_of("inspect", self.model(llama(kind), config, kind))
            self.assertEqual(found["expert_layers"], [{"layer": layer, "experts": EXPERTS, "fused": kind == "fused"}
                                                      for layer in range(LAYERS)])
            self.assertTrue(found["sound"], found["problems"])
        self.assertIn("3 fused into one tensor, in 2 layers", self.run_chorus("inspect", "fused").stdout)

    def test_shards_and_no_config(self):
        tensors = llama()
        names = sorted(tensors)
        parts = {"part-1.safetensors": names[::2], "part-2.safetensors": names[1::2]}
        for file, held in parts.items():
            self.write(f"s/{file}", {name: tensors[name] for name in held})
        index = {"metadata": {}, "weight_map": {name: file for file, held in parts.items() for name in held}}
        self.write("s/model.safetensors.index.json", json.dumps(index).encode())
        found = self.json_of("inspect", "s")
        self.assertEqual((found["tensors"], len(found["files"]), found["sound"]), (len(names), 2, True))

    def test_hugging_face_cache(self):
        revision = "0" * 40
        self.model(llama(), CONFIG, f"hub/models--org--name/snapshots/{revision}")
        self.write("hub/models--org--name/refs/main", revision.encode())
        os.environ["HF_HUB_CACHE"] = self.path("hub")
        try:
            self.assertTrue(self.json_of("inspect", "org/name")["sound"])
            self.assertTrue(self.json_of("inspect", f"org/name@{revision}")["sound"])
            self.refused("inspect", "org/name@other", says=["other"])
        finally:
            del os.environ["HF_HUB_CACHE"]

    def test_layers(self):
        self.unsound(self.model(llama(), CONFIG | {"num_hidden_layers": 4}), "4 layers", "layer 2, 3")
        self.unsound(self.model(llama(), CONFIG | {"num_hidden_layers": 1}), "1 layers", "layer 1")
        lost = llama()
        del lost["model.layers.1.self_attn.k_proj.weight"]
        self.unsound(self.model(lost, CONFIG), "layer 1 lacks self_attn.k_proj.weight")

    def test_embeddings(self):
        self.unsound(self.model(llama(), CONFIG | {"vocab_size": 21}), "model.embed_tokens.weight [20, 8]", "21 tokens")
        headless = llama()
        del headless["lm_head.weight"]
        self.unsound(self.model(headless, CONFIG), "not tied")
        self.assertTrue(self.json_of("inspect", self.model(headless, CONFIG | {"tie_word_embeddings": True}))["sound"])

    def test_shapes(self):
        self.unsound(self.model(llama(), CONFIG | {"intermediate_size": 13}), "gate_proj.weight [12, 8]", "[13, 8]")
        self.unsound(self.model(llama(), CONFIG | {"num_key_value_heads": 2}), "k_proj.weight [4, 8]", "[8, 8]")

    def test_expert_counts(self):
        self.unsound(self.model(llama("separate"), CONFIG | {"num_experts": 4}), "3 experts", "says 4")
        gap = {name: value for name, value in llama("separate").items() if ".experts.1." not in name}
        self.unsound(self.model(gap, CONFIG), "numbered up to 2", "router for 3 experts")

    def test_tokenizer(self):
        alphabet = [chr(c) for c in range(ord("!"), ord("~") + 1)]
        tokenizer = {"model": {"type": "BPE", "vocab": {c: i for i, c in enumerate(alphabet)}, "merges": []},
                     "decoder": {"type": "ByteLevel"}, "added_tokens": []}
        self.model(llama(), CONFIG)
        self.write("m/tokenizer.json", json.dumps(tokenizer).encode())
        self.unsound("m", f"tokenizer.json has {len(alphabet)} ids")
        self.write("m/tokenizer.json", b"{")
        self.unsound("m", "tokenizer.json")

    def test_hostile(self):
        self.write("cut.safetensors", b"\x10\0\0\0\0\0\0\0{}")
        self.refused("inspect", "cut.safetensors", says=["cut.safetensors"])
        self.refused("inspect", "absent", says=["absent"])
        self.write("pickle/pytorch_model.bin", b"\x80\x02.")
        self.refused("inspect", "pickle", code=1, says=["pickle"])
        name = "a\x1b]0;owned\x07\n\x7f"
        self.write("n.safetensors", {name: zeros(1)})
        text = self.run_chorus("inspect", "n.safetensors", "--tensors").stdout
        self.assertIn("a\\x1b]0;owned\\x07\\x0a\\x7f", text)
        self.assertFalse(set(text) & set(name) - set("a]0;owned\n"))
        self.assertEqual(self.json_of("inspect", "n.safetensors", "--tensors")["tensor_list"][0]["name"], name)
        header = json.dumps({"__metadata__": {"format": "pt"}}).encode()
        self.write("empty.safetensors", struct.pack("<Q", len(header)) + header)
        self.unsound("empty.safetensors", "there is no tensor")


if __name__ == "__main__":
    unittest.main()
