// SPDX-License-Identifier: Apache-2.0
// The header of one safetensors file: 8 bytes of length, JSON, then the data without holes.
// Verdicts are those of the Rust crate safetensors 0.8 (docs: chorus_checkpoint_open).
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/storage_type.h"

namespace chorus::checkpoint {

constexpr uint64_t kLengthBytes = 8;
constexpr uint64_t kMaxHeaderBytes = 100'000'000;

using Metadata = std::map<std::string, std::string>;

// A tensor as the header tells it.
struct HeaderTensor {
  std::string name;
  const StorageType *type = nullptr;
  std::vector<int64_t> shape;
  uint64_t begin = 0, end = 0;  // bytes of the data part
  uint64_t position = 0;        // byte of the file at which its entry begins, for messages
};

struct Header {
  Metadata metadata;
  std::vector<HeaderTensor> tensors;  // in the order of their data
  uint64_t data_start = 0;            // byte of the file at which the data part begins
};

// The length of the JSON, from the first bytes of a file of `file_bytes`. Fails DATA_LOSS.
uint64_t header_length(const unsigned char *first_bytes, uint64_t file_bytes, const std::string &file);

// Parses and checks the JSON of a file of `file_bytes` called `file`. Memory: a small multiple of `json`. Fails DATA_LOSS
// with file and byte.
Header parse_header(std::string_view json, uint64_t file_bytes, const std::string &file);

// The bytes before the data: length, JSON, spaces up to a multiple of 8. `tensors` in the order of their data.
std::string header_bytes(const Metadata &metadata, const std::vector<HeaderTensor> &tensors);

// Bytes of a tensor's data; nothing on overflow or when bits do not fill bytes.
bool data_bytes(const StorageType &type, const std::vector<int64_t> &shape, uint64_t *out);

}  // namespace chorus::checkpoint
