// SPDX-License-Identifier: Apache-2.0
// A row of logits as log-probs in double precision: what the host-side parts (fits, diagnoses, byte marginals) start from.
#pragma once
#include <cstdint>

#include "chorus/types.h"

namespace chorus::combine {

enum class RowState {
  kRegular,
  kInfinite,  // +inf scores: they share the mass equally
  kEmpty,     // all -inf: log-probs are all -inf
  kNaN,       // a score is NaN: log-probs are NaN
};

// log_probs[v] = z_v - log sum exp z over v < n_valid, -inf for v in [n_valid, n). The sum is ordered as docs/numerics.md,
// "Reductions". Cost: n_valid exponentials.
RowState normalise_row(const void *scores, chorus_dtype dtype, int64_t n_valid, double *log_probs, int64_t n);

}  // namespace chorus::combine
