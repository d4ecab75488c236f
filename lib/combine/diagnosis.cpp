// SPDX-License-Identifier: Apache-2.0
// A diagnosis: checks batches, diagnoses rows in parallel, adds them up, and tells means.
#include "combine/diagnosis.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "chorus/plugin.hpp"
#include "combine/parallel.h"
#include "runtime/error.h"
#include "runtime/tensor.h"

namespace chorus::combine {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

size_t checked_models(int32_t n) {
  if (n < 1 || n > CHORUS_COMBINE_MAX_MODELS) {
    fail(CHORUS_INVALID_ARGUMENT, "n_models is {}; 1 to {} are allowed", n, CHORUS_COMBINE_MAX_MODELS);
  }
  return static_cast<size_t>(n);
}

size_t checked_bins(int32_t n) {
  if (n < 0 || n > 1000) fail(CHORUS_INVALID_ARGUMENT, "n_bins is {}; 1 to 1000, or 0 for 15, are allowed", n);
  return n == 0 ? 15 : static_cast<size_t>(n);
}

std::vector<double> checked_weights(const double *weights, size_t n) {
  if (weights == nullptr) return std::vector<double>(n, 1 / static_cast<double>(n));
  std::vector<double> out(weights, weights + n);
  for (size_t i = 0; i < n; ++i) {
    if (!std::isfinite(out[i]) || out[i] < 0) {
      fail(CHORUS_INVALID_ARGUMENT, "weights[{}] is {}; finite and >= 0 is needed", i, out[i]);
    }
  }
  const double total = std::accumulate(out.begin(), out.end(), 0.0);
  if (!(total > 0)) fail(CHORUS_INVALID_ARGUMENT, "all weights are 0; at least one must be positive");
  for (double &w : out) w /= total;
  return out;
}

double mean(const FixedSum &sum, int64_t count) { return count > 0 ? sum.value() / static_cast<double>(count) : kNaN; }
double share(int64_t part, int64_t count) { return count > 0 ? static_cast<double>(part) / static_cast<double>(count) : kNaN; }

void merge(std::vector<FixedSum> &into, const std::vector<FixedSum> &from) {
  for (size_t k = 0; k < into.size(); ++k) into[k].merge(from[k]);
}

void merge(std::vector<int64_t> &into, const std::vector<int64_t> &from) {
  for (size_t k = 0; k < into.size(); ++k) into[k] += from[k];
}

void append(const Bins &bins, std::vector<int64_t> *counts, std::vector<double> *confidences, std::vector<double> *accuracies) {
  counts->insert(counts->end(), bins.counts.begin(), bins.counts.end());
  confidences->insert(confidences->end(), bins.confidences.begin(), bins.confidences.end());
  accuracies->insert(accuracies->end(), bins.accuracies.begin(), bins.accuracies.end());
}

}  // namespace

Diagnosis::Diagnosis(std::shared_ptr<const Context> context, const chorus_diagnosis_options &options)
    : context_(std::move(context)),
      host_(find_device(context_, "reference")),
      n_(checked_models(options.n_models)),
      n_bins_(checked_bins(options.n_bins)),
      weights_(checked_weights(options.weights, n_)),
      entropies_(n_),
      kl_(n_ * n_),
      js_(n_ * n_),
      total_variation_(n_ * n_),
      nll_(n_ + 1),
      brier_(n_ + 1),
      kl_infinite_(n_ * n_),
      different_(n_ * n_),
      nll_infinite_(n_ + 1),
      both_right_(n_ * n_),
      right_(n_ + 1),
      calibration_(n_ + 1) {}

void Diagnosis::check(const chorus_diagnosis_batch &batch) const {
  if (batch.rows < 0) fail(CHORUS_INVALID_ARGUMENT, "rows is {}; at least 0 is needed", batch.rows);
  if (batch.scores == nullptr) fail(CHORUS_INVALID_ARGUMENT, "scores is NULL; an array of {} tensors is needed", n_);
  const auto check_scores = [&](const chorus_tensor *tensor, const char *name) {
    check_tensor(tensor, {name, {CHORUS_F64, CHORUS_F32, CHORUS_F16, CHORUS_BF16}, {batch.rows, kAnySize}}, *host_);
  };
  for (size_t i = 0; i < n_; ++i) check_scores(batch.scores[i], fmt::format("scores[{}]", i).c_str());
  if (batch.combined != nullptr) check_scores(batch.combined, "combined");
  if (batch.tokens != nullptr) check_tensor(batch.tokens, {"tokens", {CHORUS_I32, CHORUS_I64}, {batch.rows}}, *host_);
}

