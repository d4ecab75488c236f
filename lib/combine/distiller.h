// SPDX-License-Identifier: Apache-2.0
// A distillation loss: its descriptor checked once, its tensors at every call; combine.distill does the work.
#pragma once
#include <memory>

#include "chorus/distill.h"
#include "runtime/context.h"
#include "runtime/kernel.h"

namespace chorus::combine {

class Distiller {
 public:
  Distiller(const std::shared_ptr<const Context> &context, const chorus_distill_desc &desc, const char *device);

  void run(const chorus_distill_args &args, const chorus_exec *exec) const;
  uint64_t workspace_size(int64_t rows) const;
  const char *kernel_name() const { return kernel_.kernel_name(); }

 private:
  void check_rows(int64_t rows) const;
  void check_inputs(const chorus_distill_args &args) const;
  void check_outputs(const chorus_distill_args &args) const;

  chorus_distill_desc desc_;
  PreparedKernel kernel_;
};

}  // namespace chorus::combine
