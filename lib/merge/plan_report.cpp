// SPDX-License-Identifier: Apache-2.0
// A plan as text and as JSON.
#include <map>
#include <nlohmann/json.hpp>

#include "merge/plan.h"

namespace chorus::merge {
namespace {

using Json = nlohmann::ordered_json;

std::string size_text(uint64_t bytes) {
  constexpr const char *kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  for (; value >= 1024 && unit < 4; ++unit) value /= 1024;
  return unit == 0 ? fmt::format("{} B", bytes) : fmt::format("{:.2f} {}", value, kUnits[unit]);
}

size_t count(const Plan &plan, JobKind kind) {
  size_t out = 0;
  for (const Job &job : plan.jobs) out += job.kind == kind ? 1 : 0;
  return out;
}

size_t most_passes(const Plan &plan) {
  size_t most = 0;
  for (const Job &job : plan.jobs) most = std::max(most, job.kind == JobKind::kMerge ? job.program.passes.size() + 1 : 1);
  return most;
}

// "BF16 (290 tensors), F32 (1)".
std::string types_text(const Plan &plan) {
  std::map<std::string, size_t> counts;
  for (const Job &job : plan.jobs) ++counts[job.type->name];
  std::string out;
  for (const auto &[name, tensors] : counts) {
    out += fmt::format("{}{} ({} tensor{})", out.empty() ? "" : ", ", name, tensors, tensors == 1 ? "" : "s");
  }
  return out;
}

// "model.layers.*.mlp.up_proj.weight": tensors that differ in numbers alone share a line.
std::string pattern_of(const std::string &name) {
  std::string out;
  for (size_t at = 0; at < name.size(); ++at) {
    const bool starts = at > 0 && name[at - 1] == '.' && name[at] >= '0' && name[at] <= '9';
    const size_t end = starts ? std::min(name.find('.', at), name.size()) : at;
    if (starts && name.find_first_not_of("0123456789", at) >= end) {
      out += '*';
      at = end - 1;
    } else {
      out += name[at];
    }
  }
  return out;
}

std::string tensor_lines(const Plan &plan) {
  std::vector<std::pair<std::string, size_t>> lines;
  std::map<std::string, size_t> known;
  for (const Job &job : plan.jobs) {
    const size_t passes = job.kind == JobKind::kMerge ? job.program.passes.size() + 1 : 1;
    const std::string line = fmt::format("{}  {} [{}]  {} {}, {} pass{}", pattern_of(job.name), job.type->name, fmt::join(job.shape, ", "),
                                         job.kind == JobKind::kMerge ? "merge of" : "copy of", job.operand_count(), passes, passes == 1 ? "" : "es");
    const auto [at, is_new] = known.try_emplace(line, lines.size());
    if (is_new) lines.emplace_back(line, 0);
    ++lines[at->second].second;
  }
  std::string out;
  for (const auto &[line, times] : lines) out += fmt::format("  {:>5} x {}\n", times, line);
  return out;
}

std::string model_line(const InputModel &input) {
  if (input.model == nullptr) return fmt::format("  {}: absent, weight 0\n", input.reference.text());
  uint64_t bytes = 0;
  for (const auto &tensor : input.model->tensors()) bytes += tensor.bytes;
  return fmt::format("  {}: {} tensors, {} in {} file{}\n", input.reference.text(), input.model->tensors().size(), size_text(bytes),
                     input.model->files().size(), input.model->files().size() == 1 ? "" : "s");
}

}  // namespace

std::string plan_text(const Plan &plan) {
  std::string out = fmt::format("method    {}: {}\nmodels\n", plan.recipe.method->name, plan.recipe.method->summary);
  for (const InputModel &input : plan.inputs) out += model_line(input);
  out += fmt::format("output    {} tensors, {} in {} file{}: {}\n", plan.jobs.size(), size_text(plan.bytes_to_write),
                     plan.layout.shards.size(), plan.layout.shards.size() == 1 ? "" : "s", types_text(plan));
  out += fmt::format("work      {} merged in up to {} pass{}, {} copied\n", count(plan, JobKind::kMerge), most_passes(plan),
                     most_passes(plan) == 1 ? "" : "es", count(plan, JobKind::kCopy) + count(plan, JobKind::kCompare));
  out += fmt::format("read      {}\nwrite     {}\n", size_text(plan.bytes_to_read), size_text(plan.bytes_to_write));
  if (!plan.settings.output.empty()) out += fmt::format("free      {} at {}\n", size_text(plan.free_disk), plan.settings.output);
  out += fmt::format("memory    {} of buffers, of {} allowed\n", size_text(plan.peak_memory), size_text(plan.settings.memory));
  out += fmt::format("time      about {:.1f} s, if the disk reads 1.5 GB/s and writes 0.7 GB/s\n", plan.seconds);
  std::string kernels;
  for (const std::string &name : plan.kernels.names()) kernels += (kernels.empty() ? "" : ", ") + name;
  if (!kernels.empty()) out += fmt::format("kernels   {}\n", kernels);
  out += "tensors\n" + tensor_lines(plan);
  for (const std::string &warning : plan.warnings) out += fmt::format("warning   {}\n", warning);
  return out;
}

std::string plan_json(const Plan &plan) {
  Json json;
  json["method"] = plan.recipe.method->name;
  for (const InputModel &input : plan.inputs) {
    json["models"].push_back({{"name", input.reference.text()},
                              {"folder", input.model != nullptr ? Json(input.model->folder()) : Json()},
                              {"tensors", input.model != nullptr ? input.model->tensors().size() : 0}});
  }
  json["bytes_to_read"] = plan.bytes_to_read;
  json["bytes_to_write"] = plan.bytes_to_write;
  json["elements"] = plan.elements;
  json["peak_memory"] = plan.peak_memory;
  json["memory"] = plan.settings.memory;
  json["free_disk"] = plan.settings.output.empty() ? Json() : Json(plan.free_disk);
  json["seconds"] = plan.seconds;
  json["merged"] = count(plan, JobKind::kMerge);
  json["copied"] = count(plan, JobKind::kCopy) + count(plan, JobKind::kCompare);
  json["shards"] = plan.layout.shards.size();
  json["kernels"] = plan.kernels.names();
  json["warnings"] = plan.warnings;
  json["tensors"] = Json::array();
  for (const Job &job : plan.jobs) {
    json["tensors"].push_back({{"name", job.name},
                               {"dtype", job.type->name},
                               {"shape", job.shape},
                               {"action", job.kind == JobKind::kMerge ? "merge" : "copy"},
                               {"operands", job.operand_count()},
                               {"passes", job.kind == JobKind::kMerge ? job.program.passes.size() + 1 : 1}});
  }
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace chorus::merge
