// SPDX-License-Identifier: Apache-2.0
// The log-linear rule, log p = sum w_i log p_i - log Z: a row of keys in f32 first, then everything from the keys
// (docs/numerics.md, "Combining"). Cost: N products and one exponential per token.
#include <algorithm>
#include <cmath>
#include <limits>

#include "cpu/combine_row.h"

namespace chorus::cpu {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// The term of each token: clamp(w / T * s), s less its highest when `shifted`; only a model of negative weight needs its
// normaliser, because its neutral 0 is meant on normalised log-probs.
void set_term(Row &row, RowModel &m, bool shifted) {
  const auto weight = static_cast<float>(m.weight);
  m.present = 0.0f;
  m.term = {0.0f, 1.0f, m.weight > 0 ? -kInfinity : 0.0f};
  m.plain = false;
  if (m.shape == Shape::kInfinite && m.weight < 0)
    m.present = clamp(weight * -chorus_exact_log(static_cast<float>(m.infinite_count)), kMostTerm);
  if (m.shape != Shape::kRegular) return;
  m.term.coefficient = clamp(weight / static_cast<float>(m.temperature), kMostCoefficient);
  if (shifted && m.term.coefficient != 0.0f) m.term.shift = m.top_score;
  if (m.weight < 0 && m.has_missing && shifted) {
    m.term.missing = static_cast<float>(m.weight * own_log_sum(row, m));
  } else if (m.weight < 0 && m.has_missing) {
    const float total = static_cast<float>(own_total(row, m)) * chorus_exact_pow2(-row.run->bits);
    m.term.missing = clamp(weight * (own_top(m) + chorus_exact_log(total)), kMostTerm);
  }
  const float widest = std::max(std::fabs(m.highest), std::fabs(m.lowest)) + std::fabs(m.term.shift);
  m.plain = !m.has_missing && m.kind != CHORUS_SCORES_PROBS && std::fabs(m.term.coefficient) * widest <= kSafeTerm;
}

void fill_keys(Row &row, bool shifted) {
  const Run &run = *row.run;
  for (int i = 0; i < row.count; ++i) set_term(row, row.models[i], shifted);
  run.for_blocks([&](int64_t b) {
    alignas(64) float scratch[kBlock];
    const int64_t n = run.size_of(b);
    float *keys = row.slot.keys + b * kBlock;
    if (row.count == 0) std::fill_n(keys, n, 0.0f);
    for (int i = 0; i < row.count; ++i) {
      const RowModel &m = row.models[i];
      run.ops.add_terms(block_scores(row, m, b, scratch), n, m.term, m.plain, i == 0, keys);
    }
    row.slot.tops[b] = run.ops.highest(keys, n);
  });
  row.top_key = *std::max_element(row.slot.tops, row.slot.tops + run.blocks());
  row.has_keys = true;
  row.has_key_sums = false;
}

double key_in_double(const Row &row, int64_t v) {
  double t = 0.0;
  for (int i = 0; i < row.count; ++i) {
    const RowModel &m = row.models[i];
    const double l = own_log_prob(m, v);
    if (!std::isinf(l)) {
      // A positive one-hot or infinite model has one term for all its tokens, and it may be huge.
      if (m.weight < 0 || m.shape == Shape::kRegular) t += m.weight * l;
    } else if (m.weight > 0) {
      return -std::numeric_limits<double>::infinity();
    }
  }
  return t;
}

// For wild rows: keys in double, relative to the highest. Cost: scalar.
void fill_keys_in_double(Row &row) {
  const Run &run = *row.run;
  for (int i = 0; i < row.count; ++i) own_log_sum(row, row.models[i]);
  double top = -std::numeric_limits<double>::infinity();
  for (int64_t v = 0; v < run.n_tokens; ++v) top = std::max(top, key_in_double(row, v));
  for (int64_t v = 0; v < run.n_tokens; ++v) row.slot.keys[v] = static_cast<float>(key_in_double(row, v) - top);
  row.top_key = 0.0f;
  row.has_keys = true;
  row.has_key_sums = false;
}

uint64_t sum_keys(Row &row) {
  const Run &run = *row.run;
  run.for_blocks([&](int64_t b) {
    run.ops.weights({row.slot.keys + b * kBlock, CHORUS_F32}, run.size_of(b), {0.0f, 1.0f}, row.top_key, run.bits,
                    row.slot.sums + b * (kBlock / kPiece));
  });
  uint64_t total = 0;
  for (int64_t p = 0; p * kPiece < run.n_tokens; ++p) total += row.slot.sums[p];
  row.key_log_sum = std::log(std::ldexp(static_cast<double>(total), -run.bits));
  row.has_key_sums = true;
  return total;
}

// Whether log-probs may come from the keys of the choices. Those carry a rounding of about sum |c_i s_i| 2^-24, and the
// tolerance is 2e-6 (1 + D), D the largest sum |w_i (z_i - max_i)| near the top. With S = sum c_i max_i, a token of key z
// has D >= |S - z|: the tops of the blocks tell enough.
bool keys_are_exact(const Row &row) {
  float sum = 0.0f, size = 0.0f, spread = 0.0f;
  for (int i = 0; i < row.count; ++i) {
    const RowModel &m = row.models[i];
    if (m.has_missing) return false;
    const float top = m.term.coefficient * m.top_score;
    sum += top;
    size += std::fabs(top);
  }
  for (int64_t b = 0; b < row.run->blocks(); ++b) {
    const float z = row.slot.tops[b];
    if (z >= row.top_key - 40.0f) spread = std::max(spread, std::fabs(sum - z));
  }
  return static_cast<float>(row.count + 3) * size <= 16.0f * (1.0f + spread);
}

}  // namespace

