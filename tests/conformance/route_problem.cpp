// SPDX-License-Identifier: Apache-2.0
// Running routing problems by kernel and by public ABI: see route_problem.h.
#include "conformance/route_problem.h"

#include <algorithm>
#include <cmath>

#include "conformance/check.h"
#include "conformance/combine_problem.h"

namespace conformance {
namespace {

// A tensor where there are values, or where it is wanted.
std::unique_ptr<Tensor> optional_tensor(const DeviceMemory &memory, chorus_dtype dtype, std::vector<int64_t> shape,
                                        const std::vector<double> &values) {
  if (values.empty()) return nullptr;
  return std::make_unique<Tensor>(memory, dtype, std::move(shape), values);
}
std::unique_ptr<Tensor> output_tensor(const DeviceMemory &memory, chorus_dtype dtype, std::vector<int64_t> shape,
                                      bool wanted) {
  return wanted ? std::make_unique<Tensor>(memory, dtype, std::move(shape)) : nullptr;
}

struct RouteTensors {
  RouteTensors(const DeviceMemory &memory, const RouteProblem &p)
      : logits(memory, p.logits_dtype, {p.tokens, p.n_experts}, p.logits, p.row_stride),
        ids(memory, p.ids_dtype, {p.tokens, p.k}),
        weights(memory, p.weights_dtype, {p.tokens, p.k}) {
    logits.buffer().protect(true);
    bias = optional_tensor(memory, CHORUS_F32, {p.n_experts}, p.bias);
    if (p.n_valid >= 0) n_valid = optional_tensor(memory, CHORUS_I64, {1}, {static_cast<double>(p.n_valid)});
    noise_scales = optional_tensor(memory, CHORUS_F32, {p.tokens, p.n_experts}, p.noise_scales);
    row_ids = optional_tensor(memory, CHORUS_I64, {p.tokens}, p.row_ids);
    token_ids = optional_tensor(memory, p.given_dtype, {p.tokens}, p.token_ids);
    given_ids = optional_tensor(memory, p.given_dtype, {p.tokens, p.k}, p.given_ids);
    const auto wants = [&](uint32_t bit) { return (p.outputs & bit) != 0; };
    const int64_t room = route_capacity(p, p.tokens), padded = p.tokens * p.k + p.n_experts * (p.block - 1);
    counts = output_tensor(memory, CHORUS_I32, {p.n_experts}, p.lists);
    offsets = output_tensor(memory, CHORUS_I32, {p.n_experts + 1}, p.lists);
    order = output_tensor(memory, CHORUS_I32, {p.tokens * p.k}, p.lists);
    inverse = output_tensor(memory, CHORUS_I32, {p.tokens * p.k}, p.lists);
    const bool lists = wants(CHORUS_ROUTE_OUT_EXPERT_LISTS), blocks = wants(CHORUS_ROUTE_OUT_BLOCKS);
    expert_tokens = output_tensor(memory, CHORUS_I32, {p.n_experts, room}, lists);
    expert_weights = output_tensor(memory, CHORUS_F32, {p.n_experts, room}, lists);
    padded_order = output_tensor(memory, CHORUS_I32, {padded}, blocks);
    block_experts = output_tensor(memory, CHORUS_I32, {blocks ? (padded + p.block - 1) / p.block : 0}, blocks);
    n_blocks = output_tensor(memory, CHORUS_I32, {1}, blocks);
    bitmap = output_tensor(memory, CHORUS_U8, {p.tokens, (p.n_experts + 7) / 8}, wants(CHORUS_ROUTE_OUT_BITMAP));
    score_sums = output_tensor(memory, CHORUS_F64, {p.n_experts}, wants(CHORUS_ROUTE_OUT_SCORE_SUMS));
  }
  RouteResult result() {
    const auto bits = [](const std::unique_ptr<Tensor> &t) { return t ? t->bits() : std::vector<uint64_t>{}; };
    return {ids.bits(),          weights.bits(),      bits(counts),        bits(offsets),  bits(order),
            bits(inverse),       bits(expert_tokens), bits(expert_weights), bits(padded_order),
            bits(block_experts), bits(n_blocks),      bits(bitmap),        bits(score_sums)};
  }

