// SPDX-License-Identifier: Apache-2.0
// Fits of mixture weights against optima found by other means (tests/vectors/fits.py), and how they treat what is degenerate.
#include "chorus/fit.h"

#include <criterion/criterion.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "chorus/chorus.hpp"
#include "unit/combine/support.h"

namespace {

using namespace unit;

enum Kind { kPlain, kIdentical, kNegative, kZeros };

struct Problem {
  bool linear;
  int kind;
  uint64_t seed;
  int n, tokens, v;
  const char *gold;
  double optimum;
  std::vector<double> weights;
};

const std::vector<Problem> &problems() {
  static const std::vector<Problem> kProblems = {
#include "vectors/fits.inc"
  };
  return kProblems;
}

// The logits of fits.py, [n][t, v].
std::vector<std::vector<double>> logits_of(const Problem &p) {
  std::vector<std::vector<double>> out(static_cast<size_t>(p.n));
  for (int i = 0; i < p.n; ++i) {
    const uint64_t source = p.kind == kIdentical && i == 1 ? 0 : static_cast<uint64_t>(i);
    for (int t = 0; t < p.tokens; ++t) {
      for (int v = 0; v < p.v; ++v) {
        const auto a = static_cast<uint64_t>(t), b = static_cast<uint64_t>(v);
        const bool zero = p.kind == kZeros && splitmix(((p.seed * 64 + 50 + static_cast<uint64_t>(i)) * 4096 + a) * 64 + b) % 5 == 0;
        out[static_cast<size_t>(i)].push_back(zero ? -kInfinity : 0.5 * noise(p.seed, 40, a, b) + noise(p.seed, source, a, b));
      }
    }
  }
  return out;
}

struct Fitted {
  chorus_fit_result result;
  std::vector<double> weights, errors, alone;
  std::vector<uint32_t> flags;
};

Fitted copy_of(chorus::Fit &fit) {
  Fitted out{fit.result(), {}, {}, {}, {}};
  const auto n = out.result.n_models;
  out.weights.assign(out.result.weights, out.result.weights + n);
  out.errors.assign(out.result.standard_errors, out.result.standard_errors + n);
  out.alone.assign(out.result.model_log_likelihoods, out.result.model_log_likelihoods + n);
  out.flags.assign(out.result.flags, out.result.flags + n);
  return out;
}

struct Data {
  std::vector<std::vector<double>> scores;  // [n][t, v]
  std::vector<int32_t> gold;
  int64_t v;
};

Data data_of(const Problem &p) {
  Data out{logits_of(p), {}, p.v};
  for (int t = 0; t < p.tokens; ++t) out.gold.push_back(p.gold[t] - 'a');
  return out;
}

// Adds tokens [first, end) of `data` in batches of `batch`.
void add(chorus::Fit &fit, const Data &data, int64_t first, int64_t end, int64_t batch, bool held_out = false) {
  for (int64_t at = first; at < end; at += batch) {
    const int64_t rows = std::min(batch, end - at);
    std::vector<chorus::Tensor> tensors;
    std::vector<const chorus_tensor *> pointers;
    for (const auto &scores : data.scores) tensors.emplace_back(scores.data() + at * data.v, std::initializer_list<int64_t>{rows, data.v});
    for (const auto &tensor : tensors) pointers.push_back(tensor.get());
    const chorus::Tensor tokens(data.gold.data() + at, {rows});
    chorus_fit_batch b = CHORUS_FIT_BATCH_INIT;
    b.rows = rows;
    b.scores = pointers.data();
    b.tokens = tokens.get();
    b.held_out = held_out;
    fit.add(b);
  }
}

Fitted fit_of(const chorus::Context &context, const Data &data, bool linear, int64_t batch) {
  chorus_fit_options options = CHORUS_FIT_OPTIONS_INIT;
  options.rule = linear ? CHORUS_COMBINE_LINEAR : CHORUS_COMBINE_LOG_LINEAR;
  options.n_models = static_cast<int32_t>(data.scores.size());
  chorus::Fit fit(context, options);
  do {
    add(fit, data, 0, static_cast<int64_t>(data.gold.size()), batch);
  } while (!fit.step());
  return copy_of(fit);
}

double log_softmax_at(const double *z, int64_t v, int64_t at) {
  long double top = -kInfinity, sum = 0;
  for (int64_t u = 0; u < v; ++u) top = std::max<long double>(top, z[u]);
  for (int64_t u = 0; u < v; ++u) sum += std::exp(z[u] - top);
  return static_cast<double>(z[at] - top - std::log(sum));
}

}  // namespace

