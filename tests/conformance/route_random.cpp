// SPDX-License-Identifier: Apache-2.0
// Random routing problems: plain ones, and ones with any of the other features.
#include <algorithm>
#include <cmath>

#include "conformance/combine_problem.h"
#include "conformance/route_problem.h"

namespace conformance {
namespace {

void random_groups(Random &random, RouteProblem &p) {
  std::vector<int32_t> divisors;
  for (int32_t g = 2; g <= p.n_experts; ++g) {
    if (p.n_experts % g == 0) divisors.push_back(g);
  }
  if (divisors.empty()) return;
  p.n_groups = random.pick(divisors);
  const int32_t size = p.n_experts / p.n_groups;
  p.topk_groups = static_cast<int32_t>(random.integer(1, std::min(p.n_groups, 64)));
  p.k = std::min(p.k, p.topk_groups * size);
  p.group_score = random.pick({CHORUS_ROUTE_GROUP_MAX, CHORUS_ROUTE_GROUP_TOP_SUM});
  p.group_top = static_cast<int32_t>(random.integer(1, 4));
}

// Ties, NaN, infinities, all-equal and all −inf rows among ordinary ones.
double random_logit(Random &random, int flavour) {
  switch (flavour) {
    case 0:
      return 3 * random.normal();
    case 1:
      return std::round(2 * random.normal());
    case 2:
      return random.chance(0.2) ? random.pick({kNaN, kInfinity, -kInfinity, 3e38, -3e38, -0.0})
                                : random.normal();
    case 3:
      return -kInfinity;
    case 4:
      return random.pick({kNaN, -kInfinity});
    default:
      return random.pick({0.0, -0.0});
  }
}

}  // namespace

RouteProblem random_routing(Random &random) {
  RouteProblem p;
  const int32_t sizes[] = {1, 2, 7, 8, 16, 31, 33, 60, 64, 72, 128, 160, 256, 257, 384, 511, 512};
  p.n_experts = random.chance(0.6) ? random.pick(sizes) : static_cast<int32_t>(random.integer(1, 512));
  if (random.chance(0.03)) p.n_experts = random.pick({1000, 2304, 8160, 8192});
  p.k = static_cast<int32_t>(random.integer(1, std::min(p.n_experts, random.chance(0.7) ? 8 : 64)));
  p.tokens = random.integer(1, 12);
  for (int64_t t = 0; t < p.tokens; ++t) {
    const int flavour = random.chance(0.6) ? 0 : static_cast<int>(random.integer(1, 5));
    for (int32_t e = 0; e < p.n_experts; ++e) p.logits.push_back(random_logit(random, flavour));
  }
  p.logits_dtype = random.pick({CHORUS_F32, CHORUS_F16, CHORUS_BF16});
  p.ids_dtype = random.pick({CHORUS_I32, CHORUS_I64});
  p.weights_dtype = random.pick({CHORUS_F32, CHORUS_BF16});
  p.score = random.pick({CHORUS_ROUTE_SOFTMAX, CHORUS_ROUTE_SOFTMAX, CHORUS_ROUTE_SIGMOID,
                         CHORUS_ROUTE_SQRT_SOFTPLUS, CHORUS_ROUTE_IDENTITY, CHORUS_ROUTE_RELU});
  p.order = random.pick({CHORUS_ROUTE_SCORE_THEN_TOPK, CHORUS_ROUTE_TOPK_THEN_SCORE});
  p.renormalise = random.pick(
      {CHORUS_ROUTE_RENORMALISE_NONE, CHORUS_ROUTE_RENORMALISE_SUM, CHORUS_ROUTE_RENORMALISE_CLAMPED});
  p.epsilon = random.pick({0.0, 1e-20, 6.1035e-5});
  p.scale = random.pick({1.0, 2.5});
  p.temperature = random.chance(0.2) ? 0.7 : 1;
  if (random.chance(0.4)) {
    for (int32_t e = 0; e < p.n_experts; ++e) p.bias.push_back(rounded(CHORUS_F32, 0.1 * random.normal()));
  }
  if (random.chance(0.3)) random_groups(random, p);
  if (random.chance(0.3)) p.n_valid = random.integer(0, p.tokens + 2);
  p.row_stride = random.chance(0.5) ? 0 : p.n_experts + random.integer(0, 20);
  p.lists = random.chance(0.8);
  return p;
}

namespace {

std::vector<double> random_integers(Random &random, int64_t count, int64_t low, int64_t high) {
  std::vector<double> out;
  for (int64_t i = 0; i < count; ++i) out.push_back(static_cast<double>(random.integer(low, high)));
  return out;
}

void random_selection(Random &random, RouteProblem &p) {
  p.selection = static_cast<chorus_route_selection>(random.integer(0, CHORUS_ROUTE_GUMBEL_SECOND));
  if (p.selection >= CHORUS_ROUTE_RANDOM_SECOND && p.n_experts < 2) p.selection = CHORUS_ROUTE_TOKENS_CHOOSE;
  const bool from_outside = p.selection == CHORUS_ROUTE_HASH_TABLE || p.selection == CHORUS_ROUTE_GIVEN;
  if (from_outside || p.selection == CHORUS_ROUTE_EXPERTS_CHOOSE || p.selection == CHORUS_ROUTE_GUMBEL_SECOND) {
    p.n_groups = p.topk_groups = 0;
    p.bias.clear();
  }
  if (p.selection >= CHORUS_ROUTE_RANDOM_SECOND) {
    p.n_groups = p.topk_groups = 0;
    p.k = 2;
  }
  if (p.selection == CHORUS_ROUTE_EXPERTS_CHOOSE || p.selection == CHORUS_ROUTE_POSITIVE) {
    p.order = CHORUS_ROUTE_SCORE_THEN_TOPK;
  }
  p.given_dtype = random.pick({CHORUS_I32, CHORUS_I64});
  if (p.selection == CHORUS_ROUTE_GIVEN) {
    p.given_ids = random_integers(random, p.tokens * p.k, -1, p.n_experts + 1);
  }
  if (p.selection == CHORUS_ROUTE_HASH_TABLE) {
    p.hash_table = random_integers(random, 5 * p.k, -1, p.n_experts - 1);
    p.token_ids = random_integers(random, p.tokens, -2, 7);
  }
}

void random_capacity(Random &random, RouteProblem &p) {
  if (random.chance(0.5)) {
    p.capacity = random.integer(1, p.tokens + 1);
  } else {
    p.capacity_factor = random.uniform(0.1, 2);
    p.capacity_minimum = random.integer(0, 3);
    p.capacity_multiple = random.integer(0, 4);
  }
  if (p.selection == CHORUS_ROUTE_EXPERTS_CHOOSE) {
    p.renormalise = CHORUS_ROUTE_RENORMALISE_NONE;
    return;
  }
  p.drop = static_cast<chorus_route_drop>(random.integer(CHORUS_ROUTE_DROP_BY_POSITION, CHORUS_ROUTE_DROP_AT_RANDOM));
  p.renormalise_last = random.chance(0.5);
}

}  // namespace

RouteProblem random_features(Random &random) {
  RouteProblem p = random_routing(random);
  if (random.chance(0.7)) random_selection(random, p);
  if (p.selection == CHORUS_ROUTE_EXPERTS_CHOOSE || random.chance(0.5)) random_capacity(random, p);
  if (random.chance(0.3)) {
    p.noise = random.uniform(0, 2);
    if (random.chance(0.5)) {
      for (int64_t i = 0; i < p.tokens * p.n_experts; ++i) p.noise_scales.push_back(rounded(CHORUS_F32, random.uniform()));
    }
  }
  p.seed = random.bits();
  p.step = random.chance(0.5) ? random.bits() : 0;
  if (random.chance(0.5)) p.row_ids = random_integers(random, p.tokens, -1000000, 1000000);
  p.outputs = static_cast<uint32_t>(random.integer(0, 15));
  if ((p.outputs & CHORUS_ROUTE_OUT_BLOCKS) != 0) p.block = random.pick({1, 2, 7, 16, 64});
  return p;
}

RouteProblem simple_routing(int32_t experts, int32_t k, std::vector<double> logits) {
  RouteProblem p;
  p.n_experts = experts;
  p.k = k;
  p.tokens = static_cast<int64_t>(logits.size()) / experts;
  p.logits = std::move(logits);
  return p;
}

void on_problems(const Test &test, RouteProblem (*make)(Random &), int cases,
                 const std::function<void(const RouteProblem &)> &body) {
  Random random = test.random();
  bool ran = false;
  for (int i = 0; i < test.cases(cases); ++i) {
    const RouteProblem p = make(random);
    describe("case %d: E %d, k %d, T %lld, score %d, order %d, %d groups, selection %d, drop %d, outputs %u", i, p.n_experts,
             p.k, static_cast<long long>(p.tokens), p.score, p.order, p.n_groups, p.selection, p.drop, p.outputs);
    ran |= attempt("a problem", [&] { body(p); });
  }
  if (!ran) skip("every problem was refused");
}

}  // namespace conformance
