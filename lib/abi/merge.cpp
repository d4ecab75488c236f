// SPDX-License-Identifier: Apache-2.0
// merge.h: setters of the spec, and calls into merge/merger.
#include "chorus/merge.h"

#include <optional>

#include "abi/boundary.h"
#include "abi/info.h"
#include "abi/structs.h"
#include "merge/memory_merge.h"
#include "merge/merger.h"
#include "runtime/files.h"

using chorus::fail;
using chorus::abi::guarded;
using chorus::abi::require;

namespace mg = chorus::merge;

struct chorus_merger_spec {
  mg::MergeSettings settings;
  mg::MemorySettings in_memory;  // when its method is set
};

// One of the two.
struct chorus_merger {
  std::optional<mg::Merger> merger;
  std::optional<mg::MemoryMerger> in_memory;
};

namespace {

const char *type_name(mg::ParameterType type) {
  constexpr const char *kNames[] = {"number", "integer", "boolean", "word"};
  return kNames[static_cast<int>(type)];
}

// The callback of C, as the core calls it.
mg::ProgressFunction reporter(chorus_merge_progress_fn progress, void *user) {
  if (progress == nullptr) return {};
  return [=](const mg::Progress &at) {
    chorus_merge_progress out = CHORUS_MERGE_PROGRESS_INIT;
    out.phase = at.phase;
    out.tensor = at.tensor.c_str();
    out.bytes_done = at.bytes_done;
    out.bytes_total = at.bytes_total;
    out.tensors_done = at.tensors_done;
    out.tensors_total = at.tensors_total;
    return progress(user, &out) == 0;
  };
}

// The merger of a recipe.
const mg::Merger &streamed(const chorus_merger *merger) {
  if (!require(merger, "merger")->merger) {
    fail(CHORUS_FAILED_PRECONDITION, "merger was made with a method for tensors in memory; it has no plan to show or run");
  }
  return *merger->merger;
}

const mg::MemoryMerger &in_memory(const chorus_merger *merger) {
  if (!require(merger, "merger")->in_memory) {
    fail(CHORUS_FAILED_PRECONDITION, "merger was made from a recipe; chorus_merger_spec_set_method() makes one for tensors");
  }
  return *merger->in_memory;
}

}  // namespace

