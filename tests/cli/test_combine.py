# SPDX-License-Identifier: Apache-2.0
"""`chorus combine`: perplexities against double precision, and every kind of bad file."""
import json
import os
import struct
import unittest

from program import Case, bf16_bits, np, safetensors

ROWS, TOKENS = 37, 101
RNG = np.random.default_rng(1)


def log_softmax(rows):
    with np.errstate(divide="ignore"):
        top = rows.max(axis=-1, keepdims=True)
        return rows - top - np.log(np.exp(rows - top).sum(axis=-1, keepdims=True))


def linear(rows, weights):
    weights = np.array(weights, float) / np.sum(weights)
    with np.errstate(divide="ignore"):
        return np.log(sum(w * np.exp(log_softmax(r)) for w, r in zip(weights, rows)))


def log_linear(rows, weights):
    return log_softmax(sum(w * log_softmax(r) for w, r in zip(weights, rows)))


def at(log_probs, targets):
    return log_probs[np.arange(len(targets)), targets]


class Combine(Case):
    def setUp(self):
        super().setUp()
        self.a = (4 * RNG.standard_normal((ROWS, TOKENS))).astype(np.float32)
        self.b = (3 * RNG.standard_normal((ROWS, TOKENS))).astype(np.float32)
        self.targets = RNG.integers(0, TOKENS, ROWS)
        self.write("a.safetensors", {"logits": self.a})
        self.write("b.safetensors", {"logits": self.b, "other": np.zeros(3, np.float32)})
        self.write("t.safetensors", {"targets": self.targets})
        self.models = ["combine", "--model", "one=a.safetensors", "--model", "b.safetensors", "--targets", "t.safetensors"]
        self.wide = [self.a.astype(float), self.b.astype(float)]

    def check(self, found, log_probs, places=5):
        mean = at(log_probs, self.targets).mean()
        self.assertAlmostEqual(found["mean_log_prob"], mean, places=places)
        self.assertAlmostEqual(found["perplexity"] / np.exp(-mean), 1, places=places)

    def test_linear(self):
        found = self.json_of(*self.models, "--weights", "0.7,0.3")
        self.assertEqual([model["name"] for model in found["models"]], ["one", "b"])
        self.assertEqual((found["rows"], found["scored_rows"]), (ROWS, ROWS))
        self.check(found["models"][0], log_softmax(self.wide[0]))
        self.check(found["models"][1], log_softmax(self.wide[1]))
        self.check(found["mixture"], linear(self.wide, [0.7, 0.3]))

    def test_rules(self):
        a, b = (np.exp(log_softmax(rows)) for rows in self.wide)
        with np.errstate(divide="ignore"):
            means = {"max": np.maximum(a, b), "min": np.minimum(a, b), "median": (a + b) / 2}
            for rule, p in means.items():
                self.check(self.json_of(*self.models, "--rule", rule)["mixture"], np.log(p / p.sum(axis=-1, keepdims=True)))
            for order in (-2.0, 0.5, 3.0):
                p = ((a**order + b**order) / 2) ** (1 / order)
                found = self.json_of(*self.models, "--rule", "holder", f"--order={order}")
                self.check(found["mixture"], np.log(p / p.sum(axis=-1, keepdims=True)))
        scores = log_softmax(self.wide[0]) + 0.5 * log_softmax(self.wide[1])
        self.check(self.json_of(*self.models, "--rule", "unnormalised", "--weights", "1,0.5")["mixture"], scores)

    def test_recipes(self):
        la, lb = (log_softmax(rows) for rows in self.wide)
        found = self.json_of(*self.models, "--recipe", "guidance:3")
        self.assertEqual((found["recipe"], found["models"][0]["weight"]), ("guidance:3", None))
        self.check(found["mixture"], log_softmax(lb + 3 * (la - lb)), places=4)
        self.check(self.json_of(*self.models, "--recipe", "context-aware")["mixture"], log_softmax(2 * la - lb), places=4)
        self.refused(*self.models, "--recipe", "guidance", code=2, says=["give its strength"])
        self.refused(*self.models, "--recipe", "guidence:2", code=2, says=["guidance"])
        self.refused(*self.models, "--recipe", "guidance:2", "--weights", "1,2", code=2, says=["leave one out"])
        self.refused(*self.models, "--recipe", "guidance:2,3", code=2, says=["it takes 1"])

    def test_filters(self):
        self.targets[:] = linear(self.wide, [1, 1]).argmax(axis=-1)
        self.write("t.safetensors", {"targets": self.targets})
        mixture = np.exp(linear(self.wide, [1, 1]))
        for option, keeps in (("--top-k=5", lambda p: p >= np.sort(p)[-5]), ("--min-p=0.2", lambda p: p >= 0.2 * p.max())):
            kept = np.stack([np.where(keeps(p), p, 0) for p in mixture])
            with np.errstate(divide="ignore"):
                self.check(self.json_of(*self.models, option)["mixture"], np.log(kept / kept.sum(axis=-1, keepdims=True)))
        found = self.json_of(*self.models, "--temperature", "0")
        self.assertEqual(found["mixture"]["mean_log_prob"], 0)
        base = np.stack([np.where(p >= 0.1 * p.max(), p, 0) for p in np.exp(log_softmax(self.wide[0]))])
        kept = np.where(base > 0, mixture, 0)
        rows = np.arange(ROWS)
        self.targets[:] = kept.argmax(axis=-1)
        self.write("t.safetensors", {"targets": self.targets})
        found = self.json_of(*self.models, "--plausibility", "0.1,0", "--base", "one")
        self.assertAlmostEqual(found["mixture"]["mean_log_prob"], np.log(kept[rows, self.targets] / kept.sum(axis=-1)).mean(), places=5)
        self.refused(*self.models, "--base", "two", code=2, says=["--base two"])
        self.refused(*self.models, "--model-top-k", "1.5", code=2, says=["whole numbers"])

    def test_log_linear_with_negative_weight_and_temperature(self):
        found = self.json_of(*self.models, "--rule", "log-linear", "--weights=1.5,-0.5", "--temperatures", "1,2")
        self.check(found["models"][1], log_softmax(self.wide[1] / 2))
        self.check(found["mixture"], log_linear([self.wide[0], self.wide[1] / 2], [1.5, -0.5]))

    def test_one_model_keeps_its_weight(self):
        found = self.json_of("combine", "--model", "a.safetensors", "--targets", "t.safetensors", "--rule", "log-linear",
                             "--weights", "2")
        self.check(found["models"][0], log_softmax(self.wide[0]))
        self.check(found["mixture"], log_linear(self.wide[:1], [2]))

    def test_text_says_the_same(self):
        found = self.json_of(*self.models)
        text = self.run_chorus(*self.models).stdout
        self.assertIn(f"{found['mixture']['perplexity']:.4f}", text)
        self.assertIn(f"{ROWS} of {ROWS} rows scored", text)

    def test_kinds_and_dtypes(self):
        log_probs = log_softmax(self.wide[0])
        for kind, rows in (("log-probs", log_probs), ("probs", np.exp(log_probs))):
            self.write("k.safetensors", {"x": rows.astype(np.float32)})
            found = self.json_of("combine", "--model", "k.safetensors", "--kind", kind, "--targets", "t.safetensors")
            self.check(found["mixture"], log_probs)
        half = self.a.astype(np.float16)
        self.write("f16.safetensors", {"x": half})
        self.write("f64.safetensors", {"x": self.wide[0]})
        bits = bf16_bits(self.a)
        self.write("bf16.safetensors", {"x": ("BF16", self.a.shape, bits.tobytes())})
        stored = {"f16": half.astype(float), "f64": self.wide[0],
                  "bf16": (bits.astype(np.uint32) << 16).view(np.float32).astype(float)}
        for name, rows in stored.items():
            found = self.json_of("combine", "--model", f"{name}.safetensors", "--targets", "t.safetensors")
            self.check(found["mixture"], log_softmax(rows))

    def test_leading_dimensions_are_rows(self):
        self.write("3d.safetensors", {"logits": self.a[:36].reshape(4, 9, TOKENS)})
        self.write("3t.safetensors", {"labels": self.targets[:36].reshape(4, 9).astype(np.int32), "x": np.zeros(1)})
        found = self.json_of("combine", "--model", "3d.safetensors", "--targets", "3t.safetensors")
        self.assertAlmostEqual(found["mixture"]["mean_log_prob"], at(log_softmax(self.wide[0]), self.targets)[:36].mean(), 5)

    def test_padding_and_unscored_rows(self):
        padded = np.concatenate([self.a, np.full((ROWS, 27), 50, np.float32)], axis=1)
        self.write("padded.safetensors", {"logits": padded})
        left_out = self.targets.copy()
        left_out[::2] = -100
        self.write("some.safetensors", {"targets": left_out})
        found = self.json_of("combine", "--model", "padded.safetensors", "--valid", str(TOKENS), "--targets", "some.safetensors")
        self.assertEqual(found["scored_rows"], (left_out >= 0).sum())
        self.assertAlmostEqual(found["mixture"]["mean_log_prob"], at(log_softmax(self.wide[0]), self.targets)[1::2].mean(), 5)

    def test_a_model_of_weight_0_is_not_read(self):
        found = self.json_of("combine", "--model", "a.safetensors", "--model", "absent.safetensors", "--weights", "1,0",
                             "--targets", "t.safetensors")
        self.check(found["mixture"], log_softmax(self.wide[0]))
        self.assertEqual([model["read"] for model in found["models"]], [True, False])
        self.assertIsNone(found["models"][1]["perplexity"])

    def test_nan_rows_are_left_out_and_named(self):
        bad = self.a.copy()
        bad[5, 7] = np.nan
        bad[6] = -np.inf
        self.write("nan.safetensors", {"logits": bad})
        arguments = ["combine", "--model", "nan.safetensors", "--targets", "t.safetensors", "--rows"]
        found = self.json_of(*arguments)
        self.assertEqual((found["rows_without_distribution"], found["scored_rows"]), (2, ROWS - 2))
        self.assertEqual([row["row"] for row in found["row_results"] if row["argmax"] < 0], [5, 6])
        self.assertEqual(found["row_results"][5]["status"], "NAN")
        self.assertIn("EMPTY_SUPPORT", found["row_results"][6]["status"])
        keep = np.delete(np.arange(ROWS), [5, 6])
        self.assertAlmostEqual(found["mixture"]["mean_log_prob"],
                               at(log_softmax(self.wide[0]), self.targets)[keep].mean(), 5)
        self.assertIn("2 rows have no distribution", self.run_chorus(*arguments).stdout)

    def test_rows(self):
        found = self.json_of(*self.models, "--rows")
        wanted = linear(self.wide, [1, 1])
        for i, row in enumerate(found["row_results"]):
            self.assertEqual((row["target"], row["argmax"]), (self.targets[i], wanted[i].argmax()))
            self.assertAlmostEqual(row["log_prob"], wanted[i, self.targets[i]], 4)
            self.assertAlmostEqual(row["models"][1], log_softmax(self.wide[1])[i, self.targets[i]], 4)

    def test_output(self):
        self.run_chorus(*self.models, "--output", "mixture")
        with open(self.path("mixture/model.safetensors"), "rb") as file:
            blob = file.read()
        length = struct.unpack("<Q", blob[:8])[0]
        header = json.loads(blob[8:8 + length])
        begin, end = header["log_probs"]["data_offsets"]
        written = np.frombuffer(blob[8 + length + begin:8 + length + end], np.float32).reshape(ROWS, TOKENS)
        wanted = linear(self.wide, [1, 1])
        self.assertTrue((np.abs(written - wanted) <= 2e-6 * (1 + np.abs(wanted))).all())
        self.assertEqual(header["argmax"]["shape"], [ROWS])
        self.refused(*self.models, "--output", "mixture", says=["mixture"])  # is there already
        self.run_chorus(*self.models, "--output", "mixture", "--replace")
        self.assertEqual(os.listdir(self.path("mixture")), ["model.safetensors"])

    def test_bad_files(self):
        good = safetensors({"logits": self.a})
        self.write("cut.safetensors", good[:-5])
        self.write("length.safetensors", struct.pack("<Q", 1 << 60) + good[8:])
        self.write("text.safetensors", b"hello")
        self.write("empty.safetensors", b"")
        for name in ("cut", "length", "text", "empty", "absent"):
            self.refused("combine", "--model", f"{name}.safetensors", "--targets", "t.safetensors", says=[name])

    def test_bad_shapes(self):
        self.write("few.safetensors", {"logits": self.a[:5]})
        self.refused("combine", "--model", "a.safetensors", "--model", "few.safetensors", "--targets", "t.safetensors",
                     says=["few.safetensors", "5 rows", "37"])
        self.write("t5.safetensors", {"targets": self.targets[:5]})
        self.refused("combine", "--model", "a.safetensors", "--targets", "t5.safetensors", says=["5 ids", "37 rows"])
        far = self.targets.copy()
        far[3] = TOKENS
        self.write("far.safetensors", {"targets": far})
        self.refused("combine", "--model", "a.safetensors", "--targets", "far.safetensors", says=["row 3", "101"])
        self.write("scalar.safetensors", {"logits": ("F32", [], b"\0\0\0\0")})
        self.refused("combine", "--model", "scalar.safetensors", "--targets", "t.safetensors", says=["no dimensions"])
        self.write("int.safetensors", {"logits": self.targets})
        self.refused("combine", "--model", "int.safetensors", "--targets", "t.safetensors", says=["I64", "F32"])
        self.refused("combine", "--model", "a.safetensors", "--targets", "a.safetensors", says=["F32", "I64"])
        self.write("none.safetensors", {})
        self.refused("combine", "--model", "none.safetensors", "--targets", "t.safetensors", says=["holds no tensor"])

    def test_bad_numbers(self):
        self.refused(*self.models, "--weights", "1,2,3", code=2, says=["3 numbers for 2 models"])
        self.refused(*self.models, "--weights", "1,x", code=2, says=["--weights 1,x"])
        self.refused(*self.models, "--weights", "1,", code=2, says=["--weights"])
        self.refused(*self.models, "--weights", "0", says=["all are 0"])
        self.refused(*self.models, "--weights", "1,-1", says=["weight"])
        self.refused(*self.models, "--weights", "1,nan", says=["weight"])
        self.refused(*self.models, "--temperatures=-1", says=["temperature"])
        for valid in ("102", "-1", "1.5", "1e30", "nan"):
            self.refused(*self.models, f"--valid={valid}", says=["--valid"])
        self.refused("combine", "--model", "a.safetensors", code=2, says=["--targets"])
        self.refused(*self.models, "--device", "gpu", says=["gpu"])

    def test_names(self):
        self.write("many.safetensors", {"x": self.a, "evil\x1b[31m\u0085": self.b})
        self.refused("combine", "--model", "many.safetensors", "--targets", "t.safetensors",
                     says=["2 tensors", "evil\\x1b[31m\\xc2\\x85"])
        found = self.json_of("combine", "--model", "many.safetensors", "--tensor", "evil\x1b[31m\u0085", "--targets", "t.safetensors")
        self.check(found["mixture"], log_softmax(self.wide[1]))
        self.refused("combine", "--model", "many.safetensors", "--tensor", "y", "--targets", "t.safetensors", says=["y"])
        text = self.run_chorus("combine", "--model", "e\x1b=a.safetensors", "--targets", "t.safetensors").stdout
        self.assertNotIn("\x1b", text)

    def test_no_rows(self):
        self.write("zero.safetensors", {"logits": self.a[:0]})
        self.write("tzero.safetensors", {"targets": self.targets[:0]})
        found = self.json_of("combine", "--model", "zero.safetensors", "--targets", "tzero.safetensors")
        self.assertEqual((found["rows"], found["scored_rows"], found["mixture"]["perplexity"]), (0, 0, None))


if __name__ == "__main__":
    unittest.main()
