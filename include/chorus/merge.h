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
/** Nonzero: chorus_merger_run() takes up what a killed run of the same recipe, settings, inputs and version left beside the
 * output folder (finished tensors are read back and checked), and leaves it there when it fails or is cancelled. @since 0.1 */
CHORUS_API chorus_status chorus_merger_spec_set_resume(chorus_merger_spec *spec, int32_t resume, chorus_error **error);
/** The command line that made this merge, copied into chorus_manifest.json and the model card. @since 0.1 */
CHORUS_API chorus_status chorus_merger_spec_set_command(chorus_merger_spec *spec, const char *command, chorus_error **error);

/** Merge in memory by this method (chorus_merge_get_method() lists them) instead of a recipe: the merger made of the spec takes
 * tensors (chorus_merger_merge_tensors()) and has no plan. @since 0.1 */
CHORUS_API chorus_status chorus_merger_spec_set_method(chorus_merger_spec *spec, const char *method, chorus_error **error);
/** Value of the method's parameter `name`; for one that each model may have, of all models without their own. Checked by
 * chorus_merger_create(). Booleans are 0 or 1. Only with chorus_merger_spec_set_method(). @since 0.1 */
CHORUS_API chorus_status chorus_merger_spec_set_parameter(chorus_merger_spec *spec, const char *name, double value, chorus_error **error);
/** The same for one model, counted in the order of chorus_merger_merge_tensors(). @since 0.1 */
CHORUS_API chorus_status chorus_merger_spec_set_model_parameter(chorus_merger_spec *spec, size_t model, const char *name, double value,
                                                                chorus_error **error);

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
 * The folder must be missing or empty unless the spec allows replacing. The model is put together in a hidden folder beside
 * it, `.NAME.partial`, which takes its name in one step when all is synced: after a failure, a cancellation or the process's
 * death the output folder is absent (or what it was) or complete; only death, and chorus_merger_spec_set_resume(), leave the
 * hidden folder, which the next run into the same output takes up or removes. Into a folder that is mounted, the working
 * directory or holds folders, files move one by one, the weights' index last. The output has a chorus_manifest.json: recipe,
 * command, versions, fingerprints of the inputs' files, XXH3-64 of every tensor's bytes. Equal bytes for any thread count,
 * memory and device of one kind.
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

/** Merge `count` tensors in memory into `out`: no files, the bytes of a streamed merge of the same method, parameters and name.
 *
 * @param merger  Made with chorus_merger_spec_set_method().
 * @param name    Of the tensor, as in a model: with the seed and the place among the models it is the key of random choices.
 * @param models  Compact host tensors of one shape; f64, f32, f16, bf16, each of its own.
 * @param base    What deltas are taken from, or for a method without deltas one more input (slerp: the first, linear and karcher: the
 *                last, with the parameters of all models). NULL with a method that needs a base: the models are task vectors (deltas),
 *                and `out` becomes the merged task vector.
 * @param out     Of the same shape, the result's type. It may be one of the inputs itself, of its type; else it overlaps none.
 * @param exec    NULL: scratch from the calling thread's cache. Else host scratch of at least chorus_merger_get_workspace_size()
 *                bytes. Parallel on the context's pool; some small bookkeeping is allocated either way. Concurrent calls are allowed.
 * @return CHORUS_OK; CHORUS_INVALID_ARGUMENT: names the tensor or parameter; CHORUS_UNIMPLEMENTED: another dtype, or no kernel;
 *         CHORUS_FAILED_PRECONDITION: workspace too small (states the bytes), or a merger made from a recipe. On those `out` is
 *         untouched. @since 0.1 */
CHORUS_API chorus_status chorus_merger_merge_tensors(const chorus_merger *merger, const char *name,
                                                     const chorus_tensor *const *models, size_t count, const chorus_tensor *base,
                                                     const chorus_tensor *out, const chorus_exec *exec, chorus_error **error);
/** Bytes of workspace for chorus_merger_merge_tensors() with these tensors; their data are not read. @since 0.1 */
CHORUS_API chorus_status chorus_merger_get_workspace_size(const chorus_merger *merger, const chorus_tensor *const *models,
                                                          size_t count, const chorus_tensor *base, const chorus_tensor *out,
                                                          uint64_t *out_bytes, chorus_error **error);

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
