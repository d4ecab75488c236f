# SPDX-License-Identifier: Apache-2.0
"""The router, which keeps the best k experts per token, and the experts, of which only those are computed."""
from __future__ import annotations

import itertools
from typing import Any, List, NamedTuple, Optional, Union

import numpy as np

from . import _core
from ._arrays import floats, ints, output, shape_and_dtype, taken
from ._context import Context, Object, context_handle
from ._words import Word, constant, contract, dtype_of


class Routing(NamedTuple):
    """Results of a call: ids and weights [tokens, k]; the lists, [experts] and [tokens * k], where asked for."""
    ids: Any
    weights: Any
    counts: Any = None
    offsets: Any = None
    order: Any = None
    inverse: Any = None


class Router(Object):
    """Chooses experts. Immutable: any number of threads may use it."""

    @contract("chorus_router_create", "chorus_router_spec_create", "chorus_router_spec_set_preset", "chorus_router_spec_set_score",
              "chorus_router_spec_set_weights", "chorus_router_spec_set_groups")
    def __init__(self, n_experts: int, k: int, *, preset: Optional[str] = None, score: Optional[Word] = None,
                 order: Word = "score-then-topk", bias: Optional[bool] = None, renormalise: Optional[Word] = None,
                 epsilon: float = 0.0, scale: float = 1.0, n_groups: Optional[int] = None, topk_groups: int = 1,
                 group_score: Word = "max", group_top: int = 2, temperature: Optional[float] = None,
                 noise: Optional[float] = None, max_tokens: int = 4096, logits_dtype: Any = "f32", ids_dtype: Any = "i32",
                 weights_dtype: Any = "f32", device: str = "auto", context: Optional[Context] = None) -> None:
        """`preset` routes as a published model does (presets()); what is given besides changes it. Without it: softmax of all experts,
        then the k best, weights as they are."""
        spec = _core.chorus_router_spec_create(n_experts, k)
        if preset is not None:
            _core.chorus_router_spec_set_preset(spec, preset)
        if score is not None:
            _core.chorus_router_spec_set_score(spec, constant("score", "ROUTE", score), constant("order", "ROUTE", order))
        if bias is not None:
            _core.chorus_router_spec_set_bias(spec, int(bias))
        if renormalise is not None:
            _core.chorus_router_spec_set_weights(spec, constant("renormalise", "ROUTE_RENORMALISE", renormalise), epsilon, scale)
        elif (epsilon, scale) != (0.0, 1.0):
            raise ValueError("epsilon and scale go with renormalise; give that too")
        if n_groups is not None:
            _core.chorus_router_spec_set_groups(spec, n_groups, topk_groups, constant("group_score", "ROUTE_GROUP", group_score),
                                                group_top)
        if temperature is not None:
            _core.chorus_router_spec_set_temperature(spec, temperature)
        if noise is not None:
            _core.chorus_router_spec_set_noise(spec, noise)
        _core.chorus_router_spec_set_max_tokens(spec, max_tokens)
        self.n_experts, self.k = n_experts, k
        self._ids, self._weights = dtype_of("ids_dtype", ids_dtype), dtype_of("weights_dtype", weights_dtype)
        _core.chorus_router_spec_set_dtypes(spec, dtype_of("logits_dtype", logits_dtype), self._ids, self._weights)
        self._handle = _core.chorus_router_create(context_handle(context), spec, device)

    @property
    def kernel(self) -> str:
        """The kernel in use, "cpu/route_topk"."""
        return _core.chorus_router_get_kernel(self.handle) or ""

    @contract("chorus_router_route")
    def route(self, logits: Any, *, bias: Any = None, n_valid: Optional[int] = None, noise_scales: Any = None, row_ids: Any = None,
              seed: int = 0, step: int = 0, ids: Union[bool, Any] = True, weights: Union[bool, Any] = True,
              lists: bool = False) -> Routing:
        """Routes logits [tokens, experts]. `lists`: also counts, offsets, order and inverse, which sort the slots by expert."""
        logits = taken(logits)
        shape, _ = shape_and_dtype(logits)
        if len(shape) != 2:
            raise ValueError(f"logits: shape {shape}; [tokens, {self.n_experts}] is needed")
        i32, slots = _core.CHORUS_I32, shape[0] * self.k
        out = Routing(
            output(ids, logits, (shape[0], self.k), self._ids), output(weights, logits, (shape[0], self.k), self._weights),
            output(lists, logits, (self.n_experts,), i32), output(lists, logits, (self.n_experts + 1,), i32),
            output(lists, logits, (slots,), i32), output(lists, logits, (slots,), i32))
        _core.chorus_router_route(self.handle, logits, {
            "bias": floats(bias), "n_valid": None if n_valid is None else np.array([n_valid], np.int64),
            "noise_scales": floats(noise_scales), "row_ids": ints(row_ids), "seed": seed, "step": step}, out._asdict(), None)
        return out

    def __repr__(self) -> str:
        return f"<chorus.Router: {self.k} of {self.n_experts} on {self.kernel}>" if self._handle else "<chorus.Router, closed>"


