#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Whole mixture-of-experts layers of published models against chorus_moe_forward.

For each model: a random small configuration, the model of transformers with random weights, saved as it saves itself. Our router,
experts and gate come from that folder alone. The judge is the module itself in double precision: our f32 result may be off by at
most four times what the module's own f32 result is off, or 1e-5 of the largest output, on every token of which both chose the same experts; the others
are counted, and may be at most one in a thousand (their choice hangs on a rounding).
"""
import argparse
import copy
import ctypes as c
import importlib
import json
import os
import sys
import tempfile

from route import F32, I32, ROOT, Chorus, RouteIn, RouteOut, view

BASE = dict(vocab_size=64, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
            max_position_embeddings=64)


def models():
    """name, package, config class, model class, options, layer, name of the block in its layer."""
    return [
        ("mixtral", "mixtral", "MixtralConfig", "MixtralForCausalLM",
         dict(intermediate_size=96, num_local_experts=8, num_experts_per_tok=2, **BASE), 1, "mlp"),
        ("qwen3-moe", "qwen3_moe", "Qwen3MoeConfig", "Qwen3MoeForCausalLM",
         dict(moe_intermediate_size=48, num_experts=32, num_experts_per_tok=4, norm_topk_prob=True, head_dim=16, **BASE), 1, "mlp"),
        ("olmoe", "olmoe", "OlmoeConfig", "OlmoeForCausalLM",
         dict(intermediate_size=48, num_experts=16, num_experts_per_tok=4, **BASE), 0, "mlp"),
        ("deepseek-v3", "deepseek_v3", "DeepseekV3Config", "DeepseekV3ForCausalLM",
         dict(BASE, moe_intermediate_size=40, intermediate_size=96, n_routed_experts=32, num_experts_per_tok=4, n_group=4, topk_group=2,
              n_shared_experts=2, first_k_dense_replace=1, q_lora_rank=16, kv_lora_rank=16, qk_rope_head_dim=8, v_head_dim=16,
              qk_nope_head_dim=16, num_key_value_heads=4), 1, "mlp"),
        ("glm-4.5", "glm4_moe", "Glm4MoeConfig", "Glm4MoeForCausalLM",
         dict(moe_intermediate_size=40, intermediate_size=96, n_routed_experts=16, num_experts_per_tok=4, n_shared_experts=1,
              first_k_dense_replace=1, head_dim=16, **BASE), 1, "mlp"),
        ("gpt-oss", "gpt_oss", "GptOssConfig", "GptOssForCausalLM",
         dict(intermediate_size=48, num_local_experts=16, num_experts_per_tok=4, head_dim=16, **BASE), 1, "mlp"),
        ("llama4", "llama4", "Llama4TextConfig", "Llama4ForCausalLM",
         dict(intermediate_size=48, intermediate_size_mlp=96, num_local_experts=8, num_experts_per_tok=1, head_dim=16,
              interleave_moe_layer_step=1, **BASE), 1, "feed_forward"),
    ]


def settle(model, torch, seed):
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.is_floating_point():
            scale = 0.05 if "bias" in name else 0.25
            tensor.data.copy_(scale * torch.randn(tensor.shape, generator=generator))


def block_of(model, layer, name):
    return getattr(model.model.layers[layer], name)


def run_module(block, x):
    """The block's output [T, H], whatever it returns beside it."""
    out = block(x.unsqueeze(0))
    out = out[0] if isinstance(out, tuple) else out
    return out.reshape(x.shape)


