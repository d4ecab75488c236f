// SPDX-License-Identifier: Apache-2.0
// Recipes against their published formulas in long double.
#include "chorus/recipes.h"

#include <criterion/criterion.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include "chorus/chorus.hpp"
#include "unit/combine/support.h"

namespace {

using namespace unit;
using Row = std::vector<long double>;

constexpr int64_t kTokens = 40;

std::vector<float> logits(uint64_t model) {
  std::vector<float> out;
  for (uint64_t v = 0; v < kTokens; ++v) out.push_back(static_cast<float>(noise(3, model, v, 0)));
  return out;
}

Row log_softmax(const Row &z) {
  const long double top = *std::max_element(z.begin(), z.end());
  long double sum = 0;
  for (const long double x : z) sum += std::exp(x - top);
  Row out;
  for (const long double x : z) out.push_back(x - top - std::log(sum));
  return out;
}

// Runs `recipe` on models 0 … n - 1 and compares with `formula` of their log-probs, before it is normalised.
void expect_recipe(size_t n, const std::function<chorus_status(chorus_combiner_spec *)> &recipe,
                   const std::function<Row(const std::vector<Row> &)> &formula, bool normalised = true) {
  chorus_combiner_spec *spec = nullptr;
  cr_assert_eq(chorus_combiner_spec_create(&spec, nullptr), CHORUS_OK);
  cr_expect_eq(recipe(spec), CHORUS_INVALID_ARGUMENT);  // no models yet
  std::vector<std::vector<float>> scores;
  std::vector<chorus::Tensor> tensors;
  std::vector<const chorus_tensor *> pointers;
  std::vector<Row> log_probs;
  for (size_t i = 0; i < n; ++i) {
    scores.push_back(logits(i));
    log_probs.push_back(log_softmax({scores.back().begin(), scores.back().end()}));
    cr_assert_eq(chorus_combiner_spec_add_model(spec, CHORUS_SCORES_LOGITS, CHORUS_F32, kTokens, kTokens, 1, 1, nullptr, nullptr), CHORUS_OK);
  }
  for (const auto &list : scores) tensors.emplace_back(list.data(), std::initializer_list<int64_t>{1, kTokens});
  for (const auto &tensor : tensors) pointers.push_back(tensor.get());
  cr_assert_eq(recipe(spec), CHORUS_OK);
  chorus_combiner *combiner = nullptr;
  Outcome outcome;
  const chorus_status made = chorus_combiner_create(context().get(), spec, "reference", &combiner, outcome.slot());
  chorus_combiner_spec_destroy(spec);
  cr_assert_eq(made, CHORUS_OK, "%s", outcome.text().c_str());
  std::vector<float> out(kTokens);
  const chorus::Tensor out_tensor(out.data(), {1, kTokens});
  chorus_combine_in in = CHORUS_COMBINE_IN_INIT;
  in.rows = 1;
  in.scores = pointers.data();
  chorus_combine_out to = CHORUS_COMBINE_OUT_INIT;
  to.log_probs = out_tensor.get();
  cr_assert_eq(chorus_combiner_run(combiner, &in, &to, nullptr, outcome.slot()), CHORUS_OK, "%s", outcome.text().c_str());
  chorus_combiner_destroy(combiner);
  const Row expected = normalised ? log_softmax(formula(log_probs)) : formula(log_probs);
  for (size_t v = 0; v < kTokens; ++v) {
    if (std::isinf(expected[v])) {
      cr_expect_eq(out[v], -INFINITY, "token %zu", v);
    } else {
      cr_expect_float_eq(out[v], expected[v], 1e-4, "token %zu: %g, not %Lg", v, out[v], expected[v]);
    }
  }
}

Row sum(const std::vector<Row> &l, const std::vector<long double> &w) {
  Row out(kTokens, 0);
  for (size_t i = 0; i < l.size(); ++i) {
    for (size_t v = 0; v < kTokens; ++v) out[v] += w[i] * l[i][v];
  }
  return out;
}

// -inf outside the tokens of `keep`.
Row masked(Row row, const std::function<bool(size_t)> &keep) {
  for (size_t v = 0; v < row.size(); ++v) row[v] = keep(v) ? row[v] : -kInfinity;
  return row;
}

Row plausible(const Row &row, const Row &expert, long double alpha) {
  const long double least = std::log(alpha) + *std::max_element(expert.begin(), expert.end());
  return masked(row, [&](size_t v) { return expert[v] >= least; });
}

// The smallest set of best tokens with mass >= p.
Row nucleus(const Row &row, const Row &base, long double p) {
  return masked(row, [&](size_t v) {
    long double better = 0;
    for (size_t u = 0; u < base.size(); ++u) better += base[u] > base[v] ? std::exp(base[u]) : 0;
    return better < p;
  });
}

}  // namespace

