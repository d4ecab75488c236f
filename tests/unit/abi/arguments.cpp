// SPDX-License-Identifier: Apache-2.0
// Wrong arguments of the functions that other tests reach through chorus.hpp alone: each is refused with its name, outputs
// are set to NULL first, and getters of NULL give nothing.
#include <criterion/criterion.h>

#include <functional>

#include "chorus/chorus.hpp"
#include "unit/support.h"

namespace {

const chorus::Context &context() {
  static const chorus::Context kContext = [] {
    chorus::ContextSpec spec;
    spec.set_option("plugins", "none");
    return chorus::Context(spec);
  }();
  return kContext;
}

// A call that must fail: its code, and what its message must say.
struct Refusal {
  const char *says;
  std::function<chorus_status(chorus_error **)> call;
  chorus_status status = CHORUS_INVALID_ARGUMENT;
};

void expect_all(const std::vector<Refusal> &refusals) {
  for (const Refusal &refusal : refusals) {
    unit::Outcome outcome;
    const chorus_status status = refusal.call(outcome.slot());
    cr_expect_eq(status, refusal.status, "%s: %s: %s", refusal.says, chorus_status_get_name(status), outcome.text().c_str());
    cr_expect(unit::contains(outcome.text(), refusal.says), "'%s' does not say '%s'", outcome.text().c_str(), refusal.says);
    cr_expect_eq(refusal.call(nullptr), refusal.status);  // without asking for the text
  }
}

template <typename T>
T *garbage() {
  return reinterpret_cast<T *>(uintptr_t{64});
}

// A checkpoint of one f32 tensor "w" of two elements, with a config.
chorus::Checkpoint small_checkpoint(const unit::TemporaryFolder &folder) {
  chorus::CheckpointWriterSpec spec;
  spec.add_tensor("w", CHORUS_F32, {2});
  spec.add_text("config.json", R"({"n": 3, "s": "text", "nothing": null, "deep": {"x": true}})");
  float values[2] = {1, 2};
  chorus::CheckpointWriter writer(context(), spec, folder / "model");
  writer.write(0, chorus::Tensor(values, {2}));
  writer.finish();
  return chorus::Checkpoint(context(), folder / "model");
}

}  // namespace

Test(arguments, checkpoints) {
  const unit::TemporaryFolder folder;
  const chorus::Checkpoint checkpoint = small_checkpoint(folder);
  const chorus_checkpoint *c = checkpoint.get();
  chorus_checkpoint *opened = garbage<chorus_checkpoint>();
  float values[2];
  double number = 7;
  const char *text = "as it was", *key = nullptr;
  size_t index = 0;
  chorus_tensor_info info = CHORUS_TENSOR_INFO_INIT;
  const chorus::Tensor two(values, {2}), three(values, {3});
  expect_all({
      {"context", [&](auto e) { return chorus_checkpoint_open(nullptr, "x", &opened, e); }},
      {"path", [&](auto e) { return chorus_checkpoint_open(context().get(), nullptr, &opened, e); }},
      {"out_checkpoint", [&](auto e) { return chorus_checkpoint_open(context().get(), "x", nullptr, e); }},
      {"checkpoint", [&](auto e) { return chorus_checkpoint_get_tensor(nullptr, 0, &info, e); }},
      {"1", [&](auto e) { return chorus_checkpoint_get_tensor(c, 1, &info, e); }, CHORUS_OUT_OF_RANGE},
      {"out_info", [&](auto e) { return chorus_checkpoint_get_tensor(c, 0, nullptr, e); }},
      {"name", [&](auto e) { return chorus_checkpoint_find_tensor(c, nullptr, &index, e); }},
      {"'w'", [&](auto e) { return chorus_checkpoint_find_tensor(c, "v", &index, e); }, CHORUS_NOT_FOUND},
      {"checkpoint", [&](auto e) { return chorus_checkpoint_read(nullptr, 0, two.get(), e); }},
      {"out", [&](auto e) { return chorus_checkpoint_read(c, 0, nullptr, e); }},
      {"out", [&](auto e) { return chorus_checkpoint_read(c, 0, three.get(), e); }},
      {"9", [&](auto e) { return chorus_checkpoint_read(c, 9, two.get(), e); }, CHORUS_OUT_OF_RANGE},
      {"checkpoint", [&](auto e) { return chorus_checkpoint_read_bytes(nullptr, 0, 0, 8, values, e); }},
      {"out", [&](auto e) { return chorus_checkpoint_read_bytes(c, 0, 0, 8, nullptr, e); }},
      {"8", [&](auto e) { return chorus_checkpoint_read_bytes(c, 0, 4, 8, values, e); }, CHORUS_OUT_OF_RANGE},
      {"8", [&](auto e) { return chorus_checkpoint_read_bytes(c, 0, UINT64_MAX, 2, values, e); }, CHORUS_OUT_OF_RANGE},
      {"checkpoint", [&](auto e) { return chorus_checkpoint_get_config_number(nullptr, "n", &number, e); }},
      {"key", [&](auto e) { return chorus_checkpoint_get_config_number(c, nullptr, &number, e); }},
      {"out_value", [&](auto e) { return chorus_checkpoint_get_config_number(c, "n", nullptr, e); }},
      {"s", [&](auto e) { return chorus_checkpoint_get_config_number(c, "s", &number, e); }},
      {"deep.y", [&](auto e) { return chorus_checkpoint_get_config_number(c, "deep.y", &number, e); }, CHORUS_NOT_FOUND},
      {"nothing", [&](auto e) { return chorus_checkpoint_get_config_number(c, "nothing", &number, e); }, CHORUS_NOT_FOUND},
      {"n", [&](auto e) { return chorus_checkpoint_get_config_string(c, "n", &text, e); }},
      {"absent", [&](auto e) { return chorus_checkpoint_get_config_string(c, "absent", &text, e); }, CHORUS_NOT_FOUND},
      {"out_value", [&](auto e) { return chorus_checkpoint_get_config_string(c, "s", nullptr, e); }},
      {"5", [&](auto e) { return chorus_checkpoint_get_metadata(c, 5, &key, &text, e); }, CHORUS_OUT_OF_RANGE},
  });
  cr_expect_null(opened);
  cr_expect_eq(number, 7);
  cr_expect_eq(chorus_checkpoint_get_tensor_count(nullptr), 0u);
  cr_expect_eq(chorus_checkpoint_get_file_count(nullptr), 0u);
  cr_expect_eq(chorus_checkpoint_get_metadata_count(nullptr), 0u);
  cr_expect_null(chorus_checkpoint_get_file(c, 1));
  cr_expect_str_eq(chorus_checkpoint_get_config(nullptr), "");
  cr_expect_str_eq(chorus_checkpoint_get_folder(nullptr), "");
  chorus_checkpoint_destroy(nullptr);
}

