// SPDX-License-Identifier: Apache-2.0
// A route.topk call as plain data, run through a kernel table or the public C ABI, and the answer that
// docs/numerics.md, "Routing", prescribes to the bit.
#pragma once
#include <cstdint>
#include <vector>

#include "conformance/backend.h"
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
};

struct RouteResult {
  std::vector<uint64_t> ids, weights, counts, offsets, order, inverse;  // as stored
  bool operator==(const RouteResult &) const = default;
};

RouteProblem random_routing(Random &random);
RouteResult route(Backend &backend, const RouteProblem &p);
RouteResult route(const PublicAbi &abi, const RouteProblem &p);
RouteResult route_by_rules(const RouteProblem &p);

// Compares field by field, with names.
bool expect_equal(const RouteResult &got, const RouteResult &want, const char *against);

}  // namespace conformance
