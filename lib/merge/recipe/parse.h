// SPDX-License-Identifier: Apache-2.0
// The parts of parse_recipe().
#pragma once
#include "merge/recipe/fields.h"
#include "merge/recipe/recipe.h"

namespace chorus::merge {

// Where parameters stand, from the weakest to the strongest.
enum class Level { kGlobal, kSlice, kModel };

// The map below a key `parameters`. Parameters of other methods warn; unknown ones are errors. `method` NULL: unknown, names alone
// are checked.
void parse_parameters(const Node &node, const Method *method, Level level, Parameters *out, Diagnostics *diagnostics);

// A model's name, or a map {model: {path, revision}, …}.
ModelReference read_reference(const Node &node, Diagnostics *diagnostics);

// tokenizer_source, tokenizer and chat_template.
void read_tokenizer(const Fields &top, Recipe *recipe, Diagnostics *diagnostics);

// What the method asks of models and base: how many, which, and parameters that nothing gives.
void check_structure(const Recipe &recipe, Diagnostics *diagnostics);

}  // namespace chorus::merge
