// SPDX-License-Identifier: Apache-2.0
// Presets by name and by config.json: what they set, and what is refused with which words.
#include <criterion/criterion.h>

#include <memory>

#include "chorus/chorus.h"
#include "unit/support.h"

using unit::contains;

namespace {

struct Spec {
  Spec(int32_t experts, int32_t k) { cr_assert_eq(chorus_router_spec_create(experts, k, &spec, nullptr), CHORUS_OK); }
  Spec() = default;
  ~Spec() { chorus_router_spec_destroy(spec); }
  Spec(const Spec &) = delete;
  Spec &operator=(const Spec &) = delete;

  chorus_route_desc desc() const {
    chorus_route_desc out = CHORUS_ROUTE_DESC_INIT;
    cr_assert_eq(chorus_router_spec_get_desc(spec, &out, nullptr), CHORUS_OK);
    return out;
  }
  chorus_router_spec *spec = nullptr;
};

// Status and message of a call.
struct Outcome {
  chorus_status status;
  std::string message;
};
template <typename Call>
Outcome outcome(const Call &call) {
  chorus_error *error = nullptr;
  const chorus_status status = call(&error);
  const Outcome out{status, error != nullptr ? chorus_error_get_message(error) : ""};
  chorus_error_destroy(error);
  return out;
}

// The spec of a checkpoint with this config.json.
Outcome read_config(const std::string &config, Spec &out) {
  const unit::TemporaryFolder folder;
  unit::write_file(folder / "config.json", config);
  const std::string header = R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})";
  uint64_t length = header.size();
  unit::write_file(folder / "model.safetensors", std::string(reinterpret_cast<char *>(&length), 8) + header + "1234");
  chorus_context *context = nullptr;
  chorus_context_spec *spec = nullptr;
  cr_assert_eq(chorus_context_spec_create(&spec, nullptr), CHORUS_OK);
  cr_assert_eq(chorus_context_spec_set_option(spec, "plugins", "explicit", nullptr), CHORUS_OK);
  cr_assert_eq(chorus_context_create(spec, &context, nullptr), CHORUS_OK);
  chorus_checkpoint *checkpoint = nullptr;
  cr_assert_eq(chorus_checkpoint_open(context, folder.path().c_str(), &checkpoint, nullptr), CHORUS_OK);
  const Outcome result = outcome(
      [&](chorus_error **error) { return chorus_router_spec_create_from_checkpoint(checkpoint, &out.spec, error); });
  chorus_checkpoint_destroy(checkpoint);
  chorus_context_destroy(context);
  chorus_context_spec_destroy(spec);
  return result;
}

chorus_route_desc desc_of(const std::string &config) {
  Spec spec;
  const Outcome result = read_config(config, spec);
  cr_assert_eq(result.status, CHORUS_OK, "%s", result.message.c_str());
  return spec.desc();
}

}  // namespace

Test(presets, every_name_makes_a_router) {
  chorus_context_spec *options = nullptr;
  chorus_context *context = nullptr;
  cr_assert_eq(chorus_context_spec_create(&options, nullptr), CHORUS_OK);
  cr_assert_eq(chorus_context_spec_set_option(options, "plugins", "explicit", nullptr), CHORUS_OK);
  cr_assert_eq(chorus_context_create(options, &context, nullptr), CHORUS_OK);
  size_t count = 0;
  for (; const char *name = chorus_router_preset_name(count); ++count) {
    const std::string text = name;
    const Spec spec(64, text == "switch" ? 1 : 2);
    const Outcome set = outcome([&](chorus_error **e) { return chorus_router_spec_set_preset(spec.spec, name, e); });
    cr_expect_eq(set.status, CHORUS_OK, "%s: %s", name, set.message.c_str());
    chorus_router *router = nullptr;
    const Outcome made =
        outcome([&](chorus_error **e) { return chorus_router_create(context, spec.spec, "reference", &router, e); });
    cr_expect_eq(made.status, CHORUS_OK, "%s: %s", name, made.message.c_str());
    chorus_router_destroy(router);
  }
  cr_expect_eq(count, 14u);
  chorus_context_destroy(context);
  chorus_context_spec_destroy(options);
}

