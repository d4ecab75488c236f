// SPDX-License-Identifier: Apache-2.0
// The kernels of a plan: one for each combination of stages and dtypes that occurs, prepared once.
#pragma once
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "merge/methods/method.h"
#include "runtime/kernel.h"

namespace chorus::merge {

// Data types of a tensor's operands.
struct OperandTypes {
  std::vector<chorus_dtype> inputs;
  chorus_dtype base = 0;  // 0: no base
  chorus_dtype output = 0;
  chorus_dtype work = 0;  // of the rounding chain; 0 with accurate numerics
};

class Kernels {
 public:
  Kernels() = default;
  Kernels(DevicePtr device, uint64_t max_elements) : device_(std::move(device)), max_elements_(max_elements) {}

  // Numbers of kernels, for get(). Fail UNIMPLEMENTED with a cause for each kernel asked.
  size_t reduce(const Reduction &reduction, const OperandTypes &types);
  size_t apply(const Stages &stages, const OperandTypes &types);

  // A method's element function takes part, in place of a kernel.
  void add_host_function(const char *method);

  const PreparedKernel &get(size_t index) const { return kernels_[index]; }
  // Names of those in use, each once: "cpu/merge_apply", "host/nearswap".
  std::vector<std::string> names() const;

 private:
  using Key = std::vector<uint64_t>;
  template <typename Desc>
  size_t prepare(const char *op, const Key &key, const Desc &desc);

  DevicePtr device_;
  uint64_t max_elements_ = 0;
  std::map<Key, size_t> known_;
  std::vector<PreparedKernel> kernels_;
  std::vector<std::string> host_functions_;
};

}  // namespace chorus::merge
