// SPDX-License-Identifier: Apache-2.0
// Sparse rows on the processor: packed matrices whose rows are what is kept or skipped, and the vector code over them.
#pragma once
#include <algorithm>

#include "chorus/plugin_sparse.hpp"
#include "cpu/backend.h"

namespace chorus::cpu {

// Rows are padded with zeros to whole vectors of every instruction set, four at a time.
inline constexpr int64_t kSparsePadding = 64;
inline int64_t sparse_padded(int64_t columns) { return (columns + kSparsePadding - 1) / kSparsePadding * kSparsePadding; }

// A matrix by rows of the index that may be skipped: of an up-projection its rows, of a down-projection its columns.
struct SparseMatrix {
  const char *weights;  // [rows, stride] in dtype
  const float *scales, *bias;  // by output
  chorus_dtype dtype;
  int64_t rows, columns, stride;

  const char *row(int64_t i) const { return weights + static_cast<uint64_t>(i * stride) * bytes_of(dtype); }
};

// Row `i` of the matrix times x, `stride` long.
using DotFunction = float (*)(const SparseMatrix &m, int64_t i, const float *x);

// y[c] += sum over list of values[i] * row i [c], in the order of the list, for c in [begin, end), both multiples of
// kSparsePadding.
struct AddRows {
  const SparseMatrix *matrix;
  const int32_t *list;
  int32_t count;
  const float *values;  // by index
  float *y;
  int64_t begin, end;
};
using AddRowsFunction = void (*)(const AddRows &job);

DotFunction sparse_dot_for(const chorus_plugin_device *device, chorus_dtype dtype);
AddRowsFunction sparse_add_for(const chorus_plugin_device *device, chorus_dtype dtype);

}  // namespace chorus::cpu
