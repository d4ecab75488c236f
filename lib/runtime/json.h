// SPDX-License-Identifier: Apache-2.0
// Untrusted JSON: bounded in size and depth, errors with file and byte.
#pragma once
#include <nlohmann/json.hpp>
#include <string>

#include "runtime/error.h"

namespace chorus {

constexpr int kMaxJsonDepth = 64;

// What a library's JSON exception says, as DATA_LOSS with file and byte.
[[noreturn]] void fail_json(const std::string &file, size_t position, const nlohmann::json::exception &error);

// The document `text` of `file`. Of keys that stand twice the last counts, as everywhere. Memory: some 40 times the text at
// worst, so callers bound its size. Fails DATA_LOSS.
nlohmann::json parse_json(const std::string &text, const std::string &file);

}  // namespace chorus
