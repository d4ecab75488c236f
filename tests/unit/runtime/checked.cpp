// SPDX-License-Identifier: Apache-2.0
// Checked arithmetic against a 128-bit oracle, 10^6 random cases each near the places where it matters.
#include <criterion/criterion.h>

#include <array>

#include "chorus/exact_math.h"
#include "runtime/checked.h"

using namespace chorus;

namespace {

__extension__ typedef unsigned __int128 Wide;  // no part of ISO C++
constexpr Wide kMax = UINT64_MAX;
constexpr int kCases = 1000000;

// Numbers of every magnitude, often a power of two give or take little.
class Numbers {
 public:
  uint64_t next() {
    const uint64_t bits = word();
    const uint64_t value = word() >> (bits % 64);
    if (bits >> 60 == 0) return 0;
    return bits >> 62 == 1 ? (uint64_t{1} << (bits >> 8) % 64) + (bits >> 16) % 5 - 2 : value;
  }

 private:
  uint64_t word() {
    const uint32_t counter[4] = {n_++, 0, 0, 0}, key[2] = {20240613, 7};
    uint32_t out[4];
    chorus_philox4x32(counter, key, out);
    return uint64_t{out[0]} << 32 | out[1];
  }
  uint32_t n_ = 0;
};

bool agrees(std::optional<uint64_t> got, Wide wanted) {
  return wanted > kMax ? !got.has_value() : got.has_value() && *got == static_cast<uint64_t>(wanted);
}

// Product of the sizes with saturation far above 64 bits; the rule for zeros and negatives stated once more.
std::optional<Wide> shape_oracle(const std::array<int64_t, 8> &shape, size_t ndim) {
  Wide product = 1;
  bool empty = false;
  for (size_t i = 0; i < ndim; ++i) {
    if (shape[i] < 0) return std::nullopt;
    if (shape[i] == 0) {
      empty = true;
      continue;
    }
    product *= static_cast<Wide>(shape[i]);
    if (product > kMax) return std::nullopt;
  }
  return empty ? 0 : product;
}

}  // namespace

Test(checked, sums_products_and_rounding) {
  Numbers numbers;
  int wrong = 0, overflows = 0;
  for (int i = 0; i < kCases; ++i) {
    const uint64_t a = numbers.next(), b = numbers.next();
    wrong += !agrees(checked_add(a, b), Wide{a} + b);
    wrong += !agrees(checked_multiply(a, b), Wide{a} * b);
    overflows += Wide{a} * b > kMax;
    const uint64_t multiple = (b % 4096) + 1;
    const Wide rounded = (Wide{a} + multiple - 1) / multiple * multiple;
    if (Wide{a} + multiple - 1 <= kMax) wrong += !agrees(round_up(a, multiple), rounded);
  }
  cr_expect_eq(wrong, 0);
  cr_expect(overflows > kCases / 10 && overflows < kCases * 9 / 10, "both sides are seen: %d", overflows);
}

Test(checked, shapes) {
  Numbers numbers;
  int wrong = 0, failures = 0;
  for (int i = 0; i < kCases; ++i) {
    std::array<int64_t, 8> shape;
    const size_t ndim = static_cast<size_t>(i % 9);
    for (size_t d = 0; d < ndim; ++d) {
      // Mostly small, so that long shapes pass; sometimes any 64 bits, negative ones too.
      const uint64_t size = numbers.next();
      shape[d] = static_cast<int64_t>(size % 3 == 0 ? size : size % 200);
    }
    const auto got = checked_elements({shape.data(), ndim});
    const auto wanted = shape_oracle(shape, ndim);
    wrong += got.has_value() != wanted.has_value() || (got && *got != static_cast<uint64_t>(*wanted));
    failures += !got.has_value();
  }
  cr_expect_eq(wrong, 0);
  cr_expect(failures > kCases / 10 && failures < kCases * 9 / 10, "both sides are seen: %d", failures);
  const int64_t hidden[] = {0, INT64_MAX, 4};
  cr_expect(!checked_elements(hidden), "a zero must not hide an absurd size");
}
