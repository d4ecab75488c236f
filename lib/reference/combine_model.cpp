// SPDX-License-Identifier: Apache-2.0
// One row of one model: see combine_model.h.
#include "reference/combine_model.h"

#include <cmath>

namespace chorus::reference {
namespace {

double score64(const ModelRow &m, int64_t v) {
  const double x = raw_score(m, v);
  return m.kind == CHORUS_SCORES_PROBS ? std::log(x) : x;
}

}  // namespace

void scan(ModelRow &m) {
  const bool probs = m.kind == CHORUS_SCORES_PROBS;
  const float nothing = probs ? 0.0f : -kInfinity32;
  float best = nothing;
  m.top = -1;
  m.infinite_count = 0;
  m.has_nan = false;
  for (int64_t v = 0; v < m.n_valid; ++v) {
    const float x = raw_score(m, v);
    m.has_nan |= is_nan(x) || (probs && x < 0.0f);
    m.infinite_count += x == kInfinity32;
    if (x > best) {
      best = x;
      m.top = v;
    }
  }
  if (m.top < 0) {
    m.shape = RowShape::kEmpty;
  } else if (m.temperature == 0.0) {
    m.shape = RowShape::kOneHot;
  } else {
    m.shape = m.infinite_count > 0 ? RowShape::kInfinite : RowShape::kRegular;
  }
}

void prepare_log_probs(ModelRow &m) {
  if (m.shape != RowShape::kRegular) return;
  m.top_score = score64(m, m.top);
  const double sum = sum_in_order<double>(m.n_valid, [&](int64_t v) {
    return is_present(m, v) ? std::exp((score64(m, v) - m.top_score) / m.temperature) : 0.0;  // -inf / +inf is NaN
  });
  m.log_sum = std::log(sum);
}

double log_prob(const ModelRow &m, int64_t v) {
  if (!is_present(m, v)) return -kInfinity64;
  switch (m.shape) {
    case RowShape::kOneHot: return 0.0;
    case RowShape::kInfinite: return -std::log(static_cast<double>(m.infinite_count));
    default: return (score64(m, v) - m.top_score) / m.temperature - m.log_sum;
  }
}

uint64_t model_weight(const ModelRow &m, int64_t v, int bits) {
  if (!is_present(m, v)) return 0;
  if (m.shape != RowShape::kRegular) return uint64_t{1} << bits;
  return integer_weight(regular_key(m, v), regular_key(m, m.top), bits);
}

uint64_t model_total(const ModelRow &m, int bits) {
  uint64_t total = 0;
  for (int64_t v = 0; v < m.n_valid; ++v) total += model_weight(m, v, bits);
  return total;
}

}  // namespace chorus::reference
