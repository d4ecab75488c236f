/* SPDX-License-Identifier: Apache-2.0
 *
 * The plugin ABI: what a backend implements. Standalone: it includes types.h alone, and a plugin links nothing of
 * libchorus. docs/plugins.md is the guide, docs/ops.md maps every method onto the descriptors below, and
 * plugins/template is the smallest backend.
 *
 * A backend is one shared library that exports one symbol, chorus_plugin_query(). It opens devices (memory spaces
 * with a name) and offers kernels: coarse, fused operations, each described by a plain C struct.
 *
 * Rules that hold everywhere in this file
 * - Growable structs start with struct_size, the end of the last field their author knew (CHORUS_END_OF). They are
 *   passed by pointer and never embedded. New fields are appended; zero means the old behaviour.
 * - Until 1.0 a plugin loads only if its layout hash equals the host's. From 1.0 on both compare with >=, never ==.
 * - Nothing may throw, abort, exit, print, install a signal handler, start a thread that outlives a call, or keep a
 *   pointer that a call lent it. Kernels run in parallel only through chorus_host.parallel_for.
 * - Every function may be called from any thread, several at once, unless its comment says otherwise.
 * - Errors: return a status and, once, host->set_error(slot, ...). The slot may be NULL. Text is UTF-8; it names the
 *   field, what was found and what is allowed.
 * - A plugin may assume that the host checked shapes, extents and alignment against the descriptor.
 */
#ifndef CHORUS_PLUGIN_H_
#define CHORUS_PLUGIN_H_

#include "types.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Versions ----------------------------------------------------------------------------- */

#define CHORUS_PLUGIN_MAGIC UINT64_C(0x6e6967756c704843) /**< "CHplugin", little endian. */
#define CHORUS_PLUGIN_ABI_MAJOR 0
#define CHORUS_PLUGIN_ABI_MINOR 1

/** Hash over the layout of every struct, slot and constant of this file and types.h. Generated; see tests/abi. */
#define CHORUS_PLUGIN_LAYOUT_HASH UINT64_C(0x08cdd25ff4b48b6f)

/** Sanitizer a binary was built with; host and plugin must agree. */
#define CHORUS_SANITIZER_NONE 0u
#define CHORUS_SANITIZER_ADDRESS 1u
#define CHORUS_SANITIZER_THREAD 2u
#define CHORUS_SANITIZER_MEMORY 3u

#if defined(__SANITIZE_ADDRESS__)
#define CHORUS_SANITIZER_THIS_BUILD CHORUS_SANITIZER_ADDRESS
#elif defined(__SANITIZE_THREAD__)
#define CHORUS_SANITIZER_THIS_BUILD CHORUS_SANITIZER_THREAD
#else
#define CHORUS_SANITIZER_THIS_BUILD CHORUS_SANITIZER_NONE
#endif

/* ---- What the host gives ------------------------------------------------------------------ */

/** Where an error goes: opaque to the plugin, may be NULL. */
typedef void *chorus_error_slot;

/** One piece of a parallel loop. `index` is the piece; pieces may run in any order, on any thread. */
typedef void (*chorus_task_fn)(void *argument, uint64_t index);

typedef int32_t chorus_option_type;
#define CHORUS_OPTION_STRING 0
#define CHORUS_OPTION_INTEGER 1
#define CHORUS_OPTION_NUMBER 2
#define CHORUS_OPTION_BOOLEAN 3

/** Services of the host. Lives as long as any device opened with it; a plugin may keep the pointer with its device. */
typedef struct chorus_host {
  size_t struct_size;
  void *self; /**< First argument of every function below. */

  /** Log one message (UTF-8, `length` bytes, no newline). Any thread. */
  void (*log)(void *self, chorus_log_level level, const char *message, size_t length);

  /** Describe a failure. Copies the text. Returns `code`, so that `return host->set_error(...)` reads well. */
  chorus_status (*set_error)(chorus_error_slot slot, chorus_status code, const char *message, size_t length);

  /** Memory of the host, `alignment` a power of two. NULL when there is none: return RESOURCE_EXHAUSTED. Tests fail
   * the n-th call, so do not allocate in `run`. */
  void *(*allocate)(void *self, uint64_t bytes, uint64_t alignment);
  void (*deallocate)(void *self, void *memory, uint64_t bytes, uint64_t alignment);

  /** Value of an option of this plugin's table as text, or its default. Valid while the device is open. */
  const char *(*get_option)(void *self, const char *name);

  /** Run `task(argument, i)` for i in [0, count) and return when all have. Serial when the pool has one thread, when
   * called from within a piece, and in a forked child. Pieces run in the default floating-point environment. */
  void (*parallel_for)(void *self, uint64_t count, chorus_task_fn task, void *argument);

  /** Threads parallel_for may use, at least 1. A hint for splitting work; results must not depend on it. */
  int32_t (*thread_count)(void *self);
} chorus_host;

/* ---- Devices ------------------------------------------------------------------------------ */

/** An opened device; the plugin's own struct. */
typedef struct chorus_plugin_device chorus_plugin_device;

/** A native stream or event, or NULL. */
typedef void *chorus_native_handle;

/** What a device is, known without opening it. */
typedef struct chorus_device_desc {
  size_t struct_size;
  const char *name;        /**< "cpu", "cuda:0", …; several plugins may serve one name, the best score wins. */
  const char *description; /**< For people: model of the processor, instruction set, memory. */
  int32_t device_type;     /**< CHORUS_DEVICE_*. */
  int32_t device_id;       /**< DLPack device id. */
} chorus_device_desc;

/** Memory and streams of a device whose memory the host may not dereference. */
typedef struct chorus_device_memory {
  size_t struct_size;
  chorus_status (*allocate)(chorus_plugin_device *device, uint64_t bytes, void **out_memory, chorus_error_slot slot);
  void (*free)(chorus_plugin_device *device, void *memory);
  /** Host memory that copies fast (pinned); freed by host_free. */
  chorus_status (*host_allocate)(chorus_plugin_device *device, uint64_t bytes, void **out_memory, chorus_error_slot slot);
  void (*host_free)(chorus_plugin_device *device, void *memory);
  /** Copy between this device and host memory or within the device, in `stream` order (NULL: done on return). */
  chorus_status (*copy)(chorus_plugin_device *device, void *to, const void *from, uint64_t bytes,
                        chorus_native_handle stream, chorus_error_slot slot);
  chorus_status (*stream_create)(chorus_plugin_device *device, chorus_native_handle *out_stream, chorus_error_slot slot);
  void (*stream_destroy)(chorus_plugin_device *device, chorus_native_handle stream);
  chorus_status (*stream_wait)(chorus_plugin_device *device, chorus_native_handle stream, chorus_error_slot slot);
  chorus_status (*event_create)(chorus_plugin_device *device, chorus_native_handle *out_event, chorus_error_slot slot);
  void (*event_destroy)(chorus_plugin_device *device, chorus_native_handle event);
  chorus_status (*event_record)(chorus_plugin_device *device, chorus_native_handle event, chorus_native_handle stream,
                                chorus_error_slot slot);
  /** Make `stream` wait for `event`; `stream` NULL: the calling thread waits. */
  chorus_status (*event_wait)(chorus_plugin_device *device, chorus_native_handle event, chorus_native_handle stream,
                              chorus_error_slot slot);
} chorus_device_memory;

