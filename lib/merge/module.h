// SPDX-License-Identifier: Apache-2.0
// The modules of a model (vision tower, projector, text decoder; encoder, decoder), told from the names of its tensors. No table of
// architectures: mergekit's names for them are synonyms here.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/model.h"

namespace chorus::merge {

// "text_decoder", "vision_tower", "audio_tower", "multi_modal_projector", "encoder", "decoder" or "shared"; by the name alone.
std::string_view module_of(std::string_view tensor);

// Those a model has, in the order of its tensors. A model of an encoder and a decoder has no text_decoder: its head is the decoder's.
std::vector<std::string> modules_in(const checkpoint::Model &model);

// The module of `modules` that `word` of a recipe means ("language_model" is text_decoder, "visual" is vision_tower …); "" when there is none.
std::string module_named(std::string_view word, const std::vector<std::string> &modules);

// Whether tensor `name` belongs to `module` of a model that has `modules`.
bool is_in_module(std::string_view name, std::string_view module, const std::vector<std::string> &modules);

// Keys of config.json that count the layers of a module, the section before the dot.
std::vector<std::string> layer_keys(std::string_view module);

}  // namespace chorus::merge
