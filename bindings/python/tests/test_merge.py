# SPDX-License-Identifier: Apache-2.0
"""Merging from Python: numbers, progress, cancelling, Ctrl-C."""
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import chorus


@pytest.fixture
def models(tmp_path, random):
    """Two models, and the recipe of their mean."""
    tensors = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        tensors.append({f"layer.{i}.weight": random.normal(size=(64, 96)).astype(np.float32) for i in range(3)})
        save_file(tensors[-1], tmp_path / name / "model.safetensors")
        (tmp_path / name / "config.json").write_text('{"model_type": "llama"}')
    recipe = {"merge_method": "linear", "dtype": "float32",
              "models": [{"model": str(tmp_path / name), "parameters": {"weight": w}} for name, w in (("a", 0.25), ("b", 0.75))]}
    return tensors, recipe


def test_linear(models, tmp_path):
    (a, b), recipe = models
    plan = chorus.merge(recipe, tmp_path / "out")
    merged = load_file(tmp_path / "out" / "model.safetensors")
    assert plan.tensors == 3 and plan.merged == 3 and "linear" in plan.text and plan.json.startswith("{")
    for name in a:
        wanted = (0.25 * a[name].astype(np.float64) + 0.75 * b[name].astype(np.float64)).astype(np.float32)
        assert np.array_equal(merged[name], wanted)


def test_recipe_as_text_and_as_file(models, tmp_path):
    import json
    _, recipe = models
    text = json.dumps(recipe, indent=1)
    (tmp_path / "recipe.yml").write_text(text)
    assert chorus.Merger(text).plan.tensors == 3
    assert chorus.Merger(tmp_path / "recipe.yml").plan.tensors == 3
    assert chorus.Merger(str(tmp_path / "recipe.yml")).plan.tensors == 3


def test_progress(models, tmp_path):
    _, recipe = models
    heard = []
    chorus.merge(recipe, tmp_path / "out", progress=heard.append)
    assert heard and isinstance(heard[-1], chorus.Progress) and heard[-1].bytes_done <= heard[-1].bytes_total
    assert {told.phase for told in heard} <= {"reduce", "apply", "finish"}


def test_cancel(models, tmp_path):
    _, recipe = models
    with pytest.raises(chorus.CancelledError):
        chorus.merge(recipe, tmp_path / "out", progress=lambda told: True)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_exception_in_progress(models, tmp_path):
    _, recipe = models

    def bad(told):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        chorus.merge(recipe, tmp_path / "out", progress=bad)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())
    chorus.merge(recipe, tmp_path / "out")


def test_existing_output(models, tmp_path):
    _, recipe = models
    chorus.merge(recipe, tmp_path / "out")
    with pytest.raises(FileExistsError):
        chorus.merge(recipe, tmp_path / "out")
    chorus.merge(recipe, tmp_path / "out", replace=True)


def test_mistakes_are_all_told(tmp_path):
    with pytest.raises(chorus.InvalidArgumentError) as caught:
        chorus.Merger("merge_method: lineer\nmodels:\n  - modle: a\n")
    assert "linear" in caught.value.text and len(caught.value.causes) >= 1
    assert caught.value.status == "INVALID_ARGUMENT" and caught.value.code == 3


def test_missing_model():
    with pytest.raises(LookupError):
        chorus.Merger({"merge_method": "linear", "models": [{"model": "/nowhere/at/all", "parameters": {"weight": 1}}]})


def test_methods():
    methods = chorus.methods()
    assert "ties" in methods and "density" in methods["ties"]["parameters"]


INTERRUPTED = """
    import os, signal, sys, threading, time
    from pathlib import Path
    import chorus
    recipe, out, how = sys.argv[1:]

    def strike():
        while not any(Path(out).parent.glob(".out*/*")):  # the hidden folder that becomes `out` in the end
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGINT)

    if how == "thread":
        threading.Thread(target=strike, daemon=True).start()
    try:
        chorus.merge(recipe, out, progress=None if how == "thread" else lambda told: os.kill(os.getpid(), signal.SIGINT))
    except KeyboardInterrupt:
        print("interrupted")
"""


@pytest.mark.parametrize("how, elements", [("callback", 1 << 10), ("thread", 48 << 20)])
def test_ctrl_c(tmp_path, how, elements):
    """Without a progress function too: the run looks for signals itself. 2 x 192 MiB, so that it is still running."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        save_file({"weight": np.zeros((elements // 1024, 1024), np.float32)}, tmp_path / name / "model.safetensors")
        (tmp_path / name / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "recipe.yml").write_text(textwrap.dedent(f"""
        merge_method: linear
        models:
          - {{model: {tmp_path}/a, parameters: {{weight: 1}}}}
          - {{model: {tmp_path}/b, parameters: {{weight: 1}}}}
    """))
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(INTERRUPTED), tmp_path / "recipe.yml", tmp_path / "out", how],
                          capture_output=True, text=True, timeout=120, env=dict(os.environ))
    assert done.stdout == "interrupted\n", done.stderr
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())
