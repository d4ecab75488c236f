// SPDX-License-Identifier: Apache-2.0
// Rows as distributions: their softmax statistics, and the divergence of each input's row from the base's. f64, sums by
// docs/numerics.md, "Reductions". Cost: one exp per element and pass, and one log for the divergence.
#include <cmath>
#include <limits>

#include "reference/merge_reduce.h"

namespace chorus::reference {
namespace {

// Row g of input i, or of the base when i is n_inputs.
struct Row {
  const Operands &operands;
  int32_t i;
  const void *data;
  uint64_t first;
  double operator[](int64_t j) const {
    const uint64_t at = first + static_cast<uint64_t>(j);
    return i == operands.n_inputs ? operands.base(data, at) : operands.x(i, data, at);
  }
};

struct Softmax {
  double max, sum;
  double of(double x) const { return std::exp(x - max) / sum; }
};

Softmax softmax_of(const Row &row, int64_t columns) {
  double max = -std::numeric_limits<double>::infinity();
  for (int64_t j = 0; j < columns; ++j) max = row[j] > max ? row[j] : max;
  return {max, sum_in_order<double>(columns, [&](int64_t j) { return std::exp(row[j] - max); })};
}

// KL(softmax(a) || softmax(b)), epsilon added to both probabilities.
double divergence(const Row &a, const Softmax &of_a, const Row &b, const Softmax &of_b, double epsilon, int64_t columns) {
  return sum_in_order<double>(columns, [&](int64_t j) {
    const double p = of_a.of(a[j]) + epsilon, q = of_b.of(b[j]) + epsilon;
    return p * std::log(p / q);
  });
}

}  // namespace

void reduce_softmax(const ReduceState &state, const chorus_merge_reduce_args &args) {
  const int32_t n = state.desc.n_inputs;
  const auto columns = static_cast<int64_t>(args.columns);
  const Groups groups = groups_of(CHORUS_PER_ROW, args);
  auto *out = static_cast<double *>(args.statistic);
  for (uint64_t g = 0; g < groups.count; ++g) {
    const auto row = [&](int32_t i) {
      return Row{state.operands, i, i == n ? args.base : args.inputs[i], groups.at(g, 0)};
    };
    const auto softmax = [&](int32_t i) {
      const double *given = args.row_softmax + 2 * (g * static_cast<uint64_t>(n + 1) + static_cast<uint64_t>(i));
      return Softmax{given[0], given[1]};
    };
    for (int32_t i = 0; i <= n; ++i) {
      const bool absent = row(i).data == nullptr;
      if (state.desc.statistic == CHORUS_STATISTIC_ROW_SOFTMAX) {
        const Softmax made = absent ? Softmax{0.0, 0.0} : softmax_of(row(i), columns);
        *out++ = made.max;
        *out++ = made.sum;
      } else if (i < n) {
        *out++ = absent ? 0.0 : divergence(row(i), softmax(i), row(n), softmax(n), state.desc.epsilon, columns);
      }
    }
  }
}

}  // namespace chorus::reference
