// SPDX-License-Identifier: Apache-2.0
// One tensor of the output: which inputs count, whether they fit together, and how it is made.
#include "merge/plan_job.h"

#include <algorithm>

#include "runtime/checked.h"
#include "runtime/dtype.h"

namespace chorus::merge {
namespace {

using checkpoint::Tensor;

constexpr size_t kMostNamed = 20;  // tensors named in errors of one kind

std::string describe(const Tensor &tensor) { return fmt::format("[{}] {}", fmt::join(tensor.shape, ", "), tensor.type->name); }

// The tensors of a placement that a job may read.
struct Part {
  const Group::Member *member;
  const Tensor *tensor;
  const std::string *name;
};

std::vector<Part> parts_of(const Placement &placement) {
  std::vector<Part> out;
  const Group &group = *placement.group;
  if (group.base) out.push_back({&*group.base, placement.base, &placement.base_name});
  for (size_t i = 0; i < group.members.size(); ++i) {
    out.push_back({&group.members[i], placement.inputs[i], &placement.input_names[i]});
  }
  return out;
}

// The embedding of a model without a head of its own: that is its head.
const Tensor *tied_head(const InputModel &input, const std::vector<int64_t> &shape) {
  for (const Tensor *tensor : input.tensors()) {
    if (tensor->role.kind == CHORUS_TENSOR_KIND_EMBEDDING && tensor->role.layer < 0 && tensor->shape == shape) return tensor;
  }
  return nullptr;
}

Operand operand_of(const InputModel &input, const Tensor *tensor) {
  return {input.model.get(), tensor, tensor != nullptr ? input.view_of(*tensor) : nullptr};
}

// What torch.promote_types makes of two floating-point types.
const checkpoint::StorageType *promoted(const checkpoint::StorageType *a, const checkpoint::StorageType *b) {
  if (a == nullptr || a == b) return b;
  if (a->bits() != b->bits()) return a->bits() > b->bits() ? a : b;
  return checkpoint::storage_type(CHORUS_F32);  // bf16 with f16
}

}  // namespace

std::optional<double> JobMaker::value_of(const Parameter &parameter, const Placement &placement, const Group::Member *member,
                                         const std::string &name) const {
  const auto look = [&](const Parameters *parameters) -> std::optional<double> {
    if (parameters == nullptr) return std::nullopt;
    const auto found = parameters->find(parameter.name);
    return found == parameters->end() ? std::nullopt : found->second.at(placement.t, name);
  };
  std::optional<double> value;
  if (member != nullptr && member->source != nullptr) value = look(&member->source->parameters);
  if (!value) value = look(placement.group->parameters);
  if (!value) value = look(placement.group->module_parameters);
  if (!value) value = look(&recipe_.parameters);
  if (!value && !parameter.required) value = parameter.fallback;
  return value;
}

std::optional<Settings> JobMaker::settings_of(const Placement &placement, const std::vector<int64_t> &shape) {
  const Group &group = *placement.group;
  Settings out(group.members.size(), group.base.has_value(), shape, placement.name, seed_);
  const auto missing = [&](const Parameter &parameter, const Group::Member *member) {
    const std::string key = fmt::format("{} {}", parameter.name, static_cast<const void *>(member));
    if (std::ranges::find(warned_, key) != warned_.end()) return;
    warned_.push_back(key);
    diagnostics_->error(member != nullptr && member->source != nullptr ? member->source->model.place : group.place,
                        "no value of '{}' reaches tensor '{}'; add one without a filter, for all other tensors", parameter.name,
                        placement.name);
  };
  bool ok = true;
  for (const Parameter &parameter : recipe_.method->parameters) {
    std::vector<double> values;
    const size_t count = parameter.per_model ? group.members.size() : 1;
    for (size_t i = 0; i < count; ++i) {
      const Group::Member *member = parameter.per_model ? &group.members[i] : nullptr;
      const auto value = value_of(parameter, placement, member, parameter.per_model ? placement.input_names[i] : placement.name);
      if (!value) missing(parameter, member);
      ok &= value.has_value();
      values.push_back(value.value_or(0));
    }
    out.set(parameter.name, std::move(values));
  }
  return ok ? std::optional(std::move(out)) : std::nullopt;
}

void JobMaker::fill_tied_heads(Placement *placement) const {
  const std::vector<Part> parts = parts_of(*placement);
  const auto stored = std::ranges::find_if(parts, [](const Part &part) { return part.tensor != nullptr; });
  if (stored == parts.end() || stored->tensor->role.kind != CHORUS_TENSOR_KIND_HEAD) return;
  const std::vector<int64_t> shape = stored->tensor->shape;
  for (size_t i = 0; i < placement->inputs.size(); ++i) {
    if (placement->inputs[i] == nullptr) placement->inputs[i] = tied_head(*placement->group->members[i].input, shape);
  }
  if (placement->group->base && placement->base == nullptr) {
    placement->base = tied_head(*placement->group->base->input, shape);
  }
}

// Buffers that old checkpoints store and new code computes: left out unless all have them.
bool JobMaker::is_dropped(const Placement &placement) {
  if (placement.name.find("rotary_emb.inv_freq") == std::string::npos) return false;
  const std::vector<Part> parts = parts_of(placement);
  return std::ranges::any_of(parts, [](const Part &part) { return part.tensor == nullptr; });
}

bool JobMaker::is_complete(const Placement &placement, const std::vector<bool> &is_read) {
  const std::vector<Part> parts = parts_of(placement);
  const size_t offset = parts.size() - placement.inputs.size();
  const auto stored = std::ranges::find_if(parts, [](const Part &part) { return part.tensor != nullptr; });
  bool ok = true;
  for (size_t i = 0; i < parts.size(); ++i) {
    const Part &part = parts[i];
    if (part.tensor != nullptr || (i >= offset && !is_read[i - offset])) continue;
    ok = false;
    if (++missing_ > kMostNamed) continue;
    diagnostics_->error(part.member->source != nullptr ? part.member->source->model.place : placement.group->place,
                        "tensor '{}' is missing in '{}'; '{}' has it as {}", *part.name, part.member->input->reference.text(),
                        stored->member->input->reference.text(), describe(*stored->tensor));
  }
  return ok;
}

bool JobMaker::has_one_shape(const Placement &placement, const Job &job) {
  for (const Part &part : parts_of(placement)) {
    if (part.tensor == nullptr || part.tensor->shape == job.shape) continue;
    if (++mismatched_ <= kMostNamed) {
      const auto kind = part.tensor->role.kind;
      const bool vocabulary = kind == CHORUS_TENSOR_KIND_EMBEDDING || kind == CHORUS_TENSOR_KIND_HEAD;
      diagnostics_->error(part.member->source != nullptr ? part.member->source->model.place : placement.group->place,
                          "tensor '{}' is {} in '{}' and has the shape [{}] in '{}'{}", *part.name, describe(*part.tensor),
                          part.member->input->reference.text(), fmt::join(job.shape, ", "),
                          placement.group->reference().input->reference.text(),
                          vocabulary ? "; their vocabularies differ" : "; they are not of one architecture");
    }
    return false;
  }
  return true;
}

chorus_dtype JobMaker::work_of(const Placement &placement) const {
  if (numerics_ == CHORUS_NUMERICS_ACCURATE) return 0;
  const checkpoint::StorageType *joint = recipe_.dtype;
  for (const Part &part : parts_of(placement)) {
    const bool counts = recipe_.dtype == nullptr && part.tensor != nullptr && is_float(part.tensor->type->dtype);
    if (counts) joint = promoted(joint, part.tensor->type);
  }
  return joint != nullptr ? joint->dtype : 0;
}

bool JobMaker::choose_types(const Placement &placement, Job *job) {
  const checkpoint::StorageType *joint = nullptr, *other = nullptr;
  for (const Part &part : parts_of(placement)) {
    if (part.tensor == nullptr) continue;
    if (is_float(part.tensor->type->dtype)) {
      joint = promoted(joint, part.tensor->type);
    } else if (other == nullptr) {
      other = part.tensor->type;
    }
    if (other == nullptr || (joint == nullptr && part.tensor->type == other)) continue;
    diagnostics_->error(placement.group->place, "tensor '{}' is {} in one model and {} in another; they cannot be merged", placement.name,
                        other->name, joint != nullptr ? joint->name : part.tensor->type->name);
    return false;
  }
  if (other != nullptr && (other->dtype & 0xff) != CHORUS_DTYPE_CODE_INT && (other->dtype & 0xff) != CHORUS_DTYPE_CODE_UINT &&
      other->dtype != CHORUS_BOOL) {
    diagnostics_->unimplemented(placement.group->place, "tensor '{}' is {}; f64, f32, f16 and bf16 are merged, integers copied",
                                placement.name, other->name);
    return false;
  }
  job->kind = other != nullptr ? JobKind::kCompare : JobKind::kMerge;
  job->type = other != nullptr               ? other
              : recipe_.out_dtype != nullptr ? recipe_.out_dtype
              : recipe_.dtype != nullptr     ? recipe_.dtype
                                             : joint;
  return true;
}

// A result that is one input unchanged is copied.
void JobMaker::choose_kind(Job *job) const {
  if (job->kind != JobKind::kMerge) return;
  const Coefficients &c = job->program.coefficients;
  std::vector<size_t> used;
  for (size_t i = 0; i < job->inputs.size(); ++i) {
    if (c.weights[i] != 0) used.push_back(i);
  }
  const Stages &stages = job->program.stages;
  if (job->program.element) return;
  if (!job->program.passes.empty() && !(used.empty() && stages.add_base)) return;
  const Operand *same = nullptr;
  if (stages.operand == CHORUS_OPERAND_X && !stages.add_base && stages.sparsify == CHORUS_SPARSIFY_NONE && used.size() == 1 && c.lambda == 1 &&
      ((stages.combine == CHORUS_MERGE_MEAN && job->work == 0) || c.weights[used[0]] == 1)) {
    same = &job->inputs[used[0]];
  } else if (stages.add_base && (used.empty() || c.lambda == 0)) {
    same = &job->base;
  }
  if (same == nullptr || same->tensor->type != job->type || (job->work != 0 && job->work != job->type->dtype)) return;
  job->kind = JobKind::kCopy;
  job->program.passes.clear();
  job->inputs = {Operand(*same)};
  job->base = {};
}

void JobMaker::report_rest() {
  if (missing_ > kMostNamed) diagnostics_->error({}, "{} more tensors are missing", missing_ - kMostNamed);
  if (mismatched_ > kMostNamed) diagnostics_->error({}, "{} more tensors differ in shape", mismatched_ - kMostNamed);
}

std::optional<Job> JobMaker::make(const Placement &found) {
  Placement placement = found;
  fill_tied_heads(&placement);
  if (is_dropped(placement)) return std::nullopt;
  const std::vector<Part> parts = parts_of(placement);
  const Group &group = *placement.group;
  Job job;
  job.name = placement.name;
  const Tensor *stored = nullptr;
  for (const Part &part : parts) {
    if (stored == nullptr || part.member->input == group.reference().input) stored = part.tensor != nullptr ? part.tensor : stored;
  }
  if (stored == nullptr) return std::nullopt;
  job.shape = stored->shape;
  job.elements = checked_elements(job.shape).value();

  std::optional<Settings> settings = settings_of(placement, job.shape);
  if (!settings) return std::nullopt;
  job.work = work_of(placement);
  settings->set_rounding(Rounding(job.work));
  try {
    job.program = recipe_.method->program(*settings);
  } catch (const Failure &failure) {
    if (std::ranges::find(warned_, failure.what()) != warned_.end()) return std::nullopt;
    warned_.emplace_back(failure.what());
    diagnostics_->error_because(group.place, fmt::format("tensor '{}' cannot be merged by {}", job.name, recipe_.method->name), failure);
    return std::nullopt;
  }
  std::vector<bool> is_read(group.members.size());
  for (size_t i = 0; i < is_read.size(); ++i) {
    is_read[i] = job.program.coefficients.weights[i] != 0;
  }
  if (!is_complete(placement, is_read) || !has_one_shape(placement, job) || !choose_types(placement, &job)) return std::nullopt;

  for (size_t i = 0; i < group.members.size(); ++i) {
    const bool reads = job.kind == JobKind::kCompare ? placement.inputs[i] != nullptr : is_read[i];
    job.inputs.push_back(operand_of(*group.members[i].input, reads ? placement.inputs[i] : nullptr));
  }
  if (group.base) job.base = operand_of(*group.base->input, placement.base);
  choose_kind(&job);
  return job;
}

}  // namespace chorus::merge
