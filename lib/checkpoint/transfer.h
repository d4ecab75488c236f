// SPDX-License-Identifier: Apache-2.0
// Whole tensors between a checkpoint and a caller's memory, converted on the way.
#pragma once
#include "checkpoint/model.h"
#include "checkpoint/writer.h"

namespace chorus::checkpoint {

// Fails INVALID_ARGUMENT where `out` has another shape, is not compact host memory, or too small; UNIMPLEMENTED between types
// that cannot be converted.
void read_tensor(const Model &model, const Tensor &tensor, const chorus_tensor *out);

// Checks that a caller's tensor is compact host memory of that shape, of a type that converts to or from `stored`; returns
// its bytes. `name` is the argument and `whose` the tensor of the model, for messages.
uint64_t check_memory(const chorus_tensor *tensor, const char *name, const std::string &whose, const StorageType &stored,
                      const std::vector<int64_t> &shape);

// The same for tensor `index` of a writer, declared as `declared`.
void write_tensor(Writer *writer, size_t index, const DeclaredTensor &declared, const chorus_tensor *in);

}  // namespace chorus::checkpoint