Test(fit, reaches_the_optimum_of_twenty_problems) {
  cr_assert_eq(problems().size(), 20);
  for (const Problem &p : problems()) {
    const Fitted fitted = fit_of(context(), data_of(p), p.linear, 17);
    cr_expect_eq(fitted.result.status, CHORUS_FIT_CONVERGED, "seed %d: status %d", int(p.seed), fitted.result.status);
    cr_expect_eq(fitted.result.tokens, p.tokens);
    cr_expect(std::abs(fitted.result.log_likelihood - p.optimum) <= 1e-8, "seed %d: %.12g, the optimum is %.12g", int(p.seed),
              fitted.result.log_likelihood, p.optimum);
    if (p.kind == kIdentical) continue;  // any split of the two is an optimum
    for (size_t i = 0; i < p.weights.size(); ++i) {
      cr_expect(std::abs(fitted.weights[i] - p.weights[i]) <= 2e-3, "seed %d: weight %zu is %g, %g is best", int(p.seed), i,
                fitted.weights[i], p.weights[i]);
    }
  }
}

Test(fit, bytes_do_not_depend_on_batches_or_threads) {
  for (const size_t k : {3u, 5u, 13u, 16u}) {
    const Problem &p = problems()[k];
    const Data data = data_of(p);
    const Fitted whole = fit_of(context(1), data, p.linear, p.tokens);
    for (const int threads : {1, 3}) {
      for (const int64_t batch : {1, 7, 50}) {
        const Fitted other = fit_of(context(threads), data, p.linear, batch);
        cr_expect_eq(whole.result.iterations, other.result.iterations);
        cr_expect_eq(whole.result.log_likelihood, other.result.log_likelihood);
        cr_expect(whole.weights == other.weights && whole.errors == other.errors);
      }
    }
  }
}

// A stream of more than one block: 3 x 4096 + 5 tokens.
Test(fit, long_streams_are_summed_in_blocks) {
  std::vector<double> gold;
  for (uint64_t t = 0; t < 3 * 4096 + 5; ++t) {
    gold.push_back(-1 - std::abs(noise(9, 0, t, 0)));
    gold.push_back(-1 - std::abs(noise(9, 1, t, 0)));
  }
  const auto run = [&](int threads, int64_t batch) {
    chorus_fit_options options = CHORUS_FIT_OPTIONS_INIT;
    options.n_models = 2;
    chorus::Fit fit(context(threads), options);
    const auto tokens = static_cast<int64_t>(gold.size()) / 2;
    for (int64_t at = 0; at < tokens; at += batch) {
      const int64_t rows = std::min(batch, tokens - at);
      const chorus::Tensor tensor(gold.data() + 2 * at, {rows, 2});
      chorus_fit_batch b = CHORUS_FIT_BATCH_INIT;
      b.rows = rows;
      b.token_log_probs = tensor.get();
      fit.add(b);
    }
    cr_assert(fit.step());
    return copy_of(fit);
  };
  const Fitted a = run(1, 100000), b = run(3, 1000);
  cr_expect(a.weights == b.weights && a.result.log_likelihood == b.result.log_likelihood);
  long double best = -kInfinity;  // scan of the one free weight
  for (int k = 0; k <= 1000; ++k) {
    const long double w = k / 1000.0L;
    long double sum = 0;
    for (size_t t = 0; t < gold.size(); t += 2) {
      sum += std::log(w * std::exp((long double)gold[t]) + (1 - w) * std::exp((long double)gold[t + 1]));
    }
    best = std::max(best, sum / (gold.size() / 2));
  }
  cr_expect(a.result.log_likelihood >= (double)best - 1e-12 && a.result.log_likelihood <= (double)best + 1e-5);
}

