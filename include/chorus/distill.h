/* SPDX-License-Identifier: Apache-2.0
 *
 * Distillation: losses of a student against a teacher mixture with their gradients, and files of the teacher's targets.
 *
 * The teacher is combined first, by a combiner (its log-prob rows, or its k best tokens and tail), and distilled then: the k
 * best of the mixture with the mass of the rest, not mixtures of each teacher's k best, which lose mass.
 */
#ifndef CHORUS_DISTILL_H_
#define CHORUS_DISTILL_H_

#include "context.h"
#include "plugin.h"
#include "vocabulary.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Losses ------------------------------------------------------------------------------- */

/** A loss on a device. Immutable; any thread. */
typedef struct chorus_distiller chorus_distiller;

/** A distiller for `desc` (plugin.h, combine.distill) on `device`. With sparse targets, the tokens outside the k form one bucket of both
 * distributions; the student's share of it is summed, not subtracted from 1.
 * @return CHORUS_OK; CHORUS_INVALID_ARGUMENT: names the field; CHORUS_NOT_FOUND: no such device; CHORUS_UNIMPLEMENTED: no
 *         kernel, with each one's reason. @since 0.1 */
CHORUS_API chorus_status chorus_distiller_create(const chorus_context *context, const chorus_distill_desc *desc,
                                                 const char *device, chorus_distiller **out_distiller, chorus_error **error);
CHORUS_API void chorus_distiller_destroy(chorus_distiller *distiller);

/** Losses and gradients of args->rows rows. `loss`, `gradient` and `status` may each be NULL; outputs overlap nothing.
 *
 * Row statuses: NAN (a score that counts is NaN, or a weight is not finite: loss and gradient NaN), EMPTY_SUPPORT (student or
 * teacher has no distribution: NaN), LOSS_INFINITE (the loss is +inf, the gradient row 0: leave the row out), BAD_TOKEN
 * (a target outside the vocabulary or given twice: NaN), INFINITE (a +inf score: shared equally).
 * @return CHORUS_OK; CHORUS_INVALID_ARGUMENT: names the tensor; CHORUS_FAILED_PRECONDITION: workspace too small, states the bytes.
 * Cost: two readings of the student's row and of the teacher's, one more of each for the gradient. @since 0.1 */
CHORUS_API chorus_status chorus_distiller_run(const chorus_distiller *distiller, const chorus_distill_args *args,
                                              const chorus_exec *exec, chorus_error **error);
/** Bytes of workspace for `rows` rows. @since 0.1 */
CHORUS_API chorus_status chorus_distiller_get_workspace_size(const chorus_distiller *distiller, int64_t rows,
                                                             uint64_t *out_bytes, chorus_error **error);
/** The kernel in use; lives as long as the distiller. "" for NULL. @since 0.1 */
CHORUS_API const char *chorus_distiller_get_kernel(const chorus_distiller *distiller);

/* ---- Targets ------------------------------------------------------------------------------ */

/** How the targets of a file are stored. The file is safetensors (FOLDER/model.safetensors) and says all of the below itself;
 * docs/combining.md, "Target files", has the bits. */
typedef int32_t chorus_targets_form;
#define CHORUS_TARGETS_PACKED 0 /**< k tokens and tail, bit-packed: 119 bytes for k = 50, V = 128256 and 5 bits. */
#define CHORUS_TARGETS_PLAIN 1  /**< k tokens (i32), their log-probs (`dtype`) and tail (f32). */
#define CHORUS_TARGETS_ROWS 2   /**< All log-probs (`dtype`). */

/** What a file of targets is; arrays are lent as long as its reader. */
typedef struct chorus_targets_info {
  size_t struct_size;       /**< CHORUS_TARGETS_INFO_INIT sets it. */
  chorus_targets_form form;
  int32_t k;                /**< Tokens of a target, 1 to CHORUS_DISTILL_MAX_SPARSE and at most V; ROWS: 0. */
  int64_t rows;             /**< Of the whole file. */
  int64_t n_tokens;         /**< V, 1 to 2^31 - 1. */
  chorus_dtype dtype;       /**< PLAIN, ROWS: f32 (0 as well), f16 or bf16. PACKED: 0. */
  int32_t bits;             /**< PACKED: of a log-prob, 2 to 16; 0: 5. */
  double temperature;       /**< Already applied to the targets; 0: 1. */
  chorus_combine_rule rule; /**< Of the teachers' combination. */
  int32_t n_models;         /**< Teachers; 0: not told. */
  const double *weights;    /**< [n_models] */
  uint64_t fingerprint_low; /**< Of the vocabulary (chorus_vocabulary_get_fingerprint()); both words 0: not told. */
  uint64_t fingerprint_high;
  uint64_t bytes_per_row;   /**< Output only. */
} chorus_targets_info;

/** Writes a file of targets, rows in order. Not const: the caller serialises. */
typedef struct chorus_targets_writer chorus_targets_writer;

