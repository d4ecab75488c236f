// SPDX-License-Identifier: Apache-2.0
// Opening the models, planning every tensor, choosing kernels and pieces, adding up.
#include "merge/plan.h"

#include <sys/statvfs.h>

#include <algorithm>
#include <filesystem>
#include <iterator>

#include "merge/lora.h"
#include "merge/plan_job.h"
#include "merge/relatedness.h"
#include "merge/tokenizer/vocabulary_merge.h"
#include "runtime/context.h"
#include "runtime/device.h"

namespace chorus::merge {
namespace {

// What the time estimate assumes of a machine, in bytes per second; the plan says so.
constexpr double kReadRate = 1.5e9, kWriteRate = 0.7e9;
constexpr uint64_t kLargestPiece = uint64_t{1} << 18;
constexpr uint64_t kBytesPerHeaderEntry = 600;  // of a tensor in an opened model and in the plan

// Whether this source has weight 0 whatever the tensor: such a model may be absent.
bool never_counts(const Source &source) {
  const auto weight = source.parameters.find("weight");
  return weight != source.parameters.end() && weight->second.constant() == 0.0;
}

class Opener {
 public:
  Opener(Plan *plan, Diagnostics *diagnostics) : plan_(plan), diagnostics_(diagnostics) {}

  void open_all() {
    for (const ModelReference &reference : plan_->recipe.references()) open(reference, !is_needed(reference));
    diagnostics_->throw_if_any();
  }

 private:
  // Whether the model does more than stand there with weight 0.
  bool is_needed(const ModelReference &reference) const {
    const Recipe &recipe = plan_->recipe;
    const auto counts = [&](const std::vector<Source> &sources) {
      return std::ranges::any_of(sources, [&](const Source &source) { return source.model == reference && !never_counts(source); });
    };
    const auto in_slices = [&](const std::vector<Slice> &slices) {
      return std::ranges::any_of(slices, [&](const Slice &slice) { return slice.base == reference || counts(slice.sources); });
    };
    const bool for_tokens = recipe.tokenizer.source == TokenizerRecipe::Source::kModel && recipe.tokenizer.model == reference;
    return recipe.base == reference || for_tokens || counts(recipe.models) || in_slices(recipe.slices) ||
           std::ranges::any_of(recipe.modules, [&](const ModuleRecipe &module) { return counts(module.models) || in_slices(module.slices); });
  }

  void open(const ModelReference &reference, bool may_be_absent) {
    plan_->inputs.push_back({reference, nullptr, nullptr, {}});
    try {
      plan_->inputs.back().model = std::make_shared<const checkpoint::Model>(checkpoint::Model::open(reference.path));
      if (!reference.lora.empty()) add_adapter(&plan_->inputs.back());
    } catch (const Failure &failure) {
      if (may_be_absent && failure.error()->code == CHORUS_NOT_FOUND) {
        diagnostics_->warning(reference.place, "model '{}' is not there; its weight is 0, so it is not needed", reference.text());
      } else {
        diagnostics_->error_because(reference.place, fmt::format("model '{}' cannot be opened", reference.text()), failure);
      }
    }
  }

