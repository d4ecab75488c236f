// SPDX-License-Identifier: Apache-2.0
// docs/numerics.md, "Routing", written down once more from the text: a full sort, IEEE f32, exact_math.h.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "chorus/exact_math.h"
#include "conformance/route_rules.h"

namespace conformance {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

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
  const float total = sum_by_rules(out);
  for (float &v : out) v = v / total;
  return out;
}

}  // namespace

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

uint32_t random_word(const RouteProblem &p, int64_t t, uint32_t use, int64_t element) {
  const auto row = p.row_ids.empty() ? t : static_cast<int64_t>(p.row_ids[static_cast<size_t>(t)]);
  const auto bits = static_cast<uint64_t>(row);
  const uint32_t counter[] = {static_cast<uint32_t>(bits), static_cast<uint32_t>(bits >> 32), static_cast<uint32_t>(p.step),
                              static_cast<uint32_t>(p.step >> 32)};
  const uint32_t seed[] = {static_cast<uint32_t>(p.seed), static_cast<uint32_t>(p.seed >> 32)};
  uint32_t key[4], words[4];
  chorus_philox4x32(counter, seed, key);
  const uint32_t place[] = {static_cast<uint32_t>(element / 4), use, 0, 0};
  chorus_philox4x32(place, key, words);
  return words[element % 4];
}

namespace {

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

// The ids that come from outside, -1 where they are no expert or come twice.
std::vector<int32_t> outside_ids(const RouteProblem &p, int64_t t) {
  std::vector<int32_t> out;
  const auto k = static_cast<size_t>(p.k);
  for (size_t j = 0; j < k; ++j) {
    double id = -1;
    if (p.selection == CHORUS_ROUTE_GIVEN) {
      id = p.given_ids[static_cast<size_t>(t) * k + j];
    } else {
      const double token = p.token_ids[static_cast<size_t>(t)];
      const double rows = static_cast<double>(p.hash_table.size() / k);
      if (token >= 0 && token < rows) id = p.hash_table[static_cast<size_t>(token) * k + j];
    }
    const auto expert = static_cast<int32_t>(id);
    const bool known = id >= 0 && id < p.n_experts && std::count(out.begin(), out.end(), expert) == 0;
    out.push_back(known ? expert : -1);
  }
  return out;
}

std::vector<int32_t> choose(const RouteProblem &p, int64_t t, const RoutedToken &token) {
  if (p.selection == CHORUS_ROUTE_GIVEN || p.selection == CHORUS_ROUTE_HASH_TABLE) return outside_ids(p, t);
  std::vector<int32_t> from = candidates(p, token.keys);
  if (p.selection == CHORUS_ROUTE_POSITIVE) {
    std::erase_if(from, [&](int32_t e) { return !(token.scores[static_cast<size_t>(e)] > 0); });
  }
  std::vector<int32_t> ids = ranked(token.keys, from);
  ids.resize(static_cast<size_t>(p.k), -1);
  if (p.selection == CHORUS_ROUTE_GUMBEL_SECOND) {
    Floats perturbed;
    for (int32_t e = 0; e < p.n_experts; ++e) {
      const float u = chorus_exact_uniform(random_word(p, t, 1, e));
      perturbed.push_back(token.x[static_cast<size_t>(e)] - chorus_exact_log(-chorus_exact_log(u)));
    }
    std::vector<int32_t> others = range(0, p.n_experts);
    std::erase(others, ids[0]);
    ids[1] = ranked(perturbed, others)[0];
  }
  return ids;
}

// GShard's chance of the second expert.
void maybe_drop_second(const RouteProblem &p, int64_t t, RoutedToken &token, float share) {
  if (chorus_exact_uniform(random_word(p, t, 1, 0)) < 2 * share) return;
  token.ids[1] = -1;
  token.weights[1] = 0;
}

}  // namespace

void renormalise_by_rules(const RouteProblem &p, Floats &w) {
  if (p.renormalise == CHORUS_ROUTE_RENORMALISE_NONE) return;
  const auto infinite = static_cast<float>(std::count(w.begin(), w.end(), kInf));
  if (infinite > 0) {
    for (float &v : w) v = v == kInf ? 1 / infinite : 0;
    return;
  }
  const float total = sum_by_rules(w), epsilon = static_cast<float>(p.epsilon);
  const float clamped = total < epsilon ? epsilon : total;
  for (float &v : w) {
    v = v / (p.renormalise == CHORUS_ROUTE_RENORMALISE_SUM ? total + epsilon : clamped);
    if (std::isnan(v)) v = 0;
  }
}

RoutedToken route_token(const RouteProblem &p, int64_t t) {
  const bool score_first = p.order == CHORUS_ROUTE_SCORE_THEN_TOPK;
  RoutedToken out;
  Floats raw;
  for (int32_t e = 0; e < p.n_experts; ++e) {
    const auto at = static_cast<size_t>(t * p.n_experts + e);
    auto z = static_cast<float>(rounded(p.logits_dtype, p.logits[at]));
    if (p.noise != 0) {
      float deviation = static_cast<float>(p.noise);
      if (!p.noise_scales.empty()) deviation = deviation * static_cast<float>(p.noise_scales[at]);
      z = z + deviation * chorus_exact_normal(random_word(p, t, 0, e));
    }
    raw.push_back(z);
    out.x.push_back(z / static_cast<float>(p.temperature));
  }
  out.scores = scores(p.score, out.x);
  const bool sums = p.n_groups > 1 && p.group_score == CHORUS_ROUTE_GROUP_TOP_SUM;
  const bool across_tokens = p.selection == CHORUS_ROUTE_EXPERTS_CHOOSE && p.score == CHORUS_ROUTE_SOFTMAX;
  const bool by_score = score_first && (!p.bias.empty() || sums || p.score == CHORUS_ROUTE_RELU || across_tokens);
  out.keys = by_score ? out.scores : raw;
  for (size_t e = 0; e < p.bias.size(); ++e) out.keys[e] = out.keys[e] + static_cast<float>(p.bias[e]);
  if (p.selection == CHORUS_ROUTE_EXPERTS_CHOOSE) return out;

  out.ids = choose(p, t, out);
  Floats chosen;
  for (int32_t id : out.ids) chosen.push_back(id < 0 ? std::nanf("") : out.x[static_cast<size_t>(id)]);
  out.weights = score_first ? Floats() : scores(p.score, chosen);
  for (size_t j = 0; j < out.ids.size(); ++j) {
    if (score_first) out.weights.push_back(out.ids[j] < 0 ? 0 : out.scores[static_cast<size_t>(out.ids[j])]);
    if (std::isnan(chosen[j])) out.weights[j] = 0;
  }
  for (size_t j = 0; j < out.ids.size(); ++j) out.priority = j == 0 ? out.weights[0] : std::max(out.priority, out.weights[j]);
  if (p.selection == CHORUS_ROUTE_RANDOM_SECOND_RAW) maybe_drop_second(p, t, out, out.weights[1]);
  const float share = p.selection == CHORUS_ROUTE_RANDOM_SECOND ? out.weights[1] / (out.weights[0] + out.weights[1]) : 0;
  if (p.renormalise_last == 0) renormalise_by_rules(p, out.weights);
  if (p.selection == CHORUS_ROUTE_RANDOM_SECOND) maybe_drop_second(p, t, out, share);
  return out;
}

}  // namespace conformance
