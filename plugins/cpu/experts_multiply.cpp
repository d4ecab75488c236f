// SPDX-License-Identifier: Apache-2.0
// Rows times packed expert weights, 1 row to hundreds: weights widen in registers, products add into f32 by fused
// multiply-add, each output's sum in the order of the depths whatever the tile, so a row's bits do not depend on the others.
// Cost: for few rows the weights are read once from memory and that is the time; for many it is 2 flops per weight and
// row at the rate of the FMA units: 12 sums in registers (24 with AVX-512), depths in blocks whose weights stay in L1.
#include <type_traits>

#include "cpu/experts.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/experts_multiply.cpp"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "cpu/hwy_compat.h"
HWY_BEFORE_NAMESPACE();
namespace chorus::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using D = hn::CappedTag<float, kStrip>;
using V = hn::Vec<D>;

constexpr int kVectors = static_cast<int>(kStrip / hn::MaxLanes(D()));  // of a strip
constexpr int kSums = hn::MaxLanes(D()) >= 16 ? 24 : 12;  // registers for sums: of 32, of 16
constexpr int kWideRows = HWY_MAX(1, kSums / (2 * kVectors) - (kVectors > 1 ? 1 : 0));  // over two strips
constexpr int kTallRows = HWY_MAX(1, kSums / kVectors);        // over one
constexpr int64_t kWidenedDepths = 256;  // depths whose widened weights (of a strip) and rows (of a tile) fit L1
constexpr int64_t kDirectDepths = 512;   // depths whose weights do
constexpr int64_t kDirectTiles = 4;      // up to so many tiles widen the weights themselves
constexpr int64_t kWidenedStep = kStrip * static_cast<int64_t>(sizeof(float));
constexpr int64_t kRowBlock = 96;     // rows whose block of depths fits L2

// ---- Weights of one depth, widened: vector v of the strip at `cell` ----

struct F32Weights {
  static constexpr int kUnit = 1;
  static V load(const char *cell, int, int v) {
    return hn::Load(D(), reinterpret_cast<const float *>(cell) + v * static_cast<int>(hn::Lanes(D())));
  }
};

// The odd number of each pair, as f32 bits. AVX2: the mask stays in memory, in a register it would displace a sum.
template <class U>
HWY_INLINE U odd_of(U pairs) {
#if HWY_TARGET == HWY_AVX2 && HWY_COMPILER_GCC
  alignas(32) static const uint32_t kMask[8] = {0xffff0000u, 0xffff0000u, 0xffff0000u, 0xffff0000u,
                                                0xffff0000u, 0xffff0000u, 0xffff0000u, 0xffff0000u};
  asm("vpand %1, %0, %0" : "+x"(pairs.raw) : "m"(kMask));
  return pairs;
#else
  return hn::And(pairs, hn::Set(hn::DFromV<U>(), 0xffff0000u));
#endif
}

struct Bf16Weights {
  static constexpr int kUnit = 2;
  static V load(const char *cell, int depth, int v) {
    const hn::RebindToUnsigned<D> du;
    const auto pairs = hn::Load(du, reinterpret_cast<const uint32_t *>(cell) + v * static_cast<int>(hn::Lanes(du)));
    return hn::BitCast(D(), depth == 0 ? hn::ShiftLeft<16>(pairs) : odd_of(pairs));
  }
};

struct F16Weights {
  static constexpr int kUnit = 1;
  static V load(const char *cell, int, int v) {
    return load_f32(D(), reinterpret_cast<const hwy::float16_t *>(cell) + v * static_cast<int>(hn::Lanes(D())));
  }
};

// *x in every lane, and sum += weight * x. GCC 12 reorders both until the sums of a tile no longer fit sixteen registers;
// volatile instructions stay where they are.
#if HWY_TARGET == HWY_AVX2 && HWY_COMPILER_GCC
HWY_INLINE V broadcast(const float *x) {
  V lanes;
  asm volatile("vbroadcastss %1, %0" : "=x"(lanes.raw) : "m"(*x));
  return lanes;
}
HWY_INLINE void add_product(V &sum, V weight, V x) {
  asm volatile("vfmadd231ps %2, %1, %0" : "+x"(sum.raw) : "x"(weight.raw), "x"(x.raw));
}
#else
HWY_INLINE V broadcast(const float *x) { return hn::Set(D(), *x); }
HWY_INLINE void add_product(V &sum, V weight, V x) { sum = hn::MulAdd(weight, x, sum); }
#endif

// ---- A tile: kRows rows times kStrips strips, depths [begin, end) ----

