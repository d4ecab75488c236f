/* SPDX-License-Identifier: Apache-2.0
 *
 * The mixture-of-experts router, which keeps the top k of E experts per token, and the experts, of which only the kept are
 * computed. Contract of order, ties, NaN and padding: docs/numerics.md, "Routing".
 */
#ifndef CHORUS_ROUTE_H_
#define CHORUS_ROUTE_H_

#include "checkpoint.h"
#include "context.h"
#include "plugin.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Router ------------------------------------------------------------------------------- */

/** Builder of a router. */
typedef struct chorus_router_spec chorus_router_spec;
/** A router on a device. Immutable; any thread. */
typedef struct chorus_router chorus_router;

/** New spec for `n_experts` (E, 1 to 8192) and `k` (1 to min(64, E)): softmax of all experts, then top-k, weights not
 * renormalised, no bias, f32 logits and weights, i32 ids, up to 1 token per call.
 * @return CHORUS_OK; CHORUS_INVALID_ARGUMENT: names E or k and their range; CHORUS_RESOURCE_EXHAUSTED. @since 0.1 */
CHORUS_API chorus_status chorus_router_spec_create(int32_t n_experts, int32_t k, chorus_router_spec **out_spec,
                                                   chorus_error **error);
CHORUS_API void chorus_router_spec_destroy(chorus_router_spec *spec);

/** New spec of the router of a model, by its config.json: E, k, and the preset of its `model_type` (mixtral, qwen2_moe,
 * qwen3_moe, qwen3_next, olmoe, gpt_oss, llama4, deepseek_v2, deepseek_v3, glm4_moe, kimi_k2, minimax_m2, switch_transformers)
 * with what the file says of groups, scale and normalisation.
 * @return CHORUS_OK; CHORUS_NOT_FOUND: no config.json; CHORUS_DATA_LOSS: a field is missing or no number;
 *         CHORUS_UNIMPLEMENTED: another model, or a value that no preset covers; names the field. @since 0.1 */
CHORUS_API chorus_status chorus_router_spec_create_from_checkpoint(const chorus_checkpoint *checkpoint,
                                                                   chorus_router_spec **out_spec, chorus_error **error);

/** Routes as a published model does: mixtral, qwen2-moe, qwen3-moe, olmoe, gpt-oss, llama4, deepseek-v2, deepseek-v3, glm-4.5,
 * kimi-k2, minimax-m2, switch, gshard, expert-choice. Sets all but E, k, sizes, dtypes and outputs; later setters change it.
 * @return CHORUS_OK; CHORUS_INVALID_ARGUMENT: unknown name, with the nearest; an E or k that the preset is not for. @since 0.1 */
CHORUS_API chorus_status chorus_router_spec_set_preset(chorus_router_spec *spec, const char *name, chorus_error **error);

/** Name of preset `index`, or NULL past the last. Static. @since 0.1 */
CHORUS_API const char *chorus_router_preset_name(size_t index);

/** What the spec says now; pointers in it are NULL. @since 0.1 */
CHORUS_API chorus_status chorus_router_spec_get_desc(const chorus_router_spec *spec, chorus_route_desc *out_desc,
                                                     chorus_error **error);

/** Most tokens a call may bring, >= 1. @since 0.1 */
CHORUS_API chorus_status chorus_router_spec_set_max_tokens(chorus_router_spec *spec, int64_t max_tokens,
                                                           chorus_error **error);

/** Data types: logits f32, f16 or bf16; ids i32 or i64; weights f32 or bf16. @since 0.1 */
CHORUS_API chorus_status chorus_router_spec_set_dtypes(chorus_router_spec *spec, chorus_dtype logits, chorus_dtype ids,
                                                       chorus_dtype weights, chorus_error **error);

/** The score (CHORUS_ROUTE_SOFTMAX, CHORUS_ROUTE_SIGMOID, …) and whether top-k comes after it
 * (CHORUS_ROUTE_SCORE_THEN_TOPK: Mixtral, Qwen, DeepSeek) or before it (CHORUS_ROUTE_TOPK_THEN_SCORE: gpt-oss).
 * @return CHORUS_OK; CHORUS_INVALID_ARGUMENT: unknown constant. A score no backend has is refused at creation. @since 0.1 */
CHORUS_API chorus_status chorus_router_spec_set_score(chorus_router_spec *spec, chorus_route_score score,
                                                      chorus_route_order order, chorus_error **error);

/** 1: every call brings an f32 [E] bias, added to the scores for choosing and not for weighing (arXiv:2408.15664).
 * @since 0.1 */