Test(fit, standard_errors_are_those_of_the_observed_information) {
  // Two models, linear: the information of the first weight is sum ((p0 - p1) / m)^2.
  const Problem &p = problems()[0];
  const Data data = data_of(p);
  const Fitted fitted = fit_of(context(), data, true, 100);
  double information = 0;
  for (size_t t = 0; t < data.gold.size(); ++t) {
    const double a = std::exp(log_softmax_at(&data.scores[0][t * 12], 12, data.gold[t]));
    const double b = std::exp(log_softmax_at(&data.scores[1][t * 12], 12, data.gold[t]));
    const double m = fitted.weights[0] * a + fitted.weights[1] * b;
    information += (a - b) * (a - b) / (m * m);
  }
  cr_expect_float_eq(fitted.errors[0], 1 / std::sqrt(information), 1e-9);
  cr_expect_float_eq(fitted.errors[1], fitted.errors[0], 1e-12);
}

Test(fit, identical_models_are_told) {
  for (const bool linear : {true, false}) {
    Data data = data_of(problems()[linear ? 3 : 15]);
    data.scores.resize(2);
    data.scores.push_back(data.scores[1]);
    const Fitted fitted = fit_of(context(), data, linear, 100);
    cr_expect_eq(fitted.result.status, CHORUS_FIT_CONVERGED);
    cr_expect_eq(fitted.flags[0], 0u);
    cr_expect(std::isfinite(fitted.errors[0]) && fitted.errors[0] > 0);
    for (const size_t i : {1u, 2u}) {
      cr_expect_eq(fitted.flags[i], CHORUS_FIT_NOT_IDENTIFIED);
      cr_expect_eq(fitted.errors[i], kInfinity);
    }
    cr_expect_float_eq(fitted.weights[1], fitted.weights[2], 1e-6, "%g and %g", fitted.weights[1], fitted.weights[2]);
  }
}

Test(fit, tokens_without_probability_are_counted) {
  const std::vector<double> gold = {std::log(0.5), -kInfinity, -kInfinity, -kInfinity, -kInfinity, std::log(0.5)};
  const chorus::Tensor tensor(gold.data(), {3, 2});
  chorus_fit_options options = CHORUS_FIT_OPTIONS_INIT;
  options.n_models = 2;
  chorus::Fit fit(context(), options);
  chorus_fit_batch batch = CHORUS_FIT_BATCH_INIT;
  batch.rows = 3;
  batch.token_log_probs = tensor.get();
  fit.add(batch);
  cr_assert(fit.step());
  const Fitted fitted = copy_of(fit);
  cr_expect_eq(fitted.result.tokens, 2);
  cr_expect_eq(fitted.result.zero_tokens, 1);
  cr_expect_float_eq(fitted.weights[0], 0.5, 1e-9);
  cr_expect_float_eq(fitted.result.log_likelihood, std::log(0.25), 1e-12);
  cr_expect_eq(fitted.alone[0], -kInfinity);
  cr_expect(std::isnan(fitted.result.held_out_log_likelihood));
}

Test(fit, a_useless_model_is_at_the_bound) {
  std::vector<double> gold;
  for (uint64_t t = 0; t < 50; ++t) {
    gold.push_back(-1 - 0.1 * std::abs(noise(1, 0, t, 0)));
    gold.push_back(gold.back() - 2);
  }
  chorus_fit_options options = CHORUS_FIT_OPTIONS_INIT;
  options.n_models = 2;
  chorus::Fit fit(context(), options);
  const chorus::Tensor tensor(gold.data(), {50, 2});
  chorus_fit_batch batch = CHORUS_FIT_BATCH_INIT;
  batch.rows = 50;
  batch.token_log_probs = tensor.get();
  fit.add(batch);
  cr_assert(fit.step());
  const Fitted fitted = copy_of(fit);
  cr_expect_eq(fitted.result.status, CHORUS_FIT_CONVERGED);
  cr_expect_eq(fitted.flags[1], CHORUS_FIT_AT_BOUND);
  cr_expect_eq(fitted.errors[1], 0);
  cr_expect(fitted.weights[1] < 1e-9 && fitted.result.gap <= 1e-9);
}

// Gold is always the best token: without the ridge the weight would grow for ever.
Test(fit, certain_data_end) {
  Data data;
  data.v = 3;
  data.scores = {{2, 0, 0, 0, 1, 0}};
  data.gold = {0, 1};
  const Fitted fitted = fit_of(context(), data, false, 2);
  cr_expect_eq(fitted.result.status, CHORUS_FIT_CONVERGED);
  cr_expect(std::isfinite(fitted.weights[0]) && fitted.weights[0] > 5);
  cr_expect(fitted.result.log_likelihood > -1e-5);
}

