// SPDX-License-Identifier: Apache-2.0
// The gate: logits_te = sum_i x_ti gate_ei (+ bias_e), f32 products and sums by docs/numerics.md, "Reductions"; then the router
// and the experts as they are called alone, so the results are theirs bit by bit. Cost of the gate: 2 T E H flops.
#include "route/moe.h"

#include <algorithm>

#include "chorus/plugin.hpp"
#include "runtime/device.h"
#include "runtime/error.h"
#include "runtime/tensor.h"
#include "runtime/workspace.h"

namespace chorus::route {
namespace {

constexpr int64_t kTokensPerPiece = 4, kExpertsPerPiece = 16;

uint64_t aligned(uint64_t bytes) {
  return (bytes + CHORUS_WORKSPACE_ALIGNMENT_HOST - 1) / CHORUS_WORKSPACE_ALIGNMENT_HOST * CHORUS_WORKSPACE_ALIGNMENT_HOST;
}

// ---- Workspace: logits, ids, weights, then what router and experts need, one after the other ----

struct Layout {
  uint64_t ids, weights, inner, total;
};

Layout lay_out(const Router &router, const Experts &experts, int64_t tokens) {
  const auto count = static_cast<uint64_t>(tokens), k = static_cast<uint64_t>(router.desc().k);
  Layout at{};
  at.ids = aligned(count * static_cast<uint64_t>(router.desc().n_experts) * sizeof(float));
  at.weights = at.ids + aligned(count * k * (router.desc().ids_dtype == CHORUS_I64 ? 8 : 4));
  at.inner = at.weights + aligned(count * k * sizeof(float));
  at.total = at.inner + std::max(router.workspace_size(tokens), experts.workspace_size(tokens));
  return at;
}

chorus_tensor matrix(void *data, chorus_dtype dtype, const int64_t (&shape)[2]) {
  chorus_tensor t = CHORUS_TENSOR_INIT;
  t.data = data;
  t.device_type = CHORUS_DEVICE_HOST;
  t.dtype_code = static_cast<uint8_t>(dtype & 0xff);
  t.dtype_bits = static_cast<uint8_t>(dtype >> 8);
  t.dtype_lanes = 1;
  t.ndim = 2;
  t.shape = shape;
  t.size_bytes = static_cast<uint64_t>(shape[0] * shape[1]) * (dtype >> 8) / 8;
  return t;
}

// ---- The gate ----

template <typename X, typename W>
float dot(const X *x, const W *w, int64_t count, float (*widen_x)(X), float (*widen_w)(W)) {
  plugin::PairwiseStream<float> blocks;
  for (int64_t begin = 0; begin < count; begin += CHORUS_BLOCK) {
    const int64_t end = std::min<int64_t>(begin + CHORUS_BLOCK, count);
    float lanes[CHORUS_LANES] = {};
    int64_t i = begin;
    for (; i + CHORUS_LANES <= end; i += CHORUS_LANES) {
      for (int64_t l = 0; l < CHORUS_LANES; ++l) lanes[l] = lanes[l] + widen_x(x[i + l]) * widen_w(w[i + l]);
    }
    for (int64_t l = 0; i < end; ++i, ++l) lanes[l] = lanes[l] + widen_x(x[i]) * widen_w(w[i]);
    blocks.add(plugin::join_pairwise(lanes, CHORUS_LANES));
  }
  return blocks.join();
}

inline float same(float x) { return x; }

template <typename X>
float dot_with(chorus_dtype gate_dtype, const X *x, const void *w, int64_t count, float (*widen)(X)) {
  switch (gate_dtype) {
    case CHORUS_F32: return dot(x, static_cast<const float *>(w), count, widen, same);
    case CHORUS_F16: return dot(x, static_cast<const uint16_t *>(w), count, widen, plugin::f32_from_f16);
    default: return dot(x, static_cast<const uint16_t *>(w), count, widen, plugin::f32_from_bf16);
  }
}

void run_gate(const Pool &pool, const MoeIn &in, int64_t experts, float *logits) {
  const int64_t tokens = in.x->shape[0], width = in.x->shape[1];
  const int64_t across = (experts + kExpertsPerPiece - 1) / kExpertsPerPiece;
  const auto body = [&](int64_t piece) {
    const int64_t first = piece / across * kTokensPerPiece, begin = piece % across * kExpertsPerPiece;
    for (int64_t t = first; t < std::min(first + kTokensPerPiece, tokens); ++t) {
      const void *x = plugin::row_of(*in.x, t);
      for (int64_t e = begin; e < std::min(begin + kExpertsPerPiece, experts); ++e) {
        const void *w = plugin::row_of(*in.gate, e);
        const chorus_dtype dtype = chorus::dtype_of(*in.gate);
        const float sum = chorus::dtype_of(*in.x) == CHORUS_F32
                              ? dot_with(dtype, static_cast<const float *>(x), w, width, same)
                              : dot_with(dtype, static_cast<const uint16_t *>(x), w, width, plugin::f32_from_bf16);
        logits[t * experts + e] = in.gate_bias != nullptr ? sum + plugin::f32_at(*in.gate_bias, e) : sum;
      }
    }
  };
  const auto task = [](void *argument, uint64_t piece) {
    (*static_cast<decltype(&body)>(argument))(static_cast<int64_t>(piece));
  };
  const int64_t pieces = (tokens + kTokensPerPiece - 1) / kTokensPerPiece * across;
  pool.parallel_for(static_cast<uint64_t>(pieces), task, const_cast<void *>(static_cast<const void *>(&body)));
}

// ---- Checks ----

void check_pair(const chorus_route_desc &r, const chorus_experts_desc &e) {
  if (r.k != e.k) fail(CHORUS_INVALID_ARGUMENT, "the router keeps k = {} experts, the experts take {}; they must agree", r.k, e.k);
  if (r.logits_dtype != CHORUS_F32 || r.weights_dtype != CHORUS_F32) {
    fail(CHORUS_INVALID_ARGUMENT, "the router's logits and weights must be f32 here (chorus_router_spec_set_dtypes)");
  }
  if (r.ids_dtype != e.ids_dtype) fail(CHORUS_INVALID_ARGUMENT, "the ids of router and experts have different dtypes");
}

void check_tensors(const Router &router, const Experts &experts, const MoeIn &in, const chorus_tensor *y) {
  const Device &device = experts.device();
  const int64_t width = experts.desc().hidden, count = router.desc().n_experts;
  if (!is_host_memory(device) || !is_host_memory(router.device())) {
    fail(CHORUS_UNIMPLEMENTED, "the gate runs in host memory; route and run the experts on '{}' apart", device.name());
  }
  check_tensor(in.x, {"x", {experts.desc().x_dtype}, {kAnySize, width}}, device);
  check_tensor(y, {"y", {experts.desc().y_dtype}, {in.x->shape[0], width}, true}, device);
  check_tensor(in.gate, {"gate", {CHORUS_F32, CHORUS_BF16, CHORUS_F16}, {count, width}}, device);
  check_no_overlap(*y, "y", *in.gate, "gate");
  if (in.gate_bias == nullptr) return;
  check_tensor(in.gate_bias, {"gate_bias", {CHORUS_F32}, {count}}, device);
  check_no_overlap(*y, "y", *in.gate_bias, "gate_bias");
}

void check_exec(const chorus_exec &exec, uint64_t needed) {
  if (exec.struct_size < CHORUS_END_OF(chorus_exec, workspace_bytes)) {
    fail(CHORUS_INVALID_ARGUMENT, "exec: struct_size is {}; initialise it with CHORUS_EXEC_INIT", exec.struct_size);
  }
  if (exec.workspace_bytes < needed || (exec.workspace == nullptr && needed > 0)) {
    fail(CHORUS_FAILED_PRECONDITION, "exec: the workspace has {} bytes; this call needs {}",
         exec.workspace == nullptr ? 0 : exec.workspace_bytes, needed);
  }
  if (reinterpret_cast<uintptr_t>(exec.workspace) % CHORUS_WORKSPACE_ALIGNMENT_HOST != 0) {
    fail(CHORUS_INVALID_ARGUMENT, "exec: the workspace must be aligned to {} bytes", CHORUS_WORKSPACE_ALIGNMENT_HOST);
  }
}

}  // namespace

uint64_t moe_workspace(const Router &router, const Experts &experts, int64_t tokens) {
  return lay_out(router, experts, tokens).total;
}

void moe_forward(const Router &router, const Experts &experts, const MoeIn &in, const chorus_tensor *y,
                 const chorus_route_out &wanted, const chorus_exec *exec) {
  check_pair(router.desc(), experts.desc());
  check_tensors(router, experts, in, y);
  const int64_t tokens = in.x->shape[0];
  const Layout at = lay_out(router, experts, tokens);
  const Context &context = experts.device().context();
  const Workspace own(context.workspaces(), exec == nullptr ? at.total : 0);
  if (exec != nullptr) check_exec(*exec, at.total);
  char *memory = static_cast<char *>(exec != nullptr ? exec->workspace : own.data());
  chorus_exec inner = CHORUS_EXEC_INIT;
  inner.workspace = memory + at.inner;
  inner.workspace_bytes = at.total - at.inner;
  const int64_t wide[2] = {tokens, router.desc().n_experts}, slots[2] = {tokens, router.desc().k};
  const chorus_tensor logits = matrix(memory, CHORUS_F32, wide),
                      ids = matrix(memory + at.ids, router.desc().ids_dtype, slots),
                      weights = matrix(memory + at.weights, CHORUS_F32, slots);
  run_gate(context.pool(), in, wide[1], reinterpret_cast<float *>(memory));
  chorus_route_out out = wanted;
  if (out.ids == nullptr) out.ids = &ids;
  if (out.weights == nullptr) out.weights = &weights;
  router.route(&logits, in.route, out, &inner);
  experts.run(in.x, out.ids, out.weights, y, nullptr, &inner);
}

}  // namespace chorus::route
