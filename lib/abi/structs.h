// SPDX-License-Identifier: Apache-2.0
// Reading growable structs of callers that may be older than this library.
#pragma once
#include <algorithm>
#include <cstring>
#include <optional>

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

// A caller's struct as this version knows it: itself when the caller knew all its fields, else a copy as read_struct() makes.
// For structs that every call brings.
template <typename Struct>
class StructView {
 public:
  StructView(const Struct *from, const char *name, size_t first, size_t last) : view_(from) {
    if (from == nullptr || from->struct_size < last) view_ = &copy_.emplace(read_struct(from, name, first));
  }
  StructView(const StructView &) = delete;
  StructView &operator=(const StructView &) = delete;
  const Struct &operator*() const { return *view_; }

 private:
  const Struct *view_;
  std::optional<Struct> copy_;
};

}  // namespace chorus::abi
