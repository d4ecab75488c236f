// SPDX-License-Identifier: Apache-2.0
// Rows times int8 or int4 expert weights. The operands of a row become 16-bit integers with one factor per block of up to
// 128 depths (error 2^-16 of the block's largest, below that of bf16 operands), so that products and sums of a block are
// exact integers, two depths to an instruction; then times operand factor and weight scale in f32, block by block in order.
// Cost: int8 reads half, int4 a quarter of bf16's bytes, and 4 resp. 2 instructions per 16 weights keep pace with memory.
#include <cmath>
#include <cstring>

#include "cpu/experts.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/experts_integer.cpp"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "cpu/hwy_compat.h"
HWY_BEFORE_NAMESPACE();
namespace chorus::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr int64_t kRows = 4;  // of a tile

struct TileArgs {
  const PackedMatrix *m;
  const char *strip;
  const float *scales;
  const float *const *rows;
  float *out;
  int64_t out_stride;

  const int16_t *integers(int64_t r) const { return reinterpret_cast<const int16_t *>(rows[r] + integer_factors(*m)); }
  int64_t block_end(int64_t begin) const { return HWY_MIN(begin + m->block, round_up(m->depth, m->unit)); }
};

#if HWY_TARGET == HWY_SCALAR

// ---- Without vectors: the same integers ----

struct Int8Weights {
  static constexpr int64_t kUnit = 2;
  static int32_t at(const char *cell, int64_t column, int64_t u) {
    return reinterpret_cast<const int8_t *>(cell)[column * kUnit + u];
  }
};
struct Int4Weights {
  static constexpr int64_t kUnit = 8;
  static int32_t at(const char *cell, int64_t column, int64_t u) {
    const auto nibble = static_cast<int32_t>(reinterpret_cast<const uint32_t *>(cell)[column] >> (u % 2 * 16 + u / 2 * 4) & 15u);
    return nibble < 8 ? nibble : nibble - 16;
  }
};

template <class Weights, int kTile>
void tile(const TileArgs &a) {
  for (int64_t r = 0; r < kTile; ++r) {
    const int16_t *x = a.integers(r);
    float *out = a.out + r * a.out_stride;
    for (int64_t begin = 0, b = 0; begin < a.m->depth; begin += a.m->block, ++b) {
      const float *scales = a.scales + begin / a.m->group * kStrip;
      for (int64_t c = 0; c < kStrip; ++c) {
        int32_t sum = 0;
        for (int64_t k = begin; k < a.block_end(begin); ++k)
          sum += Weights::at(a.strip + k / Weights::kUnit * a.m->cell_bytes(), c, k % Weights::kUnit) * x[k];
        const float product = static_cast<float>(sum) * (a.rows[r][b] * scales[c]);
        out[c] = b == 0 ? product : out[c] + product;
      }
    }
  }
}

void quantise(const PackedMatrix &m, const float *row, float *out) {
  auto *integers = reinterpret_cast<int16_t *>(out + integer_factors(m));
  std::memset(integers, 0, static_cast<size_t>(m.depth_padded) * sizeof(int16_t));
  for (int64_t begin = 0, b = 0; begin < m.depth; begin += m.block, ++b) {
    const int64_t end = HWY_MIN(begin + m.block, m.depth);
    float largest = 0;
    for (int64_t i = begin; i < end; ++i) largest = std::fabs(row[i]) <= largest ? largest : std::fabs(row[i]);
    out[b] = largest / 32767.0f;
    if (!(largest < INFINITY)) out[b] = NAN;
    if (!(largest > 0) || !(largest < INFINITY)) continue;
    const float inverse = 32767.0f / largest;
    for (int64_t i = begin; i < end; ++i)
      integers[i] = static_cast<int16_t>(HWY_MIN(HWY_MAX(std::nearbyint(row[i] * inverse), -32767.0f), 32767.0f));
  }
}

#else

using DF = hn::CappedTag<float, kStrip>;
using D32 = hn::RebindToSigned<DF>;
using D16 = hn::Repartition<int16_t, D32>;
using V16 = hn::Vec<D16>;
constexpr int kVectors = static_cast<int>(kStrip / hn::MaxLanes(DF()));

