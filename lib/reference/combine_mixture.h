// SPDX-License-Identifier: Apache-2.0
// A row of combine.rows: the models that count and the rule that joins them, with the questions outputs ask.
#pragma once
#include "reference/combine_model.h"

namespace chorus::reference {

struct Mixture {
  chorus_combine_rule rule;
  int64_t n_tokens;
  int32_t status = CHORUS_ROW_OK;  // CHORUS_ROW_* bits
  int count = 0;                   // of the models that count
  ModelRow models[CHORUS_COMBINE_MAX_MODELS];
  // Set by prepare_log_probs().
  double log_weights[CHORUS_COMBINE_MAX_MODELS];  // linear
  double top, log_sum;                            // log-linear: highest sum of terms, log sum exp(t - top)
  float factors[CHORUS_COMBINE_MAX_MODELS];       // linear, of prepare_keys()
};

// Scans the models, drops the empty ones, and sets the status. False: the row has no distribution.
bool scan(Mixture &mix);

// Readies log_prob(). Cost: one f64 exponential per model and token, one more per token when log-linear.
void prepare_log_probs(Mixture &mix);

// Log-prob of token v under the mixture; -inf outside its support.
double log_prob(const Mixture &mix, int64_t v);

// Readies key(): what choices compare; -inf (linear: 0) outside the support. Linear: sum of factor * exp(...), a probability
// up to a factor of the row.
void prepare_keys(Mixture &mix);
float key(const Mixture &mix, int64_t v);

// The most probable token by the exact keys, lowest id among equals; -1 where the support is empty.
int64_t argmax(Mixture &mix);

// The token that `d` draws; -1 where the support is empty.
int64_t sample(Mixture &mix, const Draw &d);

}  // namespace chorus::reference
