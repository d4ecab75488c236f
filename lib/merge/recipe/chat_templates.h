// SPDX-License-Identifier: Apache-2.0
// The chat formats a recipe may name instead of writing their template.
#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace chorus::merge {

// Jinja for transformers' apply_chat_template (trim_blocks, lstrip_blocks); NULL when there is none of that name.
const char *chat_template_named(std::string_view name);
std::vector<std::string> chat_template_names();

}  // namespace chorus::merge