Test(arguments, checkpoint_writers) {
  const unit::TemporaryFolder folder;
  chorus::CheckpointWriterSpec owned;
  owned.add_tensor("w", CHORUS_F32, {2});
  chorus_checkpoint_writer_spec *spec = owned.get();
  const std::string target = folder / "out";
  chorus_checkpoint_writer *writer = garbage<chorus_checkpoint_writer>();
  const int64_t two[] = {2}, negative[] = {-1}, huge[] = {INT64_MAX, INT64_MAX};
  const auto add = [&](const char *name, chorus_dtype dtype, int32_t ndim, const int64_t *shape) {
    return [=](chorus_error **e) { return chorus_checkpoint_writer_spec_add_tensor(spec, name, dtype, ndim, shape, nullptr, e); };
  };
  expect_all({
      {"out_spec", [&](auto e) { return chorus_checkpoint_writer_spec_create(nullptr, e); }},
      {"spec", [&](auto e) { return chorus_checkpoint_writer_spec_add_tensor(nullptr, "x", CHORUS_F32, 1, two, nullptr, e); }},
      {"name", add(nullptr, CHORUS_F32, 1, two)},
      {"name", add("", CHORUS_F32, 1, two)},
      {"__metadata__", add("__metadata__", CHORUS_F32, 1, two)},
      {"UTF-8", add("\xff", CHORUS_F32, 1, two)},
      {"w", add("w", CHORUS_F32, 1, two), CHORUS_ALREADY_EXISTS},
      {"shape", add("x", CHORUS_F32, 1, nullptr)},
      {"-1", add("x", CHORUS_F32, 1, negative)},
      {"ndim", add("x", CHORUS_F32, -1, two)},
      {"x", add("x", CHORUS_F32, 2, huge)},
      {"spec", [&](auto e) { return chorus_checkpoint_writer_spec_set_max_shard_bytes(nullptr, 1, e); }},
      {"spec", [&](auto e) { return chorus_checkpoint_writer_spec_set_metadata(nullptr, "k", "v", e); }},
      {"key", [&](auto e) { return chorus_checkpoint_writer_spec_set_metadata(spec, nullptr, "v", e); }},
      {"spec", [&](auto e) { return chorus_checkpoint_writer_spec_add_file(nullptr, "a", "b", e); }},
      {"../a", [&](auto e) { return chorus_checkpoint_writer_spec_add_file(spec, "../a", "b", e); }},
      {"path", [&](auto e) { return chorus_checkpoint_writer_spec_add_file(spec, "a", nullptr, e); }},
      {"/a", [&](auto e) { return chorus_checkpoint_writer_spec_add_text(spec, "/a", "b", 1, e); }},
      {"text", [&](auto e) { return chorus_checkpoint_writer_spec_add_text(spec, "a", nullptr, 1, e); }},
      {"spec", [&](auto e) { return chorus_checkpoint_writer_spec_set_replace(nullptr, 1, e); }},
      {"context", [&](auto e) { return chorus_checkpoint_writer_create(nullptr, spec, target.c_str(), &writer, e); }},
      {"spec", [&](auto e) { return chorus_checkpoint_writer_create(context().get(), nullptr, target.c_str(), &writer, e); }},
      {"folder", [&](auto e) { return chorus_checkpoint_writer_create(context().get(), spec, nullptr, &writer, e); }},
      {"out_writer", [&](auto e) { return chorus_checkpoint_writer_create(context().get(), spec, target.c_str(), nullptr, e); }},
  });
  cr_expect_null(writer);
  cr_expect(!std::filesystem::exists(target));

  chorus::CheckpointWriter owner(context(), owned, target);
  writer = owner.get();
  float values[3] = {};
  const chorus::Tensor three(values, {3});
  expect_all({
      {"writer", [&](auto e) { return chorus_checkpoint_writer_write(nullptr, 0, three.get(), e); }},
      {"tensor", [&](auto e) { return chorus_checkpoint_writer_write(writer, 0, nullptr, e); }},
      {"[2]", [&](auto e) { return chorus_checkpoint_writer_write(writer, 0, three.get(), e); }},
      {"1", [&](auto e) { return chorus_checkpoint_writer_write(writer, 1, three.get(), e); }, CHORUS_OUT_OF_RANGE},
      {"writer", [&](auto e) { return chorus_checkpoint_writer_write_bytes(nullptr, 0, 0, 4, values, e); }},
      {"data", [&](auto e) { return chorus_checkpoint_writer_write_bytes(writer, 0, 0, 4, nullptr, e); }},
      {"8", [&](auto e) { return chorus_checkpoint_writer_write_bytes(writer, 0, 6, 4, values, e); }, CHORUS_OUT_OF_RANGE},
      {"writer", [&](auto e) { return chorus_checkpoint_writer_finish(nullptr, e); }},
      {"w", [&](auto e) { return chorus_checkpoint_writer_finish(writer, e); }, CHORUS_FAILED_PRECONDITION},
  });
}