/** A file in `folder`, which is created and must be empty. Space is reserved at once. Destroyed before _finish(), nothing remains.
 * @return CHORUS_OK; CHORUS_INVALID_ARGUMENT: names the field; CHORUS_ALREADY_EXISTS; CHORUS_RESOURCE_EXHAUSTED. @since 0.1 */
CHORUS_API chorus_status chorus_targets_writer_create(const chorus_context *context, const chorus_targets_info *info,
                                                      const char *folder, chorus_targets_writer **out_writer,
                                                      chorus_error **error);
CHORUS_API void chorus_targets_writer_destroy(chorus_targets_writer *writer);

/** Next rows from whole distributions: f64, f32, f16 or bf16 [rows, >= V] log-probs or logits of the combined teacher (after its
 * temperature). The k best are taken (lowest id among equals), the rest summed into the tail.
 * @return CHORUS_OK; CHORUS_INVALID_ARGUMENT: the tensor, or a row with NaN or no support; CHORUS_OUT_OF_RANGE: more rows than
 *         declared. Nothing is written then. @since 0.1 */
CHORUS_API chorus_status chorus_targets_writer_write_rows(chorus_targets_writer *writer, const chorus_tensor *log_probs,
                                                          chorus_error **error);
/** Next rows from sparse targets, as a combiner's top-k gives them; form PACKED or PLAIN.
 * @param ids        i32 [rows, k], distinct; -1: none.
 * @param log_probs  f32 [rows, k]
 * @param tail       f32 [rows], log of the rest's mass.
 * @return as above; CHORUS_FAILED_PRECONDITION: form ROWS. @since 0.1 */
CHORUS_API chorus_status chorus_targets_writer_write_top(chorus_targets_writer *writer, const chorus_tensor *ids,
                                                         const chorus_tensor *log_probs, const chorus_tensor *tail,
                                                         chorus_error **error);
/** Makes the file durable and gives it its name.
 * @return CHORUS_OK; CHORUS_FAILED_PRECONDITION: rows are missing, states how many. @since 0.1 */
CHORUS_API chorus_status chorus_targets_writer_finish(chorus_targets_writer *writer, chorus_error **error);

/** An opened file of targets. Immutable; any thread. Untrusted: whatever it holds, reading gives targets or an error. */
typedef struct chorus_targets chorus_targets;

/** Open `path`: the folder, or the .safetensors file.
 * @return CHORUS_OK; CHORUS_NOT_FOUND; CHORUS_DATA_LOSS: no file of targets, or one that contradicts itself. @since 0.1 */
CHORUS_API chorus_status chorus_targets_open(const chorus_context *context, const char *path, chorus_targets **out_targets,
                                             chorus_error **error);
CHORUS_API void chorus_targets_destroy(chorus_targets *targets);
/** @return CHORUS_OK; CHORUS_INVALID_ARGUMENT. `out_info->struct_size` must be set. @since 0.1 */
CHORUS_API chorus_status chorus_targets_get(const chorus_targets *targets, chorus_targets_info *out_info,
                                            chorus_error **error);
/** That the targets' ids are those of `vocabulary`.
 * @return CHORUS_OK; CHORUS_FAILED_PRECONDITION: they are others, or the file does not tell. @since 0.1 */
CHORUS_API chorus_status chorus_targets_check_vocabulary(const chorus_targets *targets, const chorus_vocabulary *vocabulary,
                                                         chorus_error **error);
/** Rows from `first` on, as combine.distill takes them: ids i32 [rows, k] (best first, -1 past the support), log-probs f32 [rows, k],
 * tail f32 [rows].
 * @return CHORUS_OK; CHORUS_OUT_OF_RANGE; CHORUS_FAILED_PRECONDITION: form ROWS; CHORUS_DATA_LOSS: names the row. @since 0.1 */
CHORUS_API chorus_status chorus_targets_read_top(const chorus_targets *targets, int64_t first, const chorus_tensor *ids,
                                                 const chorus_tensor *log_probs, const chorus_tensor *tail,
                                                 chorus_error **error);
/** Rows from `first` on, all log-probs: f32 [rows, V].
 * @return CHORUS_OK; CHORUS_OUT_OF_RANGE; CHORUS_FAILED_PRECONDITION: another form. @since 0.1 */
CHORUS_API chorus_status chorus_targets_read_rows(const chorus_targets *targets, int64_t first, const chorus_tensor *log_probs,
                                                  chorus_error **error);

/* generated by tests/abi/layout.py: begin */
#define CHORUS_TARGETS_INFO_INIT {CHORUS_END_OF(chorus_targets_info, bytes_per_row), 0, 0, 0, 0, 0, 0, 0, 0, 0, NULL, 0, 0, 0}
/* generated by tests/abi/layout.py: end */

#ifdef __cplusplus
} /* extern "C" */
#endif
#endif /* CHORUS_DISTILL_H_ */
