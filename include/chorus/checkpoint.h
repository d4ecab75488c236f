/* SPDX-License-Identifier: Apache-2.0
 *
 * Checkpoints on disk: safetensors files, single or sharded, with their config. Reading, and writing durably.
 * Model files are untrusted: whatever they hold, a call fails with file and byte offset, and uses memory of a small
 * multiple of their header.
 */
#ifndef CHORUS_CHECKPOINT_H_
#define CHORUS_CHECKPOINT_H_

#include "context.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Reading ------------------------------------------------------------------------------ */

/** A model opened for reading: its files stay open, their headers are checked. Immutable; any thread. */
typedef struct chorus_checkpoint chorus_checkpoint;

/** What a tensor is for, told by its name alone. */
typedef int32_t chorus_tensor_kind;
#define CHORUS_TENSOR_KIND_OTHER 0     /**< Not recognised. */
#define CHORUS_TENSOR_KIND_EMBEDDING 1 /**< Token embedding; rows are tokens. */
#define CHORUS_TENSOR_KIND_HEAD 2      /**< Output projection; rows are tokens. */
#define CHORUS_TENSOR_KIND_NORM 3      /**< A normalisation's scale or shift. */
#define CHORUS_TENSOR_KIND_ATTENTION 4 /**< A matrix or bias of attention. */
#define CHORUS_TENSOR_KIND_MLP 5       /**< A matrix or bias of a feed-forward block, dense or an expert's. */
#define CHORUS_TENSOR_KIND_ROUTER 6    /**< Scores experts; rows are experts. */
#define CHORUS_TENSOR_KIND_POSITION 7  /**< Position embedding or rotary frequencies. */

/** Which matrix of its block. */
typedef int32_t chorus_tensor_part;
#define CHORUS_TENSOR_PART_NONE 0    /**< Not recognised, or the block has one alone. */
#define CHORUS_TENSOR_PART_QUERY 1
#define CHORUS_TENSOR_PART_KEY 2
#define CHORUS_TENSOR_PART_VALUE 3
#define CHORUS_TENSOR_PART_OUTPUT 4  /**< Attention's output projection. */
#define CHORUS_TENSOR_PART_QKV 5     /**< Query, key and value in one. */
#define CHORUS_TENSOR_PART_GATE 6    /**< Goes through the activation (gate_proj, w1). */
#define CHORUS_TENSOR_PART_UP 7      /**< Multiplies it, or the only input matrix (up_proj, w3, fc1). */
#define CHORUS_TENSOR_PART_DOWN 8    /**< Back to the hidden size (down_proj, w2, fc2). */
#define CHORUS_TENSOR_PART_GATE_UP 9 /**< Gate and up in one. */

#define CHORUS_TENSOR_ROLE_BIAS 1u          /**< A vector added. */
#define CHORUS_TENSOR_ROLE_FUSED_EXPERTS 2u /**< All experts of a layer in one tensor, the first dimension the expert. */
#define CHORUS_TENSOR_ROLE_SHARED_EXPERT 4u /**< Belongs to an expert that every token visits. */
#define CHORUS_TENSOR_ROLE_QUANT 8u         /**< Scales or zero points of a quantised tensor. */

/** A tensor of a checkpoint. Pointers live as long as the checkpoint. */
typedef struct chorus_tensor_info {
  size_t struct_size;
  const char *name;        /**< UTF-8, ends with 0. */
  uint64_t name_length;    /**< Bytes; a hostile name may contain 0. */
  const char *file;        /**< Path of the file that holds it, as opened. */
  uint64_t file_offset;    /**< First byte of its data, counted from the start of the file. */
  uint64_t size_bytes;     /**< Bytes of its data. */
  const int64_t *shape;    /**< `ndim` sizes, each >= 0. */
  int32_t ndim;            /**< May exceed CHORUS_MAX_DIMENSIONS; then only chorus_checkpoint_read_bytes() reads it. */
  chorus_dtype dtype;      /**< DLPack code and bits, also for types without arithmetic (F4, F6_*, C64). */
  const char *dtype_name;  /**< As in the file: "BF16". Static. */
  chorus_tensor_kind kind; /**< What it is for, by its name. */
  chorus_tensor_part part; /**< Which matrix of its block. */
  int32_t layer;           /**< Index of its layer; -1: none. */
  int32_t expert;          /**< Index of its expert; -1: none, or all of them fused. */
  uint32_t role_flags;     /**< CHORUS_TENSOR_ROLE_* bits. */
  uint32_t reserved;
} chorus_tensor_info;

