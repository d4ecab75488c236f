# SPDX-License-Identifier: Apache-2.0
"""Whether our merge of small models is the rival's: the bound of each kind of method (docs/numerics.md, "mergekit's numerics")."""
import numpy as np

from .models import EPSILON, decode, ulp
from .recipes import CONSENSUS, EXACT, METHODS, used, weight


def operands(method, models, name):
    """(float64 arrays of the models the recipe merges, the first the base) of tensor `name`."""
    return [decode(model[name][2], model[name][0]) for model in used(method, models)]


def at_cut(values, position):
    """Where |values| equals its position-th largest one (from 1): which of them survive is the implementation's."""
    if position < 1:
        return np.zeros(values.shape, bool)
    magnitudes = np.abs(values.astype(np.float32)).astype(np.float64)
    cut = np.sort(magnitudes)[-position]
    return np.abs(magnitudes - cut) <= 1e-6 * cut


def undecided(method, terms, round_to):
    """Elements whose choice hangs on how equal magnitudes are ordered, or on the last bits of a sum."""
    recipe, base = METHODS[method], terms[0]
    deltas = [round_to(x - base) for x in terms[1:]]
    n = base.size
    out = np.zeros(n, bool)
    if recipe.kind in ("trim", "band"):
        target, top = max(1, int(recipe.parameters["density"] * n)), int(recipe.parameters.get("gamma", 0) * n)
        for delta in deltas:
            out |= at_cut(delta, top) | at_cut(delta, top + target)
            magnitudes = np.sort(np.abs(delta))
            delta[(np.abs(delta) < magnitudes[n - top - target]) | (np.abs(delta) > magnitudes[n - 1 - top])] = 0
    elif recipe.kind == "variance":
        variance = round_to(np.var(np.stack(deltas), axis=0))
        out |= at_cut(variance, int(np.float32(recipe.parameters["select_topk"]) * np.float32(np.count_nonzero(variance))))
    elif recipe.kind == "change":
        for delta in deltas:
            out |= np.abs(np.abs(delta) - recipe.parameters["epsilon"]) <= 4e-3 * recipe.parameters["epsilon"]
    if method not in CONSENSUS:
        return out
    # A vote that sums to nearly 0 goes either way.
    votes = [(weight(i + 1) if recipe.weights else 1) * delta for i, delta in enumerate(deltas)]
    out |= np.abs(sum(votes)) <= 1e-6 * sum(np.abs(vote) for vote in votes)
    return out


def terms_size(method, terms):
    """Sum of the magnitudes whose rounding counts."""
    recipe, base = METHODS[method], terms[0]
    if recipe.kind == "sum":
        size = sum(np.abs(x) for x in terms)
        return size * (3 / max(0.4, abs(sum(weight(i) for i in range(len(terms)))))) if method == "linear" else size
    return 4 * sum(np.abs(x - base) for x in terms[1:]) + np.abs(base)


def bound(method, terms, want, dtype, numerics, steps):
    """Largest difference allowed at each element. `steps`: the format of the rival's arithmetic."""
    recipe = METHODS[method]
    count = len(terms)
    if numerics == "mergekit" and recipe.kind in EXACT:
        return np.zeros(want.shape) if count < 5 else ulp(want, dtype)
    if recipe.kind in EXACT:
        return ulp(want, dtype) + 4 * EPSILON[steps] * count * terms_size(method, terms)
    # Through angles: their cosines round in the rival, more so the nearer the directions.
    largest = np.abs(want).max()
    if method == "karcher" and numerics == "mergekit" and dtype != "F32":
        # The cosine of near models lies between two numbers of the format: the other one turns the mean by a part of their spread.
        return 8 * EPSILON[dtype] * largest + 0.5 * (np.max(terms, axis=0) - np.min(terms, axis=0))
    if numerics == "mergekit":
        return 8 * EPSILON[dtype] * largest + 4 * ulp(want, dtype)
    return 2 * ulp(want, dtype) + 1e-5 * largest


class Result:
    """Of one merge, over its tensors."""

    def __init__(self):
        self.equal = self.total = self.skipped = 0
        self.worst, self.where = 0.0, ""
        self.problem = ""

    def failed(self):
        return self.worst > 1 or bool(self.problem)


def rounding(dtype):
    from .models import encode
    return lambda values: decode(encode(values, dtype).tobytes(), dtype)


def check_random(method, terms, got, want, result):
    """What is drawn differs; on the whole both keep the expected share of the expected differences."""
    base = terms[0]
    expected = sum(weight(i + 1) * (x - base) for i, x in enumerate(terms[1:]))
    if base.size < 1000:
        return
    share = [float(np.dot(values - base, expected) / np.dot(expected, expected)) for values in (got, want)]
    if abs(share[0] - share[1]) > 0.12 * max(1, abs(share[1])):
        result.problem = f"keeps {share[0]:.3f} of the expected change, mergekit {share[1]:.3f}"
    changed = [float(np.mean(values != base)) for values in (got, want)]
    if abs(changed[0] - changed[1]) > 0.06:
        result.problem = f"changes {changed[0]:.3f} of the elements, mergekit {changed[1]:.3f}"


def check_fusion(terms, got, want, steps, result):
    """mergekit's divergences are sums of differences that nearly cancel: in float32 its choice is mostly the exact one, in 16 bits chance."""
    base, other = terms
    near = np.minimum(np.abs(got - base), np.abs(got - other))
    if np.any(near > 2 * EPSILON[steps] * np.abs(other - base) + ulp(other, steps)):
        result.problem = "an element is neither model's"
    result.skipped += int(np.sum(got != want))
    if steps == "F32" and base.size >= 1000 and np.mean(got != want) > 0.12:
        result.problem = f"{np.mean(got != want):.1%} of the choices differ from mergekit's"


def compare(method, models, got, want, numerics, steps):
    """got, want, models: as models.load gives them. steps: dtype of the rival's arithmetic."""
    result = Result()
    if set(got) != set(want):
        result.problem = f"other tensors: {sorted(set(got) ^ set(want))}"
        return result
    for name, (dtype, shape, raw) in got.items():
        if shape != want[name][1]:
            result.problem = f"{name} is {shape}, mergekit's {want[name][1]}"
            return result
        a, b = decode(raw, dtype), rounding(dtype)(decode(want[name][2], want[name][0]))
        terms = operands(method, models, name)
        result.equal += int(np.sum(a == b))
        result.total += a.size
        kind = METHODS[method].kind
        if kind == "random":
            check_random(method, terms, a, b, result)
        elif kind == "fusion":
            check_fusion(terms, a, b, steps, result)
        else:
            skip = undecided(method, terms, rounding(steps)) if METHODS[method].base else np.zeros(a.shape, bool)
            result.skipped += int(np.sum(skip & (a != b)))
            allowed, off = bound(method, terms, b, dtype, numerics, steps), np.abs(a - b)
            with np.errstate(divide="ignore", invalid="ignore"):
                ratio = np.where(skip | (off == 0), 0, np.where(allowed > 0, off / allowed, np.inf))
            at = int(np.argmax(ratio))
            if ratio[at] > result.worst:
                result.worst, result.where = float(ratio[at]), f"{name}[{at}] is {a[at]:.9g}, mergekit's {b[at]:.9g}"
    return result
