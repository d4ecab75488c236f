/* SPDX-License-Identifier: Apache-2.0
 *
 * The combiner: mixes the next-token distributions of N models and writes any subset of: log-probs of all tokens, best
 * token, sampled token with its exact log-prob, log-probs of given tokens, a status per row.
 *
 * Order of operations: per model [kind -> tokens >= n_valid are -inf -> temperature -> normalise], then the rule.
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

/** New spec: rule linear, no models, up to 1 row per call, all outputs.
 * @return CHORUS_OK; CHORUS_INVALID_ARGUMENT: `out_spec` NULL; CHORUS_RESOURCE_EXHAUSTED. @since 0.1 */
CHORUS_API chorus_status chorus_combiner_spec_create(chorus_combiner_spec **out_spec, chorus_error **error);
CHORUS_API void chorus_combiner_spec_destroy(chorus_combiner_spec *spec);

/** How models are combined: CHORUS_COMBINE_LINEAR, p = sum w_i p_i / sum w_i with w_i >= 0, or CHORUS_COMBINE_LOG_LINEAR,
 * log p = sum w_i log p_i - log Z with any real w_i (negative: evidence against).
 * @return CHORUS_OK; CHORUS_INVALID_ARGUMENT: unknown rule. Rules that no backend computes yet are refused by
 *         chorus_combiner_create() as CHORUS_UNIMPLEMENTED. @since 0.1 */
CHORUS_API chorus_status chorus_combiner_spec_set_rule(chorus_combiner_spec *spec, chorus_combine_rule rule,
                                                       chorus_error **error);

/** Size V of the output vocabulary, 1 to 2^31 - 1. Default: the largest n_valid of the models. Models share token ids; one
 * with n_valid < V lacks the tokens from n_valid on. @since 0.1 */
CHORUS_API chorus_status chorus_combiner_spec_set_vocabulary_size(chorus_combiner_spec *spec, int64_t n_tokens,
                                                                  chorus_error **error);

/** Most rows a call may bring, >= 1. @since 0.1 */
CHORUS_API chorus_status chorus_combiner_spec_set_max_rows(chorus_combiner_spec *spec, int64_t max_rows,
                                                           chorus_error **error);

/** Outputs calls may ask for: CHORUS_COMBINE_OUT_* bits. Fewer bits may allow a faster kernel. @since 0.1 */
CHORUS_API chorus_status chorus_combiner_spec_set_outputs(chorus_combiner_spec *spec, uint32_t outputs,
                                                          chorus_error **error);

/** Data type of the log-prob row: CHORUS_F32 (default), CHORUS_F16 or CHORUS_BF16. @since 0.1 */
CHORUS_API chorus_status chorus_combiner_spec_set_log_probs_dtype(chorus_combiner_spec *spec, chorus_dtype dtype,
                                                                  chorus_error **error);

/** 1: the weights tensor of a call is [rows, N], one set per row; 0 (default): [N]. @since 0.1 */
CHORUS_API chorus_status chorus_combiner_spec_set_weights_per_row(chorus_combiner_spec *spec, int32_t per_row,
                                                                  chorus_error **error);

/** Adds a model; the order of adding is the order of the score tensors and of the sums.
 *
 * @param kind      CHORUS_SCORES_LOGITS, _LOG_PROBS or _PROBS (natural logarithms; the latter two are normalised again).
 * @param dtype     of the scores: CHORUS_F32, CHORUS_F16, CHORUS_BF16.
 * @param n_logits  Row length of the score tensor, padding included; >= 1.
 * @param n_valid   Tokens that exist, 1 to n_logits; later entries of a row are never read.
 * @param weight    Default weight, finite, for linear >= 0. Exactly 0: the model is never read and its scores may be NULL.
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
  const chorus_tensor *tokens;        /**< i32 or i64 [B, n], tokens to score; needed with `token_log_probs`. */
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
#define CHORUS_COMBINE_IN_INIT {CHORUS_END_OF(chorus_combine_in, tokens), 0, NULL, NULL, NULL, NULL, NULL, 0, 0, NULL}
#define CHORUS_COMBINE_OUT_INIT {CHORUS_END_OF(chorus_combine_out, status), NULL, NULL, NULL, NULL, NULL, NULL, NULL}
/* generated by tests/abi/layout.py: end */

#ifdef __cplusplus
} /* extern "C" */
#endif
#endif /* CHORUS_COMBINE_H_ */
