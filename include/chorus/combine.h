/* SPDX-License-Identifier: Apache-2.0
 *
 * The combiner: mixes the next-token distributions of N models and writes any subset of: log-probs or probabilities of all
 * tokens, best token, sampled token with its exact log-prob, log-probs of given tokens (combined, and of each model), the k best
 * with the mass of the rest, diagnostics, gradient sums, a status per row.
 *
 * Order of operations: per model [kind -> tokens >= n_valid are -inf -> temperature -> normalise], then the rule. Filters, masks,
 * maps and what follows the rule: combine_options.h. Published recipes by name: recipes.h.
 * Formulas and the meaning of every zero, NaN and infinity: docs/numerics.md, "Combining".
 */
#ifndef CHORUS_COMBINE_H_
#define CHORUS_COMBINE_H_

#include "context.h"
#include "plugin.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Builder of a combiner. */
typedef struct chorus_combiner_spec chorus_combiner_spec;
/** A combiner on a device. Immutable; any thread. */
typedef struct chorus_combiner chorus_combiner;

/** New spec: rule linear, no models, up to 1 row per call, the outputs CHORUS_COMBINE_OUT_LOG_PROBS, _ARGMAX, _SAMPLE,
 * _TOKEN_LOG_PROBS and _STATUS.
 * @return CHORUS_OK; CHORUS_INVALID_ARGUMENT: `out_spec` NULL; CHORUS_RESOURCE_EXHAUSTED. @since 0.1 */
CHORUS_API chorus_status chorus_combiner_spec_create(chorus_combiner_spec **out_spec, chorus_error **error);
CHORUS_API void chorus_combiner_spec_destroy(chorus_combiner_spec *spec);

/** How models are combined: a CHORUS_COMBINE_* rule of plugin.h. CHORUS_COMBINE_LINEAR is p = sum w_i p_i / sum w_i with w_i >= 0,
 * CHORUS_COMBINE_LOG_LINEAR log p = sum w_i log p_i - log Z with any real w_i (negative: evidence against); so are the weights of
 * CHORUS_COMBINE_UNNORMALISED, whose outputs are scores; the others take weights >= 0. Parameters: combine_options.h.
 * @return CHORUS_OK; CHORUS_INVALID_ARGUMENT: unknown rule. @since 0.1 */
CHORUS_API chorus_status chorus_combiner_spec_set_rule(chorus_combiner_spec *spec, chorus_combine_rule rule,
                                                       chorus_error **error);

/** Size V of the output vocabulary, 1 to 2^31 - 1. Default: the rows of a map, else the largest n_valid of the models. Models
 * without a map share token ids; one with n_valid < V lacks the tokens from n_valid on. @since 0.1 */
CHORUS_API chorus_status chorus_combiner_spec_set_vocabulary_size(chorus_combiner_spec *spec, int64_t n_tokens,
                                                                  chorus_error **error);

/** Most rows a call may bring, >= 1. @since 0.1 */
CHORUS_API chorus_status chorus_combiner_spec_set_max_rows(chorus_combiner_spec *spec, int64_t max_rows,
                                                           chorus_error **error);

/** Outputs calls may ask for: CHORUS_COMBINE_OUT_* bits. Fewer bits may allow a faster kernel. @since 0.1 */
CHORUS_API chorus_status chorus_combiner_spec_set_outputs(chorus_combiner_spec *spec, uint32_t outputs,
                                                          chorus_error **error);

/** Data type of the rows of log-probs and probabilities: CHORUS_F32 (default), CHORUS_F16 or CHORUS_BF16. @since 0.1 */
CHORUS_API chorus_status chorus_combiner_spec_set_log_probs_dtype(chorus_combiner_spec *spec, chorus_dtype dtype,
                                                                  chorus_error **error);

/** 1: the weights tensor of a call is [rows, N], one set per row; 0 (default): [N]. With a list of neighbours N + 1.
 * @since 0.1 */
CHORUS_API chorus_status chorus_combiner_spec_set_weights_per_row(chorus_combiner_spec *spec, int32_t per_row,
                                                                  chorus_error **error);

