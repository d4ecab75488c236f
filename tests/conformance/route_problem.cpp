// SPDX-License-Identifier: Apache-2.0
// Running routing problems, and making random ones: see route_problem.h.
#include "conformance/route_problem.h"

#include <algorithm>
#include <cmath>

#include "conformance/check.h"
#include "conformance/combine_problem.h"

namespace conformance {
namespace {

struct RouteTensors {
  RouteTensors(const DeviceMemory &memory, const RouteProblem &p)
      : logits(memory, p.logits_dtype, {p.tokens, p.n_experts}, p.logits, p.row_stride),
        ids(memory, p.ids_dtype, {p.tokens, p.k}),
        weights(memory, p.weights_dtype, {p.tokens, p.k}),
        counts(memory, CHORUS_I32, {p.n_experts}),
        offsets(memory, CHORUS_I32, {p.n_experts + 1}),
        order(memory, CHORUS_I32, {p.tokens * p.k}),
        inverse(memory, CHORUS_I32, {p.tokens * p.k}) {
    logits.buffer().protect(true);
    if (!p.bias.empty())
      bias = std::make_unique<Tensor>(memory, CHORUS_F32, std::vector<int64_t>{p.n_experts}, p.bias);
    if (p.n_valid >= 0) {
      n_valid = std::make_unique<Tensor>(memory, CHORUS_I64, std::vector<int64_t>{1},
                                         std::vector<double>{static_cast<double>(p.n_valid)});
    }
  }
  RouteResult result(const RouteProblem &p) {
    if (!p.lists) return {ids.bits(), weights.bits(), {}, {}, {}, {}};
    return {ids.bits(), weights.bits(), counts.bits(), offsets.bits(), order.bits(), inverse.bits()};
  }

  Tensor logits, ids, weights, counts, offsets, order, inverse;
  std::unique_ptr<Tensor> bias, n_valid;
};

// Both outputs of the kernel and of the public ABI have these fields.
template <typename Out>
void set_outputs(const RouteProblem &p, RouteTensors &t, Out &out) {
  out.ids = t.ids.view();
  out.weights = t.weights.view();
  if (!p.lists) return;
  out.counts = t.counts.view();
  out.offsets = t.offsets.view();
  out.order = t.order.view();
  out.inverse = t.inverse.view();
}

}  // namespace

RouteResult route(Backend &backend, const RouteProblem &p) {
  chorus_route_desc desc = CHORUS_ROUTE_DESC_INIT;
  desc.n_experts = p.n_experts;
  desc.k = p.k;
  desc.max_tokens = p.tokens;
  desc.logits_dtype = p.logits_dtype;
  desc.ids_dtype = p.ids_dtype;
  desc.weights_dtype = p.weights_dtype;
  desc.score = p.score;
  desc.order = p.order;
  desc.has_bias = !p.bias.empty();
  desc.n_groups = p.n_groups;
  desc.topk_groups = p.topk_groups;
  desc.group_score = p.group_score;
  desc.group_top = p.group_top;
  desc.renormalise = p.renormalise;
  desc.epsilon = p.epsilon;
  desc.scale = p.scale;
  desc.temperature = p.temperature;
  const Prepared kernel(backend, CHORUS_OP_ROUTE_TOPK, &desc);
  RouteTensors t(backend.memory(), p);
  chorus_route_args args = CHORUS_ROUTE_ARGS_INIT;
  args.tokens = p.tokens;
  args.logits = t.logits.view();
  args.bias = view(t.bias);
  args.n_valid = view(t.n_valid);
  set_outputs(p, t, args);
  kernel.run(&args);
  return t.result(p);
}

namespace {

struct Deleter {
  void operator()(chorus_router_spec *spec) const { chorus_router_spec_destroy(spec); }
  void operator()(chorus_router *router) const { chorus_router_destroy(router); }
};

}  // namespace

RouteResult route(const PublicAbi &abi, const RouteProblem &p) {
  chorus_error *error = nullptr;
  chorus_router_spec *made = nullptr;
  must(chorus_router_spec_create(p.n_experts, p.k, &made, &error), error, "router spec");
  const std::unique_ptr<chorus_router_spec, Deleter> spec(made);
  must(chorus_router_spec_set_max_tokens(made, std::max<int64_t>(p.tokens, 1), &error), error, "max tokens");
  must(chorus_router_spec_set_dtypes(made, p.logits_dtype, p.ids_dtype, p.weights_dtype, &error), error,
       "dtypes");
  must(chorus_router_spec_set_score(made, p.score, p.order, &error), error, "score");
  must(chorus_router_spec_set_bias(made, !p.bias.empty(), &error), error, "bias");
  must(chorus_router_spec_set_weights(made, p.renormalise, p.epsilon, p.scale, &error), error, "weights");
  chorus_router *router = nullptr;
  must(chorus_router_create(abi.context(), made, abi.device(), &router, &error), error, "router");
  const std::unique_ptr<chorus_router, Deleter> owner(router);
  RouteTensors t(abi.memory(), p);
  chorus_route_in in = CHORUS_ROUTE_IN_INIT;
  in.bias = view(t.bias);
  in.n_valid = view(t.n_valid);
  chorus_route_out out = CHORUS_ROUTE_OUT_INIT;
  set_outputs(p, t, out);
  uint64_t bytes = 0;
  must(chorus_router_get_workspace_size(router, p.tokens, &bytes, &error), error, "workspace size");
  Buffer workspace(abi.memory(), (bytes + 255) / 256 * 256);
  chorus_exec exec = CHORUS_EXEC_INIT;
  exec.workspace = workspace.device();
  exec.workspace_bytes = workspace.bytes();
  must(chorus_router_route(router, t.logits.view(), &in, &out, &exec, &error), error, "route");
  return t.result(p);
}

bool expect_equal(const RouteResult &got, const RouteResult &want, const char *against) {
  const auto same = [&](const char *what, const std::vector<uint64_t> &a, const std::vector<uint64_t> &b) {
    for (size_t i = 0; i < b.size(); ++i) {
      if (!expect(i < a.size() && a[i] == b[i], "%s[%zu] is 0x%llx; %s 0x%llx", what, i,
                  static_cast<unsigned long long>(a[i]), against, static_cast<unsigned long long>(b[i])))
        return false;
    }
    return true;
  };
  return same("ids", got.ids, want.ids) && same("weights", got.weights, want.weights) &&
         same("counts", got.counts, want.counts) && same("offsets", got.offsets, want.offsets) &&
         same("order", got.order, want.order) && same("inverse", got.inverse, want.inverse);
}

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

}  // namespace conformance
