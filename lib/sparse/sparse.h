// SPDX-License-Identifier: Apache-2.0
// Sparse rows: a spec over weight tensors, and the packed object that runs sparse.gemv or sparse.ffn on a device.
#pragma once
#include <memory>

#include "chorus/sparse.h"
#include "runtime/context.h"
#include "runtime/kernel.h"

namespace chorus::sparse {

// The caller's tensors, borrowed until the object is created, and the choices around them. A linear spec has `down` alone.
struct SparseSpec {
  // y = weights x. Fails INVALID_ARGUMENT naming the tensor.
  SparseSpec(const chorus_tensor *weights, chorus_sparse_side side);
  // A feed-forward block; gate may be NULL.
  SparseSpec(const chorus_tensor *gate, const chorus_tensor *up, const chorus_tensor *down);
  void set_pick(chorus_sparse_pick pick, double threshold);
  void set_activation(chorus_activation activation);
  void set_biases(const chorus_tensor *gate, const chorus_tensor *up, const chorus_tensor *output);

  bool is_ffn;
  const chorus_tensor *gate = nullptr, *up = nullptr, *down = nullptr;
  const chorus_tensor *gate_bias = nullptr, *up_bias = nullptr, *down_bias = nullptr;
  chorus_sparse_side side = CHORUS_SPARSE_INPUTS;
  chorus_sparse_pick pick = CHORUS_SPARSE_NONZERO;
  chorus_activation activation = CHORUS_ACTIVATION_SWIGLU;
  chorus_dtype x_dtype = CHORUS_F32, y_dtype = CHORUS_F32;
  int32_t max_rows = 1;
  double threshold = 0, dense_above = 0;

  int64_t inputs() const { return is_ffn ? up->shape[1] : down->shape[1]; }
  int64_t outputs() const { return down->shape[0]; }
  int64_t indices() const { return !is_ffn && side == CHORUS_SPARSE_OUTPUTS ? down->shape[0] : down->shape[1]; }
};

class Sparse {
 public:
  Sparse(const std::shared_ptr<const Context> &context, const SparseSpec &spec, const char *device);

  // `density` may be NULL.
  void run(const chorus_tensor *x, const chorus_sparse_in &in, const chorus_tensor *y, const chorus_sparse_out &out,
           double *density, const chorus_exec *exec) const;
  uint64_t workspace_size(int64_t rows) const;
  uint64_t packed_bytes() const { return kernel_.prepared_bytes(); }
  const char *kernel_name() const { return kernel_.kernel_name(); }

 private:
  void check_rows(int64_t rows) const;

  chorus_sparse_pick pick_;
  chorus_dtype x_dtype_, y_dtype_;
  int64_t inputs_, outputs_, indices_, max_rows_;
  PreparedKernel kernel_;
};

}  // namespace chorus::sparse