/** Adds a model; the order of adding is the order of the score tensors and of the sums.
 *
 * @param kind      CHORUS_SCORES_LOGITS, _LOG_PROBS or _PROBS (natural logarithms; the latter two are normalised again).
 * @param dtype     of the scores: CHORUS_F32, CHORUS_F16, CHORUS_BF16.
 * @param n_logits  Row length of the score tensor, padding included; >= 1.
 * @param n_valid   Tokens that exist, 1 to n_logits; later entries of a row are never read.
 * @param weight    Default weight, finite, >= 0 but for the log-linear and the unnormalised rule. Exactly 0: the model is never read and its scores may be NULL.
 * @param temperature Default temperature, finite, >= 0; scores are divided by it; 0 is argmax (lowest id wins).
 * @param out_index May be NULL; else receives the model's index.
 * @return CHORUS_OK; CHORUS_INVALID_ARGUMENT: names the argument; CHORUS_RESOURCE_EXHAUSTED: more than
 *         CHORUS_COMBINE_MAX_MODELS models. @since 0.1 */
CHORUS_API chorus_status chorus_combiner_spec_add_model(chorus_combiner_spec *spec, chorus_score_kind kind,
                                                        chorus_dtype dtype, int64_t n_logits, int64_t n_valid,
                                                        double weight, double temperature, int32_t *out_index,
                                                        chorus_error **error);

/** A combiner for `spec` on `device` ("auto", "cpu", "reference", …).
 * @return CHORUS_OK; CHORUS_INVALID_ARGUMENT: no model, all linear weights 0, or models that do not fit V;
 *         CHORUS_NOT_FOUND: no such device; CHORUS_UNIMPLEMENTED: no kernel, with each one's reason; CHORUS_UNAVAILABLE.
 * @since 0.1 */
CHORUS_API chorus_status chorus_combiner_create(const chorus_context *context, const chorus_combiner_spec *spec,
                                                const char *device, chorus_combiner **out_combiner, chorus_error **error);
CHORUS_API void chorus_combiner_destroy(chorus_combiner *combiner);

/** What a call brings. All tensors lie in the combiner's memory space; row strides are free, rows contiguous. */
typedef struct chorus_combine_in {
  size_t struct_size;                 /**< CHORUS_COMBINE_IN_INIT sets it. */
  int64_t rows;                       /**< B, 0 to max_rows. */
  const chorus_tensor *const *scores; /**< N pointers (host memory) to [B, n_logits]; NULL where the weight is 0. */
  const chorus_tensor *weights;       /**< f32 [N] or [B, N]; NULL: the spec's. Checked per row: status BAD_WEIGHT. */
  const chorus_tensor *temperatures;  /**< f32 [N]; NULL: the spec's. */
  const chorus_tensor *row_ids;       /**< i64 [B], keys of the random numbers; NULL: 0, 1, … */
  const chorus_tensor *steps;         /**< i64 [B]; NULL: `step`. */
  uint64_t seed;                      /**< Of the samples: Philox4x32-10 keyed by (seed, row id, step). */
  uint64_t step;
  const chorus_tensor *tokens;        /**< i32 or i64 [B, n], tokens to score; needed with the outputs of tokens. */
  const chorus_tensor *const *biases; /**< N pointers to f32 [n_logits] or [B, n_logits]; those the spec announces, others NULL. */
  const chorus_tensor *const *masks;  /**< N pointers to u32 [B, ceil(n_logits / 32)], bit v % 32 of word v / 32: token v is allowed. */
  const chorus_tensor *history_offsets;    /**< i64 [B + 1]: row b has seen history_ids[offsets[b]] … [offsets[b + 1] - 1]. */
  const chorus_tensor *history_ids;        /**< i32 [any]; ids outside the vocabulary count nowhere. */
  const chorus_tensor *penalties;          /**< f32 [B, 3]: repetition (1: none), presence, frequency (0: none). */
  const chorus_tensor *neighbours_offsets; /**< i64 [B + 1], as history_offsets. */
  const chorus_tensor *neighbours_ids;     /**< i32 [any]; one outside the vocabulary is left out, status BAD_TOKEN. */
  const chorus_tensor *neighbours_scores;  /**< f32 [any]. */
} chorus_combine_in;