int64_t Diagnosis::valid_tokens(const chorus_diagnosis_batch &batch) const {
  int64_t shortest = batch.combined != nullptr ? batch.combined->shape[1] : std::numeric_limits<int64_t>::max();
  for (size_t i = 0; i < n_; ++i) shortest = std::min(shortest, batch.scores[i]->shape[1]);
  if (batch.n_valid < 0 || batch.n_valid > shortest) {
    fail(CHORUS_INVALID_ARGUMENT, "n_valid is {}; 1 to {} (the shortest row), or 0 for that, are allowed", batch.n_valid,
         shortest);
  }
  const int64_t v = batch.n_valid == 0 ? shortest : batch.n_valid;
  for (int64_t row = 0; batch.tokens != nullptr && row < batch.rows; ++row) {
    const int64_t token = plugin::integer_at(*batch.tokens, row);
    if (token < 0 || token >= v) fail(CHORUS_INVALID_ARGUMENT, "tokens: row {} is {}; 0 to {} are allowed", row, token, v - 1);
  }
  return v;
}

void Diagnosis::add(const chorus_diagnosis_batch &batch) {
  check(batch);
  const int64_t v = valid_tokens(batch);
  std::vector<RowDiagnosis> rows(static_cast<size_t>(batch.rows));
  parallel_runs(context_->pool(), batch.rows, [&](int64_t first, int64_t end) {
    std::vector<double> scratch;
    for (int64_t row = first; row < end; ++row) rows[static_cast<size_t>(row)] = diagnose(batch, row, v, &scratch);
  });
  for (int64_t row = 0; row < batch.rows; ++row) {
    add_row(rows[static_cast<size_t>(row)], batch.tokens != nullptr ? plugin::integer_at(*batch.tokens, row) : -1);
  }
}

void Diagnosis::add_row(const RowDiagnosis &row, int64_t gold) {
  if (!row.valid) {
    ++invalid_rows_;
    return;
  }
  ++rows_;
  entropy_.add(row.entropy);
  expected_entropy_.add(row.expected_entropy);
  information_.add(row.information);
  variation_ratio_.add(row.variation_ratio);
  disagreeing_rows_ += !row.all_agree;
  for (size_t i = 0; i < n_; ++i) entropies_[i].add(row.entropies[i]);
  for (size_t k = 0; k < n_ * n_; ++k) {
    if (std::isinf(row.kl[k])) {
      ++kl_infinite_[k];
    } else {
      kl_[k].add(row.kl[k]);
    }
    js_[k].add(row.js[k]);
    total_variation_[k].add(row.total_variation[k]);
    different_[k] += row.best[k / n_] != row.best[k % n_];
  }
  if (!row.has_gold) return;
  ++gold_rows_;
  size_t right = 0;
  for (size_t i = 0; i <= n_; ++i) {
    const bool is_right = row.best[i] == gold;
    right_[i] += is_right;
    right += i < n_ && is_right;
    if (std::isinf(row.nll[i])) {
      ++nll_infinite_[i];
    } else {
      nll_[i].add(row.nll[i]);
    }
    brier_[i].add(row.brier[i]);
    calibration_[i].add(static_cast<float>(row.confidence[i]), is_right);
  }
  right_spread_ += static_cast<int64_t>(std::min(right, n_ - right));
  for (size_t k = 0; k < n_ * n_; ++k) both_right_[k] += row.best[k / n_] == gold && row.best[k % n_] == gold;
}

void Diagnosis::merge(const Diagnosis &other) {
  if (n_ != other.n_ || n_bins_ != other.n_bins_ || weights_ != other.weights_) {
    fail(CHORUS_INVALID_ARGUMENT, "other has {} models and {} bins, this one {} and {}; both, and the weights, must be the same",
         other.n_, other.n_bins_, n_, n_bins_);
  }
  const Diagnosis from = other;  // which may be this one
  rows_ += from.rows_;
  invalid_rows_ += from.invalid_rows_;
  gold_rows_ += from.gold_rows_;
  disagreeing_rows_ += from.disagreeing_rows_;
  right_spread_ += from.right_spread_;
  entropy_.merge(from.entropy_);
  expected_entropy_.merge(from.expected_entropy_);
  information_.merge(from.information_);
  variation_ratio_.merge(from.variation_ratio_);
  combine::merge(entropies_, from.entropies_);
  combine::merge(kl_, from.kl_);
  combine::merge(js_, from.js_);
  combine::merge(total_variation_, from.total_variation_);
  combine::merge(nll_, from.nll_);
  combine::merge(brier_, from.brier_);
  combine::merge(kl_infinite_, from.kl_infinite_);
  combine::merge(different_, from.different_);
  combine::merge(nll_infinite_, from.nll_infinite_);
  combine::merge(both_right_, from.both_right_);
  combine::merge(right_, from.right_);
  for (size_t i = 0; i <= n_; ++i) calibration_[i].merge(from.calibration_[i]);
}

