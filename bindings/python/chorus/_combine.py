# SPDX-License-Identifier: Apache-2.0
"""The combiner: mixes the next-token distributions of several models."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Optional, Sequence, Union

from . import _core
from ._arrays import floats, ints, output, shape_and_dtype, taken
from ._context import Context, Object, context_handle
from ._words import Word, constant, contract, dtype_of


@dataclass(frozen=True)
class Model:
    """The scores of one model: how long its rows are and what they hold.

    kind: "logits", "log-probs" or "probs"; dtype: "f32", "f16", "bf16"; n_valid: tokens that exist, where rows are padded;
    weight: default weight, exactly 0 means never read; temperature: 0 is argmax.
    """
    n_logits: int
    weight: float = 1.0
    temperature: float = 1.0
    n_valid: Optional[int] = None
    kind: Word = "logits"
    dtype: Any = "f32"


class Combined(NamedTuple):
    """Results of a call, [rows] each but log_probs [rows, tokens] and token_log_probs; None where not asked for."""
    log_probs: Any = None
    argmax: Any = None
    argmax_log_prob: Any = None
    sample: Any = None
    sample_log_prob: Any = None
    token_log_probs: Any = None
    status: Any = None


class Combiner(Object):
    """Combines rows of scores. Immutable: any number of threads may run it."""

    @contract("chorus_combiner_create", "chorus_combiner_spec_set_rule", "chorus_combiner_spec_add_model")
    def __init__(self, models: Sequence[Model], rule: Word = "linear", *, n_tokens: Optional[int] = None, max_rows: int = 1024,
                 log_probs_dtype: Any = "f32", weights_per_row: bool = False, device: str = "auto",
                 context: Optional[Context] = None) -> None:
        """`rule`: "linear" (OR: sum of w p) or "log-linear" (AND: product of p^w, any real w). `n_tokens`: size of the output
        vocabulary, by default the largest n_valid."""
        self.models = tuple(models)
        spec = _core.chorus_combiner_spec_create()
        _core.chorus_combiner_spec_set_rule(spec, constant("rule", "COMBINE", rule))
        _core.chorus_combiner_spec_set_max_rows(spec, max_rows)
        self._dtype = dtype_of("log_probs_dtype", log_probs_dtype)
        _core.chorus_combiner_spec_set_log_probs_dtype(spec, self._dtype)
        _core.chorus_combiner_spec_set_weights_per_row(spec, int(weights_per_row))
        if n_tokens is not None:
            _core.chorus_combiner_spec_set_vocabulary_size(spec, n_tokens)
        for model in self.models:
            valid = model.n_logits if model.n_valid is None else model.n_valid
            _core.chorus_combiner_spec_add_model(spec, constant("kind", "SCORES", model.kind), dtype_of("dtype", model.dtype),
                                                 model.n_logits, valid, model.weight, model.temperature)
        self.n_tokens = n_tokens if n_tokens is not None else max(
            (m.n_logits if m.n_valid is None else m.n_valid for m in self.models), default=0)
        self._handle = _core.chorus_combiner_create(context_handle(context), spec, device)

    @property
    def kernel(self) -> str:
        """The kernel in use, "cpu/combine_rows"."""
        return _core.chorus_combiner_get_kernel(self.handle) or ""

    @contract("chorus_combiner_run")
    def run(self, scores: Sequence[Any], *, weights: Any = None, temperatures: Any = None, log_probs: Union[bool, Any] = True,
            argmax: Union[bool, Any] = False, sample: Union[bool, Any] = False, tokens: Any = None,
            token_log_probs: Union[bool, Any, None] = None, status: Union[bool, Any] = False, seed: int = 0, step: int = 0,
            row_ids: Any = None, steps: Any = None) -> Combined:
        """Combines one array [rows, n_logits] per model, in their order; None for a model of weight 0. Outputs: True for a new array
        of the kind of the first scores, an array to write into it, False for none. `argmax` and `sample` give token and log-prob;
        `tokens` [rows, n] asks for the log-probs of these. Draws depend on (seed, row id, step) alone."""
        arrays = [None if s is None else taken(s) for s in scores]
        if len(arrays) != len(self.models):
            raise ValueError(f"scores: {len(arrays)} arrays; the combiner has {len(self.models)} models")
        first = next((a for a in arrays if a is not None), None)
        if first is None:
            raise ValueError("scores: every array is None")
        shapes = [None if a is None else shape_and_dtype(a)[0] for a in arrays]
        for i, shape in enumerate(shapes):
            if shape is not None and len(shape) != 2:
                raise ValueError(f"scores[{i}]: shape {shape}; [rows, n_logits] is needed")
        rows = next(shape[0] for shape in shapes if shape is not None)
        f32, i32 = _core.CHORUS_F32, _core.CHORUS_I32
        tokens = tokens if tokens is None else taken(tokens)
        out = Combined(
            log_probs=output(log_probs, first, (rows, self.n_tokens), self._dtype),
            argmax=output(argmax, first, (rows,), i32),
            argmax_log_prob=output(argmax is not False and argmax is not None, first, (rows,), f32),
            sample=output(sample, first, (rows,), i32),
            sample_log_prob=output(sample is not False and sample is not None, first, (rows,), f32),
            token_log_probs=None if tokens is None else output(
                True if token_log_probs is None else token_log_probs, first, shape_and_dtype(tokens)[0], f32),
            status=output(status, first, (rows,), i32))
        _core.chorus_combiner_run(self.handle, {
            "rows": rows, "scores": arrays, "weights": floats(weights), "temperatures": floats(temperatures),
            "row_ids": ints(row_ids), "steps": ints(steps), "seed": seed, "step": step, "tokens": tokens}, out._asdict(), None)
        return out

    def __repr__(self) -> str:
        return f"<chorus.Combiner of {len(self.models)} models on {self.kernel}>" if self._handle else "<chorus.Combiner, closed>"


def combine(scores: Sequence[Any], weights: Optional[Sequence[float]] = None, rule: Word = "linear", *, kind: Word = "logits",
            temperature: float = 1.0, device: str = "auto", context: Optional[Context] = None, **outputs: Any) -> Combined:
    """Combines arrays [rows, tokens], or single rows [tokens], once; keeps nothing. For many calls make a Combiner.

    `outputs` as Combiner.run() takes them. Without weights all models count alike: 1/N each.
    """
    arrays = [taken(s) for s in scores]
    single = bool(arrays) and len(shape_and_dtype(arrays[0])[0]) == 1
    rows = [a.reshape(1, -1) for a in arrays] if single else arrays
    weights = [1 / len(rows)] * len(rows) if weights is None else list(weights)
    models = []
    for array, weight in zip(rows, weights, strict=True):
        shape, dtype = shape_and_dtype(array)
        models.append(Model(shape[-1], weight, temperature, kind=kind, dtype=dtype))
    first_shape = shape_and_dtype(rows[0])[0] if rows else (1,)
    with Combiner(models, rule, max_rows=max(1, first_shape[0]), device=device, context=context) as combiner:
        out = combiner.run(rows, **outputs)
    return Combined(*(None if value is None else value[0] for value in out)) if single else out