/** What a call gives; NULL is not computed. Outputs overlap nothing, but `log_probs` may be exactly the view of model 0's
 * scores (same dtype), which then is overwritten. */
typedef struct chorus_combine_out {
  size_t struct_size;                   /**< CHORUS_COMBINE_OUT_INIT sets it. */
  const chorus_tensor *log_probs;       /**< [B, V], dtype of the spec. */
  const chorus_tensor *argmax;          /**< i32 [B]; -1 where the row has no distribution. */
  const chorus_tensor *argmax_log_prob; /**< f32 [B]. */
  const chorus_tensor *sample;          /**< i32 [B]; -1 where the row has no distribution. */
  const chorus_tensor *sample_log_prob; /**< f32 [B], exact log-prob of the sample under the mixture. */
  const chorus_tensor *token_log_probs; /**< f32 [B, n]. */
  const chorus_tensor *status;          /**< i32 [B], CHORUS_ROW_* bits. */
  const chorus_tensor *probs;           /**< [B, V], dtype of the spec. */
  const chorus_tensor *top_ids;         /**< i32 [B, n_top], best first; -1 past the support. */
  const chorus_tensor *top_log_probs;   /**< f32 [B, n_top]; -inf past the support. */
  const chorus_tensor *tail_log_prob;   /**< f32 [B], mass of all other tokens. */
  const chorus_tensor *diagnostics;     /**< f32 [B, 3 + 2N], of the combination before anything follows it: its entropy, expected
                                             entropy sum l_i H_i, mutual information sum l_i KL(p_i || p), l the positive weights over
                                             their sum; then H_i, then max p_i; 0 for a model that was not read. */
  const chorus_tensor *gradient_sums;   /**< f64 [B, N + N(N+1)/2], likewise: E[log p_i], Cov(log p_i, log p_j), i <= j. */
  const chorus_tensor *model_token_log_probs; /**< f32 [B, n, N]: log p_i of `tokens`; NaN for a model that was not read. */
} chorus_combine_out;

/** Combines `in->rows` rows. A row's result depends on nothing but its own scores, weights and keys.
 *
 * @param exec  NULL: host devices only, workspace from the per-thread cache. Else a workspace of at least
 *              chorus_combiner_get_workspace_size() bytes; the call then allocates nothing.
 * @return CHORUS_OK, also where rows are invalid (see `status`); CHORUS_INVALID_ARGUMENT: shape, dtype, stride, overlap,
 *         device; names the tensor; CHORUS_UNIMPLEMENTED: a dtype or output without kernel;
 *         CHORUS_FAILED_PRECONDITION: workspace too small; states the bytes. Outputs are then untouched.
 * Cost: each score row is read at most three times. @since 0.1 */
CHORUS_API chorus_status chorus_combiner_run(const chorus_combiner *combiner, const chorus_combine_in *in,
                                             const chorus_combine_out *out, const chorus_exec *exec, chorus_error **error);

/** Bytes of workspace for calls of up to `rows` rows with all outputs of the spec.
 * @return CHORUS_OK; CHORUS_INVALID_ARGUMENT. @since 0.1 */
CHORUS_API chorus_status chorus_combiner_get_workspace_size(const chorus_combiner *combiner, int64_t rows,
                                                            uint64_t *out_bytes, chorus_error **error);

/** The kernel in use, "cpu/combine_rows"; lives as long as the combiner. "" for NULL. @since 0.1 */
CHORUS_API const char *chorus_combiner_get_kernel(const chorus_combiner *combiner);

/* generated by tests/abi/layout.py: begin */
#define CHORUS_COMBINE_IN_INIT {CHORUS_END_OF(chorus_combine_in, neighbours_scores), 0, NULL, NULL, NULL, NULL, NULL, 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL}
#define CHORUS_COMBINE_OUT_INIT {CHORUS_END_OF(chorus_combine_out, model_token_log_probs), NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL}
/* generated by tests/abi/layout.py: end */

#ifdef __cplusplus
} /* extern "C" */
#endif
#endif /* CHORUS_COMBINE_H_ */
