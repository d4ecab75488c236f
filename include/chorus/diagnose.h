/* SPDX-License-Identifier: Apache-2.0
 *
 * Diagnostics of ensembles: how unsure the mixture is, how much its models differ, what mixing gains, and whether the
 * probabilities can be believed. All logarithms are natural.
 *
 * Both objects here are accumulators over rows, for host memory; rows come in any batches.
 */
#ifndef CHORUS_DIAGNOSE_H_
#define CHORUS_DIAGNOSE_H_

#include "context.h"
#include "plugin.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Diagnosis: N models, their combination, gold tokens ---------------------------------- */

/** Statistics over rows. Not const: the caller serialises calls on it. */
typedef struct chorus_diagnosis chorus_diagnosis;

typedef struct chorus_diagnosis_options {
  size_t struct_size;    /**< CHORUS_DIAGNOSIS_OPTIONS_INIT sets it. */
  int32_t n_models;      /**< N, 1 to CHORUS_COMBINE_MAX_MODELS. */
  int32_t n_bins;        /**< Of both calibration histograms, 1 to 1000; 0: 15. */
  const double *weights; /**< [N] of the linear mixture, >= 0, not all 0; NULL: 1/N. */
} chorus_diagnosis_options;

/** @return CHORUS_OK; CHORUS_INVALID_ARGUMENT: names the option. @since 0.1 */
CHORUS_API chorus_status chorus_diagnosis_create(const chorus_context *context, const chorus_diagnosis_options *options,
                                                 chorus_diagnosis **out_diagnosis, chorus_error **error);
CHORUS_API void chorus_diagnosis_destroy(chorus_diagnosis *diagnosis);

/** Rows of scores, in host memory. */
typedef struct chorus_diagnosis_batch {
  size_t struct_size;                 /**< CHORUS_DIAGNOSIS_BATCH_INIT sets it. */
  int64_t rows;
  const chorus_tensor *const *scores; /**< N tensors f64, f32, f16 or bf16 [rows, n_i]: logits or log-probs. */
  const chorus_tensor *combined;      /**< The same of the combination under study; NULL: the linear mixture. */
  const chorus_tensor *tokens;        /**< i32 or i64 [rows], gold tokens; NULL: none. */
  int64_t n_valid;                    /**< Tokens that exist; 0: the shortest row. */
} chorus_diagnosis_batch;

/** Add rows. A row in which some model (or `combined`) has a NaN or no support is left out and counted as invalid.
 *
 * Each number of a row is rounded to 2^-40 and summed in integers: any order of rows, split into batches and merge gives
 * the same bytes. Beyond 2^60 numbers saturate. Keeps 4 (N + 1) bytes per gold token for the calibration.
 * @return CHORUS_OK; CHORUS_INVALID_ARGUMENT: names the tensor, or the row of a gold token outside the vocabulary; nothing is
 *         added then. Cost: per token of the vocabulary 2N exponentials and N(N + 1)/2 logarithms. @since 0.1 */
CHORUS_API chorus_status chorus_diagnosis_add(chorus_diagnosis *diagnosis, const chorus_diagnosis_batch *batch,
                                              chorus_error **error);

/** Add all rows that `other` has seen. Both have the same options; they may be the same object (rows then count twice).
 * @return CHORUS_OK; CHORUS_INVALID_ARGUMENT: different options. @since 0.1 */
CHORUS_API chorus_status chorus_diagnosis_merge(chorus_diagnosis *diagnosis, const chorus_diagnosis *other,
                                                chorus_error **error);

/** What was seen. Arrays are lent until the next call on the diagnosis. Means are over valid rows (those with gold tokens
 * where gold tokens matter), NaN when there are none. In arrays [N + 1] the last is the combination. */
typedef struct chorus_diagnosis_info {
  size_t struct_size; /**< CHORUS_DIAGNOSIS_INFO_INIT sets it. */
  int32_t n_models, n_bins;
  int64_t rows;         /**< Valid ones. */
  int64_t invalid_rows;
  int64_t gold_rows;    /**< Valid ones with a gold token. */
  double entropy;            /**< H of the linear mixture p. */
  double expected_entropy;   /**< sum_i w_i H(p_i). */
  double mutual_information; /**< sum_i w_i KL(p_i || p), >= 0: what the models disagree on (BALD). */
  double disagreement;       /**< Share of rows whose models do not all have the same best token. */
  double variation_ratio;    /**< 1 - share of the models that vote for the most voted best token. */
  double ensemble_gain;      /**< sum_i w_i NLL_i - NLL of the combination, nats per gold token; infinite
                                  rows count (+inf, or NaN where the combination's is infinite too). */
  double right_entropy;      /**< min(r, N - r) / (N - ceil(N / 2)), r models right (Kuncheva and Whitaker); NaN for N = 1. */
  const double *entropies;        /**< [N] H(p_i). */
  const double *kl;               /**< [N, N] KL(p_i || p_j), mean over rows where it is finite. */
  const int64_t *kl_infinite;     /**< [N, N] rows where it is not. */
  const double *js;               /**< [N, N] Jensen-Shannon divergence, at most log 2. */
  const double *total_variation;  /**< [N, N] */
  const double *disagreements;    /**< [N, N] share of rows with different best tokens. */
  const double *nll;              /**< [N + 1] mean -log p(gold) over rows where it is finite. */
  const int64_t *nll_infinite;    /**< [N + 1] rows where it is not. */
  const double *accuracy;         /**< [N + 1] share of rows whose best token (lowest id among equals) is the gold one. */
  const double *brier;            /**< [N + 1] sum_v (p_v - [v = gold])^2. */
  const double *ece_width;        /**< [N + 1] expected calibration error of the best token, bins of equal width; confidence
                                       1 lies in the last bin. */
  const double *ece_mass;         /**< [N + 1] the same, bins of equal numbers of rows; equal confidences share a bin. */
  const double *mce;              /**< [N + 1] largest |accuracy - confidence| of a bin of equal width. */
  const int64_t *width_counts;      /**< [N + 1, n_bins] rows of each bin of equal width. */
  const double *width_confidences;  /**< [N + 1, n_bins] mean confidence; NaN where empty. */
  const double *width_accuracies;   /**< [N + 1, n_bins] */
  const int64_t *mass_counts;       /**< [N + 1, n_bins] the same of the other bins. */
  const double *mass_confidences;   /**< [N + 1, n_bins] */
  const double *mass_accuracies;    /**< [N + 1, n_bins] */
  const int64_t *both_right;        /**< [N, N] rows both models have right; on the diagonal, one. */
  const double *q_statistic;        /**< [N, N] Yule's Q of being right; NaN where undefined (0/0). */
  const double *correlation;        /**< [N, N] of being right; NaN where undefined. */
  const double *kappa;              /**< [N, N] Cohen's kappa of being right; NaN where undefined. */
  const double *double_fault;       /**< [N, N] share of rows both have wrong. */
} chorus_diagnosis_info;

