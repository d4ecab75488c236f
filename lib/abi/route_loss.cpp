// SPDX-License-Identifier: Apache-2.0
// route_loss.h: checks of the tensors, and calls into route/load.
#include "chorus/route_loss.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include "abi/boundary.h"
#include "abi/info.h"
#include "route/load.h"
#include "runtime/tensor.h"

using chorus::fail;
using chorus::abi::fill_info;
using chorus::abi::guarded;
using chorus::abi::require;

namespace {

// A compact host vector of `size` elements; size -1: 1 to 8192.
void check_vector(const char *name, const chorus_tensor *tensor, std::initializer_list<chorus_dtype> dtypes, int64_t size,
                  bool output) {
  const chorus_tensor &t = *require(tensor, name);
  const chorus_dtype dtype = chorus::dtype_of(t);
  if (std::find(dtypes.begin(), dtypes.end(), dtype) == dtypes.end() || t.device_type != CHORUS_DEVICE_HOST ||
      t.ndim != 1 || t.shape == nullptr || (t.strides != nullptr && t.strides[0] != 1) || t.quant != nullptr ||
      t.dtype_lanes > 1 || t.data == nullptr || reinterpret_cast<uintptr_t>(t.data) % (t.dtype_bits / 8) != 0) {
    fail(CHORUS_INVALID_ARGUMENT, "{} must be a compact, aligned vector in host memory; counts i32 or i64, average f64, bias f32",
         name);
  }
  if (t.shape[0] < 1 || t.shape[0] > 8192 || (size >= 0 && t.shape[0] != size) ||
      t.size_bytes / (t.dtype_bits / 8) < static_cast<uint64_t>(t.shape[0])) {
    fail(CHORUS_INVALID_ARGUMENT, "{} has {} elements in {} bytes; {} are needed", name, t.shape[0], t.size_bytes,
         size >= 0 ? std::to_string(size) : "1 to 8192");
  }
  if (output && (t.flags & CHORUS_TENSOR_READ_ONLY) != 0) {
    fail(CHORUS_INVALID_ARGUMENT, "{} is read-only, and an output", name);
  }
}

std::vector<int64_t> read_counts(const chorus_tensor *tensor) {
  check_vector("counts", tensor, {CHORUS_I32, CHORUS_I64}, -1, false);
  std::vector<int64_t> counts;
  for (int64_t e = 0; e < tensor->shape[0]; ++e) {
    const int64_t count = tensor->dtype_bits == 64 ? static_cast<const int64_t *>(tensor->data)[e]
                                                   : static_cast<const int32_t *>(tensor->data)[e];
    if (count < 0 || count > INT64_C(1) << 36) {
      fail(CHORUS_INVALID_ARGUMENT, "counts[{}] is {}; 0 to 2^36 are allowed", e, count);
    }
    counts.push_back(count);
  }
  return counts;
}

}  // namespace

extern "C" {

chorus_status chorus_route_get_load(const chorus_tensor *counts, const chorus_tensor *average, double decay,
                                    chorus_route_load *out_load, chorus_error **error) {
  return guarded(error, [&] {
    require(out_load, "out_load");
    const std::vector<int64_t> read = read_counts(counts);
    if (average != nullptr) {
      check_vector("average", average, {CHORUS_F64}, static_cast<int64_t>(read.size()), true);
      chorus::check_no_overlap(*average, "average", *counts, "counts");
      if (!(decay >= 0 && decay <= 1)) fail(CHORUS_INVALID_ARGUMENT, "decay is {}; 0 to 1 are allowed", decay);
    }
    fill_info(out_load, chorus::route::load_of(read));
    for (size_t e = 0; average != nullptr && e < read.size(); ++e) {
      double &mean = static_cast<double *>(average->data)[e];
      mean = decay * mean + (1 - decay) * static_cast<double>(read[e]);
    }
  });
}

chorus_status chorus_route_update_bias(const chorus_tensor *counts, double rate, const chorus_tensor *bias,
                                       chorus_error **error) {
  return guarded(error, [&] {
    const std::vector<int64_t> read = read_counts(counts);
    const auto experts = static_cast<int64_t>(read.size());
    check_vector("bias", bias, {CHORUS_F32}, experts, true);
    chorus::check_no_overlap(*bias, "bias", *counts, "counts");
    if (!std::isfinite(static_cast<float>(rate))) fail(CHORUS_INVALID_ARGUMENT, "rate is {}; finite is needed", rate);
    const int64_t slots = std::accumulate(read.begin(), read.end(), int64_t{0});
    for (size_t e = 0; e < read.size(); ++e) {
      const auto sign = static_cast<float>(chorus::route::direction_of(read[e], slots, experts));
      float &value = static_cast<float *>(bias->data)[e];
      value = value + static_cast<float>(rate) * sign;
    }
  });
}

}  // extern "C"