/** Open the model at `path`:
 * - a folder with model.safetensors or model.safetensors.index.json (or exactly one other *.safetensors file),
 * - a .safetensors file, or a *.safetensors.index.json,
 * - else "org/name" or "org/name@revision": that model in the Hugging Face cache (HF_HUB_CACHE, else HF_HOME/hub, else
 *   XDG_CACHE_HOME/huggingface/hub, else ~/.cache/huggingface/hub), revision "main" by default. Nothing is downloaded.
 *
 * Reads and checks every header before anything else: sizes, offsets without hole or overlap, shapes, dtypes, names unique
 * over all shards. Verdicts on a file are those of the Rust crate safetensors 0.8, and stricter in three points: duplicate
 * names, sizes above 2^63 - 1, and offsets whose sum wraps are refused. Shard names are plain relative names, and resolve,
 * links followed, below the folder or below the real folder of the index (as in the cache). `config.json` beside the
 * weights is read when it is there. Pickles are refused.
 * @return CHORUS_OK; CHORUS_NOT_FOUND: nothing there, naming what was looked for; CHORUS_DATA_LOSS: malformed or truncated,
 *         with file and byte; CHORUS_PERMISSION_DENIED: unreadable, a shard path that leaves the folder, a pickle;
 *         CHORUS_INVALID_ARGUMENT: a folder, device or FIFO where a file is needed; CHORUS_RESOURCE_EXHAUSTED. @since 0.1 */
CHORUS_API chorus_status chorus_checkpoint_open(const chorus_context *context, const char *path,
                                                chorus_checkpoint **out_checkpoint, chorus_error **error);
CHORUS_API void chorus_checkpoint_destroy(chorus_checkpoint *checkpoint);

/** Folder of the model, as resolved: its tokenizer.json lies there. Lives as long as the checkpoint. @since 0.1 */
CHORUS_API const char *chorus_checkpoint_get_folder(const chorus_checkpoint *checkpoint);
/** Number of safetensors files. @since 0.1 */
CHORUS_API size_t chorus_checkpoint_get_file_count(const chorus_checkpoint *checkpoint);
/** Path of file `index`, as opened; NULL when out of range. Lives as long as the checkpoint. @since 0.1 */
CHORUS_API const char *chorus_checkpoint_get_file(const chorus_checkpoint *checkpoint, size_t index);

/** Number of tensors. They are ordered as they lie on disk: by file, then by offset. @since 0.1 */
CHORUS_API size_t chorus_checkpoint_get_tensor_count(const chorus_checkpoint *checkpoint);
/** Tensor `index`. `out_info->struct_size` must be set.
 * @return CHORUS_OK; CHORUS_OUT_OF_RANGE. @since 0.1 */
CHORUS_API chorus_status chorus_checkpoint_get_tensor(const chorus_checkpoint *checkpoint, size_t index,
                                                      chorus_tensor_info *out_info, chorus_error **error);
/** Index of the tensor called `name`.
 * @return CHORUS_OK; CHORUS_NOT_FOUND: naming the nearest. @since 0.1 */
CHORUS_API chorus_status chorus_checkpoint_find_tensor(const chorus_checkpoint *checkpoint, const char *name,
                                                       size_t *out_index, chorus_error **error);

/** Read tensor `index` into `out`, which has its shape, is compact, and lies in host memory.
 *
 * Same dtype: the bytes as stored, whatever the dtype. Between f64, f32, f16 and bf16: converted, one rounding to nearest
 * even, NaN stays NaN. Reads each byte once, in blocks; uses 1 MiB of its own to convert.
 * @return CHORUS_OK; CHORUS_OUT_OF_RANGE: `index`; CHORUS_INVALID_ARGUMENT: shape, strides, memory; CHORUS_UNIMPLEMENTED: no
 *         conversion between the two dtypes; CHORUS_DATA_LOSS: the file became shorter. `out` may be partly written after
 *         a failure to read. @since 0.1 */
CHORUS_API chorus_status chorus_checkpoint_read(const chorus_checkpoint *checkpoint, size_t index, const chorus_tensor *out,
                                                chorus_error **error);