struct TileArgs {
  const float *const *rows;
  const char *strips[2];  // at their first depth
  int64_t step_bytes;
  int64_t depths;      // a multiple of the unit
  int64_t first;       // depth of the rows' first operand; above 0 the sums go on from `out`
  const char *ahead;   // weights to bring into L2 meanwhile, or NULL
  int64_t ahead_step;  // bytes of them per cell
  float *out;
  int64_t out_stride;
};

template <class Weights, int kRows, int kStrips>
HWY_INLINE void tile(const TileArgs &a) {
  const D d;
  constexpr int kLanes = static_cast<int>(hn::MaxLanes(D()));
  constexpr int kAcross = kStrips * kVectors;
  V sums[kRows][kAcross];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
    for (int v = 0; v < kAcross; ++v)
      sums[r][v] = a.first == 0 ? hn::Zero(d) : hn::LoadU(d, a.out + r * a.out_stride + v * kLanes);
  }
  const float *rows[kRows];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) rows[r] = a.rows[r] + a.first;
  const char *cells[2] = {a.strips[0], a.strips[1]};
  const char *ahead = a.ahead;
  for (int64_t k = 0; k < a.depths; k += Weights::kUnit) {
    if (ahead != nullptr) __builtin_prefetch(ahead += a.ahead_step, 0, 2);
#pragma GCC unroll 2
    for (int u = 0; u < Weights::kUnit; ++u) {
      // The odd depths load their pairs again: kept, they would push sums out of the registers.
      if (u > 0) asm("" : "+r"(cells[0]), "+r"(cells[1]));
      V weights[kAcross];
#pragma GCC unroll 16
      for (int v = 0; v < kAcross; ++v) weights[v] = Weights::load(cells[v / kVectors], u, v % kVectors);
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        const V x = broadcast(rows[r] + k + u);
#pragma GCC unroll 16
        for (int v = 0; v < kAcross; ++v) add_product(sums[r][v], weights[v], x);
      }
    }
    cells[0] += a.step_bytes;
    cells[1] += a.step_bytes;
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
    for (int v = 0; v < kAcross; ++v) hn::StoreU(sums[r][v], d, a.out + r * a.out_stride + v * kLanes);
  }
}

// The tile of `rows` rows, 1 to kMost.
template <class Weights, int kMost, int kStrips>
void tile_of(int64_t rows, const TileArgs &a) {
  if constexpr (kMost > 1) {
    if (rows < kMost) return tile_of<Weights, kMost - 1, kStrips>(rows, a);
  }
  tile<Weights, kMost, kStrips>(a);
}

// ---- All rows, all strips ----

// One tile's rows: the weights widen on their way from memory into the sums.
template <class Weights>
void multiply_few(const PackedMatrix &m, int64_t expert, int64_t first_strip, int64_t n_strips, const float *const *rows,
                  int64_t n_rows, float *out, int64_t out_stride) {
  const int64_t depth = round_up(m.depth, Weights::kUnit);
  const auto args = [&](int64_t s, int64_t next) {
    return TileArgs{rows,  {m.strip(expert, first_strip + s), m.strip(expert, first_strip + next)},
                    m.cell_bytes(), depth, 0, nullptr, 0, out + s * kStrip, out_stride};
  };
  int64_t s = 0;
  if (n_rows <= kWideRows) {
    for (; s + 2 <= n_strips; s += 2) tile_of<Weights, kWideRows, 2>(n_rows, args(s, s + 1));
  }
  for (; s < n_strips; ++s) tile_of<Weights, kTallRows, 1>(n_rows, args(s, s));
}

// `depths` depths of a strip from `cell` on, as f32.
template <class Weights>
void widen(const char *cell, int64_t step_bytes, int64_t depths, float *out) {
  constexpr int kLanes = static_cast<int>(hn::MaxLanes(D()));
  for (int64_t k = 0; k < depths; k += Weights::kUnit, cell += step_bytes) {
    for (int u = 0; u < Weights::kUnit; ++u, out += kStrip) {
      for (int v = 0; v < kVectors; ++v) hn::Store(Weights::load(cell, u, v), D(), out + v * kLanes);
    }
  }
}