Test(fit, held_out_tokens_are_measured_only) {
  for (const size_t k : {3u, 15u}) {
    const Problem &p = problems()[k];
    const Data data = data_of(p);
    const int64_t half = p.tokens / 2;
    chorus_fit_options options = CHORUS_FIT_OPTIONS_INIT;
    options.rule = p.linear ? CHORUS_COMBINE_LINEAR : CHORUS_COMBINE_LOG_LINEAR;
    options.n_models = p.n;
    chorus::Fit fit(context(), options);
    do {
      add(fit, data, 0, half, 9);
      add(fit, data, half, p.tokens, 9, true);
    } while (!fit.step());
    const Fitted fitted = copy_of(fit);
    cr_expect_eq(fitted.result.tokens, half);
    cr_expect_eq(fitted.result.held_out_tokens, p.tokens - half);
    double expected = 0;
    for (int64_t t = half; t < p.tokens; ++t) {
      double linear = 0;
      std::vector<double> mixed(static_cast<size_t>(p.v), 0.0);
      for (int i = 0; i < p.n; ++i) {
        const double *z = &data.scores[static_cast<size_t>(i)][static_cast<size_t>(t * p.v)];
        linear += fitted.weights[static_cast<size_t>(i)] * std::exp(log_softmax_at(z, p.v, data.gold[static_cast<size_t>(t)]));
        for (int v = 0; v < p.v; ++v) mixed[static_cast<size_t>(v)] += fitted.weights[static_cast<size_t>(i)] * z[v];
      }
      expected += p.linear ? std::log(linear) : log_softmax_at(mixed.data(), p.v, data.gold[static_cast<size_t>(t)]);
    }
    cr_expect_float_eq(fitted.result.held_out_log_likelihood, expected / static_cast<double>(p.tokens - half), 1e-10);
  }
}

// The statistics of combine.rows do as well as the rows themselves.
Test(fit, log_linear_from_gradient_sums) {
  const Problem &p = problems()[11];
  const Data data = data_of(p);
  const auto n = static_cast<size_t>(p.n), v = static_cast<size_t>(p.v), t = data.gold.size();
  chorus_fit_options options = CHORUS_FIT_OPTIONS_INIT;
  options.rule = CHORUS_COMBINE_LOG_LINEAR;
  options.n_models = p.n;
  chorus::Fit fit(context(), options);
  int passes = 0;
  do {
    const double *w = fit.point();
    std::vector<double> gold, combined, sums;
    for (size_t row = 0; row < t; ++row) {
      std::vector<std::vector<double>> l(n, std::vector<double>(v));
      std::vector<double> mixed(v, 0.0);
      for (size_t i = 0; i < n; ++i) {
        for (size_t u = 0; u < v; ++u) {
          l[i][u] = log_softmax_at(&data.scores[i][row * v], p.v, static_cast<int64_t>(u));
          mixed[u] += w[i] * l[i][u];
        }
        gold.push_back(l[i][static_cast<size_t>(data.gold[row])]);
      }
      combined.push_back(log_softmax_at(mixed.data(), p.v, data.gold[row]));
      std::vector<double> mean(n, 0.0);
      const auto prob = [&](size_t u) { return std::exp(log_softmax_at(mixed.data(), p.v, static_cast<int64_t>(u))); };
      for (size_t i = 0; i < n; ++i) {
        for (size_t u = 0; u < v; ++u) mean[i] += prob(u) * l[i][u];
      }
      sums.insert(sums.end(), mean.begin(), mean.end());
      for (size_t i = 0; i < n; ++i) {
        for (size_t j = i; j < n; ++j) {
          double covariance = 0;
          for (size_t u = 0; u < v; ++u) covariance += prob(u) * (l[i][u] - mean[i]) * (l[j][u] - mean[j]);
          sums.push_back(covariance);
        }
      }
    }
    const auto rows = static_cast<int64_t>(t), models = static_cast<int64_t>(n);
    const chorus::Tensor gold_tensor(gold.data(), {rows, models}), combined_tensor(combined.data(), {rows}),
        sums_tensor(sums.data(), {rows, models + models * (models + 1) / 2});
    chorus_fit_batch batch = CHORUS_FIT_BATCH_INIT;
    batch.rows = rows;
    batch.token_log_probs = gold_tensor.get();
    batch.combined_log_probs = combined_tensor.get();
    batch.gradient_sums = sums_tensor.get();
    fit.add(batch);
    cr_assert(++passes < 50);
  } while (!fit.step());
  cr_expect_float_eq(copy_of(fit).result.log_likelihood, p.optimum, 1e-8);
}

