// SPDX-License-Identifier: Apache-2.0
// A route.topk call as plain data, run through a kernel table or the public C ABI, and the answer that
// docs/numerics.md, "Routing", prescribes to the bit.
#pragma once
#include <cstdint>
#include <functional>
#include <vector>

#include "conformance/backend.h"
#include "conformance/check.h"
#include "conformance/public_abi.h"
#include "conformance/random.h"
#include "conformance/tensors.h"

namespace conformance {

struct RouteProblem {
  int32_t n_experts = 0, k = 0;
  int64_t tokens = 0, n_valid = -1;  // -1: no such tensor
  std::vector<double> logits, bias;  // [T, E]; [E] or empty
  chorus_dtype logits_dtype = CHORUS_F32, ids_dtype = CHORUS_I32, weights_dtype = CHORUS_F32;
  chorus_route_score score = CHORUS_ROUTE_SOFTMAX;
  chorus_route_order order = CHORUS_ROUTE_SCORE_THEN_TOPK;
  int32_t n_groups = 0, topk_groups = 0, group_top = 0;
  chorus_route_group_score group_score = CHORUS_ROUTE_GROUP_MAX;
  chorus_route_renormalise renormalise = CHORUS_ROUTE_RENORMALISE_NONE;
  double epsilon = 0, scale = 1, temperature = 1;
  int64_t row_stride = 0;
  bool lists = true;
  // Beyond the plain router.
  chorus_route_selection selection = CHORUS_ROUTE_TOKENS_CHOOSE;
  double noise = 0;
  std::vector<double> noise_scales, row_ids;          // [T, E], [T], or empty
  std::vector<double> hash_table, token_ids, given_ids;  // [rows, k], [T], [T, k]
  chorus_dtype given_dtype = CHORUS_I32;              // of token_ids and given_ids
  uint64_t seed = 0, step = 0;
  chorus_route_drop drop = CHORUS_ROUTE_DROP_NONE;
  int64_t capacity = 0, capacity_minimum = 0, capacity_multiple = 0;
  double capacity_factor = 0;
  uint32_t renormalise_last = 0, outputs = 0;
  int32_t block = 0;

  int64_t valid() const { return n_valid < 0 || n_valid > tokens ? tokens : n_valid; }
};

struct RouteResult {
  std::vector<uint64_t> ids, weights, counts, offsets, order, inverse;  // as stored
  std::vector<uint64_t> expert_tokens, expert_weights, padded_order, block_experts, n_blocks, bitmap, score_sums;
  bool operator==(const RouteResult &) const = default;
};

RouteProblem random_routing(Random &random);
// The same with any of the other features.
RouteProblem random_features(Random &random);
// Softmax of all, then the k best, of f32 logits [T, experts].
RouteProblem simple_routing(int32_t experts, int32_t k, std::vector<double> logits);
// `cases` problems of `make`; skips when the backend refuses them all.
void on_problems(const Test &test, RouteProblem (*make)(Random &), int cases,
                 const std::function<void(const RouteProblem &)> &body);

RouteResult route(Backend &backend, const RouteProblem &p);
RouteResult route(const PublicAbi &abi, const RouteProblem &p);
RouteResult route_by_rules(const RouteProblem &p);
// Columns of the lists per expert for `tokens` valid tokens: the capacity, or `tokens` without one.
int64_t route_capacity(const RouteProblem &p, int64_t tokens);

// Compares field by field, with names.
bool expect_equal(const RouteResult &got, const RouteResult &want, const char *against);

}  // namespace conformance
