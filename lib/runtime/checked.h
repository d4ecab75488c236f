// SPDX-License-Identifier: Apache-2.0
// Arithmetic on sizes that come from outside: every sum and product is checked, none wraps.
#pragma once
#include <cstdint>
#include <optional>
#include <span>

namespace chorus {

inline std::optional<uint64_t> checked_add(uint64_t a, uint64_t b) {
  uint64_t sum;
  return __builtin_add_overflow(a, b, &sum) ? std::nullopt : std::optional(sum);
}

inline std::optional<uint64_t> checked_multiply(uint64_t a, uint64_t b) {
  uint64_t product;
  return __builtin_mul_overflow(a, b, &product) ? std::nullopt : std::optional(product);
}

// Product of a shape's sizes; nothing when a size is negative or the product of the non-zero sizes overflows: a zero
// elsewhere must not hide an absurd size.
inline std::optional<uint64_t> checked_elements(std::span<const int64_t> shape) {
  uint64_t product = 1;
  bool empty = false;
  for (const int64_t size : shape) {
    if (size < 0) return std::nullopt;
    if (size == 0) {
      empty = true;
    } else if (__builtin_mul_overflow(product, static_cast<uint64_t>(size), &product)) {
      return std::nullopt;
    }
  }
  return empty ? 0 : product;
}

inline std::optional<uint64_t> round_up(uint64_t value, uint64_t multiple) {
  const auto sum = checked_add(value, multiple - 1);
  return sum ? std::optional(*sum / multiple * multiple) : std::nullopt;
}

}  // namespace chorus
