// SPDX-License-Identifier: Apache-2.0
// Reading and writing the tensors of a kernel's args, which the host has already checked: strides and dtypes only.
#pragma once
#include "chorus/types.h"
#include "reference/formats.h"

namespace chorus::reference {

inline chorus_dtype dtype_of(const chorus_tensor &t) {
  return static_cast<chorus_dtype>(t.dtype_code | uint32_t{t.dtype_bits} << 8);
}

// Elements between neighbours along `axis`.
inline int64_t stride_of(const chorus_tensor &t, int axis) {
  if (t.strides != nullptr) return t.strides[axis];
  int64_t stride = 1;
  for (int i = t.ndim - 1; i > axis; --i) stride *= t.shape[i];
  return stride;
}

// First element of row `row` of a matrix.
inline void *row_of(const chorus_tensor &t, int64_t row) {
  const int64_t elements = row * stride_of(t, 0);
  return static_cast<char *>(t.data) + elements * static_cast<int64_t>(bytes_of(dtype_of(t)));
}

inline float f32_at(const chorus_tensor &t, int64_t i) { return static_cast<const float *>(t.data)[i * stride_of(t, 0)]; }

inline int64_t integer_at(chorus_dtype dtype, const void *data, int64_t index) {
  if (dtype == CHORUS_I64) return static_cast<const int64_t *>(data)[index];
  return static_cast<const int32_t *>(data)[index];
}

inline int64_t integer_at(const chorus_tensor &t, int64_t i) { return integer_at(dtype_of(t), t.data, i * stride_of(t, 0)); }

inline void put_integer(chorus_dtype dtype, void *data, int64_t index, int64_t value) {
  if (dtype == CHORUS_I64) {
    static_cast<int64_t *>(data)[index] = value;
  } else {
    static_cast<int32_t *>(data)[index] = static_cast<int32_t>(value);
  }
}

// Element i of a vector output; NULL outputs are not wanted.
inline void put_integer(const chorus_tensor *t, int64_t i, int64_t value) {
  if (t != nullptr) put_integer(dtype_of(*t), t->data, i * stride_of(*t, 0), value);
}
inline void put_float(const chorus_tensor *t, int64_t i, double value) {
  if (t != nullptr) store_f64(dtype_of(*t), t->data, i * stride_of(*t, 0), value);
}

}  // namespace chorus::reference
