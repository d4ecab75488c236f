/* SPDX-License-Identifier: Apache-2.0
 *
 * How evenly a router loads its experts, from the counts of chorus_router_route() (padding is not in them), the bias
 * update of loss-free balancing, the auxiliary losses of training, and gradients with respect to the logits. Host memory;
 * computed in f64, sums in the order of the tokens.
 */
#ifndef CHORUS_ROUTE_LOSS_H_
#define CHORUS_ROUTE_LOSS_H_

#include "route.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Load of E experts; with n_e the counts, N their sum, f_e = n_e / N. All 0 when N is 0, but `idle`. */
typedef struct chorus_route_load {
  size_t struct_size;       /**< CHORUS_ROUTE_LOAD_INIT sets it. */
  double slots;             /**< N. */
  double max_to_mean;       /**< max n_e / (N / E): 1 when all are equal, E when one expert takes all. */
  double variation;         /**< Standard deviation of n_e over their mean (population): 0 when all are equal. */
  double entropy;           /**< -sum f_e log f_e, in nats: log E when all are equal. */
  double entropy_of_even;   /**< log E. */
  int64_t idle;             /**< Experts without a slot. */
  int32_t busiest;          /**< The expert with the most slots, the lowest index among equals; -1 when N is 0. */
  int32_t reserved;         /**< 0. */
} chorus_route_load;

/** Load statistics of `counts`, i32 or i64 [E], >= 0.
 *
 * @param average f64 [E] or NULL, input and output: a running average of the counts, average = decay * average +
 *                (1 - decay) * count. Begin it at 0; divided by 1 - decay^calls it is unbiased.
 * @param decay   0 to 1; not read without `average`.
 * @return CHORUS_OK; CHORUS_INVALID_ARGUMENT: names the argument, the first negative count; nothing is written then. O(E).
 * @since 0.1 */
CHORUS_API chorus_status chorus_route_get_load(const chorus_tensor *counts, const chorus_tensor *average, double decay,
                                               chorus_route_load *out_load, chorus_error **error);

/** Loss-free balancing (arXiv:2408.15664): bias_e += rate * sign(mean n - n_e), in f32; equal counts leave it.
 *
 * @param counts i32 or i64 [E], summed over all devices.
 * @param rate   Finite.
 * @param bias   f32 [E], input and output; overlaps nothing.
 * @return CHORUS_OK; CHORUS_INVALID_ARGUMENT: names the argument; nothing is written then. O(E). @since 0.1 */
CHORUS_API chorus_status chorus_route_update_bias(const chorus_tensor *counts, double rate, const chorus_tensor *bias,
                                                  chorus_error **error);

/* ---- Losses and gradients ----------------------------------------------------------------
 * With p_te the probabilities of all E experts: softmax of the logits over the temperature; with a sigmoid or sqrt-softplus
 * router s_te / (sum over e of s_te + 1e-20), as Megatron has it. n_e counts the slots of expert e among `ids`, T are the
 * valid tokens, CV^2 = (standard deviation / mean)^2 over experts (population). The counts are constants to the gradients. */
typedef int32_t chorus_route_loss_kind;
#define CHORUS_ROUTE_LOSS_SWITCH 0     /**< E sum_e (n_e / (T k)) mean_t p_te (Switch; Megatron). */
#define CHORUS_ROUTE_LOSS_HF 1         /**< E sum_e (n_e / T) mean_t p_te, k times the above (transformers, one layer). */
#define CHORUS_ROUTE_LOSS_GSHARD 2     /**< E sum_e (n1_e / T) mean_t p_te, n1 of the first slots alone (DeepSpeed, Tutel). */
#define CHORUS_ROUTE_LOSS_Z 3          /**< mean_t (log sum_e exp x_te)^2, x the logits as they are (ST-MoE). */
#define CHORUS_ROUTE_LOSS_IMPORTANCE 4 /**< CV^2 of sum_t p_te (V-MoE). */
#define CHORUS_ROUTE_LOSS_LOAD 5       /**< CV^2 of mean_t P(x_te + noise N(0,1) >= the k-th best noisy logit of t) (V-MoE). */
#define CHORUS_ROUTE_LOSS_SEQUENCE 6   /**< SWITCH of each sequence by itself, then their mean (DeepSeek-V3). */

