// SPDX-License-Identifier: Apache-2.0
// The router: the object that runs route.topk on a device.
#pragma once
#include <memory>

#include "route/router_spec.h"
#include "runtime/context.h"
#include "runtime/kernel.h"

namespace chorus::route {

class Router {
 public:
  Router(const std::shared_ptr<const Context> &context, const RouterSpec &spec, const char *device);

  void route(const chorus_tensor *logits, const chorus_route_in &in, const chorus_route_out &out,
             const chorus_exec *exec) const;
  uint64_t workspace_size(int64_t tokens) const;
  // Columns of the lists per expert.
  int64_t capacity(int64_t tokens) const;
  const char *kernel_name() const { return kernel_.kernel_name(); }

 private:
  void check_tokens(int64_t tokens) const;
  void check_inputs(const chorus_route_in &in, int64_t tokens) const;
  void check_outputs(const chorus_route_out &out, int64_t tokens) const;
  void check_extra_outputs(const chorus_route_out &out, int64_t tokens) const;

  chorus_route_desc desc_;
  PreparedKernel kernel_;
};

}  // namespace chorus::route