CHORUS_API chorus_status chorus_router_spec_set_bias(chorus_router_spec *spec, int32_t has_bias, chorus_error **error);

/** How the k weights are normalised: CHORUS_ROUTE_RENORMALISE_NONE, _SUM: w / (sum w + epsilon), or _CLAMPED:
 * w / max(sum w, epsilon); epsilon finite, >= 0. Then all are multiplied by `scale`, finite. @since 0.1 */
CHORUS_API chorus_status chorus_router_spec_set_weights(chorus_router_spec *spec, chorus_route_renormalise renormalise,
                                                        double epsilon, double scale, chorus_error **error);

/** 1: the weight multiplies the expert's input instead of its output (Llama 4): tell chorus_experts_spec likewise. Changes
 * nothing in routing itself. @since 0.1 */
CHORUS_API chorus_status chorus_router_spec_set_weight_before(chorus_router_spec *spec, int32_t weight_before,
                                                              chorus_error **error);

/** Group-limited routing: only the experts of the best `topk_groups` of `n_groups` groups of neighbours compete. A group's
 * score is its best key (CHORUS_ROUTE_GROUP_MAX) or the sum of its `top` best (CHORUS_ROUTE_GROUP_TOP_SUM, `top` 1 to 64).
 * n_groups 0 or 1: no groups. @return CHORUS_OK; CHORUS_INVALID_ARGUMENT: n_groups does not divide E, or the groups kept
 * hold fewer than k experts. @since 0.1 */
CHORUS_API chorus_status chorus_router_spec_set_groups(chorus_router_spec *spec, int32_t n_groups, int32_t topk_groups,
                                                       chorus_route_group_score score, int32_t top, chorus_error **error);

/** Who chooses: CHORUS_ROUTE_TOKENS_CHOOSE, _EXPERTS_CHOOSE (with a capacity), _GIVEN (every call brings `given_ids`),
 * _POSITIVE, _RANDOM_SECOND, _RANDOM_SECOND_RAW or _GUMBEL_SECOND. A hash table has its own setter.
 * @return CHORUS_OK; CHORUS_INVALID_ARGUMENT: unknown constant. What goes with what is told at creation. @since 0.1 */
CHORUS_API chorus_status chorus_router_spec_set_selection(chorus_router_spec *spec, chorus_route_selection selection,
                                                          chorus_error **error);

/** Experts by token id: i32 [token ids, k] in host memory, entries -1 (none) to E - 1. Copied. Every call then brings
 * `token_ids`; an id outside the table has no experts. Costs 4 * token ids * k bytes. @since 0.1 */
CHORUS_API chorus_status chorus_router_spec_set_hash_table(chorus_router_spec *spec, const chorus_tensor *table,
                                                           chorus_error **error);

/** Normal noise of this standard deviation, finite and >= 0, on the logits, times `noise_scales` where a call brings them.
 * Keyed by (seed, row id, step), so a token's noise does not depend on its batch. @since 0.1 */
CHORUS_API chorus_status chorus_router_spec_set_noise(chorus_router_spec *spec, double deviation, chorus_error **error);

/** Divides the logits, after the noise; above 0, finite. @since 0.1 */
CHORUS_API chorus_status chorus_router_spec_set_temperature(chorus_router_spec *spec, double temperature,
                                                            chorus_error **error);

/** Slots per expert, >= 1, and which ones beyond are dropped: they get id -1 and weight 0. With CHORUS_ROUTE_EXPERTS_CHOOSE
 * the tokens each expert takes, and drop is CHORUS_ROUTE_DROP_NONE. Capacity 0 with _DROP_NONE: no limit. @since 0.1 */
CHORUS_API chorus_status chorus_router_spec_set_capacity(chorus_router_spec *spec, chorus_route_drop drop,
                                                         int64_t capacity, chorus_error **error);

/** As above, with the capacity of a call of n valid tokens: ceil(factor * n * k / E), at least `minimum`, rounded up to a
 * multiple of `multiple` (each 0 for none). factor > 0, finite. @since 0.1 */
CHORUS_API chorus_status chorus_router_spec_set_capacity_factor(chorus_router_spec *spec, chorus_route_drop drop,
                                                                double factor, int64_t minimum, int64_t multiple,
                                                                chorus_error **error);

/** 1: weights are renormalised over the slots that dropping left (DeepSpeed, NLLB). @since 0.1 */
CHORUS_API chorus_status chorus_router_spec_set_renormalise_last(chorus_router_spec *spec, int32_t last,
                                                                 chorus_error **error);

