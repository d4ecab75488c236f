// SPDX-License-Identifier: Apache-2.0
// Checks a routing call and hands it to the kernel. The empty call is on a budget: 100 ns through the ABI.
#include "route/router.h"

#include <array>

#include "runtime/error.h"
#include "runtime/tensor.h"

namespace chorus::route {
namespace {

struct Named {
  const char *name;
  const chorus_tensor *tensor;
};

void check_overlaps(const chorus_tensor &logits, const chorus_route_in &in, const std::array<Named, 6> &outputs) {
  for (size_t a = 0; a < outputs.size(); ++a) {
    if (outputs[a].tensor == nullptr) continue;
    check_no_overlap(*outputs[a].tensor, outputs[a].name, logits, "logits");
    if (in.bias != nullptr) check_no_overlap(*outputs[a].tensor, outputs[a].name, *in.bias, "bias");
    if (in.n_valid != nullptr) check_no_overlap(*outputs[a].tensor, outputs[a].name, *in.n_valid, "n_valid");
    for (size_t b = a + 1; b < outputs.size(); ++b) {
      if (outputs[b].tensor == nullptr) continue;
      check_no_overlap(*outputs[a].tensor, outputs[a].name, *outputs[b].tensor, outputs[b].name);
    }
  }
}

}  // namespace

chorus_route_desc default_desc(int32_t n_experts, int32_t k) {
  if (n_experts < 1 || n_experts > 8192) {
    fail(CHORUS_INVALID_ARGUMENT, "n_experts is {}; 1 to 8192 are allowed", n_experts);
  }
  if (k < 1 || k > 64 || k > n_experts) {
    fail(CHORUS_INVALID_ARGUMENT, "k is {}; 1 to {} are allowed", k, n_experts < 64 ? n_experts : 64);
  }
  chorus_route_desc desc = CHORUS_ROUTE_DESC_INIT;
  desc.n_experts = n_experts;
  desc.k = k;
  desc.max_tokens = 1;
  desc.logits_dtype = CHORUS_F32;
  desc.ids_dtype = CHORUS_I32;
  desc.weights_dtype = CHORUS_F32;
  desc.scale = 1;
  desc.temperature = 1;
  return desc;
}

Router::Router(const std::shared_ptr<const Context> &context, const chorus_route_desc &desc, const char *device)
    : desc_(desc), kernel_(PreparedKernel::prepare(find_device(context, device), CHORUS_OP_ROUTE_TOPK, &desc)) {}

void Router::check_tokens(int64_t tokens) const {
  if (tokens < 0 || tokens > desc_.max_tokens) {
    fail(CHORUS_INVALID_ARGUMENT, "logits has {} rows; 0 to {} (the spec's max_tokens) are allowed", tokens,
         desc_.max_tokens);
  }
}

void Router::check(const chorus_tensor *logits, const chorus_route_in &in, const chorus_route_out &out) const {
  const Device &device = *kernel_.device();
  check_tensor(logits, {"logits", {desc_.logits_dtype}, {kAnySize, desc_.n_experts}}, device);
  const int64_t tokens = logits->shape[0], slots = tokens * desc_.k;
  check_tokens(tokens);
  if (desc_.has_bias != 0) check_tensor(in.bias, {"bias", {CHORUS_F32}, {desc_.n_experts}}, device);
  if (desc_.has_bias == 0 && in.bias != nullptr) {
    fail(CHORUS_INVALID_ARGUMENT, "bias is given; the spec says that there is none (chorus_router_spec_set_bias)");
  }
  if (in.n_valid != nullptr) check_tensor(in.n_valid, {"n_valid", {CHORUS_I64}, {1}}, device);
  if (out.ids != nullptr) check_tensor(out.ids, {"ids", {desc_.ids_dtype}, {tokens, desc_.k}, true}, device);
  if (out.weights != nullptr) {
    check_tensor(out.weights, {"weights", {desc_.weights_dtype}, {tokens, desc_.k}, true}, device);
  }
  if (out.counts != nullptr) check_tensor(out.counts, {"counts", {CHORUS_I32}, {desc_.n_experts}, true}, device);
  if (out.offsets != nullptr) check_tensor(out.offsets, {"offsets", {CHORUS_I32}, {desc_.n_experts + 1}, true}, device);
  if (out.order != nullptr) check_tensor(out.order, {"order", {CHORUS_I32}, {slots}, true}, device);
  if (out.inverse != nullptr) check_tensor(out.inverse, {"inverse", {CHORUS_I32}, {slots}, true}, device);
  check_overlaps(*logits, in,
                 {{{"ids", out.ids},
                   {"weights", out.weights},
                   {"counts", out.counts},
                   {"offsets", out.offsets},
                   {"order", out.order},
                   {"inverse", out.inverse}}});
}

void Router::route(const chorus_tensor *logits, const chorus_route_in &in, const chorus_route_out &out,
                   const chorus_exec *exec) const {
  check(logits, in, out);
  chorus_route_args args = CHORUS_ROUTE_ARGS_INIT;
  args.tokens = logits->shape[0];
  args.logits = logits;
  args.bias = in.bias;
  args.n_valid = in.n_valid;
  args.ids = out.ids;
  args.weights = out.weights;
  args.counts = out.counts;
  args.offsets = out.offsets;
  args.order = out.order;
  args.inverse = out.inverse;
  kernel_.run(&args, exec);
}

uint64_t Router::workspace_size(int64_t tokens) const {
  check_tokens(tokens);
  chorus_route_args args = CHORUS_ROUTE_ARGS_INIT;
  args.tokens = tokens;
  return kernel_.workspace_size(&args);
}

}  // namespace chorus::route