/* ---- Kernels ------------------------------------------------------------------------------ */

/** One implementation of one operation.
 *
 * score and prepare run once, when an object is created, on the static part (the descriptor). run is called often,
 * from many threads at once, with pointers and shapes up to the maxima of the descriptor; it allocates nothing and
 * leaves the prepared state as it is. What data decide goes to status tensors, never to the return code.
 */
typedef struct chorus_kernel {
  size_t struct_size;
  const char *op;      /**< "combine.rows", "route.topk", … */
  uint32_t op_version; /**< 1. */
  uint32_t reserved;   /**< 0. */
  const char *name;    /**< Unique within the plugin; for logs and `chorus plugins`. */

  /** 0: cannot do `desc`, with the reason (which field, what is supported) written to `why` as text of at most
   * `why_bytes` bytes with its terminating 0. Above 0: can, and the highest score of a device wins. Reference: 1. */
  int32_t (*score)(chorus_plugin_device *device, const void *desc, char *why, size_t why_bytes);

  /** Build what the run needs (packed weights, tables). Copies what it keeps of `desc`. */
  chorus_status (*prepare)(chorus_plugin_device *device, const void *desc, void **out_prepared, chorus_error_slot slot);

  /** Bytes of workspace for `args`: a function of its counts (rows, tokens, elements) and of the descriptor alone. */
  uint64_t (*workspace_size)(const void *prepared, const void *args);

  /** Do it. `exec` is never NULL; its workspace has the size and alignment asked for. */
  chorus_status (*run)(const void *prepared, const void *args, const chorus_exec *exec, chorus_error_slot slot);

  void (*release)(void *prepared);

  /** Bytes `prepared` holds (packed weights); 0 when little. */
  uint64_t (*prepared_bytes)(const void *prepared);
} chorus_kernel;

/** A row of a plugin's option table; names start with the plugin's name and a dot. */
typedef struct chorus_plugin_option {
  size_t struct_size;
  const char *name;
  const char *default_value;
  const char *range; /**< For people: "1 to 64", "true or false", "a|b|c". */
  const char *doc;
  chorus_option_type type;
  int32_t reserved;
  double minimum, maximum; /**< For integers and numbers, inclusive. */
} chorus_plugin_option;

typedef struct chorus_plugin_query_args {
  size_t struct_size;
  uint32_t abi_major, abi_minor; /**< Of the host. */
  uint64_t layout_hash;          /**< Of the host. */
} chorus_plugin_query_args;

/** The answer of chorus_plugin_query(): static, read-only, alive as long as the process.
 * The fields up to and including `reserved` never change place. */
typedef struct chorus_plugin {
  uint64_t magic; /**< CHORUS_PLUGIN_MAGIC. */
  uint32_t abi_major, abi_minor;
  uint64_t struct_size; /**< End of the last field known. */
  uint64_t layout_hash; /**< CHORUS_PLUGIN_LAYOUT_HASH. */
  const char *name;     /**< "cpu": lower-case letters, digits, '-'. */
  const char *version;
  uint32_t sanitizer; /**< CHORUS_SANITIZER_THIS_BUILD. */
  uint32_t reserved0;
  uint64_t features; /**< 0; bits are not defined yet. */
  uint64_t reserved[8];

  /** Option table; may be NULL with count 0. */
  const chorus_plugin_option *const *options;
  uint64_t option_count;

  /** Devices present now. Cheap; opens nothing. NULL with count 0 is legal, with the reason in `why`. Required. */
  const chorus_device_desc *const *(*list_devices)(const chorus_host *host, uint64_t *out_count, char *why, size_t why_bytes);
  /** Open device `index` of that list. Required. */
  chorus_status (*open_device)(const chorus_host *host, uint64_t index, chorus_plugin_device **out_device,
                               chorus_error_slot slot);
  /** Close it; nothing made from it is alive. Required. */
  void (*close_device)(chorus_plugin_device *device);
  /** Kernels of the device; alive while it is open. Required. */
  const chorus_kernel *const *(*get_kernels)(chorus_plugin_device *device, uint64_t *out_count);
  /** NULL, or a function that returns NULL, for devices in host memory. */
  const chorus_device_memory *(*get_memory)(chorus_plugin_device *device);
  /** Wait for nothing; return the sticky asynchronous error of the device, if any. May be NULL. */
  chorus_status (*check_device)(chorus_plugin_device *device, chorus_error_slot slot);
} chorus_plugin;

/** The symbol a plugin exports; type of chorus_plugin_query. Cheap and pure; NULL: this host does not suit me. */
typedef const chorus_plugin *(*chorus_plugin_query_fn)(const chorus_plugin_query_args *args);
#define CHORUS_PLUGIN_QUERY_SYMBOL "chorus_plugin_query"

/* ==== Operations ============================================================================
 * A descriptor is the static part, args what a call brings. Tensors of args are in the device's memory; plain
 * pointers to arrays of tensors and the structs themselves are host memory. A NULL output is not computed.
 * Features a kernel does not know make its score 0: docs/ops.md says which field carries which method.
 */

/* ---- combine.rows -------------------------------------------------------------------------
 * N score rows -> any subset of outputs, for each of `rows` rows. Semantics: docs/numerics.md, "Combining". */
#define CHORUS_OP_COMBINE_ROWS "combine.rows"

typedef int32_t chorus_score_kind;
#define CHORUS_SCORES_LOGITS 0    /**< Any real numbers; a constant per row changes nothing. */
#define CHORUS_SCORES_LOG_PROBS 1 /**< Natural logarithms; normalised again over the valid tokens. */
#define CHORUS_SCORES_PROBS 2     /**< Probabilities >= 0; normalised again. A negative one counts as NaN. */

typedef int32_t chorus_combine_rule;
#define CHORUS_COMBINE_LINEAR 0      /**< p = sum w_i p_i / sum w_i, w_i >= 0 ("or"). */
#define CHORUS_COMBINE_LOG_LINEAR 1  /**< log p = sum w_i log p_i - log Z, any real w_i ("and", negative evidence). */
#define CHORUS_COMBINE_HOLDER 2      /**< p ~ (sum w_i p_i^r)^(1/r). */
#define CHORUS_COMBINE_MAX 3         /**< p ~ max_i p_i. */
#define CHORUS_COMBINE_MIN 4         /**< p ~ min_i p_i. */
#define CHORUS_COMBINE_MEDIAN 5      /**< p ~ median_i p_i. */
#define CHORUS_COMBINE_TRIMMED_MEAN 6 /**< p ~ mean without the `trim` highest and lowest. */
#define CHORUS_COMBINE_VOTE 7        /**< Weighted votes of the models' argmaxes. */
#define CHORUS_COMBINE_RANK_VOTE 8   /**< Weighted Borda count over the models' top `vote_k`. */
#define CHORUS_COMBINE_UNNORMALISED 9 /**< s = sum w_i log p_i, not normalised (shallow fusion, beam scores). */
#define CHORUS_COMBINE_CONDORCET 10 /**< The token that beats each other one, by weighted pairs over the top `vote_k`. */