class Layer:
    """Our layer, from the folder."""

    def __init__(self, chorus, device, folder, layer, tokens):
        self.chorus = chorus
        checkpoint = chorus.make("chorus_checkpoint_open", chorus.context, folder.encode())
        router_spec = chorus.make("chorus_router_spec_create_from_checkpoint", checkpoint)
        self.spec = c.c_void_p()
        chorus.call("chorus_experts_spec_create_from_checkpoint", checkpoint, c.c_int32(layer), c.byref(self.spec))
        for name, spec in (("router", router_spec), ("experts", self.spec)):
            chorus.call(f"chorus_{name}_spec_set_max_tokens", spec, c.c_int64(tokens))
        f32, i32 = (c.c_uint32(code | bits << 8) for code, bits in (F32, I32))
        chorus.call("chorus_router_spec_set_dtypes", router_spec, f32, i32, f32)
        self.router = chorus.make("chorus_router_create", chorus.context, router_spec, device.encode())
        self.experts = chorus.make("chorus_experts_create", chorus.context, self.spec, device.encode())
        self.gate, self.gate_bias, self.selection = c.c_void_p(), c.c_void_p(), c.c_void_p()
        chorus.call("chorus_experts_spec_get_gate", self.spec, c.byref(self.gate), c.byref(self.gate_bias), c.byref(self.selection))

    def forward(self, torch, x, k):
        y, ids = torch.empty_like(x), torch.empty(x.shape[0], k, dtype=torch.int32)
        given, out = RouteIn(c.sizeof(RouteIn)), RouteOut(c.sizeof(RouteOut))
        if self.selection:
            given.bias = c.cast(self.selection, type(given.bias))
        ids_view = view(ids, I32)
        out.ids = c.pointer(ids_view)
        self.chorus.call("chorus_moe_forward", self.router, self.experts, c.byref(view(x, F32)), self.gate, self.gate_bias,
                         c.byref(given), c.byref(view(y, F32)), c.byref(out), None)
        return y, ids


def compare(torch, chorus, device, entry, tokens, seed):
    name, package, config_class, model_class, options, layer, block_name = entry
    config = getattr(importlib.import_module(f"transformers.models.{package}.configuration_{package}"), config_class)(**options)
    config._experts_implementation = "eager"  # the one that knows double precision
    model = getattr(importlib.import_module(f"transformers.models.{package}.modeling_{package}"), model_class)(config).float().eval()
    settle(model, torch, seed)
    block = block_of(model, layer, block_name)
    x = torch.randn(tokens, options["hidden_size"], generator=torch.Generator().manual_seed(seed + 1))
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        theirs = run_module(block, x)
        truth = run_module(copy.deepcopy(block).double(), x.double())
        ours, _ = Layer(chorus, device, folder, layer, tokens).forward(torch, x, options["num_experts_per_tok"])
    largest = truth.abs().max().item()
    mine = (ours.double() - truth).abs().amax(-1) / largest
    own = (theirs.double() - truth).abs().amax(-1) / largest
    jumped = int((mine > 1e-3).sum())  # another expert was chosen
    error, allowed = mine[mine <= 1e-3].max().item(), max(4 * own[own <= 1e-3].max().item(), 1e-5)
    return dict(model=name, tokens=tokens, other_experts=jumped, error=error, module_error=own.max().item(), allowed=allowed,
                good=error <= allowed and jumped * 1000 <= tokens)


def print_table(results):
    print(f"{'model':12} {'tokens':>7} {'other experts':>14} {'error':>9} {'theirs':>9} {'allowed':>9}")
    for r in results:
        print(f"{r['model']:12} {r['tokens']:7} {r['other_experts']:14} {r['error']:9.1e} {r['module_error']:9.1e} "
              f"{r['allowed']:9.1e}{'' if r['good'] else ' !'}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--library", default=str(ROOT / "build/release/lib/libchorus.so"))
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    os.environ.setdefault("CHORUS_PLUGIN_PATH", str(ROOT / "build/release/lib/chorus-plugins"))
    import torch
    import transformers
    chorus = Chorus(arguments.library)
    results = [compare(torch, chorus, arguments.device, entry, arguments.tokens, arguments.seed) for entry in models()]
    if arguments.json:
        print(json.dumps(dict(transformers=transformers.__version__, torch=torch.__version__, results=results), indent=1))
    else:
        print(f"transformers {transformers.__version__}, torch {torch.__version__}, device {arguments.device}")
        print_table(results)
    return 0 if all(r["good"] for r in results) else 1


if __name__ == "__main__":
    sys.exit(main())
