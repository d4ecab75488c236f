// SPDX-License-Identifier: Apache-2.0
// weights.h: checks, then combine/weights row by row.
#include "chorus/weights.h"

#include <cmath>

#include "abi/boundary.h"
#include "combine/weights.h"

using chorus::fail;
using chorus::abi::guarded;
using chorus::abi::require;

namespace cb = chorus::combine;

namespace {

void check_counts(int64_t rows, int32_t n_models) {
  if (rows < 0) fail(CHORUS_INVALID_ARGUMENT, "rows is {}; 0 and above are allowed", rows);
  if (n_models < 1) fail(CHORUS_INVALID_ARGUMENT, "n_models is {}; at least 1 is needed", n_models);
}

void check_prior(int32_t n_models, const double *prior) {
  if (prior == nullptr) return;
  double sum = 0;
  for (int32_t i = 0; i < n_models; ++i) {
    if (!(prior[i] >= 0) || std::isinf(prior[i])) fail(CHORUS_INVALID_ARGUMENT, "prior has {} at {}; finite and >= 0 is needed", prior[i], i);
    sum += prior[i];
  }
  if (sum == 0) fail(CHORUS_INVALID_ARGUMENT, "prior is 0 everywhere; some model must have a share");
}

}  // namespace

extern "C" {

chorus_status chorus_posterior_start(int64_t rows, int32_t n_models, const double *prior, double *state, chorus_error **error) {
  return guarded(error, [&] {
    check_counts(rows, n_models);
    check_prior(n_models, prior);
    if (rows > 0) require(state, "state");
    for (int64_t i = 0; i < rows * n_models; ++i) state[i] = prior != nullptr ? std::log(prior[i % n_models]) : 0.0;
  });
}

chorus_status chorus_posterior_update(int64_t rows, int32_t n_models, int64_t n_tokens, const float *log_probs, double keep,
                                      double *state, float *out_weights, chorus_error **error) {
  return guarded(error, [&] {
    check_counts(rows, n_models);
    if (n_tokens < 0) fail(CHORUS_INVALID_ARGUMENT, "n_tokens is {}; 0 and above are allowed", n_tokens);
    if (!(keep > 0 && keep <= 1)) fail(CHORUS_INVALID_ARGUMENT, "keep is {}; above 0, at most 1 is needed", keep);
    if (rows > 0) require(state, "state");
    if (rows * n_tokens > 0) require(log_probs, "log_probs");
    for (int64_t i = 0; i < rows * n_tokens * n_models; ++i) {
      if (log_probs[i] > 0) fail(CHORUS_INVALID_ARGUMENT, "log_probs has {} at {}; log-probs are at most 0", log_probs[i], i);
    }
    for (int64_t row = 0; row < rows; ++row) {
      double *own = state + row * n_models;
      for (int64_t j = 0; j < n_tokens; ++j)
        cb::add_evidence(n_models, log_probs + (row * n_tokens + j) * n_models, keep, own);
      if (out_weights != nullptr) cb::weights_of_evidence(n_models, own, out_weights + row * n_models);
    }
  });
}

chorus_status chorus_confidence_weights(int64_t rows, int32_t n_models, chorus_confidence kind, double strength,
                                        const float *diagnostics, const double *prior, float *out_weights,
                                        chorus_error **error) {
  return guarded(error, [&] {
    check_counts(rows, n_models);
    if (kind < CHORUS_CONFIDENCE_ENTROPY || kind > CHORUS_CONFIDENCE_BEST)
      fail(CHORUS_INVALID_ARGUMENT, "kind is {}; entropy (0), highest probability (1) and best (2) are known", kind);
    if (!(strength >= 0) || std::isinf(strength)) fail(CHORUS_INVALID_ARGUMENT, "strength is {}; finite and >= 0 is needed", strength);
    check_prior(n_models, prior);
    if (rows > 0) {
      require(diagnostics, "diagnostics");
      require(out_weights, "out_weights");
    }
    for (int64_t row = 0; row < rows; ++row)
      cb::weights_of_confidence(n_models, kind, strength, diagnostics + row * (3 + 2 * int64_t{n_models}), prior,
                                out_weights + row * n_models);
  });
}

}  // extern "C"
