// SPDX-License-Identifier: Apache-2.0
// Descriptors of stages and dtypes, and their kernels.
#include "merge/kernels.h"

#include <algorithm>
#include <bit>
#include <initializer_list>

namespace chorus::merge {
namespace {

std::vector<uint64_t> key_of(std::initializer_list<int32_t> fields, double number) {
  std::vector<uint64_t> key(fields.begin(), fields.end());
  key.push_back(std::bit_cast<uint64_t>(number));
  return key;
}

void add_types(const OperandTypes &types, std::vector<uint64_t> *key) {
  key->push_back(types.base);
  key->push_back(types.output);
  key->push_back(types.work);
  key->insert(key->end(), types.inputs.begin(), types.inputs.end());
}

}  // namespace

template <typename Desc>
size_t Kernels::prepare(const char *op, const Key &key, const Desc &desc) {
  const auto known = known_.find(key);
  if (known != known_.end()) return known->second;
  kernels_.push_back(PreparedKernel::prepare(device_, op, &desc));
  known_.emplace(key, kernels_.size() - 1);
  return kernels_.size() - 1;
}

size_t Kernels::reduce(const Reduction &reduction, const OperandTypes &types) {
  chorus_merge_reduce_desc desc = CHORUS_MERGE_REDUCE_DESC_INIT;
  desc.n_inputs = static_cast<int32_t>(types.inputs.size());
  desc.has_base = types.base != 0 ? 1 : 0;
  desc.input_dtypes = types.inputs.data();
  desc.base_dtype = types.base;
  desc.operand = reduction.operand;
  desc.statistic = reduction.statistic;
  desc.predicate = reduction.predicate;
  desc.granularity = reduction.granularity;
  desc.sparsify = reduction.sparsify;
  desc.cut_statistic = reduction.cut_statistic;
  desc.epsilon = reduction.epsilon;
  desc.numerics = types.work != 0 ? CHORUS_NUMERICS_MERGEKIT : CHORUS_NUMERICS_ACCURATE;
  desc.work_dtype = types.work;
  desc.max_elements = max_elements_;
  Key key = key_of({0, reduction.operand, reduction.statistic, reduction.predicate, reduction.granularity, reduction.sparsify,
                    reduction.cut_statistic}, reduction.epsilon);
  add_types(types, &key);
  return prepare(CHORUS_OP_MERGE_REDUCE, key, desc);
}

size_t Kernels::apply(const Stages &stages, const OperandTypes &types) {
  chorus_merge_desc desc = CHORUS_MERGE_DESC_INIT;
  desc.n_inputs = static_cast<int32_t>(types.inputs.size());
  desc.has_base = types.base != 0 ? 1 : 0;
  desc.input_dtypes = types.inputs.data();
  desc.base_dtype = types.base;
  desc.output_dtype = types.output;
  desc.operand = stages.operand;
  desc.granularity = stages.granularity;
  desc.sparsify = stages.sparsify;
  desc.cut_statistic = stages.cut_statistic;
  desc.rescale = stages.rescale;
  desc.consensus = stages.consensus;
  desc.combine = stages.combine;
  desc.divisor_floor = stages.divisor_floor;
  desc.add_base = stages.add_base ? 1 : 0;
  desc.numerics = types.work != 0 ? CHORUS_NUMERICS_MERGEKIT : CHORUS_NUMERICS_ACCURATE;
  desc.work_dtype = types.work;
  desc.max_elements = max_elements_;
  Key key = key_of({1, stages.operand, stages.granularity, stages.sparsify, stages.cut_statistic, stages.rescale, stages.consensus,
                    stages.combine, stages.add_base ? 1 : 0}, stages.divisor_floor);
  add_types(types, &key);
  return prepare(CHORUS_OP_MERGE_APPLY, key, desc);
}

void Kernels::add_host_function(const char *method) {
  const std::string name = std::string("host/") + method;
  if (std::ranges::find(host_functions_, name) == host_functions_.end()) host_functions_.push_back(name);
}

std::vector<std::string> Kernels::names() const {
  std::vector<std::string> out = host_functions_;
  for (const PreparedKernel &kernel : kernels_) {
    if (std::ranges::find(out, kernel.kernel_name()) == out.end()) out.emplace_back(kernel.kernel_name());
  }
  return out;
}

}  // namespace chorus::merge
