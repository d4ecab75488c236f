# SPDX-License-Identifier: Apache-2.0
"""Context, log, errors, and the raw layer below."""
import gc
import logging
import threading

import numpy as np
import pytest

import chorus
from chorus import _core


def test_devices_and_options():
    context = chorus.Context(threads=1, options={"fallback": "warn"})
    assert "reference" in [device["name"] for device in context.devices()]
    assert {"threads", "fallback"} <= {option["name"] for option in context.options()}
    assert next(option for option in context.options() if option["name"] == "threads")["value"] == "1"
    assert all(plugin["status"] == 0 for plugin in context.plugins()), context.plugins()
    assert "reference" in repr(context)


def test_unknown_option():
    with pytest.raises(chorus.NotFoundError, match="threads"):
        chorus.Context({"thraeds": 1})


def test_log_reaches_logging(caplog):
    with caplog.at_level(logging.DEBUG, "chorus"):
        chorus.Context(level="debug")
    assert any(record.name == "chorus" for record in caplog.records)


def test_log_function_and_its_exceptions(capsys, monkeypatch):
    heard = []
    chorus.Context(log=lambda level, message: heard.append((level, message)), level="debug")
    assert heard and all(isinstance(message, str) for _, message in heard)
    seen = []
    monkeypatch.setattr("sys.unraisablehook", seen.append)

    def bad(level, message):
        raise RuntimeError("in the log")

    chorus.Context(log=bad, level="debug")
    assert seen and isinstance(seen[0].exc_value, RuntimeError)


def test_error_with_its_parts():
    with pytest.raises(chorus.ChorusError) as caught:
        chorus.Context(plugins=["/no/such/plugin.so"])
    assert caught.value.causes and "/no/such/plugin.so" in caught.value.text


def test_capsules_are_not_mixed_up():
    spec = _core.chorus_combiner_spec_create()
    with pytest.raises(TypeError, match="chorus_router_spec"):
        _core.chorus_router_spec_set_bias(spec, 1)
    with pytest.raises(TypeError):
        _core.chorus_combiner_spec_set_max_rows("spec", 1)


def test_destroyed_twice_is_fine():
    spec = _core.chorus_combiner_spec_create()
    _core.chorus_combiner_spec_destroy(spec)
    _core.chorus_combiner_spec_destroy(spec)
    with pytest.raises(chorus.InvalidArgumentError):
        _core.chorus_combiner_spec_set_max_rows(spec, 1)


def test_text_with_a_zero_inside():
    spec = _core.chorus_context_spec_create()
    with pytest.raises(ValueError, match="character 0"):
        _core.chorus_context_spec_set_option(spec, "thre\0ads", "1")


def test_struct_fields_are_checked():
    combiner = chorus.Combiner([chorus.Model(3)])
    with pytest.raises(TypeError, match="no field of chorus_combine_in"):
        _core.chorus_combiner_run(combiner.handle, {"row": 1}, {}, None)
    context = chorus.default_context().handle
    with pytest.raises(ValueError, match="initial_weights: has 1 numbers; 2 are needed"):
        _core.chorus_fit_create(context, {"n_models": 2, "initial_weights": np.array([1.0])})


def test_mutable_objects_are_serialised(random):
    """A fit is no object for many threads; the binding lets one in at a time."""
    fit = _core.chorus_fit_create(chorus.default_context().handle, {"rule": _core.CHORUS_COMBINE_LINEAR, "n_models": 2})
    rows = [np.log(random.uniform(0.1, 1, (50, 2))) for _ in range(40)]

    def add(part):
        for batch in part:
            _core.chorus_fit_add(fit, {"rows": 50, "token_log_probs": batch})

    threads = [threading.Thread(target=add, args=(rows[i::4],)) for i in range(4)]
    [t.start() for t in threads], [t.join() for t in threads]
    assert _core.chorus_fit_step(fit) == 1
    told = _core.chorus_fit_get_result(fit)
    assert told["tokens"] == 2000 and abs(sum(told["weights"]) - 1) < 1e-9
    assert list(_core.read_numbers(_core.chorus_fit_get_point(fit), 2, "d"))


def test_arrays_of_structs(family):
    context = chorus.default_context().handle
    vocabulary = _core.chorus_vocabulary_open(context, family / "base")
    other = _core.chorus_vocabulary_open(context, family / "other-tokens")
    ids = np.zeros(100, np.int32)
    count = _core.chorus_vocabulary_encode(vocabulary, "the law", 7, 0, ids, 100)
    assert count > 0
    token = _core.chorus_vocabulary_get_token(vocabulary, int(ids[0]))
    assert isinstance(token["bytes"], bytes) and token["bytes"]
    maps = _core.chorus_vocabulary_map_create_common([vocabulary, other], 2, _core.CHORUS_VOCABULARY_UNION)
    told = [_core.chorus_vocabulary_map_get(m) for m in maps]
    assert len(maps) == 2 and told[0]["to_size"] == told[1]["to_size"]
    assert len(told[0]["offsets"]) == told[0]["to_size"] + 1 and len(told[1]["to_of_from"]) == told[1]["from_size"]
    assert len(_core.chorus_vocabulary_get_fingerprint(vocabulary)) == 2


def test_checkpoint(family):
    checkpoint = _core.chorus_checkpoint_open(chorus.default_context().handle, family / "base")
    told = _core.chorus_checkpoint_get_tensor(checkpoint, 0)
    out = np.zeros(tuple(told["shape"]), np.float32)
    _core.chorus_checkpoint_read(checkpoint, 0, out)
    assert np.isfinite(out).all() and out.any() and _core.chorus_checkpoint_find_tensor(checkpoint, told["name"]) == 0


def test_nothing_leaks(random):
    import resource
    a = random.normal(size=(2, 30)).astype(np.float32)

    def many(n):
        for _ in range(n):
            with chorus.Combiner([chorus.Model(30)]) as combiner:
                combiner.run([a], argmax=True)
            with pytest.raises(chorus.InvalidArgumentError):
                chorus.Combiner([])
        gc.collect()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    before = many(1000)
    assert many(5000) - before < 4096  # KiB; 5000 lost objects would be more