/** What a token that a model lacks counts as. */
typedef int32_t chorus_combine_missing;
#define CHORUS_MISSING_BY_RULE 0       /**< Linear: probability 0. Log-linear: -inf for w > 0, term 0 for w < 0. */
#define CHORUS_MISSING_FLOOR 1         /**< Log-prob `missing_log_prob`. */
#define CHORUS_MISSING_UNKNOWN 2       /**< The model's probability of `unknown_id`. */
#define CHORUS_MISSING_UNKNOWN_SHARED 3 /**< That, divided by the number of tokens the model lacks. */
#define CHORUS_MISSING_SKIP 4          /**< The model does not count for this token; the other weights are rescaled. */
#define CHORUS_MISSING_NEUTRAL 5       /**< Term 0, whatever the sign of w. */

/** Bits of the row status. A row with none is valid. */
#define CHORUS_ROW_OK 0
#define CHORUS_ROW_EMPTY_SUPPORT 1  /**< No token has positive probability: log-probs -inf, token -1. */
#define CHORUS_ROW_NAN 2            /**< A score that counts is NaN: log-probs NaN, token -1. Other rows are untouched. */
#define CHORUS_ROW_MODEL_EMPTY 4    /**< A model with positive weight has no support; linear left it out. */
#define CHORUS_ROW_INFINITE 8       /**< A +inf score: that model is one-hot, shared equally by its +inf tokens. */
#define CHORUS_ROW_BAD_WEIGHT 16    /**< A weight tensor holds NaN, an infinity, or (linear) a negative or all zeros. */
#define CHORUS_ROW_BAD_TOKEN 32     /**< A token to score is outside [0, n_tokens); its log-prob is NaN. */
#define CHORUS_ROW_LOSS_INFINITE 64 /**< combine.distill: one distribution lacks what the other has; the gradient is 0. */

/** The static part of one model's scores. */
typedef struct chorus_combine_model {
  size_t struct_size;
  chorus_score_kind kind;
  chorus_dtype dtype;  /**< f32, f16, bf16. */
  int64_t n_logits;    /**< Row length of the score tensor (padding included). */
  int64_t n_valid;     /**< Tokens that exist: ids >= n_valid are -inf before anything else. 1 <= n_valid <= n_logits. */
  double weight;       /**< Default weight; exactly 0: never read, may be absent. */
  double temperature;  /**< Default temperature, >= 0; 0 is argmax, lowest id wins. */
  double top_p;        /**< Pre-filter: 0 or 1 = none. */
  int64_t top_k;       /**< Pre-filter: 0 = none. */
  double plausibility; /**< alpha of contrastive decoding: keep tokens with p >= alpha * max p; 0 = none. */
  uint32_t has_bias, has_mask;     /**< args bring a bias row / an allowed-token bitmask. */
  const chorus_tensor *map_offsets; /**< CSR from output token to this model's tokens, i64 [n_tokens + 1]; NULL: identity. */
  const chorus_tensor *map_ids;     /**< i32, ids of this model, summed in this order. */
  const chorus_tensor *map_values;  /**< f32, factor of each entry of map_ids (soft maps); NULL: 1. */
  chorus_combine_missing missing;   /**< CHORUS_MISSING_*. */
  int32_t unknown_id;
  double missing_log_prob;          /**< Of CHORUS_MISSING_FLOOR, <= 0. */
} chorus_combine_model;

typedef struct chorus_combine_desc {
  size_t struct_size;
  chorus_combine_rule rule;
  int32_t n_models; /**< 1 to CHORUS_COMBINE_MAX_MODELS. */
  const chorus_combine_model *const *models;
  int64_t n_tokens; /**< V, the output vocabulary. A model with n_valid < V lacks the tail (−inf). */
  int64_t max_rows;
  uint32_t outputs;   /**< CHORUS_COMBINE_OUT_* bits a call may ask for. */
  chorus_dtype log_probs_dtype; /**< f32 (f16, bf16 later). */
  uint32_t weight_rows; /**< 0: weights are [N]; 1: [rows, N]. */
  uint32_t base_model;  /**< 0: a filter removes tokens from its own model. i + 1: model i's filters decide the support. */
  double order;         /**< r of the Hölder mean. */
  int32_t trim, vote_k;
  /* After combining. 1, 0, 0, 0, 0 = off. */
  double temperature, top_p, min_p, typical_p;
  int64_t top_k;
  uint32_t has_penalties; /**< args bring repetition / presence / frequency penalties. */
  uint32_t has_neighbours; /**< args bring a sparse list (kNN) as one more model. */
  chorus_score_kind neighbours_kind; /**< LOGITS (distances negated), LOG_PROBS or PROBS; normalised over each list. */
  int32_t n_top;             /**< Tokens of OUT_TOP_K. */
  double neighbours_weight;  /**< Default weight of the list; in a weight tensor the list is the last column. */
} chorus_combine_desc;

#define CHORUS_COMBINE_MAX_MODELS 64

#define CHORUS_COMBINE_OUT_LOG_PROBS 1u
#define CHORUS_COMBINE_OUT_ARGMAX 2u
#define CHORUS_COMBINE_OUT_SAMPLE 4u
#define CHORUS_COMBINE_OUT_TOKEN_LOG_PROBS 8u
#define CHORUS_COMBINE_OUT_STATUS 16u
#define CHORUS_COMBINE_OUT_TOP_K 32u
#define CHORUS_COMBINE_OUT_DIAGNOSTICS 64u
#define CHORUS_COMBINE_OUT_GRADIENT_SUMS 128u
#define CHORUS_COMBINE_OUT_PROBS 256u
#define CHORUS_COMBINE_OUT_MODEL_TOKEN_LOG_PROBS 512u

