// SPDX-License-Identifier: Apache-2.0
// Checks that the setters of route.h share.
#pragma once
#include <initializer_list>
#include <string>

#include "runtime/dtype.h"
#include "runtime/error.h"

namespace chorus::abi {

inline void check_dtype(const char *name, chorus_dtype dtype, std::initializer_list<chorus_dtype> allowed) {
  std::string known;
  for (const chorus_dtype one : allowed) {
    if (one == dtype) return;
    known += (known.empty() ? "" : ", ") + std::string(dtype_name(one));
  }
  fail(is_known_dtype(dtype) ? CHORUS_UNIMPLEMENTED : CHORUS_INVALID_ARGUMENT, "{} is {}; supported: {}", name,
       describe_dtype(dtype), known);
}

inline void check_constant(const char *name, int32_t value, int32_t last) {
  if (value < 0 || value > last) fail(CHORUS_INVALID_ARGUMENT, "{} is {}; 0 to {} are known", name, value, last);
}

inline void check_maximum(const char *name, int64_t value) {
  if (value < 1 || value > INT32_MAX) fail(CHORUS_INVALID_ARGUMENT, "{} is {}; 1 to 2^31 - 1 are allowed", name, value);
}

}  // namespace chorus::abi
