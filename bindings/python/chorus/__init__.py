# SPDX-License-Identifier: Apache-2.0
"""Chorus makes many models act as one: combine their predictions, merge their weights, route between their experts.

    import chorus
    mixed = chorus.combine([logits_a, logits_b], weights=[0.7, 0.3]).log_probs
    chorus.merge("recipe.yml", "merged")
    ids, weights = chorus.Router(n_experts=8, k=2, preset="mixtral").route(logits)[:2]

Arrays may be numpy's, torch's, or anything with DLPack or the buffer protocol; they are read and written in place. All objects are
immutable and may be used from many threads at once; the interpreter runs on while they compute.
"""
from . import _core
from ._combine import Combined, Combiner, Model, combine
from ._context import Context, default_context
from ._errors import (AbortedError, AlreadyExistsError, CancelledError, ChorusError, DataLossError, FailedPreconditionError,
                      InternalError, InvalidArgumentError, NotFoundError, OutOfRangeError, PermissionDeniedError,
                      ResourceExhaustedError, UnavailableError, UnimplementedError)
from ._merge import Merger, Plan, Progress, merge, methods
from ._route import Experts, Load, Router, Routing, load, presets

__version__ = _core.chorus_version()

__all__ = [
    "AbortedError", "AlreadyExistsError", "CancelledError", "ChorusError", "Combined", "Combiner", "Context", "DataLossError",
    "Experts", "FailedPreconditionError", "InternalError", "InvalidArgumentError", "Load", "Merger", "Model", "NotFoundError",
    "OutOfRangeError", "PermissionDeniedError", "Plan", "Progress", "ResourceExhaustedError", "Router", "Routing",
    "UnavailableError", "UnimplementedError", "combine", "default_context", "load", "merge", "methods", "presets",
]