Test(arguments, mergers) {
  const unit::TemporaryFolder folder;
  const chorus::MergerSpec owned;
  chorus_merger_spec *spec = owned.get();
  chorus_merger *merger = garbage<chorus_merger>();
  chorus_merge_plan plan = CHORUS_MERGE_PLAN_INIT;
  chorus_merge_method_info method = CHORUS_MERGE_METHOD_INFO_INIT;
  chorus_merge_parameter_info parameter = CHORUS_MERGE_PARAMETER_INFO_INIT;
  const std::string absent = folder / "absent.yml";
  expect_all({
      {"out_spec", [&](auto e) { return chorus_merger_spec_create(nullptr, e); }},
      {"spec", [&](auto e) { return chorus_merger_spec_set_recipe(nullptr, "x", 1, nullptr, e); }},
      {"text", [&](auto e) { return chorus_merger_spec_set_recipe(spec, nullptr, 1, nullptr, e); }},
      {"spec", [&](auto e) { return chorus_merger_spec_set_recipe_file(nullptr, "x", e); }},
      {"path", [&](auto e) { return chorus_merger_spec_set_recipe_file(spec, nullptr, e); }},
      {"absent.yml", [&](auto e) { return chorus_merger_spec_set_recipe_file(spec, absent.c_str(), e); }, CHORUS_NOT_FOUND},
      {"spec", [&](auto e) { return chorus_merger_spec_set_output(nullptr, "x", e); }},
      {"folder", [&](auto e) { return chorus_merger_spec_set_output(spec, nullptr, e); }},
      {"spec", [&](auto e) { return chorus_merger_spec_set_memory(nullptr, 1, e); }},
      {"1", [&](auto e) { return chorus_merger_spec_set_memory(spec, 1, e); }},
      {"spec", [&](auto e) { return chorus_merger_spec_set_max_shard_bytes(nullptr, 1, e); }},
      {"spec", [&](auto e) { return chorus_merger_spec_set_numerics(nullptr, 0, e); }},
      {"99", [&](auto e) { return chorus_merger_spec_set_numerics(spec, 99, e); }},
      {"spec", [&](auto e) { return chorus_merger_spec_set_replace(nullptr, 1, e); }},
      {"spec", [&](auto e) { return chorus_merger_spec_set_resume(nullptr, 1, e); }},
      {"spec", [&](auto e) { return chorus_merger_spec_set_method(nullptr, "x", e); }},
      {"method", [&](auto e) { return chorus_merger_spec_set_method(spec, nullptr, e); }},
      {"method", [&](auto e) { return chorus_merger_spec_set_method(spec, "", e); }},
      {"spec", [&](auto e) { return chorus_merger_spec_set_parameter(nullptr, "x", 1, e); }},
      {"name", [&](auto e) { return chorus_merger_spec_set_parameter(spec, nullptr, 1, e); }},
      {"spec", [&](auto e) { return chorus_merger_spec_set_model_parameter(nullptr, 0, "x", 1, e); }},
      {"name", [&](auto e) { return chorus_merger_spec_set_model_parameter(spec, 0, nullptr, 1, e); }},
      {"merger", [&](auto e) { return chorus_merger_merge_tensors(nullptr, "x", nullptr, 0, nullptr, nullptr, nullptr, e); }},
      {"out_bytes", [&](auto e) { return chorus_merger_get_workspace_size(nullptr, nullptr, 0, nullptr, nullptr, nullptr, e); }},
      {"spec", [&](auto e) { return chorus_merger_spec_set_command(nullptr, "x", e); }},
      {"command", [&](auto e) { return chorus_merger_spec_set_command(spec, nullptr, e); }},
      {"spec", [&](auto e) { return chorus_merger_spec_set_seed(nullptr, 1, e); }},
      {"context", [&](auto e) { return chorus_merger_create(nullptr, spec, "auto", &merger, e); }},
      {"spec", [&](auto e) { return chorus_merger_create(context().get(), nullptr, "auto", &merger, e); }},
      {"recipe", [&](auto e) { return chorus_merger_create(context().get(), spec, "auto", &merger, e); }},
      {"device", [&](auto e) { return chorus_merger_create(context().get(), spec, nullptr, &merger, e); }},
      {"out_merger", [&](auto e) { return chorus_merger_create(context().get(), spec, "auto", nullptr, e); }},
      {"merger", [&](auto e) { return chorus_merger_get_plan(nullptr, &plan, e); }},
      {"merger", [&](auto e) { return chorus_merger_run(nullptr, nullptr, nullptr, e); }},
      {"99999", [&](auto e) { return chorus_merge_get_method(99999, &method, e); }, CHORUS_OUT_OF_RANGE},
      {"out_info", [&](auto e) { return chorus_merge_get_method(0, nullptr, e); }},
      {"99999", [&](auto e) { return chorus_merge_get_parameter(0, 99999, &parameter, e); }, CHORUS_OUT_OF_RANGE},
      {"99999", [&](auto e) { return chorus_merge_get_parameter(99999, 0, &parameter, e); }, CHORUS_OUT_OF_RANGE},
  });
  cr_expect_null(merger);
  cr_expect_gt(chorus_merge_method_count(), 0u);
  cr_expect_str_eq(chorus_merger_get_plan_text(nullptr), "");
  cr_expect_str_eq(chorus_merger_get_plan_json(nullptr), "");
  cr_expect_eq(chorus_merger_get_warning_count(nullptr), 0u);
  cr_expect_null(chorus_merger_get_warning(nullptr, 0));
}

