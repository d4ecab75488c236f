/* SPDX-License-Identifier: Apache-2.0
 *
 * Rows that skip: y = W x, or a whole feed-forward block, for 1 to 8 rows of which a part is zero, small, or not asked for.
 * What is skipped is neither read nor multiplied. Contract: docs/numerics.md, "Sparse rows".
 */
#ifndef CHORUS_SPARSE_H_
#define CHORUS_SPARSE_H_

#include "context.h"
#include "plugin.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Builder of a sparse product. */
typedef struct chorus_sparse_spec chorus_sparse_spec;
/** Packed weights on a device. Immutable; any thread. */
typedef struct chorus_sparse chorus_sparse;

/** New spec of y = W x (+ bias): one row, f32 in and out, nonzero inputs kept; with CHORUS_SPARSE_OUTPUTS a list of outputs.
 *
 * @param weights [outputs, inputs] f32 or bf16, or i8 with `quant`: f32, f16 or bf16 scales [outputs, 1], axis 1, group_size 0,
 *                no zero points. Any row stride. Borrowed until chorus_sparse_create() returns; host memory.
 * @param side    CHORUS_SPARSE_INPUTS: y = sum of x_i times column i over the kept inputs (a down-projection).
 *                CHORUS_SPARSE_OUTPUTS: y_o for the kept outputs alone, the others 0 (an up-projection).
 * @return CHORUS_OK; CHORUS_INVALID_ARGUMENT: names the tensor; CHORUS_UNIMPLEMENTED: a dtype. @since 0.1 */
CHORUS_API chorus_status chorus_sparse_spec_create_linear(const chorus_tensor *weights, chorus_sparse_side side,
                                                          chorus_sparse_spec **out_spec, chorus_error **error);

/** New spec of a feed-forward block y = down (act(gate x) * (up x)), of whose I neurons a part is kept; activation SwiGLU, or
 * without `gate` ReLU; one row, f32 in and out, neurons of nonzero activated gate kept.
 *
 * @param gate [I, H], or NULL for a block without. @param up [I, H]. @param down [H, I]; dtypes and quant as above, all alike.
 * @return As above. @since 0.1 */
CHORUS_API chorus_status chorus_sparse_spec_create_ffn(const chorus_tensor *gate, const chorus_tensor *up,
                                                       const chorus_tensor *down, chorus_sparse_spec **out_spec,
                                                       chorus_error **error);
CHORUS_API void chorus_sparse_spec_destroy(chorus_sparse_spec *spec);

/** Most rows a call may bring, 1 to 8. @since 0.1 */
CHORUS_API chorus_status chorus_sparse_spec_set_max_rows(chorus_sparse_spec *spec, int32_t max_rows, chorus_error **error);

/** Data types of x and y, f32 or bf16. @since 0.1 */
CHORUS_API chorus_status chorus_sparse_spec_set_dtypes(chorus_sparse_spec *spec, chorus_dtype x, chorus_dtype y,
                                                       chorus_error **error);

/** What is kept: CHORUS_SPARSE_NONZERO, _MAGNITUDE (|value| above `threshold` >= 0; TEAL, CATS), _SCORES (every call brings
 * scores; those >= `threshold`) or _GIVEN (every call brings a list). The values are x, or in a block the activated gate
 * (without a gate h), which is then computed whole before anything is skipped.
 * @return CHORUS_OK; CHORUS_INVALID_ARGUMENT: unknown constant, NaN, a threshold that goes with no rule. @since 0.1 */
CHORUS_API chorus_status chorus_sparse_spec_set_pick(chorus_sparse_spec *spec, chorus_sparse_pick pick, double threshold,
                                                     chorus_error **error);

/** A row that keeps more than this part of its indices, 0 to 1, skips nothing; 0 and 1: never. Skipping gains nothing at high
 * density, and everything is exact then. @since 0.1 */
CHORUS_API chorus_status chorus_sparse_spec_set_dense_above(chorus_sparse_spec *spec, double part, chorus_error **error);

/** SwiGLU, GEGLU or ReGLU with a gate; ReLU or ReLU^2 without. @since 0.1 */
CHORUS_API chorus_status chorus_sparse_spec_set_activation(chorus_sparse_spec *spec, chorus_activation activation,
                                                           chorus_error **error);

