// SPDX-License-Identifier: Apache-2.0
// One row of route.topk. Keys are integers that order as the contract does (NaN below all); the k best are found without
// sorting: the k-th best of a few running maxima bounds the k-th best of the row from below, the handful of keys that
// reach it are ranked by counting. Cost: O(E) vector operations, and O(c^2 / lanes) for the c candidates, c about 3 k.
#include "cpu/route_topk.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/route_row.cpp"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "cpu/hwy_compat.h"
#include "cpu/route_math.h"

HWY_BEFORE_NAMESPACE();
namespace chorus::cpu {
namespace HWY_NAMESPACE {

using F = hn::ScalableTag<float>;
using I = hn::ScalableTag<int32_t>;
constexpr int32_t kPadding = INT32_MIN;  // key of no expert
constexpr int32_t kNanKey = INT32_MIN + 1;
constexpr int32_t kMostCandidates = 128;

HWY_INLINE int32_t lanes() { return static_cast<int32_t>(hn::Lanes(F())); }

// Calls body(first element) for each vector of a padded row.
template <class Body>
HWY_INLINE void vectors(int32_t padded, const Body &body) {
  for (int32_t e = 0; e < padded; e += lanes()) body(e);
}

template <class T>
void load_row(const T *from, int32_t n, int32_t padded, float *to) {
  const F d;
  const int32_t whole = n / lanes() * lanes();
  for (int32_t e = 0; e < whole; e += lanes()) hn::Store(load_f32(d, from + e), d, to + e);
  if (whole < n) hn::Store(load_f32(d, from + whole, static_cast<size_t>(n - whole)), d, to + whole);
  std::fill(to + n, to + padded, std::numeric_limits<float>::quiet_NaN());
}

void load_row(const RowJob &job, const void *from, float *to) {
  const chorus_route_desc &desc = *job.desc;
  const int32_t n = desc.n_experts, padded = padded_experts(n);
  switch (desc.logits_dtype) {
    case CHORUS_F16: return load_row(static_cast<const hwy::float16_t *>(from), n, padded, to);
    case CHORUS_BF16: return load_row(static_cast<const hwy::bfloat16_t *>(from), n, padded, to);
    default: return load_row(static_cast<const float *>(from), n, padded, to);
  }
}

// ---- Scores ----

HWY_INLINE float highest(const float *x, int32_t padded) {
  const F d;
  const auto least = hn::Set(d, -kRouteInfinity);
  auto top = least;
  vectors(padded, [&](int32_t e) HWY_ATTR {
    const auto v = hn::Load(d, x + e);
    top = hn::Max(top, hn::IfThenElse(hn::IsNaN(v), least, v));
  });
  return hn::GetLane(hn::MaxOfLanes(d, top));
}

// e^(x - top), 0 for NaN, and the sum in the order of docs/numerics.md, "Reductions".
float exponentials(const float *x, int32_t padded, float top, float *out) {
  const F d;
  const auto shift = hn::Set(d, top);
  float blocks[kRouteMaxExperts / CHORUS_BLOCK];
  int32_t n_blocks = 0;
  for (int32_t begin = 0; begin < padded; begin += CHORUS_BLOCK) {
    HWY_ALIGN float sums[CHORUS_LANES] = {};
    const int32_t end = std::min<int32_t>(padded, begin + CHORUS_BLOCK);
    for (int32_t e = begin; e < end; e += CHORUS_LANES) {
      for (int32_t lane = 0; lane < CHORUS_LANES; lane += lanes()) {
        const auto v = hn::Load(d, x + e + lane);
        const auto y = hn::IfThenElse(hn::IsNaN(v), hn::Zero(d), exp_of_negative(d, hn::Sub(v, shift)));
        hn::Store(y, d, out + e + lane);
        hn::Store(hn::Add(hn::Load(d, sums + lane), y), d, sums + lane);
      }
    }
    blocks[n_blocks++] = join_pairwise(sums, CHORUS_LANES);
  }
  return join_pairwise(blocks, n_blocks);
}

// softmax of a padded row, NaN beyond its end. Returns the divisor that is still to come, 1 when none is.
float softmax_but_division(const float *x, int32_t count, int32_t padded, float *out) {
  const float top = highest(x, padded);
  if (!std::isinf(top)) return exponentials(x, padded, top, out);
  softmax(x, count, out);
  return 1.0f;
}

void divide(float *x, int32_t padded, float divisor) {
  const F d;
  vectors(padded, [&](int32_t e) HWY_ATTR { hn::Store(hn::Div(hn::Load(d, x + e), hn::Set(d, divisor)), d, x + e); });
}

void score_row(chorus_route_score score, const float *x, int32_t count, int32_t padded, float *out) {
  const F d;
  if (score == CHORUS_ROUTE_SIGMOID) {
    vectors(padded, [&](int32_t e) HWY_ATTR { hn::Store(exact_sigmoid(d, hn::Load(d, x + e)), d, out + e); });
  } else if (score == CHORUS_ROUTE_RELU) {
    vectors(padded, [&](int32_t e) HWY_ATTR {
      const auto v = hn::Load(d, x + e);
      hn::Store(hn::IfThenElse(hn::Lt(v, hn::Zero(d)), hn::Zero(d), v), d, out + e);
    });
  } else {
    for (int32_t e = 0; e < count; ++e) out[e] = score_of(score, x[e]);
  }
}

// ---- Keys ----

// Patterns of floats as integers that order as they do, -0 as +0.
template <class V>
HWY_INLINE hn::Vec<I> order_key(V x) {
  const F d;
  const I i;
  const auto bits = hn::BitCast(i, hn::Add(x, hn::Zero(d)));  // -0 + 0 is +0
  const auto flipped = hn::Xor(bits, hn::And(hn::ShiftRight<31>(bits), hn::Set(i, 0x7fffffff)));
  return hn::IfThenElse(hn::RebindMask(i, hn::IsNaN(x)), hn::Set(i, kNanKey), flipped);
}

void order_keys(const float *values, int32_t count, int32_t padded, int32_t *keys) {
  const F d;
  const I i;
  vectors(padded, [&](int32_t e) HWY_ATTR { hn::Store(order_key(hn::Load(d, values + e)), i, keys + e); });
  std::fill(keys + count, keys + padded, kPadding);
}

// ---- The k best ----

// A key that at least k keys of the row reach: the k-th best of running maxima, at least k of them.
HWY_INLINE int32_t lower_bound_of_kth(const int32_t *keys, int32_t padded, int32_t k) {
  const I i;
  HWY_ALIGN int32_t maxima[2 * kRouteMaxSlots];
  int32_t n = lanes();
  while (n < 2 * k && 4 * n <= padded) n *= 2;
  if (n < k) return kPadding;
  for (int32_t m = 0; m < n; m += lanes()) {
    auto top = hn::Load(i, keys + m);
    for (int32_t e = m + n; e < padded; e += n) top = hn::Max(top, hn::Load(i, keys + e));
    hn::Store(top, i, maxima + m);
  }
  int32_t bound = INT32_MAX;
  for (int32_t m = 0; m < n; ++m) {
    size_t better = 0;
    for (int32_t o = 0; o < n; o += lanes()) better += hn::CountTrue(i, hn::Gt(hn::Load(i, maxima + o), hn::Set(i, maxima[m])));
    bound = static_cast<int32_t>(better) < k && maxima[m] < bound ? maxima[m] : bound;
  }
  return bound;
}

struct Candidates {
  HWY_ALIGN int32_t keys[kMostCandidates + kRowPadding];
  int32_t ids[kMostCandidates];
  int32_t count;
};

// The experts whose keys reach `bound`, in their order; false when they are too many.
HWY_INLINE bool collect(const int32_t *keys, int32_t padded, int32_t bound, Candidates *out) {
  const I i;
  const auto least = hn::Set(i, bound > kNanKey ? bound - 1 : kPadding);
  out->count = 0;
  for (int32_t e = 0; e < padded; e += 64) {
    uint64_t reached = 0;
    uint8_t bytes[8];
    for (int32_t v = 0; v < 64; v += lanes()) {
      const auto mask = hn::Gt(hn::Load(i, keys + e + v), least);
      hn::StoreMaskBits(i, mask, bytes + (hn::MaxLanes(i) < 8 ? 0 : v / 8));
      if (hn::MaxLanes(i) < 8) reached |= uint64_t{bytes[0]} << v;
    }
    if (hn::MaxLanes(i) >= 8) std::memcpy(&reached, bytes, sizeof reached);
    for (; reached != 0; reached &= reached - 1) {
      if (out->count == kMostCandidates) return false;
      const int32_t id = e + __builtin_ctzll(reached);
      out->ids[out->count] = id;
      out->keys[out->count++] = keys[id];
    }
  }
  for (int32_t v = 0; v < lanes(); ++v) out->keys[out->count + v] = kPadding;
  return true;
}

// Place of each candidate: how many are better, the earlier of equal ones before it. Each pair decides once.
HWY_INLINE void rank(const Candidates &c, int32_t k, int32_t *ids) {
  int32_t places[kMostCandidates];
  for (int32_t a = 0; a < c.count; ++a) {
    const int32_t key = c.keys[a];
    int32_t place = 0;
    for (int32_t b = 0; b < a; ++b) {
      const int32_t loses = c.keys[b] >= key;
      place += loses;
      places[b] += 1 - loses;
    }
    places[a] = place;
  }
  for (int32_t a = 0; a < c.count; ++a) {
    if (places[a] < k) ids[places[a]] = c.ids[a];
  }
}

void select_best(const int32_t *keys, int32_t count, int32_t padded, int32_t k, int32_t *ids) {
  Candidates candidates;
  if (collect(keys, padded, lower_bound_of_kth(keys, padded, k), &candidates)) return rank(candidates, k, ids);
  int32_t best[kRouteMaxSlots];  // long runs of equal keys: insertion, in the order of the experts
  int32_t n = 0;
  for (int32_t e = 0; e < count; ++e) {
    if (keys[e] == kPadding || (n == k && keys[e] <= best[n - 1])) continue;
    int32_t at = n < k ? n++ : n - 1;
    for (; at > 0 && keys[e] > best[at - 1]; --at) {
      best[at] = best[at - 1];
      ids[at] = ids[at - 1];
    }
    best[at] = keys[e];
    ids[at] = e;
  }
}

// ---- Groups ----

// The best of a group of whole vectors, or the sum of the two best; NaN has been ruled out.
HWY_INLINE float best_of(const float *values, int32_t size) {
  const F d;
  auto top = hn::Load(d, values);
  for (int32_t e = lanes(); e < size; e += lanes()) top = hn::Max(top, hn::Load(d, values + e));
  return hn::GetLane(hn::MaxOfLanes(d, top));
}
HWY_INLINE float two_best(const float *values, int32_t size) {
  const F d;
  auto first = hn::Load(d, values), second = hn::Set(d, -kRouteInfinity);
  for (int32_t e = lanes(); e < size; e += lanes()) {
    const auto v = hn::Load(d, values + e);
    second = hn::Max(second, hn::Min(first, v));
    first = hn::Max(first, v);
  }
  const auto top = hn::MaxOfLanes(d, first);
  const auto is_top = hn::Eq(first, top);
  const float best = hn::GetLane(top);
  if (hn::CountTrue(d, is_top) > 1) return best + best;
  return best + hn::GetLane(hn::MaxOfLanes(d, hn::IfThenElse(is_top, second, first)));
}

// Of a padded row: whether one of its experts is NaN, in the order keys.
bool has_nan(const int32_t *keys, int32_t padded) {
  const I i;
  auto any = hn::Zero(i);
  vectors(padded, [&](int32_t e) HWY_ATTR {
    any = hn::Or(any, hn::VecFromMask(i, hn::Eq(hn::Load(i, keys + e), hn::Set(i, kNanKey))));
  });
  return !hn::AllFalse(i, hn::Lt(any, hn::Zero(i)));
}

// Gives every expert outside the best groups the key of none.
void keep_best_groups(const chorus_route_desc &desc, const float *values, int32_t *keys) {
  const int32_t size = desc.n_experts / desc.n_groups;
  const bool whole = size % lanes() == 0 && size > 1 && !has_nan(keys, padded_experts(desc.n_experts));
  const bool maxima = whole && desc.group_score == CHORUS_ROUTE_GROUP_MAX;
  const bool pairs = whole && desc.group_score == CHORUS_ROUTE_GROUP_TOP_SUM && desc.group_top == 2;
  Best groups{desc.topk_groups};
  for (int32_t g = 0; g < desc.n_groups; ++g) {
    const float *group = values + g * size;
    groups.offer(g, maxima  ? best_of(group, size)
                    : pairs ? two_best(group, size)
                            : group_score(desc, values, g * size, (g + 1) * size));
  }
  std::sort(groups.ids, groups.ids + groups.count);
  for (int32_t g = 0, next = 0; g < desc.n_groups; ++g) {
    if (next < groups.count && groups.ids[next] == g) {
      ++next;
    } else {
      std::fill(keys + g * size, keys + (g + 1) * size, kPadding);
    }
  }
}

// ---- The row ----

// Scores of the k chosen logits alone, through the same vector code.
void score_chosen(chorus_route_score score, const float *chosen, int32_t k, float *weights) {
  HWY_ALIGN float x[kRowPadding], y[kRowPadding];
  std::copy(chosen, chosen + k, x);
  std::fill(x + k, x + kRowPadding, std::numeric_limits<float>::quiet_NaN());
  float divisor = 1.0f;
  if (score == CHORUS_ROUTE_SOFTMAX) {
    divisor = softmax_but_division(x, k, kRowPadding, y);
  } else {
    score_row(score, x, k, kRowPadding, y);
  }
  for (int32_t j = 0; j < k; ++j) weights[j] = score == CHORUS_ROUTE_SOFTMAX ? y[j] / divisor : y[j];
}

// What decides, in scratch.values: the raw logits or the scores, plus bias.
void choose_values(const RowJob &job, const RowScratch &s, int32_t padded) {
  const F d;
  const chorus_route_desc &desc = *job.desc;
  if (!job.ranks_logits) std::copy(s.scores, s.scores + padded, s.values);
  if (job.bias == nullptr) return;
  const int32_t whole = desc.n_experts / lanes() * lanes();
  for (int32_t e = 0; e < whole; e += lanes())
    hn::Store(hn::Add(hn::Load(d, s.values + e), hn::LoadU(d, job.bias + e)), d, s.values + e);
  for (int32_t e = whole; e < desc.n_experts; ++e) s.values[e] = s.values[e] + job.bias[e];
}

void route_row(const RowJob &job, const void *logits, const RowScratch &s, int32_t *ids, float *weights) {
  const chorus_route_desc &desc = *job.desc;
  const int32_t n = desc.n_experts, padded = padded_experts(n), k = desc.k;
  const bool score_first = desc.order == CHORUS_ROUTE_SCORE_THEN_TOPK, softmax = desc.score == CHORUS_ROUTE_SOFTMAX;
  const float temperature = static_cast<float>(desc.temperature);
  load_row(job, logits, s.values);
  const float *x = s.values;
  if (temperature != 1.0f || !job.ranks_logits || job.bias != nullptr) {
    std::copy(s.values, s.values + padded, s.logits);
    if (temperature != 1.0f) divide(s.logits, padded, temperature);
    x = s.logits;
  }
  float divisor = 1.0f;  // of the scores, when only the chosen are divided
  if (score_first && softmax) divisor = softmax_but_division(x, n, padded, s.scores);
  // With logits as keys the scores of the chosen are enough, but a softmax needs its sum.
  if (score_first && !softmax && !job.ranks_logits) score_row(desc.score, x, n, padded, s.scores);
  if (!job.ranks_logits && softmax) {
    divide(s.scores, padded, divisor);
    divisor = 1.0f;
  }
  choose_values(job, s, padded);
  order_keys(s.values, n, padded, s.keys);
  if (has_groups(desc)) keep_best_groups(desc, s.values, s.keys);
  select_best(s.keys, n, padded, k, ids);

  float chosen[kRouteMaxSlots];
  const bool scored = score_first && (softmax || !job.ranks_logits);
  for (int32_t j = 0; j < k; ++j) chosen[j] = x[ids[j]];
  if (scored) {
    for (int32_t j = 0; j < k; ++j) weights[j] = s.scores[ids[j]] / divisor;
  } else {
    score_chosen(desc.score, chosen, k, weights);
  }
  for (int32_t j = 0; j < k; ++j) weights[j] = is_nan(chosen[j]) ? 0.0f : weights[j];
  renormalise(desc, weights);
}

}  // namespace HWY_NAMESPACE
}  // namespace chorus::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace chorus::cpu {

HWY_EXPORT(route_row);

RowFunction row_for(const chorus_plugin_device *device) { return CHORUS_CPU_PICK(device, route_row); }

}  // namespace chorus::cpu
#endif