  Plan *plan_;
  Diagnostics *diagnostics_;
};

OperandTypes types_of(const Job &job) {
  OperandTypes types;
  for (const Operand &input : job.inputs) types.inputs.push_back(input.tensor != nullptr ? input.tensor->type->dtype : job.type->dtype);
  types.base = job.base.tensor != nullptr ? job.base.tensor->type->dtype : 0;
  types.output = job.type->dtype;
  types.work = job.work;
  return types;
}

// Elements of a piece of `job` where pieces have up to `most`.
uint64_t piece_of(const Job &job, uint64_t most) {
  return job.is_by_row() ? std::max<uint64_t>(1, most / job.columns()) * job.columns() : most;
}

// Bytes one thread needs for a piece of `elements`: operands, result, statistic.
uint64_t piece_bytes(const Job &job, uint64_t elements) {
  const uint64_t count = std::min(elements, job.elements);
  uint64_t per_element = job.type->bits() / 8 + (job.base.tensor != nullptr ? job.base.tensor->type->bits() / 8 : 0);
  for (const Operand &input : job.inputs) per_element += input.tensor != nullptr ? input.tensor->type->bits() / 8 : 0;
  return per_element * count + job.statistic_bytes(count) + (job.inputs.size() + 4) * kScratchAlignment;
}

uint64_t largest_piece_bytes(const Plan &plan, uint64_t elements) {
  uint64_t most = 0;
  for (const Job &job : plan.jobs) most = std::max(most, piece_bytes(job, piece_of(job, elements)));
  return most;
}

uint64_t memory_of_headers(const Plan &plan) {
  uint64_t tensors = plan.jobs.size();
  for (const InputModel &input : plan.inputs) tensors += input.model != nullptr ? input.model->tensors().size() : 0;
  return tensors * kBytesPerHeaderEntry;
}

// Pieces as large as the memory allows, up to what the caches like.
void choose_pieces(Plan *plan, uint64_t threads) {
  uint64_t piece = kLargestPiece;
  while (piece > CHORUS_BLOCK && threads * largest_piece_bytes(*plan, piece) > plan->settings.memory / 2) piece /= 2;
  for (Job &job : plan->jobs) job.piece = piece_of(job, piece);
  plan->scratch_bytes = largest_piece_bytes(*plan, piece);
  plan->peak_memory = threads * plan->scratch_bytes + memory_of_headers(*plan);
}

uint64_t largest_piece(const Plan &plan) {
  uint64_t most = kLargestPiece;
  for (const Job &job : plan.jobs) most = std::max(most, std::min(job.elements, piece_of(job, kLargestPiece)));
  return most;
}

void choose_kernels(Plan *plan, const DevicePtr &device) {
  plan->kernels = Kernels(device, largest_piece(*plan));
  for (Job &job : plan->jobs) {
    if (job.kind != JobKind::kMerge) continue;
    const OperandTypes types = types_of(job);
    for (const Pass &pass : job.program.passes) job.reduce_kernels.push_back(plan->kernels.reduce(pass.reduction, types));
    if (job.program.element) {
      plan->kernels.add_host_function(plan->recipe.method->name);
    } else {
      job.apply_kernel = plan->kernels.apply(job.program.stages, types);
    }
  }
}

void lay_out(Plan *plan) {
  std::vector<checkpoint::DeclaredTensor> declared;
  for (const Job &job : plan->jobs) declared.push_back({job.name, job.type, job.shape});
  plan->layout = checkpoint::plan_layout(declared, {{"format", "pt"}}, plan->settings.max_shard_bytes);
}

void add_up(Plan *plan) {
  for (const Job &job : plan->jobs) {
    plan->bytes_to_read += job.operand_bytes() * (1 + job.program.passes.size());
    plan->elements += job.elements;
  }
  plan->bytes_to_write = plan->layout.total_bytes;
  plan->seconds = static_cast<double>(plan->bytes_to_read) / kReadRate + static_cast<double>(plan->bytes_to_write) / kWriteRate;
}

// Free bytes where `folder` is, or will be.
uint64_t free_bytes(const std::string &folder) {
  std::error_code ignored;
  std::filesystem::path at = std::filesystem::absolute(folder, ignored);
  while (!at.empty() && at != at.root_path() && !std::filesystem::exists(at, ignored)) at = at.parent_path();
  struct statvfs info;
  return statvfs(at.c_str(), &info) == 0 ? uint64_t{info.f_bavail} * info.f_frsize : 0;
}

void look_at_disk(Plan *plan) {
  if (plan->settings.output.empty()) return;
  plan->free_disk = free_bytes(plan->settings.output);
  if (plan->bytes_to_write > plan->free_disk) {
    plan->warnings.push_back(fmt::format("the output has {} bytes; {} are free at {}", plan->bytes_to_write, plan->free_disk,
                                         plan->settings.output));
  }
}

}  // namespace

uint64_t Job::columns() const {
  if (shape.empty()) return 1;
  const size_t axis = program.row_axis >= 0 ? static_cast<size_t>(program.row_axis) : shape.size() - 1;
  return std::max<uint64_t>(1, static_cast<uint64_t>(shape[std::min(axis, shape.size() - 1)]));
}

bool Job::is_transposed() const {
  return kind == JobKind::kMerge && program.row_axis >= 0 && static_cast<size_t>(program.row_axis) + 1 < shape.size();
}

uint64_t Job::operand_bytes() const {
  uint64_t bytes = base.tensor != nullptr ? base.tensor->bytes : 0;
  for (const Operand &input : inputs) bytes += input.tensor != nullptr ? input.tensor->bytes : 0;
  return bytes;
}

bool Job::is_by_row() const {
  if (kind != JobKind::kMerge) return false;
  return program.stages.granularity == CHORUS_PER_ROW ||
         std::ranges::any_of(program.passes, [](const Pass &pass) { return pass.reduction.granularity == CHORUS_PER_ROW; });
}

uint64_t Job::statistic_bytes(uint64_t elements) const {
  uint64_t most = 0;
  const uint64_t n = inputs.size() + 1, groups = is_by_row() ? elements / columns() + 1 : 1;
  for (const Pass &pass : program.passes) {
    const auto statistic = pass.reduction.statistic;
    const uint64_t entries = statistic == CHORUS_STATISTIC_HISTOGRAM || statistic == CHORUS_STATISTIC_VARIANCE_HISTOGRAM ? n * kHistogramBins
                             : statistic == CHORUS_STATISTIC_COUNT                                                       ? n * n
                             : statistic == CHORUS_STATISTIC_ROW_SOFTMAX || statistic == CHORUS_STATISTIC_ROW_KL         ? groups * n * 2
                                                                                                                         : groups * n * (n + 1) / 2;
    most = std::max(most, entries * sizeof(uint64_t));
  }
  return most;
}

size_t Job::operand_count() const {
  return static_cast<size_t>(std::ranges::count_if(inputs, [](const Operand &input) { return input.tensor != nullptr; })) +
         (base.tensor != nullptr ? 1 : 0);
}

void prepare_jobs(Plan *plan, const DevicePtr &device, uint64_t threads) {
  choose_kernels(plan, device);
  choose_pieces(plan, threads);
}

Plan make_plan(const std::shared_ptr<const Context> &context, MergeSettings settings, const char *device_name) {
  const DevicePtr device = find_device(context, device_name);
  if (!is_host_memory(*device)) {
    fail(CHORUS_UNIMPLEMENTED, "device '{}' has its own memory; merging runs on host devices (cpu, reference, auto)", device_name);
  }
  Plan plan;
  plan.settings = std::move(settings);
  Diagnostics diagnostics(plan.settings.recipe_name);
  plan.recipe = parse_recipe(plan.settings.recipe, &diagnostics);
  Opener(&plan, &diagnostics).open_all();

  plan.vocabulary = merge_vocabularies(plan.recipe, &plan.inputs, &diagnostics);
  diagnostics.throw_if_any();
  const std::vector<Group> groups = make_groups(plan.recipe, plan.inputs, &diagnostics);
  diagnostics.throw_if_any();
  JobMaker maker(plan.recipe, plan.settings.seed, plan.settings.numerics, &diagnostics);
  for (const Placement &placement : place_tensors(groups, &diagnostics)) {
    if (std::optional<Job> job = maker.make(placement)) plan.jobs.push_back(std::move(*job));
  }
  maker.report_rest();
  diagnostics.throw_if_any();
  plan.side_files = plan_side_files(plan, groups, &diagnostics);
  diagnostics.throw_if_any();
  plan.warnings = diagnostics.warnings();

  prepare_jobs(&plan, device, static_cast<uint64_t>(context->pool().threads()));
  lay_out(&plan);
  add_up(&plan);
  look_at_disk(&plan);
  std::ranges::move(unrelated_inputs(plan), std::back_inserter(plan.warnings));
  return plan;
}

}  // namespace chorus::merge