typedef struct chorus_combine_args {
  size_t struct_size;
  int64_t rows;                         /**< B, 0 to max_rows. */
  const chorus_tensor *const *scores;   /**< N tensors [B, n_logits]; NULL where the (host-side) weight is 0. */
  const chorus_tensor *weights;         /**< f32 [N] or [B, N]; NULL: the descriptor's. */
  const chorus_tensor *temperatures;    /**< f32 [N]; NULL: the descriptor's. */
  const chorus_tensor *row_ids;         /**< i64 [B]; NULL: 0, 1, … */
  const chorus_tensor *steps;           /**< i64 [B]; NULL: `step`. */
  uint64_t seed, step;
  const chorus_tensor *tokens;          /**< i32 or i64 [B, n]: tokens to score. */
  /* Outputs. */
  const chorus_tensor *log_probs;       /**< [B, V]. */
  const chorus_tensor *argmax;          /**< i32 [B]: highest probability, lowest id wins. */
  const chorus_tensor *argmax_log_prob; /**< f32 [B]. */
  const chorus_tensor *sample;          /**< i32 [B]. */
  const chorus_tensor *sample_log_prob; /**< f32 [B]: exact log-prob of it under the combination. */
  const chorus_tensor *token_log_probs; /**< f32 [B, n]. */
  const chorus_tensor *status;          /**< i32 [B]: CHORUS_ROW_* bits. */
  /* Inputs that the descriptor announces. */
  const chorus_tensor *const *biases;   /**< N tensors f32 [n_logits] or [B, n_logits], added to the scores; where has_bias. */
  const chorus_tensor *const *masks;    /**< N tensors u32 [B, ceil(n_logits / 32)], bit 1 = allowed; where has_mask. */
  const chorus_tensor *history_offsets; /**< i64 [B + 1], has_penalties: CSR of the tokens each row has seen. */
  const chorus_tensor *history_ids;     /**< i32. */
  const chorus_tensor *penalties;       /**< f32 [B, 3]: repetition, presence, frequency. */
  const chorus_tensor *neighbours_offsets; /**< i64 [B + 1], has_neighbours. */
  const chorus_tensor *neighbours_ids;     /**< i32 token ids; one may occur often: its probabilities add up. */
  const chorus_tensor *neighbours_scores;  /**< f32. */
  /* Outputs of the bits above STATUS. */
  const chorus_tensor *top_ids;         /**< i32 [B, n_top], best first; -1 past the support. */
  const chorus_tensor *top_log_probs;   /**< f32 [B, n_top]. */
  const chorus_tensor *tail_log_prob;   /**< f32 [B]: mass of all other tokens. */
  const chorus_tensor *diagnostics;     /**< f32 [B, 3 + 2N]: entropy, sum lambda_i H_i, their gap by KL; H_i; max p_i. */
  const chorus_tensor *gradient_sums;   /**< f64 [B, N + N(N+1)/2]: E[l_i], Cov(l_i, l_j) under the combination. */
  const chorus_tensor *probs;           /**< [B, V], dtype of log_probs. */
  const chorus_tensor *model_token_log_probs; /**< f32 [B, n, N]: log p_i of `tokens` under each model alone. */
} chorus_combine_args;

/* ---- combine.distill ----------------------------------------------------------------------
 * Teacher distributions x student logits -> loss and its gradient, per row. docs/numerics.md, "Distilling". */
#define CHORUS_OP_COMBINE_DISTILL "combine.distill"

