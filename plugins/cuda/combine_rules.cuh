// SPDX-License-Identifier: Apache-2.0
// The two rules: choices by keys and integers, log-probs within their tolerance (docs/numerics.md, "Combining"). Cost per
// token and model: one exponential for the totals, one for a row of log-probs, one for an argmax of several models.
#pragma once
#include "cuda/combine_models.cuh"

namespace chorus::cuda {

struct Draw {
  uint64_t token, model;
};

// What a call wants of a row.
struct Wanted {
  bool argmax, sample, log_probs;
};

// ---- Linear ----

__device__ inline double highest_weight(const RowState &row) {
  double highest = 0.0;
  for (int i = 0; i < row.count; ++i) highest = fmax(highest, row.models[i].weight);
  return highest;
}

// The model a sample comes from, by integer weights.
__device__ inline int choose_model(const RowState &row, uint64_t random) {
  const double highest = highest_weight(row);
  const auto weight = [&](int i) { return static_cast<uint64_t>(row.models[i].weight / highest * 0x1p56); };
  uint64_t total = 0;
  for (int i = 0; i < row.count; ++i) total += weight(i);
  const uint64_t r = __umul64hi(random, total);
  int i = 0;
  for (uint64_t cumulative = weight(0); cumulative <= r; cumulative += weight(i)) ++i;
  return i;
}

// What log-probs need of the row beside the totals.
__device__ inline void linear_constants(RowState &row) {
  if (threadIdx.x == 0) {
    double weights = 0.0;
    for (int i = 0; i < row.count; ++i) weights += row.models[i].weight;
    for (int i = 0; i < row.count; ++i) row.models[i].log_weight = log(row.models[i].weight / weights);
  }
  __syncthreads();
  for (int i = threadIdx.x; i < row.count; i += kCombineThreads) {
    RowModel &m = row.models[i];
    m.constant = static_cast<float>(m.log_weight - m.log_sum);
    m.term_shift = m.coefficient != 0.0f ? m.top_score : 0.0f;
  }
  __syncthreads();
}

// The highest sum of factor * exp(key - top), lowest id.
__device__ inline void linear_argmax(Place &place) {
  RowState &row = place.row;
  if (row.count == 1) {
    if (threadIdx.x == 0) row.argmax = row.models[0].top;
    __syncthreads();
    return;
  }
  for (int i = threadIdx.x; i < row.count; i += kCombineThreads) {
    RowModel &m = row.models[i];
    const double total = static_cast<double>(m.total) * static_cast<double>(chorus_exact_pow2(-place.call.bits));
    m.factor = static_cast<float>(m.weight / highest_weight(row) / total);
  }
  clear_words(row, 1);
  uint64_t best = 0;
  for_tokens(place, [&](int64_t v, int count) {
    float p[kVector] = {};
    for (int i = 0; i < row.count; ++i) {
      const RowModel &m = row.models[i];
      const float top = own_top(m), c = m.coefficient, factor = m.factor;
      float s[kVector];
      effective_scores(place, m, v, s);
#pragma unroll
      for (int j = 0; j < kVector; ++j) {
        if (s[j] == -infinity()) continue;
        p[j] = p[j] + factor * chorus_exact_exp(clamp_to(c * s[j], kMostTerm) - top);
      }
    }
#pragma unroll
    for (int j = 0; j < kVector; ++j) {
      if (j < count && p[j] > 0.0f) best = greater(best, ranked(p[j], v + j));
    }
  });
  max_word(row, 0, best);
  exchange(place, 1, -1, [](int) { return false; });
  if (threadIdx.x == 0) row.argmax = row.words[0] != 0 ? index_of(row.words[0]) : -1;
  __syncthreads();
}

// False: the row has no distribution; its status says why.
__device__ inline bool linear_solve(Place &place, const Draw &draw, const Wanted &wanted) {
  RowState &row = place.row;
  if (row.count == 0) {
    __syncthreads();
    if (threadIdx.x == 0) row.status |= CHORUS_ROW_EMPTY_SUPPORT;
    __syncthreads();
    return false;
  }
  if (threadIdx.x == 0) row.chosen = wanted.sample ? choose_model(row, draw.model) : -1;
  __syncthreads();
  for (int i = threadIdx.x; i < row.count; i += kCombineThreads) {
    RowModel &m = row.models[i];
    m.needs_total = i == row.chosen || (wanted.argmax && row.count > 1);
    m.needs_shifted = wanted.log_probs && (!m.needs_total || m.is_wild || !own_keys_are_exact(m));
  }
  __syncthreads();
  if (wanted.sample || wanted.log_probs || row.count > 1) sum_models(place, row.chosen, wanted.log_probs);
  if (wanted.sample) {
    const RowModel &m = row.models[row.chosen];
    find_sample(place, __umul64hi(draw.token, m.total),
                [&](int64_t v) { return own_weight(m, effective_score(m, v), place.call.bits); });
  }
  if (wanted.argmax) linear_argmax(place);
  if (wanted.log_probs) linear_constants(row);
  return true;
}

__device__ inline double linear_log_prob(const RowState &row, int64_t v) {
  double top = -infinity64(), sum = 0.0;
  for (int i = 0; i < row.count; ++i) top = fmax(top, row.models[i].log_weight + own_log_prob(row.models[i], v));
  if (isinf(top)) return top;
  for (int i = 0; i < row.count; ++i) sum += exp(row.models[i].log_weight + own_log_prob(row.models[i], v) - top);
  return top + log(sum);
}

// exp(x) of log-probs, x at most 0: within 2^-22 (2 + |x|).
__device__ __forceinline__ float quick_exp(float x) { return __expf(x); }

__device__ __forceinline__ void linear_values(const Place &place, int64_t v, float (&out)[kVector]) {
  const RowState &row = place.row;
  constexpr float kLowest = -3.40282347e38f;
  float top[kVector], sum[kVector];
  for (int i = 0; i < row.count; ++i) {
    const RowModel &m = row.models[i];
    const float shift = m.term_shift, c = m.coefficient, constant = m.constant;
    float s[kVector];
    effective_scores(place, m, v, s);
#pragma unroll
    for (int j = 0; j < kVector; ++j) {
      const float a = s[j] == -infinity() ? kLowest : fmaxf(constant + c * (s[j] - shift), kLowest);
      if (i == 0) {
        top[j] = a;
        sum[j] = 1.0f;
      } else {
        const float difference = a - top[j], e = quick_exp(-fabsf(difference));
        sum[j] = difference > 0.0f ? sum[j] * e + 1.0f : sum[j] + e;
        top[j] = fmaxf(top[j], a);
      }
    }
  }
#pragma unroll
  for (int j = 0; j < kVector; ++j) out[j] = top[j] == kLowest ? -infinity() : row.count == 1 ? top[j] : top[j] + __logf(sum[j]);
}

// ---- Log-linear ----

// Terms of the keys: clamp(w / T * (s - shift)), or `missing`. A model of negative weight that lacks tokens needs its
// normaliser, because its neutral 0 is meant on normalised log-probs.
__device__ inline void set_terms(const CombineCall &call, RowState &row, bool shifted) {
  __syncthreads();
  for (int i = threadIdx.x; i < row.count; i += kCombineThreads) {
    RowModel &m = row.models[i];
    const auto weight = static_cast<float>(m.weight);
    m.present = 0.0f;
    m.term_shift = 0.0f;
    m.term_coefficient = 1.0f;
    m.term_missing = m.weight > 0 ? -infinity() : 0.0f;
    if (m.shape == Shape::kInfinite && m.weight < 0)
      m.present = clamp_to(weight * -chorus_exact_log(static_cast<float>(m.infinite_count)), kMostTerm);
    if (m.shape != Shape::kRegular) continue;
    m.term_coefficient = clamp_to(weight / static_cast<float>(m.temperature), kMostCoefficient);
    if (shifted && m.term_coefficient != 0.0f) m.term_shift = m.top_score;
    if (m.weight < 0 && m.has_missing && shifted) {
      m.term_missing = static_cast<float>(m.weight * m.log_sum);
    } else if (m.weight < 0 && m.has_missing) {
      const float total = static_cast<float>(m.total) * chorus_exact_pow2(-call.bits);
      m.term_missing = clamp_to(weight * (own_top(m) + chorus_exact_log(total)), kMostTerm);
    }
  }
  __syncthreads();
}

__device__ __forceinline__ void keys_of(const Place &place, int64_t v, float (&z)[kVector]) {
  const RowState &row = place.row;
#pragma unroll
  for (int j = 0; j < kVector; ++j) z[j] = 0.0f;
  for (int i = 0; i < row.count; ++i) {
    const RowModel &m = row.models[i];
    const float shift = m.term_shift, c = m.term_coefficient, missing = m.term_missing;
    float s[kVector];
    effective_scores(place, m, v, s);
#pragma unroll
    for (int j = 0; j < kVector; ++j) z[j] = z[j] + (s[j] > -infinity() ? clamp_to(c * (s[j] - shift), kMostTerm) : missing);
  }
}

__device__ inline float key_at(const RowState &row, int64_t v) {
  float z = 0.0f;
  for (int i = 0; i < row.count; ++i) {
    const RowModel &m = row.models[i];
    const float s = effective_score(m, v);
    z = z + (s > -infinity() ? clamp_to(m.term_coefficient * (s - m.term_shift), kMostTerm) : m.term_missing);
  }
  return z;
}

__device__ inline double key_in_double(const RowState &row, int64_t v) {
  double t = 0.0;
  for (int i = 0; i < row.count; ++i) {
    const RowModel &m = row.models[i];
    const double l = own_log_prob(m, v);
    if (!isinf(l)) {
      t += m.weight * l;
    } else if (m.weight > 0) {
      return -infinity64();
    }
  }
  return t;
}

// Highest key and its lowest id. False: no token has one.
__device__ inline bool find_top_key(Place &place) {
  RowState &row = place.row;
  clear_words(row, 1);
  uint64_t best = 0;
  for_tokens(place, [&](int64_t v, int count) {
    float z[kVector];
    keys_of(place, v, z);
#pragma unroll
    for (int j = 0; j < kVector; ++j) {
      if (j < count && z[j] > -infinity()) best = greater(best, ranked(z[j], v + j));
    }
  });
  max_word(row, 0, best);
  exchange(place, 1, -1, [](int) { return false; });
  const bool found = row.words[0] != 0;
  if (threadIdx.x == 0 && found) {
    row.top_key = value_of(row.words[0]);
    row.argmax = row.keys == Keys::kPlain ? index_of(row.words[0]) : row.argmax;
  }
  __syncthreads();
  return found;
}

// Sum of the integer weights of the keys, and the lowest key within 40 nats of the top.
__device__ inline uint64_t sum_keys(Place &place) {
  RowState &row = place.row;
  clear_words(row, 2);
  const float top = row.top_key;
  const int bits = place.call.bits;
  uint64_t total = 0, lowest = 0;
  for_tokens(place, [&](int64_t v, int count) {
    float z[kVector];
    keys_of(place, v, z);
#pragma unroll
    for (int j = 0; j < kVector; ++j) {
      if (j >= count) continue;
      total += key_weight(z[j], top, bits);
      if (z[j] >= top - 40.0f) lowest = greater(lowest, static_cast<uint32_t>(~sortable(z[j])));
    }
  });
  const uint64_t warp_total = sum_word(row, 0, total);
  if (threadIdx.x % 32 == 0) row.warp_sums[threadIdx.x / 32] = warp_total;
  max_word(row, 1, lowest);
  exchange(place, 2, 0, [](int w) { return w == 0; });
  const uint64_t all = row.words[0];
  if (threadIdx.x == 0) {
    row.lowest_key = from_sortable(~static_cast<uint32_t>(row.words[1]));
    row.key_log_sum = log(scalbn(static_cast<double>(all), -bits));
  }
  __syncthreads();
  return all;
}

// Whether log-probs may come from the plain keys. Those carry a rounding of about sum |c_i s_i| 2^-24, and the tolerance
// is 2e-6 (1 + D), D the largest sum |w_i (z_i - max_i)| near the top: at least |sum c_i max_i - z| of any token there.
__device__ inline bool plain_keys_are_exact(const RowState &row) {
  float sum = 0.0f, size = 0.0f;
  for (int i = 0; i < row.count; ++i) {
    const RowModel &m = row.models[i];
    if (m.has_missing) return false;
    const float top = m.term_coefficient * m.top_score;
    sum += top;
    size += fabsf(top);
  }
  const float spread = fmaxf(fabsf(sum - row.top_key), fabsf(sum - row.lowest_key));
  return static_cast<float>(row.count + 3) * size <= 16.0f * (1.0f + spread);
}

// log_sum of all models (of those whose missing tokens need it, unless `all`).
__device__ inline void sum_for_logs(Place &place, bool all) {
  RowState &row = place.row;
  __syncthreads();
  for (int i = threadIdx.x; i < row.count; i += kCombineThreads) {
    RowModel &m = row.models[i];
    const bool needed = all || (m.weight < 0 && m.has_missing);
    m.needs_shifted = needed;
    m.needs_total = false;
  }
  __syncthreads();
  sum_models(place, -1, true);
}

// For wild rows: keys in double. Cost: scalar.
__device__ inline void solve_in_double(Place &place) {
  RowState &row = place.row;
  sum_for_logs(place, true);
  clear_words(row, 1);
  uint64_t best = 0;
  const auto for_each = [&](const auto &body) {
    for_tokens(place, [&](int64_t v, int count) {
      for (int j = 0; j < count; ++j) body(key_in_double(row, v + j));
    });
  };
  for_each([&](double t) { best = greater(best, sortable64(t)); });
  max_word(row, 0, best);
  exchange(place, 1, -1, [](int) { return false; });
  if (threadIdx.x == 0) row.top_double = from_sortable64(row.words[0]);
  clear_words(row, 1);
  uint64_t total = 0;
  const double scale = static_cast<double>(chorus_exact_pow2(place.call.bits));
  for_each([&](double t) { total += static_cast<uint64_t>(exp(t - row.top_double) * scale); });
  sum_word(row, 0, total);
  exchange(place, 1, -1, [](int) { return true; });
  if (threadIdx.x == 0) row.key_log_sum = log(scalbn(static_cast<double>(row.words[0]), -place.call.bits));
  __syncthreads();
}

__device__ inline bool log_linear_solve(Place &place, const Draw &draw, const Wanted &wanted) {
  RowState &row = place.row;
  bool lost = (row.status & CHORUS_ROW_MODEL_EMPTY) != 0;
  bool needs_own = false;
  for (int i = 0; i < row.count; ++i) {
    const RowModel &m = row.models[i];
    needs_own = needs_own || (m.weight < 0 && m.has_missing && m.shape == Shape::kRegular);
  }
  __syncthreads();
  if (!lost) {
    if (threadIdx.x == 0) row.keys = Keys::kPlain;
    if (needs_own) {
      for (int i = threadIdx.x; i < row.count; i += kCombineThreads) {
        row.models[i].needs_total = row.models[i].weight < 0;
        row.models[i].needs_shifted = false;
      }
      __syncthreads();
      sum_models(place, -1, false);
    }
    set_terms(place.call, row, false);
    lost = !find_top_key(place);
  }
  if (lost) {
    if (threadIdx.x == 0) row.status |= CHORUS_ROW_EMPTY_SUPPORT;
    __syncthreads();
    return false;
  }
  if (wanted.sample || wanted.log_probs) {
    const uint64_t total = sum_keys(place);
    if (wanted.sample) {
      find_sample(place, __umul64hi(draw.token, total),
                  [&](int64_t v) { return key_weight(key_at(row, v), row.top_key, place.call.bits); });
    }
  }
  if (!wanted.log_probs || (!row.is_wild && plain_keys_are_exact(row))) return true;
  __syncthreads();
  if (threadIdx.x == 0) row.keys = row.is_wild ? Keys::kDouble : Keys::kShifted;
  if (row.is_wild) {
    solve_in_double(place);
    return true;
  }
  if (needs_own) sum_for_logs(place, false);
  set_terms(place.call, row, true);
  find_top_key(place);
  sum_keys(place);
  return true;
}

__device__ inline double log_linear_log_prob(const RowState &row, int64_t v) {
  if (row.keys == Keys::kDouble) return key_in_double(row, v) - row.top_double - row.key_log_sum;
  return static_cast<double>(key_at(row, v)) - row.top_key - row.key_log_sum;
}

__device__ __forceinline__ void log_linear_values(const Place &place, int64_t v, float (&out)[kVector]) {
  keys_of(place, v, out);
  const float top = place.row.top_key, log_sum = static_cast<float>(place.row.key_log_sum);
#pragma unroll
  for (int j = 0; j < kVector; ++j) out[j] = out[j] - top - log_sum;
}

}  // namespace chorus::cuda
