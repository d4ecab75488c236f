// SPDX-License-Identifier: Apache-2.0
// The table of element types, in the order of the Rust crate's enum (safetensors 0.8).
#include "checkpoint/storage_type.h"

#include <algorithm>
#include <iterator>

namespace chorus::checkpoint {
namespace {

// DLPack's numbers of the types that types.h has no name for.
constexpr chorus_dtype kF4 = 0x0411, kF6E2M3 = 0x060f, kF6E3M2 = 0x0610, kF8E4M3Fnuz = 0x080b, kF8E5M2Fnuz = 0x080d,
                       kC64 = 0x4005;

constexpr StorageType kTypes[] = {
    {"BOOL", CHORUS_BOOL, 0},        {"F4", kF4, 1},
    {"F6_E2M3", kF6E2M3, 2},         {"F6_E3M2", kF6E3M2, 3},
    {"U8", CHORUS_U8, 4},            {"I8", CHORUS_I8, 5},
    {"F8_E5M2", CHORUS_F8_E5M2, 6},  {"F8_E4M3", CHORUS_F8_E4M3FN, 7},
    {"F8_E8M0", CHORUS_F8_E8M0FNU, 8}, {"F8_E4M3FNUZ", kF8E4M3Fnuz, 9},
    {"F8_E5M2FNUZ", kF8E5M2Fnuz, 10}, {"I16", CHORUS_I16, 11},
    {"U16", CHORUS_U16, 12},         {"F16", CHORUS_F16, 13},
    {"BF16", CHORUS_BF16, 14},       {"I32", CHORUS_I32, 15},
    {"U32", CHORUS_U32, 16},         {"F32", CHORUS_F32, 17},
    {"C64", kC64, 18},               {"F64", CHORUS_F64, 19},
    {"I64", CHORUS_I64, 20},         {"U64", CHORUS_U64, 21},
};

template <typename Matches>
const StorageType *find(Matches matches) {
  const auto found = std::ranges::find_if(kTypes, matches);
  return found == std::end(kTypes) ? nullptr : found;
}

}  // namespace

const StorageType *storage_type(std::string_view name) {
  return find([&](const StorageType &type) { return name == type.name; });
}

const StorageType *storage_type(chorus_dtype dtype) {
  return find([&](const StorageType &type) { return dtype == type.dtype; });
}

}  // namespace chorus::checkpoint