/** What a loss is computed from. */
typedef struct chorus_route_loss_in {
  size_t struct_size;            /**< CHORUS_ROUTE_LOSS_IN_INIT sets it. */
  chorus_route_loss_kind kind;
  int32_t reserved;              /**< 0. */
  double coefficient;            /**< Times the loss and its gradient; finite. */
  const chorus_tensor *ids;      /**< [T, k], the router's dtype, as routed; -1: none. SWITCH, HF, GSHARD, SEQUENCE. */
  const chorus_tensor *n_valid;  /**< i64 [1]: rows >= it are padding, of gradient 0. NULL: none. */
  const chorus_tensor *sequences; /**< i64 [S + 1], SEQUENCE: rows sequences[i] to sequences[i + 1] - 1 are one; ascending from
                                   * 0 to T. Empty ones do not count. */
  const chorus_tensor *noisy_logits; /**< f32 or f64 [T, E], LOAD: x plus its noise, from which the k best were taken. */
  double noise;                  /**< LOAD: its standard deviation, > 0. */
} chorus_route_loss_in;

/** A loss of a batch, and its gradient with respect to the logits.
 *
 * @param logits   [T, E], the router's dtype or f64; finite: a row with a NaN or an infinity makes the loss NaN.
 * @param gradient f32 or f64 [T, E], output, or NULL. Overlaps nothing. LOAD: with the noise a constant, so through the
 *                 k-th best too.
 * @return CHORUS_OK; CHORUS_INVALID_ARGUMENT: names the tensor or field; CHORUS_UNIMPLEMENTED: kind with an identity or relu
 *         score, whose values are no probabilities; a device with its own memory. T = 0: loss 0. O(T E). @since 0.1 */
CHORUS_API chorus_status chorus_router_get_loss(const chorus_router *router, const chorus_tensor *logits,
                                                const chorus_route_loss_in *in, double *out_loss,
                                                const chorus_tensor *gradient, chorus_error **error);

/** Gradient of the routing weights: logits' = (d weights / d logits)^T weights'. The choice of experts is a constant.
 *
 * A slot of id -1 gives nothing, and neither do a NaN logit, a row shared by infinities, and a weight that renormalising
 * made 0 of 0 / 0.
 * @param logits            [T, E], the router's dtype or f64.
 * @param ids               [T, k], the router's dtype, the chosen experts. Where the router drops slots after it renormalised
 *                          (capacity without renormalise_last, a random second), those chosen before dropping.
 * @param weights_gradient  f32 or f64 [T, k].
 * @param logits_gradient   f32 or f64 [T, E], output; overlaps nothing.
 * @return CHORUS_OK; CHORUS_INVALID_ARGUMENT: names the tensor; an id of -1 where the above forbids it;
 *         CHORUS_UNIMPLEMENTED: a router with noise (give the noisy logits to one without), a device with its own memory.
 * O(T E). @since 0.1 */
CHORUS_API chorus_status chorus_router_backward(const chorus_router *router, const chorus_tensor *logits,
                                                const chorus_tensor *ids, const chorus_tensor *weights_gradient,
                                                const chorus_tensor *logits_gradient, chorus_error **error);

/* generated by tests/abi/layout.py: begin */
#define CHORUS_ROUTE_LOAD_INIT {CHORUS_END_OF(chorus_route_load, reserved), 0, 0, 0, 0, 0, 0, 0, 0}
#define CHORUS_ROUTE_LOSS_IN_INIT {CHORUS_END_OF(chorus_route_loss_in, noise), 0, 0, 0, NULL, NULL, NULL, NULL, 0}
/* generated by tests/abi/layout.py: end */

#ifdef __cplusplus
} /* extern "C" */
#endif
#endif /* CHORUS_ROUTE_LOSS_H_ */
