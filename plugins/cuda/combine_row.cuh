// SPDX-License-Identifier: Apache-2.0
// One row of combine.rows on a group of blocks: scores in hand, exchanges between the blocks, and the models that count.
// docs/numerics.md, "Combining". All that blocks exchange are maxima and sums of integers, so the bytes do not depend on
// how a row falls onto threads, blocks or groups.
#pragma once
#include "cuda/combine_call.h"
#include "cuda/device_math.cuh"

namespace chorus::cuda {

inline constexpr float kLeastTemperature = 0x1p-100f;
inline constexpr float kMostCoefficient = 0x1p100f;
inline constexpr float kMostTerm = 0x1p121f;
inline constexpr float kSafeTerm = 0x1p120f;
inline constexpr int kVector = 8;  // tokens a lane takes at once

enum class Shape { kRegular, kOneHot, kInfinite, kEmpty };

// A model that counts in the row.
struct RowModel {
  const void *scores;  // the row in device memory
  const void *chunk;   // element 0 is the block's first token
  chorus_dtype dtype;
  chorus_score_kind kind;
  int64_t n_valid;
  double weight, temperature;
  Shape shape;
  float highest, lowest;  // raw
  float top_score;        // highest effective score: the log of probabilities
  int64_t top, infinite_count;
  bool has_missing, is_wild;
  float coefficient;  // of the model alone
  float present;      // effective score of the tokens of one that is not regular
  uint64_t total;     // integer weights by the key of the model alone
  bool needs_total, needs_shifted;
  double log_sum;     // log sum exp((s - top) / T)
  double log_weight;  // linear
  float constant, factor;                        // linear
  float term_shift, term_coefficient, term_missing;  // log-linear
};

enum class Keys { kPlain, kShifted, kDouble };

struct RowState {
  RowModel models[CHORUS_COMBINE_MAX_MODELS];
  uint64_t words[CHORUS_COMBINE_MAX_MODELS * kModelWords];
  uint64_t warp_sums[kCombineWarps];  // of the model or keys that a sample is drawn from
  uint64_t scan[kCombineWarps];
  uint64_t before;  // integer weight of the blocks before this one
  int32_t count, status;
  bool bad_weight, is_wild, bad_token;
  int32_t chosen;   // linear: the model a sample comes from
  int64_t argmax;
  int64_t sample;   // in the block that holds it; -1 elsewhere
  // Log-linear, of the keys in use.
  Keys keys;
  float top_key, lowest_key;
  double top_double, key_log_sum;
};

// The block's place: which tokens are its own, and the exchanges it took part in.
struct Place {
  const CombineCall &call;
  RowState &row;
  int32_t index, rank;  // of the group, in the group
  int64_t begin, end;   // own tokens
  uint32_t exchanges = 0;

