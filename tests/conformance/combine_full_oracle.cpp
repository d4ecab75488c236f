// SPDX-License-Identifier: Apache-2.0
// See combine_full_oracle.h.
#include "conformance/combine_full_oracle.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "conformance/check.h"

namespace conformance {
namespace {

using Real = long double;
using Row = std::vector<Real>;
constexpr Real kOff = -std::numeric_limits<Real>::infinity();
constexpr Real kSkip = -1, kNeutral = -2;  // entries of a model's row that are no probabilities

Real sum_of(const Row &p) {
  return std::accumulate(p.begin(), p.end(), Real{0}, [](Real a, Real b) { return b > 0 ? a + b : a; });
}

void normalise(Row &p) {
  const Real sum = sum_of(p);
  for (Real &x : p) {
    if (x > 0) x /= sum;
  }
}

// Ids of positive entries, best first.
std::vector<size_t> ranking(const Row &p) {
  std::vector<size_t> ids;
  for (size_t v = 0; v < p.size(); ++v) {
    if (p[v] > 0) ids.push_back(v);
  }
  std::stable_sort(ids.begin(), ids.end(), [&](size_t a, size_t b) { return p[a] > p[b]; });
  return ids;
}

bool is_close(Real a, Real b) { return fabsl(a - b) <= 3e-6L * std::max(fabsl(a), fabsl(b)); }

// Keeps the first `count` of a ranking; a close call where the next is as good to rounding, but not exactly.
void keep(Row &p, const std::vector<size_t> &ids, size_t count, bool &close) {
  if (count < ids.size() && count > 0 && p[ids[count]] != p[ids[count - 1]]) close |= is_close(p[ids[count]], p[ids[count - 1]]);
  for (size_t j = count; j < ids.size(); ++j) p[ids[j]] = 0;
}

void keep_top_k(Row &p, int64_t k, bool &close) {
  const auto ids = ranking(p);
  if (k > 0) keep(p, ids, std::min(ids.size(), static_cast<size_t>(k)), close);
}

void keep_top_p(Row &p, double share, bool &close) {
  if (share == 0 || share == 1) return;
  const auto ids = ranking(p);
  const Real wanted = share * sum_of(p);
  Real sum = 0;
  size_t count = 0;
  while (count < ids.size() && (count == 0 || sum < wanted)) {
    sum += p[ids[count++]];
    close |= fabsl(sum - wanted) <= 3e-6L * wanted;
  }
  keep(p, ids, count, close);
}

void keep_share_of_best(Row &p, double share, bool &close) {
  if (share == 0) return;
  const Real least = share * *std::max_element(p.begin(), p.end());
  for (Real &x : p) {
    close |= x != least && is_close(x, least);
    if (x < least) x = 0;
  }
}

// ---- A model ----

struct Model {
  Row own;     // probabilities of its tokens
  Row table;   // in the output vocabulary
  Real weight;
  Row scores;  // s / T of the output vocabulary, for penalties
  Row kept;    // of a base model: what its filter leaves
};

bool is_lacking(const ModelScores &m, int64_t u) {
  if (m.map_offsets.empty()) return u >= m.n_valid;
  return m.map_offsets[static_cast<size_t>(u)] == m.map_offsets[static_cast<size_t>(u) + 1];
}

Real entry(const ModelScores &m, const Row &own, int64_t u) {
  if (m.map_offsets.empty()) return own[static_cast<size_t>(u)];
  Real sum = 0;
  for (auto j = static_cast<size_t>(m.map_offsets[static_cast<size_t>(u)]);
       j < static_cast<size_t>(m.map_offsets[static_cast<size_t>(u) + 1]); ++j) {
    const auto id = static_cast<size_t>(m.map_ids[j]);
    if (id < own.size()) sum += (m.map_values.empty() ? 1 : Real{m.map_values[j]}) * own[id];
  }
  return sum;
}

// Reads scores; false: NaN.
bool read(const CombineProblem &p, const ModelScores &m, double temperature, int64_t row, Model &out, uint32_t &status) {
  Row s;
  for (int64_t v = 0; v < m.n_valid; ++v) {
    const auto word = static_cast<size_t>(row * ((m.n_logits + 31) / 32) + v / 32);
    if (!m.mask.empty() && (static_cast<uint32_t>(m.mask[word]) >> (v % 32) & 1) == 0) {
      s.push_back(kOff);
      continue;
    }
    const Real x = rounded(m.dtype, m.scores[static_cast<size_t>(row * m.n_logits + v)]);
    Real score = m.kind == CHORUS_SCORES_PROBS ? logl(x) : x;
    if (!m.bias.empty()) {
      const bool per_row = static_cast<int64_t>(m.bias.size()) == p.rows * m.n_logits && p.rows > 1;
      score += rounded(CHORUS_F32, m.bias[static_cast<size_t>((per_row ? row * m.n_logits : 0) + v)]);
    }
    s.push_back(score);
  }
  for (Real x : s) {
    if (std::isnan(x)) status |= CHORUS_ROW_NAN;
    if (x == -kOff) status |= CHORUS_ROW_INFINITE;
  }
  if ((status & CHORUS_ROW_NAN) != 0) return false;
  const auto top = std::max_element(s.begin(), s.end());
  out.own.assign(s.size(), 0);
  if (*top == kOff) return true;
  for (size_t v = 0; v < s.size(); ++v) {
    if (temperature == 0) {
      out.own[v] = v == static_cast<size_t>(top - s.begin());
    } else if (*top == -kOff) {
      out.own[v] = s[v] == -kOff;
    } else {
      out.own[v] = s[v] == kOff ? 0 : expl((s[v] - *top) / temperature);
    }
  }
  normalise(out.own);
  for (Real x : s) out.scores.push_back(temperature > 0 ? x / temperature : x);
  out.scores.resize(static_cast<size_t>(std::max<int64_t>(p.n_tokens, m.n_valid)), 0);
  return true;
}

void to_output(const CombineProblem &p, const ModelScores &m, bool is_base, Model &out, bool &close) {
  Row filtered = out.own;
  keep_top_k(filtered, m.top_k, close);
  keep_top_p(filtered, m.top_p, close);
  keep_share_of_best(filtered, m.plausibility, close);
  if (is_base) {
    for (int64_t u = 0; u < p.n_tokens; ++u) out.kept.push_back(is_lacking(m, u) ? 0 : entry(m, filtered, u));
  } else {
    out.own = filtered;
    normalise(out.own);
  }
  int64_t lacking = 0;
  for (int64_t u = 0; u < p.n_tokens; ++u) lacking += is_lacking(m, u);
  const Real unknown = out.own[static_cast<size_t>(m.unknown_id)];
  for (int64_t u = 0; u < p.n_tokens; ++u) {
    if (!is_lacking(m, u)) {
      out.table.push_back(entry(m, out.own, u));
      continue;
    }
    switch (m.missing) {
      case CHORUS_MISSING_FLOOR: out.table.push_back(expl(m.missing_log_prob)); break;
      case CHORUS_MISSING_UNKNOWN: out.table.push_back(unknown); break;
      case CHORUS_MISSING_UNKNOWN_SHARED: out.table.push_back(unknown / lacking); break;
      case CHORUS_MISSING_SKIP: out.table.push_back(kSkip); break;
      case CHORUS_MISSING_NEUTRAL: out.table.push_back(kNeutral); break;
      default: out.table.push_back(0);
    }
  }
}

// ---- The rules, on the probabilities of one token ----

struct Column {
  Row p, w;
};

Column column_of(const std::vector<Model> &models, size_t v) {
  Column c;
  Real all = 0, counted = 0;
  for (const Model &m : models) {
    all += fabsl(m.weight);
    if (m.table[v] != kSkip) counted += fabsl(m.weight);
    if (m.table[v] < 0) continue;
    c.p.push_back(m.table[v]);
    c.w.push_back(m.weight);
  }
  if (counted < all) {
    for (Real &w : c.w) w *= all / counted;
  }
  return c;
}

Real mean(const Column &c, Real all) {
  Real sum = 0;
  for (size_t i = 0; i < c.p.size(); ++i) sum += c.w[i] * c.p[i];
  return sum / all;
}

Real holder(const Column &c, Real r) {
  if (c.p.empty()) return 0;
  const auto [low, high] = std::minmax_element(c.p.begin(), c.p.end());
  if (*high == 0 || (r <= 0 && *low == 0)) return 0;
  if (std::isinf(r)) return r > 0 ? *high : *low;
  Real all = 0, sum = 0;
  for (Real w : c.w) all += w;
  for (size_t i = 0; i < c.p.size(); ++i) sum += c.w[i] / all * (r == 0 ? logl(c.p[i]) : powl(c.p[i] / *high, r));
  return r == 0 ? expl(sum) : *high * powl(sum, 1 / r);
}

Real of_sorted(const CombineProblem &p, const Column &c) {
  std::vector<size_t> order(c.p.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return c.p[a] < c.p[b]; });
  const size_t n = order.size();
  if (n == 0) return 0;
  if (p.rule == CHORUS_COMBINE_MEDIAN) return (c.p[order[n / 2]] + c.p[order[(n - 1) / 2]]) / 2;
  const size_t cut = std::min(static_cast<size_t>(p.options.trim), (n - 1) / 2);
  Real sum = 0, all = 0;
  for (size_t j = cut; j < n - cut; ++j) {
    sum += c.w[order[j]] * c.p[order[j]];
    all += c.w[order[j]];
  }
  return sum / all;
}

// Log of the product of powers.
Real log_linear(const std::vector<Model> &models, const Column &c) {
  Real t = 0;
  bool wants = false, has = false;
  for (const Model &m : models) wants |= m.weight > 0;
  for (size_t i = 0; i < c.p.size(); ++i) {
    has |= c.w[i] > 0;
    if (c.p[i] == 0 && c.w[i] > 0) return kOff;
    if (c.p[i] > 0) t += c.w[i] * logl(c.p[i]);
  }
  return wants && !has ? kOff : t;
}

Row votes(const CombineProblem &p, const std::vector<Model> &models) {
  const size_t k = p.rule == CHORUS_COMBINE_VOTE ? 1 : static_cast<size_t>(p.options.vote_k);
  Row points(static_cast<size_t>(p.n_tokens), 0);
  std::vector<std::vector<size_t>> lists;
  for (const Model &m : models) {
    lists.push_back(ranking(m.table));
    lists.back().resize(std::min(lists.back().size(), k));
    for (size_t rank = 0; rank < lists.back().size(); ++rank) points[lists.back()[rank]] += m.weight * static_cast<Real>(k - rank);
  }
  if (p.rule != CHORUS_COMBINE_CONDORCET) return points;
  for (size_t a = 0; a < points.size(); ++a) {
    bool wins = points[a] > 0;
    for (size_t b = 0; b < points.size() && wins; ++b) {
      if (b == a || points[b] == 0) continue;
      Real balance = 0;
      for (size_t i = 0; i < lists.size(); ++i) {
        const auto place = [&](size_t v) { return std::find(lists[i].begin(), lists[i].end(), v) - lists[i].begin(); };
        balance += place(a) < place(b) ? models[i].weight : place(b) < place(a) ? -models[i].weight : 0;
      }
      wins = balance > 0;
    }
    if (wins) {
      Row winner(points.size(), 0);
      winner[a] = 1;
      return winner;
    }
  }
  return points;
}

// Logs of the combination; scores for the unnormalised rule.
Row combined(const CombineProblem &p, const std::vector<Model> &models) {
  Row t;
  const bool is_log = p.rule == CHORUS_COMBINE_LOG_LINEAR || p.rule == CHORUS_COMBINE_UNNORMALISED;
  const bool is_vote = p.rule == CHORUS_COMBINE_VOTE || p.rule == CHORUS_COMBINE_RANK_VOTE || p.rule == CHORUS_COMBINE_CONDORCET;
  const Row points = is_vote ? votes(p, models) : Row();
  Real all = 0;
  for (const Model &m : models) all += m.weight;
  for (size_t v = 0; v < static_cast<size_t>(p.n_tokens); ++v) {
    const Column c = column_of(models, v);
    if (is_log) {
      t.push_back(log_linear(models, c));
      continue;
    }
    Real x = 0;
    switch (p.rule) {
      case CHORUS_COMBINE_LINEAR: x = mean(c, all); break;
      case CHORUS_COMBINE_HOLDER: x = holder(c, p.options.order); break;
      case CHORUS_COMBINE_MAX: x = c.p.empty() ? 0 : *std::max_element(c.p.begin(), c.p.end()); break;
      case CHORUS_COMBINE_MIN: x = c.p.empty() ? 0 : *std::min_element(c.p.begin(), c.p.end()); break;
      case CHORUS_COMBINE_MEDIAN:
      case CHORUS_COMBINE_TRIMMED_MEAN: x = of_sorted(p, c); break;
      default: x = points[v];
    }
    t.push_back(x > 0 ? logl(x) : kOff);
  }
  return t;
}

// ---- After the rule ----

Row softmax(const Row &t) {
  const Real top = *std::max_element(t.begin(), t.end());
  Row p;
  for (Real x : t) p.push_back(x == kOff ? 0 : expl(x - top));
  normalise(p);
  return p;
}

void keep_typical(Row &p, double share, bool &close) {
  if (share == 0 || share == 1) return;
  normalise(p);
  Real entropy = 0;
  for (Real x : p) entropy -= x > 0 ? x * logl(x) : 0;
  auto ids = ranking(p);
  const auto distance = [&](size_t v) { return fabsl(-logl(p[v]) - entropy); };
  std::stable_sort(ids.begin(), ids.end(), [&](size_t a, size_t b) { return distance(a) < distance(b); });
  Real sum = 0;
  size_t count = 0;
  while (count < ids.size() && (count == 0 || sum < share)) sum += p[ids[count++]];
  close |= fabsl(sum - share) < 1e-5L || fabsl(sum - p[ids[count - 1]] - share) < 1e-5L;
  if (count < ids.size() && distance(ids[count]) != distance(ids[count - 1]))
    close |= fabsl(distance(ids[count]) - distance(ids[count - 1])) < 1e-5L;
  for (size_t j = count; j < ids.size(); ++j) p[ids[j]] = 0;
}

// Penalties act on sum w s / T of raw scores (log-linear), on scores, else on log-probs.
void penalise(const CombineProblem &p, int64_t row, Row &t) {
  const CombineOptions &o = p.options;
  if (o.penalties.empty()) return;
  const auto at = static_cast<size_t>(row);
  const Real repetition = rounded(CHORUS_F32, o.penalties[3 * at]), presence = rounded(CHORUS_F32, o.penalties[3 * at + 1]);
  const Real frequency = rounded(CHORUS_F32, o.penalties[3 * at + 2]);
  std::vector<int> seen(t.size(), 0);
  for (auto j = static_cast<size_t>(o.history_offsets[at]); j < static_cast<size_t>(o.history_offsets[at + 1]); ++j) {
    if (o.history_ids[j] >= 0 && o.history_ids[j] < static_cast<double>(t.size())) ++seen[static_cast<size_t>(o.history_ids[j])];
  }
  for (size_t v = 0; v < t.size(); ++v) {
    if (seen[v] == 0 || t[v] == kOff) continue;
    t[v] = (t[v] > 0 ? t[v] / repetition : t[v] * repetition) - presence - frequency * seen[v];
  }
}

void finish(const CombineProblem &p, int64_t row, const std::vector<Model> &models, Row t, FullOracle &out) {
  const CombineOptions &o = p.options;
  const bool is_score = p.rule == CHORUS_COMBINE_UNNORMALISED;
  if (!o.penalties.empty() && p.rule == CHORUS_COMBINE_LOG_LINEAR) {
    for (const Model &m : models) {  // what separates raw scores from log-probs, at a token that has both
      for (size_t v = 0; v < m.own.size(); ++v) {
        if (m.own[v] <= 0) continue;
        const Real offset = m.scores[v] - logl(m.own[v]);
        for (Real &x : t) x += m.weight * offset;
        break;
      }
    }
  } else if (!is_score) {
    t = softmax(t);
    for (Real &x : t) x = x > 0 ? logl(x) : kOff;
  }
  if (o.temperature == 0) {
    const auto best = std::max_element(t.begin(), t.end());
    for (auto it = t.begin(); it != t.end(); ++it) {
      if (it != best && *it != kOff) {
        out.is_close_call |= *it != *best && fabsl(*it - *best) < 1e-5L;
        *it = kOff;
      }
    }
  } else {
    for (Real &x : t) x /= o.temperature;
  }
  penalise(p, row, t);
  Row q = softmax(t);
  keep_top_k(q, o.top_k, out.is_close_call);
  keep_top_p(q, o.top_p, out.is_close_call);
  keep_share_of_best(q, o.min_p, out.is_close_call);
  keep_typical(q, o.typical_p, out.is_close_call);
  normalise(q);
  for (size_t v = 0; v < q.size(); ++v) out.l.push_back(q[v] <= 0 ? kOff : is_score ? t[v] : logl(q[v]));
}

bool add_neighbours(const CombineProblem &p, int64_t row, Real weight, std::vector<Model> &models, FullOracle &out) {
  const CombineOptions &o = p.options;
  Model m;
  m.weight = weight;
  m.table.assign(static_cast<size_t>(p.n_tokens), 0);
  const auto begin = static_cast<size_t>(o.neighbours_offsets[static_cast<size_t>(row)]);
  const auto end = static_cast<size_t>(o.neighbours_offsets[static_cast<size_t>(row) + 1]);
  const auto score = [&](size_t j) {
    const Real x = rounded(CHORUS_F32, o.neighbours_scores[j]);
    return o.neighbours_kind == CHORUS_SCORES_PROBS ? logl(x) : x;
  };
  Real top = kOff;
  for (size_t j = begin; j < end; ++j) {
    const double id = o.neighbours_ids[j];
    if (std::isnan(score(j))) {
      out.status |= CHORUS_ROW_NAN;
      return true;
    }
    if (id < 0 || id >= static_cast<double>(p.n_tokens)) {
      out.status |= CHORUS_ROW_BAD_TOKEN;
    } else {
      top = std::max(top, score(j));
    }
  }
  if (top == kOff) {
    out.status |= CHORUS_ROW_MODEL_EMPTY;
    return false;
  }
  for (size_t j = begin; j < end; ++j) {
    const double id = o.neighbours_ids[j];
    if (id >= 0 && id < static_cast<double>(p.n_tokens)) m.table[static_cast<size_t>(id)] += expl(score(j) - top);
  }
  normalise(m.table);
  models.push_back(m);
  return true;
}

FullOracle invalid(FullOracle out, uint32_t bit, size_t n_tokens) {
  out.status |= bit;
  out.is_valid = false;
  out.l.assign(n_tokens, bit == CHORUS_ROW_EMPTY_SUPPORT ? kOff : std::numeric_limits<Real>::quiet_NaN());
  return out;
}

}  // namespace

