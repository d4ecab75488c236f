// SPDX-License-Identifier: Apache-2.0
// One tensor of a safetensors file seen as rows: all but its last dimension flattened, read a block at a time, so that
// memory does not grow with the file.
#pragma once
#include <string>
#include <vector>

#include "command.h"

namespace chorus_cli {

using Checkpoint = Owned<chorus_checkpoint, chorus_checkpoint_destroy>;

Checkpoint open_checkpoint(const Context &context, const std::string &path);
chorus_tensor_info tensor_info(const chorus_checkpoint *checkpoint, size_t index);

// A compact view of `rows` rows of `width` elements; keeps its shape alive. `width` 0: one dimension.
class View {
 public:
  View(void *data, chorus_dtype dtype, int64_t rows, int64_t width = 0);
  View(const View &) = delete;
  View &operator=(const View &) = delete;
  const chorus_tensor *get() const { return &tensor_; }

 private:
  int64_t shape_[2];
  chorus_tensor tensor_ = CHORUS_TENSOR_INIT;
};

class RowsFile {
 public:
  // Opens tensor `name` of the file or model at `path`; with no name the only one there is, else the first of `usual`.
  RowsFile(const Context &context, const std::string &path, const std::string &name, const std::vector<std::string> &usual);

  int64_t rows() const { return rows_; }
  int64_t width() const { return width_; }
  chorus_dtype stored() const { return info_.dtype; }
  // "scores.safetensors: tensor 'logits'", for messages.
  std::string label() const;

  // Floating-point scores: the type blocks are read as. f32, f16 and bf16 as they are, f64 rounded to f32.
  chorus_dtype score_dtype() const;
  // Rows [first, first + count) into `block`, whose memory is kept from call to call.
  void read_scores(int64_t first, int64_t count, std::vector<char> *block) const;

  // The whole tensor as integers (stored as i32 or i64) or as f32.
  std::vector<int64_t> read_integers() const;
  std::vector<float> read_floats() const;

 private:
  std::string path_;
  Checkpoint checkpoint_;
  size_t index_ = 0;
  chorus_tensor_info info_ = CHORUS_TENSOR_INFO_INIT;
  int64_t rows_ = 1, width_ = 1;
};

// Writes tensors into a new folder as FOLDER/model.safetensors; declare all, then start, then write. What was begun and not
// finished is removed.
class RowsWriter {
 public:
  RowsWriter();
  size_t declare(const std::string &name, chorus_dtype dtype, const std::vector<int64_t> &shape);
  void start(const Context &context, const std::string &folder, bool replace);
  // Appends to tensor `index`.
  void append(size_t index, const void *data, uint64_t bytes);
  void finish();

 private:
  Owned<chorus_checkpoint_writer_spec, chorus_checkpoint_writer_spec_destroy> spec_;
  Owned<chorus_checkpoint_writer, chorus_checkpoint_writer_destroy> writer_;
  std::vector<uint64_t> written_;
};

}  // namespace chorus_cli
