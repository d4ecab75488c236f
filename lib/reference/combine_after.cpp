// SPDX-License-Identifier: Apache-2.0
// What follows the rule: temperature, penalties, top-k, top-p, min-p, typical, in this order. Which tokens stay is decided on
// keys (f32) and their integer weights, so that every backend keeps the same; log-probs are those of the values, f64,
// normalised over what stays. docs/numerics.md, "After combining".
#include <algorithm>
#include <cmath>

#include "reference/combine_full.h"

namespace chorus::reference {
namespace {

// Keys of a plain mixture are f32 arithmetic on its scores, else the values rounded.
void set_keys(FullRow &r) {
  const int64_t n = r.setup->n_tokens;
  const bool is_linear = r.setup->rule == CHORUS_COMBINE_LINEAR;
  r.keys_are_probs = r.full->has_exact_keys && is_linear && (r.full->temperature == 1.0 || r.full->temperature == 0.0);
  if (!r.full->has_exact_keys) {
    double top = -kInfinity64;
    for (int64_t v = 0; v < n; ++v) top = std::max(top, r.values[v]);
    for (int64_t v = 0; v < n; ++v) r.keys[v] = static_cast<float>(r.values[v] - top);
    return;
  }
  prepare_keys(r.mix);
  for (int64_t v = 0; v < n; ++v) {
    const float z = key(r.mix, v);
    r.keys[v] = is_linear && !r.keys_are_probs ? chorus_exact_log(z) : z;
  }
}

void keep_only(FullRow &r, int64_t begin, int64_t count) {
  for (int64_t j = begin; j < count; ++j) r.kept[r.order[j]] = 0;
}

// The kept tokens by key, best first, lowest id first among equals.
int64_t sort_keys(FullRow &r) {
  int64_t count = 0;
  for (int64_t v = 0; v < r.setup->n_tokens; ++v) {
    if (r.kept[v] != 0) r.order[count++] = static_cast<int32_t>(v);
  }
  const float *keys = r.keys;
  std::sort(r.order, r.order + count, [&](int32_t a, int32_t b) { return keys[a] != keys[b] ? keys[a] > keys[b] : a < b; });
  return count;
}

// The highest key of the kept tokens, lowest id; -1 where none is.
int64_t top_of(const FullRow &r) {
  int64_t top = -1;
  for (int64_t v = 0; v < r.setup->n_tokens; ++v) {
    if (r.kept[v] != 0 && (top < 0 || r.keys[v] > r.keys[top])) top = v;
  }
  return top;
}

uint64_t weight_of_token(const FullRow &r, float top, int64_t v) {
  if (r.kept[v] == 0) return 0;
  const int bits = token_bits(r.setup->n_tokens);
  if (r.keys_are_probs) return static_cast<uint64_t>(r.keys[v] * (1.0f / top) * chorus_exact_pow2(bits));
  return integer_weight(r.keys[v], top, bits);
}

void apply_temperature(FullRow &r) {
  const double t = r.full->temperature;
  if (t == 1.0) return;
  const int64_t n = r.setup->n_tokens;
  if (t == 0.0) {
    const int64_t top = top_of(r);
    for (int64_t v = 0; v < n; ++v) r.kept[v] = v == top;
    return;
  }
  const double divisor = std::max(t, static_cast<double>(kLeastTemperature));
  const float c = clamp(1.0f / static_cast<float>(divisor), kMostCoefficient);
  double top = -kInfinity64;
  for (int64_t v = 0; v < n; ++v) top = std::max(top, r.values[v]);
  const bool is_score = r.setup->rule == CHORUS_COMBINE_UNNORMALISED || r.full->has_penalties;
  for (int64_t v = 0; v < n; ++v) {
    if (r.kept[v] == 0) continue;
    r.values[v] = (is_score ? r.values[v] : r.values[v] - top) / divisor;  // no overflow where a constant does not matter
    r.keys[v] = clamp(c * r.keys[v], kMostTerm);
  }
}

// On the combined scores: repetition divides positive ones and multiplies negative ones (Keskar et al. 2019), presence is
// subtracted from what occurred, frequency times how often.
bool apply_penalties(FullRow &r) {
  const chorus_combine_args &a = *r.args;
  if (!r.full->has_penalties || a.penalties == nullptr || a.history_offsets == nullptr || a.history_ids == nullptr) return true;
  const auto *p = static_cast<const float *>(row_of(*a.penalties, r.row));
  const int64_t step = stride_of(*a.penalties, 1);
  const double repetition = p[0], presence = p[step], frequency = p[2 * step];
  if (!(repetition > 0) || !std::isfinite(repetition) || !std::isfinite(presence) || !std::isfinite(frequency)) return false;
  const int64_t n = r.setup->n_tokens;
  const int64_t begin = std::max<int64_t>(0, integer_at(*a.history_offsets, r.row));
  const int64_t end = std::min(a.history_ids->shape[0], integer_at(*a.history_offsets, r.row + 1));
  std::fill(r.order, r.order + n, 0);  // how often each token occurred
  for (int64_t j = begin; j < end; ++j) {
    const int64_t id = integer_at(*a.history_ids, j);
    if (id >= 0 && id < n) ++r.order[id];
  }
  for (int64_t v = 0; v < n; ++v) {
    if (r.kept[v] == 0 || r.order[v] == 0) continue;
    double &s = r.values[v];
    s = s > 0 ? s / repetition : s * repetition;
    s -= presence + frequency * r.order[v];
  }
  return true;
}

void keep_top_k(FullRow &r) {
  if (r.full->top_k <= 0) return;
  const int64_t count = sort_keys(r);
  keep_only(r, std::min(count, r.full->top_k), count);
}

// The fewest of the best whose weight reaches top_p of the total; at least one.
void keep_top_p(FullRow &r) {
  if (is_off(r.full->top_p)) return;
  const int64_t count = sort_keys(r);
  const float top = r.keys[r.order[0]];
  uint64_t total = 0, sum = 0;
  for (int64_t j = 0; j < count; ++j) total += weight_of_token(r, top, r.order[j]);
  const double wanted = r.full->top_p * static_cast<double>(total);
  int64_t j = 0;
  while (j < count && (j == 0 || static_cast<double>(sum) < wanted)) sum += weight_of_token(r, top, r.order[j++]);
  keep_only(r, j, count);
}

// p >= min_p max p.
void keep_min_p(FullRow &r) {
  if (r.full->min_p <= 0) return;
  const int64_t top = top_of(r);
  const auto share = static_cast<float>(r.full->min_p);
  const float least = r.keys_are_probs ? share * r.keys[top] : r.keys[top] + chorus_exact_log(share);
  for (int64_t v = 0; v < r.setup->n_tokens; ++v) {
    if (v != top && r.keys[v] < least) r.kept[v] = 0;
  }
}

void drop_lost(FullRow &r) {
  for (int64_t v = 0; v < r.setup->n_tokens; ++v) {
    if (r.kept[v] == 0) r.values[v] = -kInfinity64;
  }
}

// Locally typical (Meister et al. 2022): the fewest tokens whose surprise is nearest the entropy with mass typical_p.
void keep_typical(FullRow &r) {
  if (is_off(r.full->typical_p)) return;
  drop_lost(r);
  const int64_t n = r.setup->n_tokens;
  const double log_sum = log_sum_exp(r.values, n);
  const auto log_p = [&](int64_t v) { return r.values[v] - log_sum; };
  const double entropy =
      sum_in_order<double>(n, [&](int64_t v) { return r.kept[v] != 0 ? -std::exp(log_p(v)) * log_p(v) : 0.0; });
  const auto distance = [&](int64_t v) { return std::fabs(-log_p(v) - entropy); };
  const int64_t count = sort_keys(r);
  std::stable_sort(r.order, r.order + count, [&](int32_t a, int32_t b) { return distance(a) < distance(b); });
  double sum = 0;
  int64_t j = 0;
  while (j < count && (j == 0 || sum < r.full->typical_p)) sum += std::exp(log_p(r.order[j++]));
  keep_only(r, j, count);
}

}  // namespace

bool apply_after(FullRow &r) {
  const bool is_score = r.setup->rule == CHORUS_COMBINE_UNNORMALISED;
  set_keys(r);
  if (r.full->has_penalties) {  // they act on scores as they came, not on their softmax
    double offset = 0;
    if (r.setup->rule == CHORUS_COMBINE_LOG_LINEAR) {
      for (int i = 0; i < r.count; ++i) offset += r.weights[i] * r.norms[i];
    } else if (!is_score) {
      offset = -log_sum_exp(r.values, r.setup->n_tokens);
    }
    for (int64_t v = 0; v < r.setup->n_tokens; ++v) r.values[v] += offset;
  }
  apply_temperature(r);
  if (!apply_penalties(r)) return false;
  if (r.full->has_penalties) set_keys(r);
  keep_top_k(r);
  keep_top_p(r);
  keep_min_p(r);
  keep_typical(r);
  drop_lost(r);
  if (is_score) return true;
  const double log_sum = log_sum_exp(r.values, r.setup->n_tokens);
  for (int64_t v = 0; v < r.setup->n_tokens; ++v) {
    if (r.kept[v] != 0) r.values[v] -= log_sum;
  }
  return true;
}

int64_t choose_best(FullRow &r) {
  return r.full->has_exact_keys && !r.full->has_after ? argmax(r.mix) : top_of(r);
}

int64_t choose_by_draw(FullRow &r, const Draw &draw) {
  if (r.full->has_exact_keys && !r.full->has_after) return sample(r.mix, draw);
  const float top = r.keys[top_of(r)];
  uint64_t total = 0, cumulative = 0;
  for (int64_t v = 0; v < r.setup->n_tokens; ++v) total += weight_of_token(r, top, v);
  if (total == 0) return top_of(r);
  const uint64_t random = chorus_multiply_high(draw.token, total);
  for (int64_t v = 0; v < r.setup->n_tokens; ++v) {
    cumulative += weight_of_token(r, top, v);
    if (cumulative > random) return v;
  }
  return -1;
}

}  // namespace chorus::reference