FullOracle full_oracle(const CombineProblem &p, int64_t row) {
  FullOracle out;
  const auto n = static_cast<size_t>(p.n_tokens), count = p.models.size();
  const size_t columns = count + (p.options.has_neighbours ? 1 : 0);
  const bool any_sign = p.rule == CHORUS_COMBINE_LOG_LINEAR || p.rule == CHORUS_COMBINE_UNNORMALISED;
  const auto weight = [&](size_t i, double otherwise) {
    return p.weights.empty() ? otherwise : rounded(CHORUS_F32, p.weights[(p.weight_rows ? static_cast<size_t>(row) * columns : 0) + i]);
  };
  std::vector<Model> models;
  bool lost = false, any = false;
  out.models.resize(count);
  out.weights.resize(count, 0);
  for (size_t i = 0; i < columns; ++i) {
    const double w = i < count ? weight(i, p.models[i].weight) : weight(i, p.options.neighbours_weight);
    if (!std::isfinite(w) || (w < 0 && !any_sign)) return invalid(out, CHORUS_ROW_BAD_WEIGHT, n);
    any |= w != 0;
    if (static_cast<int64_t>(i) == p.options.base_model && w == 0) return invalid(out, CHORUS_ROW_BAD_WEIGHT, n);
  }
  if (!any && !any_sign) return invalid(out, CHORUS_ROW_BAD_WEIGHT, n);
  Row allowed(n, 1);
  const auto drops = [&](double w) {
    if (any_sign) return w < 0;
    return p.rule != CHORUS_COMBINE_MIN && !(p.rule == CHORUS_COMBINE_HOLDER && !(p.options.order > 0));
  };
  for (size_t i = 0; i < count; ++i) {
    const ModelScores &m = p.models[i];
    const double w = weight(i, m.weight);
    if (w == 0) continue;
    Model made;
    made.weight = w;
    const double t = p.temperatures.empty() ? m.temperature : p.temperatures[i];
    if (!read(p, m, t, row, made, out.status)) continue;
    if (sum_of(made.own) == 0) {
      if (w > 0) out.status |= CHORUS_ROW_MODEL_EMPTY;
      lost |= !drops(w);
      continue;
    }
    const bool is_base = p.options.base_model == static_cast<int32_t>(i);
    to_output(p, m, is_base, made, out.is_close_call);
    if (is_base && (m.top_k > 0 || (m.top_p != 0 && m.top_p != 1) || m.plausibility > 0)) allowed = made.kept;
    if (!is_base) made.kept.clear();
    out.models[i] = made.table;
    out.weights[i] = w;
    models.push_back(std::move(made));
  }
  if ((out.status & CHORUS_ROW_NAN) != 0) return invalid(out, 0, n);
  if (p.options.has_neighbours) {
    const double w = weight(count, p.options.neighbours_weight);
    if (w != 0) lost |= !add_neighbours(p, row, w, models, out) && !drops(w);
  }
  if ((out.status & CHORUS_ROW_NAN) != 0) return invalid(out, 0, n);
  if (lost || (models.empty() && !any_sign)) return invalid(out, CHORUS_ROW_EMPTY_SUPPORT, n);
  Row t = combined(p, models);
  for (size_t v = 0; v < n; ++v) {
    if (allowed[v] <= 0) t[v] = kOff;
  }
  if (*std::max_element(t.begin(), t.end()) == kOff) return invalid(out, CHORUS_ROW_EMPTY_SUPPORT, n);
  out.p = softmax(t);
  if (!p.options.penalties.empty()) {
    const auto at = 3 * static_cast<size_t>(row);
    const double r = p.options.penalties[at];
    if (!(r > 0) || !std::isfinite(r) || !std::isfinite(p.options.penalties[at + 1]) || !std::isfinite(p.options.penalties[at + 2]))
      return invalid(out, CHORUS_ROW_BAD_WEIGHT, n);
  }
  finish(p, row, models, t, out);
  return out;
}

}  // namespace conformance
