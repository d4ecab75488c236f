# SPDX-License-Identifier: Apache-2.0
"""soup, negate and compare on small models, against numpy."""
import os
import unittest

import numpy as np

from models import MergeCase, random_tensors
from safetensors.numpy import load_file


class Soup(MergeCase):
    def weights(self, name):
        return load_file(self.path(f"{name}/model.safetensors"))

    def close(self, got, want):
        for name, value in want.items():
            np.testing.assert_allclose(got[name], value, rtol=1e-6, atol=1e-9)

    def test_uniform_and_weighted(self):
        a, b, base = self.weights("a"), self.weights("b"), self.weights("base")
        self.run_chorus("soup", "a", "b", "base", "-o", "out")
        self.close(self.weights("out"), {name: (a[name].astype(float) + b[name] + base[name]) / 3 for name in a})
        self.assertIn("chorus soup a b base -o out", open(self.path("out/README.md")).read())
        self.run_chorus("soup", "a", "b", "-o", "weighted", "--weights", "3,1")
        self.close(self.weights("weighted"), {name: (3 * a[name].astype(float) + b[name]) / 4 for name in a})
        self.refused("soup", "a", "b", "-o", "x", "--weights", "1", code=2, says=("1 numbers for 2 models",))
        self.refused("soup", "a", "absent", "-o", "x", says=("absent",))
        self.assertFalse(os.path.exists(self.path("x")))

    def test_greedy(self):
        target = self.weights("base")
        for name, along, seed in (("near", 0.01, 1), ("opposite", -0.011, 1), ("far", 0.5, 2)):
            self.model(name, {key: value + np.float32(along) * np.random.default_rng(seed).normal(size=value.shape).astype(np.float32)
                              for key, value in target.items()})
        self.write("score.py", b"""
import sys
from safetensors.numpy import load_file
a, b = load_file(sys.argv[1] + "/model.safetensors"), load_file("base/model.safetensors")
print("scoring")
print(sum(float(((a[k] - b[k]) ** 2).sum()) for k in a))
""")
        import sys
        command = f"{sys.executable} score.py {{}}"
        result = self.json_of("soup", "far", "near", "opposite", "-o", "soup", "--greedy", "--lower-is-better", "--score", command)
        self.assertEqual([model["member"] for model in result["models"]], [False, True, True])
        self.assertLess(result["score"], min(model["score"] for model in result["models"]))
        near, opposite = self.weights("near"), self.weights("opposite")
        self.close(self.weights("soup"), {name: (near[name].astype(float) + opposite[name]) / 2 for name in near})
        self.assertEqual(self.hidden(), [])
        self.refused("soup", "near", "far", "-o", "x", "--greedy", "--score", "echo none {}", says=("printed no number",))
        self.refused("soup", "near", "far", "-o", "x", "--greedy", "--score", "false {}", says=("exit code 1",))
        self.refused("soup", "near", "far", "-o", "x", "--greedy", code=2, says=("go together",))
        self.refused("soup", "near", "far", "-o", "x", "--greedy", "--score", "true", code=2, says=("{} must stand",))
        self.assertFalse(os.path.exists(self.path("x")))

    def test_negate(self):
        a, base = self.weights("a"), self.weights("base")
        self.run_chorus("negate", "a", "--base", "base", "-o", "out", "--scale", "0.5")
        self.close(self.weights("out"), {name: base[name].astype(float) - 0.5 * (a[name].astype(float) - base[name]) for name in a})


class Compare(MergeCase):
    def verdict(self, *models):
        return self.json_of("compare", *models)["comparisons"][0]

    def test_relations(self):
        self.model("stranger", random_tensors(77))
        base = {name: value for name, value in random_tensors(1).items()}
        order = np.random.default_rng(3)
        self.model("permuted", {name: value[order.permutation(len(value))] if value.ndim == 2 else value for name, value in base.items()})
        self.model("other", random_tensors(5, {"x.weight": (20, 40)}))
        self.assertEqual(self.verdict("base", "base")["verdict"], "equal")
        tuned = self.verdict("base", "a")
        self.assertEqual(tuned["verdict"], "shared")
        self.assertGreater(tuned["all"]["cosine"], 0.99)
        self.assertEqual(self.verdict("base", "stranger")["verdict"], "unrelated")
        self.assertEqual(self.verdict("base", "permuted")["verdict"], "permuted")
        self.assertEqual(self.verdict("base", "other")["verdict"], "unrelated")
        self.assertEqual(len(tuned["layers"]), 5)

    def test_numbers(self):
        tuned = self.verdict("base", "b")
        base, b = load_file(self.path("base/model.safetensors")), load_file(self.path("b/model.safetensors"))
        for tensor in tuned["tensors"]:
            x, y = base[tensor["name"]].astype(float).ravel(), b[tensor["name"]].astype(float).ravel()
            self.assertAlmostEqual(tensor["cosine"], x @ y / np.sqrt(x @ x * (y @ y)), places=12)
            self.assertAlmostEqual(tensor["relative_distance"], np.linalg.norm(y - x) / np.linalg.norm(x), places=12)

    def test_table_and_report(self):
        done = self.run_chorus("compare", "base", "a", "b", "--report", "r.html")
        self.assertIn("outside", done.stdout)
        page = open(self.path("r.html")).read()
        self.assertIn("layer 3", page)
        self.assertIn("self_attn.q_proj.weight", page)
        self.assertNotIn("<script", page)
        self.refused("compare", "base", code=2, says=("two or more",))


if __name__ == "__main__":
    unittest.main()
