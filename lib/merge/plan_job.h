// SPDX-License-Identifier: Apache-2.0
// From a placement to a job: settings of the recipe, the method's program, shapes and dtypes checked.
#pragma once
#include <optional>

#include "merge/plan.h"

namespace chorus::merge {

class JobMaker {
 public:
  JobMaker(const Recipe &recipe, uint64_t seed, chorus_merge_numerics numerics, Diagnostics *diagnostics)
      : recipe_(recipe), seed_(seed), numerics_(numerics), diagnostics_(diagnostics) {}

  // Nothing where the output has no such tensor, or an error was found.
  std::optional<Job> make(const Placement &placement);
  // How many more tensors than those named are wrong.
  void report_rest();

 private:
  std::optional<Settings> settings_of(const Placement &placement, const std::vector<int64_t> &shape);
  std::optional<double> value_of(const Parameter &parameter, const Placement &placement, const Group::Member *member,
                                 const std::string &name) const;
  void fill_tied_heads(Placement *placement) const;
  bool is_dropped(const Placement &placement);
  bool is_complete(const Placement &placement, const std::vector<bool> &is_read);
  bool has_one_shape(const Placement &placement, const Job &job);
  // The format of the rounding chain: mergekit casts every tensor to it. 0 with accurate numerics.
  chorus_dtype work_of(const Placement &placement) const;
  bool choose_types(const Placement &placement, Job *job);
  void choose_kind(Job *job) const;

  const Recipe &recipe_;
  const uint64_t seed_;
  const chorus_merge_numerics numerics_;
  Diagnostics *diagnostics_;
  size_t missing_ = 0, mismatched_ = 0;
  std::vector<std::string> warned_;  // reported once, not for each tensor
};

}  // namespace chorus::merge
