// SPDX-License-Identifier: Apache-2.0
// Reading growable structs of callers that may be older than this library.
#pragma once
#include <algorithm>
#include <cstring>

#include "abi/boundary.h"

namespace chorus::abi {

// A copy of `*from` as this version knows it: fields beyond the caller's struct_size are zero. `first` is the end of the
// first version of the struct, the least a caller may bring.
template <typename Struct>
Struct read_struct(const Struct *from, const char *name, size_t first) {
  require(from, name);
  if (from->struct_size < first) {
    fail(CHORUS_INVALID_ARGUMENT, "{}: struct_size is {}, at least {} is needed; initialise it with its CHORUS_…_INIT macro",
         name, from->struct_size, first);
  }
  Struct out = {};
  std::memcpy(&out, from, std::min(from->struct_size, sizeof(Struct)));
  return out;
}

}  // namespace chorus::abi
