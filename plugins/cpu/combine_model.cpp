// SPDX-License-Identifier: Apache-2.0
// One model inside a row of combine.rows: see combine_row.h.
#include <algorithm>
#include <cmath>
#include <limits>

#include "cpu/combine_row.h"

namespace chorus::cpu {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();


const char *element(const RowModel &m, int64_t v) {
  return static_cast<const char *>(m.scores) + v * static_cast<int64_t>(bytes_of(m.dtype));
}

float raw_score(const RowModel &m, int64_t v) { return load_f32(m.dtype, m.scores, v); }

// Tokens of a block that the model has scores for.
int64_t valid_in(const Row &row, const RowModel &m, int64_t block) {
  const int64_t rest = m.n_valid - block * kBlock, size = row.run->size_of(block);
  return rest < 0 ? 0 : rest < size ? rest : size;
}

void scan_blocks(Row &row, RowModel &m, int slot_index) {
  const int64_t blocks = row.run->blocks();
  float *highs = row.slot.highs + slot_index * blocks, *lows = row.slot.lows + slot_index * blocks;
  row.run->for_blocks([&](int64_t b) {
    const int64_t n = valid_in(row, m, b);
    if (n == 0) {
      highs[b] = -kInfinity;
      lows[b] = kInfinity;
    } else {
      row.run->ops.scan({element(m, b * kBlock), m.dtype}, n, highs + b, lows + b);
    }
  });
  m.highest = -kInfinity;
  m.lowest = kInfinity;
  for (int64_t b = 0; b < blocks; ++b) {
    if (is_nan(highs[b])) m.highest = m.lowest = highs[b];
    if (highs[b] > m.highest) m.highest = highs[b];
    if (lows[b] < m.lowest) m.lowest = lows[b];
  }
}

// Lowest id of the highest raw score.
int64_t find_top(const Row &row, const RowModel &m, int slot_index) {
  const float *highs = row.slot.highs + slot_index * row.run->blocks();
  int64_t v = index_of(highs, row.run->blocks(), m.highest) * kBlock;
  while (v < m.n_valid && raw_score(m, v) != m.highest) ++v;
  return v;
}

int64_t count_infinite(const RowModel &m) {
  int64_t count = 0;
  for (int64_t v = 0; v < m.n_valid; ++v) count += raw_score(m, v) == kInfinity;
  return count;
}

// Whether log-probs need double: scores, terms or factors near the ends of f32.
bool is_wild(const Row &row, const RowModel &m) {
  float lowest = m.lowest;
  if (m.kind == CHORUS_SCORES_PROBS) {
    lowest = -104.0f;  // log of the smallest float
  } else if (m.dtype == CHORUS_F16) {
    lowest = -65504.0f;
  } else if (lowest == -kInfinity) {
    lowest = kInfinity;
    for (int64_t b = 0; b * kBlock < m.n_valid; ++b)
      lowest = std::min(lowest, row.run->ops.lowest_finite({element(m, b * kBlock), m.dtype}, valid_in(row, m, b)));
  }
  const double widest = std::max({std::fabs(m.highest), std::fabs(lowest), 22.0f});  // 22: log of the most tokens
  const double least = std::min(1.0, std::fabs(m.weight)) / m.temperature;
  const double most = std::max(1.0, std::fabs(m.weight)) / m.temperature;
  if (std::isinf(m.temperature)) return widest > 1e30;
  // The f32 logarithm of probabilities errs by up to its half ulp: too much when enlarged, or when all are far from 1.
  if (m.kind == CHORUS_SCORES_PROBS && (most > 1.0 || m.highest < 1e-3f || m.highest > 1e3f)) return true;
  return widest > 1e30 || most * widest > 1e30 || most > 1e30 || least < 1e-37;
}

void set_shape(const Row &row, RowModel &m, int slot_index) {
  const bool probs = m.kind == CHORUS_SCORES_PROBS;
  const float nothing = probs ? 0.0f : -kInfinity;
  m.infinite_count = m.highest == kInfinity ? count_infinite(m) : 0;
  m.has_missing = true;
  m.is_wild = false;
  m.coefficient = 1.0f;
  m.top_score = 0.0f;
  if (!(m.highest > nothing)) {
    m.shape = Shape::kEmpty;
  } else if (m.temperature == 0.0) {
    m.shape = Shape::kOneHot;
    m.top = find_top(row, m, slot_index);
  } else if (m.infinite_count > 0) {
    m.shape = Shape::kInfinite;
    m.is_wild = std::fabs(m.weight) > 1e28;  // times log n
  } else {
    m.shape = Shape::kRegular;
    m.top = -1;
    m.top_score = probs ? chorus_exact_log(m.highest) : m.highest;
    m.has_missing = m.n_valid < row.run->n_tokens || !(m.lowest > nothing);
    m.coefficient = clamp(1.0f / static_cast<float>(m.temperature), kMostCoefficient);
    m.is_wild = is_wild(row, m);
  }
}

// Where the model alone is exact either way: scores near 0, or keys equal to scores.
bool keys_are_exact(const RowModel &m) {
  return std::fabs(own_top(m)) <= (m.coefficient == 1.0f ? kSafeTerm : 8.0f);
}

bool is_present(const RowModel &m, int64_t v) { return effective_score(m, v) > -kInfinity; }

double score64(const RowModel &m, float raw) { return m.kind == CHORUS_SCORES_PROBS ? std::log(static_cast<double>(raw)) : raw; }

}  // namespace

