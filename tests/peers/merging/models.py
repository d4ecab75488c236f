# SPDX-License-Identifier: Apache-2.0
"""Small and large Llamas on disk: written and read as safetensors with numpy alone."""
import json
import struct

import numpy as np

WIDTH = {"BF16": 2, "F16": 2, "F32": 4}
NAMES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}
EPSILON = {"BF16": 2.0 ** -8, "F16": 2.0 ** -11, "F32": 2.0 ** -24}  # half the distance of neighbours at 1


def llama_config(layers, hidden, intermediate, vocabulary, dtype, head=64):
    return {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden, "intermediate_size": intermediate,
            "num_hidden_layers": layers, "num_attention_heads": hidden // head, "num_key_value_heads": hidden // head,
            "vocab_size": vocabulary, "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "tie_word_embeddings": False,
            "torch_dtype": NAMES[dtype]}


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


def rounded(tensor, dtype):
    """Raw bytes of a loaded tensor in `dtype`."""
    return encode(decode(tensor[2], tensor[0]), dtype).tobytes()


def ulp(values, dtype):
    """Distance between neighbours of `values`."""
    bits, least = {"BF16": (8, -133), "F16": (11, -24), "F32": (24, -149)}[dtype]
    _, exponent = np.frexp(values)
    return np.ldexp(1.0, np.maximum(np.where(values == 0, least, exponent - bits), least))


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
            for name, entry in header.items():
                if name != "__metadata__":
                    begin, end = entry["data_offsets"]
                    file.seek(8 + length + begin)
                    out[name] = entry["dtype"], entry["shape"], file.read(end - begin)
    return out


def fine_tunes(config, dtype, count):
    """Raw bytes {name: …} of a base and count - 1 fine-tunes: its differences are 2 % of it, and equal to each other often."""
    bases, out = {}, []
    for i in range(count):
        random = np.random.default_rng(i)
        tensors = {}
        for name, shape in llama_shapes(config):
            base = bases.setdefault(name, np.random.default_rng(len(name) + 100).normal(0, 0.02, shape))
            tensors[name] = encode(base + (0 if i == 0 else random.normal(0, 0.0004, shape)), dtype).tobytes()
        out.append(tensors)
    return out