/** Outputs beyond ids, weights and the four lists: CHORUS_ROUTE_OUT_* bits a call may ask for. `block`: rows per block with
 * CHORUS_ROUTE_OUT_BLOCKS, >= 1; else 0. @since 0.1 */
CHORUS_API chorus_status chorus_router_spec_set_outputs(chorus_router_spec *spec, uint32_t outputs, int32_t block,
                                                        chorus_error **error);

/** @return CHORUS_OK; CHORUS_INVALID_ARGUMENT; CHORUS_NOT_FOUND: no such device; CHORUS_UNIMPLEMENTED: no kernel, with each
 *          one's reason. @since 0.1 */
CHORUS_API chorus_status chorus_router_create(const chorus_context *context, const chorus_router_spec *spec,
                                              const char *device, chorus_router **out_router, chorus_error **error);
CHORUS_API void chorus_router_destroy(chorus_router *router);

/** Beside the logits. NULL instead of it: no bias, no padding. */
typedef struct chorus_route_in {
  size_t struct_size;           /**< CHORUS_ROUTE_IN_INIT sets it. */
  const chorus_tensor *bias;    /**< f32 [E]; required exactly when the spec says so. */
  const chorus_tensor *n_valid; /**< i64 [1]: rows >= it are padding: id -1, weight 0, not counted. NULL: none. */
  const chorus_tensor *noise_scales; /**< f32 [T, E]: factors of the noise. NULL: 1. Only with noise. */
  const chorus_tensor *row_ids;      /**< i64 [T]: names of the tokens, key of their random numbers. NULL: 0, 1, … */
  const chorus_tensor *token_ids;    /**< i32 or i64 [T]; required exactly with a hash table. */
  const chorus_tensor *given_ids;    /**< i32 or i64 [T, k]; required exactly with CHORUS_ROUTE_GIVEN. An id out of range, or
                                      * already in the row, counts as -1: no expert. */
  uint64_t seed, step;               /**< Of the random numbers. */
} chorus_route_in;

/** Outputs; a NULL tensor is not computed. None overlaps another tensor of the call. */
typedef struct chorus_route_out {
  size_t struct_size;           /**< CHORUS_ROUTE_OUT_INIT sets it. */
  const chorus_tensor *ids;     /**< [T, k], best first. */
  const chorus_tensor *weights; /**< [T, k]. */
  const chorus_tensor *counts;  /**< i32 [E]: slots per expert. */
  const chorus_tensor *offsets; /**< i32 [E + 1]: exclusive prefix sums of the counts. */
  const chorus_tensor *order;   /**< i32 [T * k]: slots t * k + j sorted by expert, then by slot; -1 past offsets[E]. */
  const chorus_tensor *inverse; /**< i32 [T * k]: place of each slot in `order`; -1 for padding. */
  /* Where the spec announces them (chorus_router_spec_set_outputs). B: the block, C: chorus_router_get_capacity(). */
  const chorus_tensor *expert_tokens;  /**< i32 [E, C]: tokens of each expert, best first, then -1. */
  const chorus_tensor *expert_weights; /**< f32 [E, C]: their weights, then 0. */
  const chorus_tensor *padded_order;   /**< i32 [P], P = T * k + E * (B - 1): `order`, each expert padded by -1 to blocks. */
  const chorus_tensor *block_experts;  /**< i32 [ceil(P / B)]: the expert of each block, then -1. */
  const chorus_tensor *n_blocks;       /**< i32 [1]: blocks in use. */
  const chorus_tensor *bitmap;         /**< u8 [T, ceil(E / 8)]: experts of each token, lowest bit first. */
  const chorus_tensor *score_sums;     /**< f64 [E]: sum of the scores over the tokens that are no padding. */
} chorus_route_out;

/** Chooses k experts for each token.
 *
 * For each row of `logits` [T, E] (any row stride): score, pick by value descending then index ascending, weigh.
 * NaN ranks last with weight 0; ids are distinct and in range, or -1 where there is no expert (padding, dropped, fewer than
 * k chosen). A row's result does not depend on T, unless a capacity or experts that choose make tokens compete. Given equal
 * logits, ids and weights are bit-equal on every backend.
 *
 * @param logits Borrowed until the call returns (host) or the stream has passed it.
 * @param in     May be NULL.
 * @param exec   NULL: host devices only, workspace from the per-thread cache. Else it allocates nothing.
 * @return CHORUS_OK; CHORUS_INVALID_ARGUMENT: shape, dtype, stride, overlap; names the tensor;
 *         CHORUS_FAILED_PRECONDITION: workspace too small; states the bytes needed. Outputs are then untouched.
 * T = 0 computes nothing (counts and offsets become 0). Reads T * E logits once. @since 0.1 */