Test(recipes, by_weights_alone) {
  expect_recipe(3, [](auto *s) { return chorus_combiner_spec_use_proxy_tuning(s, 1.5, nullptr); },
                [](const auto &l) { return sum(l, {1, 1.5, -1.5}); });
  expect_recipe(3, [](auto *s) { return chorus_combiner_spec_use_evidence(s, 0.5, nullptr); },
                [](const auto &l) { return sum(l, {1, 0.5, -0.5}); });
  expect_recipe(2, [](auto *s) { return chorus_combiner_spec_use_guidance(s, 3, nullptr); },
                [](const auto &l) { return sum({l[1], l[0], l[1]}, {1, 3, -3}); });
  expect_recipe(2, [](auto *s) { return chorus_combiner_spec_use_guidance(s, 1, nullptr); }, [](const auto &l) { return l[0]; });
  expect_recipe(2, [](auto *s) { return chorus_combiner_spec_use_context_aware(s, 1, nullptr); },
                [](const auto &l) { return sum(l, {2, -1}); });
  expect_recipe(3, [](auto *s) { return chorus_combiner_spec_use_dexperts(s, 2, 1, nullptr); },
                [](const auto &l) { return sum(l, {1, 2, -2}); });
}

Test(recipes, with_filters) {
  expect_recipe(3, [](auto *s) { return chorus_combiner_spec_use_dexperts(s, 2, 0.9, nullptr); },
                [](const auto &l) { return nucleus(sum(l, {1, 2, -2}), l[0], 0.9L); });
  expect_recipe(2, [](auto *s) { return chorus_combiner_spec_use_contrastive_2022(s, 0.5, 0.1, nullptr); },
                [](const auto &l) { return plausible(sum(l, {1, -0.5}), l[0], 0.1L); });
  expect_recipe(2, [](auto *s) { return chorus_combiner_spec_use_contrastive_2023(s, 0.5, 0.1, nullptr); },
                [](const auto &l) { return plausible(sum(l, {1.5, -0.5}), l[0], 0.1L); });
}

Test(recipes, scores_that_are_not_normalised) {
  expect_recipe(2, [](auto *s) { return chorus_combiner_spec_use_shallow_fusion(s, 0.3, nullptr); },
                [](const auto &l) { return sum(l, {1, 0.3}); }, false);
}

Test(recipes, neighbours) {
  const std::vector<float> z = logits(0);
  const Row l = log_softmax({z.begin(), z.end()});
  chorus::CombinerSpec spec;
  spec.add_model(CHORUS_SCORES_LOGITS, CHORUS_F32, kTokens, kTokens, 1).use_neighbours(0.25);
  const chorus::Combiner combiner(context(), spec, "reference");
  std::vector<float> out(kTokens);
  const std::vector<int64_t> offsets = {0, 3};
  const std::vector<int32_t> ids = {7, 2, 7};
  const std::vector<float> distances = {-1, -2, -3};
  const chorus::Tensor scores(z.data(), {1, kTokens}), row(out.data(), {1, kTokens}), at(offsets.data(), {2}), tokens(ids.data(), {3}),
      near(distances.data(), {3});
  const chorus_tensor *list[] = {scores.get()};
  chorus_combine_in in = CHORUS_COMBINE_IN_INIT;
  in.rows = 1;
  in.scores = list;
  in.neighbours_offsets = at.get();
  in.neighbours_ids = tokens.get();
  in.neighbours_scores = near.get();
  chorus_combine_out to = CHORUS_COMBINE_OUT_INIT;
  to.log_probs = row.get();
  combiner.run(in, to);
  const long double sum = std::exp(-1.0L) + std::exp(-2.0L) + std::exp(-3.0L);
  for (size_t v = 0; v < kTokens; ++v) {
    const long double near_p = v == 7 ? (std::exp(-1.0L) + std::exp(-3.0L)) / sum : v == 2 ? std::exp(-2.0L) / sum : 0;
    const long double want = std::log(0.75L * std::exp(l[v]) + 0.25L * near_p);
    cr_expect_float_eq(out[v], want, 1e-5, "token %zu: %g, not %Lg", v, out[v], want);
  }
}

Test(recipes, refuse) {
  chorus_combiner_spec *spec = nullptr;
  cr_assert_eq(chorus_combiner_spec_create(&spec, nullptr), CHORUS_OK);
  for (int i = 0; i < 3; ++i) chorus_combiner_spec_add_model(spec, CHORUS_SCORES_LOGITS, CHORUS_F32, 4, 4, 1, 1, nullptr, nullptr);
  Outcome outcome;
  cr_expect_eq(chorus_combiner_spec_use_guidance(spec, 2, outcome.slot()), CHORUS_INVALID_ARGUMENT);
  cr_expect(contains(outcome.text(), "spec has 3 models; guidance combines 2"), "%s", outcome.text().c_str());
  cr_expect_eq(chorus_combiner_spec_use_dexperts(spec, NAN, 0.9, nullptr), CHORUS_INVALID_ARGUMENT);
  cr_expect_eq(chorus_combiner_spec_use_dexperts(spec, 2, 0, nullptr), CHORUS_INVALID_ARGUMENT);
  cr_expect_eq(chorus_combiner_spec_use_dexperts(spec, 2, 1.1, nullptr), CHORUS_INVALID_ARGUMENT);
  cr_expect_eq(chorus_combiner_spec_use_proxy_tuning(spec, 1e300, nullptr), CHORUS_INVALID_ARGUMENT);
  cr_expect_eq(chorus_combiner_spec_use_proxy_tuning(nullptr, 1, nullptr), CHORUS_INVALID_ARGUMENT);
  cr_expect_eq(chorus_combiner_spec_use_neighbours(spec, 0.5, nullptr), CHORUS_INVALID_ARGUMENT);  // three models
  cr_expect_eq(chorus_combiner_spec_use_neighbours(spec, 1.5, nullptr), CHORUS_INVALID_ARGUMENT);
  chorus_combiner_spec_destroy(spec);
}