// ---- What is refused ----

namespace {

std::string refusal(const std::vector<double> &scores, const std::vector<int32_t> &tokens) {
  chorus_fit_options options = CHORUS_FIT_OPTIONS_INIT;
  options.rule = CHORUS_COMBINE_LOG_LINEAR;
  options.n_models = 1;
  chorus::Fit fit(context(), options);
  Data data{{scores}, tokens, static_cast<int64_t>(scores.size() / tokens.size())};
  try {
    add(fit, data, 0, static_cast<int64_t>(tokens.size()), 100);
  } catch (const chorus::Error &error) {
    return error.what();
  }
  return "";
}

}  // namespace

Test(fit, refuses_by_row) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  cr_expect(contains(refusal({0, 0, 0, nan}, {0, 1}), "row 1, model 0: a score is NaN"));
  cr_expect(contains(refusal({0, 0, kInfinity, 0}, {0, 1}), "row 1, model 0: a score is +inf"));
  cr_expect(contains(refusal({0, 0, 0, 0}, {0, 2}), "tokens: row 1 is 2; 0 to 1 are allowed"));
  cr_expect(contains(refusal({0, 0, 0, 0}, {-1, 0}), "tokens: row 0 is -1"));
  const std::string allowed = refusal({0, 0, 0, -kInfinity}, {0, 1});
  cr_expect_str_eq(allowed.c_str(), "");
}

Test(fit, refuses_other_data_in_a_later_pass) {
  const Problem &p = problems()[11];
  const Data data = data_of(p);
  chorus_fit_options options = CHORUS_FIT_OPTIONS_INIT;
  options.rule = CHORUS_COMBINE_LOG_LINEAR;
  options.n_models = p.n;
  chorus::Fit fit(context(), options);
  chorus_fit_result result = CHORUS_FIT_RESULT_INIT;
  cr_expect_eq(chorus_fit_get_result(fit.get(), &result, nullptr), CHORUS_FAILED_PRECONDITION);
  int32_t done = 7;
  cr_expect_eq(chorus_fit_step(fit.get(), &done, nullptr), CHORUS_INVALID_ARGUMENT);
  cr_expect_eq(done, 0);
  add(fit, data, 0, 20, 20);
  cr_assert_not(fit.step());
  add(fit, data, 0, 19, 20);
  cr_expect_eq(chorus_fit_step(fit.get(), &done, nullptr), CHORUS_FAILED_PRECONDITION);
}

Test(fit, refuses_bad_options) {
  const auto status = [](auto change) {
    chorus_fit_options options = CHORUS_FIT_OPTIONS_INIT;
    options.n_models = 2;
    change(options);
    chorus_fit *fit = nullptr;
    const chorus_status out = chorus_fit_create(context().get(), &options, &fit, nullptr);
    chorus_fit_destroy(fit);
    return out;
  };
  static const double kZeroWeight[] = {0, 1};
  cr_expect_eq(status([](auto &) {}), CHORUS_OK);
  cr_expect_eq(status([](auto &o) { o.n_models = 0; }), CHORUS_INVALID_ARGUMENT);
  cr_expect_eq(status([](auto &o) { o.n_models = 65; }), CHORUS_INVALID_ARGUMENT);
  cr_expect_eq(status([](auto &o) { o.rule = CHORUS_COMBINE_MEDIAN; }), CHORUS_UNIMPLEMENTED);
  cr_expect_eq(status([](auto &o) { o.ridge = -1; }), CHORUS_INVALID_ARGUMENT);
  cr_expect_eq(status([](auto &o) { o.tolerance = std::nan(""); }), CHORUS_INVALID_ARGUMENT);
  cr_expect_eq(status([](auto &o) { o.initial_weights = kZeroWeight; }), CHORUS_INVALID_ARGUMENT);
}