void Diagnosis::finish_rows() {
  for (size_t i = 0; i < n_; ++i) lent_.entropies.push_back(mean(entropies_[i], rows_));
  for (size_t k = 0; k < n_ * n_; ++k) {
    lent_.kl.push_back(mean(kl_[k], rows_ - kl_infinite_[k]));
    lent_.js.push_back(mean(js_[k], rows_));
    lent_.total_variation.push_back(mean(total_variation_[k], rows_));
    lent_.disagreements.push_back(share(different_[k], rows_));
  }
}

void Diagnosis::finish_gold() {
  for (size_t i = 0; i <= n_; ++i) {
    lent_.nll.push_back(mean(nll_[i], gold_rows_ - nll_infinite_[i]));
    lent_.accuracy.push_back(share(right_[i], gold_rows_));
    lent_.brier.push_back(mean(brier_[i], gold_rows_));
    const Bins width = calibration_[i].by_width(n_bins_), mass = calibration_[i].by_mass(n_bins_);
    lent_.ece_width.push_back(width.expected_error);
    lent_.mce.push_back(width.largest_error);
    lent_.ece_mass.push_back(mass.expected_error);
    append(width, &lent_.width_counts, &lent_.width_confidences, &lent_.width_accuracies);
    append(mass, &lent_.mass_counts, &lent_.mass_confidences, &lent_.mass_accuracies);
  }
  for (size_t i = 0; i < n_; ++i) {
    for (size_t j = 0; j < n_; ++j) finish_pair(i, j);
  }
}

// Kuncheva and Whitaker (2003), table 1: a both right, d both wrong, b and c one of them.
void Diagnosis::finish_pair(size_t i, size_t j) {
  const auto count = static_cast<double>(gold_rows_);
  const auto a = static_cast<double>(both_right_[i * n_ + j]);
  const double b = static_cast<double>(right_[i]) - a, c = static_cast<double>(right_[j]) - a, d = count - a - b - c;
  const auto ratio = [](double over, double under) { return under == 0 ? kNaN : over / under; };
  lent_.q_statistic.push_back(ratio(a * d - b * c, a * d + b * c));
  lent_.correlation.push_back(ratio(a * d - b * c, std::sqrt((a + b) * (c + d) * (a + c) * (b + d))));
  lent_.kappa.push_back(ratio(2 * (a * d - b * c), (a + b) * (b + d) + (a + c) * (c + d)));
  lent_.double_fault.push_back(ratio(d, count));
}

chorus_diagnosis_info Diagnosis::get() {
  lent_ = {};
  finish_rows();
  finish_gold();
  chorus_diagnosis_info out = CHORUS_DIAGNOSIS_INFO_INIT;
  out.n_models = static_cast<int32_t>(n_);
  out.n_bins = static_cast<int32_t>(n_bins_);
  out.rows = rows_;
  out.invalid_rows = invalid_rows_;
  out.gold_rows = gold_rows_;
  out.entropy = mean(entropy_, rows_);
  out.expected_entropy = mean(expected_entropy_, rows_);
  out.mutual_information = mean(information_, rows_);
  out.disagreement = share(disagreeing_rows_, rows_);
  out.variation_ratio = mean(variation_ratio_, rows_);
  // A token without probability counts here: infinite minus infinite is no number.
  const auto whole_nll = [&](size_t i) { return nll_infinite_[i] > 0 ? std::numeric_limits<double>::infinity() : lent_.nll[i]; };
  out.ensemble_gain = -whole_nll(n_);
  for (size_t i = 0; i < n_; ++i) {
    if (weights_[i] > 0) out.ensemble_gain += weights_[i] * whole_nll(i);
  }
  const auto spread = static_cast<double>(n_ - (n_ + 1) / 2);
  out.right_entropy = spread == 0 ? kNaN : share(right_spread_, gold_rows_) / spread;
  out.entropies = lent_.entropies.data();
  out.kl = lent_.kl.data();
  out.kl_infinite = kl_infinite_.data();
  out.js = lent_.js.data();
  out.total_variation = lent_.total_variation.data();
  out.disagreements = lent_.disagreements.data();
  out.nll = lent_.nll.data();
  out.nll_infinite = nll_infinite_.data();
  out.accuracy = lent_.accuracy.data();
  out.brier = lent_.brier.data();
  out.ece_width = lent_.ece_width.data();
  out.ece_mass = lent_.ece_mass.data();
  out.mce = lent_.mce.data();
  out.width_counts = lent_.width_counts.data();
  out.width_confidences = lent_.width_confidences.data();
  out.width_accuracies = lent_.width_accuracies.data();
  out.mass_counts = lent_.mass_counts.data();
  out.mass_confidences = lent_.mass_confidences.data();
  out.mass_accuracies = lent_.mass_accuracies.data();
  out.both_right = both_right_.data();
  out.q_statistic = lent_.q_statistic.data();
  out.correlation = lent_.correlation.data();
  out.kappa = lent_.kappa.data();
  out.double_fault = lent_.double_fault.data();
  return out;
}

}  // namespace chorus::combine
