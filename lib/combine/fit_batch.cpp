// SPDX-License-Identifier: Apache-2.0
// Batches of a fit: checked, turned into rows of values in parallel, and added in order.
#include <cmath>
#include <limits>

#include "chorus/plugin.hpp"
#include "combine/fit.h"
#include "combine/parallel.h"
#include "combine/score_row.h"
#include "runtime/error.h"
#include "runtime/tensor.h"

namespace chorus::combine {
namespace {

double element(const chorus_tensor &t, int64_t row, int64_t column) {
  return plugin::load_f64(plugin::dtype_of(t), plugin::row_of(t, row), column * plugin::stride_of(t, 1));
}

double element(const chorus_tensor &t, int64_t row) {
  return plugin::load_f64(plugin::dtype_of(t), plugin::row_of(t, row), 0);
}

[[noreturn]] void fail_score(const char *what, int64_t row, size_t model, const char *found) {
  fail(CHORUS_INVALID_ARGUMENT, "{}: row {}, model {}: {}; a fit takes no such row", what, row, model, found);
}

// Log-probs of all models, f64 [N, V]. False when a model's row is empty.
bool read_row(const chorus_fit_batch &batch, size_t n, int64_t v, int64_t row, std::vector<double> *out) {
  out->resize(n * static_cast<size_t>(v));
  bool full = true;
  for (size_t i = 0; i < n; ++i) {
    const chorus_tensor &scores = *batch.scores[i];
    const RowState state =
        normalise_row(plugin::row_of(scores, row), plugin::dtype_of(scores), v, &(*out)[i * static_cast<size_t>(v)], v);
    if (state == RowState::kNaN) fail_score("scores", row, i, "a score is NaN");
    if (state == RowState::kInfinite) fail_score("scores", row, i, "a score is +inf");
    full &= state == RowState::kRegular;
  }
  return full;
}

int64_t gold_of(const chorus_fit_batch &batch, int64_t row, int64_t v) {
  const int64_t token = plugin::integer_at(*batch.tokens, row);
  if (token < 0 || token >= v) {
    fail(CHORUS_INVALID_ARGUMENT, "tokens: row {} is {}; 0 to {} are allowed", row, token, v - 1);
  }
  return token;
}

// log p_w, its gradient l_i(gold) - E[l_i], the curvature Cov(l_i, l_j), and l_i(gold) of one row over the tokens that every
// model gives probability. False when the gold token is none of them.
bool evaluate_row(const std::vector<double> &log_probs, const double *weights, size_t n, size_t v, size_t gold,
                  std::vector<double> *scratch, double *out) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  std::vector<double> &p = *scratch;
  p.assign(v, 0);
  double top = -kInfinity;
  for (size_t u = 0; u < v; ++u) {
    bool present = true;
    for (size_t i = 0; i < n; ++i) {
      const double l = log_probs[i * v + u];
      present &= l > -kInfinity;
      p[u] += weights[i] * l;  // NaN or infinite only where not present
    }
    if (!present) p[u] = -kInfinity;
    top = p[u] > top ? p[u] : top;
  }
  if (p[gold] == -kInfinity) return false;
  const double at_gold = p[gold] - top;
  const auto count = static_cast<int64_t>(v);
  for (double &x : p) x = std::exp(x - top);
  const double total = plugin::sum_in_order<double>(count, [&](int64_t u) { return p[static_cast<size_t>(u)]; });
  out[0] = at_gold - std::log(total);
  double *means = out + 1, *curvature = out + 1 + n;
  // 0 * -inf must add nothing.
  const auto term = [&](size_t i, size_t u, double mean) { return p[u] == 0 ? 0.0 : log_probs[i * v + u] - mean; };
  for (size_t i = 0; i < n; ++i) {
    means[i] = plugin::sum_in_order<double>(count, [&](int64_t u) {
                 return p[static_cast<size_t>(u)] * term(i, static_cast<size_t>(u), 0);
               }) / total;
  }
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = i; j < n; ++j) {
      curvature[triangle_index(i, j, n)] = plugin::sum_in_order<double>(count, [&](int64_t at) {
                                             const auto u = static_cast<size_t>(at);
                                             return p[u] * term(i, u, means[i]) * term(j, u, means[j]);
                                           }) / total;
    }
  }
  for (size_t i = 0; i < n; ++i) {
    const double l = log_probs[i * v + gold];
    means[i] = l - means[i];
    out[1 + n + n * (n + 1) / 2 + i] = l;
  }
  return true;
}

}  // namespace

