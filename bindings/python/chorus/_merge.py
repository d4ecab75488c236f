# SPDX-License-Identifier: Apache-2.0
"""The merger: one checkpoint of several, by a recipe in mergekit's language."""
from __future__ import annotations

import json
import os
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Union

from . import _core
from ._context import Context, Object, context_handle
from ._words import Word, constant, contract

Recipe = Union[str, "os.PathLike[str]", Mapping[str, Any]]


class Plan(NamedTuple):
    """What a merge will do, known before a byte is written; text is for people, json has every tensor."""
    tensors: int
    merged: int
    copied: int
    bytes_to_read: int
    bytes_to_write: int
    peak_memory: int
    seconds: float
    text: str
    json: str


class Progress(NamedTuple):
    """How far a merge is."""
    phase: str
    tensor: str
    bytes_done: int
    bytes_total: int
    tensors_done: int
    tensors_total: int


class Merger(Object):
    """A planned merge. Making one reads headers alone and finds every mistake; run() writes."""

    @contract("chorus_merger_create", "chorus_merger_spec_create")
    def __init__(self, recipe: Recipe, output: Union[str, "os.PathLike[str]", None] = None, *, memory: Optional[int] = None,
                 max_shard_bytes: Optional[int] = None, numerics: Word = "accurate", seed: int = 0, replace: bool = False,
                 device: str = "auto", context: Optional[Context] = None) -> None:
        """`recipe`: a mapping, YAML text (of more than one line), or the path of a file. Without `output` it only plans."""
        spec = _core.chorus_merger_spec_create()
        if isinstance(recipe, Mapping):  # JSON is YAML
            text = json.dumps(recipe)
            _core.chorus_merger_spec_set_recipe(spec, text, len(text.encode()), None)
        elif isinstance(recipe, str) and "\n" in recipe:
            _core.chorus_merger_spec_set_recipe(spec, recipe, len(recipe.encode()), None)
        else:
            _core.chorus_merger_spec_set_recipe_file(spec, recipe)
        if output is not None:
            _core.chorus_merger_spec_set_output(spec, output)
        if memory is not None:
            _core.chorus_merger_spec_set_memory(spec, memory)
        if max_shard_bytes is not None:
            _core.chorus_merger_spec_set_max_shard_bytes(spec, max_shard_bytes)
        _core.chorus_merger_spec_set_numerics(spec, constant("numerics", "NUMERICS", numerics))
        _core.chorus_merger_spec_set_seed(spec, seed)
        _core.chorus_merger_spec_set_replace(spec, int(replace))
        self._handle = _core.chorus_merger_create(context_handle(context), spec, device)

    @property
    def plan(self) -> Plan:
        told = _core.chorus_merger_get_plan(self.handle)
        return Plan(told["tensor_count"], told["merged_count"], told["copied_count"], told["bytes_to_read"],
                    told["bytes_to_write"], told["peak_memory"], told["seconds"],
                    _core.chorus_merger_get_plan_text(self.handle) or "", _core.chorus_merger_get_plan_json(self.handle) or "")

    @property
    def warnings(self) -> List[str]:
        """Keys without effect, models that are not needed, a disk too full."""
        count = _core.chorus_merger_get_warning_count(self.handle)
        return [_core.chorus_merger_get_warning(self.handle, i) or "" for i in range(count)]

    @contract("chorus_merger_run")
    def run(self, progress: Union[Callable[[Progress], Any], bool, None] = None) -> None:
        """Writes the merged model. `progress` hears of the run about every 64 MiB and stops it by returning True or by raising;
        True instead of a function shows a bar (tqdm). Ctrl-C stops it too, and leaves nothing behind."""
        if progress is True:
            with _Bar() as bar:
                _core.chorus_merger_run(self.handle, bar)
        elif progress is None or progress is False:
            _core.chorus_merger_run(self.handle, None)
        else:
            hears = progress
            _core.chorus_merger_run(self.handle, lambda told: hears(Progress(**told)))


class _Bar:
    """A progress bar of bytes."""

    def __enter__(self) -> "_Bar":
        from tqdm.auto import tqdm
        self._bar = tqdm(unit="B", unit_scale=True, unit_divisor=1024)
        return self

    def __call__(self, told: Dict[str, Any]) -> None:
        self._bar.total = told["bytes_total"]
        self._bar.set_description(told["phase"], refresh=False)
        self._bar.update(told["bytes_done"] - self._bar.n)

    def __exit__(self, *exception: Any) -> None:
        self._bar.close()


def merge(recipe: Recipe, output: Union[str, "os.PathLike[str]"], *, progress: Union[Callable[[Progress], Any], bool, None] = None,
          **settings: Any) -> Plan:
    """Merges by `recipe` into the folder `output`; settings as for Merger. Gives the plan it carried out."""
    with Merger(recipe, output, **settings) as merger:
        plan = merger.plan
        merger.run(progress)
    return plan


def methods() -> Dict[str, Dict[str, Any]]:
    """The merge methods by name, with their summary and parameters."""
    out = {}
    for i in range(_core.chorus_merge_method_count()):
        told = _core.chorus_merge_get_method(i)
        parameters = (_core.chorus_merge_get_parameter(i, j) for j in range(told.pop("parameter_count")))
        told["parameters"] = {parameter.pop("name"): parameter for parameter in parameters}
        out[told.pop("name")] = told
    return out
