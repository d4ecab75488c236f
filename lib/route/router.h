// SPDX-License-Identifier: Apache-2.0
// The router: the object that runs route.topk on a device.
#pragma once
#include <memory>

#include "route/router_spec.h"
#include "runtime/context.h"
#include "runtime/kernel.h"
#include "runtime/tensor.h"

namespace chorus::route {

// The tensors of one call that are there, by name and extent, for the overlap check.
struct Named {
  struct Entry {
    const char *name;
    Extent extent;
  };
  Entry entries[13];  // as many as outputs
  size_t count = 0;

  void add(const char *name, const Extent &extent) { entries[count++] = {name, extent}; }
  const Entry *begin() const { return entries; }
  const Entry *end() const { return entries + count; }
};

class Router {
 public:
  Router(const std::shared_ptr<const Context> &context, const RouterSpec &spec, const char *device);

  void route(const chorus_tensor *logits, const chorus_route_in &in, const chorus_route_out &out,
             const chorus_exec *exec) const;
  uint64_t workspace_size(int64_t tokens) const;
  // Columns of the lists per expert.
  int64_t capacity(int64_t tokens) const;
  const chorus_route_desc &desc() const { return desc_; }  // pointers in it are NULL
  const Device &device() const { return *kernel_.device(); }
  const char *kernel_name() const { return kernel_.kernel_name(); }

 private:
  void check_tokens(int64_t tokens) const;
  void check_inputs(const chorus_route_in &in, int64_t tokens, Named &named) const;
  void check_outputs(const chorus_route_out &out, int64_t tokens, Named &named) const;
  void check_extra_outputs(const chorus_route_out &out, int64_t tokens, Named &named) const;
  int64_t room_of(int64_t tokens) const;

  chorus_route_desc desc_;
  PreparedKernel kernel_;
};

}  // namespace chorus::route
