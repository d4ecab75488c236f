// SPDX-License-Identifier: Apache-2.0
// `chorus inspect`: what is in a model, by its headers, and whether it holds together.
#include <fmt/format.h>

#include "model_summary.h"

namespace chorus_cli {
namespace {

struct Arguments {
  Common common;
  std::string path;
  bool tensors = false;
};

const char *kind_name(chorus_tensor_kind kind) {
  constexpr const char *kNames[] = {"other", "embedding", "head", "norm", "attention", "mlp", "router", "position"};
  return kind >= 0 && kind < static_cast<int32_t>(std::size(kNames)) ? kNames[kind] : "other";
}

const char *part_name(chorus_tensor_part part) {
  constexpr const char *kNames[] = {"", "query", "key", "value", "output", "qkv", "gate", "up", "down", "gate_up"};
  return part >= 0 && part < static_cast<int32_t>(std::size(kNames)) ? kNames[part] : "";
}

struct Share {
  uint64_t tensors = 0, bytes = 0;
  double parameters = 0;
};

// Sums over tensors by dtype (or kind).
template <typename Key>
std::map<std::string, Share> shares(const ModelSummary &model, Key key) {
  std::map<std::string, Share> sums;
  for (const TensorRow &tensor : model.tensors) {
    Share &share = sums[key(tensor)];
    ++share.tensors;
    share.bytes += tensor.bytes;
    share.parameters += tensor.elements();
  }
  return sums;
}

Json to_json(const std::map<std::string, Share> &sums) {
  Json out = Json::object();
  for (const auto &[name, share] : sums) {
    out[name] = {{"tensors", share.tensors}, {"parameters", static_cast<uint64_t>(share.parameters)}, {"bytes", share.bytes}};
  }
  return out;
}

Json to_json(const TensorRow &tensor) {
  Json out = {{"name", tensor.name}, {"dtype", tensor.dtype}, {"shape", tensor.shape}, {"bytes", tensor.bytes},
              {"kind", kind_name(tensor.kind)}, {"file", tensor.file}};
  if (tensor.part != CHORUS_TENSOR_PART_NONE) out["part"] = part_name(tensor.part);
  if (tensor.layer >= 0) out["layer"] = tensor.layer;
  if (tensor.expert >= 0) out["expert"] = tensor.expert;
  if ((tensor.flags & CHORUS_TENSOR_ROLE_FUSED_EXPERTS) != 0) out["fused_experts"] = true;
  if ((tensor.flags & CHORUS_TENSOR_ROLE_SHARED_EXPERT) != 0) out["shared_expert"] = true;
  return out;
}

std::string dtype_of(const TensorRow &tensor) { return tensor.dtype; }
std::string kind_of(const TensorRow &tensor) { return kind_name(tensor.kind); }

Json to_json(const ModelSummary &model, const std::vector<std::string> &problems, bool tensors) {
  Json out = {{"folder", model.folder}, {"architecture", model.architecture}, {"files", model.files},
              {"tensors", model.tensors.size()}, {"dtypes", to_json(shares(model, dtype_of))},
              {"kinds", to_json(shares(model, kind_of))}, {"layers", model.layers.size()}};
  out["expert_layers"] = Json::array();
  for (const auto &[layer, experts] : model.experts) {
    out["expert_layers"].push_back({{"layer", layer}, {"experts", experts.count()}, {"fused", experts.fused > 0}});
  }
  if (model.has_tokenizer && model.tokenizer_error.empty()) {
    out["tokenizer"] = {{"ids", model.vocabulary}, {"fingerprint", model.fingerprint}};
  }
  if (tensors) {
    Json list = Json::array();
    for (const TensorRow &tensor : model.tensors) list.push_back(to_json(tensor));
    out["tensor_list"] = list;
  }
  out["sound"] = problems.empty();
  out["problems"] = problems;
  return out;
}

std::string experts_text(const ModelSummary &model) {
  if (model.experts.empty()) return "none";
  std::map<std::string, size_t> layers;  // by how many and how they are stored
  for (const auto &[layer, experts] : model.experts) {
    ++layers[fmt::format("{} {}", experts.count(), experts.fused > 0 ? "fused into one tensor" : "in tensors of their own")];
  }
  std::string text;
  for (const auto &[what, count] : layers) text += fmt::format("{}{}, in {} layers", text.empty() ? "" : "; ", what, count);
  return text;
}

void print_shares(const char *head, const std::map<std::string, Share> &sums) {
  std::vector<std::vector<std::string>> rows;
  for (const auto &[name, share] : sums) {
    rows.push_back({name, fmt::format("{}", share.tensors), fmt::format("{:.0f}", share.parameters), human_bytes(share.bytes)});
  }
  fmt::print("\n");
  print_table({head, "tensors", "parameters", "size"}, rows);
}

void print_text(const ModelSummary &model, const std::vector<std::string> &problems, bool tensors) {
  if (tensors) {
    std::vector<std::vector<std::string>> rows;
    for (const TensorRow &tensor : model.tensors) {
      rows.push_back({printable(tensor.name), tensor.dtype, shape_text(tensor.shape), human_bytes(tensor.bytes),
                      kind_name(tensor.kind), part_name(tensor.part)});
    }
    print_table({"tensor", "dtype", "shape", "size", "kind", "part"}, rows);
    fmt::print("\n");
  }
  fmt::print("folder        {}\n", printable(model.folder));
  if (!model.architecture.empty()) fmt::print("architecture  {}\n", printable(model.architecture));
  fmt::print("files         {}\n", model.files.size());
  fmt::print("layers        {}\n", model.layers.size());
  fmt::print("experts       {}\n", experts_text(model));
  if (model.has_tokenizer && model.tokenizer_error.empty()) {
    fmt::print("tokenizer     {} ids, fingerprint {}\n", model.vocabulary, model.fingerprint);
  }
  print_shares("dtype", shares(model, dtype_of));
  print_shares("kind", shares(model, kind_of));
  fmt::print("\n{}\n", problems.empty() ? "sound: names, shapes, config and tokenizer fit" : "not sound:");
  for (const std::string &problem : problems) fmt::print("- {}\n", problem);
}

}  // namespace

void add_inspect(CLI::App *program) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App *command = program->add_subcommand("inspect", "Tensors, layers and experts of a model; does it hold together?");
  add_common(command, &arguments->common);
  command->add_option("model", arguments->path, "Folder, safetensors file, or org/name@revision in the Hugging Face cache")->required();
  command->add_flag("--tensors", arguments->tensors, "List every tensor");
  command->footer(
      "Reads headers, config.json and tokenizer.json alone. A model that does not hold together gives exit code 3.\n"
      "Examples:\n  chorus inspect docs/examples/family/base\n  chorus inspect model.safetensors --tensors\n"
      "  chorus inspect mistralai/Mixtral-8x7B-v0.1@main --json");
  command->callback([arguments] {
    const Context context = make_context(arguments->common);
    const Checkpoint checkpoint = open_checkpoint(context, arguments->path);
    const ModelSummary model = summarise(context, checkpoint.get());
    const std::vector<std::string> problems = find_problems(model, checkpoint.get());
    arguments->common.json ? print_json(to_json(model, problems, arguments->tensors))
                           : print_text(model, problems, arguments->tensors);
    if (!problems.empty()) {
      throw CallFailed(fmt::format("{}: {} problems", printable(arguments->path), problems.size()), kExitBadInput);
    }
  });
}

}  // namespace chorus_cli
