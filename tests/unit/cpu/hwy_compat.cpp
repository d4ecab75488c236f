// SPDX-License-Identifier: Apache-2.0
// The vector formats of the cpu backend, on every instruction set of this processor: exact widening, one rounding to
// nearest even at every boundary of f16 and bf16, NaN and infinities, tails that stop at the end.
#include <sys/mman.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include <cmath>
#include <vector>

#include "chorus/plugin.hpp"
#include "cpu/isa.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "unit/cpu/hwy_compat.cpp"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "cpu/hwy_compat.h"

HWY_BEFORE_NAMESPACE();
namespace chorus::cpu {
namespace HWY_NAMESPACE {

template <class T>
void widen_all(const uint16_t *from, float *to, size_t count) {
  const hn::ScalableTag<float> d;
  const size_t lanes = hn::Lanes(d);
  const T *elements = reinterpret_cast<const T *>(from);
  for (size_t i = 0; i + lanes <= count; i += lanes) hn::StoreU(load_f32(d, elements + i), d, to + i);
  const size_t rest = count % lanes;
  store_f32(d, load_f32(d, elements + count - rest, rest), to + count - rest, rest);
}

template <class T>
void narrow_all(const float *from, uint16_t *to, size_t count) {
  const hn::ScalableTag<float> d;
  const size_t lanes = hn::Lanes(d);
  T *elements = reinterpret_cast<T *>(to);
  for (size_t i = 0; i + lanes <= count; i += lanes) store_f32(d, hn::LoadU(d, from + i), elements + i);
  const size_t rest = count % lanes;
  store_f32(d, load_f32(d, from + count - rest, rest), elements + count - rest, rest);
}

void widen_f16(const uint16_t *from, float *to, size_t count) { widen_all<hwy::float16_t>(from, to, count); }
void widen_bf16(const uint16_t *from, float *to, size_t count) { widen_all<hwy::bfloat16_t>(from, to, count); }
void narrow_f16(const float *from, uint16_t *to, size_t count) { narrow_all<hwy::float16_t>(from, to, count); }
void narrow_bf16(const float *from, uint16_t *to, size_t count) { narrow_all<hwy::bfloat16_t>(from, to, count); }

}  // namespace HWY_NAMESPACE
}  // namespace chorus::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace chorus::cpu {
namespace {

HWY_EXPORT(widen_f16);
HWY_EXPORT(widen_bf16);
HWY_EXPORT(narrow_f16);
HWY_EXPORT(narrow_bf16);

struct Chosen {
  hwy::ChosenTarget target;
};

struct Format {
  const char *name;
  uint16_t infinity;
  float (*to_f32)(uint16_t);
  void (*widen)(const uint16_t *, float *, size_t);
  void (*narrow)(const float *, uint16_t *, size_t);
};

// Calls body(format, isa) for both formats on each instruction set of this processor.
template <typename Body>
void for_each_format(const Body &body) {
  for (int i = 0; i <= static_cast<int>(best_isa()); ++i) {
    Chosen chosen;
    choose(&chosen.target, static_cast<Isa>(i));
    body(Format{"f16", 0x7c00, plugin::f32_from_f16, CHORUS_CPU_PICK(&chosen, widen_f16), CHORUS_CPU_PICK(&chosen, narrow_f16)},
         name_of(static_cast<Isa>(i)));
    body(Format{"bf16", 0x7f80, plugin::f32_from_bf16, CHORUS_CPU_PICK(&chosen, widen_bf16),
                CHORUS_CPU_PICK(&chosen, narrow_bf16)},
         name_of(static_cast<Isa>(i)));
  }
}

Test(hwy_compat, widening_is_exact) {
  std::vector<uint16_t> bits(65536);
  for (size_t i = 0; i < bits.size(); ++i) bits[i] = static_cast<uint16_t>(i);
  std::vector<float> wide(bits.size());
  for_each_format([&](const Format &f, const char *isa) {
    f.widen(bits.data(), wide.data(), wide.size());
    int wrong = 0;
    for (const uint16_t b : bits) {
      const float want = f.to_f32(b);
      wrong += std::isnan(want) ? !std::isnan(wide[b]) : std::bit_cast<uint32_t>(want) != std::bit_cast<uint32_t>(wide[b]);
    }
    cr_expect_eq(wrong, 0, "%s on %s: %d of 65536 differ", f.name, isa, wrong);
  });
}

// Each number, the middle to the next one and the floats beside the middle: by definition, not by another implementation.
// Middles of bf16 and f16 are floats, but for bf16's subnormals' lowest bits, which are too: 2^-134 is above 2^-149.
Test(hwy_compat, narrowing_rounds_to_nearest_even) {
  for_each_format([&](const Format &f, const char *isa) {
    std::vector<float> given;
    std::vector<uint16_t> wanted;
    const auto add = [&](float x, uint32_t bits) {
      for (const uint16_t sign : {0, 0x8000}) {
        given.push_back(sign != 0 ? -x : x);
        wanted.push_back(static_cast<uint16_t>(bits | sign));
      }
    };
    for (uint32_t b = 0; b < f.infinity; ++b) {
      const float low = f.to_f32(static_cast<uint16_t>(b));
      add(low, b);
      // Past the largest number the next one would be a power of two: as if infinity were that.
      const double high = b + 1u < f.infinity ? f.to_f32(static_cast<uint16_t>(b + 1)) : 2.0 * low - f.to_f32(static_cast<uint16_t>(b - 1));
      const auto middle = static_cast<float>((low + high) / 2);
      add(middle, b % 2 == 0 ? b : b + 1);
      add(std::nextafter(middle, 0.0f), b);
      add(std::nextafter(middle, INFINITY), b + 1);
    }
    add(INFINITY, f.infinity);
    add(3.4028234e38f, f.infinity);
    std::vector<uint16_t> narrow(given.size());
    f.narrow(given.data(), narrow.data(), given.size());
    int wrong = 0;
    for (size_t i = 0; i < given.size(); ++i) wrong += narrow[i] != wanted[i];
    cr_expect_eq(wrong, 0, "%s on %s: %d of %zu differ", f.name, isa, wrong, given.size());
    for (const uint32_t nan : {0x7fc00000u, 0xffc00001u, 0x7f800001u, 0x7fffffffu}) {
      const float x = std::bit_cast<float>(nan);
      uint16_t bits;
      f.narrow(&x, &bits, 1);
      cr_expect(std::isnan(f.to_f32(bits)), "%s on %s: NaN %x becomes %x", f.name, isa, nan, bits);
    }
  });
}

// Rows that end where a page ends, the next one being unmapped: one byte too many is a fault.
Test(hwy_compat, tails_stop_at_the_end) {
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  auto *pages = static_cast<char *>(mmap(nullptr, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  cr_assert(pages != MAP_FAILED);
  cr_assert_eq(mprotect(pages + page, page, PROT_NONE), 0);
  for_each_format([&](const Format &f, const char *isa) {
    for (size_t count = 0; count <= 70; ++count) {
      auto *halves = reinterpret_cast<uint16_t *>(pages + page) - count;
      std::vector<float> wide(count + 1, -1.0f);
      for (size_t i = 0; i < count; ++i) halves[i] = static_cast<uint16_t>(0x3c00 + i);
      f.widen(halves, wide.data(), count);
      for (size_t i = 0; i < count; ++i) cr_expect_eq(wide[i], f.to_f32(halves[i]), "%s on %s", f.name, isa);
      cr_expect_eq(wide[count], -1.0f);
      std::vector<uint16_t> back(count + 1, 7);
      auto *floats = reinterpret_cast<float *>(pages + page) - count;
      std::copy(wide.begin(), wide.begin() + static_cast<std::ptrdiff_t>(count), floats);
      f.narrow(floats, back.data(), count);
      for (size_t i = 0; i < count; ++i) cr_expect_eq(back[i], 0x3c00 + i, "%s on %s", f.name, isa);
      cr_expect_eq(back[count], 7);
    }
  });
  munmap(pages, 2 * page);
}

}  // namespace
}  // namespace chorus::cpu
#endif  // HWY_ONCE