Test(arguments, fits_and_diagnoses) {
  chorus_fit_batch batch = CHORUS_FIT_BATCH_INIT;
  chorus_diagnosis_batch rows = CHORUS_DIAGNOSIS_BATCH_INIT;
  chorus_diagnosis_info info = CHORUS_DIAGNOSIS_INFO_INIT;
  expect_all({
      {"fit", [&](auto e) { return chorus_fit_add(nullptr, &batch, e); }},
      {"diagnosis", [&](auto e) { return chorus_diagnosis_add(nullptr, &rows, e); }},
      {"diagnosis", [&](auto e) { return chorus_diagnosis_get(nullptr, &info, e); }},
      {"passes", [&](auto e) { return chorus_passes_merge(nullptr, nullptr, e); }},
  });
  cr_expect_null(chorus_fit_get_point(nullptr));
}

Test(arguments, getters_of_null) {
  cr_expect_str_eq(chorus_combiner_get_kernel(nullptr), "");
  cr_expect_str_eq(chorus_router_get_kernel(nullptr), "");
  cr_expect_str_eq(chorus_experts_get_kernel(nullptr), "");
  cr_expect_eq(chorus_experts_get_packed_bytes(nullptr), 0u);
  chorus_memory_free(context().get(), "reference", nullptr, 0);
  chorus_memory_free(nullptr, nullptr, nullptr, 0);
  chorus_option_info option = CHORUS_OPTION_INFO_INIT;
  expect_all({
      {"context", [&](auto e) { return chorus_context_get_option(nullptr, 0, &option, e); }},
      {"99999", [&](auto e) { return chorus_context_get_option(context().get(), 99999, &option, e); }, CHORUS_OUT_OF_RANGE},
      {"out_info", [&](auto e) { return chorus_context_get_option(context().get(), 0, nullptr, e); }},
  });
}
