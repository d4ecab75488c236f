// SPDX-License-Identifier: Apache-2.0
// Weights from history and from confidence, against their formulas worked out here.
#include "chorus/weights.h"

#include <criterion/criterion.h>

#include <cmath>
#include <vector>

#include "unit/combine/support.h"

namespace {

using namespace unit;

const float kNaN = std::nanf(""), kOff = -INFINITY;

std::vector<float> update(std::vector<double> *state, const std::vector<float> &log_probs, double keep = 1) {
  const auto n = static_cast<int32_t>(state->size());
  std::vector<float> weights(n);
  cr_assert_eq(chorus_posterior_update(1, n, static_cast<int64_t>(log_probs.size()) / n, log_probs.data(), keep, state->data(),
                                       weights.data(), nullptr),
               CHORUS_OK);
  return weights;
}

void expect_weights(const std::vector<float> &got, const std::vector<double> &want) {
  for (size_t i = 0; i < want.size(); ++i) cr_expect_float_eq(got[i], want[i], 1e-6, "weight %zu is %g, not %g", i, got[i], want[i]);
}

}  // namespace

Test(weights, posterior_is_bayes) {
  std::vector<double> state(2);
  const double prior[] = {1, 3};
  cr_assert_eq(chorus_posterior_start(1, 2, prior, state.data(), nullptr), CHORUS_OK);
  // prior 1 : 3, likelihoods 0.5 · 0.1 and 0.25 · 0.4
  expect_weights(update(&state, {std::log(0.5f), std::log(0.25f), std::log(0.1f), std::log(0.4f)}), {0.05 / 0.35, 0.3 / 0.35});
  expect_weights(update(&state, {kOff, -1}), {0, 1});
  expect_weights(update(&state, {kOff, kOff}), {0, 1});  // excluded by all: counts nothing
}

Test(weights, posterior_of_long_texts_and_absent_models) {
  std::vector<double> state(3);
  cr_assert_eq(chorus_posterior_start(1, 3, nullptr, state.data(), nullptr), CHORUS_OK);
  for (int i = 0; i < 5000; ++i) update(&state, {-700, -700, -700});
  expect_weights(update(&state, {0, std::log(0.5f), std::log(0.5f)}), {0.5, 0.25, 0.25});
  // The absent model keeps its quarter; the others share theirs by likelihood.
  expect_weights(update(&state, {std::log(0.2f), kNaN, std::log(0.8f)}), {0.5 * 0.2 / 0.4, 0.25, 0.25 * 0.8 / 0.4});
  std::vector<double> two = {0, 0};
  update(&two, {0, std::log(0.01f)});
  expect_weights(update(&two, {std::log(0.5f), std::log(0.5f)}, 0.5), {1 / 1.1, 0.1 / 1.1});  // half of the evidence
}

Test(weights, confidence) {
  // entropy, expected, gap; H_0, H_1, H_2; max p
  const std::vector<float> d = {0, 0, 0, 1, 2, 0, 0.5f, 0.25f, 0};
  const auto weights = [&](chorus_confidence kind, double strength, const double *prior) {
    std::vector<float> w(3);
    cr_assert_eq(chorus_confidence_weights(1, 3, kind, strength, d.data(), prior, w.data(), nullptr), CHORUS_OK);
    return w;
  };
  const double e = std::exp(1.0);
  expect_weights(weights(CHORUS_CONFIDENCE_ENTROPY, 1, nullptr), {e / (e + 1), 1 / (e + 1), 0});
  expect_weights(weights(CHORUS_CONFIDENCE_MAX, 2, nullptr), {0.8, 0.2, 0});
  expect_weights(weights(CHORUS_CONFIDENCE_BEST, 1, nullptr), {1, 0, 0});
  const double prior[] = {0, 1, 1};
  expect_weights(weights(CHORUS_CONFIDENCE_BEST, 1, prior), {0, 1, 0});
  const std::vector<float> none = {0, 0, 0, 0, 0, 0, 0, 0, 0};
  std::vector<float> w(3);
  cr_assert_eq(chorus_confidence_weights(1, 3, CHORUS_CONFIDENCE_MAX, 1, none.data(), prior, w.data(), nullptr), CHORUS_OK);
  expect_weights(w, {0, 0.5, 0.5});
}

Test(weights, refuse) {
  std::vector<double> state(2);
  std::vector<float> out(2);
  const float bad[] = {0.5f, -1}, d[] = {0, 0, 0, 1, 1, 1, 1};
  const double negative[] = {-1, 2}, zero[] = {0, 0};
  const auto is_refused = [](chorus_status status) { return status == CHORUS_INVALID_ARGUMENT; };
  cr_expect(is_refused(chorus_posterior_start(-1, 2, nullptr, state.data(), nullptr)));
  cr_expect(is_refused(chorus_posterior_start(1, 0, nullptr, state.data(), nullptr)));
  cr_expect(is_refused(chorus_posterior_start(1, 2, negative, state.data(), nullptr)));
  cr_expect(is_refused(chorus_posterior_start(1, 2, zero, state.data(), nullptr)));
  cr_expect(is_refused(chorus_posterior_start(1, 2, nullptr, nullptr, nullptr)));
  cr_expect(is_refused(chorus_posterior_update(1, 2, 1, bad, 1, state.data(), out.data(), nullptr)));
  cr_expect(is_refused(chorus_posterior_update(1, 2, 1, nullptr, 1, state.data(), out.data(), nullptr)));
  cr_expect(is_refused(chorus_posterior_update(1, 2, 1, d, 0, state.data(), out.data(), nullptr)));
  cr_expect(is_refused(chorus_confidence_weights(1, 2, 3, 1, d, nullptr, out.data(), nullptr)));
  cr_expect(is_refused(chorus_confidence_weights(1, 2, 0, NAN, d, nullptr, out.data(), nullptr)));
  cr_expect(is_refused(chorus_confidence_weights(1, 2, 0, 1, nullptr, nullptr, out.data(), nullptr)));
}
