// SPDX-License-Identifier: Apache-2.0
// The index of a sharded model: which file holds which tensor. Untrusted.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace chorus::checkpoint {

constexpr uint64_t kMaxIndexBytes = uint64_t{256} << 20;

// Tensor names by the file that the index says they lie in. Fails DATA_LOSS with file and byte: not JSON, too deep, no
// weight_map, a name twice, a file name that is no string.
std::map<std::string, std::vector<std::string>> parse_shard_index(std::string_view text, const std::string &file);

}  // namespace chorus::checkpoint