/** With teacher p, student q, both after the temperature. */
typedef int32_t chorus_distill_loss;
#define CHORUS_DISTILL_FORWARD_KL 0      /**< KL(p || q). */
#define CHORUS_DISTILL_REVERSE_KL 1      /**< KL(q || p). */
#define CHORUS_DISTILL_JS 2              /**< beta KL(p || m) + (1 - beta) KL(q || m), m = beta p + (1 - beta) q; beta 0 is the
                                              forward, 1 the reverse KL (TRL's convention). */
#define CHORUS_DISTILL_TOTAL_VARIATION 3 /**< sum |p - q| / 2. */

typedef struct chorus_distill_desc {
  size_t struct_size;
  chorus_distill_loss loss;
  chorus_score_kind teacher_kind; /**< Of teacher rows: logits, log-probs or probs. */
  chorus_dtype student_dtype;     /**< f32, f16, bf16. */
  chorus_dtype teacher_dtype;     /**< f32, f16, bf16. */
  chorus_dtype gradient_dtype;    /**< f32, f16, bf16. */
  int32_t n_sparse;               /**< 0: teacher rows; k: sparse targets, k tokens and a tail bucket. At most 4096. */
  int64_t n_tokens;               /**< V. */
  int64_t max_rows;
  double beta;                    /**< Of JS, 0 to 1. */
  double temperature;             /**< > 0: of the student, and of teacher rows. Sparse targets have theirs applied. */
  double scale;                   /**< Factor of loss and gradient (T^2, 1 / rows, …); 0: 1. */
} chorus_distill_desc;

#define CHORUS_DISTILL_MAX_SPARSE 4096

typedef struct chorus_distill_args {
  size_t struct_size;
  int64_t rows;
  const chorus_tensor *student;          /**< [B, >= V] logits. */
  const chorus_tensor *teacher;          /**< [B, >= V]; n_sparse 0. */
  const chorus_tensor *target_ids;       /**< i32 [B, k], distinct; -1: no token. */
  const chorus_tensor *target_log_probs; /**< f32 [B, k]. */
  const chorus_tensor *tail_log_probs;   /**< f32 [B], of all other tokens; NULL: -inf. Normalised with the above. */
  const chorus_tensor *row_weights;      /**< f32 [B], finite; NULL: 1. 0: the row is not read, loss and gradient are 0. */
  const chorus_tensor *loss;             /**< f32 [B], output. */
  const chorus_tensor *gradient;         /**< [B, V], output: of the row's loss by the student's logits. */
  const chorus_tensor *status;           /**< i32 [B], output: CHORUS_ROW_* bits. */
} chorus_distill_args;

/* ---- merge.reduce, merge.apply ------------------------------------------------------------
 * Element-wise work on aligned pieces of tensors. A piece starts at a multiple of CHORUS_BLOCK elements (per row: it is a
 * run of whole rows; per column: a band of columns); element i of every input belongs together. Inputs, base,
 * output, statistic and row_softmax are in the device's memory, arrays of numbers (weights, cuts, keys, …) in the host's.
 * The key of a magnitude is its f32 pattern (rounded to nearest even), 31 bits. */
#define CHORUS_OP_MERGE_REDUCE "merge.reduce"
#define CHORUS_OP_MERGE_APPLY "merge.apply"

/** Elements of a reduction block (docs/numerics.md, "Reductions"). */
#define CHORUS_BLOCK 4096
/** Virtual lanes that accumulate a block. */
#define CHORUS_LANES 32
#define CHORUS_MERGE_MAX_INPUTS 64

typedef int32_t chorus_merge_operand;
#define CHORUS_OPERAND_X 0              /**< x_i. */
#define CHORUS_OPERAND_DELTA 1          /**< x_i - base. */
#define CHORUS_OPERAND_WEIGHTED_DELTA 2 /**< w_i (x_i - base). In merge.apply: a delta, and consensus votes with w_i times it. */

typedef int32_t chorus_merge_granularity;
#define CHORUS_PER_TENSOR 0
#define CHORUS_PER_ROW 1
#define CHORUS_PER_COLUMN 2

typedef int32_t chorus_merge_statistic;
/** Sums are per group (row, column) unless granularity is per tensor; counts are of the whole piece. */
#define CHORUS_STATISTIC_GRAM 0      /**< f64 [groups, n(n+1)/2], n operands (inputs; with OPERAND_X the base is the last): <a_i, a_j>, i <= j. */
#define CHORUS_STATISTIC_SUM 1       /**< f64 [groups, n]: sum of |operand|. */
#define CHORUS_STATISTIC_HISTOGRAM 2 /**< u64 [n, 65536]: key of |operand|, by the up to 16 bits after the first prefix_bits. */
#define CHORUS_STATISTIC_COUNT 3     /**< u64 [n, n]: entry (i, m): elements where i and m others satisfy the predicate. */
#define CHORUS_STATISTIC_VARIANCE_HISTOGRAM 4 /**< u64 [65536]: key of the population variance over the models. */
#define CHORUS_STATISTIC_ROW_SOFTMAX 5        /**< f64 [rows, n, 2]: max and sum of exp; the base last. */
#define CHORUS_STATISTIC_ROW_KL 6             /**< f64 [rows, n]: KL(softmax(x_i) || softmax(base)), epsilon added to both. */

typedef int32_t chorus_merge_predicate;
#define CHORUS_PREDICATE_ALL 0
#define CHORUS_PREDICATE_ABOVE_EPSILON 1 /**< |operand| > epsilon. */
#define CHORUS_PREDICATE_KEPT 2          /**< What the sparsify stage keeps. */
#define CHORUS_PREDICATE_PREFIX 3        /**< First prefix_bits of the key equal to prefixes[i] (second histogram pass). */
#define CHORUS_PREDICATE_TIE 4           /**< Key equal to that of the cut. */

typedef int32_t chorus_merge_sparsify;
#define CHORUS_SPARSIFY_NONE 0
#define CHORUS_SPARSIFY_MAGNITUDE_CUT 1 /**< Keep |delta| > cut_i, and the piece's first ties_i elements equal to it. */
#define CHORUS_SPARSIFY_BAND 2          /**< Keep above the lower and not above the upper of two cuts (breadcrumbs). */
#define CHORUS_SPARSIFY_BERNOULLI 3     /**< Keep with probability density_i, drawn by (seed, model, tensor, element). */
#define CHORUS_SPARSIFY_RANK 4          /**< Keep with density_i -+ epsilon_i by the magnitude's rank in its group (DELLA). */
#define CHORUS_SPARSIFY_STATISTIC_CUT 5 /**< Keep where `cut_statistic` reaches a cut (SCE, fusion). */

/** The statistic of CHORUS_SPARSIFY_STATISTIC_CUT. */
typedef int32_t chorus_merge_cut_statistic;
#define CHORUS_CUT_VARIANCE 0           /**< Population variance of the deltas over the models; cuts [1], ties [1]. */
#define CHORUS_CUT_SCALED_MAGNITUDE 1   /**< cut_scales_i |delta_i|; cuts [n_inputs]. */

typedef int32_t chorus_merge_rescale;
#define CHORUS_RESCALE_NONE 0
#define CHORUS_RESCALE_L1 1           /**< times sum|operand| / sum|kept|. */
#define CHORUS_RESCALE_INVERSE_DENSITY 2

typedef int32_t chorus_merge_consensus;
#define CHORUS_CONSENSUS_NONE 0
#define CHORUS_CONSENSUS_SIGN 1 /**< Keep what agrees with the sign of the sum; 0 elects +. */

typedef int32_t chorus_merge_combine;
#define CHORUS_MERGE_SUM 0           /**< sum w_i a_i. */
#define CHORUS_MERGE_MEAN 1          /**< sum w_i a_i / sum w_i. */
#define CHORUS_MERGE_MEAN_OF_KEPT 2  /**< sum w_i a_i / sum of the w_i kept at this element. */
#define CHORUS_MERGE_COEFFICIENTS 3  /**< sum c_i x_i (+ c_base base): coefficients come from a Gram. */

typedef int32_t chorus_merge_numerics;
#define CHORUS_NUMERICS_ACCURATE 0 /**< f64 inside, mul and add in input order, one rounding to nearest even. */
#define CHORUS_NUMERICS_MERGEKIT 1 /**< mergekit's rounding chain. */

typedef struct chorus_merge_reduce_desc {
  size_t struct_size;
  int32_t n_inputs;
  uint32_t has_base;
  const chorus_dtype *input_dtypes; /**< [n_inputs]. */
  chorus_dtype base_dtype;
  chorus_merge_operand operand;
  chorus_merge_statistic statistic;
  chorus_merge_predicate predicate;
  chorus_merge_granularity granularity;
  chorus_merge_numerics numerics;
  uint64_t max_elements; /**< Of one piece. */
  double epsilon;
  chorus_merge_sparsify sparsify; /**< What PREDICATE_KEPT asks. */
  chorus_merge_cut_statistic cut_statistic;
  chorus_dtype work_dtype; /**< Of NUMERICS_MERGEKIT: what deltas are rounded to. */
} chorus_merge_reduce_desc;

/** One piece. The result is that piece's statistic alone: the blocks of the piece joined in the pairwise tree over
 * their index. The host joins pieces, aligned runs of 2^k blocks, in the same tree, so the split changes no bit. */
typedef struct chorus_merge_reduce_args {
  size_t struct_size;
  uint64_t begin; /**< Index of the first element, a multiple of CHORUS_BLOCK. */
  uint64_t count; /**< Elements, <= max_elements. */
  uint64_t columns; /**< Row length of the tensor (its last dimension). */
  const void *const *inputs; /**< [n_inputs], element `begin`. NULL where the weight is 0. */
  const void *base;
  const double *weights; /**< [n_inputs], or [groups, n_inputs] unless granularity is per tensor; host memory. */
  const uint32_t *prefixes; /**< [n_inputs] ([1] for the variance): upper bits of the key found so far. */
  void *statistic;       /**< Overwritten, layout as CHORUS_STATISTIC_* says; in the device's memory. */
  uint64_t statistic_bytes;
  uint32_t prefix_bits;  /**< 0 in the first histogram pass, 16 in the second. */
  uint32_t reserved;     /**< 0. */
  const double *cuts;    /**< This and the next six: as in chorus_merge_args, for PREDICATE_KEPT and PREDICATE_TIE. */
  const uint64_t *ties;
  const double *densities, *epsilons;
  const uint64_t *keys;
  const double *cut_scales;
  uint64_t rows, row_stride; /**< As in chorus_merge_args. */
  const double *row_softmax; /**< f64 [rows, n, 2] of the piece's rows, for STATISTIC_ROW_KL. */
} chorus_merge_reduce_args;

typedef struct chorus_merge_desc {
  size_t struct_size;
  int32_t n_inputs;
  uint32_t has_base;
  const chorus_dtype *input_dtypes; /**< [n_inputs]. */
  chorus_dtype base_dtype;
  chorus_dtype output_dtype;
  chorus_merge_operand operand;
  chorus_merge_granularity granularity;
  chorus_merge_sparsify sparsify;
  chorus_merge_rescale rescale;
  chorus_merge_consensus consensus;
  chorus_merge_combine combine;
  chorus_merge_numerics numerics;
  uint32_t add_base;
  uint64_t max_elements;
  double divisor_floor; /**< MEAN_OF_KEPT divides by max(divisor, it); 0: by the divisor, or 1 where that is exactly 0. */
  chorus_merge_cut_statistic cut_statistic;
  chorus_dtype work_dtype; /**< Of NUMERICS_MERGEKIT: the dtype of its rounding chain. */
} chorus_merge_desc;

typedef struct chorus_merge_args {
  size_t struct_size;
  uint64_t begin, count, columns; /**< As in chorus_merge_reduce_args. */
  const void *const *inputs;      /**< [n_inputs]; NULL where the weight (coefficient) is 0. */
  const void *base;
  void *output;
  const double *weights; /**< [n_inputs] w_i, or with MERGE_COEFFICIENTS [n_inputs + has_base] c_i, base last; host memory.
                          * PER_ROW, PER_COLUMN: one such vector for each row (column) of the piece. */
  double lambda;
  const double *cuts;     /**< [n_inputs] thresholds of the sparsify stage; [n_inputs, 2] lower and upper with SPARSIFY_BAND. */
  const uint64_t *ties;   /**< As cuts: how many of this piece's elements equal to the cut count as above it, the first ones. */
  const double *densities; /**< [n_inputs]. */
  const double *rescales;  /**< [n_inputs] factors of what is kept, for RESCALE_L1. */
  const uint64_t *keys;    /**< [n_inputs] RNG keys of (seed, model, tensor name). */
  const double *epsilons;  /**< [n_inputs], of SPARSIFY_RANK. */
  const double *cut_scales; /**< [groups, n_inputs], of CUT_SCALED_MAGNITUDE. */
  const double *unique_scales; /**< [n_inputs], MEAN_OF_KEPT: factor of an element kept in one input alone; NULL: 1. */
  uint64_t rows;       /**< PER_COLUMN: the piece is `rows` by `columns`, all rows of a band of columns. */
  uint64_t row_stride; /**< PER_COLUMN: elements from one of its rows to the next. */
} chorus_merge_args;

/* ---- route.topk ---------------------------------------------------------------------------
 * logits [T, E] -> routing. Contract: docs/numerics.md, "Routing". */
#define CHORUS_OP_ROUTE_TOPK "route.topk"

typedef int32_t chorus_route_score;
#define CHORUS_ROUTE_SOFTMAX 0
#define CHORUS_ROUTE_SIGMOID 1
#define CHORUS_ROUTE_SQRT_SOFTPLUS 2
#define CHORUS_ROUTE_IDENTITY 3
#define CHORUS_ROUTE_RELU 4

/** Where top-k sits. */
typedef int32_t chorus_route_order;
#define CHORUS_ROUTE_SCORE_THEN_TOPK 0 /**< Scores of all experts, then the k best. */
#define CHORUS_ROUTE_TOPK_THEN_SCORE 1 /**< The k best logits, then scores over those (Shazeer, gpt-oss, Llama 4). */

/** Who chooses. */
typedef int32_t chorus_route_selection;
#define CHORUS_ROUTE_TOKENS_CHOOSE 0
#define CHORUS_ROUTE_EXPERTS_CHOOSE 1 /**< Each expert takes its top-C tokens. */
#define CHORUS_ROUTE_HASH_TABLE 2     /**< ids from a table by token id. */
#define CHORUS_ROUTE_GIVEN 3          /**< ids are an input. */
#define CHORUS_ROUTE_POSITIVE 4       /**< Every expert with a positive score (ReLU). */
#define CHORUS_ROUTE_RANDOM_SECOND 5  /**< GShard: the second with probability 2 g_2, g normalised over the two. */
#define CHORUS_ROUTE_RANDOM_SECOND_RAW 6 /**< NLLB: the second with probability 2 p_2. */
#define CHORUS_ROUTE_GUMBEL_SECOND 7  /**< DeepSpeed: the second drawn from the softmax without the first. */

typedef int32_t chorus_route_group_score;
#define CHORUS_ROUTE_GROUP_MAX 0
#define CHORUS_ROUTE_GROUP_TOP_SUM 1

typedef int32_t chorus_route_renormalise;
#define CHORUS_ROUTE_RENORMALISE_NONE 0
#define CHORUS_ROUTE_RENORMALISE_SUM 1      /**< w / (sum w + eps). */
#define CHORUS_ROUTE_RENORMALISE_CLAMPED 2  /**< w / max(sum w, eps). */

typedef int32_t chorus_route_drop;
#define CHORUS_ROUTE_DROP_NONE 0
#define CHORUS_ROUTE_DROP_BY_POSITION 1
#define CHORUS_ROUTE_DROP_BY_SCORE 2    /**< Keeps an expert's highest weights. */
#define CHORUS_ROUTE_DROP_BY_CHOICE 3   /**< All first choices by position, then all second ones, … (GShard). */
#define CHORUS_ROUTE_DROP_BY_PRIORITY 4 /**< BY_CHOICE with tokens in order of their best score (Tutel, V-MoE). */
#define CHORUS_ROUTE_DROP_AT_RANDOM 5   /**< DeepSpeed's random token selection. */

/** Outputs beside ids, weights and the lists, which every kernel has. */
#define CHORUS_ROUTE_OUT_EXPERT_LISTS 1u /**< expert_tokens, expert_weights. */
#define CHORUS_ROUTE_OUT_BLOCKS 2u       /**< padded_order, block_experts, n_blocks. */
#define CHORUS_ROUTE_OUT_BITMAP 4u
#define CHORUS_ROUTE_OUT_SCORE_SUMS 8u

typedef struct chorus_route_desc {
  size_t struct_size;
  int32_t n_experts; /**< E, 1 to 8192. */
  int32_t k;         /**< 1 to min(64, E). */
  int64_t max_tokens;
  chorus_dtype logits_dtype; /**< f32, f16, bf16. */
  chorus_dtype ids_dtype;     /**< i32 or i64. */
  chorus_dtype weights_dtype; /**< f32 or bf16. */
  chorus_route_score score;
  chorus_route_order order;
  chorus_route_selection selection;
  uint32_t has_bias; /**< args bring f32 [E] added to the scores for selection only. */
  int32_t n_groups, topk_groups; /**< 0 or 1: no groups. */
  chorus_route_group_score group_score;
  int32_t group_top; /**< m of GROUP_TOP_SUM. */
  chorus_route_renormalise renormalise;
  double epsilon;
  double scale;         /**< Factor of the final weights; 1 = none. */
  double noise;         /**< Standard deviation of normal noise on the logits, >= 0; 0 = none. */
  double temperature;   /**< Of the logits; 1 = none. */
  int64_t capacity;     /**< Slots per expert; 0 = no limit. */
  chorus_route_drop drop;
  int32_t block;        /**< Block size of padded lists; 0 = none. */
  uint32_t weight_before; /**< 1: the weight multiplies the expert's input. Carried to experts.ffn. */
  uint32_t outputs;       /**< CHORUS_ROUTE_OUT_* bits a call may ask for. */
  double capacity_factor; /**< With capacity 0 and a drop rule, or EXPERTS_CHOOSE: ceil(factor * valid tokens * k / E). */
  int64_t capacity_minimum, capacity_multiple; /**< Of that: at least, rounded up to a multiple of; 0 = none. */
  const chorus_tensor *hash_table; /**< HASH_TABLE: i32 [token ids, k], read by prepare alone. */
  uint32_t renormalise_last; /**< 1: over the slots that the drop rule left (DeepSpeed, NLLB); 0: before dropping. */
} chorus_route_desc;

typedef struct chorus_route_args {
  size_t struct_size;
  int64_t tokens;              /**< T, 0 to max_tokens. */
  const chorus_tensor *logits; /**< [T, E], any row stride. */
  const chorus_tensor *bias;   /**< f32 [E]. */
  const chorus_tensor *n_valid; /**< i64 [1]: rows >= it are padding (id -1, weight 0, not counted). NULL: all valid. */
  /* Outputs. */
  const chorus_tensor *ids;     /**< [T, k]. */
  const chorus_tensor *weights; /**< [T, k]. */
  const chorus_tensor *counts;  /**< i32 [E]: slots per expert. */
  const chorus_tensor *offsets; /**< i32 [E + 1]: exclusive prefix sums of counts. */
  const chorus_tensor *order;   /**< i32 [T * k]: slots t*k+j sorted by expert, then by slot; -1 past offsets[E]. */
  const chorus_tensor *inverse; /**< i32 [T * k]: position of each slot in order; -1 for padding. */
  /* Inputs that the descriptor announces. */
  const chorus_tensor *noise_scales; /**< f32 [T, E]: factor of `noise` (noisy top-k's softplus); NULL: 1. */
  const chorus_tensor *row_ids;      /**< i64 [T], keys of the random numbers; NULL: 0, 1, … */
  const chorus_tensor *token_ids;    /**< i32 or i64 [T], HASH_TABLE. */
  const chorus_tensor *given_ids;    /**< i32 or i64 [T, k], GIVEN. */
  uint64_t seed, step;
  /* Outputs of desc.outputs. */
  const chorus_tensor *expert_tokens;  /**< i32 [E, C]: tokens of each expert, best first; -1 past them. C: T if no limit. */
  const chorus_tensor *expert_weights; /**< f32 [E, C]. */
  const chorus_tensor *padded_order;   /**< i32 [T * k + E * (block - 1)]: order with each expert padded to blocks by -1. */
  const chorus_tensor *block_experts;  /**< i32 [ceil(size of padded_order / block)]: the expert of each block, then -1. */
  const chorus_tensor *n_blocks;       /**< i32 [1]. */
  const chorus_tensor *bitmap;         /**< u8 [T, ceil(E / 8)], lowest bit first. */
  const chorus_tensor *score_sums;     /**< f64 [E]: sum over valid tokens of the scores (load-balance losses). */
} chorus_route_args;

/* ---- experts.ffn --------------------------------------------------------------------------
 * y_t = sum_j weight_tj * down_e(act(gate_e x_t) * up_e x_t), e = ids_tj. Accumulates in f32 or better, slots joined
 * in order j = 0, 1, …; rounds once at the end. */
#define CHORUS_OP_EXPERTS_FFN "experts.ffn"

typedef int32_t chorus_activation;
#define CHORUS_ACTIVATION_SWIGLU 0  /**< silu(gate) * up. */
#define CHORUS_ACTIVATION_GEGLU 1   /**< gelu(gate) * up, gelu by tanh ("gelu_new", "gelu_pytorch_tanh"). */
#define CHORUS_ACTIVATION_REGLU 2   /**< max(gate, 0) * up. */
#define CHORUS_ACTIVATION_RELU 3    /**< max(up, 0). No gate: gate_up is [n_experts, I, H]. */
#define CHORUS_ACTIVATION_RELU2 4   /**< max(up, 0)^2. No gate. */
#define CHORUS_ACTIVATION_GPT_OSS 5 /**< (up + 1) * gate * sigmoid(1.702 gate). */

typedef int32_t chorus_gate_layout;
#define CHORUS_GATE_UP_CONCATENATED 0 /**< Rows 0…I-1 gate, I…2I-1 up. */
#define CHORUS_UP_GATE_CONCATENATED 1
#define CHORUS_GATE_UP_INTERLEAVED 2  /**< Rows gate 0, up 0, gate 1, … */

typedef struct chorus_experts_desc {
  size_t struct_size;
  int32_t n_experts; /**< Held here, the shared ones included. */
  int32_t k;
  int64_t hidden;       /**< H. */
  int64_t intermediate; /**< I. */
  int64_t max_tokens;
  chorus_dtype weights_dtype; /**< f32, bf16, f16, i8, i4; the last two with gate_up->quant and down->quant. */
  chorus_dtype x_dtype, y_dtype; /**< f32 or bf16. */
  chorus_dtype ids_dtype;     /**< i32 or i64. */
  chorus_activation activation;
  chorus_gate_layout layout;
  double limit; /**< Gate (bias included) to at most it, up to ±it, before the activation; 0 = none. */
  uint32_t weight_before; /**< 1: the routing weight multiplies x (Llama 4). */
  uint32_t batch_invariant; /**< 1: a token's bytes do not depend on the rest of its batch. */
  const chorus_tensor *gate_up;      /**< [n_experts, 2I, H], host memory or the device's; read by prepare alone. i4: bytes. */
  const chorus_tensor *down;         /**< [n_experts, H, I], dtype and packing of gate_up. */
  const chorus_tensor *gate_up_bias; /**< f32 [n_experts, 2I] or NULL. */
  const chorus_tensor *down_bias;    /**< f32 [n_experts, H] or NULL. */
  const chorus_tensor *expert_map;   /**< i32 [global experts]: local index or -1 (contributes 0); NULL: identity. */
  int32_t n_shared; /**< The last n_shared experts work on every token with weight 1, after its slots; ids do not name them. */
} chorus_experts_desc;

typedef struct chorus_experts_args {
  size_t struct_size;
  int64_t tokens;               /**< T, 0 to max_tokens. */
  const chorus_tensor *x;       /**< [T, H]. */
  const chorus_tensor *ids;     /**< [T, k]; a negative id contributes 0. */
  const chorus_tensor *weights; /**< f32 [T, k]; a weight of exactly 0 contributes 0 and its expert is not computed. */
  const chorus_tensor *y;       /**< [T, H], output. */
  const chorus_tensor *status;  /**< i32 [T] or NULL, output: CHORUS_ROW_BAD_TOKEN where an id is >= the number of experts. */
} chorus_experts_args;

/* ---- sparse.gemv and sparse.ffn ------------------------------------------------------------
 * Products of a matrix and a few rows that skip what a row of zeros (or a list) makes needless. Each row has a set of its own:
 * a row's result does not depend on its batch. What is skipped is not read. Contract: docs/numerics.md, "Sparse rows". */
#define CHORUS_OP_SPARSE_GEMV "sparse.gemv"
#define CHORUS_OP_SPARSE_FFN "sparse.ffn"

/** Which indices of a row are kept. */
typedef int32_t chorus_sparse_pick;
#define CHORUS_SPARSE_NONZERO 0   /**< The value is not exactly 0 (ReLU); NaN is kept. */
#define CHORUS_SPARSE_MAGNITUDE 1 /**< Not |value| <= threshold (TEAL, CATS); NaN is kept. */
#define CHORUS_SPARSE_SCORES 2    /**< args' score >= threshold (a predictor's); NaN is not kept. */
#define CHORUS_SPARSE_GIVEN 3     /**< args' list. */

/** Which side of y = W x is skipped. */
typedef int32_t chorus_sparse_side;
#define CHORUS_SPARSE_INPUTS 0  /**< y = sum over kept i of x_i times column i of W. */
#define CHORUS_SPARSE_OUTPUTS 1 /**< y_o for kept o alone, the others 0; SCORES or GIVEN. */

typedef struct chorus_sparse_gemv_desc {
  size_t struct_size;
  int64_t inputs, outputs;
  int32_t max_rows; /**< 1 to 8. */
  chorus_sparse_side side;
  chorus_sparse_pick pick;       /**< The values are x. */
  chorus_dtype weights_dtype;    /**< f32, bf16, i8 (with weights->quant: a scale per output). */
  chorus_dtype x_dtype, y_dtype; /**< f32 or bf16. */
  double threshold;              /**< >= 0 with MAGNITUDE; any with SCORES. */
  double dense_above;            /**< A row that keeps more than this part skips nothing; 0 or >= 1: never. */
  const chorus_tensor *weights;  /**< [outputs, inputs], host memory or the device's; read by prepare alone. */
  const chorus_tensor *bias;     /**< f32 [outputs] or NULL; with OUTPUTS of the kept ones. */
} chorus_sparse_gemv_desc;

/** y = down h, h_i = act(gate_i x) * (up_i x) for kept i, else 0. NONZERO and MAGNITUDE ask it of the activated gate, act(gate_i
 * x), before up is read; without a gate of h_i. SCORES and GIVEN skip all three. */
typedef struct chorus_sparse_ffn_desc {
  size_t struct_size;
  int64_t hidden, intermediate; /**< H, I. */
  int32_t max_rows;             /**< 1 to 8. */
  chorus_sparse_pick pick;
  chorus_activation activation;  /**< All but GPT_OSS. */
  chorus_dtype weights_dtype;    /**< f32, bf16, i8 (with quant: a scale per output), of all three. */
  chorus_dtype x_dtype, y_dtype; /**< f32 or bf16. */
  double threshold, dense_above; /**< As above. */
  const chorus_tensor *gate;     /**< [I, H]; NULL with RELU and RELU2. Read by prepare alone, as the next five. */
  const chorus_tensor *up;       /**< [I, H]. */
  const chorus_tensor *down;     /**< [H, I]. */
  const chorus_tensor *gate_bias, *up_bias; /**< f32 [I] or NULL. */
  const chorus_tensor *down_bias;           /**< f32 [H] or NULL. */
} chorus_sparse_ffn_desc;

/** Of both operations; n is the number of indices: inputs, outputs, or I. */
typedef struct chorus_sparse_args {
  size_t struct_size;
  int64_t rows;                /**< T, 0 to max_rows. */
  const chorus_tensor *x;      /**< [T, inputs] or [T, H]. */
  const chorus_tensor *scores; /**< f32 [T, n], SCORES. */
  const chorus_tensor *given;  /**< i32 [T, any], GIVEN: a set in any order; what is out of range is none. */
  const chorus_tensor *y;      /**< [T, outputs] or [T, H]. */
  const chorus_tensor *kept;   /**< i32 [T, n] or NULL, output: the kept indices, ascending, then -1. */
  const chorus_tensor *counts; /**< i32 [T] or NULL, output: how many were kept (n where nothing was skipped). */
} chorus_sparse_args;

/* generated by tests/abi/layout.py: begin */
#define CHORUS_HOST_INIT {CHORUS_END_OF(chorus_host, thread_count), NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL}
#define CHORUS_DEVICE_DESC_INIT {CHORUS_END_OF(chorus_device_desc, device_id), NULL, NULL, 0, 0}
#define CHORUS_DEVICE_MEMORY_INIT {CHORUS_END_OF(chorus_device_memory, event_wait), NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL}
#define CHORUS_KERNEL_INIT {CHORUS_END_OF(chorus_kernel, prepared_bytes), NULL, 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL}
#define CHORUS_PLUGIN_OPTION_INIT {CHORUS_END_OF(chorus_plugin_option, maximum), NULL, NULL, NULL, NULL, 0, 0, 0, 0}
#define CHORUS_PLUGIN_QUERY_ARGS_INIT {CHORUS_END_OF(chorus_plugin_query_args, layout_hash), 0, 0, 0}
#define CHORUS_COMBINE_MODEL_INIT {CHORUS_END_OF(chorus_combine_model, missing_log_prob), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, NULL, NULL, NULL, 0, 0, 0}
#define CHORUS_COMBINE_DESC_INIT {CHORUS_END_OF(chorus_combine_desc, neighbours_weight), 0, 0, NULL, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
#define CHORUS_COMBINE_ARGS_INIT {CHORUS_END_OF(chorus_combine_args, model_token_log_probs), 0, NULL, NULL, NULL, NULL, NULL, 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL}
#define CHORUS_DISTILL_DESC_INIT {CHORUS_END_OF(chorus_distill_desc, scale), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
#define CHORUS_DISTILL_ARGS_INIT {CHORUS_END_OF(chorus_distill_args, status), 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL}
#define CHORUS_MERGE_REDUCE_DESC_INIT {CHORUS_END_OF(chorus_merge_reduce_desc, work_dtype), 0, 0, NULL, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
#define CHORUS_MERGE_REDUCE_ARGS_INIT {CHORUS_END_OF(chorus_merge_reduce_args, row_softmax), 0, 0, 0, NULL, NULL, NULL, NULL, NULL, 0, 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, 0, 0, NULL}
#define CHORUS_MERGE_DESC_INIT {CHORUS_END_OF(chorus_merge_desc, work_dtype), 0, 0, NULL, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
#define CHORUS_MERGE_ARGS_INIT {CHORUS_END_OF(chorus_merge_args, row_stride), 0, 0, 0, NULL, NULL, NULL, NULL, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 0, 0}
#define CHORUS_ROUTE_DESC_INIT {CHORUS_END_OF(chorus_route_desc, renormalise_last), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, NULL, 0}
#define CHORUS_ROUTE_ARGS_INIT {CHORUS_END_OF(chorus_route_args, score_sums), 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL}
#define CHORUS_EXPERTS_DESC_INIT {CHORUS_END_OF(chorus_experts_desc, n_shared), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, NULL, NULL, NULL, NULL, NULL, 0}
#define CHORUS_EXPERTS_ARGS_INIT {CHORUS_END_OF(chorus_experts_args, status), 0, NULL, NULL, NULL, NULL, NULL}
#define CHORUS_SPARSE_GEMV_DESC_INIT {CHORUS_END_OF(chorus_sparse_gemv_desc, bias), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, NULL, NULL}
#define CHORUS_SPARSE_FFN_DESC_INIT {CHORUS_END_OF(chorus_sparse_ffn_desc, down_bias), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, NULL, NULL, NULL, NULL, NULL, NULL}
#define CHORUS_SPARSE_ARGS_INIT {CHORUS_END_OF(chorus_sparse_args, counts), 0, NULL, NULL, NULL, NULL, NULL, NULL}
/* generated by tests/abi/layout.py: end */

#ifdef __cplusplus
} /* extern "C" */
#endif
#endif /* CHORUS_PLUGIN_H_ */
