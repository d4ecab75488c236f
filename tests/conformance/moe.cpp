// SPDX-License-Identifier: Apache-2.0
// chorus_moe_forward: its bytes are those of the gate by the written order of sums, then the router, then the experts.
#include <memory>

#include "chorus/moe.h"
#include "conformance/check.h"
#include "conformance/experts_problem.h"

namespace conformance {
namespace {

// docs/numerics.md, "Reductions", for up to 4096 terms: 32 lanes by index, then neighbours pairwise.
float gate_logit(const std::vector<double> &x, const std::vector<double> &w, int64_t token, int64_t expert, int64_t width) {
  float lanes[32] = {};
  for (int64_t i = 0; i < width; ++i) {
    const auto product = static_cast<float>(x[static_cast<size_t>(token * width + i)]) *
                         static_cast<float>(w[static_cast<size_t>(expert * width + i)]);
    lanes[i % 32] = lanes[i % 32] + product;
  }
  for (int count = 32; count > 1; count /= 2) {
    for (int i = 0; i < count / 2; ++i) lanes[i] = lanes[2 * i] + lanes[2 * i + 1];
  }
  return lanes[0];
}

struct Deleter {
  void operator()(chorus_router_spec *p) const { chorus_router_spec_destroy(p); }
  void operator()(chorus_router *p) const { chorus_router_destroy(p); }
  void operator()(chorus_experts_spec *p) const { chorus_experts_spec_destroy(p); }
  void operator()(chorus_experts *p) const { chorus_experts_destroy(p); }
};

std::unique_ptr<chorus_router, Deleter> make_router(const PublicAbi &abi, const ExpertsProblem &p) {
  chorus_error *error = nullptr;
  chorus_router_spec *made = nullptr;
  chorus_router *router = nullptr;
  must(chorus_router_spec_create(p.n_experts, p.k, &made, &error), error, "router spec");
  const std::unique_ptr<chorus_router_spec, Deleter> spec(made);
  must(chorus_router_spec_set_max_tokens(made, p.tokens, &error), error, "max tokens");
  must(chorus_router_spec_set_dtypes(made, CHORUS_F32, p.ids_dtype, CHORUS_F32, &error), error, "dtypes");
  must(chorus_router_create(abi.context(), made, abi.device(), &router, &error), error, "router");
  return std::unique_ptr<chorus_router, Deleter>(router);
}

std::unique_ptr<chorus_experts, Deleter> make_experts(const PublicAbi &abi, const ExpertsProblem &p) {
  chorus_error *error = nullptr;
  chorus_experts_spec *made = nullptr;
  chorus_experts *experts = nullptr;
  const Tensor gate_up({}, p.weights_dtype, {p.n_experts, p.wide(), p.hidden}, p.gate_up.real),
      down({}, p.weights_dtype, {p.n_experts, p.hidden, p.intermediate}, p.down.real);
  must(chorus_experts_spec_create(gate_up.view(), down.view(), p.k, &made, &error), error, "experts spec");
  const std::unique_ptr<chorus_experts_spec, Deleter> spec(made);
  must(chorus_experts_spec_set_max_tokens(made, p.tokens, &error), error, "max tokens");
  must(chorus_experts_spec_set_dtypes(made, p.x_dtype, p.y_dtype, p.ids_dtype, &error), error, "dtypes");
  must(chorus_experts_spec_set_activation(made, p.activation, p.layout, &error), error, "activation");
  must(chorus_experts_create(abi.context(), made, abi.device(), &experts, &error), error, "experts");
  return std::unique_ptr<chorus_experts, Deleter>(experts);
}

// Problems whose experts are all routed by number, with weights that a plain tensor holds.
ExpertsProblem plain_problem(Random &random) {
  for (;;) {
    ExpertsProblem p = random_experts(random);
    if (p.weights_dtype == CHORUS_I8 || p.weights_dtype == CHORUS_I4 || p.n_shared > 0) continue;
    return p;
  }
}

}  // namespace

CONFORMANCE_TEST(moe_forward_is_its_parts) {
  if (!test.backend.is_host()) skip("the gate of chorus_moe_forward runs in host memory");
  const PublicAbi abi(test.backend);
  Random random = test.random();
  for (int i = 0; i < test.cases(20); ++i) {
    const ExpertsProblem p = plain_problem(random);
    describe("case %d: E %d, k %d, T %lld, H %lld", i, p.n_experts, p.k, static_cast<long long>(p.tokens),
             static_cast<long long>(p.hidden));
    const chorus_dtype gate_dtype = random.pick({CHORUS_F32, CHORUS_BF16, CHORUS_F16});
    std::vector<double> gate_values, bias_values, logit_values;
    for (int64_t j = 0; j < p.n_experts * p.hidden; ++j) gate_values.push_back(rounded(gate_dtype, random.normal()));
    for (int64_t j = 0; j < p.n_experts; ++j) bias_values.push_back(rounded(CHORUS_F32, random.normal()));
    for (int64_t t = 0; t < p.tokens; ++t) {
      for (int64_t e = 0; e < p.n_experts; ++e)
        logit_values.push_back(gate_logit(p.x, gate_values, t, e, p.hidden) +
                               static_cast<float>(bias_values[static_cast<size_t>(e)]));
    }
    const auto router = make_router(abi, p);
    const auto experts = make_experts(abi, p);
    const DeviceMemory &memory = abi.memory();
    const Tensor x(memory, p.x_dtype, {p.tokens, p.hidden}, p.x), bias(memory, CHORUS_F32, {p.n_experts}, bias_values),
        gate(memory, gate_dtype, {p.n_experts, p.hidden}, gate_values),
        logits(memory, CHORUS_F32, {p.tokens, p.n_experts}, logit_values);
    Tensor ids(memory, p.ids_dtype, {p.tokens, p.k}), weights(memory, CHORUS_F32, {p.tokens, p.k}),
        apart(memory, p.y_dtype, {p.tokens, p.hidden}), whole(memory, p.y_dtype, {p.tokens, p.hidden}),
        in_workspace(memory, p.y_dtype, {p.tokens, p.hidden});
    chorus_error *error = nullptr;
    chorus_route_out out = CHORUS_ROUTE_OUT_INIT;
    out.ids = ids.view();
    out.weights = weights.view();
    must(chorus_router_route(router.get(), logits.view(), nullptr, &out, nullptr, &error), error, "route");
    must(chorus_experts_run(experts.get(), x.view(), ids.view(), weights.view(), apart.view(), nullptr, nullptr, &error),
         error, "experts run");
    const auto forward = [&](const Tensor &y, const chorus_route_out *wanted, const chorus_exec *exec) {
      return chorus_moe_forward(router.get(), experts.get(), x.view(), gate.view(), bias.view(), nullptr, y.view(), wanted,
                                exec, &error);
    };
    Tensor told_ids(memory, p.ids_dtype, {p.tokens, p.k}), told_counts(memory, CHORUS_I32, {p.n_experts});
    chorus_route_out told = CHORUS_ROUTE_OUT_INIT;
    told.ids = told_ids.view();
    told.counts = told_counts.view();
    must(forward(whole, &told, nullptr), error, "forward");
    expect(whole.bits() == apart.bits(), "bytes differ from gate, router and experts apart");
    expect(told_ids.bits() == ids.bits(), "the ids told are not those of the router");
    uint64_t bytes = 0;
    must(chorus_moe_get_workspace_size(router.get(), experts.get(), p.tokens, &bytes, &error), error, "workspace size");
    Buffer workspace(memory, (bytes + 63) / 64 * 64);
    chorus_exec exec = CHORUS_EXEC_INIT;
    exec.workspace = workspace.device();
    exec.workspace_bytes = bytes;
    must(forward(in_workspace, nullptr, &exec), error, "forward in a workspace");
    expect(in_workspace.bits() == apart.bits(), "bytes differ with a workspace of the caller's");
    exec.workspace_bytes = bytes - 1;
    expect(forward(in_workspace, nullptr, &exec) == CHORUS_FAILED_PRECONDITION, "a workspace one byte short is taken");
    chorus_error_destroy(error);
  }
}

}  // namespace conformance
