# SPDX-License-Identifier: Apache-2.0
"""Mixtures of models inside transformers' generate(): the host model generates, others join as a logits processor.

    from chorus.transformers import EnsembleLogitsProcessor
    model.generate(ids, logits_processor=[EnsembleLogitsProcessor([other], weights=[0.6, 0.4])])

The other models read the same token ids; each keeps its own key-value cache, and starts anew when the ids are no continuation of what it
has read (another prompt, a beam that moved). Tokens that the host has masked (score -inf) stay masked: a mixture would revive them.
Scores on a device that Chorus has no plugin for are combined on the processor.
"""
from __future__ import annotations

import inspect
import math
from typing import Any, List, Optional, Sequence

import torch
from transformers import LogitsProcessor

from ._combine import Combiner, Model
from ._context import Context
from ._words import Word


class _Companion:
    """Another model that reads along."""

    def __init__(self, model: Any, pad_token_id: Optional[int], use_cache: bool) -> None:
        self._model, self._pad, self._use_cache = model, pad_token_id, use_cache
        self._takes_positions = "position_ids" in inspect.signature(model.forward).parameters
        self._past: Any = None
        self._read: Optional[torch.Tensor] = None

    def _attention_mask(self, ids: torch.Tensor) -> torch.Tensor:
        """0 for padding on the left, as generate() pads."""
        if self._pad is None:
            return torch.ones_like(ids)
        return (ids != self._pad).long().cumsum(-1).clamp(max=1)

    def next_logits(self, ids: torch.Tensor) -> torch.Tensor:
        """[rows, tokens] behind ids [rows, length]."""
        ids = ids.to(self._model.device)
        known = 0
        if self._use_cache and self._read is not None:
            length = self._read.shape[1]
            if ids.shape[0] == self._read.shape[0] and ids.shape[1] > length and torch.equal(ids[:, :length], self._read):
                known = length
        mask = self._attention_mask(ids)
        arguments = {"attention_mask": mask, "use_cache": self._use_cache}
        if self._takes_positions:
            arguments["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)[:, known:]
        with torch.no_grad():
            out = self._model(ids[:, known:], past_key_values=self._past if known else None, **arguments)
        if self._use_cache:
            self._past, self._read = out.past_key_values, ids.clone()
        return out.logits[:, -1]


class EnsembleLogitsProcessor(LogitsProcessor):  # type: ignore[misc]
    """The host's scores become log-probs of a mixture of the host and `models`.

    weights: of the host, then of each model; default: all alike. rule: "linear" or "log-linear". temperatures: likewise, default 1.
    keep_masked: the host's -inf stay -inf. pad_token_id: of prompts padded on the left. Size of the vocabulary: the host's; a model
    with fewer tokens lacks the last ones, a model with more has padding there.
    """

    supports_continuous_batching = False  # rows are told apart by their place in the batch

    def __init__(self, models: Sequence[Any], weights: Optional[Sequence[float]] = None, rule: Word = "linear", *,
                 temperatures: Optional[Sequence[float]] = None, keep_masked: bool = True, pad_token_id: Optional[int] = None,
                 use_cache: bool = True, device: str = "auto", context: Optional[Context] = None) -> None:
        count = len(models) + 1
        self.weights = [1 / count] * count if weights is None else [float(w) for w in weights]
        self.temperatures = [1.0] * count if temperatures is None else [float(t) for t in temperatures]
        for name, values in (("weights", self.weights), ("temperatures", self.temperatures)):
            if len(values) != count:
                raise ValueError(f"{name}: {len(values)} numbers; {count} are needed, the host's first")
        self.rule, self.keep_masked, self._device, self._context = rule, keep_masked, device, context
        self._companions = [_Companion(model, pad_token_id, use_cache) for model in models]
        self._combiner: Optional[Combiner] = None
        self._made_for: Any = None

    def _combine(self, scores: List[torch.Tensor]) -> torch.Tensor:
        tokens = scores[0].shape[-1]
        shapes = [(s.shape[-1], s.dtype) for s in scores]
        rows = scores[0].shape[0]
        if self._combiner is None or self._made_for[0] != shapes or self._made_for[1] < rows:
            models = [Model(width, weight, temperature, n_valid=min(width, tokens), dtype=dtype)
                      for (width, dtype), weight, temperature in zip(shapes, self.weights, self.temperatures)]
            self._combiner = Combiner(models, self.rule, n_tokens=tokens, max_rows=rows, device=self._device, context=self._context)
            self._made_for = shapes, rows
        mixed: torch.Tensor = self._combiner.run([s.cpu().contiguous() for s in scores]).log_probs
        return mixed

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        others = [c.next_logits(input_ids) if w != 0 else None for c, w in zip(self._companions, self.weights[1:])]
        counted = [scores] + [scores if o is None else o for o in others]  # of weight 0: never read
        mixed = self._combine([c.detach() for c in counted]).to(scores.device, scores.dtype)
        if self.keep_masked:
            mixed = mixed.masked_fill(scores == -math.inf, -math.inf)
        return self._after(scores, mixed)

    def _after(self, scores: torch.Tensor, mixed: torch.Tensor) -> torch.Tensor:
        return mixed


class ContrastiveLogitsProcessor(EnsembleLogitsProcessor):
    """Contrastive decoding: log p ~ (1 + beta) log p_host - beta log p_amateur, among the tokens whose probability under the host is
    at least `alpha` of its best one's (arXiv 2210.15097, 2309.09117)."""

    def __init__(self, amateur: Any, beta: float = 0.5, alpha: float = 0.1, **settings: Any) -> None:
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha: {alpha}; 0 to 1 is allowed")
        super().__init__([amateur], [1 + beta, -beta], "log-linear", **settings)
        self.alpha = alpha

    def _after(self, scores: torch.Tensor, mixed: torch.Tensor) -> torch.Tensor:
        if self.alpha == 0:
            return mixed
        cut = scores.amax(-1, keepdim=True) + math.log(self.alpha)
        return mixed.masked_fill(scores < cut, -math.inf)


class DExpertsLogitsProcessor(EnsembleLogitsProcessor):
    """DExperts: log p ~ log p_host + alpha (log p_expert - log p_antiexpert) (arXiv 2105.03023)."""

    def __init__(self, expert: Any, antiexpert: Any, alpha: float = 1.0, **settings: Any) -> None:
        super().__init__([expert, antiexpert], [1.0, alpha, -alpha], "log-linear", **settings)


__all__ = ["ContrastiveLogitsProcessor", "DExpertsLogitsProcessor", "EnsembleLogitsProcessor"]
