// SPDX-License-Identifier: Apache-2.0
// What the tests of routing share: matrices with memory of their own, a context without plugins, routers from a few words.
#pragma once
#include <criterion/criterion.h>

#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "chorus/chorus.hpp"
#include "unit/outcome.h"
#include "unit/support.h"

namespace unit {

template <typename T>
struct DtypeOf;
template <>
struct DtypeOf<float> {
  static constexpr chorus_dtype value = CHORUS_F32;
};
template <>
struct DtypeOf<double> {
  static constexpr chorus_dtype value = CHORUS_F64;
};
template <>
struct DtypeOf<int32_t> {
  static constexpr chorus_dtype value = CHORUS_I32;
};
template <>
struct DtypeOf<int64_t> {
  static constexpr chorus_dtype value = CHORUS_I64;
};

// A compact tensor in host memory.
template <typename T>
struct Array {
  Array(std::vector<int64_t> sizes, std::vector<T> values) : data(std::move(values)), shape(std::move(sizes)) {
    size_t count = 1;
    for (const int64_t size : shape) count *= static_cast<size_t>(size);
    data.resize(count);
    view.data = data.data();
    view.size_bytes = count * sizeof(T);
    view.device_type = CHORUS_DEVICE_HOST;
    view.dtype_code = static_cast<uint8_t>(DtypeOf<T>::value & 0xff);
    view.dtype_bits = sizeof(T) * 8;
    view.dtype_lanes = 1;
    view.ndim = static_cast<int32_t>(shape.size());
    view.shape = shape.data();
  }
  explicit Array(std::vector<int64_t> sizes) : Array(std::move(sizes), {}) {}
  Array(const Array &) = delete;
  Array &operator=(const Array &) = delete;
  const chorus_tensor *get() const { return &view; }

  std::vector<T> data;
  std::vector<int64_t> shape;
  chorus_tensor view = CHORUS_TENSOR_INIT;
};

inline const chorus::Context &plain_context() {
  static const chorus::Context kContext = [] {
    chorus::ContextSpec spec;
    spec.set_option("plugins", "none");
    return chorus::Context(spec);
  }();
  return kContext;
}

inline std::vector<double> normals(size_t count, unsigned seed) {
  std::mt19937 engine(seed);
  std::normal_distribution<double> normal;
  std::vector<double> out(count);
  for (double &x : out) x = normal(engine);
  return out;
}

}  // namespace unit
