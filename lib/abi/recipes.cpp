// SPDX-License-Identifier: Apache-2.0
// recipes.h: each recipe's numbers, given to combine/recipes.
#include "chorus/recipes.h"

#include "abi/boundary.h"
#include "abi/combine.h"
#include "combine/recipes.h"

using chorus::abi::guarded;
using chorus::abi::require;

namespace cb = chorus::combine;

namespace {

cb::Spec *spec_of(chorus_combiner_spec *spec) { return &require(spec, "spec")->spec; }

}  // namespace

extern "C" {

chorus_status chorus_combiner_spec_use_dexperts(chorus_combiner_spec *spec, double alpha, double top_p, chorus_error **error) {
  return guarded(error, [&] {
    cb::checked_strength(alpha, "alpha");
    cb::checked_share(top_p, "top_p");
    cb::apply({"DExperts", CHORUS_COMBINE_LOG_LINEAR, {1, alpha, -alpha}, top_p == 1 ? 0 : top_p, 0}, spec_of(spec));
  });
}

chorus_status chorus_combiner_spec_use_proxy_tuning(chorus_combiner_spec *spec, double alpha, chorus_error **error) {
  return guarded(error, [&] {
    cb::checked_strength(alpha, "alpha");
    cb::apply({"proxy tuning", CHORUS_COMBINE_LOG_LINEAR, {1, alpha, -alpha}}, spec_of(spec));
  });
}

chorus_status chorus_combiner_spec_use_contrastive_2022(chorus_combiner_spec *spec, double beta, double alpha,
                                                        chorus_error **error) {
  return guarded(error, [&] {
    cb::checked_strength(beta, "beta");
    cb::checked_share(alpha, "alpha");
    cb::apply({"contrastive decoding", CHORUS_COMBINE_LOG_LINEAR, {1, -beta}, 0, alpha}, spec_of(spec));
  });
}

chorus_status chorus_combiner_spec_use_contrastive_2023(chorus_combiner_spec *spec, double beta, double alpha,
                                                        chorus_error **error) {
  return guarded(error, [&] {
    cb::checked_strength(beta, "beta");
    cb::checked_share(alpha, "alpha");
    cb::apply({"contrastive decoding", CHORUS_COMBINE_LOG_LINEAR, {1 + beta, -beta}, 0, alpha}, spec_of(spec));
  });
}

chorus_status chorus_combiner_spec_use_guidance(chorus_combiner_spec *spec, double gamma, chorus_error **error) {
  return guarded(error, [&] {
    cb::checked_strength(gamma, "gamma");
    cb::apply({"guidance", CHORUS_COMBINE_LOG_LINEAR, {gamma, 1 - gamma}}, spec_of(spec));
  });
}

chorus_status chorus_combiner_spec_use_context_aware(chorus_combiner_spec *spec, double alpha, chorus_error **error) {
  return guarded(error, [&] {
    cb::checked_strength(alpha, "alpha");
    cb::apply({"context-aware decoding", CHORUS_COMBINE_LOG_LINEAR, {1 + alpha, -alpha}}, spec_of(spec));
  });
}

chorus_status chorus_combiner_spec_use_evidence(chorus_combiner_spec *spec, double beta, chorus_error **error) {
  return guarded(error, [&] {
    cb::checked_strength(beta, "beta");
    cb::apply({"core + positive - negative", CHORUS_COMBINE_LOG_LINEAR, {1, beta, -beta}}, spec_of(spec));
  });
}

chorus_status chorus_combiner_spec_use_neighbours(chorus_combiner_spec *spec, double lambda, chorus_error **error) {
  return guarded(error, [&] {
    if (!(lambda >= 0 && lambda <= 1)) chorus::fail(CHORUS_INVALID_ARGUMENT, "lambda is {}; 0 to 1 is allowed", lambda);
    cb::apply({"kNN-LM", CHORUS_COMBINE_LINEAR, {1 - lambda}}, spec_of(spec));
    spec->spec.has_neighbours = true;
    spec->spec.neighbours_kind = CHORUS_SCORES_LOGITS;
    spec->spec.neighbours_weight = lambda;
  });
}

chorus_status chorus_combiner_spec_use_shallow_fusion(chorus_combiner_spec *spec, double beta, chorus_error **error) {
  return guarded(error, [&] {
    cb::checked_strength(beta, "beta");
    cb::apply({"shallow fusion", CHORUS_COMBINE_UNNORMALISED, {1, beta}}, spec_of(spec));
  });
}

}  // extern "C"
