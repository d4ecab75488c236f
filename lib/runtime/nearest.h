// SPDX-License-Identifier: Apache-2.0
// The known word nearest to an unknown one, for messages such as: no option 'thread'; did you mean 'threads'?
#pragma once
#include <span>
#include <string>
#include <string_view>

namespace chorus {

// Edits (insert, delete, replace, swap of neighbours) that turn `a` into `b`. O(|a| |b|) time.
size_t edit_distance(std::string_view a, std::string_view b);

// The word of `known` at the smallest distance, when that is at most a third of its length plus one; else "".
std::string nearest(std::string_view word, std::span<const std::string> known);

// "; did you mean 'threads'?" or "".
std::string did_you_mean(std::string_view word, std::span<const std::string> known);

}  // namespace chorus
