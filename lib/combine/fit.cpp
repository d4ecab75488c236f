// SPDX-License-Identifier: Apache-2.0
// The life of a fit: options, passes, result. Reading batches is in fit_batch.cpp.
#include "combine/fit.h"

#include <cmath>
#include <limits>

#include "runtime/error.h"

namespace chorus::combine {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

size_t checked_models(const chorus_fit_options &options) {
  if (options.rule != CHORUS_COMBINE_LINEAR && options.rule != CHORUS_COMBINE_LOG_LINEAR) {
    fail(CHORUS_UNIMPLEMENTED, "rule is {}; weights are fitted for linear (0) and log-linear (1)", options.rule);
  }
  if (options.n_models < 1 || options.n_models > CHORUS_COMBINE_MAX_MODELS) {
    fail(CHORUS_INVALID_ARGUMENT, "n_models is {}; 1 to {} are allowed", options.n_models, CHORUS_COMBINE_MAX_MODELS);
  }
  return static_cast<size_t>(options.n_models);
}

double checked_positive(double value, const char *name, double otherwise) {
  if (!std::isfinite(value) || value < 0) {
    fail(CHORUS_INVALID_ARGUMENT, "{} is {}; finite and > 0 is needed (0: {})", name, value, otherwise);
  }
  return value == 0 ? otherwise : value;
}

Settings checked_settings(const chorus_fit_options &options) {
  if (options.max_iterations < 0) {
    fail(CHORUS_INVALID_ARGUMENT, "max_iterations is {}; at least 1 is needed (0: 1000)", options.max_iterations);
  }
  return {options.max_iterations == 0 ? 1000 : options.max_iterations,
          checked_positive(options.tolerance, "tolerance", 1e-9), checked_positive(options.ridge, "ridge", 1e-9)};
}

Vector start_of(const chorus_fit_options &options, size_t n) {
  if (options.initial_weights == nullptr) return Vector(n, 1 / static_cast<double>(n));
  Vector out(options.initial_weights, options.initial_weights + n);
  for (size_t i = 0; i < n; ++i) {
    if (!std::isfinite(out[i]) || (options.rule == CHORUS_COMBINE_LINEAR && out[i] <= 0)) {
      fail(CHORUS_INVALID_ARGUMENT, "initial_weights[{}] is {}; finite{} is needed", i, out[i],
           options.rule == CHORUS_COMBINE_LINEAR ? " and > 0" : "");
    }
  }
  return out;
}

// A pass sums: log p_w, gradient, curvature triangle, log p_i.
size_t pass_width(size_t n) { return 1 + n + n * (n + 1) / 2 + n; }

Evaluation evaluation_of(const OrderedSums &sums, size_t n) {
  const Vector total = sums.total();
  const auto count = static_cast<double>(sums.count());
  Evaluation out;
  out.value = total[0] / count;
  out.curvature = Matrix(n);
  for (size_t i = 0; i < n; ++i) {
    out.gradient.push_back(total[1 + i] / count);
    for (size_t j = i; j < n; ++j) {
      out.curvature(i, j) = out.curvature(j, i) = total[1 + n + triangle_index(i, j, n)] / count;
    }
  }
  return out;
}

}  // namespace

Fit::Fit(std::shared_ptr<const Context> context, const chorus_fit_options &options)
    : context_(std::move(context)),
      host_(find_device(context_, "reference")),
      rule_(options.rule),
      n_(checked_models(options)),
      settings_(checked_settings(options)),
      point_(start_of(options, n_)),
      gold_(n_),
      held_out_gold_(n_),
      pass_{0, 0, OrderedSums(pass_width(n_))},
      held_out_pass_{0, 0, OrderedSums(pass_width(n_))} {
  if (rule_ == CHORUS_COMBINE_LOG_LINEAR) newton_.emplace(point_, settings_);
}

bool Fit::step() {
  if (done_) fail(CHORUS_FAILED_PRECONDITION, "the fit is done; a new one is needed for other data");
  done_ = rule_ == CHORUS_COMBINE_LINEAR ? (finish_linear(), true) : step_log_linear();
  stepped_ = true;
  return done_;
}

void Fit::finish_linear() {
  if (gold_.tokens() == 0) {
    fail(CHORUS_INVALID_ARGUMENT, "there is no token to fit: {} were added, of which no model gives any probability",
         gold_.zero_tokens());
  }
  best_ = solve_linear(context_->pool(), gold_, point_, settings_);
  point_ = best_.weights;
  model_log_likelihoods_ = gold_.alone();
  held_out_ = held_out_gold_.tokens() == 0
                  ? kNaN
                  : held_out_gold_.evaluate(context_->pool(), best_.weights, false).value;
}

bool Fit::step_log_linear() {
  if (pass_.tokens == 0) {
    fail(CHORUS_INVALID_ARGUMENT, "this pass has no token to fit; {} were left out for a probability of zero",
         pass_.zero_tokens);
  }
  if (first_tokens_ >= 0 && (pass_.tokens != first_tokens_ || pass_.zero_tokens != first_zero_tokens_)) {
    fail(CHORUS_FAILED_PRECONDITION,
         "this pass has {} tokens and {} without probability; the first had {} and {}. Every pass needs the same data; where "
         "a model gives some token no probability, add scores instead of sums",
         pass_.tokens, pass_.zero_tokens, first_tokens_, first_zero_tokens_);
  }
  first_tokens_ = pass_.tokens;
  first_zero_tokens_ = pass_.zero_tokens;
  if (newton_->step(evaluation_of(pass_.sums, n_), pass_.tokens)) {
    best_ = newton_->solution();
    const Vector total = pass_.sums.total();
    model_log_likelihoods_.assign(total.end() - static_cast<int64_t>(n_), total.end());
    for (double &sum : model_log_likelihoods_) sum /= static_cast<double>(pass_.tokens);
    held_out_ = held_out_pass_.tokens == 0
                    ? kNaN
                    : held_out_pass_.sums.total()[0] / static_cast<double>(held_out_pass_.tokens);
  }
  best_.status = newton_->solution().status;
  point_ = newton_->point();
  held_out_first_ = held_out_pass_;
  pass_ = held_out_pass_ = {0, 0, OrderedSums(pass_width(n_))};
  return newton_->done();
}

chorus_fit_result Fit::result() {
  if (!stepped_) fail(CHORUS_FAILED_PRECONDITION, "no pass has ended yet; chorus_fit_step() ends one");
  const bool linear = rule_ == CHORUS_COMBINE_LINEAR;
  chorus_fit_result out = CHORUS_FIT_RESULT_INIT;
  out.status = best_.status;
  out.n_models = static_cast<int32_t>(n_);
  out.iterations = best_.iterations;
  out.tokens = linear ? gold_.tokens() : first_tokens_;
  out.zero_tokens = linear ? gold_.zero_tokens() : first_zero_tokens_;
  out.held_out_tokens = linear ? held_out_gold_.tokens() : held_out_first_.tokens;
  out.held_out_zero_tokens = linear ? held_out_gold_.zero_tokens() : held_out_first_.zero_tokens;
  out.log_likelihood = best_.log_likelihood;
  out.held_out_log_likelihood = held_out_;
  out.gap = best_.gap;
  out.weights = best_.weights.data();
  out.standard_errors = best_.standard_errors.data();
  out.model_log_likelihoods = model_log_likelihoods_.data();
  out.flags = best_.flags.data();
  return out;
}

}  // namespace chorus::combine