void Fit::check(const chorus_fit_batch &batch) const {
  const auto n = static_cast<int64_t>(n_);
  if (batch.rows < 0) fail(CHORUS_INVALID_ARGUMENT, "rows is {}; at least 0 is needed", batch.rows);
  if (batch.scores != nullptr) {
    for (int64_t i = 0; i < n; ++i) {
      const std::string name = fmt::format("scores[{}]", i);
      check_tensor(batch.scores[i], {name.c_str(), {CHORUS_F64, CHORUS_F32, CHORUS_F16, CHORUS_BF16}, {batch.rows, kAnySize}},
                   *host_);
    }
    check_tensor(batch.tokens, {"tokens", {CHORUS_I32, CHORUS_I64}, {batch.rows}}, *host_);
    return;
  }
  check_tensor(batch.token_log_probs, {"token_log_probs", {CHORUS_F64, CHORUS_F32}, {batch.rows, n}}, *host_);
  if (rule_ == CHORUS_COMBINE_LINEAR) return;
  check_tensor(batch.combined_log_probs, {"combined_log_probs", {CHORUS_F64, CHORUS_F32}, {batch.rows}}, *host_);
  check_tensor(batch.gradient_sums, {"gradient_sums", {CHORUS_F64}, {batch.rows, n + n * (n + 1) / 2}}, *host_);
}

int64_t Fit::valid_tokens(const chorus_fit_batch &batch) const {
  int64_t shortest = std::numeric_limits<int64_t>::max();
  for (size_t i = 0; i < n_; ++i) shortest = std::min(shortest, batch.scores[i]->shape[1]);
  if (batch.n_valid < 0 || batch.n_valid > shortest) {
    fail(CHORUS_INVALID_ARGUMENT, "n_valid is {}; 1 to {} (the shortest row), or 0 for that, are allowed", batch.n_valid,
         shortest);
  }
  const int64_t valid = batch.n_valid == 0 ? shortest : batch.n_valid;
  if (valid < 1) fail(CHORUS_INVALID_ARGUMENT, "scores have rows of 0 tokens; at least 1 is needed");
  return valid;
}

Fit::Rows Fit::gold_rows(const chorus_fit_batch &batch) const {
  Rows out{n_, std::vector<double>(static_cast<size_t>(batch.rows) * n_), {}};
  for (int64_t row = 0; row < batch.rows; ++row) {
    for (size_t i = 0; i < n_; ++i) {
      const double l = element(*batch.token_log_probs, row, static_cast<int64_t>(i));
      if (std::isnan(l)) fail_score("token_log_probs", row, i, "NaN");
      if (l == std::numeric_limits<double>::infinity()) fail_score("token_log_probs", row, i, "+inf");
      out.values[static_cast<size_t>(row) * n_ + i] = l;
    }
  }
  return out;
}

Fit::Rows Fit::gold_rows_of_scores(const chorus_fit_batch &batch) const {
  const int64_t v = valid_tokens(batch);
  Rows out{n_, std::vector<double>(static_cast<size_t>(batch.rows) * n_), {}};
  parallel_runs(context_->pool(), batch.rows, [&](int64_t first, int64_t end) {
    std::vector<double> log_probs;
    for (int64_t row = first; row < end; ++row) {
      const auto gold = static_cast<size_t>(gold_of(batch, row, v));
      read_row(batch, n_, v, row, &log_probs);
      for (size_t i = 0; i < n_; ++i) {
        out.values[static_cast<size_t>(row) * n_ + i] = log_probs[i * static_cast<size_t>(v) + gold];
      }
    }
  });
  return out;
}

