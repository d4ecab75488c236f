// SPDX-License-Identifier: Apache-2.0
// Where each tensor of a model to be written will lie: known before a byte is written, so that writers need no order.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "checkpoint/header.h"

namespace chorus::checkpoint {

constexpr uint64_t kDefaultShardBytes = 5'000'000'000;

struct DeclaredTensor {
  std::string name;
  const StorageType *type;
  std::vector<int64_t> shape;
};

struct Shard {
  std::string name;    // "model-00001-of-00002.safetensors"
  std::string header;  // all bytes before the data
  uint64_t bytes;      // of the whole file
};

struct Place {
  uint32_t shard;
  uint64_t offset;  // byte of the shard's file
  uint64_t bytes;
};

struct Layout {
  std::vector<Shard> shards;
  std::vector<Place> places;       // of each declared tensor
  std::vector<std::string> names;  // of each declared tensor
  std::string index;          // text of model.safetensors.index.json; "" for one shard
  uint64_t total_bytes = 0;   // of all shards
};

// Splits in the declared order: a shard is full when the next tensor would make its data exceed `max_shard_bytes` (0: never).
// Within a shard the types of higher rank come first, so that every tensor is aligned. Fails INVALID_ARGUMENT, ALREADY_EXISTS.
Layout plan_layout(const std::vector<DeclaredTensor> &tensors, const Metadata &metadata, uint64_t max_shard_bytes);

// Checks what a declaration can get wrong (name, shape). Fails INVALID_ARGUMENT.
void check_declared(const DeclaredTensor &tensor);

}  // namespace chorus::checkpoint
