// SPDX-License-Identifier: Apache-2.0
// Before the rules: which models of a row count, one read of their scores, and what each of them is. Cost: the only read
// of the scores from device memory where they fit shared memory.
#pragma once
#include "cuda/combine_row.cuh"

namespace chorus::cuda {

// Collects the models of nonzero weight. row.bad_weight: a weight or temperature makes no sense.
__device__ inline void collect(Place &place, int64_t index) {
  const CombineCall &call = place.call;
  RowState &row = place.row;
  __syncthreads();
  if (threadIdx.x == 0) {
    row.count = 0;
    row.status = CHORUS_ROW_OK;
    row.bad_weight = row.is_wild = row.bad_token = false;
    row.chosen = -1;
    row.argmax = row.sample = -1;
    for (int i = 0; i < call.n_models; ++i) {
      const ModelInput &from = call.models[i];
      const double weight = call.weights.data == nullptr
                                ? from.weight
                                : static_cast<const float *>(call.weights.data)[index * call.weights.row_stride + i * call.weights.stride];
      if (weight == 0.0) continue;
      double temperature = call.temperatures.data == nullptr
                               ? from.temperature
                               : static_cast<const float *>(call.temperatures.data)[i * call.temperatures.stride];
      const bool negative = weight < 0 && call.rule == CHORUS_COMBINE_LINEAR;
      if (!isfinite(weight) || negative || from.scores == nullptr || !(temperature >= 0)) row.bad_weight = true;
      if (temperature > 0 && temperature < kLeastTemperature) temperature = kLeastTemperature;
      RowModel &to = row.models[row.count++];
      const int64_t size = from.dtype == CHORUS_F32 ? 4 : 2;
      to.scores = static_cast<const char *>(from.scores) + index * from.stride * size;
      to.chunk = static_cast<const char *>(to.scores) + place.begin * size;
      to.dtype = from.dtype;
      to.kind = from.kind;
      to.n_valid = from.n_valid;
      to.weight = weight;
      to.temperature = temperature;
      to.present = 0.0f;
      to.log_sum = 0.0;
    }
    if (row.count == 0 && call.rule == CHORUS_COMBINE_LINEAR) row.bad_weight = true;
  }
  __syncthreads();
}

// Keeps the block's scores of every model in shared memory, one after the other.
__device__ inline void cache_scores(Place &place, char *cache) {
  RowState &row = place.row;
  for (int i = 0; i < row.count; ++i) {
    const RowModel &m = row.models[i];
    const int64_t size = m.dtype == CHORUS_F32 ? 4 : 2;
    const int64_t end = place.end < m.n_valid ? place.end : m.n_valid;
    const int64_t bytes = end > place.begin ? (end - place.begin) * size : 0;
    const char *from = static_cast<const char *>(m.chunk);
    if (reinterpret_cast<uintptr_t>(from) % 16 == 0) {
      const int64_t whole = bytes / 16;
      for (int64_t k = threadIdx.x; k < whole; k += kCombineThreads) reinterpret_cast<uint4 *>(cache)[k] = __ldcs(reinterpret_cast<const uint4 *>(from) + k);
      for (int64_t k = whole * 16 + threadIdx.x * 2; k < bytes; k += kCombineThreads * 2)
        *reinterpret_cast<uint16_t *>(cache + k) = *reinterpret_cast<const uint16_t *>(from + k);
    } else {
      for (int64_t k = threadIdx.x * size; k < bytes; k += kCombineThreads * size) {
        if (size == 4) {
          *reinterpret_cast<uint32_t *>(cache + k) = *reinterpret_cast<const uint32_t *>(from + k);
        } else {
          *reinterpret_cast<uint16_t *>(cache + k) = *reinterpret_cast<const uint16_t *>(from + k);
        }
      }
    }
    cache += place.call.chunk * size;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    char *at = cache;
    for (int i = row.count; i-- > 0;) {
      at -= place.call.chunk * (row.models[i].dtype == CHORUS_F32 ? 4 : 2);
      row.models[i].chunk = at;
    }
  }
  __syncthreads();
}

// Highest with its lowest id, lowest, lowest above -inf; and how many are NaN (or negative probabilities) and +inf.
__device__ inline void scan_scores(Place &place) {
  RowState &row = place.row;
  clear_words(row, kModelWords * row.count);
  for (int i = 0; i < row.count; ++i) {
    const RowModel &m = row.models[i];
    const bool probs = m.kind == CHORUS_SCORES_PROBS;
    // Of this thread; ids grow, so the first of equal scores stays.
    float highest = -infinity(), lowest = infinity(), finite = infinity();
    int64_t top = -1;
    uint32_t bad = 0, infinite = 0;
    for_tokens(place, [&](int64_t v, int count) {
      float s[kVector];
      load_vector(m.dtype, m.chunk, v - place.begin, m.n_valid - v, s);
#pragma unroll
      for (int j = 0; j < kVector; ++j) {
        if (j >= count || v + j >= m.n_valid) continue;
        if (s[j] > highest || top < 0) {
          top = s[j] == s[j] ? v + j : top;
          highest = s[j] == s[j] ? s[j] : highest;
        }
        lowest = fminf(lowest, s[j]);  // passes NaN by
        if (s[j] > -infinity()) finite = fminf(finite, s[j]);
        infinite += s[j] == infinity();
        bad += s[j] != s[j] || (probs && s[j] < 0.0f);
      }
    });
    max_word(row, kModelWords * i, top >= 0 ? ranked(highest, top) : 0);
    max_word(row, kModelWords * i + 1, top >= 0 ? static_cast<uint32_t>(~sortable(lowest)) : 0);
    max_word(row, kModelWords * i + 2, finite < infinity() || infinite > 0 ? static_cast<uint32_t>(~sortable(finite)) : 0);
    const uint64_t counts = uint64_t{bad} << 32 | infinite;
    sum_word(row, kModelWords * i + 3, counts);
  }
  exchange(place, kModelWords * row.count, -1, [](int w) { return w % kModelWords == 3; });
}

// Whether log-probs need double: scores, terms or factors near the ends of f32.
__device__ inline bool is_wild(const RowModel &m, float lowest_finite) {
  float lowest = m.lowest == -infinity() ? lowest_finite : m.lowest;
  if (m.kind == CHORUS_SCORES_PROBS) lowest = -104.0f;  // log of the smallest float
  const double widest = fmax(fmax(fabs(static_cast<double>(m.highest)), fabs(static_cast<double>(lowest))), 22.0);
  const double least = fmin(1.0, fabs(m.weight)) / m.temperature, most = fmax(1.0, fabs(m.weight)) / m.temperature;
  if (isinf(m.temperature)) return widest > 1e30;
  // The f32 logarithm of probabilities errs by up to its half ulp: too much when enlarged, or when all are far from 1.
  if (m.kind == CHORUS_SCORES_PROBS && (most > 1.0 || m.highest < 1e-3f || m.highest > 1e3f)) return true;
  return widest > 1e30 || most * widest > 1e30 || most > 1e30 || least < 1e-37;
}

__device__ inline void set_shape(const CombineCall &call, RowModel &m, const uint64_t *words) {
  const bool probs = m.kind == CHORUS_SCORES_PROBS;
  const float nothing = probs ? 0.0f : -infinity();
  m.highest = words[0] != 0 ? value_of(words[0]) : -infinity();
  m.lowest = words[1] != 0 ? from_sortable(~static_cast<uint32_t>(words[1])) : infinity();
  m.infinite_count = static_cast<uint32_t>(words[3]);
  m.top = words[0] != 0 ? index_of(words[0]) : -1;
  m.has_missing = true;
  m.is_wild = false;
  m.coefficient = 1.0f;
  m.top_score = 0.0f;
  if (!(m.highest > nothing)) {
    m.shape = Shape::kEmpty;
  } else if (m.temperature == 0.0) {
    m.shape = Shape::kOneHot;
  } else if (m.infinite_count > 0) {
    m.shape = Shape::kInfinite;
    m.is_wild = fabs(m.weight) > 1e28;  // times log n
  } else {
    m.shape = Shape::kRegular;
    m.top_score = probs ? chorus_exact_log(m.highest) : m.highest;
    m.has_missing = m.n_valid < call.n_tokens || !(m.lowest > nothing);
    m.coefficient = clamp_to(1.0f / static_cast<float>(m.temperature), kMostCoefficient);
    m.is_wild = is_wild(m, words[2] != 0 ? from_sortable(~static_cast<uint32_t>(words[2])) : 0.0f);
  }
}

// Reads the models once, drops the empty ones, sets the status bits they cause.
__device__ inline void scan_models(Place &place, char *cache) {
  RowState &row = place.row;
  if (place.call.cached) cache_scores(place, cache);
  scan_scores(place);
  for (int i = threadIdx.x; i < row.count; i += kCombineThreads) set_shape(place.call, row.models[i], row.words + kModelWords * i);
  __syncthreads();
  if (threadIdx.x == 0) {
    int kept = 0;
    for (int i = 0; i < row.count; ++i) {
      const RowModel &m = row.models[i];
      if (row.words[kModelWords * i + 3] >> 32 != 0) row.status |= CHORUS_ROW_NAN;
      if (m.infinite_count > 0) row.status |= CHORUS_ROW_INFINITE;
      if (m.shape == Shape::kEmpty && m.weight > 0) row.status |= CHORUS_ROW_MODEL_EMPTY;
      if (m.shape == Shape::kEmpty) continue;
      row.is_wild = row.is_wild || m.is_wild;
      if (kept != i) row.models[kept] = m;
      ++kept;
    }
    row.count = kept;
  }
  __syncthreads();
}

}  // namespace chorus::cuda