void scan_models(Row &row) {
  int kept = 0;
  bool has_nan = false;
  for (int i = 0; i < row.count; ++i) {
    RowModel &m = row.models[i];
    scan_blocks(row, m, kept);
    if (is_nan(m.highest) || (m.kind == CHORUS_SCORES_PROBS && m.lowest < 0.0f)) {
      has_nan = true;
      // What the other bits need: the scan as if no NaN were there.
      m.highest = -kInfinity;
      for (int64_t v = 0; v < m.n_valid; ++v) {
        if (raw_score(m, v) > m.highest) m.highest = raw_score(m, v);
      }
    }
    if (m.highest == kInfinity) row.status |= CHORUS_ROW_INFINITE;
    if (!(m.highest > (m.kind == CHORUS_SCORES_PROBS ? 0.0f : -kInfinity)) && m.weight > 0) row.status |= CHORUS_ROW_MODEL_EMPTY;
    if (!has_nan) set_shape(row, m, kept);
    if (has_nan || m.shape == Shape::kEmpty) continue;
    row.is_wild |= m.is_wild;
    if (kept != i) row.models[kept] = m;
    ++kept;
  }
  row.count = kept;
  if (has_nan) row.status |= CHORUS_ROW_NAN;
}

float effective_score(const RowModel &m, int64_t v) {
  if (v >= m.n_valid) return -kInfinity;
  switch (m.shape) {
    case Shape::kOneHot: return v == m.top ? m.present : -kInfinity;
    case Shape::kInfinite: return raw_score(m, v) == kInfinity ? m.present : -kInfinity;
    case Shape::kEmpty: return -kInfinity;
    default: return m.kind == CHORUS_SCORES_PROBS ? chorus_exact_log(raw_score(m, v)) : raw_score(m, v);
  }
}

Scores block_scores(const Row &row, const RowModel &m, int64_t block, float *scratch) {
  const int64_t begin = block * kBlock, n = row.run->size_of(block), valid = valid_in(row, m, block);
  const Scores raw = {element(m, begin), m.dtype};
  if (m.shape == Shape::kRegular) {
    if (m.kind != CHORUS_SCORES_PROBS && valid == n) return raw;
    if (m.kind == CHORUS_SCORES_PROBS) {
      row.run->ops.log_of_probs(raw, valid, scratch);
    } else {
      for (int64_t i = 0; i < valid; ++i) scratch[i] = raw_score(m, begin + i);
    }
    for (int64_t i = valid; i < n; ++i) scratch[i] = -kInfinity;
  } else {
    for (int64_t i = 0; i < n; ++i) scratch[i] = effective_score(m, begin + i);
  }
  return {scratch, CHORUS_F32};
}

uint64_t own_weights(Row &row, const RowModel &m, bool shifted) {
  const Run &run = *row.run;
  const bool shift = shifted && m.coefficient != 0.0f;
  const Term term = {shift ? m.top_score : 0.0f, m.coefficient, -kInfinity};
  const float top = shift ? 0.0f : own_top(m);
  const bool fits = std::fabs(top) <= kSafeTerm;
  run.for_blocks([&](int64_t b) {
    const int64_t n = run.size_of(b);
    uint64_t *sums = row.slot.sums + b * (kBlock / kPiece);
    if (b * kBlock >= m.n_valid) {
      for (int64_t p = 0; p * kPiece < n; ++p) sums[p] = 0;
      return;
    }
    alignas(64) float scratch[kBlock];
    const Scores scores = block_scores(row, m, b, scratch);
    if (fits) return run.ops.weights(scores, n, term, top, run.bits, sums);
    alignas(64) float keys[kBlock];
    run.ops.add_terms(scores, n, term, false, true, keys);
    run.ops.weights({keys, CHORUS_F32}, n, {0.0f, 1.0f}, top, run.bits, sums);
  });
  uint64_t total = 0;
  for (int64_t p = 0; p * kPiece < run.n_tokens; ++p) total += row.slot.sums[p];
  return total;
}

uint64_t own_total(Row &row, RowModel &m) {
  if (!m.has_total) m.total = own_weights(row, m, false);
  m.has_total = true;
  return m.total;
}

// From the integer weights: each is cut by less than 2^-bits of the highest term, V of them by less than 4e-9.
double own_log_sum(Row &row, RowModel &m) {
  if (m.has_log_sum) return m.log_sum;
  m.has_log_sum = true;
  m.log_sum = 0.0;
  // Known without a sum, which `present`, a term's value once keys were made, would falsify.
  if (m.shape == Shape::kInfinite) m.log_sum = std::log(static_cast<double>(m.infinite_count));
  if (m.shape != Shape::kRegular) return m.log_sum;
  if (m.is_wild) {
    double sum = 0.0;
    for (int64_t v = 0; v < m.n_valid; ++v) sum += std::exp(own_log_prob(m, v));
    return m.log_sum = std::log(sum);
  }
  const uint64_t total = keys_are_exact(m) ? own_total(row, m) : own_weights(row, m, true);
  return m.log_sum = std::log(std::ldexp(static_cast<double>(total), -row.run->bits));
}

double own_log_prob(const RowModel &m, int64_t v) {
  if (!is_present(m, v)) return -std::numeric_limits<double>::infinity();
  if (m.shape != Shape::kRegular) return -m.log_sum;
  return (score64(m, raw_score(m, v)) - score64(m, m.highest)) / m.temperature - m.log_sum;
}

uint64_t integer_weight(float z, float top, int bits) {
  if (z == -kInfinity) return 0;
  return static_cast<uint64_t>(chorus_exact_exp(z - top) * chorus_exact_pow2(bits));
}

}  // namespace chorus::cpu
