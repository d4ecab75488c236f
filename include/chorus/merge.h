/* SPDX-License-Identifier: Apache-2.0
 *
 * The merger: makes one checkpoint of N by a recipe in mergekit's language, streamed in bounded memory.
 *
 * A merger is a plan: chorus_merger_create() reads the recipe and the headers of all models and finds everything that is
 * wrong; chorus_merger_run() carries it out. Recipe language, methods, numerics: docs/merging.md and docs/ops.md.
 */
#ifndef CHORUS_MERGE_H_
#define CHORUS_MERGE_H_

#include "context.h"
#include "plugin.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Builder of a merger. */
typedef struct chorus_merger_spec chorus_merger_spec;
/** A plan, ready to run. Its input files stay open. Immutable; any thread. */
typedef struct chorus_merger chorus_merger;

/** New spec: no recipe, no output, 1 GiB of memory, shards of at most 5 GB, accurate numerics, seed 0, no replacing.
 * @return CHORUS_OK; CHORUS_INVALID_ARGUMENT: `out_spec` NULL; CHORUS_RESOURCE_EXHAUSTED. @since 0.1 */
CHORUS_API chorus_status chorus_merger_spec_create(chorus_merger_spec **out_spec, chorus_error **error);
CHORUS_API void chorus_merger_spec_destroy(chorus_merger_spec *spec);

/** The recipe: `length` bytes of YAML, copied. `name` stands before line and column in messages; NULL: "recipe".
 * @return CHORUS_OK; CHORUS_INVALID_ARGUMENT: NULL. The text is read by chorus_merger_create(). @since 0.1 */
CHORUS_API chorus_status chorus_merger_spec_set_recipe(chorus_merger_spec *spec, const char *text, uint64_t length,
                                                       const char *name, chorus_error **error);
/** The recipe from the file at `path`, read now. Models in it are found from the working directory, as mergekit does.
 * @return CHORUS_OK; CHORUS_NOT_FOUND; CHORUS_PERMISSION_DENIED; CHORUS_DATA_LOSS: more than 4 MiB. @since 0.1 */
CHORUS_API chorus_status chorus_merger_spec_set_recipe_file(chorus_merger_spec *spec, const char *path, chorus_error **error);
/** Folder the model goes to; created by chorus_merger_run(), not before. Needed to run, not to plan. @since 0.1 */
CHORUS_API chorus_status chorus_merger_spec_set_output(chorus_merger_spec *spec, const char *folder, chorus_error **error);
/** Most memory for buffers, in bytes, at least 64 MiB. Results do not depend on it. @since 0.1 */
CHORUS_API chorus_status chorus_merger_spec_set_memory(chorus_merger_spec *spec, uint64_t bytes, chorus_error **error);
/** Largest data of one output file, in bytes; a larger tensor gets a file of its own. 0: one file. @since 0.1 */
CHORUS_API chorus_status chorus_merger_spec_set_max_shard_bytes(chorus_merger_spec *spec, uint64_t bytes, chorus_error **error);
/** CHORUS_NUMERICS_ACCURATE (default) or CHORUS_NUMERICS_MERGEKIT, its rounding chain for parity.
 * @return CHORUS_OK; CHORUS_INVALID_ARGUMENT: unknown value. What no backend computes is refused by
 *         chorus_merger_create() as CHORUS_UNIMPLEMENTED. @since 0.1 */
CHORUS_API chorus_status chorus_merger_spec_set_numerics(chorus_merger_spec *spec, chorus_merge_numerics numerics,
                                                         chorus_error **error);
/** Seed of the random choices of dare_* and della*, 0 by default: keyed with it by model, tensor and element. @since 0.1 */
CHORUS_API chorus_status chorus_merger_spec_set_seed(chorus_merger_spec *spec, uint64_t seed, chorus_error **error);
/** Nonzero: a folder that is not empty is allowed; the model in it is replaced at the end. @since 0.1 */
CHORUS_API chorus_status chorus_merger_spec_set_replace(chorus_merger_spec *spec, int32_t replace, chorus_error **error);

/** Plan the merge on `device` ("auto", "cpu", "reference"). Reads headers alone, and writes nothing.
 *
 * @return CHORUS_OK; CHORUS_INVALID_ARGUMENT: the recipe, or tensors that are missing or differ in shape; every error is a
 *         cause "file:line:column: …" that names key or tensor, what was found, what is allowed and the nearest known word;
 *         CHORUS_UNIMPLEMENTED: what mergekit has and this version lacks, or no kernel; CHORUS_NOT_FOUND,
 *         CHORUS_DATA_LOSS, CHORUS_PERMISSION_DENIED: a model, as chorus_checkpoint_open(). @since 0.1 */
CHORUS_API chorus_status chorus_merger_create(const chorus_context *context, const chorus_merger_spec *spec,
                                              const char *device, chorus_merger **out_merger, chorus_error **error);
CHORUS_API void chorus_merger_destroy(chorus_merger *merger);

/** What a merger will do. */
typedef struct chorus_merge_plan {
  size_t struct_size;
  uint64_t tensor_count;   /**< Of the output. */
  uint64_t merged_count;   /**< Of these, computed. */
  uint64_t copied_count;   /**< Of these, copied unchanged. */
  uint64_t elements;       /**< Of the output. */
  uint64_t bytes_to_read;  /**< Over all passes. */
  uint64_t bytes_to_write; /**< All shards, with their headers. */
  uint64_t peak_memory;    /**< Bytes of buffers and headers. */
  uint64_t free_disk;      /**< Bytes free where the output goes; 0 when no output is set. */
  double seconds;          /**< Estimate from the bytes; the plan's text says for which disk. */
} chorus_merge_plan;

