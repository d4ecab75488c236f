// SPDX-License-Identifier: Apache-2.0
// Weights of one row from evidence or confidence (chorus/weights.h); all counts and priors checked before.
#pragma once
#include <cstdint>

#include "chorus/weights.h"

namespace chorus::combine {

// state += log_probs of one token; keeps its maximum at 0.
void add_evidence(int32_t n_models, const float *log_probs, double keep, double *state);
void weights_of_evidence(int32_t n_models, const double *state, float *weights);
void weights_of_confidence(int32_t n_models, chorus_confidence kind, double strength, const float *diagnostics,
                           const double *prior, float *weights);

}  // namespace chorus::combine
