# SPDX-License-Identifier: Apache-2.0
"""`chorus route`: ids, weights and loads against double precision, and bad input."""
import json
import struct
import unittest

from program import Case, np

TOKENS, EXPERTS, K = 211, 13, 3
RNG = np.random.default_rng(2)


def softmax(rows):
    e = np.exp(rows - rows.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def choose(keys, k):
    """The k highest, by value then by index."""
    return np.argsort(-keys, axis=1, kind="stable")[:, :k]


class Route(Case):
    def setUp(self):
        super().setUp()
        self.logits = (2 * RNG.standard_normal((TOKENS, EXPERTS))).astype(np.float32)
        self.logits[::3] += np.linspace(3, 0, EXPERTS, dtype=np.float32)
        self.wide = self.logits.astype(float)
        self.write("g.safetensors", {"logits": self.logits})

    def routing(self, *arguments):
        """ids and weights as written by --output, and the JSON."""
        found = self.json_of("route", "g.safetensors", "-k", str(K), "--output", "out", "--replace", *arguments)
        with open(self.path("out/model.safetensors"), "rb") as file:
            blob = file.read()
        length = struct.unpack("<Q", blob[:8])[0]
        header, data = json.loads(blob[8:8 + length]), blob[8 + length:]
        cut = lambda name: data[slice(*header[name]["data_offsets"])]
        return (np.frombuffer(cut("ids"), np.int32).reshape(TOKENS, K),
                np.frombuffer(cut("weights"), np.float32).reshape(TOKENS, K), found)

    def check(self, routing, ids, weights):
        found_ids, found_weights, found = routing
        np.testing.assert_array_equal(found_ids, ids)
        np.testing.assert_allclose(found_weights, weights, rtol=2e-6)
        counts = np.bincount(ids.ravel(), minlength=EXPERTS)
        self.assertEqual(found["counts"], counts.tolist())
        share = counts[counts > 0] / counts.sum()
        self.assertAlmostEqual(found["entropy"], -(share * np.log(share)).sum(), 9)
        self.assertAlmostEqual(found["entropy_of_even"], np.log(EXPERTS), 9)
        self.assertAlmostEqual(found["max_to_mean"], counts.max() / counts.mean(), 9)
        self.assertEqual(found["idle_experts"], (counts == 0).sum())
        self.assertAlmostEqual(found["mean_first_weight"], weights[:, 0].mean(), 5)
        sums = np.zeros(EXPERTS)
        np.add.at(sums, ids.ravel(), weights.ravel())
        np.testing.assert_allclose(found["weight_sums"], sums, rtol=1e-5)

    def test_softmax_then_topk(self):
        ids = choose(self.wide, K)
        self.check(self.routing(), ids, np.take_along_axis(softmax(self.wide), ids, 1))

    def test_topk_then_softmax(self):
        ids = choose(self.wide, K)
        self.check(self.routing("--order", "topk-then-score"), ids, softmax(np.take_along_axis(self.wide, ids, 1)))

    def test_sigmoid_with_bias_renormalised_and_scaled(self):
        bias = RNG.standard_normal(EXPERTS).astype(np.float32)
        self.write("bias.safetensors", {"bias": bias})
        scores = 1 / (1 + np.exp(-self.wide))
        ids = choose(scores + bias.astype(float), K)
        chosen = np.take_along_axis(scores, ids, 1)
        self.check(self.routing("--score", "sigmoid", "--bias", "bias.safetensors", "--renormalise", "sum", "--epsilon",
                                "1e-20", "--scale", "2.5"), ids, 2.5 * chosen / chosen.sum(axis=1, keepdims=True))

    def test_presets(self):
        ids = choose(self.wide, K)
        chosen = np.take_along_axis(softmax(self.wide), ids, 1)
        self.check(self.routing("--preset", "mixtral"), ids, chosen / chosen.sum(axis=1, keepdims=True))
        bias = RNG.standard_normal(EXPERTS).astype(np.float32)
        self.write("bias.safetensors", {"bias": bias})
        scores = 1 / (1 + np.exp(-self.wide))
        ids = choose(scores + bias.astype(float), K)
        chosen = np.take_along_axis(scores, ids, 1)
        found = self.routing("--preset", "glm-4.5", "--bias", "bias.safetensors")
        self.check(found, ids, 2.5 * chosen / chosen.sum(axis=1, keepdims=True))
        self.assertEqual(found[2]["preset"], "glm-4.5")
        # Switch keeps ceil(1.25 T / E) tokens of each expert, the first ones.
        counts = np.bincount(choose(self.wide, 1).ravel(), minlength=EXPERTS)
        room = int(np.ceil(1.25 * TOKENS / EXPERTS))
        kept = self.json_of("route", "g.safetensors", "-k", "1", "--preset", "switch")["counts"]
        self.assertEqual(kept, np.minimum(counts, room).tolist())
        self.assertGreater(counts.max(), room)
        self.refused("route", "g.safetensors", "-k", "2", "--preset", "mixtrel", says=["did you mean 'mixtral'"])
        self.refused("route", "g.safetensors", "-k", "2", "--preset", "glm-4.5", says=["--bias"])
        self.refused("route", "g.safetensors", "-k", "2", "--preset", "olmoe", "--bias", "bias.safetensors", says=["no bias"])

    def test_dtypes_and_text(self):
        self.write("h.safetensors", {"x": self.logits.astype(np.float16)})
        self.write("d.safetensors", {"x": self.wide.reshape(1, TOKENS, EXPERTS)})
        for name, rows in (("h", self.logits.astype(np.float16).astype(float)), ("d", self.wide)):
            found = self.json_of("route", f"{name}.safetensors", "-k", "1")
            self.assertEqual(found["counts"], np.bincount(choose(rows, 1).ravel(), minlength=EXPERTS).tolist())
        text = self.run_chorus("route", "d.safetensors", "-k", "1").stdout
        self.assertIn(f"max/mean {found['max_to_mean']:.4f}", text)
        self.assertIn(f"{TOKENS} tokens to 1 of {EXPERTS} experts", text)

    def test_nan_ranks_last(self):
        bad = self.logits.copy()
        bad[:, 4] = np.nan
        self.write("nan.safetensors", {"logits": bad})
        found = self.json_of("route", "nan.safetensors", "-k", str(K))
        self.assertEqual(found["counts"][4], 0)
        self.assertEqual(sum(found["counts"]), TOKENS * K)

    def test_no_tokens(self):
        self.write("zero.safetensors", {"logits": self.logits[:0]})
        found = self.json_of("route", "zero.safetensors", "-k", "2")
        self.assertEqual((found["tokens"], found["counts"], found["max_to_mean"]), (0, [0] * EXPERTS, 0))

    def test_bad_input(self):
        for k in ("0", "-1", "14", "99999"):
            self.refused("route", "g.safetensors", f"-k{k}", says=["k"])
        self.refused("route", "absent.safetensors", "-k", "2", says=["absent.safetensors"])
        self.write("bias.safetensors", {"bias": np.zeros(5, np.float32)})
        self.refused("route", "g.safetensors", "-k", "2", "--bias", "bias.safetensors", says=["5 numbers for 13 experts"])
        self.write("wide.safetensors", {"logits": np.zeros((1, 9000), np.float32)})
        self.refused("route", "wide.safetensors", "-k", "2", says=["9000", "8192"])
        self.write("thin.safetensors", {"logits": np.zeros((7, 0), np.float32)})
        self.refused("route", "thin.safetensors", "-k", "2", says=["0"])
        self.refused("route", "g.safetensors", "-k", "2", "--scale", "nan", says=["scale"])
        self.refused("route", "g.safetensors", "-k", "2", "--epsilon=-1", says=["epsilon"])
        self.refused("route", "g.safetensors", "-k", "2", "--device", "tpu", says=["tpu"])


if __name__ == "__main__":
    unittest.main()