Test(presets, deepseek_v3) {
  const Spec spec(256, 8);
  cr_assert_eq(chorus_router_spec_set_max_tokens(spec.spec, 77, nullptr), CHORUS_OK);
  cr_assert_eq(chorus_router_spec_set_preset(spec.spec, "deepseek-v3", nullptr), CHORUS_OK);
  const chorus_route_desc d = spec.desc();
  cr_expect_eq(d.score, CHORUS_ROUTE_SIGMOID);
  cr_expect_eq(d.has_bias, 1u);
  cr_expect_eq(d.n_groups, 8);
  cr_expect_eq(d.topk_groups, 4);
  cr_expect_eq(d.group_top, 2);
  cr_expect_eq(d.renormalise, CHORUS_ROUTE_RENORMALISE_SUM);
  cr_expect_eq(d.epsilon, 1e-20);
  cr_expect_eq(d.scale, 2.5);
  cr_expect_eq(d.max_tokens, 77, "sizes stay");
  cr_expect_null(d.hash_table);
}

Test(presets, refusals_name_what_is_wrong) {
  const Spec spec(60, 2);
  const auto refusal = [&](const char *name) {
    return outcome([&](chorus_error **e) { return chorus_router_spec_set_preset(spec.spec, name, e); });
  };
  const Outcome unknown = refusal("mixtrel"), wrong_k = refusal("switch"), wrong_e = refusal("deepseek-v3");
  cr_expect_eq(unknown.status, CHORUS_INVALID_ARGUMENT);
  cr_expect(contains(unknown.message, "did you mean 'mixtral'"), "%s", unknown.message.c_str());
  cr_expect_eq(wrong_k.status, CHORUS_INVALID_ARGUMENT);
  cr_expect(contains(wrong_k.message, "k is 2"), "%s", wrong_k.message.c_str());
  cr_expect(contains(wrong_e.message, "60 experts"), "%s", wrong_e.message.c_str());
  cr_expect_eq(spec.desc().score, CHORUS_ROUTE_SOFTMAX);
  cr_expect_eq(spec.desc().has_bias, 0u, "a refused preset leaves the spec");
}

Test(presets, by_config) {
  const chorus_route_desc qwen = desc_of(
      R"({"model_type":"qwen3_moe","num_experts":128,"num_local_experts":128,"num_experts_per_tok":8,"norm_topk_prob":false})");
  cr_expect_eq(qwen.n_experts, 128);
  cr_expect_eq(qwen.k, 8);
  cr_expect_eq(qwen.renormalise, CHORUS_ROUTE_RENORMALISE_NONE, "the file's norm_topk_prob counts");
  const chorus_route_desc v3 = desc_of(
      R"({"model_type":"deepseek_v3","n_routed_experts":60,"num_experts_per_tok":4,"n_group":4,"topk_group":2,)"
      R"("routed_scaling_factor":1.5,"norm_topk_prob":true,"scoring_func":"sigmoid","topk_method":"noaux_tc"})");
  cr_expect_eq(v3.n_groups, 4);
  cr_expect_eq(v3.topk_groups, 2);
  cr_expect_eq(v3.scale, 1.5);
  const chorus_route_desc lite = desc_of(
      R"({"model_type":"deepseek_v2","n_routed_experts":64,"num_experts_per_tok":6,"n_group":1,"topk_group":1,)"
      R"("topk_method":"greedy","routed_scaling_factor":1.0,"norm_topk_prob":false})");
  cr_expect_eq(lite.n_groups, 0);
  cr_expect_eq(lite.scale, 1.0);
  const chorus_route_desc llama = desc_of(
      R"({"model_type":"llama4","text_config":{"model_type":"llama4_text","num_local_experts":16,"num_experts_per_tok":1}})");
  cr_expect_eq(llama.score, CHORUS_ROUTE_SIGMOID);
  cr_expect_eq(llama.weight_before, 1u);
  const chorus_route_desc fixed =
      desc_of(R"({"model_type":"switch_transformers","num_experts":8,"expert_capacity":64})");
  cr_expect_eq(fixed.k, 1);
  cr_expect_eq(fixed.capacity, 64);
}

