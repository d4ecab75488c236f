/* SPDX-License-Identifier: Apache-2.0
 *
 * Settings of a combiner beyond the plain mixture: parameters of the rules, what happens to a model's scores before they are
 * combined, maps between vocabularies, and what follows the rule. Order of operations: per model [kind -> n_valid, mask, bias
 * -> temperature -> normalise -> top-k, top-p, plausibility -> map -> missing], then the rule, then [temperature -> penalties ->
 * top-k -> top-p -> min-p -> typical], then the outputs. Meaning of each: docs/numerics.md, "Combining" and "After combining".
 *
 * `model` is an index that chorus_combiner_spec_add_model() gave; an unknown one is INVALID_ARGUMENT. All return CHORUS_OK or
 * CHORUS_INVALID_ARGUMENT, naming the argument. What the device's kernels lack is computed by `reference` on host devices
 * (said once in the log; option fallback=error refuses).
 */
#ifndef CHORUS_COMBINE_OPTIONS_H_
#define CHORUS_COMBINE_OPTIONS_H_

#include "combine.h"
#include "vocabulary.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Rules -------------------------------------------------------------------------------- */

/** Order r of CHORUS_COMBINE_HOLDER: any number but NaN. 1 is linear, 0 the weighted geometric mean, +-inf max and min.
 * @since 0.1 */
CHORUS_API chorus_status chorus_combiner_spec_set_order(chorus_combiner_spec *spec, double order, chorus_error **error);

/** CHORUS_COMBINE_TRIMMED_MEAN leaves out the `trim` highest and lowest probabilities of a token; >= 0, and some model must be left.
 * @since 0.1 */
CHORUS_API chorus_status chorus_combiner_spec_set_trim(chorus_combiner_spec *spec, int32_t trim, chorus_error **error);

/** CHORUS_COMBINE_RANK_VOTE and _CONDORCET look at the `k` best tokens of each model; >= 1 (default 10). Rank j from 0 gives
 * weight * (k - j) points. @since 0.1 */
CHORUS_API chorus_status chorus_combiner_spec_set_vote_size(chorus_combiner_spec *spec, int32_t k, chorus_error **error);

/** The filters of `model` decide which tokens the combination has, under every rule; they then remove nothing from the model
 * itself. -1 (default): each filter removes tokens from its own model. A row whose weight of it is 0 is BAD_WEIGHT.
 * @since 0.1 */
CHORUS_API chorus_status chorus_combiner_spec_set_base_model(chorus_combiner_spec *spec, int32_t model, chorus_error **error);

/** One more model that is a list of (token, score) per row, as retrieval gives it (kNN-LM): scores are normalised over the list, a
 * token that occurs often adds up. Its weight is `weight`, or the last column of a weights tensor, which then has N + 1. With
 * negated distances as scores and kind LOGITS, p = (1 - lambda) p_lm + lambda p_knn has the weights 1 - lambda and lambda.
 * @since 0.1 */
CHORUS_API chorus_status chorus_combiner_spec_set_neighbours(chorus_combiner_spec *spec, chorus_score_kind kind, double weight,
                                                             chorus_error **error);

/* ---- Before combining ---------------------------------------------------------------------- */

/** What is kept of a model: its `top_k` best tokens (0: all), then the fewest best whose mass reaches `top_p` (0 or 1: all), then those
 * with p >= `plausibility` * max p (0: all); renormalised. Equal ones: lowest id first. @since 0.1 */
CHORUS_API chorus_status chorus_combiner_spec_set_model_filter(chorus_combiner_spec *spec, int32_t model, int64_t top_k,
                                                               double top_p, double plausibility, chorus_error **error);

/** 1: calls bring `biases[model]`, added to the scores on the logarithmic scale. @since 0.1 */
CHORUS_API chorus_status chorus_combiner_spec_set_model_bias(chorus_combiner_spec *spec, int32_t model, int32_t has_bias,
                                                             chorus_error **error);

/** 1: calls bring `masks[model]`, a bit per token; tokens whose bit is 0 count as -inf, whatever their scores. @since 0.1 */
CHORUS_API chorus_status chorus_combiner_spec_set_model_mask(chorus_combiner_spec *spec, int32_t model, int32_t has_mask,
                                                             chorus_error **error);