/** @return CHORUS_OK; CHORUS_INVALID_ARGUMENT. `out_info->struct_size` must be set.
 * Cost: a sort of the confidences. @since 0.1 */
CHORUS_API chorus_status chorus_diagnosis_get(chorus_diagnosis *diagnosis, chorus_diagnosis_info *out_info,
                                              chorus_error **error);

/* ---- Passes: an ensemble whose members come one after the other --------------------------- */

/** The linear mixture of any number of passes over the same rows (dropout at test time, bagging, checkpoints in turn), with
 * its uncertainty, without holding the passes: 8 bytes per row and token. Not const: the caller serialises. */
typedef struct chorus_passes chorus_passes;

/** For `rows` rows of `n_tokens` tokens.
 * @return CHORUS_OK; CHORUS_INVALID_ARGUMENT; CHORUS_RESOURCE_EXHAUSTED. @since 0.1 */
CHORUS_API chorus_status chorus_passes_create(const chorus_context *context, int64_t rows, int64_t n_tokens,
                                              chorus_passes **out_passes, chorus_error **error);
CHORUS_API void chorus_passes_destroy(chorus_passes *passes);

/** One more pass: f64, f32, f16 or bf16 [rows, n >= n_tokens] logits or log-probs, of weight > 0. Rows are independent. A row
 * with a NaN or without support makes that row's results NaN.
 * @return CHORUS_OK; CHORUS_INVALID_ARGUMENT. Cost: 2 exponentials and 2 logarithms per row and token. @since 0.1 */
CHORUS_API chorus_status chorus_passes_add(chorus_passes *passes, const chorus_tensor *scores, double weight,
                                           chorus_error **error);
/** Adds what `other`, of the same shape, has seen, as if its passes had been added here.
 * @return CHORUS_OK; CHORUS_INVALID_ARGUMENT. @since 0.1 */
CHORUS_API chorus_status chorus_passes_merge(chorus_passes *passes, const chorus_passes *other, chorus_error **error);

/** What the passes so far give; NULL is not computed. Host memory. */
typedef struct chorus_passes_out {
  size_t struct_size;                      /**< CHORUS_PASSES_OUT_INIT sets it. */
  const chorus_tensor *log_probs;          /**< f32 or f64 [rows, n_tokens] of the mixture. */
  const chorus_tensor *entropy;            /**< f64 [rows] H(p). */
  const chorus_tensor *expected_entropy;   /**< f64 [rows] */
  const chorus_tensor *mutual_information; /**< f64 [rows], >= 0, by the chain rule of the Jensen-Shannon divergence: each pass
                                                adds W KL(p_old || p_new) + w KL(p_i || p_new), in non-negative terms. */
} chorus_passes_out;

/** @return CHORUS_OK; CHORUS_FAILED_PRECONDITION: no pass yet; CHORUS_INVALID_ARGUMENT: names the tensor. @since 0.1 */
CHORUS_API chorus_status chorus_passes_get(const chorus_passes *passes, const chorus_passes_out *out, chorus_error **error);

/* generated by tests/abi/layout.py: begin */
#define CHORUS_DIAGNOSIS_OPTIONS_INIT {CHORUS_END_OF(chorus_diagnosis_options, weights), 0, 0, NULL}
#define CHORUS_DIAGNOSIS_BATCH_INIT {CHORUS_END_OF(chorus_diagnosis_batch, n_valid), 0, NULL, NULL, NULL, 0}
#define CHORUS_DIAGNOSIS_INFO_INIT {CHORUS_END_OF(chorus_diagnosis_info, double_fault), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL}
#define CHORUS_PASSES_OUT_INIT {CHORUS_END_OF(chorus_passes_out, mutual_information), NULL, NULL, NULL, NULL}
/* generated by tests/abi/layout.py: end */

#ifdef __cplusplus
} /* extern "C" */
#endif
#endif /* CHORUS_DIAGNOSE_H_ */
