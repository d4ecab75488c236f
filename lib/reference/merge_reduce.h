// SPDX-License-Identifier: Apache-2.0
// What the statistics of merge.reduce share: the prepared state, and a walk over a piece that tells, element by element,
// the operands and which of them satisfy the predicate.
#pragma once
#include "reference/merge_sparsify.h"

namespace chorus::reference {

struct ReduceState {
  const chorus_host *host;
  Operands operands;
  chorus_merge_reduce_desc desc;  // input_dtypes is in operands
};

// The operands of one element, 0 where absent. values[n_inputs] is the base.
struct Terms {
  double values[CHORUS_MERGE_MAX_INPUTS + 1];
  bool satisfied[CHORUS_MERGE_MAX_INPUTS + 1];  // present, and the predicate holds; of the base always
};

class Walk {
 public:
  Walk(const ReduceState &state, const chorus_merge_reduce_args &args, void *memory);
  const Groups &groups() const { return groups_; }
  void begin_group(uint64_t group);
  // Elements of the group at hand, each once and in order: cuts count their ties.
  void element(uint64_t j, Terms *out);

 private:
  void load(uint64_t at, double *deltas, bool *present, double *base) const;
  bool holds(int32_t i, double operand) const;

  const ReduceState &state_;
  const chorus_merge_reduce_args &args_;
  Groups groups_;
  Sparsifier sparsifier_;
  uint64_t group_ = 0;
};

// Bytes of workspace a walk needs.
uint64_t walk_bytes(const ReduceState &state, const chorus_merge_reduce_args &args);

// One per family of statistics; `memory` is the rest of the workspace.
void reduce_sums(const ReduceState &state, const chorus_merge_reduce_args &args, Walk *walk, void *memory);
uint64_t sums_bytes(const ReduceState &state);
void reduce_counts(const ReduceState &state, const chorus_merge_reduce_args &args, Walk *walk);

}  // namespace chorus::reference
