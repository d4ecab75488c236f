// SPDX-License-Identifier: Apache-2.0
// Modules by words between the dots of names.
#include "merge/module.h"

#include <algorithm>
#include <iterator>

namespace chorus::merge {
namespace {

struct Synonyms {
  std::string_view module;
  std::vector<std::string_view> words;  // components of names, and what recipes call it
};

// In this order: a projector within the vision tower is a projector.
const std::vector<Synonyms> &synonyms() {
  static const std::vector<Synonyms> table = {
      {"multi_modal_projector", {"multi_modal_projector", "mm_projector", "connector", "projector", "merger", "deepstack_merger_list", "aligner"}},
      {"vision_tower", {"vision_tower", "vision_model", "vision_encoder", "visual", "vision", "vision_embed_tokens"}},
      {"audio_tower", {"audio_tower", "audio_model", "audio_encoder", "speech_encoder"}},
      {"shared", {"shared"}},
  };
  return table;
}

bool has_component(std::string_view name, std::string_view word) {
  for (size_t at = name.find(word); at != std::string_view::npos; at = name.find(word, at + 1)) {
    const size_t end = at + word.size();
    if ((at == 0 || name[at - 1] == '.') && (end == name.size() || name[end] == '.')) return true;
  }
  return false;
}

// "encoder." and "model.encoder." begin names of one; "encoder" further in says nothing.
bool begins_with(std::string_view name, std::string_view word) {
  if (name.starts_with("model.")) name.remove_prefix(6);
  return name.starts_with(word) && name.size() > word.size() && name[word.size()] == '.';
}

bool is_listed(const std::vector<std::string> &modules, std::string_view module) { return std::ranges::find(modules, module) != modules.end(); }

// What is no part of its own belongs to the text decoder, or to the decoder beside an encoder.
std::string_view module_among(std::string_view name, const std::vector<std::string> &modules) {
  const std::string_view module = module_of(name);
  if (is_listed(modules, module)) return module;
  return is_listed(modules, "decoder") ? "decoder" : "text_decoder";
}

}  // namespace

std::string_view module_of(std::string_view tensor) {
  for (const Synonyms &entry : synonyms()) {
    if (std::ranges::any_of(entry.words, [&](std::string_view word) { return has_component(tensor, word); })) return entry.module;
  }
  if (begins_with(tensor, "encoder")) return "encoder";
  if (begins_with(tensor, "decoder")) return "decoder";
  return "text_decoder";
}

std::vector<std::string> modules_in(const checkpoint::Model &model) {
  std::vector<std::string> found;
  for (const checkpoint::Tensor &tensor : model.tensors()) {
    const std::string module(module_of(tensor.name));
    if (!is_listed(found, module)) found.push_back(module);
  }
  const bool pair = is_listed(found, "encoder") && is_listed(found, "decoder");
  if (pair) std::erase(found, "text_decoder");
  std::vector<std::string> out;
  for (std::string &module : found) {  // an encoder or a decoder alone is the text's, as in BERT and OPT
    const bool alone = !pair && (module == "encoder" || module == "decoder" || module == "shared");
    std::string name = alone ? "text_decoder" : std::move(module);
    if (!is_listed(out, name)) out.push_back(std::move(name));
  }
  return out;
}

std::string module_named(std::string_view word, const std::vector<std::string> &modules) {
  if (is_listed(modules, word)) return std::string(word);
  for (const Synonyms &entry : synonyms()) {
    if (std::ranges::find(entry.words, word) != entry.words.end() && is_listed(modules, entry.module)) return std::string(entry.module);
  }
  constexpr std::string_view kText[] = {"text_decoder", "language_model", "text_model", "text", "default"};
  if (std::ranges::find(kText, word) != std::end(kText) && is_listed(modules, "text_decoder")) return "text_decoder";
  return "";
}

bool is_in_module(std::string_view name, std::string_view module, const std::vector<std::string> &modules) {
  return module.empty() || module_among(name, modules) == module;
}

std::vector<std::string> layer_keys(std::string_view module) {
  if (module == "vision_tower") return {"vision_config.num_hidden_layers", "vision_config.depth", "vision_config.num_layers"};
  if (module == "audio_tower") return {"audio_config.num_hidden_layers", "audio_config.encoder_layers"};
  if (module == "encoder") return {"num_layers", "encoder_layers", "num_hidden_layers"};
  if (module == "decoder") return {"num_decoder_layers", "decoder_layers"};
  return {"num_hidden_layers", "n_layer", "num_layers", "n_layers", "text_config.num_hidden_layers", "llm_config.num_hidden_layers"};
}

}  // namespace chorus::merge
