// SPDX-License-Identifier: Apache-2.0
// The linear rule, p = sum w_i p_i / sum w_i: log-probs, argmax and samples of a row (docs/numerics.md, "Combining").
// Cost: one pass of exponentials per model for its normaliser; one more for a row of log-probs, or for an argmax.
#include <algorithm>
#include <cmath>
#include <limits>

#include "cpu/combine_row.h"

namespace chorus::cpu {
namespace {

double highest_weight(const Row &row) {
  double highest = 0.0;
  for (int i = 0; i < row.count; ++i) highest = std::max(highest, row.models[i].weight);
  return highest;
}

// p of a block: sum of factors[i] * exp(key_i - top_i), in model order. What is missing adds factor * 2^-124, which is
// lost beside the highest p: that is at least 1 / V.
void add_block(const Row &row, int64_t b, const float *factors, float *p) {
  const Run &run = *row.run;
  alignas(64) float scratch[kBlock];
  alignas(64) float keys[kBlock];
  const int64_t n = run.size_of(b);
  for (int i = 0; i < row.count; ++i) {
    const RowModel &m = row.models[i];
    const float top = own_top(m);
    const Scores scores = block_scores(row, m, b, scratch);
    if (std::fabs(top) <= kSafeTerm) {
      run.ops.add_probs(scores, n, m.coefficient, top, factors[i], i == 0, p);
    } else {
      run.ops.add_terms(scores, n, {0.0f, m.coefficient, -std::numeric_limits<float>::infinity()}, false, true, keys);
      run.ops.add_probs({keys, CHORUS_F32}, n, 1.0f, top, factors[i], i == 0, p);
    }
  }
}

void set_factors(Row &row, float *factors) {
  const double highest = highest_weight(row);
  for (int i = 0; i < row.count; ++i) {
    const double total = static_cast<double>(own_total(row, row.models[i])) * chorus_exact_pow2(-row.run->bits);
    factors[i] = static_cast<float>(row.models[i].weight / highest / total);
  }
}

// The single model's own best: its lowest id of the highest raw score.
int64_t argmax_alone(const Row &row) {
  const RowModel &m = row.models[0];
  if (m.shape == Shape::kOneHot) return m.top;
  const int64_t b = index_of(row.slot.highs, row.run->blocks(), m.highest);
  int64_t v = b * kBlock;
  while (load_f32(m.dtype, m.scores, v) != m.highest) ++v;
  return v;
}

}  // namespace

bool linear_begin(Row &row) {
  if ((row.status & CHORUS_ROW_NAN) != 0) return false;
  if (row.count > 0) return true;
  row.status |= CHORUS_ROW_EMPTY_SUPPORT;
  return false;
}

void linear_fill_probs(Row &row) {
  const Run &run = *row.run;
  float factors[CHORUS_COMBINE_MAX_MODELS];
  set_factors(row, factors);
  run.for_blocks([&](int64_t b) {
    float *p = row.slot.keys + b * kBlock;
    add_block(row, b, factors, p);
    row.slot.tops[b] = run.ops.highest(p, run.size_of(b));
  });
  row.top_key = *std::max_element(row.slot.tops, row.slot.tops + run.blocks());
}

int64_t linear_argmax(Row &row) {
  if (row.count == 1) return argmax_alone(row);
  const Run &run = *row.run;
  float factors[CHORUS_COMBINE_MAX_MODELS];
  set_factors(row, factors);
  run.for_blocks([&](int64_t b) {
    alignas(64) float p[kBlock];
    add_block(row, b, factors, p);
    row.slot.tops[b] = run.ops.highest(p, run.size_of(b));
  });
  const float best = *std::max_element(row.slot.tops, row.slot.tops + run.blocks());
  const int64_t b = index_of(row.slot.tops, run.blocks(), best);
  alignas(64) float p[kBlock];
  add_block(row, b, factors, p);
  return b * kBlock + index_of(p, run.size_of(b), best);
}

// Draws the model by its weight, then the token within that model.
int64_t linear_sample(Row &row, const Draw &draw) {
  const double highest = highest_weight(row);
  const auto model_weight = [&](int i) { return static_cast<uint64_t>(row.models[i].weight / highest * 0x1p56); };
  uint64_t weights = 0;
  for (int i = 0; i < row.count; ++i) weights += model_weight(i);
  const uint64_t r = chorus_multiply_high(draw.model, weights);
  int i = 0;
  for (uint64_t cumulative = model_weight(0); cumulative <= r; cumulative += model_weight(i)) ++i;
  RowModel &m = row.models[i];
  m.total = own_weights(row, m, false);  // slot.sums must be this model's
  m.has_total = true;
  const float top = own_top(m);
  return pick(row, m.total, draw.token, [&](int64_t v) {
    const float s = effective_score(m, v);
    if (s == -std::numeric_limits<float>::infinity()) return uint64_t{0};
    return integer_weight(clamp(m.coefficient * s, kMostTerm), top, row.run->bits);
  });
}

void linear_prepare_log_probs(Row &row) {
  double weights = 0.0;
  for (int i = 0; i < row.count; ++i) {
    own_log_sum(row, row.models[i]);
    weights += row.models[i].weight;
  }
  for (int i = 0; i < row.count; ++i) row.log_weights[i] = std::log(row.models[i].weight / weights);
}

double linear_log_prob(const Row &row, int64_t v) {
  double terms[CHORUS_COMBINE_MAX_MODELS], top = -std::numeric_limits<double>::infinity(), sum = 0.0;
  for (int i = 0; i < row.count; ++i) {
    terms[i] = row.log_weights[i] + own_log_prob(row.models[i], v);
    top = std::max(top, terms[i]);
  }
  if (std::isinf(top)) return top;
  for (int i = 0; i < row.count; ++i) sum += std::exp(terms[i] - top);
  return top + std::log(sum);
}

void linear_store(Row &row, chorus_dtype dtype, void *out) {
  const Run &run = *row.run;
  if (row.is_wild) {
    for (int64_t v = 0; v < run.n_tokens; ++v)
      plugin::store_f64(dtype, out, v, as_log_prob(dtype, linear_log_prob(row, v)));
    return;
  }
  run.for_blocks([&](int64_t b) {
    alignas(64) float scratch[kBlock];
    alignas(64) float top[kBlock];
    alignas(64) float sum[kBlock];
    const int64_t n = run.size_of(b);
    for (int i = 0; i < row.count; ++i) {
      const RowModel &m = row.models[i];
      const float shift = m.coefficient != 0.0f ? m.top_score : 0.0f;
      const auto constant = static_cast<float>(row.log_weights[i] - m.log_sum);
      run.ops.add_component(block_scores(row, m, b, scratch), n, {shift, m.coefficient}, constant, i == 0, top, sum);
    }
    run.ops.store_components(top, sum, n, dtype, static_cast<char *>(out) + b * kBlock * static_cast<int64_t>(bytes_of(dtype)));
  });
}

}  // namespace chorus::cpu