  __device__ uint64_t *buffer(int32_t of_rank) const {
    const int64_t at = (int64_t{index} * 2 + exchanges % 2) * call.group + of_rank;
    return call.exchange + at * call.words;
  }
};

__device__ __forceinline__ float clamp_to(float x, float most) { return x > most ? most : x < -most ? -most : x; }

// Waits until every block of the group has come here as often as this one. The launch is cooperative: all are resident.
__device__ inline void wait_for_group(Place &place) {
  __syncthreads();
  ++place.exchanges;
  if (place.call.group == 1) return;
  if (threadIdx.x == 0) {
    uint32_t *arrivals = place.call.arrivals + place.index;
    const uint32_t target = place.exchanges * static_cast<uint32_t>(place.call.group);
    __threadfence();
    atomicAdd(arrivals, 1u);
    while (*static_cast<volatile uint32_t *>(arrivals) < target) {}
    __threadfence();
  }
  __syncthreads();
}

// Joins row.words[0, count) of the blocks: a word w is summed where is_sum(w), else its maximum is taken. With `prefixed`
// at least 0 the sums of that word over the blocks before this one go to row.before.
template <typename IsSum>
__device__ void exchange(Place &place, int count, int prefixed, const IsSum &is_sum) {
  __syncthreads();
  RowState &row = place.row;
  if (place.call.group == 1) {
    if (threadIdx.x == 0) row.before = 0;
    ++place.exchanges;
    __syncthreads();
    return;
  }
  uint64_t *own = place.buffer(place.rank);
  for (int w = threadIdx.x; w < count; w += kCombineThreads) __stcg(reinterpret_cast<unsigned long long *>(own + w), row.words[w]);
  const Place before = place;  // its buffers are those of this exchange
  wait_for_group(place);
  const int lane = threadIdx.x % 32;
  for (int w = threadIdx.x / 32; w < count; w += kCombineWarps) {
    uint64_t all = 0, earlier = 0;
    for (int r = lane; r < place.call.group; r += 32) {
      const uint64_t word = __ldcg(reinterpret_cast<const unsigned long long *>(before.buffer(r) + w));
      all = is_sum(w) ? all + word : greater(all, word);
      if (r < place.rank) earlier += word;
    }
    all = is_sum(w) ? warp_sum(all) : warp_max(all);
    if (w == prefixed) earlier = warp_sum(earlier);
    if (lane == 0) {
      row.words[w] = all;
      if (w == prefixed) row.before = earlier;
    }
  }
  __syncthreads();
}

__device__ inline void clear_words(RowState &row, int count) {
  __syncthreads();
  for (int w = threadIdx.x; w < count; w += kCombineThreads) row.words[w] = 0;
  __syncthreads();
}

__device__ __forceinline__ void max_word(RowState &row, int word, uint64_t x) {
  x = warp_max(x);
  if (threadIdx.x % 32 == 0 && x != 0) atomicMax(reinterpret_cast<unsigned long long *>(row.words + word), static_cast<unsigned long long>(x));
}
__device__ __forceinline__ uint64_t sum_word(RowState &row, int word, uint64_t x) {
  x = warp_sum(x);
  if (threadIdx.x % 32 == 0 && x != 0) atomicAdd(reinterpret_cast<unsigned long long *>(row.words + word), static_cast<unsigned long long>(x));
  return x;
}

// ---- Scores in hand ----

// `count` (at most kVector) raw scores from element i on; the rest are -inf.
__device__ __forceinline__ void load_vector(chorus_dtype dtype, const void *data, int64_t i, int64_t count, float (&out)[kVector]) {
  const uint64_t size = dtype == CHORUS_F32 ? 4 : 2;
  const char *at = static_cast<const char *>(data) + i * static_cast<int64_t>(size);
  if (count >= kVector && reinterpret_cast<uintptr_t>(at) % 16 == 0) {
    const uint4 a = *reinterpret_cast<const uint4 *>(at);
    if (dtype == CHORUS_F32) {
      const uint4 b = *reinterpret_cast<const uint4 *>(at + 16);
      const uint32_t words[kVector] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
#pragma unroll
      for (int j = 0; j < kVector; ++j) out[j] = __uint_as_float(words[j]);
      return;
    }
    const uint32_t words[4] = {a.x, a.y, a.z, a.w};
#pragma unroll
    for (int j = 0; j < kVector; ++j) {
      const uint32_t bits = words[j / 2] >> 16 * (j % 2) & 0xffffu;
      out[j] = dtype == CHORUS_BF16 ? from_bf16(bits) : from_f16(bits);
    }
    return;
  }
#pragma unroll
  for (int j = 0; j < kVector; ++j) out[j] = j < count ? load(dtype, data, i + j) : -infinity();
}

__device__ __forceinline__ float raw_score(const RowModel &m, int64_t v) { return load(m.dtype, m.scores, v); }

__device__ inline float effective_score(const RowModel &m, int64_t v) {
  if (v >= m.n_valid) return -infinity();
  switch (m.shape) {
    case Shape::kOneHot: return v == m.top ? m.present : -infinity();
    case Shape::kInfinite: return raw_score(m, v) == infinity() ? m.present : -infinity();
    case Shape::kEmpty: return -infinity();
    default: return m.kind == CHORUS_SCORES_PROBS ? chorus_exact_log(raw_score(m, v)) : raw_score(m, v);
  }
}

// Effective scores of tokens v, v + 1, … of the block, up to kVector.
__device__ __forceinline__ void effective_scores(const Place &place, const RowModel &m, int64_t v, float (&out)[kVector]) {
  load_vector(m.dtype, m.chunk, v - place.begin, m.n_valid - v, out);
  if (m.shape == Shape::kRegular) {
    if (m.kind != CHORUS_SCORES_PROBS) return;
#pragma unroll
    for (int j = 0; j < kVector; ++j) out[j] = chorus_exact_log(out[j] > 0.0f ? out[j] : 0.0f);
    return;
  }
#pragma unroll
  for (int j = 0; j < kVector; ++j) {
    const bool is_present = m.shape == Shape::kOneHot ? v + j == m.top : m.shape == Shape::kInfinite && out[j] == infinity();
    out[j] = is_present ? m.present : -infinity();
  }
}

// Calls body(v, count) for the block's tokens, kVector at a time; each warp takes a run of its own.
template <typename Body>
__device__ __forceinline__ void for_tokens(const Place &place, const Body &body) {
  const int64_t run = place.call.chunk / kCombineWarps, from = place.begin + threadIdx.x / 32 * run;
  const int64_t to = from + run < place.end ? from + run : place.end;
  for (int64_t v = from + threadIdx.x % 32 * kVector; v < to; v += 32 * kVector) body(v, to - v < kVector ? static_cast<int>(to - v) : kVector);
}

// ---- Integer weights ----

// floor(2^bits p 2^k) of a p in [1/2, 2), k at most 0, by its bits: 8 integer operations.
__device__ __forceinline__ uint64_t scaled_floor(float p, int k, int bits) {
  const uint32_t pattern = __float_as_uint(p);
  const int shift = 127 - static_cast<int>(pattern >> 23) - k;
  const uint64_t wide = static_cast<uint64_t>((pattern & 0x7fffffu) | 0x800000u) << (bits - 23);
  return shift >= 0 ? wide >> (shift < 63 ? shift : 63) : wide << 1;
}

// floor(2^bits exp(x)), x at most 0: chorus_exact_exp without its last two multiplications, which scale by a power of two
// and round only what this cuts to 0. Below -46, exp(x) 2^45 is below 1.
__device__ __forceinline__ uint64_t exp_weight(float x, int bits) {
  if (!(x >= -46.0f)) return 0;
  const float shifted = x * CHORUS_EXP_LOG2E + CHORUS_EXP_ROUND, n = shifted - CHORUS_EXP_ROUND;
  float r = x - n * CHORUS_EXP_LN2_HI;
  r = r - n * CHORUS_EXP_LN2_LO;
  float p = CHORUS_EXP_P0 * r + CHORUS_EXP_P1;
  p = p * r + CHORUS_EXP_P2;
  p = p * r + CHORUS_EXP_P3;
  p = p * r + CHORUS_EXP_P4;
  p = p * r + CHORUS_EXP_P5;
  p = p * (r * r) + r;
  p = p + 1.0f;
  return scaled_floor(p, static_cast<int>(__float_as_uint(shifted) - __float_as_uint(CHORUS_EXP_ROUND)), bits);
}

// The same to within 2^-22 (2 + |x|), relative: for sums that decide nothing.
__device__ __forceinline__ uint64_t quick_weight(float x, int bits) {
  return x >= -46.0f ? scaled_floor(__expf(x), 0, bits) : 0;
}

__device__ __forceinline__ uint64_t key_weight(float z, float top, int bits) { return z == -infinity() ? 0 : exp_weight(z - top, bits); }

__device__ __forceinline__ float own_top(const RowModel &m) { return clamp_to(m.coefficient * m.top_score, kMostTerm); }

__device__ __forceinline__ uint64_t own_weight(const RowModel &m, float s, int bits) {
  if (s == -infinity()) return 0;
  return key_weight(clamp_to(m.coefficient * s, kMostTerm), own_top(m), bits);
}

__device__ __forceinline__ double score64(const RowModel &m, float raw) {
  return m.kind == CHORUS_SCORES_PROBS ? log(static_cast<double>(raw)) : static_cast<double>(raw);
}

// log p of token v within the model before its log_sum is subtracted; -inf outside its support.
__device__ inline double own_log_term(const RowModel &m, int64_t v) {
  if (!(effective_score(m, v) > -infinity())) return -infinity64();
  if (m.shape != Shape::kRegular) return 0.0;
  return (score64(m, raw_score(m, v)) - score64(m, m.highest)) / m.temperature;
}

__device__ inline double own_log_prob(const RowModel &m, int64_t v) { return own_log_term(m, v) - m.log_sum; }

// Whether the total by the key of the model alone is exact enough for log-probs.
__device__ inline bool own_keys_are_exact(const RowModel &m) {
  return fabsf(own_top(m)) <= (m.coefficient == 1.0f ? kSafeTerm : 8.0f);
}

// The weight that log_sum adds up where no choice needs the other total, or the key is not exact enough.
__device__ inline uint64_t shifted_weight(const RowModel &m, int64_t v, float s, int bits) {
  if (s == -infinity()) return 0;
  if (m.shape != Shape::kRegular) return uint64_t{1} << bits;
  if (!m.is_wild) return quick_weight(m.coefficient != 0.0f ? m.coefficient * (s - m.top_score) : 0.0f, bits);
  return static_cast<uint64_t>(exp(own_log_term(m, v)) * static_cast<double>(chorus_exact_pow2(bits)));
}

// Totals of the models that need them; the sums of the warps for model `drawn` are kept. log_sum where `logs`.
__device__ inline void sum_models(Place &place, int drawn, bool logs) {
  RowState &row = place.row;
  const int bits = place.call.bits;
  clear_words(row, 2 * row.count);
  for (int i = 0; i < row.count; ++i) {
    const RowModel &m = row.models[i];
    if (!m.needs_total && !m.needs_shifted) continue;
    uint64_t total = 0, shifted = 0;
    for_tokens(place, [&](int64_t v, int count) {
      float s[kVector];
      effective_scores(place, m, v, s);
#pragma unroll
      for (int j = 0; j < kVector; ++j) {
        if (j >= count) continue;
        if (m.needs_total) total += own_weight(m, s[j], bits);
        if (m.needs_shifted) shifted += shifted_weight(m, v + j, s[j], bits);
      }
    });
    const uint64_t warp_total = sum_word(row, 2 * i, total);
    if (i == drawn && threadIdx.x % 32 == 0) row.warp_sums[threadIdx.x / 32] = warp_total;
    sum_word(row, 2 * i + 1, shifted);
  }
  exchange(place, 2 * row.count, drawn >= 0 ? 2 * drawn : -1, [](int) { return true; });
  for (int i = threadIdx.x; i < row.count; i += kCombineThreads) {
    RowModel &m = row.models[i];
    if (m.needs_total) m.total = row.words[2 * i];
    if (logs) m.log_sum = log(scalbn(static_cast<double>(m.needs_shifted ? row.words[2 * i + 1] : m.total), -bits));
  }
  __syncthreads();
}

// The token of this block, if it is here, at which the cumulative weight exceeds r; weight(v) as summed in warp_sums.
template <typename Weight>
__device__ void find_sample(Place &place, uint64_t r, const Weight &weight) {
  RowState &row = place.row;
  if (threadIdx.x == 0) row.sample = -1;
  __syncthreads();
  uint64_t before = row.before;
  if (r < before) return;
  int warp = 0;
  while (warp < kCombineWarps && before + row.warp_sums[warp] <= r) before += row.warp_sums[warp++];
  if (warp == kCombineWarps) return;
  const int64_t run = place.call.chunk / kCombineWarps, from = place.begin + warp * run;
  const int64_t to = from + run < place.end ? from + run : place.end;
  const int64_t each = (run + kCombineThreads - 1) / kCombineThreads, mine = from + threadIdx.x * each;
  const int64_t last = mine + each < to ? mine + each : to;
  uint64_t sum = 0;
  for (int64_t v = mine; v < last; ++v) sum += weight(v);
  // Sums of the threads before this one: within the warp, then over warps.
  const uint64_t in_warp = warp_before(sum), whole = warp_sum(sum);
  if (threadIdx.x % 32 == 0) row.scan[threadIdx.x / 32] = whole;
  __syncthreads();
  uint64_t cumulative = before + in_warp;
  for (int w = 0; w < static_cast<int>(threadIdx.x / 32); ++w) cumulative += row.scan[w];
  if (cumulative <= r && r < cumulative + sum) {
    for (int64_t v = mine; v < last; ++v) {
      cumulative += weight(v);
      if (cumulative > r) {
        row.sample = v;
        break;
      }
    }
  }
  __syncthreads();
}

}  // namespace chorus::cuda
