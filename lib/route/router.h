// SPDX-License-Identifier: Apache-2.0
// The router: a spec, and the object that runs route.topk on a device.
#pragma once
#include <memory>

#include "chorus/route.h"
#include "runtime/context.h"
#include "runtime/kernel.h"

namespace chorus::route {

// A descriptor that the setters keep valid, with the defaults of chorus_router_spec_create().
chorus_route_desc default_desc(int32_t n_experts, int32_t k);

class Router {
 public:
  Router(const std::shared_ptr<const Context> &context, const chorus_route_desc &desc, const char *device);

  void route(const chorus_tensor *logits, const chorus_route_in &in, const chorus_route_out &out,
             const chorus_exec *exec) const;
  uint64_t workspace_size(int64_t tokens) const;
  const char *kernel_name() const { return kernel_.kernel_name(); }

 private:
  void check(const chorus_tensor *logits, const chorus_route_in &in, const chorus_route_out &out) const;
  void check_tokens(int64_t tokens) const;

  chorus_route_desc desc_;
  PreparedKernel kernel_;
};

}  // namespace chorus::route
