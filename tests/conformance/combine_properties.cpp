// SPDX-License-Identifier: Apache-2.0
// What must hold of any mixture, through the public C ABI: identities, invariances, and samples that follow
// the probabilities.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "conformance/check.h"
#include "conformance/combine_oracle.h"
#include "conformance/public_abi.h"

namespace conformance {
namespace {

// Through the public ABI with the outputs the backend has.
CombineResult run(const PublicAbi &abi, const CombineProblem &p) {
  try {
    return combine(abi, p);
  } catch (const Skipped &) {
    return combine(abi, p, kBasicOutputs);
  }
}

ModelScores random_row(Random &random, int64_t n_tokens, double spread) {
  ModelScores m;
  for (int64_t v = 0; v < n_tokens; ++v) m.scores.push_back(static_cast<float>(spread * random.normal()));
  return m;
}

CombineProblem random_mixture(Random &random, chorus_combine_rule rule, int models) {
  CombineProblem p;
  p.rule = rule;
  p.n_tokens = random.size(4000);
  for (int i = 0; i < models; ++i) {
    p.models.push_back(random_row(random, p.n_tokens, 3));
    p.models.back().weight = rule == CHORUS_COMBINE_LINEAR ? random.uniform(0.1, 1) : random.uniform(-0.5, 1);
  }
  complete(p);
  return p;
}

// Distance of two log-prob rows in units of the contract's tolerance.
void expect_close(const CombineProblem &p, const CombineResult &a, const CombineResult &b, const char *what) {
  const OracleRow oracle = combine_oracle(p, 0);
  for (size_t v = 0; v < a.log_probs.size(); ++v) {
    const double gap = std::fabs(a.log_probs[v] - b.log_probs[v]);
    expect(gap <= 2 * static_cast<double>(oracle.tolerance[v]), "%s moved log-prob %zu by %g", what, v, gap);
  }
}

template <typename Body>
void on_rules(const Test &test, int cases, const Body &body) {
  const PublicAbi abi(test.backend);
  Random random = test.random();
  bool ran = false;
  for (auto rule : {CHORUS_COMBINE_LINEAR, CHORUS_COMBINE_LOG_LINEAR}) {
    ran |= attempt(rule == CHORUS_COMBINE_LINEAR ? "linear" : "log-linear", [&] {
      for (int i = 0; i < test.cases(cases); ++i) {
        describe("case %d of rule %d", i, rule);
        body(abi, random, rule);
      }
    });
  }
  if (!ran) skip("both rules were refused");
}

}  // namespace

CONFORMANCE_TEST(property_one_hot_weights_are_the_identity) {
  on_rules(test, 15, [](const PublicAbi &abi, Random &random, chorus_combine_rule rule) {
    CombineProblem p = random_mixture(random, rule, 4);
    CombineProblem alone = p;
    alone.models = {p.models[2]};
    alone.models[0].weight = 1;
    p.weights = {0, 0, 1, 0};
    const CombineResult mixed = run(abi, p), one = run(abi, alone);
    expect(mixed.bits == one.bits, "weights 0, 0, 1, 0 are not model 2 alone");
    for (ModelScores &m : p.models) m.weight = 0;
    p.models[2].weight = 1;
    p.weights.clear();
    expect(run(abi, p).bits == one.bits, "default weights 0, 0, 1, 0 are not model 2 alone");
  });
}

CONFORMANCE_TEST(property_identical_models_are_one) {
  on_rules(test, 15, [](const PublicAbi &abi, Random &random, chorus_combine_rule rule) {
    CombineProblem p = random_mixture(random, rule, 1);
    p.models[0].weight = 1;
    const CombineResult one = run(abi, p);
    CombineProblem many = p;
    many.models.assign(3, p.models[0]);
    const double weights[] = {0.25, 0.25, 0.5};
    for (size_t i = 0; i < 3; ++i) many.models[i].weight = weights[i];
    expect_close(many, run(abi, many), one, "mixing a model with itself");
  });
}

CONFORMANCE_TEST(property_order_of_models_is_nothing) {
  on_rules(test, 15, [](const PublicAbi &abi, Random &random, chorus_combine_rule rule) {
    const CombineProblem p = random_mixture(random, rule, 5);
    CombineProblem turned = p;
    std::rotate(turned.models.begin(), turned.models.begin() + 2, turned.models.end());
    std::swap(turned.models[0], turned.models[3]);
    expect_close(p, run(abi, p), run(abi, turned), "permuting the models");
  });
}

CONFORMANCE_TEST(property_a_constant_is_nothing) {
  on_rules(test, 15, [](const PublicAbi &abi, Random &random, chorus_combine_rule rule) {
    CombineProblem p = random_mixture(random, rule, 3);
    for (double &z : p.models[1].scores) z = std::round(z * 64) / 64;  // so that adding 8 is exact
    CombineProblem moved = p;
    for (double &z : moved.models[1].scores) z += 8;
    expect_close(p, run(abi, p), run(abi, moved), "adding a constant to a row");
  });
}

CONFORMANCE_TEST(property_probabilities_sum_to_one) {
  on_rules(test, 15, [](const PublicAbi &abi, Random &random, chorus_combine_rule rule) {
    const CombineProblem p = random_mixture(random, rule, 3);
    const OracleRow oracle = combine_oracle(p, 0);
    const CombineResult r = run(abi, p);
    double sum = 0, slack = 0;
    for (size_t v = 0; v < r.log_probs.size(); ++v) {
      sum += std::exp(r.log_probs[v]);
      slack += std::exp(r.log_probs[v]) * static_cast<double>(oracle.tolerance[v]);
    }
    expect(std::fabs(sum - 1) <= slack + 1e-12, "probabilities sum to 1 %+g (allowed %g)", sum - 1, slack);
  });
}

namespace {

// Pearson's statistic of counts against probabilities, cells of fewer than 8 expected draws pooled; then
// Wilson and Hilferty's normal score of it.
double chi_square_score(const std::vector<double> &counts, const std::vector<double> &probabilities,
                        double draws) {
  double chi = 0, pooled_count = 0, pooled_expected = 0;
  int cells = 0;
  const auto add = [&](double count, double expected) {
    chi += (count - expected) * (count - expected) / expected;
    ++cells;
  };
  for (size_t v = 0; v < counts.size(); ++v) {
    const double expected = draws * probabilities[v];
    if (expected >= 8) {
      add(counts[v], expected);
    } else {
      pooled_count += counts[v];
      pooled_expected += expected;
    }
  }
  if (pooled_expected >= 8) add(pooled_count, pooled_expected);
  const double k = cells - 1;
  return (std::cbrt(chi / k) - (1 - 2 / (9 * k))) / std::sqrt(2 / (9 * k));
}

// Draws `draws` tokens from one row, by row ids or by steps.
void sample_many(const PublicAbi &abi, CombineProblem p, int64_t draws, bool by_step) {
  std::vector<double> counts(static_cast<size_t>(p.n_tokens), 0), probabilities;
  for (long double l : combine_oracle(p, 0).log_probs) probabilities.push_back(static_cast<double>(expl(l)));
  const int64_t batch = 500;
  for (ModelScores &m : p.models) {
    const std::vector<double> row = m.scores;
    m.scores.clear();
    for (int64_t i = 0; i < batch; ++i) m.scores.insert(m.scores.end(), row.begin(), row.end());
  }
  p.rows = batch;
  for (int64_t done = 0; done < draws; done += batch) {
    p.row_ids.clear();
    p.steps.clear();
    for (int64_t i = 0; i < batch; ++i) {
      p.row_ids.push_back(by_step ? 77 : static_cast<double>(done + i));
      p.steps.push_back(by_step ? static_cast<double>(done + i) : 3);
    }
    for (double token : combine(abi, p, CHORUS_COMBINE_OUT_SAMPLE | CHORUS_COMBINE_OUT_STATUS).sample) {
      if (expect(token >= 0 && token < static_cast<double>(p.n_tokens), "sampled token %g", token))
        counts[static_cast<size_t>(token)] += 1;
    }
  }
  for (size_t v = 0; v < counts.size(); ++v)
    expect(probabilities[v] > 0 || counts[v] == 0, "token %zu of probability 0 was drawn", v);
  const double z = chi_square_score(counts, probabilities, static_cast<double>(draws));
  expect(std::fabs(z) < 4, "chi-square of %lld draws has the normal score %g", static_cast<long long>(draws),
         z);
}

}  // namespace

CONFORMANCE_TEST(property_samples_follow_the_probabilities) {
  on_rules(test, 1, [&](const PublicAbi &abi, Random &random, chorus_combine_rule rule) {
    CombineProblem p;
    p.rule = rule;
    for (double weight : {0.5, 0.3, rule == CHORUS_COMBINE_LINEAR ? 0.2 : -0.4}) {
      p.models.push_back(random_row(random, 67, 1.5));
      p.models.back().weight = weight;
      p.models.back().scores[static_cast<size_t>(random.integer(0, 66))] = -kInfinity;
    }
    complete(p);
    p.seed = random.bits();
    sample_many(abi, p, 40000, false);
    sample_many(abi, p, 40000, true);
  });
}

// A token drawn for (seed, row id, step) is the same for any backend and any place in any batch.
CONFORMANCE_TEST(property_samples_are_keyed_by_row_and_step) {
  const PublicAbi abi(test.backend);
  Random random = test.random();
  CombineProblem p = random_mixture(random, CHORUS_COMBINE_LINEAR, 2);
  const int64_t rows = 6;
  for (ModelScores &m : p.models) {
    const std::vector<double> row = m.scores;
    for (int64_t i = 1; i < rows; ++i) m.scores.insert(m.scores.end(), row.begin(), row.end());
  }
  p.rows = rows;
  p.seed = 99;
  p.row_ids = {5, 6, 7, 5, 6, 7};
  p.steps = {1, 1, 1, 1, 1, 1};
  const CombineResult r = combine(abi, p);
  for (size_t i = 0; i < 3; ++i)
    expect(r.sample[i] == r.sample[i + 3], "row id %g drew %g and %g", p.row_ids[i], r.sample[i],
           r.sample[i + 3]);
}

}  // namespace conformance