/** Biases, f32, host memory, borrowed until creation; each may be NULL. Linear: `output` [outputs] alone. Block: `gate` [I],
 * `up` [I], `output` [H]. @since 0.1 */
CHORUS_API chorus_status chorus_sparse_spec_set_biases(chorus_sparse_spec *spec, const chorus_tensor *gate,
                                                       const chorus_tensor *up, const chorus_tensor *output,
                                                       chorus_error **error);

/** Packs the weights once for `device`.
 * @return CHORUS_OK; CHORUS_INVALID_ARGUMENT: names what does not fit; CHORUS_NOT_FOUND: no such device;
 *         CHORUS_UNIMPLEMENTED: no kernel, with each one's reason; CHORUS_RESOURCE_EXHAUSTED. @since 0.1 */
CHORUS_API chorus_status chorus_sparse_create(const chorus_context *context, const chorus_sparse_spec *spec,
                                              const char *device, chorus_sparse **out_sparse, chorus_error **error);
CHORUS_API void chorus_sparse_destroy(chorus_sparse *sparse);

/** Beside x. NULL instead of it: neither scores nor a list. */
typedef struct chorus_sparse_in {
  size_t struct_size;          /**< CHORUS_SPARSE_IN_INIT sets it. */
  const chorus_tensor *scores; /**< f32 [T, n]; required exactly with CHORUS_SPARSE_SCORES. NaN is not kept. */
  const chorus_tensor *given;  /**< i32 [T, any]; required exactly with CHORUS_SPARSE_GIVEN. A set: order and repeats do not
                                * matter, an index out of [0, n) is none (pad by -1). */
} chorus_sparse_in;

/** What was kept; a NULL tensor is not computed. */
typedef struct chorus_sparse_out {
  size_t struct_size;          /**< CHORUS_SPARSE_OUT_INIT sets it. */
  const chorus_tensor *kept;   /**< i32 [T, n]: the kept indices of each row, ascending, then -1. */
  const chorus_tensor *counts; /**< i32 [T]: how many. */
} chorus_sparse_out;

/** The product, for T rows. n is the number of inputs, outputs or neurons, whichever may be skipped.
 *
 * Each row keeps a set of its own, and its bytes depend neither on the other rows nor on the number of threads. Sums in f32
 * or better; one rounding at the end.
 * @param x           [T, inputs] or [T, H].
 * @param in          May be NULL.
 * @param y           [T, outputs] or [T, H], output; overlaps nothing.
 * @param out         May be NULL.
 * @param out_density The measured density, kept indices over T n (0 for T = 0), or NULL. Host devices.
 * @param exec        NULL: host devices only. Else it allocates nothing.
 * @return CHORUS_OK; CHORUS_INVALID_ARGUMENT: names the tensor; CHORUS_FAILED_PRECONDITION: workspace too small;
 *         CHORUS_UNIMPLEMENTED: out_density of a device with its own memory (ask for counts). @since 0.1 */
CHORUS_API chorus_status chorus_sparse_linear(const chorus_sparse *sparse, const chorus_tensor *x, const chorus_sparse_in *in,
                                              const chorus_tensor *y, const chorus_sparse_out *out, double *out_density,
                                              const chorus_exec *exec, chorus_error **error);

/** Bytes of workspace for calls of up to `rows` rows. @since 0.1 */
CHORUS_API chorus_status chorus_sparse_get_workspace_size(const chorus_sparse *sparse, int64_t rows, uint64_t *out_bytes,
                                                          chorus_error **error);

/** Bytes the packed weights take; 0 for NULL. @since 0.1 */
CHORUS_API uint64_t chorus_sparse_get_packed_bytes(const chorus_sparse *sparse);

/** The kernel in use, "cpu/sparse_ffn"; lives as long as the object. "" for NULL. @since 0.1 */
CHORUS_API const char *chorus_sparse_get_kernel(const chorus_sparse *sparse);

/* generated by tests/abi/layout.py: begin */
#define CHORUS_SPARSE_IN_INIT {CHORUS_END_OF(chorus_sparse_in, given), NULL, NULL}
#define CHORUS_SPARSE_OUT_INIT {CHORUS_END_OF(chorus_sparse_out, counts), NULL, NULL}
/* generated by tests/abi/layout.py: end */

#ifdef __cplusplus
} /* extern "C" */
#endif
#endif /* CHORUS_SPARSE_H_ */
