// SPDX-License-Identifier: Apache-2.0
// A tensor of an input that no file holds as it is: computed from what files hold while a piece of it is read. Adapters are added and
// vocabularies permuted this way, with nothing on disk.
#pragma once
#include "checkpoint/model.h"

namespace chorus::merge {

class TensorView {
 public:
  virtual ~TensorView() = default;
  // Name, type and shape; `bytes` is what is read for all of it. `file` and `offset` mean nothing.
  const checkpoint::Tensor &tensor() const { return tensor_; }
  // `count` elements from element `begin` on, of tensor().type. Any thread.
  virtual void read(uint64_t begin, uint64_t count, void *to) const = 0;

 protected:
  explicit TensorView(checkpoint::Tensor tensor) : tensor_(std::move(tensor)) {}

 private:
  checkpoint::Tensor tensor_;
};

}  // namespace chorus::merge