/** Read `bytes` of tensor `index` from byte `offset` of its data on, as stored.
 * @return CHORUS_OK; CHORUS_OUT_OF_RANGE: `index`, or the range leaves the tensor; CHORUS_DATA_LOSS: the file became
 *         shorter. @since 0.1 */
CHORUS_API chorus_status chorus_checkpoint_read_bytes(const chorus_checkpoint *checkpoint, size_t index, uint64_t offset,
                                                      uint64_t bytes, void *out, chorus_error **error);

/** Text of config.json; "" when there is none. Lives as long as the checkpoint. @since 0.1 */
CHORUS_API const char *chorus_checkpoint_get_config(const chorus_checkpoint *checkpoint);
/** A number (or boolean: 0 or 1) of config.json; `key` is a path with dots ("rope_parameters.rope_theta").
 * @return CHORUS_OK; CHORUS_NOT_FOUND: no such key, or null; CHORUS_INVALID_ARGUMENT: not a number. @since 0.1 */
CHORUS_API chorus_status chorus_checkpoint_get_config_number(const chorus_checkpoint *checkpoint, const char *key,
                                                             double *out_value, chorus_error **error);
/** A string of config.json, lent as long as the checkpoint lives.
 * @return CHORUS_OK; CHORUS_NOT_FOUND: no such key, or null; CHORUS_INVALID_ARGUMENT: not a string. @since 0.1 */
CHORUS_API chorus_status chorus_checkpoint_get_config_string(const chorus_checkpoint *checkpoint, const char *key,
                                                             const char **out_value, chorus_error **error);

/** Number of entries of the files' "__metadata__"; of a key in several files the first counts. @since 0.1 */
CHORUS_API size_t chorus_checkpoint_get_metadata_count(const chorus_checkpoint *checkpoint);
/** Entry `index`, in the order of their keys. Lent as long as the checkpoint lives.
 * @return CHORUS_OK; CHORUS_OUT_OF_RANGE. @since 0.1 */
CHORUS_API chorus_status chorus_checkpoint_get_metadata(const chorus_checkpoint *checkpoint, size_t index,
                                                        const char **out_key, const char **out_value,
                                                        chorus_error **error);

/* ---- Writing ------------------------------------------------------------------------------ */

/** Builder of a writer: which tensors, which files beside them, how split. */
typedef struct chorus_checkpoint_writer_spec chorus_checkpoint_writer_spec;
/** A model being written. Calls on one writer are the caller's to serialise. */
typedef struct chorus_checkpoint_writer chorus_checkpoint_writer;

/** New spec: no tensors, shards of at most 5 GB, metadata {"format": "pt"}, folder new or empty. @since 0.1 */
CHORUS_API chorus_status chorus_checkpoint_writer_spec_create(chorus_checkpoint_writer_spec **out_spec,
                                                              chorus_error **error);
CHORUS_API void chorus_checkpoint_writer_spec_destroy(chorus_checkpoint_writer_spec *spec);

/** Declare a tensor; name and shape are copied. `out_index` (may be NULL) receives its number, counted from 0.
 * Tensors are put into shards in this order; within a shard the wider dtypes come first, so that data are aligned.
 * @return CHORUS_OK; CHORUS_INVALID_ARGUMENT: name empty, "__metadata__" or not UTF-8, shape, bits not a multiple of 8;
 *         CHORUS_ALREADY_EXISTS: the name; CHORUS_UNIMPLEMENTED: a dtype safetensors cannot store. @since 0.1 */
CHORUS_API chorus_status chorus_checkpoint_writer_spec_add_tensor(chorus_checkpoint_writer_spec *spec, const char *name,
                                                                  chorus_dtype dtype, int32_t ndim, const int64_t *shape,
                                                                  size_t *out_index, chorus_error **error);
/** Largest data of one file, in bytes; a larger tensor gets a file of its own. 0: one file. @since 0.1 */
CHORUS_API chorus_status chorus_checkpoint_writer_spec_set_max_shard_bytes(chorus_checkpoint_writer_spec *spec,
                                                                           uint64_t bytes, chorus_error **error);
/** An entry of "__metadata__" in every file; `value` NULL removes it. @since 0.1 */
CHORUS_API chorus_status chorus_checkpoint_writer_spec_set_metadata(chorus_checkpoint_writer_spec *spec, const char *key,
                                                                    const char *value, chorus_error **error);
