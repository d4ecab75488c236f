// SPDX-License-Identifier: Apache-2.0
// The backend under test reached as a host reaches it: a context that loads the plugin, and objects made from
// specs. The fallback to the reference is forbidden, so that a refusal is seen as one.
#pragma once
#include <string>

#include "chorus/combine_options.h"
#include "chorus/context.h"
#include "chorus/route.h"
#include "conformance/backend.h"
#include "conformance/combine_problem.h"

namespace conformance {

class PublicAbi {
 public:
  explicit PublicAbi(const Backend &backend, int threads = 1);
  ~PublicAbi() { chorus_context_destroy(context_); }
  PublicAbi(const PublicAbi &) = delete;
  PublicAbi &operator=(const PublicAbi &) = delete;

  const chorus_context *context() const { return context_; }
  const char *device() const { return device_.c_str(); }
  const DeviceMemory &memory() const { return memory_; }

 private:
  chorus_context *context_ = nullptr;
  std::string device_;
  int threads_;
  DeviceMemory memory_;
};

// Throws Skipped for UNIMPLEMENTED, Stopped for any other failure; frees the error.
void must(chorus_status status, chorus_error *const &error, const char *what);

// Through chorus_combiner_*.
CombineResult combine(const PublicAbi &abi, const CombineProblem &p, uint32_t outputs = kAllOutputs);

}  // namespace conformance