  Tensor logits, ids, weights;
  std::unique_ptr<Tensor> bias, n_valid, noise_scales, row_ids, token_ids, given_ids;
  std::unique_ptr<Tensor> counts, offsets, order, inverse, expert_tokens, expert_weights, padded_order, block_experts,
      n_blocks, bitmap, score_sums;
};

// The args of the kernel and the structs of the public ABI have these fields.
template <typename In>
void set_inputs(const RouteProblem &p, const RouteTensors &t, In &in) {
  in.bias = view(t.bias);
  in.n_valid = view(t.n_valid);
  in.noise_scales = view(t.noise_scales);
  in.row_ids = view(t.row_ids);
  in.token_ids = view(t.token_ids);
  in.given_ids = view(t.given_ids);
  in.seed = p.seed;
  in.step = p.step;
}
template <typename Out>
void set_outputs(const RouteTensors &t, Out &out) {
  out.ids = t.ids.view();
  out.weights = t.weights.view();
  out.counts = view(t.counts);
  out.offsets = view(t.offsets);
  out.order = view(t.order);
  out.inverse = view(t.inverse);
  out.expert_tokens = view(t.expert_tokens);
  out.expert_weights = view(t.expert_weights);
  out.padded_order = view(t.padded_order);
  out.block_experts = view(t.block_experts);
  out.n_blocks = view(t.n_blocks);
  out.bitmap = view(t.bitmap);
  out.score_sums = view(t.score_sums);
}

// The hash table lies in host memory, whatever the device.
std::unique_ptr<Tensor> hash_table(const RouteProblem &p) {
  const int64_t rows = static_cast<int64_t>(p.hash_table.size()) / p.k;
  return optional_tensor(DeviceMemory{}, CHORUS_I32, {rows, p.k}, p.hash_table);
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
  desc.selection = p.selection;
  desc.noise = p.noise;
  desc.drop = p.drop;
  desc.capacity = p.capacity;
  desc.capacity_factor = p.capacity_factor;
  desc.capacity_minimum = p.capacity_minimum;
  desc.capacity_multiple = p.capacity_multiple;
  desc.renormalise_last = p.renormalise_last;
  desc.outputs = p.outputs;
  desc.block = p.block;
  const std::unique_ptr<Tensor> table = hash_table(p);
  desc.hash_table = view(table);
  const Prepared kernel(backend, CHORUS_OP_ROUTE_TOPK, &desc);
  RouteTensors t(backend.memory(), p);
  chorus_route_args args = CHORUS_ROUTE_ARGS_INIT;
  args.tokens = p.tokens;
  args.logits = t.logits.view();
  set_inputs(p, t, args);
  set_outputs(t, args);
  kernel.run(&args);
  return t.result();
}

namespace {

struct Deleter {
  void operator()(chorus_router_spec *spec) const { chorus_router_spec_destroy(spec); }
  void operator()(chorus_router *router) const { chorus_router_destroy(router); }
};

void set_features(chorus_router_spec *spec, const RouteProblem &p) {
  chorus_error *error = nullptr;
  must(chorus_router_spec_set_groups(spec, p.n_groups, p.topk_groups, p.group_score, p.group_top, &error), error, "groups");
  must(chorus_router_spec_set_temperature(spec, p.temperature, &error), error, "temperature");
  must(chorus_router_spec_set_noise(spec, p.noise, &error), error, "noise");
  if (p.capacity_factor > 0) {
    must(chorus_router_spec_set_capacity_factor(spec, p.drop, p.capacity_factor, p.capacity_minimum, p.capacity_multiple,
                                                &error),
         error, "capacity factor");
  } else {
    must(chorus_router_spec_set_capacity(spec, p.drop, p.capacity, &error), error, "capacity");
  }
  must(chorus_router_spec_set_renormalise_last(spec, static_cast<int32_t>(p.renormalise_last), &error), error,
       "renormalise last");
  must(chorus_router_spec_set_outputs(spec, p.outputs, p.block, &error), error, "outputs");
  if (p.selection == CHORUS_ROUTE_HASH_TABLE) {
    const std::unique_ptr<Tensor> table = hash_table(p);
    chorus_tensor compact = *table->view();
    compact.strides = nullptr;
    must(chorus_router_spec_set_hash_table(spec, &compact, &error), error, "hash table");
  } else {
    must(chorus_router_spec_set_selection(spec, p.selection, &error), error, "selection");
  }
}

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
  set_features(made, p);
  chorus_router *router = nullptr;
  must(chorus_router_create(abi.context(), made, abi.device(), &router, &error), error, "router");
  const std::unique_ptr<chorus_router, Deleter> owner(router);
  RouteTensors t(abi.memory(), p);
  chorus_route_in in = CHORUS_ROUTE_IN_INIT;
  set_inputs(p, t, in);
  chorus_route_out out = CHORUS_ROUTE_OUT_INIT;
  set_outputs(t, out);
  int64_t room = 0;
  must(chorus_router_get_capacity(router, p.tokens, &room, &error), error, "capacity");
  expect(room == route_capacity(p, p.tokens), "the capacity is %lld", static_cast<long long>(room));
  uint64_t bytes = 0;
  must(chorus_router_get_workspace_size(router, p.tokens, &bytes, &error), error, "workspace size");
  Buffer workspace(abi.memory(), (bytes + 255) / 256 * 256);
  chorus_exec exec = CHORUS_EXEC_INIT;
  exec.workspace = workspace.device();
  exec.workspace_bytes = workspace.bytes();
  must(chorus_router_route(router, t.logits.view(), &in, &out, &exec, &error), error, "route");
  return t.result();
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
         same("order", got.order, want.order) && same("inverse", got.inverse, want.inverse) &&
         same("expert_tokens", got.expert_tokens, want.expert_tokens) &&
         same("expert_weights", got.expert_weights, want.expert_weights) &&
         same("padded_order", got.padded_order, want.padded_order) &&
         same("block_experts", got.block_experts, want.block_experts) &&
         same("n_blocks", got.n_blocks, want.n_blocks) && same("bitmap", got.bitmap, want.bitmap) &&
         same("score_sums", got.score_sums, want.score_sums);
}

}  // namespace conformance