Fit::Rows Fit::gradient_rows_of_scores(const chorus_fit_batch &batch) const {
  const int64_t v = valid_tokens(batch);
  const size_t width = pass_.sums.width();
  Rows out{width, std::vector<double>(static_cast<size_t>(batch.rows) * width),
           std::vector<uint8_t>(static_cast<size_t>(batch.rows))};
  parallel_runs(context_->pool(), batch.rows, [&](int64_t first, int64_t end) {
    std::vector<double> log_probs, scratch;
    for (int64_t row = first; row < end; ++row) {
      const auto gold = static_cast<size_t>(gold_of(batch, row, v));
      const auto at = static_cast<size_t>(row);
      out.counts[at] = read_row(batch, n_, v, row, &log_probs) &&
                       evaluate_row(log_probs, point_.data(), n_, static_cast<size_t>(v), gold, &scratch, &out.values[at * width]);
    }
  });
  return out;
}

Fit::Rows Fit::gradient_rows_of_sums(const chorus_fit_batch &batch) const {
  const size_t width = pass_.sums.width(), sums = n_ + n_ * (n_ + 1) / 2;
  Rows out{width, std::vector<double>(static_cast<size_t>(batch.rows) * width),
           std::vector<uint8_t>(static_cast<size_t>(batch.rows), 1)};
  for (int64_t row = 0; row < batch.rows; ++row) {
    double *to = &out.values[static_cast<size_t>(row) * width];
    to[0] = element(*batch.combined_log_probs, row);
    for (size_t k = 0; k < sums; ++k) to[1 + k] = element(*batch.gradient_sums, row, static_cast<int64_t>(k));
    for (size_t i = 0; i < n_; ++i) {
      const double l = element(*batch.token_log_probs, row, static_cast<int64_t>(i));
      to[1 + i] = l - to[1 + i];
      to[1 + sums + i] = l;
    }
    bool finite = true;
    for (size_t k = 0; k < width; ++k) {
      if (std::isnan(to[k]) && !std::isinf(to[0]) && !std::isinf(to[1 + sums])) {
        fail(CHORUS_INVALID_ARGUMENT, "row {} has a NaN among its log-probs and gradient sums; was its status checked?", row);
      }
      finite &= std::isfinite(to[k]);
    }
    out.counts[static_cast<size_t>(row)] = finite;
  }
  return out;
}

void Fit::add(const chorus_fit_batch &batch) {
  if (done_) fail(CHORUS_FAILED_PRECONDITION, "the fit is done; a new one is needed for other data");
  check(batch);
  const bool linear = rule_ == CHORUS_COMBINE_LINEAR, scores = batch.scores != nullptr;
  if (linear) {
    add_linear(scores ? gold_rows_of_scores(batch) : gold_rows(batch), batch.held_out != 0);
  } else {
    add_log_linear(scores ? gradient_rows_of_scores(batch) : gradient_rows_of_sums(batch), batch.held_out != 0);
  }
}

void Fit::add_linear(const Rows &rows, bool held_out) {
  GoldTable &table = held_out ? held_out_gold_ : gold_;
  for (size_t at = 0; at < rows.values.size(); at += n_) table.add(&rows.values[at]);
}

void Fit::add_log_linear(const Rows &rows, bool held_out) {
  Pass &pass = held_out ? held_out_pass_ : pass_;
  for (size_t row = 0; row < rows.counts.size(); ++row) {
    if (rows.counts[row] == 0) {
      ++pass.zero_tokens;
      continue;
    }
    pass.sums.add(&rows.values[row * rows.width]);
    ++pass.tokens;
  }
}

}  // namespace chorus::combine