// Pair `p` of a cell's depths for the columns of vector v, widened: 16-bit lanes of a column beside each other.
struct Int8Weights {
  static constexpr int kUnit = 2;
  struct Cell {
    const char *at;
  };
  static Cell load(const char *cell, int v) { return {cell + v * static_cast<int>(hn::Lanes(D16()))}; }
  template <int kPair>
  static V16 pair(const Cell &cell) {
    return hn::PromoteTo(D16(), hn::Load(hn::Rebind<int8_t, D16>(), reinterpret_cast<const int8_t *>(cell.at)));
  }
};
struct Int4Weights {
  static constexpr int kUnit = 8;
  using Cell = V16;
  static Cell load(const char *cell, int v) {
    return hn::Load(D16(), reinterpret_cast<const int16_t *>(cell) + v * static_cast<int>(hn::Lanes(D16())));
  }
  template <int kPair>
  static V16 pair(const Cell &cell) {
    if constexpr (kPair == 3) return hn::ShiftRight<12>(cell);
    return hn::ShiftRight<12>(hn::ShiftLeft<HWY_MAX(12 - 4 * kPair, 0)>(cell));
  }
};

// sums += weights times the operands of depths k + 2 kPair and the next, of all rows.
template <class Weights, int kPair, int kTile>
HWY_INLINE void add_pair(const typename Weights::Cell (&cells)[kVectors], const int16_t *const (&x)[kTile], int64_t k,
                         hn::Vec<D32> (&sums)[kTile][kVectors]) {
  V16 weights[kVectors];
#pragma GCC unroll 16
  for (int v = 0; v < kVectors; ++v) weights[v] = Weights::template pair<kPair>(cells[v]);
#pragma GCC unroll 4
  for (int r = 0; r < kTile; ++r) {
    int32_t both;
    std::memcpy(&both, x[r] + k + 2 * kPair, sizeof both);
    const V16 operands = hn::BitCast(D16(), hn::Set(D32(), both));
    auto none = hn::Zero(D32());
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v)  // on x86 pmaddwd: neighbouring products into the first sum
      sums[r][v] = hn::ReorderWidenMulAccumulate(D32(), weights[v], operands, sums[r][v], none);
  }
}

template <class Weights, int kTile>
void tile(const TileArgs &a) {
  const DF d;
  constexpr int kLanes = static_cast<int>(hn::MaxLanes(DF()));
  const int16_t *x[kTile];
#pragma GCC unroll 4
  for (int r = 0; r < kTile; ++r) x[r] = a.integers(r);
  const char *at = a.strip;
  const int64_t step = a.m->cell_bytes();
  for (int64_t begin = 0, b = 0; begin < a.m->depth; begin += a.m->block, ++b) {
    hn::Vec<D32> sums[kTile][kVectors];
#pragma GCC unroll 4
    for (int r = 0; r < kTile; ++r) {
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) sums[r][v] = hn::Zero(D32());
    }
    const int64_t end = a.block_end(begin);
    for (int64_t k = begin; k < end; k += Weights::kUnit, at += step) {
      typename Weights::Cell cells[kVectors];
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) cells[v] = Weights::load(at, v);
      add_pair<Weights, 0, kTile>(cells, x, k, sums);
      if constexpr (Weights::kUnit == 8) {
        add_pair<Weights, 1, kTile>(cells, x, k, sums);
        add_pair<Weights, 2, kTile>(cells, x, k, sums);
        add_pair<Weights, 3, kTile>(cells, x, k, sums);
      }
    }
    const float *scales = a.scales + begin / a.m->group * kStrip;
#pragma GCC unroll 4
    for (int r = 0; r < kTile; ++r) {
      float *out = a.out + r * a.out_stride;
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v, out += kLanes) {
        const auto factor = hn::Mul(hn::Set(d, a.rows[r][b]), hn::LoadU(d, scales + v * kLanes));
        const auto sum = hn::Mul(hn::ConvertTo(d, sums[r][v]), factor);
        hn::StoreU(b == 0 ? sum : hn::Add(hn::LoadU(d, out), sum), d, out);
      }
    }
  }
}

