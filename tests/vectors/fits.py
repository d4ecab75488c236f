#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes fits.inc: 20 problems of fitting mixture weights with their optima, found by other means than the library's.

Logits come from splitmix64, the same here and in tests/unit/combine/fit.cpp; gold tokens are drawn here and written down.
Linear optima: every subset of models is tried, Newton inside its simplex, the best feasible one wins. Log-linear optima:
Newton with exact line search by golden section. The optimum's likelihood is then evaluated with 40 digits by mpmath.
"""
import itertools
import math
from pathlib import Path

import mpmath
import numpy as np

mpmath.mp.dps = 40
MASK = (1 << 64) - 1
PLAIN, IDENTICAL, NEGATIVE, ZEROS = range(4)


def splitmix(x):
    x = (x + 0x9E3779B97F4A7C15) & MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def noise(seed, a, b, c):
    return ((splitmix(((seed * 64 + a) * 4096 + b) * 64 + c) >> 40) % 1024 - 512) / 128


def logits(kind, seed, n, t, v):
    z = np.empty((n, t, v))
    for i, s, u in itertools.product(range(n), range(t), range(v)):
        source = 0 if kind == IDENTICAL and i == 1 else i
        z[i, s, u] = 0.5 * noise(seed, 40, s, u) + noise(seed, source, s, u)
        if kind == ZEROS and splitmix(((seed * 64 + 50 + i) * 4096 + s) * 64 + u) % 5 == 0:
            z[i, s, u] = -np.inf
    return z


def log_softmax(z):
    top = z.max(axis=-1, keepdims=True)
    return z - top - np.log(np.exp(z - top).sum(axis=-1, keepdims=True))


def draw(p, seed):
    """One token per row from p [t, v]."""
    r = np.array([(splitmix(seed * 977 + s) >> 11) / 2.0**53 for s in range(p.shape[0])])
    return np.minimum((p.cumsum(axis=-1) < r[:, None]).sum(axis=-1), p.shape[1] - 1)


def linear_newton(p):
    """The maximum of mean log(p w) over sum w = 1, w free in sign: damped Newton. None where it leaves the positive side."""
    n = p.shape[1]
    w = np.full(n, 1 / n)
    for _ in range(200):
        m = p @ w
        if (m <= 0).any():
            return None
        g, h = (p / m[:, None]).mean(0), (p / m[:, None]).T @ (p / m[:, None]) / len(m)
        kkt = np.block([[h + 1e-13 * np.eye(n), np.ones((n, 1))], [np.ones((1, n)), np.zeros((1, 1))]])
        d = np.linalg.solve(kkt, np.append(g, 0.0))[:n]
        step = 1.0
        while step > 1e-12 and ((w + step * d < 0).any() or
                                np.log(p @ (w + step * d)).mean() < np.log(m).mean() - 1e-15):
            step /= 2
        w = w + step * d
        if np.abs(step * d).max() < 1e-14:
            break
    return w


def linear_optimum(gold):
    p = np.exp(gold)
    n = p.shape[1]
    best, best_value = None, -np.inf
    for size in range(1, n + 1):
        for subset in itertools.combinations(range(n), size):
            part = p[:, subset]
            if (part.max(axis=1) <= 0).any():
                continue
            w = linear_newton(part)
            if w is None:
                continue
            full = np.zeros(n)
            full[list(subset)] = w
            value = np.log(p @ full).mean()
            if value > best_value + 1e-15:
                best, best_value = full, value
    return best


def log_linear_value(l, gold, w):
    s = np.einsum("i,itv->tv", w, l)
    top = s.max(axis=-1, keepdims=True)
    return (np.take_along_axis(s, gold[:, None], 1)[:, 0] - top[:, 0] - np.log(np.exp(s - top).sum(axis=-1))).mean()


def log_linear_optimum(l, gold):
    n = l.shape[0]
    w = np.full(n, 1 / n)
    for _ in range(100):
        p = np.exp(log_softmax(np.einsum("i,itv->tv", w, l)))
        mean = np.einsum("tv,itv->it", p, l)
        centred = l - mean[:, :, None]
        h = np.einsum("tv,itv,jtv->ij", p, centred, centred) / l.shape[1]
        g = (np.take_along_axis(l, gold[None, :, None], 2)[:, :, 0] - mean).mean(1)
        d = np.linalg.lstsq(h + 1e-12 * np.eye(n), g, rcond=None)[0]
        low, high = 0.0, 2.0
        for _ in range(80):
            a, b = low + 0.382 * (high - low), low + 0.618 * (high - low)
            if log_linear_value(l, gold, w + a * d) < log_linear_value(l, gold, w + b * d):
                low = a
            else:
                high = b
        w = w + low * d
        if g @ d < 1e-14:
            break
    return w


def exact_value(linear, l, gold, w):
    total = mpmath.mpf(0)
    for t in range(l.shape[1]):
        if linear:
            total += mpmath.log(mpmath.fsum(mpmath.mpf(float(w[i])) * mpmath.exp(mpmath.mpf(float(l[i, t, gold[t]])))
                                            for i in range(len(w)) if w[i] > 0))
        else:
            s = [mpmath.fsum(mpmath.mpf(float(w[i])) * mpmath.mpf(float(l[i, t, u])) for i in range(len(w)))
                 for u in range(l.shape[2])]
            total += s[gold[t]] - mpmath.log(mpmath.fsum(mpmath.exp(x) for x in s))
    return total / l.shape[1]


def problem(linear, kind, seed, n, t, v):
    l = log_softmax(logits(kind, seed, n, t, v))
    truth = np.array([noise(seed, 60, i, 0) for i in range(n)])
    if linear:
        mix = np.exp(l).T @ (np.abs(truth) / np.abs(truth).sum())  # [v, t]
        p = mix.T
    else:
        target = 0.4 + np.abs(truth) / 6
        if kind == NEGATIVE:
            target[-1] = -0.6
        p = np.exp(log_softmax(np.einsum("i,itv->tv", target, l)))
    gold = draw(p, seed)
    w = linear_optimum(np.stack([l[i, np.arange(t), gold] for i in range(n)], 1)) if linear else log_linear_optimum(l, gold)
    value = exact_value(linear, l, gold, w)
    print(f"{'linear' if linear else 'log-linear'} kind {kind} n {n}: {mpmath.nstr(value, 15)} at {w}")
    letters = "".join(chr(97 + g) for g in gold)
    weights = ", ".join(f"{x:.12g}" for x in w)
    return (f'    {{{"true" if linear else "false"}, {kind}, {seed}, {n}, {t}, {v}, "{letters}",\n'
            f"     {mpmath.nstr(value, 18)}, {{{weights}}}}},\n")


def main():
    out = "// Written by fits.py: linear, kind, seed, models, tokens, vocabulary, gold tokens as letters, optimum, its weights.\n"
    for k in range(10):
        out += problem(True, [PLAIN, IDENTICAL, ZEROS, PLAIN, ZEROS][k % 5], 100 + k, 2 + k % 4, 60 + 20 * k, 12)
    for k in range(10):
        out += problem(False, [PLAIN, NEGATIVE, IDENTICAL, NEGATIVE, PLAIN][k % 5], 200 + k, 1 + k % 4 + (k % 5 in (1, 2, 3)),
                       60 + 20 * k, 12)
    (Path(__file__).resolve().parent / "fits.inc").write_text(out)


if __name__ == "__main__":
    main()
