// SPDX-License-Identifier: Apache-2.0
// docs/numerics.md, "The table": every line on every backend, through the kernel and through the public C
// ABI. What is expected stands here in probabilities, worked out by hand; the oracle repeats each line at
// places deeper in a row.
#include <algorithm>
#include <cmath>
#include <functional>
#include <string>

#include "conformance/check.h"
#include "conformance/combine_oracle.h"
#include "conformance/public_abi.h"

namespace conformance {
namespace {

using Row = std::vector<double>;
const double kOff = -kInfinity;

// Softmax at temperature 1.
Row soft(const Row &z) {
  Row p;
  double sum = 0;
  for (double x : z) p.push_back(std::exp(x));
  for (double x : p) sum += x;
  for (double &x : p) x /= sum;
  return p;
}

Row normalised(Row p) {
  double sum = 0;
  for (double x : p) sum += x;
  for (double &x : p) x /= sum;
  return p;
}

// One entry per token, made by `f`.
Row each(size_t n, const std::function<double(size_t)> &f) {
  Row out;
  for (size_t v = 0; v < n; ++v) out.push_back(f(v));
  return out;
}

struct Line {
  const char *name;
  CombineProblem problem;
  uint32_t status;
  Row probs;  // empty: NaN
};

ModelScores model(const Row &scores, double weight, double temperature = 1) {
  ModelScores m;
  m.scores = scores;
  m.weight = weight;
  m.temperature = temperature;
  return m;
}

ModelScores probs(const Row &p, double weight) {
  ModelScores m = model(p, weight);
  m.kind = CHORUS_SCORES_PROBS;
  return m;
}

CombineProblem problem(chorus_combine_rule rule, std::vector<ModelScores> models, Row weights = {}) {
  CombineProblem p;
  p.rule = rule;
  p.models = std::move(models);
  p.weights = std::move(weights);
  complete(p);
  return p;
}

const Row kA = {1, 2, 3, 0.5}, kB = {0.5, -1, 2, 0}, kC = {2, 0, -1, 1};
const Row kNothing = {kOff, kOff, kOff, kOff};
constexpr auto kLinear = CHORUS_COMBINE_LINEAR, kLogLinear = CHORUS_COMBINE_LOG_LINEAR;
constexpr uint32_t kEmpty = CHORUS_ROW_EMPTY_SUPPORT, kModelEmpty = CHORUS_ROW_MODEL_EMPTY,
                   kBad = CHORUS_ROW_BAD_WEIGHT;

void add_empty_rows(std::vector<Line> &t) {
  const Row none(4, 0);
  t.push_back({"empty_model", problem(kLinear, {model(kNothing, 1)}), kEmpty | kModelEmpty, none});
  t.push_back({"empty_model", problem(kLogLinear, {model(kNothing, 1)}), kEmpty | kModelEmpty, none});
  t.push_back({"empty_among_linear", problem(kLinear, {model(kA, 0.25), model(kNothing, 0.75)}), kModelEmpty,
               soft(kA)});
  t.push_back({"empty_among_linear", problem(kLinear, {model(kNothing, 3), model(kA, 1), model(kB, 1)}),
               kModelEmpty, each(4, [](size_t v) { return (soft(kA)[v] + soft(kB)[v]) / 2; })});
  t.push_back({"empty_among_log_linear", problem(kLogLinear, {model(kA, 1), model(kNothing, 0.5)}),
               kEmpty | kModelEmpty, none});
  t.push_back({"empty_negative", problem(kLogLinear, {model(kA, 1), model(kNothing, -0.5)}), 0, soft(kA)});
  t.push_back(
      {"all_empty", problem(kLinear, {model(kNothing, 1), model(kNothing, 2)}), kEmpty | kModelEmpty, none});
}

void add_weights(std::vector<Line> &t) {
  const ModelScores absent = [] {
    ModelScores m = model({}, 0);
    m.n_logits = 4;
    return m;
  }();
  for (auto rule : {kLinear, kLogLinear}) {
    t.push_back({"zero_weight",
                 problem(rule, {model(kA, 1), model(kNothing, 0), model({kNaN, 1, 2, 3}, 0), absent}), 0,
                 soft(kA)});
    t.push_back(
        {"zero_weight", problem(rule, {model(kA, 3), model({kNaN, kNaN, 0, 0}, 5)}, {1, -0.0}), 0, soft(kA)});
    for (double bad : {kNaN, kInfinity, -kInfinity})
      t.push_back({"bad_weight", problem(rule, {model(kA, 1), model(kB, 1)}, {1, bad}), kBad, {}});
  }
  t.push_back({"all_zero_log_linear", problem(kLogLinear, {model(kA, 0), model(kB, 0)}), 0, Row(4, 0.25)});
  t.push_back(
      {"all_zero_log_linear", problem(kLogLinear, {model(kA, 1), model(kB, 1)}, {0, 0}), 0, Row(4, 0.25)});
  t.push_back({"bad_weight_linear", problem(kLinear, {model(kA, 1), model(kB, 1)}, {0, 0}), kBad, {}});
  t.push_back({"bad_weight_linear", problem(kLinear, {model(kA, 1), model(kB, 1)}, {1, -0.5}), kBad, {}});
}

void add_missing(std::vector<Line> &t) {
  const Row a = {1, kOff, 2, 0}, b = {0, 1, kOff, 2}, far_a = {1, kOff, kOff, 2}, far_b = {kOff, 1, 2, kOff};
  const Row pa = soft(a), pb = soft(b), full = soft(kA), other = soft(kC);
  t.push_back({"missing_linear", problem(kLinear, {model(a, 0.3), model(b, 0.7)}), 0,
               each(4, [&](size_t v) { return 0.3 * pa[v] + 0.7 * pb[v]; })});
  t.push_back({"missing_positive", problem(kLogLinear, {model(a, 1), model(b, 0.5)}), 0,
               normalised(each(4, [&](size_t v) { return pa[v] * std::sqrt(pb[v]); }))});
  t.push_back({"disjoint", problem(kLogLinear, {model(far_a, 1), model(far_b, 1)}), kEmpty, Row(4, 0)});
  t.push_back(
      {"missing_negative", problem(kLogLinear, {model(kA, 1), model(b, -0.5)}), 0,
       normalised(each(4, [&](size_t v) { return full[v] * (pb[v] > 0 ? 1 / std::sqrt(pb[v]) : 1); }))});
  t.push_back({"base_filtered", problem(kLogLinear, {model(a, 1), model(kA, 0.5), model(kC, -0.5)}), 0,
               normalised(each(4, [&](size_t v) { return pa[v] * std::sqrt(full[v] / other[v]); }))});
  t.push_back({"positive_missing", problem(kLogLinear, {model(kA, 1), model(a, 0.5), model(kC, -0.5)}), 0,
               normalised(each(4, [&](size_t v) { return full[v] * std::sqrt(pa[v] / other[v]); }))});
  t.push_back({"both_missing",
               problem(kLogLinear, {model(kA, 1), model(a, 0.5), model({0, kOff, 1, 1}, -0.5)}), 0,
               normalised(each(4, [&](size_t v) {
                 return pa[v] > 0 ? full[v] * std::sqrt(pa[v] / soft({0, kOff, 1, 1})[v]) : 0;
               }))});
}

void add_special_scores(std::vector<Line> &t) {
  const Row infinite = {kInfinity, 1, kInfinity, kOff}, shares = {0.5, 0, 0.5, 0}, pa = soft(kA);
  const uint32_t inf = CHORUS_ROW_INFINITE;
  t.push_back({"infinite", problem(kLinear, {model(infinite, 1)}), inf, shares});
  t.push_back({"infinite", problem(kLogLinear, {model(infinite, 2)}), inf, shares});
  t.push_back({"infinite", problem(kLinear, {model(infinite, 0.5), model(kA, 0.5)}), inf,
               each(4, [&](size_t v) { return (shares[v] + pa[v]) / 2; })});
  t.push_back({"infinite", problem(kLinear, {probs({kInfinity, 0.5, 0.5, 0}, 1)}), inf, {1, 0, 0, 0}});
  t.push_back({"infinite_negative", problem(kLogLinear, {model(kA, 1), model(infinite, -1)}), inf,
               normalised(each(4, [&](size_t v) { return pa[v] * (shares[v] > 0 ? 2 : 1); }))});
  for (auto rule : {kLinear, kLogLinear}) {
    t.push_back({"nan_score", problem(rule, {model({1, kNaN, 2, 0}, 1), model(kA, 1)}), CHORUS_ROW_NAN, {}});
    t.push_back({"nan_score",
                 problem(rule, {model({1, kNaN, kInfinity, 0}, 1), model(kNothing, 1)}),
                 CHORUS_ROW_NAN | inf | kModelEmpty,
                 {}});
    t.push_back(
        {"negative_probability", problem(rule, {probs({0.5, -0.1, 0.5, 0.1}, 1)}), CHORUS_ROW_NAN, {}});
    t.push_back(
        {"zero_probability", problem(rule, {probs({0.5, 0, 0.25, 0.25}, 1)}), 0, {0.5, 0, 0.25, 0.25}});
    t.push_back({"zero_probability", problem(rule, {probs({1, 0, 0.5, 0.5}, 1)}), 0, {0.5, 0, 0.25, 0.25}});
  }
  CombineProblem padded = problem(kLinear, {model({1, 2, 3, 0.5, kNaN, kInfinity, 9}, 1)});
  padded.models[0].n_valid = padded.n_tokens = 4;
  t.push_back({"nan_uncounted", padded, 0, soft(kA)});
  padded.models[0].scores[4] = 50;
  padded.models.push_back(model({1, 2}, 1));
  padded.n_tokens = 5;  // a vocabulary longer than any model
  complete(padded);
  t.push_back({"padding", padded, 0, each(5, [&](size_t v) {
                 return ((v < 4 ? pa[v] : 0) + (v < 2 ? soft({1, 2})[v] : 0)) / 2;
               })});
}

void add_temperatures(std::vector<Line> &t) {
  const Row peak = {1, 3, 3, 2}, one_hot = {0, 1, 0, 0};
  for (auto rule : {kLinear, kLogLinear}) {
    t.push_back({"zero_temperature", problem(rule, {model(peak, 1, 0)}), 0, one_hot});
    CombineProblem given = problem(rule, {model(peak, 1)});
    given.temperatures = {0};
    t.push_back({"zero_temperature", given, 0, one_hot});
    for (double tiny : {1e-4, 1e-20, 0x1p-100, 1e-38, 1e-44}) {
      given.models[0].scores = {1, 3, 2, 0};
      given.temperatures = {tiny};
      t.push_back({"tiny_temperature", given, 0, one_hot});
      given.models[0].scores = {-3e38, 3e38, 0, 1};
      t.push_back({"tiny_temperature", given, 0, one_hot});
    }
    given.models[0].scores = {kOff, 3, 2, -0.5};
    given.temperatures = {kInfinity};
    t.push_back({"infinite_temperature", given, 0, {0, 1.0 / 3, 1.0 / 3, 1.0 / 3}});
    for (double bad : {-1.0, kNaN, -kInfinity}) {
      given.temperatures = {bad};
      t.push_back({"bad_temperature", given, kBad, {}});
    }
    t.push_back(
        {"ties", problem(rule, {model({1, 3, 3, 3}, 1), model({0, 2, 2, 2}, 1)}), 0, each(4, [&](size_t v) {
           const double a = soft({1, 3, 3, 3})[v], b = soft({0, 2, 2, 2})[v];
           return rule == kLinear ? (a + b) / 2 : a * b;
         })});
    if (rule == kLogLinear) t.back().probs = normalised(t.back().probs);
    t.push_back({"negative_zero", problem(rule, {model({-5}, 1)}), 0, {1}});
    t.push_back({"negative_zero", problem(rule, {model({-0.0, 0.0, kOff, kOff}, 1)}), 0, {0.5, 0.5, 0, 0}});
  }
}

std::vector<Line> table() {
  std::vector<Line> t;
  add_empty_rows(t);
  add_weights(t);
  add_missing(t);
  add_special_scores(t);
  add_temperatures(t);
  return t;
}

void expect_line(const Line &line, const CombineResult &r) {
  expect(r.status_of(0) == line.status, "[%s] status is %u, not %u", line.name, r.status_of(0), line.status);
  const auto got = [&](size_t v) { return r.log_probs[v]; };
  for (size_t v = 0; v < static_cast<size_t>(line.problem.n_tokens); ++v) {
    if (line.probs.empty()) {
      expect(std::isnan(got(v)), "[%s] log-prob %zu is %g, not NaN", line.name, v, got(v));
    } else if (line.probs[v] == 0) {
      const bool tiny = std::string(line.name) == "tiny_temperature" && got(v) < -1000;
      expect(got(v) == kOff || tiny, "[%s] log-prob %zu is %g, not -inf", line.name, v, got(v));
    } else {
      const double want = std::log(line.probs[v]);
      expect(std::fabs(got(v) - want) <= 1e-5, "[%s] log-prob %zu is %.9g, not %.9g", line.name, v, got(v),
             want);
    }
  }
  const bool invalid = line.probs.empty() || (line.status & kEmpty) != 0;
  if (has_all_outputs(r))
    expect((r.argmax[0] == -1) == invalid && (r.sample[0] == -1) == invalid, "[%s] tokens", line.name);
}

// The same line behind `shift` tokens that its first model does not have, in rows 1 and 2 of three.
CombineProblem shifted(const CombineProblem &p, int64_t shift) {
  CombineProblem out = p;
  out.rows = 3;
  out.n_tokens += shift;
  for (ModelScores &m : out.models) {
    if (m.scores.empty()) {
      m.n_logits += shift;
      m.n_valid += shift;
      continue;
    }
    Row scores;
    for (int64_t row = 0; row < 3; ++row) {
      const double filler = m.kind == CHORUS_SCORES_PROBS ? 0.125 : row - 2.0;
      for (int64_t v = 0; v < shift; ++v)
        scores.push_back(row == 0 || v % 3 != 0 ? filler
                         : &m == &out.models[0] ? (m.kind == CHORUS_SCORES_PROBS ? 0 : kOff)
                                                : filler);
      for (int64_t v = 0; v < m.n_logits; ++v)
        scores.push_back(row == 0 ? 0.25 : m.scores[static_cast<size_t>(v)]);
    }
    m.scores = scores;
    m.n_logits += shift;
    m.n_valid += shift;
  }
  out.tokens.clear();
  return out;
}

}  // namespace

CONFORMANCE_TEST(combine_table_by_kernel) {
  for (const Line &line : table()) {
    describe("[%s] rule %d", line.name, line.problem.rule);
    attempt(line.name, [&] {
      const CombineResult r = combine(test.backend, line.problem);
      expect_line(line, r);
      if (std::string(line.name) != "tiny_temperature") expect_agrees(line.problem, r);
      for (int64_t shift : {13, 4099}) {
        const CombineProblem deeper = shifted(line.problem, shift);
        expect_agrees(deeper, combine(test.backend, deeper));
      }
    });
  }
}

CONFORMANCE_TEST(combine_table_by_public_abi) {
  const PublicAbi abi(test.backend);
  for (const Line &line : table()) {
    describe("[%s] rule %d", line.name, line.problem.rule);
    attempt(line.name, [&] {
      uint32_t outputs = kAllOutputs;
      try {
        expect_line(line, combine(abi, line.problem));
      } catch (const Skipped &) {
        outputs = kBasicOutputs;
        expect_line(line, combine(abi, line.problem, outputs));
      }
      CombineResult direct = Combine(test.backend, line.problem, outputs).run(line.problem);
      expect(combine(abi, line.problem, outputs).bits == direct.bits, "[%s] bytes differ from the kernel's",
             line.name);
    });
  }
}

CONFORMANCE_TEST(combine_table_other_rows_stand) {
  CombineProblem p = problem(kLinear, {model({1, 2, 3, 4}, 1)});
  p.rows = 3;
  p.models[0].n_logits = p.models[0].n_valid = p.n_tokens = 4;
  p.models[0].scores = {1, 2, 3, 4, 2, 1, 0, 5, 4, 4, 1, 0};
  const CombineResult clean = combine(test.backend, p);
  for (double bad : {kNaN, kInfinity, kOff}) {
    p.models[0].scores[5] = bad;
    const CombineResult r = combine(test.backend, p);
    for (size_t v : {0, 1, 2, 3, 8, 9, 10, 11})
      expect(r.log_probs[v] == clean.log_probs[v], "a bad score in row 1 changed row %zu", v / 4);
  }
}

CONFORMANCE_TEST(combine_table_tokens_and_refusals) {
  CombineProblem p = problem(kLinear, {model(kA, 1)});
  p.tokens_dtype = CHORUS_I64;
  p.tokens = {-1, 3, 4, 1099511627776.0, 0};
  attempt("bad_token", [&] { expect_agrees(p, Combine(test.backend, p, kAllOutputs).run(p)); });
  const PublicAbi abi(test.backend);
  for (double bad : {-1.0, kNaN, kInfinity}) {
    CombineProblem refused = problem(kLinear, {model(kA, 1, bad)});
    bool is_refused = false;
    try {
      combine(abi, refused, kBasicOutputs);
    } catch (const Stopped &) {
      is_refused = true;
    }
    expect(is_refused, "[bad_temperature] a temperature of %g was not refused", bad);
  }
}

CONFORMANCE_TEST(combine_table_deep_tail) {
  for (auto rule : {kLinear, kLogLinear}) {
    attempt("deep_tail", [&] {
      const CombineProblem p =
          problem(rule, {model({0, -200, -400, -1000}, 0.5), model({1, -250, -390, -3000}, 0.5)});
      const CombineResult r = combine(test.backend, p);
      expect_agrees(p, r);
      expect(r.log_probs[3] < -900 && r.log_probs[3] > -2500, "[deep_tail] log-prob is %g", r.log_probs[3]);
    });
  }
}

}  // namespace conformance
