# SPDX-License-Identifier: Apache-2.0
"""Routing and experts against numpy in f64."""
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chorus
from conftest import softmax


@given(st.integers(1, 40), st.integers(1, 64), st.integers(1, 8), st.booleans(), st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_softmax_topk(tokens, experts, k, renormalise, seed):
    k = min(k, experts)
    logits = np.random.default_rng(seed).normal(size=(tokens, experts)).astype(np.float32)
    logits[:, ::3] = logits[:, :1]  # ties: the lower index first
    out = chorus.Router(experts, k, renormalise="sum" if renormalise else None).route(logits, lists=True)
    wanted = np.argsort(-logits, axis=-1, kind="stable")[:, :k]
    assert np.array_equal(out.ids, wanted)
    weights = np.take_along_axis(softmax(logits), wanted, -1)
    if renormalise:
        weights /= weights.sum(-1, keepdims=True)
    assert np.allclose(out.weights, weights, rtol=1e-5, atol=1e-7)
    assert np.array_equal(out.counts, np.bincount(wanted.ravel(), minlength=experts))
    assert np.array_equal(out.order, np.argsort(wanted.ravel(), kind="stable"))
    assert np.array_equal(out.inverse[out.order], np.arange(tokens * k))


def test_preset_bias_and_padding(random):
    logits, bias = random.normal(size=(5, 16)).astype(np.float32), random.normal(size=16).astype(np.float32)
    out = chorus.Router(16, 4, score="sigmoid", bias=True, renormalise="sum").route(logits, bias=bias, n_valid=3)
    scores = 1 / (1 + np.exp(-logits.astype(np.float64)))
    assert np.array_equal(np.sort(out.ids[:3]), np.sort(np.argsort(-(scores + bias), -1)[:3, :4]))
    assert (out.ids[3:] == -1).all() and (out.weights[3:] == 0).all()


def test_presets():
    assert {"mixtral", "gpt-oss", "deepseek-v3"} <= set(chorus.presets())
    with pytest.raises(chorus.InvalidArgumentError, match="mixtral"):
        chorus.Router(8, 2, preset="mixtrl")


def ffn(x, ids, weights, gate_up, down):
    y = np.zeros_like(x, np.float64)
    inner = down.shape[-1]
    for t in range(len(x)):
        for e, w in zip(ids[t], weights[t]):
            h = gate_up[e].astype(np.float64) @ x[t]
            gate, up = h[:inner], h[inner:]
            y[t] += w * (down[e].astype(np.float64) @ (gate / (1 + np.exp(-gate)) * up))
    return y


@pytest.mark.parametrize("dtype", ["f32", "bf16"])
def test_experts(random, dtype):
    gate_up, down = random.normal(size=(4, 24, 8)) * 0.3, random.normal(size=(4, 8, 12)) * 0.3
    gate_up, down = gate_up.astype(np.float32), down.astype(np.float32)
    if dtype == "bf16":
        ml_dtypes = pytest.importorskip("ml_dtypes")
        gate_up, down = gate_up.astype(ml_dtypes.bfloat16), down.astype(ml_dtypes.bfloat16)
    x, logits = random.normal(size=(7, 8)).astype(np.float32), random.normal(size=(7, 4)).astype(np.float32)
    ids, weights = chorus.Router(4, 2).route(logits)[:2]
    experts = chorus.Experts(gate_up, down, 2)
    y, status = experts.run(x, ids, weights, status=True)
    wanted = ffn(x, ids, weights, gate_up.astype(np.float32), down.astype(np.float32))
    assert np.abs(y - wanted).max() < 1e-2 * np.abs(wanted).max() if dtype == "bf16" else np.allclose(y, wanted, rtol=1e-4, atol=1e-5)
    assert (status == 0).all() and experts.packed_bytes > 0


def test_quantised_experts(random):
    scales = (random.uniform(0.5, 1, (2, 8, 1)) / 100).astype(np.float32)
    gate_up = random.integers(-100, 100, (2, 8, 6)).astype(np.int8)
    down = random.integers(-100, 100, (2, 6, 4)).astype(np.int8)
    down_scales = (random.uniform(0.5, 1, (2, 6, 1)) / 100).astype(np.float32)
    experts = chorus.Experts({"values": gate_up, "quant": {"scales": scales, "axis": 2}},
                             {"values": down, "quant": {"scales": down_scales, "axis": 2}}, 1)
    x, ids, weights = random.normal(size=(3, 6)).astype(np.float32), np.array([[0], [1], [0]], np.int32), np.ones((3, 1), np.float32)
    wanted = ffn(x, ids, weights, gate_up * scales, down * down_scales)
    assert np.abs(experts.run(x, ids, weights) - wanted).max() <= 0.03 * np.abs(wanted).max()


def test_load():
    told = chorus.load(np.array([3, 1, 0, 0], np.int32))
    assert told.slots == 4 and told.busiest == 0 and told.idle == 2 and told.max_to_mean == 3


@pytest.mark.parametrize("call, kind, says", [
    (lambda: chorus.Router(4, 5), chorus.InvalidArgumentError, "k"),
    (lambda: chorus.Router(4, 2, score="sofmax"), ValueError, "softmax"),
    (lambda: chorus.Router(4, 2).route(np.zeros((2, 5), np.float32)), chorus.InvalidArgumentError, "logits"),
    (lambda: chorus.Router(4, 2).route(np.zeros(4, np.float32)), ValueError, "logits"),
    (lambda: chorus.Router(4, 2, scale=2.0), ValueError, "renormalise"),
    (lambda: chorus.Experts(np.zeros((2, 4, 3), np.float32), np.zeros((2, 9, 2), np.float32), 1), chorus.InvalidArgumentError, "gate_up"),
    (lambda: chorus.Experts([1, "a"], None, 1), (TypeError, ValueError), "array|format|element"),
])
def test_refused(call, kind, says):
    with pytest.raises(kind, match=says):
        call()
