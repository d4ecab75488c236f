// SPDX-License-Identifier: Apache-2.0
// From the tokenizers of the inputs to the output's, and to views of every input's embedding and head in its order of rows.
#pragma once
#include <optional>

#include "merge/structure.h"
#include "merge/tokenizer/output_vocabulary.h"

namespace chorus::merge {

// Nothing when the recipe says nothing of tokenizers. Errors go to `diagnostics`.
std::optional<OutputVocabulary> merge_vocabularies(const Recipe &recipe, std::vector<InputModel> *inputs, Diagnostics *diagnostics);

}  // namespace chorus::merge