CHORUS_API chorus_status chorus_router_route(const chorus_router *router, const chorus_tensor *logits,
                                             const chorus_route_in *in, const chorus_route_out *out,
                                             const chorus_exec *exec, chorus_error **error);

/** Bytes of workspace for calls of up to `tokens` tokens with all outputs. @since 0.1 */
CHORUS_API chorus_status chorus_router_get_workspace_size(const chorus_router *router, int64_t tokens,
                                                          uint64_t *out_bytes, chorus_error **error);

/** Columns of `expert_tokens` for calls of `tokens` tokens: the capacity, or without a limit `tokens`. @since 0.1 */
CHORUS_API chorus_status chorus_router_get_capacity(const chorus_router *router, int64_t tokens, int64_t *out_capacity,
                                                    chorus_error **error);

/** The kernel in use, "cpu/route_topk"; lives as long as the router. "" for NULL. @since 0.1 */
CHORUS_API const char *chorus_router_get_kernel(const chorus_router *router);

/* ---- Experts ------------------------------------------------------------------------------ */

/** Builder of an expert layer. */
typedef struct chorus_experts_spec chorus_experts_spec;
/** Packed experts on a device. Immutable; any thread. */
typedef struct chorus_experts chorus_experts;

/** New spec: SwiGLU, gate and up rows concatenated, no biases, f32 in and out, i32 ids, up to 1 token per call.
 *
 * @param gate_up  [E, 2I, H] f32, bf16 or f16: for each expert I gate rows, then I up rows. Or i8 with `quant`; or int4:
 *                 u8 [E, 2I, ceil(H / 2)] with quant->packing CHORUS_PACKING_INT4. quant->scales: f32, f16 or bf16
 *                 [E, 2I, groups], groups of quant->group_size columns (0: one per row); axis 2, no zero points.
 *                 Borrowed until chorus_experts_create() returns; host memory, or memory of the device the experts will
 *                 live on (quantised: host memory).
 * @param down     [E, H, I], dtype and packing of gate_up. Borrowed likewise.
 * @param k        Experts per token, 1 to 64.
 * @return CHORUS_OK; CHORUS_INVALID_ARGUMENT: names the tensor; CHORUS_RESOURCE_EXHAUSTED. @since 0.1 */
CHORUS_API chorus_status chorus_experts_spec_create(const chorus_tensor *gate_up, const chorus_tensor *down, int32_t k,
                                                    chorus_experts_spec **out_spec, chorus_error **error);
CHORUS_API void chorus_experts_spec_destroy(chorus_experts_spec *spec);

/** Most tokens a call may bring, >= 1. @since 0.1 */
CHORUS_API chorus_status chorus_experts_spec_set_max_tokens(chorus_experts_spec *spec, int64_t max_tokens,
                                                            chorus_error **error);

/** Data types of x and y (f32 or bf16) and of the ids (i32 or i64). @since 0.1 */
CHORUS_API chorus_status chorus_experts_spec_set_dtypes(chorus_experts_spec *spec, chorus_dtype x, chorus_dtype y,
                                                        chorus_dtype ids, chorus_error **error);

/** CHORUS_ACTIVATION_SWIGLU, …, and how gate and up rows lie: CHORUS_GATE_UP_CONCATENATED, CHORUS_UP_GATE_CONCATENATED or
 * CHORUS_GATE_UP_INTERLEAVED. CHORUS_ACTIVATION_RELU and _RELU2 have no gate: gate_up is [E, I, H].
 * @return CHORUS_OK; CHORUS_INVALID_ARGUMENT: unknown constant. @since 0.1 */
CHORUS_API chorus_status chorus_experts_spec_set_activation(chorus_experts_spec *spec, chorus_activation activation,
                                                            chorus_gate_layout layout, chorus_error **error);

/** Biases, f32 [E, 2I] and [E, H], each may be NULL; borrowed until the experts are created. @since 0.1 */
CHORUS_API chorus_status chorus_experts_spec_set_biases(chorus_experts_spec *spec, const chorus_tensor *gate_up_bias,
                                                        const chorus_tensor *down_bias, chorus_error **error);

/** Clamps gates to at most `limit` and ups to ±limit, biases included, before the activation (gpt-oss: 7); 0: none.
 * @return CHORUS_OK; CHORUS_INVALID_ARGUMENT: negative or not finite. @since 0.1 */
CHORUS_API chorus_status chorus_experts_spec_set_limit(chorus_experts_spec *spec, double limit, chorus_error **error);