/** @return CHORUS_OK; CHORUS_INVALID_ARGUMENT. `out_plan->struct_size` must be set. @since 0.1 */
CHORUS_API chorus_status chorus_merger_get_plan(const chorus_merger *merger, chorus_merge_plan *out_plan, chorus_error **error);
/** The plan for a person: models, output, passes, bytes, memory, time, kernels, warnings. Lives as long as the merger. @since 0.1 */
CHORUS_API const char *chorus_merger_get_plan_text(const chorus_merger *merger);
/** The plan as a JSON object, with every tensor. Lives as long as the merger. @since 0.1 */
CHORUS_API const char *chorus_merger_get_plan_json(const chorus_merger *merger);
/** Number of warnings: keys without effect, models that are not needed, a disk too full. @since 0.1 */
CHORUS_API size_t chorus_merger_get_warning_count(const chorus_merger *merger);
/** Warning `index`; NULL when out of range. Lives as long as the merger. @since 0.1 */
CHORUS_API const char *chorus_merger_get_warning(const chorus_merger *merger, size_t index);

/** How far a run is. Text is lent for the call. */
typedef struct chorus_merge_progress {
  size_t struct_size;
  const char *phase;      /**< "reduce" (statistics), "apply" (results), "finish" (syncing, naming). */
  const char *tensor;     /**< The one being worked on; "" while finishing. */
  uint64_t bytes_done;    /**< Read and written so far. */
  uint64_t bytes_total;   /**< To be read and written. */
  uint64_t tensors_done;
  uint64_t tensors_total;
} chorus_merge_progress;

/** Hears of the progress, every 64 MiB or so, on the thread that called chorus_merger_run(). Nonzero cancels the run. */
typedef int32_t (*chorus_merge_progress_fn)(void *user, const chorus_merge_progress *progress);

/** Carry out the plan: write the model into the output folder.
 *
 * The folder must be missing or empty unless the spec allows replacing. Files get their final names at the end, when all is
 * synced; after a failure, a cancellation or the process's death no reader finds a model there, and after a failure or
 * cancellation nothing at all. Equal bytes for any thread count, memory and device of one kind.
 * @param progress  May be NULL.
 * @return CHORUS_OK; CHORUS_CANCELLED: by `progress`; CHORUS_ALREADY_EXISTS: the folder is not empty;
 *         CHORUS_FAILED_PRECONDITION: no output was set, or an input was changed meanwhile; CHORUS_RESOURCE_EXHAUSTED: disk or
 *         memory; CHORUS_DATA_LOSS: an input became shorter; CHORUS_INVALID_ARGUMENT: an integer tensor differs between
 *         the models; CHORUS_ABORTED: another writer works there; what the system refuses. @since 0.1 */
CHORUS_API chorus_status chorus_merger_run(const chorus_merger *merger, chorus_merge_progress_fn progress, void *user,
                                           chorus_error **error);

/** A merge method. Text is static. */
typedef struct chorus_merge_method_info {
  size_t struct_size;
  const char *name;
  const char *summary;
  uint64_t parameter_count;
  int32_t min_models, max_models; /**< A base of deltas is not counted. */
  int32_t needs_base;             /**< Nonzero: base_model is required. */
  int32_t reserved;
} chorus_merge_method_info;

/** A parameter of a merge method. Text is static. */
typedef struct chorus_merge_parameter_info {
  size_t struct_size;
  const char *name;
  const char *type; /**< "number", "integer", "boolean", "word" (`doc` has the words). */
  const char *doc;
  double minimum, maximum; /**< Inclusive; infinite: no limit. */
  double default_value;    /**< NaN: none. */
  int32_t is_required;
  int32_t is_per_model;    /**< Nonzero: each model may have its own. */
} chorus_merge_parameter_info;

CHORUS_API size_t chorus_merge_method_count(void);
/** Method `index` of the table. @return CHORUS_OK; CHORUS_OUT_OF_RANGE. @since 0.1 */
CHORUS_API chorus_status chorus_merge_get_method(size_t index, chorus_merge_method_info *out_info, chorus_error **error);
/** Parameter `index` of method `method`. @return CHORUS_OK; CHORUS_OUT_OF_RANGE. @since 0.1 */
CHORUS_API chorus_status chorus_merge_get_parameter(size_t method, size_t index, chorus_merge_parameter_info *out_info,
                                                    chorus_error **error);

/* generated by tests/abi/layout.py: begin */
#define CHORUS_MERGE_PLAN_INIT {CHORUS_END_OF(chorus_merge_plan, seconds), 0, 0, 0, 0, 0, 0, 0, 0, 0}
#define CHORUS_MERGE_PROGRESS_INIT {CHORUS_END_OF(chorus_merge_progress, tensors_total), NULL, NULL, 0, 0, 0, 0}
#define CHORUS_MERGE_METHOD_INFO_INIT {CHORUS_END_OF(chorus_merge_method_info, reserved), NULL, NULL, 0, 0, 0, 0, 0}
#define CHORUS_MERGE_PARAMETER_INFO_INIT {CHORUS_END_OF(chorus_merge_parameter_info, is_per_model), NULL, NULL, NULL, 0, 0, 0, 0, 0}
/* generated by tests/abi/layout.py: end */

#ifdef __cplusplus
} /* extern "C" */
#endif
#endif /* CHORUS_MERGE_H_ */