extern "C" {

chorus_status chorus_merger_spec_create(chorus_merger_spec **out_spec, chorus_error **error) {
  return guarded(error, [&] {
    *require(out_spec, "out_spec") = nullptr;
    *out_spec = new chorus_merger_spec;
  });
}

void chorus_merger_spec_destroy(chorus_merger_spec *spec) { delete spec; }

chorus_status chorus_merger_spec_set_recipe(chorus_merger_spec *spec, const char *text, uint64_t length, const char *name,
                                            chorus_error **error) {
  return guarded(error, [&] {
    require(spec, "spec");
    if (length > 0) require(text, "text");
    spec->settings.recipe.assign(length > 0 ? text : "", length);
    spec->settings.recipe_name = name != nullptr ? name : "recipe";
  });
}

chorus_status chorus_merger_spec_set_recipe_file(chorus_merger_spec *spec, const char *path, chorus_error **error) {
  return guarded(error, [&] {
    require(spec, "spec");
    spec->settings.recipe = chorus::read_text(require(path, "path"), mg::kMaxRecipeBytes);
    spec->settings.recipe_name = path;
  });
}

chorus_status chorus_merger_spec_set_output(chorus_merger_spec *spec, const char *folder, chorus_error **error) {
  return guarded(error, [&] {
    require(spec, "spec");
    if (*require(folder, "folder") == '\0') fail(CHORUS_INVALID_ARGUMENT, "folder is empty");
    spec->settings.output = folder;
  });
}

chorus_status chorus_merger_spec_set_memory(chorus_merger_spec *spec, uint64_t bytes, chorus_error **error) {
  return guarded(error, [&] {
    require(spec, "spec");
    if (bytes < mg::kLeastMemory) {
      fail(CHORUS_INVALID_ARGUMENT, "memory is {} bytes; at least {} (64 MiB) are needed", bytes, mg::kLeastMemory);
    }
    spec->settings.memory = bytes;
  });
}

chorus_status chorus_merger_spec_set_max_shard_bytes(chorus_merger_spec *spec, uint64_t bytes, chorus_error **error) {
  return guarded(error, [&] { require(spec, "spec")->settings.max_shard_bytes = bytes; });
}

chorus_status chorus_merger_spec_set_numerics(chorus_merger_spec *spec, chorus_merge_numerics numerics, chorus_error **error) {
  return guarded(error, [&] {
    require(spec, "spec");
    if (numerics != CHORUS_NUMERICS_ACCURATE && numerics != CHORUS_NUMERICS_MERGEKIT) {
      fail(CHORUS_INVALID_ARGUMENT, "numerics is {}; CHORUS_NUMERICS_ACCURATE (0) and CHORUS_NUMERICS_MERGEKIT (1) are known", numerics);
    }
    spec->settings.numerics = numerics;
  });
}

chorus_status chorus_merger_spec_set_seed(chorus_merger_spec *spec, uint64_t seed, chorus_error **error) {
  return guarded(error, [&] { require(spec, "spec")->settings.seed = seed; });
}

chorus_status chorus_merger_spec_set_replace(chorus_merger_spec *spec, int32_t replace, chorus_error **error) {
  return guarded(error, [&] { require(spec, "spec")->settings.replace = replace != 0; });
}

chorus_status chorus_merger_spec_set_resume(chorus_merger_spec *spec, int32_t resume, chorus_error **error) {
  return guarded(error, [&] { require(spec, "spec")->settings.resume = resume != 0; });
}

chorus_status chorus_merger_spec_set_command(chorus_merger_spec *spec, const char *command, chorus_error **error) {
  return guarded(error, [&] { require(spec, "spec")->settings.command = require(command, "command"); });
}

chorus_status chorus_merger_spec_set_method(chorus_merger_spec *spec, const char *method, chorus_error **error) {
  return guarded(error, [&] {
    require(spec, "spec");
    if (*require(method, "method") == '\0') fail(CHORUS_INVALID_ARGUMENT, "method is empty; chorus_merge_get_method() lists them");
    spec->in_memory.method = method;
  });
}

chorus_status chorus_merger_spec_set_parameter(chorus_merger_spec *spec, const char *name, double value, chorus_error **error) {
  return guarded(error, [&] { require(spec, "spec")->in_memory.parameters[require(name, "name")] = value; });
}

chorus_status chorus_merger_spec_set_model_parameter(chorus_merger_spec *spec, size_t model, const char *name, double value,
                                                     chorus_error **error) {
  return guarded(error, [&] { require(spec, "spec")->in_memory.model_parameters[require(name, "name")][model] = value; });
}

chorus_status chorus_merger_create(const chorus_context *context, const chorus_merger_spec *spec, const char *device,
                                   chorus_merger **out_merger, chorus_error **error) {
  return guarded(error, [&] {
    *require(out_merger, "out_merger") = nullptr;
    const auto shared = chorus::context_of(context);
    require(spec, "spec");
    require(device, "device");
    auto merger = std::make_unique<chorus_merger>();
    if (spec->in_memory.method.empty()) {
      if (!spec->in_memory.parameters.empty() || !spec->in_memory.model_parameters.empty()) {
        fail(CHORUS_INVALID_ARGUMENT, "parameters were set without a method; a recipe names its own");
      }
      merger->merger.emplace(shared, spec->settings, device);
    } else {
      if (!spec->settings.recipe.empty()) fail(CHORUS_INVALID_ARGUMENT, "both a recipe and a method were set; a merger has one of them");
      mg::MemorySettings settings = spec->in_memory;
      settings.seed = spec->settings.seed;
      settings.memory = spec->settings.memory;
      settings.numerics = spec->settings.numerics;
      merger->in_memory.emplace(shared, settings, device);
    }
    *out_merger = merger.release();
  });
}

void chorus_merger_destroy(chorus_merger *merger) { delete merger; }

chorus_status chorus_merger_get_plan(const chorus_merger *merger, chorus_merge_plan *out_plan, chorus_error **error) {
  return guarded(error, [&] {
    const mg::Plan &plan = streamed(merger).plan();
    chorus_merge_plan out = CHORUS_MERGE_PLAN_INIT;
    out.tensor_count = plan.jobs.size();
    for (const mg::Job &job : plan.jobs) ++(job.kind == mg::JobKind::kMerge ? out.merged_count : out.copied_count);
    out.elements = plan.elements;
    out.bytes_to_read = plan.bytes_to_read;
    out.bytes_to_write = plan.bytes_to_write;
    out.peak_memory = plan.peak_memory;
    out.free_disk = plan.free_disk;
    out.seconds = plan.seconds;
    chorus::abi::fill_info(out_plan, out);
  });
}

const char *chorus_merger_get_plan_text(const chorus_merger *merger) {
  return merger != nullptr && merger->merger ? merger->merger->text().c_str() : "";
}

const char *chorus_merger_get_plan_json(const chorus_merger *merger) {
  return merger != nullptr && merger->merger ? merger->merger->json().c_str() : "";
}

size_t chorus_merger_get_warning_count(const chorus_merger *merger) {
  return merger != nullptr && merger->merger ? merger->merger->plan().warnings.size() : 0;
}

const char *chorus_merger_get_warning(const chorus_merger *merger, size_t index) {
  return index < chorus_merger_get_warning_count(merger) ? merger->merger->plan().warnings[index].c_str() : nullptr;
}

chorus_status chorus_merger_run(const chorus_merger *merger, chorus_merge_progress_fn progress, void *user, chorus_error **error) {
  return guarded(error, [&] { streamed(merger).run(reporter(progress, user)); });
}

chorus_status chorus_merger_merge_tensors(const chorus_merger *merger, const char *name, const chorus_tensor *const *models,
                                          size_t count, const chorus_tensor *base, const chorus_tensor *out, const chorus_exec *exec,
                                          chorus_error **error) {
  return guarded(error, [&] {
    const mg::MemoryMerger &tensors = in_memory(merger);
    if (count > 0) require(models, "models");
    chorus_exec copy;
    if (exec != nullptr) copy = chorus::abi::read_struct(exec, "exec", CHORUS_END_OF(chorus_exec, workspace_bytes));
    tensors.merge({require(name, "name"), models, count, base, require(out, "out")}, exec != nullptr ? &copy : nullptr);
  });
}

chorus_status chorus_merger_get_workspace_size(const chorus_merger *merger, const chorus_tensor *const *models, size_t count,
                                               const chorus_tensor *base, const chorus_tensor *out, uint64_t *out_bytes,
                                               chorus_error **error) {
  return guarded(error, [&] {
    *require(out_bytes, "out_bytes") = 0;
    const mg::MemoryMerger &tensors = in_memory(merger);
    if (count > 0) require(models, "models");
    *out_bytes = tensors.workspace_bytes({"", models, count, base, require(out, "out")});
  });
}

size_t chorus_merge_method_count(void) { return mg::methods().size(); }

chorus_status chorus_merge_get_method(size_t index, chorus_merge_method_info *out_info, chorus_error **error) {
  return guarded(error, [&] {
    const mg::Method &method = chorus::abi::at(mg::methods(), index, "index");
    chorus_merge_method_info info = CHORUS_MERGE_METHOD_INFO_INIT;
    info.name = method.name;
    info.summary = method.summary;
    info.parameter_count = method.parameters.size();
    info.min_models = static_cast<int32_t>(method.min_inputs);
    info.max_models = static_cast<int32_t>(method.max_inputs);
    info.needs_base = method.base == mg::BaseUse::kRequired || method.base == mg::BaseUse::kFirstInput ? 1 : 0;
    chorus::abi::fill_info(out_info, info);
  });
}

chorus_status chorus_merge_get_parameter(size_t method, size_t index, chorus_merge_parameter_info *out_info, chorus_error **error) {
  return guarded(error, [&] {
    const mg::Parameter &parameter = chorus::abi::at(chorus::abi::at(mg::methods(), method, "method").parameters, index, "index");
    chorus_merge_parameter_info info = CHORUS_MERGE_PARAMETER_INFO_INIT;
    info.name = parameter.name;
    info.type = type_name(parameter.type);
    info.doc = parameter.doc;
    info.minimum = parameter.minimum;
    info.maximum = parameter.maximum;
    info.default_value = parameter.required ? mg::kUnset : parameter.fallback;
    info.is_required = parameter.required ? 1 : 0;
    info.is_per_model = parameter.per_model ? 1 : 0;
    chorus::abi::fill_info(out_info, info);
  });
}

}  // extern "C"
