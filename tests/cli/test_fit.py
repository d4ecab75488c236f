# SPDX-License-Identifier: Apache-2.0
"""`chorus fit` against optima found by a scan in double precision, and the report of `chorus combine`."""
import re
import unittest
from xml.etree import ElementTree

from program import Case, np

ROWS, TOKENS = 150, 23
RNG = np.random.default_rng(5)


def log_softmax(rows):
    top = rows.max(axis=-1, keepdims=True)
    return rows - top - np.log(np.exp(rows - top).sum(axis=-1, keepdims=True))


class Fit(Case):
    def setUp(self):
        super().setUp()
        truth = 2 * RNG.standard_normal((ROWS, TOKENS))
        self.rows = [(truth + s * RNG.standard_normal((ROWS, TOKENS))).astype(np.float32) for s in (1.0, 1.5)]
        p = np.exp(log_softmax(truth))
        self.targets = np.array([RNG.choice(TOKENS, p=row / row.sum()) for row in p])
        for name, rows in zip("ab", self.rows):
            self.write(f"{name}.safetensors", {"logits": rows})
        self.write("t.safetensors", {"targets": self.targets})
        self.models = ["--model", "one=a.safetensors", "--model", "b.safetensors", "--targets", "t.safetensors"]
        self.log_probs = [log_softmax(rows.astype(float)) for rows in self.rows]

    def likelihood(self, rule, weights, first=0, end=ROWS):
        if rule == "linear":
            mixed = np.log(sum(w * np.exp(l) for w, l in zip(weights, self.log_probs)))
        else:
            mixed = log_softmax(sum(w * l for w, l in zip(weights, self.log_probs)))
        return mixed[np.arange(ROWS), self.targets][first:end].mean()

    def test_linear(self):
        found = self.json_of("fit", *self.models)
        best = max(self.likelihood("linear", (w, 1 - w)) for w in np.linspace(0, 1, 2001))
        self.assertEqual(found["status"], "converged")
        self.assertGreater(found["mean_log_prob"], best - 1e-9)
        weights = [model["weight"] for model in found["models"]]
        self.assertAlmostEqual(found["mean_log_prob"], self.likelihood("linear", weights), places=6)

    def test_log_linear(self):
        found = self.json_of("fit", "--rule", "log-linear", *self.models)
        weights = np.array([model["weight"] for model in found["models"]])
        self.assertEqual(found["status"], "converged")
        self.assertAlmostEqual(found["mean_log_prob"], self.likelihood("log-linear", weights), places=6)
        for move in ((1e-2, 0), (0, 1e-2), (-1e-2, 0), (0, -1e-2), (1e-2, -1e-2)):
            self.assertLess(self.likelihood("log-linear", weights + move), found["mean_log_prob"])

    def test_held_out_rows_are_not_fitted(self):
        found = self.json_of("fit", *self.models, "--held-out", "0.2")
        self.assertEqual((found["tokens"], found["held_out"]["tokens"]), (120, 30))
        weights = [model["weight"] for model in found["models"]]
        self.assertAlmostEqual(found["held_out"]["mean_log_prob"], self.likelihood("linear", weights, 120), places=6)

    def test_rows_without_target(self):
        targets = self.targets.copy()
        targets[::3] = -1
        self.write("t.safetensors", {"targets": targets})
        self.assertEqual(self.json_of("fit", *self.models)["tokens"], ROWS - 50)

    def test_weights_go_to_combine(self):
        text = self.run_chorus("fit", "--rule", "log-linear", *self.models).stdout
        options = re.search(r"--rule log-linear --weights=\S+", text).group()
        found = self.json_of("combine", *self.models, *options.split())
        fitted = self.json_of("fit", "--rule", "log-linear", *self.models)
        self.assertAlmostEqual(found["mixture"]["mean_log_prob"], fitted["mean_log_prob"], places=5)

    def test_one_model_fits_its_temperature(self):
        text = self.run_chorus("fit", "--rule", "log-linear", "--model", "a.safetensors", "--targets", "t.safetensors").stdout
        temperature = float(re.search(r"temperature: (\S+)", text).group(1))
        best = min(np.linspace(0.5, 4, 3501), key=lambda t: -log_softmax(self.rows[0] / t)[np.arange(ROWS), self.targets].mean())
        self.assertAlmostEqual(temperature, best, places=2)

    def test_refusals(self):
        self.write("short.safetensors", {"logits": self.rows[0][:, :5]})
        self.refused("fit", "--model", "a.safetensors", "--model", "short.safetensors", "--targets", "t.safetensors",
                     says=["one vocabulary", "--valid"])
        self.refused("fit", *self.models, "--rule", "median", code=2, says=["log-linear"])
        self.refused("combine", "--model", "a.safetensors", "--report", "r.html", code=2)

    def test_report(self):
        for rule, weights in (("linear", "0.7,0.3"), ("log-linear", "1.2,-0.3")):
            self.run_chorus("combine", *self.models, "--rule", rule, f"--weights={weights}", "--report", "r.html", "--replace")
            with open(self.path("r.html"), encoding="utf-8") as file:
                text = file.read()
            self.assertEqual(text.count("<svg"), 5)  # two weights, three reliability plots
            for svg in re.findall(r"<svg.*?</svg>", text, flags=re.S):
                ElementTree.fromstring(svg)
            self.assertNotRegex(text, r"https?://|<script|nan")
            found = self.json_of("combine", *self.models, "--rule", rule, f"--weights={weights}")
            self.assertIn(f"{-found['mixture']['mean_log_prob']:.4f}", text)
        self.refused("combine", *self.models, "--report", "r.html", says=["exists"])


if __name__ == "__main__":
    unittest.main()
