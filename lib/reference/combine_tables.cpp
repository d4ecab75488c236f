// SPDX-License-Identifier: Apache-2.0
// The tables of a row: per model kind, mask, bias, temperature, normalisation, filters, map, policy for tokens it lacks.
// Cost per model: O(n log n) with a filter, else one exponential per token.
#include <algorithm>
#include <cmath>

#include "reference/combine_full.h"

namespace chorus::reference {
namespace {

bool is_allowed(const FullRow &r, int32_t model, int64_t v) {
  if (!r.full->models[model].has_mask || r.args->masks == nullptr || r.args->masks[model] == nullptr) return true;
  const auto *words = static_cast<const uint32_t *>(row_of(*r.args->masks[model], r.row));
  return (words[v / 32] >> (v % 32) & 1u) != 0;
}

const float *bias_of(const FullRow &r, int32_t model) {
  if (!r.full->models[model].has_bias || r.args->biases == nullptr || r.args->biases[model] == nullptr) return nullptr;
  const chorus_tensor &t = *r.args->biases[model];
  return static_cast<const float *>(t.ndim == 2 ? row_of(t, r.row) : t.data);
}

// Scores on the logarithmic scale into `own`; finds what scan() of a plain model finds.
void read_scores(FullRow &r, ModelRow &m) {
  const float *bias = bias_of(r, m.index);
  m.top = -1;
  m.infinite_count = 0;
  m.has_nan = false;
  double best = -kInfinity64;
  for (int64_t v = 0; v < m.n_valid; ++v) {
    double &s = r.own[v];
    s = -kInfinity64;
    if (!is_allowed(r, m.index, v)) continue;  // whatever stands there
    const double x = raw_score(m, v);
    s = m.kind == CHORUS_SCORES_PROBS ? std::log(x) : x;  // of a negative one NaN
    if (bias != nullptr) s += static_cast<double>(bias[v]);
    m.has_nan |= is_nan(s);
    m.infinite_count += s == kInfinity64;
    if (s > best) {
      best = s;
      m.top = v;
    }
  }
  m.shape = m.top < 0                ? RowShape::kEmpty
            : m.temperature == 0.0   ? RowShape::kOneHot
            : m.infinite_count > 0   ? RowShape::kInfinite
                                     : RowShape::kRegular;
}

// Scores to log-probs, in place; returns score / T - log-prob.
double normalise(FullRow &r, const ModelRow &m) {
  if (m.shape != RowShape::kRegular) {
    const double share = m.shape == RowShape::kOneHot ? 0.0 : -std::log(static_cast<double>(m.infinite_count));
    for (int64_t v = 0; v < m.n_valid; ++v) {
      const bool is_in = m.shape == RowShape::kOneHot ? v == m.top : r.own[v] == kInfinity64;
      r.own[v] = is_in ? share : -kInfinity64;
    }
    return 0.0;
  }
  const double top = r.own[m.top];
  for (int64_t v = 0; v < m.n_valid; ++v) {
    if (r.own[v] != -kInfinity64) r.own[v] = (r.own[v] - top) / m.temperature;
  }
  const double log_sum = std::log(sum_in_order<double>(m.n_valid, [&](int64_t v) { return std::exp(r.own[v]); }));
  for (int64_t v = 0; v < m.n_valid; ++v) r.own[v] -= log_sum;
  return top / m.temperature + log_sum;
}

bool has_filter(const FullModel &f) { return f.top_k > 0 || !is_off(f.top_p) || f.plausibility > 0; }

// Marks in `passed` what the model's filters leave: the k best, then the least of those whose mass reaches top_p, then
// those with p >= plausibility max p. Equal ones: lowest id first.
void filter(FullRow &r, const FullModel &f, int64_t n) {
  int64_t count = sort_best(r.own, n, r.order);
  if (f.top_k > 0) count = std::min(count, f.top_k);
  if (!is_off(f.top_p)) {
    double total = 0, sum = 0;
    for (int64_t j = 0; j < count; ++j) total += std::exp(r.own[r.order[j]]);
    int64_t j = 0;
    while (j < count && (j == 0 || sum < f.top_p * total)) sum += std::exp(r.own[r.order[j++]]);
    count = j;
  }
  if (f.plausibility > 0) {
    const double least = r.own[r.order[0]] + std::log(f.plausibility);
    while (count > 1 && r.own[r.order[count - 1]] < least) --count;
  }
  std::fill(r.passed, r.passed + n, uint8_t{0});
  for (int64_t j = 0; j < count; ++j) r.passed[r.order[j]] = 1;
}

// The base model's filter decides which output tokens stay; another's removes its own tokens. Returns what log-probs lost.
double apply_filter(FullRow &r, const FullModel &f, const ModelRow &m) {
  filter(r, f, m.n_valid);
  if (r.full->base_model == static_cast<uint32_t>(m.index) + 1) {
    for (int64_t u = 0; u < r.setup->n_tokens; ++u) {
      bool passes = f.map_offsets == nullptr && u < m.n_valid && r.passed[u] != 0;
      for (int64_t j = f.map_offsets != nullptr ? f.map_offsets[u] : 0;
           f.map_offsets != nullptr && j < f.map_offsets[u + 1]; ++j)
        passes |= f.map_ids[j] < m.n_valid && r.passed[f.map_ids[j]] != 0;
      r.kept[u] = passes;
    }
    return 0.0;
  }
  for (int64_t v = 0; v < m.n_valid; ++v) {
    if (r.passed[v] == 0) r.own[v] = -kInfinity64;
  }
  const double log_sum = log_sum_exp(r.own, m.n_valid);
  for (int64_t v = 0; v < m.n_valid; ++v) r.own[v] -= log_sum;
  return log_sum;
}

// What a token that the model's vocabulary lacks counts as.
double lacking(const FullRow &r, const FullModel &f, int64_t n_valid) {
  const double unknown = f.unknown_id >= 0 && f.unknown_id < n_valid ? r.own[f.unknown_id] : -kInfinity64;
  switch (f.missing) {
    case CHORUS_MISSING_FLOOR: return f.missing_log_prob;
    case CHORUS_MISSING_UNKNOWN: return unknown;
    case CHORUS_MISSING_UNKNOWN_SHARED: return unknown - f.log_lacking;
    case CHORUS_MISSING_SKIP: return kSkip;
    case CHORUS_MISSING_NEUTRAL: return kNeutral;
    default: return -kInfinity64;
  }
}

// The mass of the model's tokens under output token u, summed in the order of the map.
double mapped(const FullRow &r, const FullModel &f, int64_t n_valid, int64_t u) {
  const auto entry = [&](int64_t j) {
    const double l = f.map_ids[j] < n_valid ? r.own[f.map_ids[j]] : -kInfinity64;
    if (f.map_values == nullptr || l == -kInfinity64) return l;
    return l + std::log(static_cast<double>(f.map_values[j]));
  };
  double top = -kInfinity64, sum = 0;
  for (int64_t j = f.map_offsets[u]; j < f.map_offsets[u + 1]; ++j) top = std::max(top, entry(j));
  if (top == -kInfinity64) return top;
  for (int64_t j = f.map_offsets[u]; j < f.map_offsets[u + 1]; ++j) sum += std::exp(entry(j) - top);
  return top + std::log(sum);
}

void write_table(const FullRow &r, const FullModel &f, int64_t n_valid, double *table) {
  const double otherwise = lacking(r, f, n_valid);
  for (int64_t u = 0; u < r.setup->n_tokens; ++u) {
    if (f.map_offsets == nullptr) {
      table[u] = u < n_valid ? r.own[u] : otherwise;
    } else {
      table[u] = f.map_offsets[u] == f.map_offsets[u + 1] ? otherwise : mapped(r, f, n_valid, u);
    }
  }
}

// ---- The list of neighbours as one more model ----

// False: a score is NaN. Entries outside the vocabulary are left out and set BAD_TOKEN.
bool add_neighbours(FullRow &r, double weight) {
  const chorus_combine_args &a = *r.args;
  double *table = r.tables + r.count * r.setup->n_tokens;
  std::fill(table, table + r.setup->n_tokens, -kInfinity64);
  if (a.neighbours_offsets == nullptr || a.neighbours_ids == nullptr || a.neighbours_scores == nullptr) return true;
  const int64_t begin = std::max<int64_t>(0, integer_at(*a.neighbours_offsets, r.row));
  const int64_t end = std::min(a.neighbours_ids->shape[0], integer_at(*a.neighbours_offsets, r.row + 1));
  const auto score = [&](int64_t j) {
    const double x = f32_at(*a.neighbours_scores, j);
    return r.full->neighbours_kind == CHORUS_SCORES_PROBS ? std::log(x) : x;
  };
  double top = -kInfinity64, sum = 0;
  for (int64_t j = begin; j < end; ++j) {
    const double s = score(j);
    if (is_nan(s) || s == kInfinity64) {
      r.mix.status |= CHORUS_ROW_NAN;
      return false;
    }
    const int64_t id = integer_at(*a.neighbours_ids, j);
    if (id < 0 || id >= r.setup->n_tokens) {
      r.mix.status |= CHORUS_ROW_BAD_TOKEN;
    } else {
      top = std::max(top, s);
    }
  }
  if (top == -kInfinity64) {
    r.mix.status |= CHORUS_ROW_MODEL_EMPTY;
    return true;
  }
  for (int64_t j = begin; j < end; ++j) {  // sums of probabilities relative to the best, in list order
    const int64_t id = integer_at(*a.neighbours_ids, j);
    if (id < 0 || id >= r.setup->n_tokens) continue;
    const double p = std::exp(score(j) - top);
    sum += p;
    table[id] = table[id] == -kInfinity64 ? p : table[id] + p;
  }
  for (int64_t v = 0; v < r.setup->n_tokens; ++v) {
    if (table[v] != -kInfinity64) table[v] = std::log(table[v] / sum);
  }
  r.index[r.count] = r.setup->n_models;
  r.weights[r.count] = weight;
  r.norms[r.count] = top + std::log(sum);
  ++r.count;
  return true;
}

// Whether a model without support leaves the others as they are: rules of the union, and evidence against.
bool drops_out(const FullRow &r, double weight) {
  switch (r.setup->rule) {
    case CHORUS_COMBINE_LOG_LINEAR:
    case CHORUS_COMBINE_UNNORMALISED: return weight < 0;
    case CHORUS_COMBINE_MIN: return false;
    case CHORUS_COMBINE_HOLDER: return r.full->order > 0;
    default: return true;
  }
}

}  // namespace

int64_t sort_best(const double *values, int64_t n, int32_t *order) {
  int64_t count = 0;
  for (int64_t v = 0; v < n; ++v) {
    if (values[v] > -kInfinity64) order[count++] = static_cast<int32_t>(v);
  }
  std::sort(order, order + count,
            [&](int32_t a, int32_t b) { return values[a] != values[b] ? values[a] > values[b] : a < b; });
  return count;
}

double log_sum_exp(const double *values, int64_t n) {
  double top = -kInfinity64;
  for (int64_t v = 0; v < n; ++v) top = std::max(top, values[v]);
  if (top == -kInfinity64) return top;
  return top + std::log(sum_in_order<double>(n, [&](int64_t v) { return std::exp(values[v] - top); }));
}

bool build_tables(FullRow &r) {
  Mixture &mix = r.mix;
  bool lost_support = false;
  r.count = 0;
  for (int i = 0; i < mix.count; ++i) {
    ModelRow &m = mix.models[i];
    const FullModel &f = r.full->models[m.index];
    read_scores(r, m);
    if (m.has_nan) mix.status |= CHORUS_ROW_NAN;
    if (m.infinite_count > 0) mix.status |= CHORUS_ROW_INFINITE;
    if (m.has_nan || (mix.status & CHORUS_ROW_NAN) != 0) continue;
    if (m.shape == RowShape::kEmpty) {
      if (m.weight > 0) mix.status |= CHORUS_ROW_MODEL_EMPTY;
      lost_support |= !drops_out(r, m.weight);
      continue;
    }
    r.norms[r.count] = normalise(r, m);
    if (has_filter(f)) r.norms[r.count] += apply_filter(r, f, m);
    write_table(r, f, m.n_valid, r.tables + r.count * r.setup->n_tokens);
    r.index[r.count] = m.index;
    r.weights[r.count] = m.weight;
    ++r.count;
  }
  if ((mix.status & CHORUS_ROW_NAN) != 0) return false;
  if (r.full->has_neighbours) {
    const double weight = weight_of(*r.setup, *r.args, r.row, r.setup->n_models, r.full->neighbours_weight);
    if (weight != 0.0) {
      const int before = r.count;
      if (!add_neighbours(r, weight)) return false;
      lost_support |= r.count == before && !drops_out(r, weight);
    }
  }
  const bool is_log_linear = !takes_no_negative_weight(r.setup->rule);
  if (lost_support || (r.count == 0 && !is_log_linear)) {
    mix.status |= CHORUS_ROW_EMPTY_SUPPORT;
    return false;
  }
  return true;
}

}  // namespace chorus::reference
