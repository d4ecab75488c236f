// SPDX-License-Identifier: Apache-2.0
// One job whose operands lie in memory, run by the execution that streams files. Pieces are copied into aligned scratch and
// out of it: the kernels, the pieces and their tree are those of a streamed merge.
#include "merge/memory_merge.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "checkpoint/transfer.h"
#include "merge/execute.h"
#include "merge/output.h"
#include "runtime/checked.h"
#include "runtime/dtype.h"
#include "runtime/nearest.h"
#include "runtime/tensor.h"
#include "runtime/workspace.h"

namespace chorus::merge {
namespace {

class MemoryOutput : public Output {
 public:
  explicit MemoryOutput(void *data) : data_(static_cast<char *>(data)) {}
  void write(size_t, uint64_t offset, uint64_t bytes, const void *from) override { std::memcpy(data_ + offset, from, bytes); }

 private:
  char *data_;
};

const Method &method_of(const std::string &name) {
  if (const Method *method = find_method(name)) return *method;
  std::vector<std::string> known;
  for (const Method &method : methods()) known.emplace_back(method.name);
  fail(CHORUS_INVALID_ARGUMENT, "method is '{}'{}; chorus_merge_get_method() lists them", name, did_you_mean(name, known));
}

const Parameter &parameter_of(const Method &method, const std::string &name) {
  std::vector<std::string> known;
  for (const Parameter &parameter : method.parameters) {
    if (name == parameter.name) return parameter;
    known.emplace_back(parameter.name);
  }
  fail(CHORUS_INVALID_ARGUMENT, "{} has no parameter '{}'{}", method.name, name, did_you_mean(name, known));
}

void check_range(const Parameter &parameter, double value) {
  const bool whole = parameter.type == ParameterType::kNumber || value == std::floor(value);
  if (whole && value >= parameter.minimum && value <= parameter.maximum) return;
  fail(CHORUS_INVALID_ARGUMENT, "{} is {}; {}{} is allowed", parameter.name, value, parameter.type == ParameterType::kNumber ? "" : "a whole number, ",
       range_of(parameter));
}

std::vector<int64_t> shape_of(const chorus_tensor *tensor) {
  if (tensor == nullptr) fail(CHORUS_INVALID_ARGUMENT, "models[0] is NULL; it is required");
  if (tensor->ndim < 0 || tensor->ndim > CHORUS_MAX_DIMENSIONS || (tensor->ndim > 0 && tensor->shape == nullptr)) {
    fail(CHORUS_INVALID_ARGUMENT, "models[0]: ndim is {}; 0 to {} with a shape are allowed", tensor->ndim, CHORUS_MAX_DIMENSIONS);
  }
  std::vector<int64_t> shape(tensor->shape, tensor->shape + tensor->ndim);
  if (!checked_elements(shape)) fail(CHORUS_INVALID_ARGUMENT, "models[0]: the shape's product overflows, or a size is negative");
  return shape;
}

const checkpoint::StorageType *type_of(const chorus_tensor *tensor, const std::string &name) {
  if (tensor == nullptr) fail(CHORUS_INVALID_ARGUMENT, "{} is NULL; it is required", name);
  const chorus_dtype dtype = dtype_of(*tensor);
  if (!is_float(dtype)) fail(CHORUS_UNIMPLEMENTED, "{}: dtype is {}; f64, f32, f16 and bf16 are merged", name, describe_dtype(dtype));
  return checkpoint::storage_type(dtype);
}

Extent bytes_of(const chorus_tensor &tensor, uint64_t bytes) {
  const char *data = static_cast<const char *>(tensor.data);
  return {data, data + bytes};
}

}  // namespace

// A plan of one job, and the descriptions its operands point to.
struct MemoryMerger::Prepared {
  Plan plan;
  std::vector<checkpoint::Tensor> tensors;
  uint64_t out_bytes = 0;
};

MemoryMerger::MemoryMerger(std::shared_ptr<const Context> context, const MemorySettings &settings, const char *device)
    : context_(std::move(context)), settings_(settings), method_(&method_of(settings.method)), device_(find_device(context_, device)) {
  if (!is_host_memory(*device_)) {
    fail(CHORUS_UNIMPLEMENTED, "device '{}' has its own memory; merging runs on host devices (cpu, reference, auto)", device);
  }
  check_settings();
}

void MemoryMerger::check_settings() const {
  for (const auto &[name, value] : settings_.parameters) check_range(parameter_of(*method_, name), value);
  for (const auto &[name, values] : settings_.model_parameters) {
    const Parameter &parameter = parameter_of(*method_, name);
    if (!parameter.per_model) fail(CHORUS_INVALID_ARGUMENT, "{} of {} is one value for the tensor, not one for each model", name, method_->name);
    for (const auto &[model, value] : values) check_range(parameter, value);
  }
}

double MemoryMerger::value_of(const Parameter &parameter, size_t model) const {
  if (const auto own = settings_.model_parameters.find(parameter.name); own != settings_.model_parameters.end()) {
    if (const auto found = own->second.find(model); found != own->second.end()) return found->second;
  }
  if (const auto found = settings_.parameters.find(parameter.name); found != settings_.parameters.end()) return found->second;
  if (parameter.required) {
    fail(CHORUS_INVALID_ARGUMENT, "{} needs '{}'{}", method_->name, parameter.name,
         parameter.per_model ? fmt::format(" of model {}; set it for the model or for all", model) : std::string("; set it"));
  }
  return parameter.fallback;
}

Settings MemoryMerger::settings_for(const Call &call, size_t inputs, bool has_base, bool base_is_input, const std::vector<int64_t> &shape) const {
  Settings out(inputs, has_base, shape, call.name, settings_.seed);
  // Which model an input is: a base among the inputs comes first or last, and takes what holds for all models.
  const bool base_first = base_is_input && method_->base == BaseUse::kFirstInput;
  const auto model_at = [&](size_t input) { return base_first ? (input == 0 ? call.count : input - 1) : input; };
  for (const Parameter &parameter : method_->parameters) {
    std::vector<double> values;
    for (size_t i = 0; i < (parameter.per_model ? inputs : 1); ++i) {
      values.push_back(value_of(parameter, parameter.per_model ? model_at(i) : call.count));
    }
    out.set(parameter.name, std::move(values));
  }
  return out;
}

void MemoryMerger::prepare(const Call &call, Prepared *out) const {
  if (call.count == 0) fail(CHORUS_INVALID_ARGUMENT, "count is 0; at least one model is needed");
  if (settings_.numerics != CHORUS_NUMERICS_ACCURATE)
    fail(CHORUS_UNIMPLEMENTED, "merging in memory has accurate numerics alone; mergekit's are those of recipes");
  const std::vector<int64_t> shape = shape_of(call.models[0]);
  const bool takes_deltas = method_->base == BaseUse::kRequired || method_->base == BaseUse::kOptional;
  const bool base_is_input = call.base != nullptr && !takes_deltas;
  const size_t inputs = call.count + (base_is_input ? 1 : 0);
  if (inputs < method_->min_inputs || inputs > method_->max_inputs) {
    fail(CHORUS_INVALID_ARGUMENT, "count is {}; {} merges {} to {} models{}", call.count, method_->name, method_->min_inputs,
         method_->max_inputs, base_is_input ? ", the base counted" : "");
  }
  const bool has_base = takes_deltas && (call.base != nullptr || method_->base == BaseUse::kRequired);
  Job job;
  job.name = call.name;
  job.shape = shape;
  job.elements = *checked_elements(shape);
  job.type = type_of(call.out, "out");
  job.program = method_->program(settings_for(call, inputs, has_base, base_is_input, shape));

  std::vector<const chorus_tensor *> order(call.models, call.models + call.count);
  if (base_is_input) order.insert(method_->base == BaseUse::kFirstInput ? order.begin() : order.end(), call.base);
  out->out_bytes = checkpoint::check_memory(call.out, "out", job.name, *job.type, shape);
  out->tensors.reserve(order.size() + 1);
  const auto operand = [&](const chorus_tensor *tensor, const std::string &name) {
    const checkpoint::StorageType *type = type_of(tensor, name);
    const uint64_t bytes = checkpoint::check_memory(tensor, name.c_str(), job.name, *type, shape);
    const Extent read = bytes_of(*tensor, bytes), written = bytes_of(*call.out, out->out_bytes);
    const bool same = read.begin == written.begin && type == job.type;
    if (!same && overlap(read, written)) fail_overlap("out", name.c_str(), true);
    out->tensors.push_back({job.name, type, shape, 0, 0, bytes, {}});
    Operand one;
    one.tensor = &out->tensors.back();
    one.data = tensor->data;
    return one;
  };
  for (size_t i = 0; i < order.size(); ++i) {
    const Operand one = operand(order[i], order[i] == call.base ? "base" : fmt::format("models[{}]", i));
    job.inputs.push_back(job.program.coefficients.weights[i] != 0 ? one : Operand{});
  }
  if (has_base && call.base != nullptr) {
    job.base = operand(call.base, "base");
  } else if (has_base) {  // task vectors: their base is zero
    out->tensors.push_back({job.name, job.type, shape, 0, 0, job.bytes(), {}});
    job.base.tensor = &out->tensors.back();
    job.base.is_zero = true;
  }
  out->plan.recipe.method = method_;
  out->plan.settings.memory = settings_.memory;
  out->plan.settings.numerics = settings_.numerics;
  out->plan.jobs.push_back(std::move(job));
  prepare_jobs(&out->plan, device_, static_cast<uint64_t>(context_->pool().threads()));
}

uint64_t MemoryMerger::workspace_bytes(const Call &call) const {
  Prepared prepared;
  prepare(call, &prepared);
  return prepared.plan.scratch_bytes * static_cast<uint64_t>(context_->pool().threads());
}

void MemoryMerger::merge(const Call &call, const chorus_exec *exec) const {
  Prepared prepared;
  prepare(call, &prepared);
  const uint64_t needed = prepared.plan.scratch_bytes * static_cast<uint64_t>(context_->pool().threads());
  if (exec != nullptr && exec->workspace_bytes < needed) {
    fail(CHORUS_FAILED_PRECONDITION, "exec: workspace_bytes is {}; {} are needed (chorus_merger_get_workspace_size())", exec->workspace_bytes, needed);
  }
  if (exec != nullptr && reinterpret_cast<uintptr_t>(exec->workspace) % CHORUS_WORKSPACE_ALIGNMENT_HOST != 0) {
    fail(CHORUS_INVALID_ARGUMENT, "exec: workspace is not aligned to {} bytes", CHORUS_WORKSPACE_ALIGNMENT_HOST);
  }
  const Workspace own(context_->workspaces(), exec == nullptr ? needed : 0);
  MemoryOutput output(call.out->data);
  run_jobs(*context_, prepared.plan, &output, {exec != nullptr ? exec->workspace : own.data(), needed}, {});
}

}  // namespace chorus::merge
