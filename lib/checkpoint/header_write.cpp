// SPDX-License-Identifier: Apache-2.0
// The bytes of a header: length, JSON as the Rust crate writes it, spaces up to a multiple of 8 so that data are aligned.
#include <fmt/format.h>

#include <iterator>
#include <nlohmann/json.hpp>

#include "checkpoint/header.h"

namespace chorus::checkpoint {
namespace {

std::string quoted(const std::string &text) { return nlohmann::json(text).dump(); }

void append_entry(const HeaderTensor &tensor, std::string *out) {
  fmt::format_to(std::back_inserter(*out), R"({}:{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})", quoted(tensor.name),
                 tensor.type->name, fmt::join(tensor.shape, ","), tensor.begin, tensor.end);
}

}  // namespace

std::string header_bytes(const Metadata &metadata, const std::vector<HeaderTensor> &tensors) {
  std::string json = "{";
  if (!metadata.empty()) json += R"("__metadata__":)" + nlohmann::json(metadata).dump();
  for (const HeaderTensor &tensor : tensors) {
    if (json.size() > 1) json += ',';
    append_entry(tensor, &json);
  }
  json += '}';
  json.append((8 - json.size() % 8) % 8, ' ');
  std::string out;
  for (int i = 0; i < 8; ++i) out += static_cast<char>(json.size() >> 8 * i & 0xff);
  return out + json;
}

}  // namespace chorus::checkpoint
