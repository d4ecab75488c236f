#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Routers of published models against ours, row by row.

For each model: a random small configuration, its router module of transformers with random weights, random hidden states. Our router
is made from the config.json that transformers writes, and gets the logits that the module computed. Ids must be the same set, weights
within the rounding of the module's own dtype, on every row whose margin at the k-th place (and at the last kept group) is
clear of the module's rounding; the other rows are counted. Then whole layers, as moe.py compares them.
"""
import argparse
import ctypes as c
import json
import os
import struct
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
F32, BF16, I32 = (2, 32), (4, 16), (0, 32)  # DLPack code and bits
HOST = 1


class Tensor(c.Structure):
    _fields_ = [("struct_size", c.c_size_t), ("data", c.c_void_p), ("size_bytes", c.c_uint64), ("device_type", c.c_int32),
                ("device_id", c.c_int32), ("dtype_code", c.c_uint8), ("dtype_bits", c.c_uint8), ("dtype_lanes", c.c_uint16),
                ("ndim", c.c_int32), ("flags", c.c_uint32), ("reserved", c.c_uint32), ("shape", c.POINTER(c.c_int64)),
                ("strides", c.POINTER(c.c_int64)), ("quant", c.c_void_p)]


class RouteIn(c.Structure):  # the first version of chorus_route_in
    _fields_ = [("struct_size", c.c_size_t), ("bias", c.POINTER(Tensor)), ("n_valid", c.POINTER(Tensor))]


class RouteOut(c.Structure):  # the first version of chorus_route_out
    _fields_ = [("struct_size", c.c_size_t)] + [(name, c.POINTER(Tensor)) for name in
                                                ("ids", "weights", "counts", "offsets", "order", "inverse")]


def view(tensor, dtype):
    """A chorus_tensor over a contiguous torch tensor, which must outlive it."""
    shape = (c.c_int64 * tensor.dim())(*tensor.shape)
    out = Tensor(c.sizeof(Tensor), tensor.data_ptr(), tensor.numel() * dtype[1] // 8, HOST, 0, dtype[0], dtype[1], 1,
                 tensor.dim(), 0, 0, shape, None, None)
    out.keep = (tensor, shape)
    return out


class Chorus:
    def __init__(self, library):
        self.lib = c.CDLL(library)
        self.lib.chorus_error_get_text.restype = c.c_char_p
        self.context = self.make("chorus_context_create", None)

    def call(self, name, *arguments):
        error = c.c_void_p()
        status = getattr(self.lib, name)(*arguments, c.byref(error))
        if status != 0:
            raise RuntimeError(f"{name}: {self.lib.chorus_error_get_text(error).decode()}")

    def make(self, name, *arguments):
        made = c.c_void_p()
        self.call(name, *arguments, c.byref(made))
        return made

    def route(self, folder, device, logits, k, bias):
        """ids and weights of the router that the checkpoint in `folder` describes."""
        import torch
        checkpoint = self.make("chorus_checkpoint_open", self.context, str(folder).encode())
        spec = self.make("chorus_router_spec_create_from_checkpoint", checkpoint)
        logits = logits.contiguous()
        logits_dtype = BF16 if logits.dtype == torch.bfloat16 else F32
        self.call("chorus_router_spec_set_max_tokens", spec, c.c_int64(logits.shape[0]))
        self.call("chorus_router_spec_set_dtypes", spec, *(c.c_uint32(code | bits << 8) for code, bits in
                                                           (logits_dtype, I32, F32)))
        router = self.make("chorus_router_create", self.context, spec, device.encode())
        ids = torch.empty(logits.shape[0], k, dtype=torch.int32)
        weights = torch.empty(logits.shape[0], k, dtype=torch.float32)
        x, i, w = view(logits, logits_dtype), view(ids, I32), view(weights, F32)
        given, out = RouteIn(c.sizeof(RouteIn)), RouteOut(c.sizeof(RouteOut))
        if bias is not None:
            bias_view = view(bias.float().contiguous(), F32)
            given.bias = c.pointer(bias_view)
        out.ids, out.weights = c.pointer(i), c.pointer(w)
        self.call("chorus_router_route", router, c.byref(x), c.byref(given), c.byref(out), None)
        for kind, handle in (("router", router), ("router_spec", spec), ("checkpoint", checkpoint)):
            getattr(self.lib, f"chorus_{kind}_destroy")(handle)
        return ids, weights


def write_checkpoint(folder, config):
    """config.json as transformers writes it, beside a file with one small tensor."""
    config.save_pretrained(folder)
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    (Path(folder) / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"\0\0\0\0")


# ---- The published routers: logits, ids, weights, keys of a module --------------------------------------------------

def settle(module, torch, generator):
    for name, parameter in [*module.named_parameters(), *module.named_buffers()]:
        scale = 0.1 if "bias" in name else 1.0
        parameter.data.copy_(scale * torch.randn(parameter.shape, generator=generator))


class Model:
    """How to make a router of transformers and what it says. keys: what its top-k ranks, [T, E] in f32."""

    def __init__(self, name, package, config, router, options, keys, groups=None):
        self.name, self.package, self.config, self.router = name, package, config, router
        self.options, self.keys, self.groups = options, keys, groups


def softmax(torch, logits, bias):
    return logits.float().softmax(-1)


def sigmoid_bias(torch, logits, bias):
    return logits.float().sigmoid() + bias


def raw(torch, logits, bias):
    return logits.float()


def models():
    size = dict(hidden_size=64)
    return [
        Model("mixtral", "mixtral", "MixtralConfig", "MixtralTopKRouter",
              [dict(num_local_experts=e, num_experts_per_tok=k, **size) for e, k in ((8, 2), (60, 4))], softmax),
        Model("qwen2-moe", "qwen2_moe", "Qwen2MoeConfig", "Qwen2MoeTopKRouter",
              [dict(num_experts=60, num_experts_per_tok=4, norm_topk_prob=n, **size) for n in (False, True)], softmax),
        Model("qwen3-moe", "qwen3_moe", "Qwen3MoeConfig", "Qwen3MoeTopKRouter",
              [dict(num_experts=128, num_experts_per_tok=8, norm_topk_prob=n, **size) for n in (True, False)], softmax),
        Model("olmoe", "olmoe", "OlmoeConfig", "OlmoeTopKRouter",
              [dict(num_experts=64, num_experts_per_tok=8, norm_topk_prob=n, **size) for n in (False, True)], softmax),
        Model("gpt-oss", "gpt_oss", "GptOssConfig", "GptOssTopKRouter",
              [dict(num_local_experts=e, num_experts_per_tok=4, **size) for e in (32, 128)], raw),
        Model("llama4", "llama4", "Llama4TextConfig", "Llama4Router",
              [dict(num_local_experts=e, num_experts_per_tok=k, **size) for e, k in ((16, 1), (128, 2))], raw),
        Model("deepseek-v2", "deepseek_v2", "DeepseekV2Config", "DeepseekV2TopkRouter",
              [dict(n_routed_experts=160, num_experts_per_tok=6, n_group=8, topk_group=3, topk_method="group_limited_greedy",
                    routed_scaling_factor=16.0, norm_topk_prob=False, **size),
               dict(n_routed_experts=64, num_experts_per_tok=6, n_group=1, topk_group=1, topk_method="greedy",
                    routed_scaling_factor=1.0, norm_topk_prob=False, **size)], softmax, "max"),
        Model("deepseek-v3", "deepseek_v3", "DeepseekV3Config", "DeepseekV3TopkRouter",
              [dict(n_routed_experts=256, num_experts_per_tok=8, n_group=8, topk_group=4, routed_scaling_factor=2.5, **size),
               dict(n_routed_experts=60, num_experts_per_tok=5, n_group=4, topk_group=2, routed_scaling_factor=1.0,
                    norm_topk_prob=False, **size)], sigmoid_bias, "sum"),
        Model("glm-4.5", "glm4_moe", "Glm4MoeConfig", "Glm4MoeTopkRouter",
              [dict(n_routed_experts=128, num_experts_per_tok=8, n_group=1, topk_group=1, routed_scaling_factor=2.5,
                    norm_topk_prob=True, **size)], sigmoid_bias, "sum"),
        Model("minimax-m2", "minimax_m2", "MiniMaxM2Config", "MiniMaxM2TopKRouter",
              [dict(num_local_experts=256, num_experts_per_tok=8, **size)], sigmoid_bias),
    ]


def published(torch, model, module, x, bias, k):
    """logits, ids, weights as the module has them."""
    if model.name == "llama4":
        scores, logits = module(x)
        ids = torch.topk(logits, k, dim=1)[1]
        return logits, ids, scores.gather(1, ids)
    logits, weights, ids = module(x, bias) if model.name == "minimax-m2" else module(x)
    return logits, ids, weights


def clear_rows(torch, model, keys, k, config):
    """Rows whose choice the rounding of the module's keys does not decide: four f32 ulp at the edge of what is kept."""
    def clear(values, kept):
        if kept >= values.shape[1]:
            return torch.ones(values.shape[0], dtype=torch.bool)
        best = values.sort(dim=-1, descending=True)[0]
        return best[:, kept - 1] - best[:, kept] > 2.0 ** -21 * best[:, kept - 1].abs()

    groups = getattr(config, "n_group", None) or 1
    if model.groups is None or groups <= 1:
        return clear(keys, k)
    parts = keys.view(keys.shape[0], groups, -1)
    scores = parts.max(-1)[0] if model.groups == "max" else parts.topk(2, dim=-1)[0].sum(-1)
    kept = torch.zeros_like(scores, dtype=torch.bool).scatter_(1, scores.topk(config.topk_group, dim=-1)[1], True)
    inside = parts.masked_fill(~kept.unsqueeze(-1), float("-inf")).view_as(keys)
    return clear(scores, config.topk_group) & clear(inside, k)