void quantise(const PackedMatrix &m, const float *row, float *out) {
  const DF d;
  const D32 di;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  auto *integers = reinterpret_cast<int16_t *>(out + integer_factors(m));
  for (int64_t begin = 0, b = 0; begin < m.depth; begin += m.block, ++b) {  // blocks are multiples of 8, rows of 32
    const int64_t end = HWY_MIN(begin + m.block, m.depth_padded);
    int32_t bits = 0;  // magnitudes compare as integers; NaN above infinity
    HWY_ALIGN int32_t each[hn::MaxLanes(di)];
    auto most = hn::Zero(di);
    int64_t i = begin;
    for (; i + lanes <= end; i += lanes) most = hn::Max(most, hn::BitCast(di, hn::Abs(hn::LoadU(d, row + i))));
    hn::Store(most, di, each);
    for (int64_t j = 0; j < lanes; ++j) bits = HWY_MAX(bits, each[j]);
    for (; i < end; ++i) bits = HWY_MAX(bits, std::bit_cast<int32_t>(std::fabs(row[i])));
    const float largest = std::bit_cast<float>(bits);
    const bool is_finite = bits < 0x7f800000;
    out[b] = is_finite ? largest / 32767.0f : NAN;
    const float inverse = is_finite && bits > 0 ? 32767.0f / largest : 0.0f;
    const bool usable = is_finite && inverse < INFINITY;
    for (i = begin; i < end; ++i) {
      const float scaled = usable ? row[i] * inverse : 0.0f;
      integers[i] = static_cast<int16_t>(HWY_MIN(HWY_MAX(std::nearbyint(scaled), -32767.0f), 32767.0f));
    }
  }
}

#endif  // HWY_TARGET

// ---- All rows, all strips ----

template <class Weights>
void tile_of(int64_t rows, const TileArgs &a) {
  switch (rows) {
    case 1: return tile<Weights, 1>(a);
    case 2: return tile<Weights, 2>(a);
    case 3: return tile<Weights, 3>(a);
    default: return tile<Weights, 4>(a);
  }
}

template <class Weights>
void multiply(const PackedMatrix &m, int64_t expert, int64_t first_strip, int64_t n_strips, const float *const *rows,
              int64_t n_rows, float *out, int64_t out_stride) {
  const int64_t tiles = (n_rows + kRows - 1) / kRows;
  for (int64_t s = 0; s < n_strips; ++s) {
    for (int64_t t = 0; t < tiles; ++t) {
      const int64_t row = t * n_rows / tiles, count = (t + 1) * n_rows / tiles - row;
      tile_of<Weights>(count, {&m, m.strip(expert, first_strip + s), m.strip_scales(expert, first_strip + s), rows + row,
                               out + row * out_stride + s * kStrip, out_stride});
    }
  }
}

void multiply_int8(const PackedMatrix &m, int64_t expert, int64_t first_strip, int64_t n_strips, const float *const *rows,
                   int64_t n_rows, float *out, int64_t out_stride, const char *) {
  multiply<Int8Weights>(m, expert, first_strip, n_strips, rows, n_rows, out, out_stride);
}
void multiply_int4(const PackedMatrix &m, int64_t expert, int64_t first_strip, int64_t n_strips, const float *const *rows,
                   int64_t n_rows, float *out, int64_t out_stride, const char *) {
  multiply<Int4Weights>(m, expert, first_strip, n_strips, rows, n_rows, out, out_stride);
}

}  // namespace HWY_NAMESPACE
}  // namespace chorus::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace chorus::cpu {
HWY_EXPORT(multiply_int8);
HWY_EXPORT(multiply_int4);
HWY_EXPORT(quantise);

MultiplyFn pick_multiply_integers(const chorus_plugin_device *device, chorus_dtype weights_dtype) {
  return weights_dtype == CHORUS_I8 ? CHORUS_CPU_PICK(device, multiply_int8) : CHORUS_CPU_PICK(device, multiply_int4);
}
QuantiseFn pick_quantise(const chorus_plugin_device *device) { return CHORUS_CPU_PICK(device, quantise); }
}  // namespace chorus::cpu
#endif
