/* SPDX-License-Identifier: Apache-2.0
 *
 * Whole mixture-of-experts layers: gate, routing and experts in one call, and the weights of a layer straight from a
 * checkpoint. The parts are those of route.h.
 */
#ifndef CHORUS_MOE_H_
#define CHORUS_MOE_H_

#include "route.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Gate, routing and experts in one call: logits = x gate^T (+ gate_bias), then chorus_router_route() and
 * chorus_experts_run() on them, with their bits. Host devices.
 *
 * @param router  Logits and weights f32; k and dtype of ids those of the experts.
 * @param x       [T, H], dtype of the experts' x.
 * @param gate    [E, H] f32, bf16 or f16, E the router's. Products and sums in f32 by docs/numerics.md, "Reductions".
 * @param gate_bias f32 [E] or NULL, added to the logits.
 * @param in      As for chorus_router_route(); may be NULL.
 * @param y       [T, H], output; overlaps nothing.
 * @param out     What of the routing is wanted, as for chorus_router_route(); NULL: nothing.
 * @param exec    NULL: workspace from the per-thread cache. Else chorus_moe_get_workspace_size() bytes.
 * @return CHORUS_OK; CHORUS_INVALID_ARGUMENT: names the tensor, or what of router and experts does not fit;
 *         CHORUS_FAILED_PRECONDITION: workspace too small; CHORUS_UNIMPLEMENTED: a device with its own memory.
 * Costs 2 T E H flops beyond its parts. @since 0.1 */
CHORUS_API chorus_status chorus_moe_forward(const chorus_router *router, const chorus_experts *experts,
                                            const chorus_tensor *x, const chorus_tensor *gate,
                                            const chorus_tensor *gate_bias, const chorus_route_in *in,
                                            const chorus_tensor *y, const chorus_route_out *out, const chorus_exec *exec,
                                            chorus_error **error);

/** Bytes of workspace for calls of chorus_moe_forward() with up to `tokens` tokens. @since 0.1 */
CHORUS_API chorus_status chorus_moe_get_workspace_size(const chorus_router *router, const chorus_experts *experts,
                                                       int64_t tokens, uint64_t *out_bytes, chorus_error **error);

/** New spec with the experts of layer `layer` of a model, read as they are stored (f32, bf16 or f16), with what its
 * config.json says: k, activation, clamp, weight before or after. Shared experts (DeepSeek, GLM, Llama 4) are appended.
 *
 * Known below "layers.<layer>.": block_sparse_moe.experts.N.w1, w3, w2 (Mixtral, MiniMax); mlp.experts.N.gate_proj, up_proj,
 * down_proj (Qwen, OLMoE, DeepSeek, GLM, Kimi); fused experts.gate_up_proj and down_proj [E, out, in], of gpt-oss (with
 * biases, interleaved) and Llama 4 [E, in, out]. The weights belong to the spec, which may be destroyed once the experts are
 * created; that needs about twice their bytes for a moment.
 *
 * @return CHORUS_OK; CHORUS_NOT_FOUND: no config.json, no experts in that layer; CHORUS_DATA_LOSS: a tensor or field is
 *         missing or of another shape, names it; CHORUS_UNIMPLEMENTED: quantised weights, a shared expert with a gate of its
 *         own (Qwen2-MoE), another activation; CHORUS_RESOURCE_EXHAUSTED. @since 0.1 */
CHORUS_API chorus_status chorus_experts_spec_create_from_checkpoint(const chorus_checkpoint *checkpoint, int32_t layer,
                                                                    chorus_experts_spec **out_spec, chorus_error **error);

/** The gate of a layer loaded by chorus_experts_spec_create_from_checkpoint(); lent as long as the spec lives.
 *
 * @param out_gate           [E, H] as stored: `gate` of chorus_moe_forward().
 * @param out_gate_bias      f32 [E], or NULL (gpt-oss has one).
 * @param out_selection_bias f32 [E], or NULL: `bias` of chorus_route_in (DeepSeek-V3, GLM, Kimi, MiniMax have one).
 * @return CHORUS_OK; CHORUS_INVALID_ARGUMENT; CHORUS_FAILED_PRECONDITION: a spec from tensors. @since 0.1 */
CHORUS_API chorus_status chorus_experts_spec_get_gate(const chorus_experts_spec *spec, const chorus_tensor **out_gate,
                                                      const chorus_tensor **out_gate_bias,
                                                      const chorus_tensor **out_selection_bias, chorus_error **error);

#ifdef __cplusplus
} /* extern "C" */
#endif
#endif /* CHORUS_MOE_H_ */
