// SPDX-License-Identifier: Apache-2.0
// Tensors of args as kernels take them: by value, with strides. The host has checked dtypes and extents.
#pragma once
#include "cuda/backend.h"

namespace chorus::cuda {

struct Column {  // one element per row; data NULL: not given, or not wanted
  void *data;
  int64_t stride;
};

struct Matrix {
  void *data;
  int64_t row_stride, stride, columns;
  chorus_dtype dtype;
};

inline Column column_of(const chorus_tensor *t) { return t == nullptr ? Column{nullptr, 0} : Column{t->data, stride_of(*t, 0)}; }

inline Matrix matrix_of(const chorus_tensor *t) {
  if (t == nullptr) return {};
  return {t->data, stride_of(*t, 0), stride_of(*t, 1), t->shape[1], dtype_of(*t)};
}

}  // namespace chorus::cuda
