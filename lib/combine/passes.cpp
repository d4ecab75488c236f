// SPDX-License-Identifier: Apache-2.0
// Joining a group to a mixture: I(all) = (W I(old) + w I(new) + W KL(old || all) + w KL(new || all)) / (W + w), the chain rule
// of mutual information over "which group, then which member".
#include "combine/passes.h"

#include <cmath>
#include <limits>

#include "chorus/plugin.hpp"
#include "combine/divergence.h"
#include "combine/parallel.h"
#include "combine/score_row.h"
#include "runtime/checked.h"
#include "runtime/error.h"
#include "runtime/tensor.h"

namespace chorus::combine {
namespace {

double entropy(const double *p, int64_t n) {
  return -plugin::sum_in_order<double>(n, [&](int64_t u) { return p_log_p(p[u], std::log(p[u])); });
}

size_t checked_size(int64_t rows, int64_t n_tokens) {
  if (rows < 0) fail(CHORUS_INVALID_ARGUMENT, "rows is {}; at least 0 is needed", rows);
  if (n_tokens < 1) fail(CHORUS_INVALID_ARGUMENT, "n_tokens is {}; at least 1 is needed", n_tokens);
  const auto elements = checked_multiply(static_cast<uint64_t>(rows), static_cast<uint64_t>(n_tokens));
  const auto bytes = elements ? checked_multiply(*elements, sizeof(double)) : std::nullopt;
  if (!bytes || *bytes > std::numeric_limits<int64_t>::max()) {
    fail(CHORUS_RESOURCE_EXHAUSTED, "{} rows of {} tokens need more memory than there can be", rows, n_tokens);
  }
  return static_cast<size_t>(*elements);
}

}  // namespace

Passes::Passes(std::shared_ptr<const Context> context, int64_t rows, int64_t n_tokens)
    : context_(std::move(context)),
      host_(find_device(context_, "reference")),
      rows_(rows),
      n_tokens_(n_tokens),
      p_(checked_size(rows, n_tokens)),
      state_(static_cast<size_t>(rows)) {}

void Passes::join(int64_t row, const double *p, double weight, double expected_entropy, double information) {
  double *mix = &p_[static_cast<size_t>(row * n_tokens_)];
  Row &state = state_[static_cast<size_t>(row)];
  const double total = weight_ + weight, old_share = weight_ / total, new_share = weight / total;
  const double gained = plugin::sum_in_order<double>(n_tokens_, [&](int64_t u) {
    const double all = old_share * mix[u] + new_share * p[u];
    if (all == 0) return 0.0;
    const double log_all = std::log(all);
    return (old_share > 0 ? old_share * excess(mix[u], all, std::log(mix[u]) - log_all) : 0.0) +
           new_share * excess(p[u], all, std::log(p[u]) - log_all);
  });
  for (int64_t u = 0; u < n_tokens_; ++u) mix[u] = old_share * mix[u] + new_share * p[u];
  state.information = old_share * state.information + new_share * information + gained;
  state.expected_entropy = old_share * state.expected_entropy + new_share * expected_entropy;
}

void Passes::add(const chorus_tensor *scores, double weight) {
  check_tensor(scores, {"scores", {CHORUS_F64, CHORUS_F32, CHORUS_F16, CHORUS_BF16}, {rows_, kAnySize}}, *host_);
  if (scores->shape[1] < n_tokens_) {
    fail(CHORUS_INVALID_ARGUMENT, "scores: rows have {} tokens; at least {} are needed", scores->shape[1], n_tokens_);
  }
  if (!std::isfinite(weight) || !(weight > 0)) {
    fail(CHORUS_INVALID_ARGUMENT, "weight is {}; finite and > 0 is needed", weight);
  }
  parallel_runs(context_->pool(), rows_, [&](int64_t first, int64_t end) {
    std::vector<double> p(static_cast<size_t>(n_tokens_));
    for (int64_t row = first; row < end; ++row) {
      const RowState state =
          normalise_row(plugin::row_of(*scores, row), plugin::dtype_of(*scores), n_tokens_, p.data(), n_tokens_);
      const bool valid = state == RowState::kRegular || state == RowState::kInfinite;
      for (double &x : p) x = valid ? std::exp(x) : std::numeric_limits<double>::quiet_NaN();
      join(row, p.data(), weight, entropy(p.data(), n_tokens_), 0);
    }
  });
  weight_ += weight;
}

void Passes::merge(const Passes &other) {
  if (rows_ != other.rows_ || n_tokens_ != other.n_tokens_) {
    fail(CHORUS_INVALID_ARGUMENT, "other has {} rows of {} tokens, this one {} of {}; they must be the same", other.rows_,
         other.n_tokens_, rows_, n_tokens_);
  }
  if (other.weight_ == 0) return;
  parallel_for(context_->pool(), rows_, [&](int64_t row) {
    const Row state = other.state_[static_cast<size_t>(row)];
    join(row, other.row_of(row), other.weight_, state.expected_entropy, state.information);
  });
  weight_ += other.weight_;
}

void Passes::get(const chorus_passes_out &out) const {
  if (weight_ == 0) fail(CHORUS_FAILED_PRECONDITION, "no pass was added yet; chorus_passes_add() adds one");
  if (out.log_probs != nullptr) {
    check_tensor(out.log_probs, {"log_probs", {CHORUS_F32, CHORUS_F64}, {rows_, n_tokens_}, true}, *host_);
  }
  const auto check = [&](const chorus_tensor *tensor, const char *name) {
    if (tensor != nullptr) check_tensor(tensor, {name, {CHORUS_F64}, {rows_}, true}, *host_);
  };
  check(out.entropy, "entropy");
  check(out.expected_entropy, "expected_entropy");
  check(out.mutual_information, "mutual_information");
  const chorus_tensor *outputs[] = {out.log_probs, out.entropy, out.expected_entropy, out.mutual_information};
  for (size_t a = 0; a < std::size(outputs); ++a) {
    for (size_t b = a + 1; b < std::size(outputs); ++b) {
      if (outputs[a] != nullptr && outputs[b] != nullptr) check_no_overlap(*outputs[a], "an output", *outputs[b], "another");
    }
  }
  parallel_for(context_->pool(), rows_, [&](int64_t row) {
    const double *p = row_of(row);
    const Row &state = state_[static_cast<size_t>(row)];
    for (int64_t u = 0; out.log_probs != nullptr && u < n_tokens_; ++u) {
      plugin::store_f64(plugin::dtype_of(*out.log_probs), plugin::row_of(*out.log_probs, row), u, std::log(p[u]));
    }
    if (out.entropy != nullptr) plugin::put_float(out.entropy, row, entropy(p, n_tokens_));
    plugin::put_float(out.expected_entropy, row, state.expected_entropy);
    plugin::put_float(out.mutual_information, row, state.information);
  });
}

}  // namespace chorus::combine