/** Copy the file at `path` into the folder as `name` (a plain name, "tokenizer.json"). Copied by chorus_checkpoint_writer_finish().
 * @return CHORUS_OK; CHORUS_INVALID_ARGUMENT: `name` is not plain, or a name the writer needs; CHORUS_ALREADY_EXISTS. @since 0.1 */
CHORUS_API chorus_status chorus_checkpoint_writer_spec_add_file(chorus_checkpoint_writer_spec *spec, const char *name,
                                                                const char *path, chorus_error **error);
/** Write `length` bytes of `text`, copied, into the folder as `name` (a plain name, "config.json").
 * @return as chorus_checkpoint_writer_spec_add_file(). @since 0.1 */
CHORUS_API chorus_status chorus_checkpoint_writer_spec_add_text(chorus_checkpoint_writer_spec *spec, const char *name,
                                                                const char *text, uint64_t length, chorus_error **error);
/** Nonzero: a folder that is not empty is allowed; the model in it is replaced at the end, its stale shards removed,
 * other files stay. Default 0. @since 0.1 */
CHORUS_API chorus_status chorus_checkpoint_writer_spec_set_replace(chorus_checkpoint_writer_spec *spec, int32_t replace,
                                                                   chorus_error **error);

/** Put the model together in a hidden folder `.NAME.partial` beside `folder`: reserve the space of every shard, write the headers.
 * @return CHORUS_OK; CHORUS_ALREADY_EXISTS: the folder is not empty; CHORUS_RESOURCE_EXHAUSTED: disk space, stating the
 *         bytes; CHORUS_ABORTED: another writer works there; CHORUS_PERMISSION_DENIED. Nothing remains after a failure.
 * @since 0.1 */
CHORUS_API chorus_status chorus_checkpoint_writer_create(const chorus_context *context,
                                                         const chorus_checkpoint_writer_spec *spec, const char *folder,
                                                         chorus_checkpoint_writer **out_writer, chorus_error **error);
/** Close the writer. Without a successful chorus_checkpoint_writer_finish() all it made is removed. @since 0.1 */
CHORUS_API void chorus_checkpoint_writer_destroy(chorus_checkpoint_writer *writer);

/** Write tensor `index` whole. `tensor` has its shape, is compact, and lies in host memory; dtypes as in
 * chorus_checkpoint_read(). Order is free.
 * @return CHORUS_OK; CHORUS_OUT_OF_RANGE; CHORUS_INVALID_ARGUMENT; CHORUS_UNIMPLEMENTED; CHORUS_FAILED_PRECONDITION:
 *         finished; CHORUS_RESOURCE_EXHAUSTED or CHORUS_UNAVAILABLE: the system refuses. @since 0.1 */
CHORUS_API chorus_status chorus_checkpoint_writer_write(chorus_checkpoint_writer *writer, size_t index,
                                                        const chorus_tensor *tensor, chorus_error **error);
/** Write `bytes` of tensor `index` from byte `offset` of its data on, as given. Each byte is to be written once.
 * @return as chorus_checkpoint_writer_write(); CHORUS_OUT_OF_RANGE: the range leaves the tensor. @since 0.1 */
CHORUS_API chorus_status chorus_checkpoint_writer_write_bytes(chorus_checkpoint_writer *writer, size_t index,
                                                              uint64_t offset, uint64_t bytes, const void *data,
                                                              chorus_error **error);
/** Sync the shards, copy the files beside them, give the hidden folder its final name in one step, and sync. After
 * CHORUS_OK the model survives a loss of power; before, no reader finds a part of it.
 * @return CHORUS_OK; CHORUS_FAILED_PRECONDITION: bytes of a tensor were not written, naming it, or finished already;
 *         what the system refuses. @since 0.1 */
CHORUS_API chorus_status chorus_checkpoint_writer_finish(chorus_checkpoint_writer *writer, chorus_error **error);

/* generated by tests/abi/layout.py: begin */
#define CHORUS_TENSOR_INFO_INIT {CHORUS_END_OF(chorus_tensor_info, reserved), NULL, 0, NULL, 0, 0, NULL, 0, 0, NULL, 0, 0, 0, 0, 0, 0}
/* generated by tests/abi/layout.py: end */

#ifdef __cplusplus
} /* extern "C" */
#endif
#endif /* CHORUS_CHECKPOINT_H_ */
