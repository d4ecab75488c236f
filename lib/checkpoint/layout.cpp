// SPDX-License-Identifier: Apache-2.0
// The split into shards, the order within each, their headers, and the index.
#include "checkpoint/layout.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>
#include <unordered_set>

#include "runtime/checked.h"
#include "runtime/error.h"
#include "runtime/utf8.h"

namespace chorus::checkpoint {
namespace {

uint64_t bytes_of(const DeclaredTensor &tensor) {
  uint64_t bytes = 0;
  if (!data_bytes(*tensor.type, tensor.shape, &bytes)) {
    fail(CHORUS_INVALID_ARGUMENT, "tensor '{}': shape [{}] of {} overflows, or its bits do not fill bytes", tensor.name,
         fmt::join(tensor.shape, ", "), tensor.type->name);
  }
  return bytes;
}

// Indices of the tensors of each shard; at least one shard, perhaps empty.
std::vector<std::vector<size_t>> split(const std::vector<Place> &places, uint64_t max_shard_bytes) {
  std::vector<std::vector<size_t>> shards(1);
  uint64_t filled = 0;
  for (size_t i = 0; i < places.size(); ++i) {
    if (max_shard_bytes != 0 && !shards.back().empty() && filled + places[i].bytes > max_shard_bytes) {
      shards.emplace_back();
      filled = 0;
    }
    shards.back().push_back(i);
    filled += places[i].bytes;
  }
  return shards;
}

std::string shard_name(size_t shard, size_t count) {
  return count == 1 ? "model.safetensors" : fmt::format("model-{:05}-of-{:05}.safetensors", shard + 1, count);
}

Shard lay_out_shard(const std::vector<DeclaredTensor> &tensors, std::vector<size_t> members, const Metadata &metadata,
                    std::vector<Place> *places) {
  std::ranges::stable_sort(members, std::greater(), [&](size_t i) { return tensors[i].type->rank; });
  std::vector<HeaderTensor> entries;
  uint64_t end = 0;
  for (const size_t i : members) {
    const uint64_t begin = end;
    end += (*places)[i].bytes;
    entries.push_back({tensors[i].name, tensors[i].type, tensors[i].shape, begin, end, 0});
  }
  Shard shard;
  shard.header = header_bytes(metadata, entries);
  if (shard.header.size() - kLengthBytes > kMaxHeaderBytes) {
    fail(CHORUS_INVALID_ARGUMENT, "the header of {} tensors has {} bytes; at most {} are allowed. Use more shards",
         members.size(), shard.header.size() - kLengthBytes, kMaxHeaderBytes);
  }
  for (size_t k = 0; k < members.size(); ++k) (*places)[members[k]].offset = shard.header.size() + entries[k].begin;
  shard.bytes = shard.header.size() + end;
  return shard;
}

std::string index_text(const std::vector<DeclaredTensor> &tensors, const Layout &layout, uint64_t data_bytes) {
  nlohmann::ordered_json index;
  index["metadata"]["total_size"] = data_bytes;
  nlohmann::ordered_json &map = index["weight_map"] = nlohmann::ordered_json::object();
  std::vector<size_t> order(tensors.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::sort(order, {}, [&](size_t i) -> const std::string & { return tensors[i].name; });
  // emplace_back past the look-up of operator[], which is linear in an ordered object; names are known to be distinct.
  auto &entries = map.get_ref<nlohmann::ordered_json::object_t &>();
  for (const size_t i : order) {
    static_cast<nlohmann::ordered_json::object_t::Container &>(entries).emplace_back(tensors[i].name,
                                                                                     layout.shards[layout.places[i].shard].name);
  }
  return index.dump(2) + "\n";
}

}  // namespace

void check_declared(const DeclaredTensor &tensor) {
  if (tensor.name.empty() || tensor.name == "__metadata__") {
    fail(CHORUS_INVALID_ARGUMENT, "name is '{}'; a tensor's name is neither empty nor __metadata__", tensor.name);
  }
  if (const auto bad = invalid_utf8(tensor.name)) {
    fail(CHORUS_INVALID_ARGUMENT, "the name of a tensor is not UTF-8 from its byte {} on", *bad);
  }
  for (const int64_t size : tensor.shape) {
    if (size < 0) {
      fail(CHORUS_INVALID_ARGUMENT, "tensor '{}': shape is [{}]; sizes are 0 or more", tensor.name, fmt::join(tensor.shape, ", "));
    }
  }
  bytes_of(tensor);
}

Layout plan_layout(const std::vector<DeclaredTensor> &tensors, const Metadata &metadata, uint64_t max_shard_bytes) {
  Layout layout;
  std::unordered_set<std::string_view> names;
  uint64_t data_bytes = 0;
  for (const DeclaredTensor &tensor : tensors) {
    check_declared(tensor);
    if (!names.insert(tensor.name).second) fail(CHORUS_ALREADY_EXISTS, "tensor '{}' is declared twice", tensor.name);
    layout.places.push_back({0, 0, bytes_of(tensor)});
    layout.names.push_back(tensor.name);
    const auto sum = checked_add(data_bytes, layout.places.back().bytes);
    // Offsets are off_t in the system's calls.
    if (!sum || *sum > uint64_t{1} << 62) fail(CHORUS_INVALID_ARGUMENT, "the tensors have more than 2^62 bytes");
    data_bytes = *sum;
  }
  const auto shards = split(layout.places, max_shard_bytes);
  for (size_t s = 0; s < shards.size(); ++s) {
    for (const size_t i : shards[s]) layout.places[i].shard = static_cast<uint32_t>(s);
    layout.shards.push_back(lay_out_shard(tensors, shards[s], metadata, &layout.places));
    layout.shards.back().name = shard_name(s, shards.size());
    layout.total_bytes += layout.shards.back().bytes;
  }
  if (shards.size() > 1) layout.index = index_text(tensors, layout, data_bytes);
  return layout;
}

}  // namespace chorus::checkpoint
