// SPDX-License-Identifier: Apache-2.0
// The weights of one mixture-of-experts layer, read from a checkpoint: which tensors they are by name, and as experts.ffn
// takes them.
#pragma once
#include "checkpoint/model.h"
#include "route/experts.h"
#include "runtime/allocate.h"

namespace chorus::route {

// A tensor with memory of its own; stays where it was made.
struct OwnedTensor {
  Buffer memory;
  int64_t shape[3] = {};
  chorus_tensor view = CHORUS_TENSOR_INIT;

  OwnedTensor() = default;
  OwnedTensor(const OwnedTensor &) = delete;
  OwnedTensor &operator=(const OwnedTensor &) = delete;
  // Compact, in host memory, not filled. Fails RESOURCE_EXHAUSTED.
  void allocate(chorus_dtype dtype, std::initializer_list<int64_t> sizes);
  const chorus_tensor *get() const { return view.ndim > 0 ? &view : nullptr; }
};

struct MoeWeights {
  OwnedTensor gate, gate_bias, selection_bias;
  OwnedTensor gate_up, down, gate_up_bias, down_bias;
};

// A spec of the experts of `layer`, its weights read (chorus_experts_spec_create_from_checkpoint).
ExpertsSpec load_experts(const checkpoint::Model &model, int32_t layer);

}  // namespace chorus::route
