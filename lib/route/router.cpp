// SPDX-License-Identifier: Apache-2.0
// Checks a routing call and hands it to the kernel. The empty call is on a budget: 100 ns through the ABI.
#include "route/router.h"

#include "runtime/error.h"
#include "runtime/tensor.h"

namespace chorus::route {
namespace {

void check_overlaps(const Named &inputs, const Named &outputs) {
  for (const auto &output : outputs) {
    for (const auto &input : inputs) {
      if (overlap(output.extent, input.extent)) fail_overlap(output.name, input.name);
    }
    for (const auto *other = &output + 1; other != outputs.end(); ++other) {
      if (overlap(output.extent, other->extent)) fail_overlap(output.name, other->name);
    }
  }
}

// Whether a call asks for anything beyond ids, weights and the four lists: one branch for seven pointers.
bool asks_for_more(const chorus_route_out &out) {
  const auto bits = [](const chorus_tensor *tensor) { return reinterpret_cast<uintptr_t>(tensor); };
  return (bits(out.expert_tokens) | bits(out.expert_weights) | bits(out.padded_order) | bits(out.block_experts) |
          bits(out.n_blocks) | bits(out.bitmap) | bits(out.score_sums)) != 0;
}

// An input that is there exactly when the spec says so.
void check_presence(const char *name, const chorus_tensor *tensor, bool wanted, const char *setter) {
  if (wanted && tensor == nullptr) fail(CHORUS_INVALID_ARGUMENT, "{} is NULL; the spec asks for it ({})", name, setter);
  if (!wanted && tensor != nullptr) {
    fail(CHORUS_INVALID_ARGUMENT, "{} is given; the spec says that there is none ({})", name, setter);
  }
}

PreparedKernel prepare(const std::shared_ptr<const Context> &context, const RouterSpec &spec, const char *device) {
  chorus_route_desc desc = spec.desc;
  chorus_tensor table = CHORUS_TENSOR_INIT;
  const int64_t shape[] = {static_cast<int64_t>(spec.hash_table.size()) / desc.k, desc.k};
  if (desc.selection == CHORUS_ROUTE_HASH_TABLE) {
    table.data = const_cast<int32_t *>(spec.hash_table.data());
    table.size_bytes = spec.hash_table.size() * sizeof(int32_t);
    table.device_type = CHORUS_DEVICE_HOST;
    table.dtype_code = CHORUS_DTYPE_CODE_INT;
    table.dtype_bits = 32;
    table.dtype_lanes = 1;
    table.ndim = 2;
    table.shape = shape;
    desc.hash_table = &table;
  }
  return PreparedKernel::prepare(find_device(context, device), CHORUS_OP_ROUTE_TOPK, &desc);
}

}  // namespace

Router::Router(const std::shared_ptr<const Context> &context, const RouterSpec &spec, const char *device)
    : desc_(spec.desc), kernel_(prepare(context, spec, device)) {}

void Router::check_tokens(int64_t tokens) const {
  if (tokens < 0 || tokens > desc_.max_tokens) {
    fail(CHORUS_INVALID_ARGUMENT, "logits has {} rows; 0 to {} (the spec's max_tokens) are allowed", tokens,
         desc_.max_tokens);
  }
}

// Extents are taken where a tensor is checked, so that each is measured once.
void Router::check_inputs(const chorus_route_in &in, int64_t tokens, Named &named) const {
  const Device &device = *kernel_.device();
  const auto check = [&](const chorus_tensor *tensor, const TensorRule &rule) {
    named.add(rule.name, check_tensor(tensor, rule, device));
  };
  check_presence("bias", in.bias, desc_.has_bias != 0, "chorus_router_spec_set_bias");
  if (in.bias != nullptr) check(in.bias, {"bias", {CHORUS_F32}, {desc_.n_experts}});
  if (in.n_valid != nullptr) check(in.n_valid, {"n_valid", {CHORUS_I64}, {1}});
  if (in.noise_scales != nullptr) {
    check_presence("noise_scales", in.noise_scales, desc_.noise != 0, "chorus_router_spec_set_noise");
    check(in.noise_scales, {"noise_scales", {CHORUS_F32}, {tokens, desc_.n_experts}});
  }
  if (in.row_ids != nullptr) check(in.row_ids, {"row_ids", {CHORUS_I64}, {tokens}});
  check_presence("token_ids", in.token_ids, desc_.selection == CHORUS_ROUTE_HASH_TABLE,
                 "chorus_router_spec_set_hash_table");
  if (in.token_ids != nullptr) check(in.token_ids, {"token_ids", {CHORUS_I32, CHORUS_I64}, {tokens}});
  check_presence("given_ids", in.given_ids, desc_.selection == CHORUS_ROUTE_GIVEN, "chorus_router_spec_set_selection");
  if (in.given_ids != nullptr) check(in.given_ids, {"given_ids", {CHORUS_I32, CHORUS_I64}, {tokens, desc_.k}});
}

void Router::check_outputs(const chorus_route_out &out, int64_t tokens, Named &named) const {
  const Device &device = *kernel_.device();
  const auto check = [&](const chorus_tensor *tensor, const TensorRule &rule) {
    named.add(rule.name, check_tensor(tensor, rule, device));
  };
  const int64_t slots = tokens * desc_.k;
  if (out.ids != nullptr) check(out.ids, {"ids", {desc_.ids_dtype}, {tokens, desc_.k}, true});
  if (out.weights != nullptr) check(out.weights, {"weights", {desc_.weights_dtype}, {tokens, desc_.k}, true});
  if (out.counts != nullptr) check(out.counts, {"counts", {CHORUS_I32}, {desc_.n_experts}, true});
  if (out.offsets != nullptr) check(out.offsets, {"offsets", {CHORUS_I32}, {desc_.n_experts + 1}, true});
  if (out.order != nullptr) check(out.order, {"order", {CHORUS_I32}, {slots}, true});
  if (out.inverse != nullptr) check(out.inverse, {"inverse", {CHORUS_I32}, {slots}, true});
  if (asks_for_more(out)) check_extra_outputs(out, tokens, named);
}

void Router::check_extra_outputs(const chorus_route_out &out, int64_t tokens, Named &named) const {
  const Device &device = *kernel_.device();
  const auto check = [&](const chorus_tensor *tensor, uint32_t bit, const TensorRule &rule) {
    if (tensor == nullptr) return;
    if ((desc_.outputs & bit) == 0) {
      fail(CHORUS_INVALID_ARGUMENT, "{} is asked for; the spec does not announce it (chorus_router_spec_set_outputs)",
           rule.name);
    }
    named.add(rule.name, check_tensor(tensor, rule, device));
  };
  const int64_t experts = desc_.n_experts, room = room_of(tokens), block = desc_.block > 0 ? desc_.block : 1;
  const int64_t padded = tokens * desc_.k + experts * (block - 1);
  check(out.expert_tokens, CHORUS_ROUTE_OUT_EXPERT_LISTS, {"expert_tokens", {CHORUS_I32}, {experts, room}, true});
  check(out.expert_weights, CHORUS_ROUTE_OUT_EXPERT_LISTS, {"expert_weights", {CHORUS_F32}, {experts, room}, true});
  check(out.padded_order, CHORUS_ROUTE_OUT_BLOCKS, {"padded_order", {CHORUS_I32}, {padded}, true});
  check(out.block_experts, CHORUS_ROUTE_OUT_BLOCKS,
        {"block_experts", {CHORUS_I32}, {(padded + block - 1) / block}, true});
  check(out.n_blocks, CHORUS_ROUTE_OUT_BLOCKS, {"n_blocks", {CHORUS_I32}, {1}, true});
  check(out.bitmap, CHORUS_ROUTE_OUT_BITMAP, {"bitmap", {CHORUS_U8}, {tokens, (experts + 7) / 8}, true});
  check(out.score_sums, CHORUS_ROUTE_OUT_SCORE_SUMS, {"score_sums", {CHORUS_F64}, {experts}, true});
}

void Router::route(const chorus_tensor *logits, const chorus_route_in &in, const chorus_route_out &out,
                   const chorus_exec *exec) const {
  Named inputs, outputs;
  inputs.add("logits", check_tensor(logits, {"logits", {desc_.logits_dtype}, {kAnySize, desc_.n_experts}}, *kernel_.device()));
  const int64_t tokens = logits->shape[0];
  check_tokens(tokens);
  check_inputs(in, tokens, inputs);
  check_outputs(out, tokens, outputs);
  check_overlaps(inputs, outputs);
  const chorus_route_args args = {CHORUS_END_OF(chorus_route_args, score_sums), tokens, logits, in.bias, in.n_valid,
                                  out.ids, out.weights, out.counts, out.offsets, out.order, out.inverse,
                                  in.noise_scales, in.row_ids, in.token_ids, in.given_ids, in.seed, in.step,
                                  out.expert_tokens, out.expert_weights, out.padded_order, out.block_experts,
                                  out.n_blocks, out.bitmap, out.score_sums};
  kernel_.run(&args, exec);
}

uint64_t Router::workspace_size(int64_t tokens) const {
  check_tokens(tokens);
  chorus_route_args args = CHORUS_ROUTE_ARGS_INIT;
  args.tokens = tokens;
  return kernel_.workspace_size(&args);
}

int64_t Router::capacity(int64_t tokens) const {
  check_tokens(tokens);
  return room_of(tokens);
}

int64_t Router::room_of(int64_t tokens) const {
  const int64_t limit = capacity_of(desc_, tokens);
  return limit == 0 ? tokens : limit;
}

}  // namespace chorus::route
