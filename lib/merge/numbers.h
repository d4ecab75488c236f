// SPDX-License-Identifier: Apache-2.0
// A job's coefficients as the arguments of one piece's kernel run.
#pragma once
#include <vector>

#include "merge/methods/method.h"

namespace chorus::merge {

// The numbers of a piece's run that both kernels take, in the layout of plugin.h.
struct Numbers {
  std::vector<double> cuts;
  std::vector<uint64_t> ties;
};

inline Numbers numbers_of(const Coefficients &c, size_t piece) {
  Numbers out;
  if (c.selections.empty()) {
    out.cuts = c.cuts;
    return out;
  }
  const size_t n = c.selections[0].cuts.size();
  for (size_t i = 0; i < n; ++i) {
    for (const Selection &selection : c.selections) {
      if (selection.cuts.size() == n) out.cuts.push_back(selection.cuts[i]);
      if (piece < selection.ties.size()) out.ties.push_back(selection.ties[piece][i]);
    }
  }
  return out;
}

template <typename T>
const T *data_or_null(const std::vector<T> &values) { return values.empty() ? nullptr : values.data(); }

// `first_row` is that of the piece, `n` the number of inputs.
template <typename Args>
void set_numbers(const Coefficients &c, const Numbers &numbers, uint64_t first_row, size_t n, Args *args) {
  args->cuts = data_or_null(numbers.cuts);
  args->ties = data_or_null(numbers.ties);
  args->densities = data_or_null(c.densities);
  args->epsilons = data_or_null(c.epsilons);
  args->keys = data_or_null(c.keys);
  if (!c.cut_scales.empty()) args->cut_scales = c.cut_scales.data() + first_row * n;
}

}  // namespace chorus::merge
