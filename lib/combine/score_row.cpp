// SPDX-License-Identifier: Apache-2.0
// Log-softmax of a row in f64, the maximum subtracted first.
#include "combine/score_row.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "chorus/plugin.hpp"

namespace chorus::combine {

RowState normalise_row(const void *scores, chorus_dtype dtype, int64_t n_valid, double *log_probs, int64_t n) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  double top = -kInfinity;
  bool nan = false;
  for (int64_t v = 0; v < n_valid; ++v) {
    const double z = plugin::load_f64(dtype, scores, v);
    nan |= std::isnan(z);
    top = z > top ? z : top;
    log_probs[v] = z;
  }
  std::fill(log_probs + n_valid, log_probs + n, -kInfinity);
  if (nan) {
    std::fill(log_probs, log_probs + n, std::numeric_limits<double>::quiet_NaN());
    return RowState::kNaN;
  }
  if (top == -kInfinity) return RowState::kEmpty;
  if (top == kInfinity) {
    const auto count = std::count(log_probs, log_probs + n_valid, kInfinity);
    for (int64_t v = 0; v < n_valid; ++v) {
      log_probs[v] = log_probs[v] == kInfinity ? -std::log(static_cast<double>(count)) : -kInfinity;
    }
    return RowState::kInfinite;
  }
  const double log_sum =
      std::log(plugin::sum_in_order<double>(n_valid, [&](int64_t v) { return std::exp(log_probs[v] - top); }));
  for (int64_t v = 0; v < n_valid; ++v) log_probs[v] = (log_probs[v] - top) - log_sum;
  return RowState::kRegular;
}

}  // namespace chorus::combine
