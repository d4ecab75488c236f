// SPDX-License-Identifier: Apache-2.0
// Packed strips back to a plain matrix, and operand rows to bf16: what oneDNN multiplies (experts_gemm.h).
// Cost: one read of the packed weights and one write that stays in the cache.
#include "cpu/experts_gemm.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/experts_unpack.cpp"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "cpu/hwy_compat.h"
HWY_BEFORE_NAMESPACE();
namespace chorus::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using D = hn::CappedTag<float, kStrip>;
using U = hn::RebindToUnsigned<D>;
constexpr int64_t kLanes = static_cast<int64_t>(hn::MaxLanes(D()));

// ---- A cell: 16 columns of `unit` depths, to rows `stride` elements apart ----

void bf16_cell(const char *cell, int64_t stride, uint16_t *out) {
  const auto *pairs = reinterpret_cast<const uint32_t *>(cell);
  for (int64_t v = 0; v < kStrip; v += kLanes) {
    const auto both = hn::Load(U(), pairs + v);
    hn::StoreU(hn::TruncateTo(Half16<D>(), both), Half16<D>(), out + v);
    hn::StoreU(hn::TruncateTo(Half16<D>(), hn::ShiftRight<16>(both)), Half16<D>(), out + stride + v);
  }
}

void bf16_cell(const char *cell, int64_t stride, float *out) {
  const auto *pairs = reinterpret_cast<const uint32_t *>(cell);
  for (int64_t v = 0; v < kStrip; v += kLanes) {
    const auto both = hn::Load(U(), pairs + v);
    hn::StoreU(hn::BitCast(D(), hn::ShiftLeft<16>(both)), D(), out + v);
    hn::StoreU(hn::BitCast(D(), hn::And(both, hn::Set(U(), 0xffff0000u))), D(), out + stride + v);
  }
}

template <class T>
void plain_cell(const char *cell, float *out) {
  for (int64_t v = 0; v < kStrip; v += kLanes) hn::StoreU(load_f32(D(), reinterpret_cast<const T *>(cell) + v), D(), out + v);
}

template <class T, class Cell>
void unpack_cells(const PackedMatrix &m, int64_t expert, int64_t first_strip, int64_t n_strips, T *out, const Cell &cell) {
  const int64_t stride = n_strips * kStrip, step = m.cell_bytes();
  for (int64_t s = 0; s < n_strips; ++s) {
    const char *from = m.strip(expert, first_strip + s);
    for (int64_t k = 0; k < m.depth_padded; k += m.unit, from += step) cell(from, stride, out + k * stride + s * kStrip);
  }
}

void unpack(const PackedMatrix &m, int64_t expert, int64_t first_strip, int64_t n_strips, chorus_dtype type, void *out) {
  const auto to = [&](auto *typed, const auto &cell) { unpack_cells(m, expert, first_strip, n_strips, typed, cell); };
  auto *floats = static_cast<float *>(out);
  if (type == CHORUS_BF16)
    return to(static_cast<uint16_t *>(out), [](const char *c, int64_t stride, uint16_t *o) { bf16_cell(c, stride, o); });
  switch (m.dtype) {
    case CHORUS_BF16: return to(floats, [](const char *c, int64_t stride, float *o) { bf16_cell(c, stride, o); });
    case CHORUS_F16: return to(floats, [](const char *c, int64_t, float *o) { plain_cell<hwy::float16_t>(c, o); });
    default: return to(floats, [](const char *c, int64_t, float *o) { plain_cell<float>(c, o); });
  }
}

void narrow(const float *row, int64_t n, chorus_dtype type, void *out) {
  if (type != CHORUS_BF16) {
    std::memcpy(out, row, static_cast<size_t>(n) * sizeof *row);
    return;
  }
  for (int64_t i = 0; i < n; i += kLanes) store_f32(D(), hn::LoadU(D(), row + i), static_cast<hwy::bfloat16_t *>(out) + i);
}

}  // namespace HWY_NAMESPACE
}  // namespace chorus::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace chorus::cpu {
HWY_EXPORT(unpack);
HWY_EXPORT(narrow);
UnpackFn pick_unpack(const chorus_plugin_device *device) { return CHORUS_CPU_PICK(device, unpack); }
NarrowFn pick_narrow(const chorus_plugin_device *device) { return CHORUS_CPU_PICK(device, narrow); }
}  // namespace chorus::cpu
#endif