# ---- The comparison -------------------------------------------------------------------------------------------------

def compare(torch, chorus, device, model, options, dtype, rows, seed):
    import importlib
    package = importlib.import_module(f"transformers.models.{model.package}.modeling_{model.package}")
    config = getattr(importlib.import_module(f"transformers.models.{model.package}.configuration_{model.package}"),
                     model.config)(**options)
    generator = torch.Generator().manual_seed(seed)
    module = getattr(package, model.router)(config)
    settle(module, torch, generator)
    bias = getattr(module, "e_score_correction_bias", None)
    if model.name == "minimax-m2":
        bias = 0.1 * torch.randn(config.num_local_experts, generator=generator)
    if dtype == torch.bfloat16:
        keep = bias
        module = module.to(dtype)
        if keep is not None and hasattr(module, "e_score_correction_bias"):
            module.e_score_correction_bias = keep.float()  # kept in f32 by the models' own loading
            bias = module.e_score_correction_bias
    x = (0.3 * torch.randn(rows, 64, generator=generator)).to(dtype)
    k = options["num_experts_per_tok"]
    with torch.no_grad():
        logits, ids, weights = published(torch, model, module, x, bias, k)
    with tempfile.TemporaryDirectory() as folder:
        write_checkpoint(folder, config)
        our_ids, our_weights = chorus.route(folder, device, logits.detach(), k, bias)
    keys = model.keys(torch, logits, bias)
    clear = clear_rows(torch, model, keys, k, config)
    ordered, place = ids.to(torch.int64).sort(dim=-1)
    our_ordered, our_place = our_ids.to(torch.int64).sort(dim=-1)
    same = (ordered == our_ordered).all(-1)
    theirs, ours = weights.float().gather(1, place), our_weights.gather(1, our_place)
    relative = ((theirs - ours).abs() / theirs.abs().clamp_min(1e-30))[same]
    error = relative.max().item() if len(relative) > 0 else float("inf")
    allowed = 2.0 ** -8 if weights.dtype == torch.bfloat16 else 2e-6
    if weights.dtype == torch.bfloat16 and model.name == "gpt-oss":
        allowed = 2.0 ** -7  # its softmax itself is taken in bf16
    wrong = int((~same & clear).sum())
    good = wrong == 0 and error <= allowed
    return dict(model=model.name, options={key: value for key, value in options.items() if key != "hidden_size"},
                dtype=str(dtype).removeprefix("torch."), rows=rows, unclear=int((~clear).sum()),
                unclear_and_different=int((~same & ~clear).sum()), different=wrong, weight_error=error, allowed=allowed,
                good=good)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--library", default=str(ROOT / "build/release/lib/libchorus.so"))
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    os.environ.setdefault("CHORUS_PLUGIN_PATH", str(ROOT / "build/release/lib/chorus-plugins"))
    import torch
    import transformers
    chorus = Chorus(arguments.library)
    results = [compare(torch, chorus, arguments.device, model, options, dtype, arguments.rows, arguments.seed)
               for model in models() for options in model.options for dtype in (torch.float32, torch.bfloat16)]
    import moe  # which takes its means from this file
    layers = [moe.compare(torch, chorus, arguments.device, entry, min(arguments.rows, 1000), arguments.seed) for entry in moe.models()]
    if arguments.json:
        print(json.dumps(dict(transformers=transformers.__version__, torch=torch.__version__, results=results, layers=layers), indent=1))
    else:
        print(f"transformers {transformers.__version__}, torch {torch.__version__}, device {arguments.device}")
        print(f"{'model':12} {'dtype':9} {'rows':>6} {'unclear':>8} {'differ':>7} {'weights':>9}  options")
        for r in results:
            print(f"{r['model']:12} {r['dtype']:9} {r['rows']:6} {r['unclear']:8} {r['different']:7} "
                  f"{r['weight_error']:9.1e}{' ' if r['good'] else '!'} {r['options']}")
        moe.print_table(layers)
    return 0 if all(r["good"] for r in [*results, *layers]) else 1


if __name__ == "__main__":
    sys.exit(main())
