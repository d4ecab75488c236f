# SPDX-License-Identifier: Apache-2.0
"""One recipe for every method of mergekit, for 2, 3 or 5 models of which the first is the base, and what its result may differ by."""
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Recipe:
    """How the results are compared: see compare.py. `passes` is the number of times the inputs are read."""
    kind: str
    passes: int = 1
    counts: tuple = (2, 3, 5)
    base: bool = True
    lists_base: bool = True  # the base stands among the models too
    weights: bool = False    # of every model but the base
    parameters: dict = field(default_factory=dict)
    n_used: int = 0          # the last models only


def weight(i):
    """Of model i, 0 the first."""
    return (0.3, 0.5, 0.6, -0.2, 0.4)[i]


METHODS = {
    "linear": Recipe("sum", base=False, weights=True),
    "passthrough": Recipe("sum", counts=(2,), base=False, n_used=1, parameters={"scale": 0.7}),
    "task_arithmetic": Recipe("delta", weights=True, parameters={"lambda": 0.7}),
    "nearswap": Recipe("nearswap", counts=(2,), parameters={"t": 0.0003}),
    "ram": Recipe("change", parameters={"epsilon": 3e-4}),
    "ramplus_tl": Recipe("change", 2, parameters={"epsilon": 3e-4, "r": 0.3, "alpha": 0.4}),
    "ties": Recipe("trim", 4, weights=True, parameters={"density": 0.4}),
    "breadcrumbs": Recipe("band", 7, weights=True, parameters={"density": 0.6, "gamma": 0.05, "lambda": 1.2}),
    "breadcrumbs_ties": Recipe("band", 7, weights=True, parameters={"density": 0.6, "gamma": 0.05}),
    "sce": Recipe("variance", 5, counts=(3, 5), parameters={"select_topk": 0.5}),
    "slerp": Recipe("sphere", 2, counts=(2,), parameters={"t": 0.4}),
    "nuslerp": Recipe("sphere", 2, counts=(2, 3), base=False, weights=True, n_used=2),
    "multislerp": Recipe("sphere", 2, base=False, weights=True),
    "karcher": Recipe("sphere", 2, base=False),
    "model_stock": Recipe("stock", 2, counts=(3, 5)),
    "arcee_fusion": Recipe("fusion", 7, counts=(2,)),
    "dare_linear": Recipe("random", 3, weights=True, parameters={"density": 0.5}),
    "dare_ties": Recipe("random", 3, weights=True, parameters={"density": 0.5}),
    "della": Recipe("random", 3, weights=True, parameters={"density": 0.5, "epsilon": 0.2}),
    "della_linear": Recipe("random", 3, weights=True, parameters={"density": 0.5, "epsilon": 0.2}),
}

# What bits mergekit's numerics owe: equal up to 4 models, one unit from 5 on, where PyTorch sums in an order of its own.
EXACT = ("sum", "delta", "nearswap", "change", "trim", "band", "variance")


# Methods that elect a sign.
CONSENSUS = ("ties", "breadcrumbs_ties", "sce", "dare_ties", "della")


def used(method, names):
    """The models the recipe merges, of these."""
    recipe = METHODS[method]
    if method == "nuslerp" and len(names) == 3:
        return names  # the first is the base of differences
    return names[-recipe.n_used:] if recipe.n_used else names


def recipe_text(method, names, dtype=None, out_dtype=None):
    """names: folders; the first is the base."""
    recipe, names = METHODS[method], used(method, names)
    lines = [f"merge_method: {method}"]
    lines += [f"dtype: {dtype}"] if dtype else []
    lines += [f"out_dtype: {out_dtype}"] if out_dtype else []
    base = recipe.base or (method == "nuslerp" and len(names) == 3)
    if base:
        lines.append(f"base_model: {names[0]}")
    shared = {key: value for key, value in recipe.parameters.items() if key != "scale"}
    if shared:
        lines += ["parameters:"] + [f"  {key}: {value}" for key, value in shared.items()]
    lines.append("models:")
    for i, name in enumerate(names):
        lines.append(f"  - model: {name}")
        if "scale" in recipe.parameters:
            lines.append(f"    parameters: {{scale: {recipe.parameters['scale']}}}")
        elif recipe.weights and not (base and i == 0):
            lines.append(f"    parameters: {{weight: {weight(i)}}}")
    return "\n".join(lines) + "\n"