bool log_linear_begin(Row &row) {
  if ((row.status & CHORUS_ROW_NAN) != 0) return false;
  bool lost = (row.status & CHORUS_ROW_MODEL_EMPTY) != 0, may_be_empty = false;
  for (int i = 0; i < row.count; ++i) may_be_empty |= row.models[i].weight > 0 && row.models[i].has_missing;
  if (!lost && may_be_empty) {
    fill_keys(row, false);
    lost = row.top_key == -kInfinity;
  }
  if (lost) row.status |= CHORUS_ROW_EMPTY_SUPPORT;
  return !lost;
}

int64_t log_linear_argmax(Row &row) {
  if (!row.has_keys) fill_keys(row, false);
  const int64_t b = index_of(row.slot.tops, row.run->blocks(), row.top_key);
  return b * kBlock + index_of(row.slot.keys + b * kBlock, row.run->size_of(b), row.top_key);
}

int64_t log_linear_sample(Row &row, const Draw &draw) {
  if (!row.has_keys) fill_keys(row, false);
  const uint64_t total = sum_keys(row);
  return pick(row, total, draw.token,
              [&](int64_t v) { return integer_weight(row.slot.keys[v], row.top_key, row.run->bits); });
}

void log_linear_prepare_log_probs(Row &row) {
  if (row.is_wild) {
    fill_keys_in_double(row);
  } else if (!row.has_keys || !keys_are_exact(row)) {
    fill_keys(row, true);
  }
  if (!row.has_key_sums) sum_keys(row);
}

double log_linear_log_prob(const Row &row, int64_t v) {
  return static_cast<double>(row.slot.keys[v]) - row.top_key - row.key_log_sum;
}

void log_linear_store(Row &row, chorus_dtype dtype, void *out) {
  const Run &run = *row.run;
  run.for_blocks([&](int64_t b) {
    run.ops.store_keys(row.slot.keys + b * kBlock, run.size_of(b), row.top_key, static_cast<float>(row.key_log_sum), dtype,
                       static_cast<char *>(out) + b * kBlock * static_cast<int64_t>(bytes_of(dtype)));
  });
}

}  // namespace chorus::cpu