// More rows than a tile's: blocks of depths, whose weights serve all tiles from L1. Beyond a few tiles it pays to widen
// them once per block rather than in each. While the tiles compute, the weights of the next block come from memory.
template <class Weights, bool kWiden>
void multiply_many(const PackedMatrix &m, int64_t expert, int64_t first_strip, int64_t n_strips, const float *const *rows,
                   int64_t n_rows, float *out, int64_t out_stride, const char *then) {
  constexpr int kRows = kVectors > 1 ? kTallRows : kWideRows, kAtOnce = kVectors > 1 ? 1 : 2;
  constexpr int64_t kBlock = kWiden ? kWidenedDepths : kDirectDepths;
  alignas(64) float widened[kAtOnce][kWiden ? kBlock * kStrip : 1];
  const int64_t depth = round_up(m.depth, Weights::kUnit), step = m.cell_bytes() / m.unit;  // bytes per depth
  for (int64_t begin = 0; begin < depth; begin += kBlock) {
    const int64_t depths = HWY_MIN(kBlock, depth - begin);
    for (int64_t s = 0; s < n_strips; s += kAtOnce) {
      const int64_t at_once = HWY_MIN(static_cast<int64_t>(kAtOnce), n_strips - s);
      const auto block = [&](int64_t strip, int64_t from) { return m.strip(expert, first_strip + strip) + from * step; };
      const char *weights[2] = {block(s, begin), block(s + at_once - 1, begin)};
      if constexpr (kWiden) {
        for (int64_t i = 0; i < at_once; ++i) {
          widen<Weights>(weights[i], m.cell_bytes(), depths, widened[i]);
          weights[i] = reinterpret_cast<const char *>(widened[i]);
        }
      }
      const char *ahead = s + kAtOnce < n_strips     ? block(s + kAtOnce, begin)
                          : begin + kBlock < depth ? block(0, begin + kBlock)
                                                      : then;
      const int64_t tiles = (n_rows + kRows - 1) / kRows;
      for (int64_t t = 0; t < tiles; ++t) {  // rows shared out evenly: a tile of few rows waits for its own sums
        const int64_t row = t * n_rows / tiles, count = (t + 1) * n_rows / tiles - row;
        using Tile = std::conditional_t<kWiden, F32Weights, Weights>;
        TileArgs args = {rows + row, {weights[0], weights[1]}, kWiden ? kWidenedStep : m.cell_bytes(), depths, begin,
                         nullptr, 0, out + row * out_stride + s * kStrip, out_stride};
        if (ahead != nullptr) {
          args.ahead_step = step * Tile::kUnit / tiles;
          args.ahead = ahead + t * (depths / Tile::kUnit) * args.ahead_step;
        }
        if (at_once == 2)
          tile_of<Tile, kRows, 2>(count, args);
        else
          tile_of<Tile, kRows, 1>(count, args);
      }
    }
  }
}

template <class Weights>
void multiply(const PackedMatrix &m, int64_t expert, int64_t first_strip, int64_t n_strips, const float *const *rows,
              int64_t n_rows, float *out, int64_t out_stride, const char *then) {
  if (n_rows <= kTallRows) return multiply_few<Weights>(m, expert, first_strip, n_strips, rows, n_rows, out, out_stride);
  for (int64_t top = 0; top < n_rows; top += kRowBlock) {
    const int64_t count = HWY_MIN(kRowBlock, n_rows - top);
    const auto many = std::is_same_v<Weights, F32Weights> || count <= kDirectTiles * kTallRows
                          ? multiply_many<Weights, false>
                          : multiply_many<Weights, true>;
    many(m, expert, first_strip, n_strips, rows + top, count, out + top * out_stride, out_stride, then);
  }
}

void multiply_f32(const PackedMatrix &m, int64_t expert, int64_t first_strip, int64_t n_strips, const float *const *rows,
                  int64_t n_rows, float *out, int64_t out_stride, const char *then) {
  multiply<F32Weights>(m, expert, first_strip, n_strips, rows, n_rows, out, out_stride, then);
}
void multiply_bf16(const PackedMatrix &m, int64_t expert, int64_t first_strip, int64_t n_strips, const float *const *rows,
                   int64_t n_rows, float *out, int64_t out_stride, const char *then) {
  multiply<Bf16Weights>(m, expert, first_strip, n_strips, rows, n_rows, out, out_stride, then);
}

void multiply_f16(const PackedMatrix &m, int64_t expert, int64_t first_strip, int64_t n_strips, const float *const *rows,
                  int64_t n_rows, float *out, int64_t out_stride, const char *then) {
  multiply<F16Weights>(m, expert, first_strip, n_strips, rows, n_rows, out, out_stride, then);
}

}  // namespace HWY_NAMESPACE
}  // namespace chorus::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace chorus::cpu {
HWY_EXPORT(multiply_f32);
HWY_EXPORT(multiply_bf16);
HWY_EXPORT(multiply_f16);

MultiplyFn pick_multiply(const chorus_plugin_device *device, chorus_dtype weights_dtype) {
  switch (weights_dtype) {
    case CHORUS_F32: return CHORUS_CPU_PICK(device, multiply_f32);
    case CHORUS_F16: return CHORUS_CPU_PICK(device, multiply_f16);
    case CHORUS_BF16: return CHORUS_CPU_PICK(device, multiply_bf16);
    default: return pick_multiply_integers(device, weights_dtype);
  }
}
}  // namespace chorus::cpu
#endif
