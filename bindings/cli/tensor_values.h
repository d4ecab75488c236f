// SPDX-License-Identifier: Apache-2.0
// Elements of a model's tensors as floats, a range at a time.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "command.h"

namespace chorus_cli {

class Model {
 public:
  Model(const chorus_context *context, const std::string &path) {
    Call call;
    chorus_checkpoint *raw = nullptr;
    call(chorus_checkpoint_open(context, path.c_str(), &raw, call.slot()));
    checkpoint_.reset(raw);
  }
  const chorus_checkpoint *get() const { return checkpoint_.get(); }
  size_t count() const { return chorus_checkpoint_get_tensor_count(get()); }
  chorus_tensor_info info(size_t index) const;
  std::optional<size_t> find(const std::string &name) const;

 private:
  Owned<chorus_checkpoint, chorus_checkpoint_destroy> checkpoint_;
};

bool same_shape(const chorus_tensor_info &a, const chorus_tensor_info &b);

class TensorValues {
 public:
  TensorValues(const Model &model, size_t index) : model_(&model), index_(index), info_(model.info(index)) {}
  // f64, f32, f16 or bf16.
  static bool is_readable(const chorus_tensor_info &info);
  uint64_t elements() const { return info_.size_bytes / (info_.dtype >> 11); }
  std::vector<float> read(uint64_t begin, uint64_t count) const;

 private:
  const Model *model_;
  size_t index_;
  chorus_tensor_info info_;
};

}  // namespace chorus_cli
