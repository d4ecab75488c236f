// SPDX-License-Identifier: Apache-2.0
// No input of finite or non-finite floats gives NaN in a valid row, a token out of range, a fault, or a
// change in another row.
#include <cmath>

#include "conformance/check.h"
#include "conformance/combine_full_oracle.h"
#include "conformance/combine_oracle.h"

namespace conformance {
namespace {

double nasty(Random &random) {
  return random.pick({kNaN, kInfinity, -kInfinity, 0.0, -0.0, 1e-45, -1e-45, 1e-38, 3.4e38, -3.4e38, 1.0,
                      -1.0, 88.0, -104.0, 1e30, -1e30, 65504.0, 0.5});
}

// Any 32 bits are a float.
double any_float(Random &random) {
  return decode(CHORUS_F32, random.bits() & 0xffffffffu);
}

double fuzzed(Random &random, int flavour) {
  switch (flavour) {
    case 0:
      return nasty(random);
    case 1:
      return any_float(random);
    case 2:
      return random.chance(0.02) ? nasty(random) : 3 * random.normal();
    default:
      return random.chance(0.5) ? -kInfinity : random.normal();
  }
}

CombineProblem fuzzed_problem(Random &random) {
  RandomProblem limits{.most_tokens = 300, .most_models = 4, .plain = random.chance(0.3)};
  CombineProblem p = random_problem(random, limits);
  for (ModelScores &m : p.models) {
    const int flavour = static_cast<int>(random.integer(0, 4));
    if (flavour == 4) continue;
    for (double &z : m.scores) z = fuzzed(random, flavour);
  }
  if (random.chance(0.3)) {
    for (double &w : p.weights)
      w = random.chance(0.5) ? w : fuzzed(random, static_cast<int>(random.integer(0, 1)));
  }
  for (size_t i = 0; i < p.models.size() && random.chance(0.3); ++i)
    p.temperatures.push_back(
        random.chance(0.5) ? 1 : std::fabs(fuzzed(random, static_cast<int>(random.integer(0, 1)))));
  if (p.temperatures.size() != p.models.size()) p.temperatures.clear();
  for (double &t : p.tokens) {
    if (random.chance(0.1)) t = random.pick({-1.0, 1e9, static_cast<double>(p.n_tokens)});
  }
  return p;
}

void expect_sane(const CombineProblem &p, const CombineResult &r) {
  for (int64_t row = 0; row < p.rows; ++row) {
    const uint32_t status = r.status_of(row);
    const bool invalid = (status & (CHORUS_ROW_NAN | CHORUS_ROW_BAD_WEIGHT | CHORUS_ROW_EMPTY_SUPPORT)) != 0;
    for (int64_t v = 0; v < p.n_tokens && !invalid; ++v) {
      const double l = r.log_probs[static_cast<size_t>(row * p.n_tokens + v)];
      const bool is_score = p.rule == CHORUS_COMBINE_UNNORMALISED;
      expect(!std::isnan(l) && (is_score || l < 1e-3), "log-prob %lld of valid row %lld is %g", static_cast<long long>(v),
             static_cast<long long>(row), l);
    }
    if (r.argmax.empty()) continue;
    for (double token : {r.argmax[static_cast<size_t>(row)], r.sample[static_cast<size_t>(row)]}) {
      const bool in_range = token >= 0 && token < static_cast<double>(p.n_tokens);
      expect(invalid ? token == -1 : in_range, "token of row %lld is %g", static_cast<long long>(row), token);
    }
  }
}

}  // namespace

CONFORMANCE_TEST(fuzz_combine) {
  Random random = test.random();
  bool ran = false;
  for (int i = 0; i < test.cases(800); ++i) {
    const CombineProblem p = fuzzed_problem(random);
    describe("case %d: rule %d, %zu models, V %lld", i, p.rule, p.models.size(),
             static_cast<long long>(p.n_tokens));
    ran |= attempt("a problem", [&] {
      const CombineResult r = combine(test.backend, p);
      expect_sane(p, r);
      expect_agrees(p, r);
    });
  }
  if (!ran) skip("every problem was refused");
}

// Every rule, filter, map and output on scores, biases and lists of any value.
CONFORMANCE_TEST(fuzz_combine_full) {
  Random random = test.random();
  bool ran = false;
  for (int i = 0; i < test.cases(400); ++i) {
    CombineProblem p = full_problem(random);
    for (ModelScores &m : p.models) {
      const int flavour = static_cast<int>(random.integer(0, 3));
      for (double &z : m.scores) z = fuzzed(random, flavour);
      for (double &b : m.bias) b = random.chance(0.05) ? nasty(random) : b;
    }
    for (double &w : p.weights) w = random.chance(0.2) ? nasty(random) : w;
    for (double &x : p.options.penalties) x = random.chance(0.05) ? nasty(random) : x;
    for (double &x : p.options.neighbours_scores) x = random.chance(0.05) ? nasty(random) : x;
    describe("case %d: rule %d, %zu models, V %lld", i, p.rule, p.models.size(), static_cast<long long>(p.n_tokens));
    ran |= attempt("a problem", [&] { expect_sane(p, Combine(test.backend, p, kEveryOutput).run(p)); });
  }
  if (!ran) skip("every problem was refused");
}

CONFORMANCE_TEST(fuzz_combine_other_rows_keep_their_bytes) {
  Random random = test.random();
  for (int i = 0; i < test.cases(150); ++i) {
    CombineProblem p = random_problem(random, {.most_tokens = 600, .most_models = 3, .plain = i % 2 == 0});
    if (p.rows < 2) continue;
    describe("case %d", i);
    attempt("a problem", [&] {
      const CombineResult clean = combine(test.backend, p);
      const int64_t hit = random.integer(0, p.rows - 1);
      for (ModelScores &m : p.models) {
        for (int64_t v = 0; v < m.n_logits && !m.scores.empty(); ++v)
          m.scores[static_cast<size_t>(hit * m.n_logits + v)] = nasty(random);
      }
      const CombineResult dirty = combine(test.backend, p);
      for (int64_t row = 0; row < p.rows; ++row) {
        for (int64_t v = 0; v < p.n_tokens && row != hit; ++v) {
          const auto at = static_cast<size_t>(row * p.n_tokens + v);
          expect(clean.log_probs[at] == dirty.log_probs[at] || std::isnan(clean.log_probs[at]),
                 "row %lld changed with row %lld", static_cast<long long>(row), static_cast<long long>(hit));
        }
      }
    });
  }
}

}  // namespace conformance