/** The model's tokens in the output vocabulary; the map is copied. Its `to` has as many tokens as the vocabulary size.
 * @return CHORUS_OK; CHORUS_INVALID_ARGUMENT: an id of the map is outside the model's n_logits. @since 0.1 */
CHORUS_API chorus_status chorus_combiner_spec_set_model_map(chorus_combiner_spec *spec, int32_t model,
                                                            const chorus_vocabulary_map *map, chorus_error **error);

/** The same from arrays, with an optional factor per entry: p'[u] = sum of values[j] p[ids[j]], offsets[u] <= j < offsets[u + 1], in this
 * order. @param offsets [n_tokens + 1] from 0, never falling. @param ids [offsets[n_tokens]] of the model. @param values NULL: 1;
 * else finite and >= 0. @since 0.1 */
CHORUS_API chorus_status chorus_combiner_spec_set_model_map_arrays(chorus_combiner_spec *spec, int32_t model, int64_t n_tokens,
                                                                   const int64_t *offsets, const int32_t *ids,
                                                                   const float *values, chorus_error **error);

/** What a token counts as that the model's vocabulary lacks (no entry in the map; without a map ids >= n_valid): CHORUS_MISSING_*.
 * @param unknown_id  Of the UNKNOWN policies: an id of the model. @param log_prob  Of FLOOR: <= 0. @since 0.1 */
CHORUS_API chorus_status chorus_combiner_spec_set_model_missing(chorus_combiner_spec *spec, int32_t model,
                                                                chorus_combine_missing policy, int32_t unknown_id,
                                                                double log_prob, chorus_error **error);

/** Which vocabulary the model's ids belong to (chorus_vocabulary_get_fingerprint()). Models without a map whose fingerprints
 * differ are refused by chorus_combiner_create(): the same id would not be the same token. @since 0.1 */
CHORUS_API chorus_status chorus_combiner_spec_set_model_fingerprint(chorus_combiner_spec *spec, int32_t model, uint64_t low,
                                                                    uint64_t high, chorus_error **error);

/* ---- After combining ----------------------------------------------------------------------- */

/** Divides the combined log-probs; finite, >= 0; 0 keeps the best token alone (lowest id). Default 1. @since 0.1 */
CHORUS_API chorus_status chorus_combiner_spec_set_temperature(chorus_combiner_spec *spec, double temperature, chorus_error **error);

/** Keeps exactly the `k` best tokens, lowest id first among equals; 0 (default): all. @since 0.1 */
CHORUS_API chorus_status chorus_combiner_spec_set_top_k(chorus_combiner_spec *spec, int64_t k, chorus_error **error);

/** Keeps the fewest best tokens whose mass reaches `p`, at least one; 0 or 1: all. @since 0.1 */
CHORUS_API chorus_status chorus_combiner_spec_set_top_p(chorus_combiner_spec *spec, double p, chorus_error **error);

/** Keeps tokens of at least `p` times the best one's probability; 0: all. @since 0.1 */
CHORUS_API chorus_status chorus_combiner_spec_set_min_p(chorus_combiner_spec *spec, double p, chorus_error **error);

/** Keeps the fewest tokens of mass `p` whose surprise is nearest the entropy (locally typical sampling); 0 or 1: all.
 * @since 0.1 */
CHORUS_API chorus_status chorus_combiner_spec_set_typical_p(chorus_combiner_spec *spec, double p, chorus_error **error);

/** 1: calls bring `penalties` and the tokens each row has seen. They act on the combined scores: sum w_i s_i / T_i of raw scores for
 * the log-linear rule, log-probs for the others. Repetition r > 0 divides positive and multiplies negative scores of seen tokens (1:
 * none), then presence and frequency times the count are subtracted. @since 0.1 */
CHORUS_API chorus_status chorus_combiner_spec_set_penalties(chorus_combiner_spec *spec, int32_t has_penalties,
                                                            chorus_error **error);

/** Tokens of the outputs `top_ids` and `top_log_probs`, >= 1. @since 0.1 */
CHORUS_API chorus_status chorus_combiner_spec_set_top_size(chorus_combiner_spec *spec, int32_t n_top, chorus_error **error);

/* generated by tests/abi/layout.py: begin */
/* generated by tests/abi/layout.py: end */

#ifdef __cplusplus
} /* extern "C" */
#endif
#endif /* CHORUS_COMBINE_OPTIONS_H_ */
