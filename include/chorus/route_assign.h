/* SPDX-License-Identifier: Apache-2.0
 *
 * Routing that looks at a whole batch, as training has it: Sinkhorn, balanced assignment, soft slots, quantile balancing; and the
 * cosine gate. They give ids, plans or logits; weights of ids come from a router with CHORUS_ROUTE_GIVEN. Host memory; computed in
 * f64, in the order of the rows; results do not depend on threads. Contract: docs/numerics.md, "Assignment".
 */
#ifndef CHORUS_ROUTE_ASSIGN_H_
#define CHORUS_ROUTE_ASSIGN_H_

#include "context.h"

#ifdef __cplusplus
extern "C" {
#endif

/* `logits` everywhere: [T, E] f64, f32, f16 or bf16, finite; T = 0 does nothing. An output f32 or f64 is rounded once. Each call
 * returns CHORUS_OK or CHORUS_INVALID_ARGUMENT, naming the tensor or value; nothing is written then. @since 0.1 */

/** Sinkhorn routing (Megatron-LM): with cost = exp(logits), d1 = 1, it repeats d0_t = 1 / T / (sum_e d1_e cost_te + 1e-8) and
 * d1_e = 1 / E / (sum_t d0_t cost_te + 1e-8) until the mean of |change of d1| is at most `tolerance` or `max_rounds` rounds have
 * run; the plan is d1_e cost_te d0_t. Logits above 500 are first shifted as a whole, so that nothing overflows.
 *
 * @param tolerance  >= 0; Megatron has 1e-4. @param max_rounds 1 to 1000000.
 * @param plan       f32 or f64 [T, E], output, or NULL.
 * @param ids        i32 [T, k], output, or NULL: the k best of each row of the plan, value descending, then index.
 * @param out_rounds Rounds that ran, or NULL. O(rounds T E). */
CHORUS_API chorus_status chorus_route_sinkhorn(const chorus_context *context, const chorus_tensor *logits, double tolerance,
                                               int32_t max_rounds, const chorus_tensor *plan, const chorus_tensor *ids,
                                               int32_t *out_rounds, chorus_error **error);

/** Balanced assignment (BASE layers): one expert per token, no expert more than `capacity` tokens, the sum of the chosen logits the
 * highest there is.
 *
 * @param capacity  Tokens per expert, capacity * E >= T; 0: ceil(T / E).
 * @param ids       i32 [T], output.
 * @param out_total Sum of the chosen logits, or NULL. Exact but for f64 sums of path lengths. At most O(T E^3 + T^2 E). */
CHORUS_API chorus_status chorus_route_balance(const chorus_context *context, const chorus_tensor *logits, int64_t capacity,
                                              const chorus_tensor *ids, double *out_total, chorus_error **error);

/** Soft mixture of experts (arXiv:2308.00951): of logits [T, slots], dispatch = softmax over the tokens of each slot, combine =
 * softmax over the slots of each token; f32 or f64 [T, slots], outputs, each may be NULL. */
CHORUS_API chorus_status chorus_route_soft(const chorus_context *context, const chorus_tensor *logits,
                                           const chorus_tensor *dispatch, const chorus_tensor *combine, chorus_error **error);

/** Quantile balancing: the selection bias that fills every expert alike. With s the `scores` [T, E] and the bias b as it is, a_t is
 * the (k + 1)-th highest of s_te + b_e over e (-inf for k = E), and b_e becomes minus the (T k / E + 1)-th highest of s_te - a_t over
 * t (the lowest where there are no more).
 *
 * @param k    1 to E; T k must be a multiple of E.
 * @param bias f32 [E], input and output: `bias` of chorus_route_in. O(T E). */
CHORUS_API chorus_status chorus_route_update_quantile_bias(const chorus_context *context, const chorus_tensor *scores, int32_t k,
                                                           const chorus_tensor *bias, chorus_error **error);

/** Cosine gate (Tutel): logits_te = <x_t, c_e> / (|x_t| |c_e|) * exp(min(log_scale, log 100)); a row of length 0 gives 0.
 *
 * @param x       [T, D], @param centroids [E, D]: f64, f32, f16 or bf16. @param logits f32 or f64 [T, E], output. O(T E D). */
CHORUS_API chorus_status chorus_route_cosine_gate(const chorus_context *context, const chorus_tensor *x,
                                                  const chorus_tensor *centroids, double log_scale, const chorus_tensor *logits,
                                                  chorus_error **error);

#ifdef __cplusplus
} /* extern "C" */
#endif
#endif /* CHORUS_ROUTE_ASSIGN_H_ */