Test(presets, configs_that_do_not_do) {
  const struct {
    const char *config;
    chorus_status status;
    const char *words;
  } rows[] = {
      {R"({"model_type":"llama"})", CHORUS_UNIMPLEMENTED, "'llama'"},
      {R"({})", CHORUS_UNIMPLEMENTED, "model_type is ''"},
      {R"([])", CHORUS_DATA_LOSS, "no object"},
      {R"({"model_type":7})", CHORUS_DATA_LOSS, "model_type"},
      {R"({"model_type":"mixtral","num_experts_per_tok":2})", CHORUS_DATA_LOSS, "num_local_experts"},
      {R"({"model_type":"mixtral","num_local_experts":8})", CHORUS_DATA_LOSS, "num_experts_per_tok"},
      {R"({"model_type":"mixtral","num_local_experts":8.5,"num_experts_per_tok":2})", CHORUS_DATA_LOSS, "8.5"},
      {R"({"model_type":"mixtral","num_local_experts":"8","num_experts_per_tok":2})", CHORUS_DATA_LOSS, "string"},
      {R"({"model_type":"mixtral","num_local_experts":8,"num_experts_per_tok":9})", CHORUS_INVALID_ARGUMENT, "k is 9"},
      {R"({"model_type":"deepseek_v3","n_routed_experts":8,"num_experts_per_tok":2,"scoring_func":"softmax"})",
       CHORUS_UNIMPLEMENTED, "scoring_func"},
      {R"({"model_type":"deepseek_v2","n_routed_experts":8,"num_experts_per_tok":2,"norm_topk_prob":true})",
       CHORUS_UNIMPLEMENTED, "norm_topk_prob"},
  };
  for (const auto &row : rows) {
    Spec spec;
    const Outcome result = read_config(row.config, spec);
    cr_expect_eq(result.status, row.status, "%s: %d %s", row.config, result.status, result.message.c_str());
    cr_expect(contains(result.message, row.words), "%s: %s", row.config, result.message.c_str());
    cr_expect_null(spec.spec);
  }
}

Test(presets, setters_refuse_and_leave_the_spec) {
  const Spec spec(8, 2);
  chorus_router_spec *s = spec.spec;
  cr_expect_eq(chorus_router_spec_set_weight_before(s, 7, nullptr), CHORUS_OK);
  cr_expect_eq(spec.desc().weight_before, 1u);
  const auto refused = [&](const char *words, auto call) {
    const Outcome result = outcome(call);
    cr_expect_eq(result.status, CHORUS_INVALID_ARGUMENT, "%s", words);
    cr_expect(contains(result.message, words), "%s", result.message.c_str());
  };
  refused("n_groups is 3", [&](chorus_error **e) { return chorus_router_spec_set_groups(s, 3, 1, 0, 0, e); });
  refused("fewer than k", [&](chorus_error **e) { return chorus_router_spec_set_groups(s, 8, 1, 0, 0, e); });
  refused("selection is 99", [&](chorus_error **e) { return chorus_router_spec_set_selection(s, 99, e); });
  refused("set_hash_table", [&](chorus_error **e) {
    return chorus_router_spec_set_selection(s, CHORUS_ROUTE_HASH_TABLE, e);
  });
  refused("deviation is -1", [&](chorus_error **e) { return chorus_router_spec_set_noise(s, -1, e); });
  refused("temperature is 0", [&](chorus_error **e) { return chorus_router_spec_set_temperature(s, 0, e); });
  refused("capacity is 0", [&](chorus_error **e) {
    return chorus_router_spec_set_capacity(s, CHORUS_ROUTE_DROP_BY_SCORE, 0, e);
  });
  refused("factor is 0", [&](chorus_error **e) {
    return chorus_router_spec_set_capacity_factor(s, CHORUS_ROUTE_DROP_BY_SCORE, 0, 0, 0, e);
  });
  refused("outputs is", [&](chorus_error **e) { return chorus_router_spec_set_outputs(s, 64, 0, e); });
  refused("block is 0", [&](chorus_error **e) {
    return chorus_router_spec_set_outputs(s, CHORUS_ROUTE_OUT_BLOCKS, 0, e);
  });
  int32_t entries[] = {0, 1, 2, 8};
  const int64_t shape[] = {2, 2};
  chorus_tensor table = CHORUS_TENSOR_INIT;
  table.data = entries;
  table.size_bytes = sizeof entries;
  table.device_type = CHORUS_DEVICE_HOST;
  table.dtype_bits = 32;
  table.dtype_lanes = 1;
  table.ndim = 2;
  table.shape = shape;
  refused("table[1, 1] is 8", [&](chorus_error **e) { return chorus_router_spec_set_hash_table(s, &table, e); });
  table.size_bytes = 4;
  refused("compact i32 matrix", [&](chorus_error **e) { return chorus_router_spec_set_hash_table(s, &table, e); });
  const chorus_route_desc d = spec.desc();
  cr_expect_eq(d.n_groups, 0);
  cr_expect_eq(d.selection, CHORUS_ROUTE_TOKENS_CHOOSE);
  cr_expect_eq(d.drop, CHORUS_ROUTE_DROP_NONE);
}
