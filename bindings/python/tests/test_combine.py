# SPDX-License-Identifier: Apache-2.0
"""The combiner against formulas in f64."""
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chorus
from conftest import log_softmax, softmax


def oracle(scores, weights, rule):
    if rule == "linear":
        with np.errstate(divide="ignore"):
            return np.log(sum(w * softmax(s) for w, s in zip(weights, scores)) / sum(weights))
    return log_softmax(sum(w * log_softmax(s) for w, s in zip(weights, scores)))


@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 300), st.sampled_from(["linear", "log-linear"]), st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_formulas(models, rows, tokens, rule, seed):
    random = np.random.default_rng(seed)
    scores = [random.normal(0, 3, (rows, tokens)).astype(np.float32) for _ in range(models)]
    weights = random.uniform(0.1, 2, models) * (1 if rule == "linear" else random.choice([-1, 1], models))
    found = chorus.combine(scores, weights, rule).log_probs
    wanted = oracle(scores, weights, rule)
    scale = sum(abs(w) * 20 for w in weights)
    assert np.abs(found - wanted).max() <= 2e-6 * (1 + scale + np.abs(wanted).max())


def test_single_rows_and_default_weights():
    out = chorus.combine([[0.0, np.log(3)], [np.log(3), 0.0]], kind="log-probs")
    assert np.allclose(np.exp(out.log_probs), [0.5, 0.5])


def test_outputs(random):
    scores = [random.normal(size=(6, 50)).astype(np.float32) for _ in range(3)]
    combiner = chorus.Combiner([chorus.Model(50, w) for w in (0.2, 0.3, 0.5)])
    tokens = random.integers(0, 50, (6, 4))
    out = combiner.run(scores, argmax=True, sample=True, tokens=tokens, status=True, seed=5)
    rows = np.arange(6)
    assert (out.argmax == out.log_probs.argmax(-1)).all() and (out.status == 0).all()
    assert np.allclose(out.sample_log_prob, out.log_probs[rows, out.sample], atol=2e-6)
    assert np.allclose(out.token_log_probs, out.log_probs[rows[:, None], tokens], atol=2e-6)
    again = combiner.run([s[3:] for s in scores], log_probs=False, sample=True, seed=5, row_ids=[3, 4, 5])
    assert again.log_probs is None and (again.sample == out.sample[3:]).all()


def test_weights_of_a_call_and_absent_models(random):
    a, b = random.normal(size=(2, 1, 9)).astype(np.float32)
    combiner = chorus.Combiner([chorus.Model(9, 1.0), chorus.Model(9, 0.0)])
    assert np.allclose(combiner.run([a, None]).log_probs, log_softmax(a), atol=1e-6)
    assert np.allclose(combiner.run([a, b], weights=[0.5, 0.5]).log_probs, oracle([a, b], [0.5, 0.5], "linear"), atol=1e-5)


def test_writes_in_place(random):
    a = random.normal(size=(2, 9)).astype(np.float32)
    combiner = chorus.Combiner([chorus.Model(9)])
    wanted, out = combiner.run([a]).log_probs, np.zeros((2, 18), np.float32)
    assert combiner.run([a], log_probs=out[:, :9]).log_probs.base is out
    assert np.array_equal(out[:, :9], wanted) and (out[:, 9:] == 0).all()
    assert combiner.run([a], log_probs=a).log_probs is a and np.array_equal(a, wanted)


def test_masked_tokens():
    scores = np.array([[0.0, -np.inf, 1.0]], np.float32)
    assert chorus.combine([scores, scores]).log_probs[0, 1] == -np.inf
    out = chorus.combine([np.full((1, 3), np.nan, np.float32)], argmax=True, status=True)
    assert np.isnan(out.log_probs).all() and out.argmax[0] == -1 and out.status[0] != 0


def test_bf16_in_and_out(random):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    a = random.normal(size=(3, 40)).astype(ml_dtypes.bfloat16)
    out = chorus.Combiner([chorus.Model(40, dtype="bf16")], log_probs_dtype="bf16").run([a]).log_probs
    assert out.dtype == ml_dtypes.bfloat16
    assert np.abs(out.astype(np.float64) - log_softmax(a.astype(np.float64))).max() < 0.05


@pytest.mark.parametrize("call, kind, says", [
    (lambda: chorus.Combiner([]), chorus.InvalidArgumentError, "model"),
    (lambda: chorus.Combiner([chorus.Model(3)], "lienar"), ValueError, "linear"),
    (lambda: chorus.Combiner([chorus.Model(3, -1.0)]), chorus.InvalidArgumentError, "weight"),
    (lambda: chorus.Combiner([chorus.Model(3)], device="cuda:9"), chorus.NotFoundError, "cuda:9"),
    (lambda: chorus.Combiner([chorus.Model(3)]).run([np.zeros((1, 4), np.float32)]), chorus.InvalidArgumentError, "scores"),
    (lambda: chorus.Combiner([chorus.Model(3)]).run([np.zeros((1, 3))]), NotImplementedError, "scores.*f64"),
    (lambda: chorus.Combiner([chorus.Model(3)]).run([]), ValueError, "scores"),
    (lambda: chorus.Combiner([chorus.Model(3)], max_rows=1.5), TypeError, "max_rows"),
    (lambda: chorus.Combiner([chorus.Model(3)], max_rows=2**70), OverflowError, "max_rows"),
    (lambda: chorus.combine([np.zeros((1, 3), np.float32)], [0.5, 0.5]), ValueError, "zip"),
])
def test_refused(call, kind, says):
    with pytest.raises(kind, match=says):
        call()


def test_read_only_output_is_refused():
    out = np.zeros((1, 3), np.float32)
    out.flags.writeable = False
    with pytest.raises(chorus.InvalidArgumentError, match="log_probs"):
        chorus.combine([np.zeros((1, 3), np.float32)], log_probs=out)


def test_torch(random):
    torch = pytest.importorskip("torch")
    a, b = (torch.randn(4, 30, dtype=torch.bfloat16, requires_grad=True) for _ in range(2))
    out = chorus.combine([a, b], [0.25, 0.75], sample=True)
    assert isinstance(out.log_probs, torch.Tensor) and out.sample.dtype == torch.int32
    wanted = (0.25 * a.float().softmax(-1) + 0.75 * b.float().softmax(-1)).log()
    assert (out.log_probs - wanted).abs().max() < 1e-5


def test_threads_share_one(random):
    scores = [random.normal(size=(8, 500)).astype(np.float32) for _ in range(2)]
    combiner = chorus.Combiner([chorus.Model(500, 0.5)] * 2)
    wanted, failures = combiner.run(scores).log_probs, []

    def work():
        for _ in range(50):
            if not np.array_equal(combiner.run(scores).log_probs, wanted):
                failures.append(1)

    threads = [threading.Thread(target=work) for _ in range(8)]
    [t.start() for t in threads], [t.join() for t in threads]
    assert not failures


def test_closed():
    combiner = chorus.Combiner([chorus.Model(3)])
    with combiner:
        pass
    combiner.close()
    with pytest.raises(ValueError, match="closed"):
        combiner.run([np.zeros((1, 3), np.float32)])


def test_objects_outlive_their_context():
    context = chorus.Context()
    combiner = chorus.Combiner([chorus.Model(3)], context=context)
    context.close()
    assert combiner.run([np.zeros((1, 3), np.float32)]).log_probs is not None
