// SPDX-License-Identifier: Apache-2.0
// Collects tensors, layers, experts and the tokenizer of a checkpoint.
#include "model_summary.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

namespace chorus_cli {
namespace {

void add_to_layers(const TensorRow &tensor, ModelSummary *model) {
  if (tensor.layer < 0) return;
  model->layers.insert(tensor.layer);
  const bool fused = (tensor.flags & CHORUS_TENSOR_ROLE_FUSED_EXPERTS) != 0;
  const bool shared = (tensor.flags & CHORUS_TENSOR_ROLE_SHARED_EXPERT) != 0;
  if (tensor.expert >= 0) model->experts[tensor.layer].separate.insert(tensor.expert);
  if (fused && !tensor.shape.empty()) model->experts[tensor.layer].fused = tensor.shape[0];
  if (tensor.is(CHORUS_TENSOR_KIND_ROUTER) && !shared && tensor.shape.size() == 2 &&
      (tensor.flags & CHORUS_TENSOR_ROLE_BIAS) == 0) {
    model->experts[tensor.layer].router_rows = tensor.shape[0];
  }
}

// The first of "architectures", else "model_type", else "".
std::string architecture_of(const chorus_checkpoint *checkpoint) {
  const Json config = Json::parse(chorus_checkpoint_get_config(checkpoint), nullptr, false);
  if (!config.is_object()) return "";
  const Json list = config.value("architectures", Json());
  if (list.is_array() && !list.empty() && list[0].is_string()) return list[0].get<std::string>();
  const Json type = config.value("model_type", Json());
  return type.is_string() ? type.get<std::string>() : "";
}

void read_tokenizer(const Context &context, ModelSummary *model) {
  const std::string path = model->folder + "/tokenizer.json";
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) return;
  model->has_tokenizer = true;
  chorus_error *error = nullptr;
  chorus_vocabulary *vocabulary = nullptr;
  uint64_t words[2] = {0, 0};
  chorus_status status = chorus_vocabulary_open(context.get(), path.c_str(), &vocabulary, &error);
  if (status == CHORUS_OK) status = chorus_vocabulary_get_fingerprint(vocabulary, words, &error);
  if (status == CHORUS_OK) {
    model->vocabulary = chorus_vocabulary_get_size(vocabulary);
    model->fingerprint = fmt::format("{:016x}{:016x}", words[1], words[0]);
  } else {
    model->tokenizer_error = chorus_error_get_text(error);
  }
  chorus_vocabulary_destroy(vocabulary);
  chorus_error_destroy(error);
}

}  // namespace

double TensorRow::elements() const {
  double product = 1;
  for (const int64_t size : shape) product *= static_cast<double>(size);
  return product;
}

bool TensorRow::is_matrix() const {
  return shape.size() == 2 && (flags & (CHORUS_TENSOR_ROLE_BIAS | CHORUS_TENSOR_ROLE_QUANT)) == 0 &&
         (dtype == "F64" || dtype == "F32" || dtype == "F16" || dtype == "BF16");
}

std::string shape_text(const std::vector<int64_t> &shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

ModelSummary summarise(const Context &context, const chorus_checkpoint *checkpoint) {
  ModelSummary model;
  model.folder = chorus_checkpoint_get_folder(checkpoint);
  for (size_t i = 0; i < chorus_checkpoint_get_file_count(checkpoint); ++i) {
    model.files.emplace_back(chorus_checkpoint_get_file(checkpoint, i));
  }
  for (size_t i = 0; i < chorus_checkpoint_get_tensor_count(checkpoint); ++i) {
    const chorus_tensor_info info = tensor_info(checkpoint, i);
    TensorRow tensor{{info.name, info.name_length}, info.file, info.dtype_name, {}, info.size_bytes, info.kind, info.part,
                     info.layer, info.expert, info.role_flags};
    if (info.ndim > 0) tensor.shape.assign(info.shape, info.shape + info.ndim);
    add_to_layers(tensor, &model);
    model.tensors.push_back(std::move(tensor));
  }
  // A "gate" that routes nothing (a gated dense layer) leaves no experts behind.
  std::erase_if(model.experts, [](const auto &layer) { return layer.second.count() == 0; });
  model.architecture = architecture_of(checkpoint);
  read_tokenizer(context, &model);
  return model;
}

}  // namespace chorus_cli
