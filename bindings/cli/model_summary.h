// SPDX-License-Identifier: Apache-2.0
// What `chorus inspect` knows of a model: its tensors by what they are for, and whether they fit its config and tokenizer.
#pragma once
#include <map>
#include <set>
#include <string>
#include <vector>

#include "rows_file.h"

namespace chorus_cli {

struct TensorRow {
  std::string name, file, dtype;
  std::vector<int64_t> shape;
  uint64_t bytes = 0;
  chorus_tensor_kind kind = 0;
  chorus_tensor_part part = 0;
  int32_t layer = -1, expert = -1;
  uint32_t flags = 0;

  double elements() const;
  bool is(chorus_tensor_kind wanted_kind) const { return kind == wanted_kind; }
  // A matrix of weights stored as floating-point numbers: its shape says something.
  bool is_matrix() const;
};

// Experts of one layer.
struct ExpertLayer {
  std::set<int32_t> separate;  // indices of experts with tensors of their own
  int64_t fused = 0;           // experts inside fused tensors
  int64_t router_rows = 0;     // 0: no router was recognised
  int64_t count() const { return fused > 0 ? fused : static_cast<int64_t>(separate.size()); }
};

struct ModelSummary {
  std::string folder, architecture;
  std::vector<std::string> files;
  std::vector<TensorRow> tensors;
  std::set<int32_t> layers;
  std::map<int32_t, ExpertLayer> experts;
  bool has_tokenizer = false;
  size_t vocabulary = 0;        // ids of the tokenizer
  std::string fingerprint;      // of its tokens, hexadecimal
  std::string tokenizer_error;  // why it could not be read
};

ModelSummary summarise(const Context &context, const chorus_checkpoint *checkpoint);

// What does not fit, one sentence each, naming tensor, found and expected. Empty: sound as far as names, shapes, config.json
// and tokenizer.json can tell.
std::vector<std::string> find_problems(const ModelSummary &model, const chorus_checkpoint *checkpoint);

std::string shape_text(const std::vector<int64_t> &shape);

}  // namespace chorus_cli
