# SPDX-License-Identifier: Apache-2.0
"""`chorus merge` against merges made by mergekit 0.1.5 (tests/vectors/merge_golden.npz, written by tests/peers/merge.py
--write-golden): its numerics on every format, accurate ones where mergekit computed in float32."""
import os
import sys
import tempfile
import unittest
from pathlib import Path

from program import Case, np

ROOT = Path(os.environ.get("CHORUS_SOURCE_DIR", Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(ROOT / "tests/peers"))
from merging.compare import compare  # noqa: E402
from merging.models import NAMES, WIDTH, llama_config, llama_shapes, load, save  # noqa: E402
from merging.recipes import METHODS, recipe_text  # noqa: E402


def tensors_of(raw, dtype):
    """{name: (dtype, shape, bytes)} of a golden array."""
    out, at, raw = {}, 0, raw.tobytes()
    for name, shape in llama_shapes(llama_config(1, 16, 24, 24, dtype, head=16)):
        size = int(np.prod(shape)) * WIDTH[dtype]
        out[name] = dtype, list(shape), raw[at:at + size]
        at += size
    return out


class Golden(Case):
    def test_every_method(self):
        golden = np.load(ROOT / "tests/vectors/merge_golden.npz")
        models = {key: tensors_of(golden[key], key.split("/")[0]) for key in golden.files if key.count("/") == 1}
        cases = [key.split("/") for key in golden.files if key.count("/") == 2]
        self.assertGreater(len(cases), 80)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for key, model in models.items():
                dtype = key.split("/")[0]
                save(folder / key, llama_config(1, 16, 24, 24, dtype, head=16), dtype, lambda name, shape, model=model: model[name][2])
            for method, dtype, count in cases:
                count = int(count)
                recipe = folder / "recipe.yml"
                recipe.write_text(recipe_text(method, [folder / dtype / str(i) for i in range(count)]))
                for numerics in ("mergekit", "accurate") if dtype == "F32" else ("mergekit",):
                    self.run_chorus("merge", str(recipe), str(folder / "out"), "--numerics", numerics, "--replace", "--progress", "none")
                    result = compare(method, [models[f"{dtype}/{i}"] for i in range(count)], load(folder / "out"),
                                     tensors_of(golden[f"{method}/{dtype}/{count}"], dtype), numerics, dtype)
                    with self.subTest(method=method, dtype=dtype, models=count, numerics=numerics):
                        self.assertFalse(result.failed(), result.problem or f"{result.worst:.3g} of the bound: {result.where}")
                        self.assertLess(result.skipped, 0.2 * result.total)

    def test_methods_are_those_of_the_program(self):
        known = {method["name"] for method in self.json_of("merge", "--methods")}
        self.assertEqual(set(METHODS) - known, set())


if __name__ == "__main__":
    unittest.main()
