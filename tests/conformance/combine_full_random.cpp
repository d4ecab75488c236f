// SPDX-License-Identifier: Apache-2.0
// combine.rows with everything on random problems: against the oracle in probabilities, on one thread and on several, and the
// backend against the reference.
#include <algorithm>
#include <cmath>

#include "conformance/check.h"
#include "conformance/combine_full_oracle.h"

namespace conformance {
namespace {

void add_model_features(Random &random, const CombineProblem &p, ModelScores &m) {
  if (random.chance(0.3)) m.top_k = random.integer(1, p.n_tokens);
  if (random.chance(0.3)) m.top_p = random.uniform(0.1, 0.99);
  if (random.chance(0.3)) m.plausibility = random.uniform(0.001, 0.5);
  const int64_t words = (m.n_logits + 31) / 32;
  const int64_t biases = random.chance(0.3) ? p.rows * m.n_logits : 0, masks = random.chance(0.3) ? p.rows * words : 0;
  for (int64_t i = 0; i < biases; ++i) m.bias.push_back(random.normal());
  for (int64_t i = 0; i < masks; ++i) m.mask.push_back(static_cast<double>((random.bits() | random.bits()) & 0xffffffffu));
  if (random.chance(0.5)) {
    m.missing = static_cast<chorus_combine_missing>(random.integer(0, 5));
    m.missing_log_prob = -random.uniform(1, 30);
    m.unknown_id = static_cast<int32_t>(random.integer(0, m.n_valid - 1));
  }
  if (!random.chance(0.3)) return;
  m.map_offsets = {0};
  for (int64_t u = 0; u < p.n_tokens; ++u) {
    for (int64_t j = random.integer(0, 2); j > 0; --j) {
      m.map_ids.push_back(static_cast<int32_t>(random.integer(0, m.n_logits - 1)));
      m.map_values.push_back(static_cast<float>(random.uniform()));
    }
    m.map_offsets.push_back(static_cast<int64_t>(m.map_ids.size()));
  }
  if (random.chance(0.5)) m.map_values.clear();
}

void add_lists(Random &random, CombineProblem &p) {
  CombineOptions &o = p.options;
  if (random.chance(0.3)) {
    o.history_offsets = {0};
    for (int64_t row = 0; row < p.rows; ++row) {
      for (double x : {random.uniform(0.5, 2), random.uniform(-1, 1), random.uniform(-0.5, 0.5)}) o.penalties.push_back(x);
      for (int64_t j = random.integer(0, 20); j > 0; --j) o.history_ids.push_back(static_cast<double>(random.integer(-1, p.n_tokens)));
      o.history_offsets.push_back(static_cast<double>(o.history_ids.size()));
    }
  }
  if (random.chance(0.3)) {
    o.has_neighbours = true;
    o.neighbours_kind = random.pick({CHORUS_SCORES_LOGITS, CHORUS_SCORES_LOG_PROBS, CHORUS_SCORES_PROBS});
    o.neighbours_weight = random.uniform();
    o.neighbours_offsets = {0};
    for (int64_t row = 0; row < p.rows; ++row) {
      for (int64_t j = random.integer(0, 8); j > 0; --j) {
        o.neighbours_ids.push_back(static_cast<double>(random.integer(random.chance(0.1) ? -1 : 0, p.n_tokens - 1)));
        o.neighbours_scores.push_back(o.neighbours_kind == CHORUS_SCORES_PROBS ? random.uniform() : random.normal());
      }
      o.neighbours_offsets.push_back(static_cast<double>(o.neighbours_ids.size()));
    }
    if (!p.weights.empty()) {  // one more column
      std::vector<double> wider;
      const size_t n = p.models.size();
      for (size_t i = 0; i < p.weights.size(); ++i) {
        wider.push_back(p.weights[i]);
        if (i % n == n - 1) wider.push_back(random.uniform());
      }
      p.weights = wider;
    }
  }
}

void add_after(Random &random, CombineOptions &o, int64_t n_tokens) {
  o.temperature = random.pick({1.0, 1.0, 0.7, 1.5, 0.0});
  if (random.chance(0.3)) o.top_k = random.integer(1, n_tokens);
  if (random.chance(0.3)) o.top_p = random.uniform(0.1, 1);
  if (random.chance(0.3)) o.min_p = random.uniform(0.001, 0.3);
  if (random.chance(0.2)) o.typical_p = random.uniform(0.1, 0.99);
}

}  // namespace

CombineProblem full_problem(Random &random) {
  CombineProblem p;
  p.rule = static_cast<chorus_combine_rule>(random.integer(0, 10));
  p.rows = random.integer(1, 4);
  p.n_tokens = random.pick({1, 2, 5, 33, 70, 300});
  const bool any_sign = p.rule == CHORUS_COMBINE_LOG_LINEAR || p.rule == CHORUS_COMBINE_UNNORMALISED;
  for (int64_t i = random.integer(1, 5); i > 0; --i) {
    ModelScores m;
    m.kind = random.pick({CHORUS_SCORES_LOGITS, CHORUS_SCORES_LOG_PROBS, CHORUS_SCORES_PROBS});
    m.dtype = random.pick({CHORUS_F32, CHORUS_F16, CHORUS_BF16});
    m.temperature = random.pick({1.0, 1.0, 0.7, 1.3, 0.0});
    m.n_valid = random.chance(0.6) ? p.n_tokens : random.integer(1, p.n_tokens);
    m.n_logits = m.n_valid + random.integer(0, 3);
    m.weight = any_sign ? random.uniform(-0.7, 1.5) : random.uniform();
    for (int64_t v = 0; v < p.rows * m.n_logits; ++v) {
      const bool is_off = random.chance(0.1);
      const double z = 1.5 * random.normal();
      m.scores.push_back(m.kind == CHORUS_SCORES_PROBS ? (is_off ? 0 : std::exp(z)) : is_off ? -kInfinity : z);
    }
    if (random.chance(0.5)) add_model_features(random, p, m);
    p.models.push_back(std::move(m));
  }
  if (random.chance(0.3)) {
    p.weight_rows = random.chance(0.5);
    const auto n = static_cast<int64_t>(p.models.size());
    for (int64_t i = 0; i < (p.weight_rows ? p.rows : 1) * n; ++i)
      p.weights.push_back(random.chance(0.1) ? 0 : any_sign ? random.uniform(-0.7, 1.5) : random.uniform());
  }
  p.log_probs_dtype = random.pick({CHORUS_F32, CHORUS_F32, CHORUS_F16, CHORUS_BF16});
  p.options.order = random.pick({1.0, 0.0, 2.0, -1.0, 0.5, 0.02, kInfinity, -kInfinity});
  p.options.trim = static_cast<int32_t>(random.integer(0, (static_cast<int64_t>(p.models.size()) - 1) / 2));
  p.options.vote_k = static_cast<int32_t>(random.integer(1, 6));
  if (random.chance(0.2)) p.options.base_model = static_cast<int32_t>(random.integer(0, static_cast<int64_t>(p.models.size()) - 1));
  p.options.n_top = static_cast<int32_t>(random.integer(1, 10));
  if (random.chance(0.6)) add_after(random, p.options, p.n_tokens);
  if (random.chance(0.5)) add_lists(random, p);
  for (int64_t i = 0; i < p.rows * 3; ++i) p.tokens.push_back(static_cast<double>(random.integer(-1, p.n_tokens)));
  p.seed = random.bits();
  complete(p);
  return p;
}

namespace {

// Linear or log-linear as the models come, with what a fast backend does after it: choices are equal to the bit.
CombineProblem sampling_problem(Random &random) {
  CombineProblem p = random_problem(random, {.most_tokens = 3000, .most_models = 4, .plain = random.chance(0.3)});
  add_after(random, p.options, p.n_tokens);
  p.options.typical_p = 0;
  return p;
}

template <typename Body>
void on_cases(const Test &test, int count, const Body &body) {
  Random random = test.random();
  bool ran = false;
  std::string reason;
  for (int i = 0; i < test.cases(count); ++i) {
    describe("case %d", i);
    try {
      body(random, i);
      ran = true;
    } catch (const Skipped &refused) {
      reason = refused.what();
    }
  }
  if (!ran) skip(reason);
}

}  // namespace

CONFORMANCE_TEST(combine_full_random_against_oracle) {
  on_cases(test, 1500, [&](Random &random, int i) {
    const CombineProblem p = full_problem(random);
    describe("case %d: rule %d, %zu models, V %lld", i, p.rule, p.models.size(), static_cast<long long>(p.n_tokens));
    expect_full_agrees(p, Combine(test.backend, p, kEveryOutput).run(p));
  });
}

CONFORMANCE_TEST(combine_full_same_bytes_for_any_threads) {
  on_cases(test, 60, [&](Random &random, int) {
    const CombineProblem p = full_problem(random);
    const Combine kernel(test.backend, p, kEveryOutput);
    const CombineResult serial = kernel.run(p);
    for (int threads : {0, 3}) {
      test.backend.set_threads(threads);
      const CombineResult other = kernel.run(p);
      test.backend.set_threads(1);
      expect(other.bits == serial.bits, "bytes differ with %d threads", threads);
    }
  });
}

CONFORMANCE_TEST(combine_filtered_choices_equal_reference) {
  if (!test.has_peer()) skip("the reference itself");
  on_cases(test, 150, [&](Random &random, int i) {
    const CombineProblem p = sampling_problem(random);
    describe("case %d: rule %d, %zu models, V %lld", i, p.rule, p.models.size(), static_cast<long long>(p.n_tokens));
    constexpr uint32_t kChoices = CHORUS_COMBINE_OUT_ARGMAX | CHORUS_COMBINE_OUT_SAMPLE | CHORUS_COMBINE_OUT_STATUS;
    const CombineResult got = Combine(test.backend, p, kChoices).run(p), want = Combine(test.reference, p, kChoices).run(p);
    expect(got.status == want.status && got.argmax == want.argmax && got.sample == want.sample, "choices differ from the reference's");
    for (size_t row = 0; row < got.sample.size(); ++row) {
      const double l = got.sample_log_prob[row], l0 = want.sample_log_prob[row];
      expect((std::isnan(l) && std::isnan(l0)) || l == l0 || std::fabs(l - l0) <= 1e-5 * (1 + std::fabs(l0)) * (p.rule == CHORUS_COMBINE_LOG_LINEAR ? 200 : 1),
             "the sample of row %zu has log-prob %g, not %g", row, l, l0);
    }
  });
}

}  // namespace conformance
