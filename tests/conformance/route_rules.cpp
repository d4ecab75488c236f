// SPDX-License-Identifier: Apache-2.0
// docs/numerics.md, "Routing", written down once more from the text: a full sort, IEEE f32, exact_math.h.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "chorus/exact_math.h"
#include "conformance/route_problem.h"

namespace conformance {
namespace {

using Floats = std::vector<float>;
constexpr float kInf = std::numeric_limits<float>::infinity();

float join(Floats v) {
  while (v.size() > 1) {
    Floats next;
    for (size_t i = 0; i < v.size(); i += 2) next.push_back(i + 1 < v.size() ? v[i] + v[i + 1] : v[i]);
    v = next;
  }
  return v.empty() ? 0 : v[0];
}

// "Reductions".
float sum(const Floats &x) {
  Floats blocks;
  for (size_t b = 0; b < x.size(); b += 4096) {
    Floats lanes(32, 0);
    for (size_t i = b; i < std::min(x.size(), b + 4096); ++i) lanes[i % 32] = lanes[i % 32] + x[i];
    blocks.push_back(join(lanes));
  }
  return join(blocks);
}

Floats scores(chorus_route_score score, const Floats &x) {
  Floats out;
  if (score != CHORUS_ROUTE_SOFTMAX) {
    for (float v : x) {
      switch (score) {
        case CHORUS_ROUTE_SIGMOID:
          out.push_back(chorus_exact_sigmoid(v));
          break;
        case CHORUS_ROUTE_SQRT_SOFTPLUS:
          out.push_back(std::sqrt(chorus_exact_softplus(v)));
          break;
        case CHORUS_ROUTE_RELU:
          out.push_back(v < 0 ? 0 : v);
          break;
        default:
          out.push_back(v);
      }
    }
    return out;
  }
  float max = -kInf;
  for (float v : x) max = std::isnan(v) ? max : std::max(max, v);
  if (std::isinf(max)) {
    const auto n = static_cast<float>(std::count(x.begin(), x.end(), max));
    for (float v : x) out.push_back(v == max ? 1 / n : 0);
    return out;
  }
  for (float v : x) out.push_back(std::isnan(v) ? 0 : chorus_exact_exp(v - max));
  const float total = sum(out);
  for (float &v : out) v = v / total;
  return out;
}

// Indices by key, higher first, equal by index, NaN last.
std::vector<int32_t> ranked(const Floats &keys, std::vector<int32_t> from) {
  std::stable_sort(from.begin(), from.end(), [&](int32_t a, int32_t b) {
    const float x = keys[static_cast<size_t>(a)], y = keys[static_cast<size_t>(b)];
    return std::isnan(y) ? !std::isnan(x) : x > y;
  });
  return from;
}

std::vector<int32_t> range(int32_t begin, int32_t end) {
  std::vector<int32_t> out(static_cast<size_t>(end - begin));
  std::iota(out.begin(), out.end(), begin);
  return out;
}

std::vector<int32_t> candidates(const RouteProblem &p, const Floats &keys) {
  if (p.n_groups <= 1) return range(0, p.n_experts);
  const int32_t size = p.n_experts / p.n_groups;
  Floats groups;
  for (int32_t g = 0; g < p.n_groups; ++g) {
    const auto best = ranked(keys, range(g * size, (g + 1) * size));
    float score = keys[static_cast<size_t>(best[0])];
    const int32_t m = p.group_score == CHORUS_ROUTE_GROUP_MAX ? 1 : std::min(p.group_top, size);
    for (int32_t i = 1; i < m; ++i) score = score + keys[static_cast<size_t>(best[static_cast<size_t>(i)])];
    groups.push_back(score);
  }
  auto kept = ranked(groups, range(0, p.n_groups));
  kept.resize(static_cast<size_t>(p.topk_groups));
  std::sort(kept.begin(), kept.end());
  std::vector<int32_t> out;
  for (int32_t g : kept) {
    for (int32_t e : range(g * size, (g + 1) * size)) out.push_back(e);
  }
  return out;
}

void renormalise(const RouteProblem &p, Floats &w) {
  if (p.renormalise == CHORUS_ROUTE_RENORMALISE_NONE) return;
  const auto infinite = static_cast<float>(std::count(w.begin(), w.end(), kInf));
  if (infinite > 0) {
    for (float &v : w) v = v == kInf ? 1 / infinite : 0;
    return;
  }
  const float total = sum(w), epsilon = static_cast<float>(p.epsilon);
  const float clamped = total < epsilon ? epsilon : total;
  for (float &v : w) {
    v = v / (p.renormalise == CHORUS_ROUTE_RENORMALISE_SUM ? total + epsilon : clamped);
    if (std::isnan(v)) v = 0;
  }
}

struct Routed {
  std::vector<int32_t> ids;
  Floats weights;
};

Routed route_token(const RouteProblem &p, const Floats &raw) {
  const bool score_first = p.order == CHORUS_ROUTE_SCORE_THEN_TOPK;
  Floats x;
  for (float v : raw) x.push_back(v / static_cast<float>(p.temperature));
  const Floats all = score_first ? scores(p.score, x) : Floats();
  const bool sums = p.n_groups > 1 && p.group_score == CHORUS_ROUTE_GROUP_TOP_SUM;
  Floats keys = !score_first || (p.bias.empty() && !sums && p.score != CHORUS_ROUTE_RELU) ? raw : all;
  for (size_t e = 0; e < p.bias.size(); ++e) keys[e] = keys[e] + static_cast<float>(p.bias[e]);
  Routed out;
  out.ids = ranked(keys, candidates(p, keys));
  out.ids.resize(static_cast<size_t>(p.k));
  for (int32_t id : out.ids) out.weights.push_back((score_first ? all : x)[static_cast<size_t>(id)]);
  if (!score_first) out.weights = scores(p.score, out.weights);
  for (size_t j = 0; j < out.ids.size(); ++j) {
    if (std::isnan(x[static_cast<size_t>(out.ids[j])])) out.weights[j] = 0;
  }
  renormalise(p, out.weights);
  for (float &w : out.weights) w = w * static_cast<float>(p.scale);
  return out;
}

}  // namespace

RouteResult route_by_rules(const RouteProblem &p) {
  RouteResult r;
  std::vector<int64_t> slots;
  const auto integer = [](int64_t i) { return static_cast<uint64_t>(static_cast<uint32_t>(i)); };
  for (int64_t t = 0; t < p.tokens; ++t) {
    Floats raw;
    for (int32_t e = 0; e < p.n_experts; ++e)
      raw.push_back(
          static_cast<float>(rounded(p.logits_dtype, p.logits[static_cast<size_t>(t * p.n_experts + e)])));
    Routed routed{std::vector<int32_t>(static_cast<size_t>(p.k), -1), Floats(static_cast<size_t>(p.k), 0)};
    if (p.n_valid < 0 || t < p.n_valid) routed = route_token(p, raw);
    for (int32_t id : routed.ids) {
      slots.push_back(id);
      r.ids.push_back(encode(p.ids_dtype, id));
    }
    for (float w : routed.weights) r.weights.push_back(encode(p.weights_dtype, w));
  }
  if (!p.lists) return r;
  std::vector<uint64_t> order, inverse(slots.size(), integer(-1));
  r.offsets.push_back(0);
  for (int32_t e = 0; e < p.n_experts; ++e) {
    for (size_t s = 0; s < slots.size(); ++s) {
      if (slots[s] != e) continue;
      inverse[s] = order.size();
      order.push_back(s);
    }
    r.counts.push_back(order.size() - r.offsets.back());
    r.offsets.push_back(order.size());
  }
  order.resize(slots.size(), integer(-1));
  r.order = order;
  r.inverse = inverse;
  return r;
}

}  // namespace conformance
