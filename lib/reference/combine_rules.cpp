// SPDX-License-Identifier: Apache-2.0
// The rules over a column of log-probs (one token, all models) and over whole rankings. docs/numerics.md, "Combining".
#include <algorithm>
#include <cmath>

#include "reference/combine_full.h"

namespace chorus::reference {
namespace {

// The models that count for one token, with normalised weights of the row.
struct Column {
  int count = 0;
  double l[kMostTables], weights[kMostTables];
};

double sum_of_magnitudes(const FullRow &r) {
  double sum = 0;
  for (int i = 0; i < r.count; ++i) sum += std::fabs(r.weights[i]);
  return sum;
}

// Models that skip the token leave their weight to the others, in proportion; a neutral one is left out as it is.
Column column_of(const FullRow &r, double all, int64_t v) {
  Column c;
  double present = 0;
  bool skips = false;
  for (int i = 0; i < r.count; ++i) {
    const double l = r.table(i)[v];
    if (is_nan(l)) {
      skips = true;
      continue;
    }
    present += std::fabs(r.weights[i]);
    if (l == kNeutral) continue;
    c.l[c.count] = l;
    c.weights[c.count++] = r.weights[i];
  }
  for (int i = 0; skips && i < c.count; ++i) c.weights[i] *= all / present;
  return c;
}

double highest(const Column &c) {
  double top = -kInfinity64;
  for (int i = 0; i < c.count; ++i) top = std::max(top, c.l[i]);
  return top;
}

double lowest(const Column &c) {
  double bottom = c.count > 0 ? kInfinity64 : -kInfinity64;
  for (int i = 0; i < c.count; ++i) bottom = std::min(bottom, c.l[i]);
  return bottom;
}

// log sum (w / all) exp(l), all the weight of the row: what a model lacks is missed.
double linear(const Column &c, double all) {
  const double top = highest(c);
  if (top == -kInfinity64) return top;
  double sum = 0;
  for (int i = 0; i < c.count; ++i) sum += c.weights[i] / all * std::exp(c.l[i] - top);
  return top + std::log(sum);
}

// sum w l; a missing token of positive weight takes it out, of negative weight is neutral.
double log_linear(const FullRow &r, const Column &c) {
  double t = 0;
  bool has_positive = false, wants_positive = false;
  for (int i = 0; i < r.count; ++i) wants_positive |= r.weights[i] > 0;
  for (int i = 0; i < c.count; ++i) {
    has_positive |= c.weights[i] > 0;
    if (c.l[i] == -kInfinity64) {
      if (c.weights[i] > 0) return -kInfinity64;
    } else {
      t += c.weights[i] * c.l[i];
    }
  }
  return wants_positive && !has_positive ? -kInfinity64 : t;
}

// log (sum w p^r)^(1/r) with sum w = 1 over the column. Near r = 0 by expm1 and log1p: the plain form would divide a
// rounding error by r.
double holder(const Column &c, double order) {
  const double top = highest(c), bottom = lowest(c);
  if (top == -kInfinity64 || (order <= 0 && bottom == -kInfinity64)) return -kInfinity64;
  if (order == kInfinity64) return top;
  if (order == -kInfinity64) return bottom;
  double all = 0, sum = 0;
  for (int i = 0; i < c.count; ++i) all += c.weights[i];
  if (order == 0) {
    for (int i = 0; i < c.count; ++i) sum += c.weights[i] / all * c.l[i];
    return sum;
  }
  const double from = order > 0 ? top : bottom;
  if (std::fabs(order) * (top - bottom) < 0.5) {
    for (int i = 0; i < c.count; ++i) sum += c.weights[i] / all * std::expm1(order * (c.l[i] - from));
    return from + std::log1p(sum) / order;
  }
  for (int i = 0; i < c.count; ++i) sum += c.weights[i] / all * std::exp(order * (c.l[i] - from));
  return from + std::log(sum) / order;
}

// Of an even number: the mean probability of the middle two.
double median(Column c) {
  if (c.count == 0) return -kInfinity64;
  std::sort(c.l, c.l + c.count);
  const double high = c.l[c.count / 2], low = c.l[(c.count - 1) / 2];
  if (high == -kInfinity64) return high;
  return high + std::log((1.0 + std::exp(low - high)) / 2.0);
}

// Weighted mean without the `trim` highest and lowest; at least one model (the middle ones) stays.
double trimmed_mean(const Column &c, int32_t trim) {
  if (c.count == 0) return -kInfinity64;
  int order[kMostTables];
  for (int i = 0; i < c.count; ++i) order[i] = i;
  std::stable_sort(order, order + c.count, [&](int a, int b) { return c.l[a] < c.l[b]; });
  const int cut = std::min(trim, (c.count - 1) / 2);
  Column rest;
  double all = 0;
  for (int i = cut; i < c.count - cut; ++i) {
    rest.l[rest.count] = c.l[order[i]];
    rest.weights[rest.count++] = c.weights[order[i]];
    all += c.weights[order[i]];
  }
  return linear(rest, all);
}

// ---- Rules over rankings: `values` holds points until the end ----

// Calls visit(model, rank, token) for the model's best vote_k tokens, best first. Skipped and neutral entries have no rank.
template <typename Visit>
void for_ranks(FullRow &r, int i, int64_t k, const Visit &visit) {
  const int64_t n = r.setup->n_tokens;
  for (int64_t v = 0; v < n; ++v) {
    const double l = r.table(i)[v];
    r.own[v] = l < kInfinity64 ? l : -kInfinity64;  // NaN too
  }
  const int64_t count = std::min(k, sort_best(r.own, n, r.order));
  for (int64_t rank = 0; rank < count; ++rank) visit(rank, r.order[rank]);
}

// weight * (k - rank) points to each model's best k tokens; k = 1 is a majority vote.
void give_points(FullRow &r, int64_t k) {
  std::fill(r.values, r.values + r.setup->n_tokens, 0.0);
  for (int i = 0; i < r.count; ++i)
    for_ranks(r, i, k, [&](int64_t rank, int32_t v) { r.values[v] += r.weights[i] * static_cast<double>(k - rank); });
}

// How much more weight prefers a to b than b to a. A token outside a model's best k is behind all of them.
double preference(const FullRow &r, int64_t k, int64_t a, int64_t b) {
  double sum = 0;
  for (int i = 0; i < r.count; ++i) {
    const double *l = r.table(i);
    const auto is_counted = [](double x) { return x < kInfinity64 && x > -kInfinity64; };
    const bool has_a = is_counted(l[a]), has_b = is_counted(l[b]);
    const bool a_first = has_a && (!has_b || l[a] > l[b] || (l[a] == l[b] && a < b));
    const bool b_first = has_b && !a_first;
    if (!a_first && !b_first) continue;
    const double better = a_first ? l[a] : l[b];
    const int64_t better_id = a_first ? a : b;
    int64_t rank = 0;  // of the better one: below k it is listed
    for (int64_t v = 0; v < r.setup->n_tokens && rank < k; ++v)
      rank += is_counted(l[v]) && (l[v] > better || (l[v] == better && v < better_id));
    if (rank < k) sum += a_first ? r.weights[i] : -r.weights[i];
  }
  return sum;
}

// The token that beats every other listed one takes all. After give_points(): a listed token has points.
void find_winner(FullRow &r, int64_t k) {
  const int64_t n = r.setup->n_tokens;
  int64_t winner = -1;
  for (int64_t v = 0; v < n; ++v) {
    if (r.values[v] > 0 && (winner < 0 || preference(r, k, winner, v) <= 0)) winner = v;
  }
  for (int64_t v = 0; v < n && winner >= 0; ++v) {
    if (v != winner && r.values[v] > 0 && preference(r, k, winner, v) <= 0) winner = -1;
  }
  if (winner < 0) return;  // the points decide
  std::fill(r.values, r.values + n, 0.0);
  r.values[winner] = 1.0;
}

}  // namespace

void apply_rule(FullRow &r) {
  const int64_t n = r.setup->n_tokens;
  const chorus_combine_rule rule = r.setup->rule;
  const double all = sum_of_magnitudes(r);
  if (rule == CHORUS_COMBINE_VOTE || rule == CHORUS_COMBINE_RANK_VOTE || rule == CHORUS_COMBINE_CONDORCET) {
    const int64_t k = rule == CHORUS_COMBINE_VOTE ? 1 : r.full->vote_k;
    give_points(r, k);
    if (rule == CHORUS_COMBINE_CONDORCET) find_winner(r, k);
    for (int64_t v = 0; v < n; ++v) r.values[v] = std::log(r.values[v]);
  }
  for (int64_t v = 0; v < n; ++v) {
    double &value = r.values[v];
    switch (rule) {
      case CHORUS_COMBINE_LINEAR: value = linear(column_of(r, all, v), all); break;
      case CHORUS_COMBINE_LOG_LINEAR:
      case CHORUS_COMBINE_UNNORMALISED: value = log_linear(r, column_of(r, all, v)); break;
      case CHORUS_COMBINE_HOLDER: value = holder(column_of(r, all, v), r.full->order); break;
      case CHORUS_COMBINE_MAX: value = highest(column_of(r, all, v)); break;
      case CHORUS_COMBINE_MIN: value = lowest(column_of(r, all, v)); break;
      case CHORUS_COMBINE_MEDIAN: value = median(column_of(r, all, v)); break;
      case CHORUS_COMBINE_TRIMMED_MEAN: value = trimmed_mean(column_of(r, all, v), r.full->trim); break;
      default: break;
    }
    if (r.kept[v] == 0) value = -kInfinity64;
    r.kept[v] = value > -kInfinity64;
  }
}

}  // namespace chorus::reference
