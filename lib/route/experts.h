// SPDX-License-Identifier: Apache-2.0
// The experts: a spec over weight tensors, and the packed object that runs experts.ffn on a device.
#pragma once
#include <memory>
#include <vector>

#include "chorus/route.h"
#include "runtime/context.h"
#include "runtime/kernel.h"

namespace chorus::route {

struct MoeWeights;  // route/moe_weights.h

// The caller's weight tensors, borrowed until the experts are created, and the choices around them.
struct ExpertsSpec {
  ExpertsSpec(const chorus_tensor *gate_up, const chorus_tensor *down, int32_t k);
  void set_shared(int32_t n_shared);
  // Copies an i32 vector from host memory.
  void set_expert_map(const chorus_tensor &map);

  chorus_experts_desc desc;
  std::vector<int32_t> expert_map;
  std::shared_ptr<const MoeWeights> loaded;  // what desc points to, when it came from a checkpoint; else NULL
};

class Experts {
 public:
  Experts(const std::shared_ptr<const Context> &context, const ExpertsSpec &spec, const char *device);

  void run(const chorus_tensor *x, const chorus_tensor *ids, const chorus_tensor *weights, const chorus_tensor *y,
           const chorus_tensor *status, const chorus_exec *exec) const;
  uint64_t workspace_size(int64_t tokens) const;
  uint64_t packed_bytes() const { return kernel_.prepared_bytes(); }
  const char *kernel_name() const { return kernel_.kernel_name(); }
  const chorus_experts_desc &desc() const { return desc_; }  // its tensors must not be read
  const Device &device() const { return *kernel_.device(); }

 private:
  void check_tokens(int64_t tokens) const;

  chorus_experts_desc desc_;  // its tensors are not read after creation
  PreparedKernel kernel_;
};

}  // namespace chorus::route