/** 1: the routing weight multiplies the expert's input (Llama 4) instead of its output. @since 0.1 */
CHORUS_API chorus_status chorus_experts_spec_set_weight_before(chorus_experts_spec *spec, int32_t weight_before,
                                                               chorus_error **error);

/** 1: a token's bytes do not depend on the rest of its batch. Costs nothing on `reference`, where they never do; on `cpu` it
 * keeps oneDNN out, which multiplies experts of many tokens up to four times faster on processors with bf16 arithmetic.
 * @since 0.1 */
CHORUS_API chorus_status chorus_experts_spec_set_batch_invariant(chorus_experts_spec *spec, int32_t batch_invariant,
                                                                 chorus_error **error);

/** The last `n_shared` of the E experts are shared: they work on every token with weight 1, in the same pass, added after
 * the routed ones. Ids then name the first E - n_shared alone. A shared expert wider than I (DeepSeek's) is several of I.
 * @return CHORUS_OK; CHORUS_INVALID_ARGUMENT: not 0 to E - 1. @since 0.1 */
CHORUS_API chorus_status chorus_experts_spec_set_shared(chorus_experts_spec *spec, int32_t n_shared, chorus_error **error);

/** i32 [global experts] in host memory: the local index of each global expert, or -1 for one not held here, which then
 * contributes 0. Copied. @since 0.1 */
CHORUS_API chorus_status chorus_experts_spec_set_expert_map(chorus_experts_spec *spec, const chorus_tensor *expert_map,
                                                            chorus_error **error);

/** Packs the weights once for `device`.
 * @return CHORUS_OK; CHORUS_INVALID_ARGUMENT; CHORUS_NOT_FOUND: no such device; CHORUS_UNIMPLEMENTED: no kernel;
 *         CHORUS_RESOURCE_EXHAUSTED: no memory for the packed weights. @since 0.1 */
CHORUS_API chorus_status chorus_experts_create(const chorus_context *context, const chorus_experts_spec *spec,
                                               const char *device, chorus_experts **out_experts, chorus_error **error);
CHORUS_API void chorus_experts_destroy(chorus_experts *experts);

/** y_t = sum_j weights_tj * down_e (silu(gate_e x_t) * up_e x_t) with e = ids_tj, for T tokens.
 *
 * Accumulates in f32 or better; slots are joined in order j = 0, 1, … and rounded once. A negative id, an id the map sends
 * to -1, and a weight of exactly 0 contribute 0 and are not computed.
 *
 * @param x       [T, H], dtype of the spec.
 * @param ids     [T, k]. An id past the experts contributes 0 and is told in `status`.
 * @param weights f32 [T, k].
 * @param y       [T, H], output; overlaps nothing.
 * @param status  i32 [T] output or NULL: CHORUS_ROW_BAD_TOKEN where an id is out of range.
 * @param exec    NULL: host devices only. Else it allocates nothing.
 * @return CHORUS_OK; CHORUS_INVALID_ARGUMENT: names the tensor; CHORUS_FAILED_PRECONDITION: workspace too small; states
 *         the bytes. @since 0.1 */
CHORUS_API chorus_status chorus_experts_run(const chorus_experts *experts, const chorus_tensor *x, const chorus_tensor *ids,
                                            const chorus_tensor *weights, const chorus_tensor *y,
                                            const chorus_tensor *status, const chorus_exec *exec, chorus_error **error);

/** Bytes of workspace for calls of up to `tokens` tokens. @since 0.1 */
CHORUS_API chorus_status chorus_experts_get_workspace_size(const chorus_experts *experts, int64_t tokens,
                                                           uint64_t *out_bytes, chorus_error **error);

/** Bytes the packed weights take; 0 for NULL. @since 0.1 */
CHORUS_API uint64_t chorus_experts_get_packed_bytes(const chorus_experts *experts);

/** The kernel in use, "cpu/experts_ffn"; lives as long as the experts. "" for NULL. @since 0.1 */
CHORUS_API const char *chorus_experts_get_kernel(const chorus_experts *experts);

/* generated by tests/abi/layout.py: begin */
#define CHORUS_ROUTE_IN_INIT {CHORUS_END_OF(chorus_route_in, step), NULL, NULL, NULL, NULL, NULL, NULL, 0, 0}
#define CHORUS_ROUTE_OUT_INIT {CHORUS_END_OF(chorus_route_out, score_sums), NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL}
/* generated by tests/abi/layout.py: end */

#ifdef __cplusplus
} /* extern "C" */
#endif
#endif /* CHORUS_ROUTE_H_ */
