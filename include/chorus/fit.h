/* SPDX-License-Identifier: Apache-2.0
 *
 * Weights from data: the weights of a mixture that make given texts most likely, with their uncertainty.
 *
 * A fit is fed the tokens of a text, in any number of batches, and iterates. Both objectives are concave, so what it finds
 * is the global optimum. Sums follow the order of docs/numerics.md, "Reductions", over tokens counted from the first: the
 * result is the same, to the bit, for any split into batches and any number of threads.
 *
 *   linear      L(w) = mean log sum_i w_i p_i(gold)      w >= 0, sum w = 1   (SRILM's compute-best-mix)
 *   log-linear  L(w) = mean log p_w(gold), p_w ~ prod p_i^w_i   any real w   (KenLM's interpolate)
 *
 * A log-linear fit of one model fits its temperature: T = 1 / w.
 */
#ifndef CHORUS_FIT_H_
#define CHORUS_FIT_H_

#include "context.h"
#include "plugin.h"

#ifdef __cplusplus
extern "C" {
#endif

/** A fit in progress. Not const: the caller serialises calls on it. */
typedef struct chorus_fit chorus_fit;

typedef struct chorus_fit_options {
  size_t struct_size;        /**< CHORUS_FIT_OPTIONS_INIT sets it. */
  chorus_combine_rule rule;  /**< CHORUS_COMBINE_LINEAR or CHORUS_COMBINE_LOG_LINEAR. */
  int32_t n_models;          /**< N, 1 to CHORUS_COMBINE_MAX_MODELS. */
  int32_t max_iterations;    /**< 0: 1000. */
  int32_t reserved;          /**< 0. */
  double tolerance;          /**< Stops when the optimum is at most this much better, nats per token. 0: 1e-9. */
  double ridge;              /**< Log-linear: L(w) - ridge/2 |w|^2 is maximised, so that identical models share their weight
                                  and a text that is always the best token does not send w to infinity. 0: 1e-9. */
  const double *initial_weights; /**< [N], linear: positive; NULL: 1/N each. */
} chorus_fit_options;

/** New fit. `options` is copied.
 * @return CHORUS_OK; CHORUS_INVALID_ARGUMENT: names the option; CHORUS_UNIMPLEMENTED: another rule. @since 0.1 */
CHORUS_API chorus_status chorus_fit_create(const chorus_context *context, const chorus_fit_options *options,
                                           chorus_fit **out_fit, chorus_error **error);
CHORUS_API void chorus_fit_destroy(chorus_fit *fit);

/** Tokens and what the models said of them; host memory. One of three kinds:
 *  - `token_log_probs` alone: linear;
 *  - `scores` and `tokens`: either rule;
 *  - `token_log_probs`, `combined_log_probs` and `gradient_sums`, as combine.rows gives them at the weights
 *    chorus_fit_get_point() tells: log-linear. */
typedef struct chorus_fit_batch {
  size_t struct_size;                      /**< CHORUS_FIT_BATCH_INIT sets it. */
  int64_t rows;                            /**< Tokens of the batch. */
  const chorus_tensor *token_log_probs;    /**< f32 or f64 [rows, N]: log p_i(gold). */
  const chorus_tensor *const *scores;      /**< N tensors f64, f32, f16 or bf16 [rows, n_i]: logits or log-probs. */
  const chorus_tensor *tokens;             /**< i32 or i64 [rows]: the gold tokens. */
  int64_t n_valid;                         /**< Tokens of the vocabulary; later entries of score rows are not read. 0: the
                                                shortest row. */
  const chorus_tensor *combined_log_probs; /**< f32 or f64 [rows]: log p_w(gold). */
  const chorus_tensor *gradient_sums;      /**< f64 [rows, N + N(N+1)/2]: E_w[l_i]; Cov_w(l_i, l_j), i <= j, row by row. */
  int32_t held_out;                        /**< 1: only measured, not fitted. */
  int32_t reserved;
} chorus_fit_batch;

/** Add a batch. Linear: the N gold log-probs of each token are kept (8 N bytes per token). Log-linear: nothing is kept;
 * each pass (see chorus_fit_step()) brings the same tokens again, in the same order.
 *
 * A token that no model gives probability (linear), or that some model gives none (log-linear), is left out and counted;
 * in a log-linear fit other tokens of zero probability in some model leave the support of that row too, whatever the signs
 * of the weights, which keeps the objective concave. A token is also left out when a model's whole row is empty.
 * @return CHORUS_OK; CHORUS_INVALID_ARGUMENT: names the field; a NaN or +inf score, a gold token outside the vocabulary,
 *         with the row; the batch then counts nothing; CHORUS_FAILED_PRECONDITION: the fit is done.
 * Cost: log-linear with scores: N + 1 exponentials per token of the vocabulary. @since 0.1 */
CHORUS_API chorus_status chorus_fit_add(chorus_fit *fit, const chorus_fit_batch *batch, chorus_error **error);

/** Ends a pass over the data. Linear: one pass is enough, and the fit is done. Log-linear: one evaluation of a damped Newton
 * iteration with backtracking; while `*out_done` is 0, add the data again and step again.
 * @return CHORUS_OK; CHORUS_INVALID_ARGUMENT: no token that counts was added; CHORUS_FAILED_PRECONDITION: this pass had other
 *         tokens than the first, or the fit is done. @since 0.1 */
CHORUS_API chorus_status chorus_fit_step(chorus_fit *fit, int32_t *out_done, chorus_error **error);

/** The N weights at which this pass is evaluated: those combine.rows needs for `gradient_sums`. Lent until the next step. NULL for
 * NULL. @since 0.1 */
CHORUS_API const double *chorus_fit_get_point(const chorus_fit *fit);

typedef int32_t chorus_fit_status;
#define CHORUS_FIT_RUNNING 0        /**< Not done: the result is the best point so far. */
#define CHORUS_FIT_CONVERGED 1      /**< Within `tolerance` of the optimum. */
#define CHORUS_FIT_MAX_ITERATIONS 2 /**< Ran out of iterations. */
#define CHORUS_FIT_STALLED 3        /**< No step improves any more: the limit of the arithmetic (or of f32 statistics). */

#define CHORUS_FIT_AT_BOUND 1u       /**< This linear weight is 0 at the optimum; it has no standard error (0). */
#define CHORUS_FIT_NOT_IDENTIFIED 2u /**< The data do not tell this weight from others (identical models): error +inf. */

/** What a fit found; arrays are lent until the next call on the fit. */
typedef struct chorus_fit_result {
  size_t struct_size;       /**< CHORUS_FIT_RESULT_INIT sets it. */
  chorus_fit_status status; /**< CHORUS_FIT_*. */
  int32_t n_models;
  int32_t iterations;       /**< EM and Newton steps taken. */
  int32_t reserved;
  int64_t tokens;           /**< That count. */
  int64_t zero_tokens;      /**< Left out. */
  int64_t held_out_tokens;
  int64_t held_out_zero_tokens;
  double log_likelihood;          /**< Nats per token at `weights`, without the ridge. */
  double held_out_log_likelihood; /**< NaN without held-out tokens. */
  double gap;                     /**< Linear: a proven bound on what the optimum is better, nats per token, max_i g_i - 1.
                                       Log-linear: its estimate by half the Newton decrement. */
  const double *weights;          /**< [N] */
  const double *standard_errors;  /**< [N] from the observed information: weight +- 1.96 of them is the 95 % interval. */
  const double *model_log_likelihoods; /**< [N] nats per token of each model alone (-inf where it gives some token none). */
  const uint32_t *flags;               /**< [N] CHORUS_FIT_AT_BOUND, CHORUS_FIT_NOT_IDENTIFIED. */
} chorus_fit_result;

/** The result so far. `out_result->struct_size` must be set.
 * @return CHORUS_OK; CHORUS_FAILED_PRECONDITION: no step was taken yet; CHORUS_INVALID_ARGUMENT. @since 0.1 */
CHORUS_API chorus_status chorus_fit_get_result(chorus_fit *fit, chorus_fit_result *out_result, chorus_error **error);

/* generated by tests/abi/layout.py: begin */
#define CHORUS_FIT_OPTIONS_INIT {CHORUS_END_OF(chorus_fit_options, initial_weights), 0, 0, 0, 0, 0, 0, NULL}
#define CHORUS_FIT_BATCH_INIT {CHORUS_END_OF(chorus_fit_batch, reserved), 0, NULL, NULL, NULL, 0, NULL, NULL, 0, 0}
#define CHORUS_FIT_RESULT_INIT {CHORUS_END_OF(chorus_fit_result, flags), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, NULL, NULL, NULL, NULL}
/* generated by tests/abi/layout.py: end */

#ifdef __cplusplus
} /* extern "C" */
#endif
#endif /* CHORUS_FIT_H_ */
