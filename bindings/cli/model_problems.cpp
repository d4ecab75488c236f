// SPDX-License-Identifier: Apache-2.0
// Does a model hold together: layers, experts and shapes against config.json, ids against the tokenizer. Config keys are
// those of Hugging Face models; a key that is not there is not checked.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <initializer_list>
#include <optional>

#include "model_summary.h"

namespace chorus_cli {
namespace {

class Config {
 public:
  explicit Config(const chorus_checkpoint *checkpoint) : checkpoint_(checkpoint) {}
  // The first of `keys` that config.json has as a number.
  std::optional<int64_t> number(std::initializer_list<const char *> keys) const {
    for (const char *key : keys) {
      double value = 0;
      if (chorus_checkpoint_get_config_number(checkpoint_, key, &value, nullptr) == CHORUS_OK && value >= 0 && value < 1e15) {
        return static_cast<int64_t>(value);
      }
    }
    return std::nullopt;
  }

 private:
  const chorus_checkpoint *checkpoint_;
};

using Problems = std::vector<std::string>;

std::string named(const TensorRow &tensor) { return fmt::format("{} {}", printable(tensor.name), shape_text(tensor.shape)); }

void check_layers(const ModelSummary &model, const Config &config, Problems *problems) {
  const auto layers = config.number({"num_hidden_layers", "n_layer", "num_layers", "n_layers"});
  if (!layers || model.layers.empty()) return;
  const int64_t predicted = config.number({"num_nextn_predict_layers"}).value_or(0);  // DeepSeek's lie behind the others
  std::vector<int64_t> missing;
  for (int64_t i = 0; i < *layers && missing.size() <= 8; ++i) {
    if (!model.layers.contains(static_cast<int32_t>(i))) missing.push_back(i);
  }
  if (!missing.empty()) {
    problems->push_back(fmt::format("config.json says {} layers; no tensor of layer {}", *layers, fmt::join(missing, ", ")));
  }
  if (*model.layers.rbegin() >= *layers + predicted) {
    problems->push_back(fmt::format("config.json says {} layers; there are tensors of layer {}", *layers, *model.layers.rbegin()));
  }
}

// The name without the number of its layer.
std::string place_in_layer(const TensorRow &tensor) {
  const std::string number = fmt::format(".{}.", tensor.layer);
  const size_t at = tensor.name.find(number);
  return at == std::string::npos ? tensor.name : tensor.name.substr(at + number.size());
}

// A layer whose tensors are some of another layer's, but not all, has lost some. (Layers of different kinds, dense and
// expert ones, each have what the other has not.)
void check_complete(const ModelSummary &model, Problems *problems) {
  std::map<int32_t, std::set<std::string>> places;
  for (const TensorRow &tensor : model.tensors) {
    if (tensor.layer >= 0) places[tensor.layer].insert(place_in_layer(tensor));
  }
  std::set<std::set<std::string>> kinds;
  for (const auto &[layer, set] : places) kinds.insert(set);
  for (const auto &[layer, set] : places) {
    for (const auto &kind : kinds) {
      if (kind.size() <= set.size() || !std::includes(kind.begin(), kind.end(), set.begin(), set.end())) continue;
      std::vector<std::string> lost;
      std::set_difference(kind.begin(), kind.end(), set.begin(), set.end(), std::back_inserter(lost));
      problems->push_back(fmt::format("layer {} lacks {}{}, which other layers have", layer, printable(lost[0]),
                                      lost.size() > 1 ? fmt::format(" and {} more", lost.size() - 1) : ""));
      break;
    }
  }
}

void check_embeddings(const ModelSummary &model, const Config &config, Problems *problems) {
  const auto tokens = config.number({"vocab_size"});
  const auto hidden = config.number({"word_embed_proj_dim", "embedding_size", "hidden_size", "n_embd", "d_model"});
  bool head = false, embedding = false;
  for (const TensorRow &tensor : model.tensors) {
    const bool is_head = tensor.is(CHORUS_TENSOR_KIND_HEAD), is_embedding = tensor.is(CHORUS_TENSOR_KIND_EMBEDDING);
    if (!(is_head || is_embedding) || tensor.layer >= 0 || !tensor.is_matrix()) continue;
    head |= is_head;
    embedding |= is_embedding;
    if (tokens && tensor.shape[0] < *tokens) {
      problems->push_back(fmt::format("{}: config.json says {} tokens", named(tensor), *tokens));
    }
    if (is_embedding && hidden && tensor.shape[1] != *hidden) {
      problems->push_back(fmt::format("{}: config.json says rows of {}", named(tensor), *hidden));
    }
    if (model.vocabulary > static_cast<size_t>(tensor.shape[0])) {
      problems->push_back(fmt::format("{}: tokenizer.json has {} ids", named(tensor), model.vocabulary));
    }
  }
  const auto tied = config.number({"tie_word_embeddings"});
  if (embedding && !head && tied && *tied == 0 && model.architecture.ends_with("ForCausalLM")) {
    problems->push_back("config.json says the head is not tied to the embedding; there is no tensor of the head");
  }
}

void check_experts(const ModelSummary &model, const Config &config, Problems *problems) {
  const auto wanted = config.number({"num_local_experts", "num_experts", "n_routed_experts"});
  for (const auto &[layer, experts] : model.experts) {
    if (wanted && *wanted > 0 && experts.count() != *wanted) {
      problems->push_back(fmt::format("layer {} has {} experts; config.json says {}", layer, experts.count(), *wanted));
    }
    if (!experts.separate.empty() && *experts.separate.rbegin() + 1 != static_cast<int64_t>(experts.separate.size())) {
      problems->push_back(fmt::format("layer {} has {} experts, numbered up to {}", layer, experts.separate.size(),
                                      *experts.separate.rbegin()));
    }
    if (experts.router_rows > 0 && experts.router_rows != experts.count()) {
      problems->push_back(fmt::format("layer {} has a router for {} experts and {} of them", layer, experts.router_rows,
                                      experts.count()));
    }
  }
  if (wanted && *wanted > 1 && model.experts.empty() && !model.tensors.empty()) {
    problems->push_back(fmt::format("config.json says {} experts; no tensor of an expert was recognised", *wanted));
  }
}

// Whether a matrix has these two sizes, in either order (GPT-2 stores its transposed).
bool has_sizes(const TensorRow &tensor, int64_t rows, int64_t columns) {
  return (tensor.shape[0] == rows && tensor.shape[1] == columns) || (tensor.shape[0] == columns && tensor.shape[1] == rows);
}

void check_shapes(const ModelSummary &model, const Config &config, Problems *problems) {
  const auto hidden = config.number({"hidden_size", "n_embd", "d_model"});
  const auto heads = config.number({"num_attention_heads", "n_head"});
  if (!hidden) return;
  const auto inner = config.number({"intermediate_size", "n_inner", "ffn_dim"});
  const auto expert_inner = config.number({"moe_intermediate_size", "intermediate_size"});
  const auto key_heads = config.number({"num_key_value_heads", "num_attention_heads"});
  const auto head_size = heads && *heads > 0 ? config.number({"head_dim"}).value_or(*hidden / *heads) : 0;
  for (const TensorRow &tensor : model.tensors) {
    if (!tensor.is_matrix() || tensor.layer < 0 || (tensor.flags & CHORUS_TENSOR_ROLE_SHARED_EXPERT) != 0) continue;
    std::optional<int64_t> rows;
    if (tensor.is(CHORUS_TENSOR_KIND_MLP) && tensor.part != CHORUS_TENSOR_PART_NONE) {
      rows = tensor.expert >= 0 ? expert_inner : inner;
      if (rows && tensor.part == CHORUS_TENSOR_PART_GATE_UP) *rows *= 2;
    } else if (tensor.name.ends_with(".self_attn.q_proj.weight") && heads) {
      rows = *heads * head_size;
    } else if ((tensor.name.ends_with(".self_attn.k_proj.weight") || tensor.name.ends_with(".self_attn.v_proj.weight")) &&
               key_heads) {
      rows = *key_heads * head_size;
    }
    if (rows && *rows > 0 && !has_sizes(tensor, *rows, *hidden)) {
      problems->push_back(fmt::format("{}: by config.json it is {}", named(tensor), shape_text({*rows, *hidden})));
    }
  }
}

}  // namespace

std::vector<std::string> find_problems(const ModelSummary &model, const chorus_checkpoint *checkpoint) {
  const Config config(checkpoint);
  Problems problems;
  if (model.tensors.empty()) problems.push_back("there is no tensor");
  check_layers(model, config, &problems);
  check_complete(model, &problems);
  check_embeddings(model, config, &problems);
  check_experts(model, config, &problems);
  check_shapes(model, config, &problems);
  if (!model.tokenizer_error.empty()) problems.push_back(model.tokenizer_error);
  return problems;
}

}  // namespace chorus_cli
