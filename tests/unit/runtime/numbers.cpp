// SPDX-License-Identifier: Apache-2.0
// Philox against its published answers, conversions of 16-bit floats against the definition of rounding, names.
#include <criterion/criterion.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "chorus/exact_math.h"
#include "runtime/dtype.h"
#include "runtime/nearest.h"

using namespace chorus;

// Known answers of Random123 1.14.0, kat_vectors, "philox4x32 10".
Test(numbers, philox_known_answers) {
  const struct {
    uint32_t counter[4], key[2], out[4];
  } rows[] = {
      {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
      {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
       {0xffffffff, 0xffffffff},
       {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
      {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
       {0xa4093822, 0x299f31d0},
       {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
  };
  for (const auto &row : rows) {
    uint32_t out[4];
    chorus_philox4x32(row.counter, row.key, out);
    for (int i = 0; i < 4; ++i) cr_expect_eq(out[i], row.out[i], "%08x", out[i]);
  }
}

Test(numbers, multiply_high) {
  __extension__ typedef unsigned __int128 Wide;  // no part of ISO C++
  uint64_t a = 1, b = 88172645463325252u;
  for (int i = 0; i < 100000; ++i) {
    a = a * 6364136223846793005u + 1442695040888963407u;
    b ^= b << 13, b ^= b >> 7, b ^= b << 17;
    const auto wanted = static_cast<uint64_t>(Wide{a} * b >> 64);
    if (chorus_multiply_high(a, b) != wanted) cr_expect(false, "%lx * %lx", a, b);
  }
}

// The normal number of a word lies where the distribution function takes the word's uniform number.
Test(numbers, normal_inverts_the_distribution) {
  double worst = 0;
  for (uint64_t word = 0; word < uint64_t{1} << 32; word += 99991) {
    const double u = static_cast<double>(chorus_exact_uniform(static_cast<uint32_t>(word)));
    const double x = static_cast<double>(chorus_exact_normal(static_cast<uint32_t>(word)));
    const double density = std::exp(-x * x / 2) / std::sqrt(2 * M_PI);
    worst = std::fmax(worst, std::fabs(std::erfc(-x / std::sqrt(2.0)) / 2 - u) / density / std::fmax(std::fabs(x), 1e-3));
  }
  cr_expect_lt(worst, 1.5e-6, "relative error %g", worst);
  cr_expect_lt(chorus_exact_normal(0), -5.0f);
  cr_expect_gt(chorus_exact_normal(0xffffffffu), 5.0f);
}

namespace {

struct Format {
  const char *name;
  uint16_t infinity;
  uint16_t (*from_f32)(float);
  uint16_t (*from_f64)(double);
  float (*to_f32)(uint16_t);
  int significand_bits, smallest_exponent;  // value = m * 2^(e), by the format's definition
};

double value_by_definition(const Format &f, uint16_t bits) {
  const int fraction_bits = f.significand_bits - 1;
  const int magnitude = bits & 0x7fff, exponent = magnitude >> fraction_bits, fraction = magnitude & ((1 << fraction_bits) - 1);
  const double value = exponent == 0 ? std::ldexp(fraction, f.smallest_exponent)
                                     : std::ldexp(fraction + (1 << fraction_bits), f.smallest_exponent + exponent - 1);
  return bits & 0x8000 ? -value : value;
}

const Format kFormats[] = {
    {"f16", 0x7c00, f32_to_f16, f64_to_f16, f16_to_f32, 11, -24},
    {"bf16", 0x7f80, f32_to_bf16, f64_to_bf16, bf16_to_f32, 8, -133},
};

}  // namespace

// Every finite number, and each boundary between neighbours with what lies just below and above it.
Test(numbers, sixteen_bit_floats_round_to_nearest_even_at_every_boundary) {
  for (const Format &f : kFormats) {
    int wrong = 0;
    for (uint32_t sign : {0u, 0x8000u}) {
      for (uint32_t m = 0; m < f.infinity; ++m) {
        const auto bits = static_cast<uint16_t>(sign | m), next = static_cast<uint16_t>(bits + 1);
        const double low = value_by_definition(f, bits);
        // Past the largest number the boundary is where the next number would be.
        const double high = m + 1 == f.infinity ? 2 * low - value_by_definition(f, static_cast<uint16_t>(bits - 1))
                                                : value_by_definition(f, next);
        const double middle = (low + high) / 2;
        wrong += f.to_f32(bits) != low;
        wrong += f.from_f64(low) != bits;
        const uint16_t even = bits % 2 == 0 ? bits : next;
        wrong += f.from_f64(middle) != even;
        wrong += f.from_f64(std::nextafter(middle, low)) != bits;
        wrong += f.from_f64(std::nextafter(middle, high)) != next;
        const auto single = static_cast<float>(middle);
        if (single == middle) {
          wrong += f.from_f32(single) != even;
          wrong += f.from_f32(std::nextafter(single, static_cast<float>(low))) != bits;
          wrong += f.from_f32(std::nextafter(single, static_cast<float>(high))) != next;
        }
      }
      const float infinity = sign ? -INFINITY : INFINITY;
      wrong += f.from_f32(infinity) != (sign | f.infinity) || f.to_f32(static_cast<uint16_t>(sign | f.infinity)) != infinity;
      wrong += f.from_f64(infinity) != (sign | f.infinity) || f.from_f64(sign ? -1e300 : 1e300) != (sign | f.infinity);
      wrong += f.from_f64(sign ? -1e-300 : 1e-300) != sign;
    }
    for (const uint32_t nan : {0x7fc00000u, 0xffc00001u, 0x7f800001u, 0x7fffffffu}) {
      float value;
      std::memcpy(&value, &nan, sizeof(value));
      wrong += !std::isnan(f.to_f32(f.from_f32(value)));
    }
    wrong += !std::isnan(f.to_f32(f.from_f64(NAN)));
    cr_expect_eq(wrong, 0, "%s", f.name);
  }
}

Test(numbers, elements_are_loaded_and_stored_by_dtype) {
  alignas(8) unsigned char memory[32];
  for (const chorus_dtype dtype : {CHORUS_F64, CHORUS_F32, CHORUS_F16, CHORUS_BF16}) {
    store_f64(memory, dtype, 1, -2.5);
    cr_expect_eq(load_f64(memory, dtype, 1), -2.5, "%s", dtype_name(dtype));
    cr_expect_eq(dtype_bytes(dtype) * 8, dtype_bits(dtype));
    cr_expect(is_float(dtype));
  }
  cr_expect(!is_float(CHORUS_I32) && !is_float(CHORUS_F8_E5M2));
  cr_expect(is_known_dtype(CHORUS_F8_E8M0FNU) && !is_known_dtype(0x0463));
  cr_expect(describe_dtype(0x0463) == "an unknown dtype (code 99, 4 bits)");
}

Test(numbers, the_nearest_word) {
  const std::vector<std::string> words = {"threads", "fallback", "plugins", "cpu.max_isa"};
  const struct {
    const char *word, *wanted;
  } rows[] = {{"thread", "threads"},       {"htreads", "threads"},   {"fallbak", "fallback"}, {"plugin", "plugins"},
              {"cpu.maxisa", "cpu.max_isa"}, {"zzz", ""},            {"", ""},                {"threadsthreadsthreads", ""}};
  for (const auto &row : rows) cr_expect(nearest(row.word, words) == row.wanted, "%s", row.word);
  cr_expect_eq(edit_distance("kitten", "sitting"), 3u);
  cr_expect_eq(edit_distance("ab", "ba"), 1u, "a swap is one edit");
  cr_expect_eq(edit_distance("", "abc"), 3u);
  cr_expect(nearest(std::string(100000, 'x'), words).empty(), "a long word costs nothing");
  cr_expect(did_you_mean("zzz", words).empty());
}
