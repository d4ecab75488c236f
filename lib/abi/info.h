// SPDX-License-Identifier: Apache-2.0
// Filling the growable info structs that getters write, and indexing with an error.
#pragma once
#include <algorithm>
#include <cstring>

#include "abi/boundary.h"

namespace chorus::abi {

// Copies the fields of `info` that the caller's struct has room for; its struct_size stays.
template <typename Info>
void fill_info(Info *out, const Info &info) {
  require(out, "out_info");
  const size_t size = out->struct_size;
  if (size <= sizeof(size_t)) {
    fail(CHORUS_INVALID_ARGUMENT, "out_info: struct_size is {}; initialise it with its CHORUS_…_INIT macro", size);
  }
  std::memcpy(reinterpret_cast<char *>(out) + sizeof(size_t), reinterpret_cast<const char *>(&info) + sizeof(size_t),
              std::min(size, sizeof(Info)) - sizeof(size_t));
}

template <typename List>
auto &at(const List &list, size_t index, const char *name) {
  if (index >= list.size()) fail(CHORUS_OUT_OF_RANGE, "{} is {}; there are {}", name, index, list.size());
  return list[index];
}

}  // namespace chorus::abi
