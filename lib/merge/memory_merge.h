// SPDX-License-Identifier: Apache-2.0
// Merging tensors in memory by a method and its parameters: the same program of stages, pieces and kernels as a streamed
// merge, so the same bytes.
#pragma once
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "merge/plan.h"
#include "runtime/context.h"
#include "runtime/device.h"

namespace chorus::merge {

// What a spec without a recipe says.
struct MemorySettings {
  std::string method;
  std::map<std::string, double> parameters;                        // of all models
  std::map<std::string, std::map<size_t, double>> model_parameters;  // by parameter, then model
  uint64_t seed = 0, memory = kDefaultMemory;
  chorus_merge_numerics numerics = CHORUS_NUMERICS_ACCURATE;
};

class MemoryMerger {
 public:
  // Fails INVALID_ARGUMENT for an unknown method or parameter (naming the nearest), a value out of its range, a required
  // parameter that is missing.
  MemoryMerger(std::shared_ptr<const Context> context, const MemorySettings &settings, const char *device);

  struct Call {
    const char *name;  // of the tensor: the key of random choices
    const chorus_tensor *const *models;
    size_t count;
    const chorus_tensor *base;  // NULL: none; for a method that needs one the models are then task vectors
    const chorus_tensor *out;
  };
  uint64_t workspace_bytes(const Call &call) const;
  void merge(const Call &call, const chorus_exec *exec) const;

 private:
  struct Prepared;
  void prepare(const Call &call, Prepared *out) const;
  void check_settings() const;
  Settings settings_for(const Call &call, size_t inputs, bool has_base, bool base_is_input, const std::vector<int64_t> &shape) const;
  double value_of(const Parameter &parameter, size_t model) const;

  std::shared_ptr<const Context> context_;
  MemorySettings settings_;
  const Method *method_;
  DevicePtr device_;
};

}  // namespace chorus::merge
