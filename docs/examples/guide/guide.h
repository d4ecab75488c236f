/* SPDX-License-Identifier: Apache-2.0
 *
 * Two helpers of the guide's examples: a tensor over an array, and a check that prints what went wrong and ends.
 */
#ifndef GUIDE_H_
#define GUIDE_H_

#include <chorus/chorus.h>
#include <stdio.h>
#include <stdlib.h>

static chorus_error *error = NULL;

/* Runs a call whose last argument is &error. */
#define CHECK(call)                                              \
  do {                                                           \
    if ((call) != CHORUS_OK) {                                   \
      fprintf(stderr, "%s\n", chorus_error_get_text(error));     \
      exit(1);                                                   \
    }                                                            \
  } while (0)

/* A view of a compact array in host memory; `shape` has `ndim` sizes and must outlive the view. */
static inline chorus_tensor view(void *data, chorus_dtype dtype, int32_t ndim, const int64_t *shape) {
  chorus_tensor tensor = CHORUS_TENSOR_INIT;
  int32_t i;
  tensor.data = data;
  tensor.device_type = CHORUS_DEVICE_HOST;
  tensor.dtype_code = (uint8_t)(dtype & 0xff);
  tensor.dtype_bits = (uint8_t)(dtype >> 8);
  tensor.dtype_lanes = 1;
  tensor.ndim = ndim;
  tensor.shape = shape;
  tensor.size_bytes = tensor.dtype_bits / 8;
  for (i = 0; i < ndim; ++i) tensor.size_bytes *= (uint64_t)shape[i];
  return tensor;
}

#endif /* GUIDE_H_ */