def presets() -> List[str]:
    """Names of the published models whose routing is known."""
    names = (_core.chorus_router_preset_name(i) for i in itertools.count())
    return list(itertools.takewhile(lambda name: name is not None, names))  # type: ignore[arg-type]


class Load(NamedTuple):
    """How evenly experts are loaded."""
    slots: float
    max_to_mean: float
    variation: float
    entropy: float
    entropy_of_even: float
    idle: int
    busiest: int


def load(counts: Any) -> Load:
    """Load statistics of Routing.counts."""
    return Load(**_core.chorus_route_get_load(taken(counts), None, 0.0))


class Experts(Object):
    """Packed expert weights. Immutable: any number of threads may use it."""

    @contract("chorus_experts_create", "chorus_experts_spec_create", "chorus_experts_spec_set_activation")
    def __init__(self, gate_up: Any, down: Any, k: int, *, activation: Word = "swiglu", layout: Word = "gate-up-concatenated",
                 gate_up_bias: Any = None, down_bias: Any = None, limit: float = 0.0, n_shared: int = 0, weight_before: bool = False,
                 max_tokens: int = 4096, x_dtype: Any = "f32", y_dtype: Any = "f32", ids_dtype: Any = "i32",
                 device: str = "auto", context: Optional[Context] = None) -> None:
        """`gate_up` [E, 2I, H] and `down` [E, H, I], copied and packed. Quantised weights: a dict {"values": array, "quant": {"scales":
        array, …}} with the fields of chorus_quant."""
        spec = _core.chorus_experts_spec_create(taken(gate_up), taken(down), k)
        prefix = "GATE_UP" if isinstance(layout, str) and layout.lower().replace("_", "-").startswith("gate-up-") else "UP_GATE"
        word = layout if isinstance(layout, int) else layout.lower().replace("_", "-").removeprefix("gate-up-").removeprefix("up-gate-")
        _core.chorus_experts_spec_set_activation(spec, constant("activation", "ACTIVATION", activation),
                                                 constant("layout", prefix, word))
        if gate_up_bias is not None or down_bias is not None:
            self._biases = floats(gate_up_bias), floats(down_bias)
            _core.chorus_experts_spec_set_biases(spec, *self._biases)
        if limit:
            _core.chorus_experts_spec_set_limit(spec, limit)
        if n_shared:
            _core.chorus_experts_spec_set_shared(spec, n_shared)
        _core.chorus_experts_spec_set_weight_before(spec, int(weight_before))
        _core.chorus_experts_spec_set_max_tokens(spec, max_tokens)
        self._y = dtype_of("y_dtype", y_dtype)
        _core.chorus_experts_spec_set_dtypes(spec, dtype_of("x_dtype", x_dtype), self._y, dtype_of("ids_dtype", ids_dtype))
        self._handle = _core.chorus_experts_create(context_handle(context), spec, device)

    @property
    def kernel(self) -> str:
        """The kernel in use, "cpu/experts_ffn"."""
        return _core.chorus_experts_get_kernel(self.handle) or ""

    @property
    def packed_bytes(self) -> int:
        """Bytes the packed weights take."""
        return _core.chorus_experts_get_packed_bytes(self.handle)

    @contract("chorus_experts_run")
    def run(self, x: Any, ids: Any, weights: Any, *, y: Union[bool, Any] = True, status: Union[bool, Any] = False) -> Any:
        """y [tokens, H] for x [tokens, H] and what Router.route() gave. With `status` True: (y, status)."""
        x = taken(x)
        shape, _ = shape_and_dtype(x)
        y = output(y, x, shape, self._y)
        told = output(status, x, shape[:1], _core.CHORUS_I32)
        _core.chorus_experts_run(self.handle, x, taken(ids), taken(weights), y, told, None)
        return y if told is None else (y, told)
