// SPDX-License-Identifier: Apache-2.0
// The checks of one tensor argument, cheapest first; messages are built on the failing path alone.
#include "runtime/tensor.h"

#include <algorithm>
#include <vector>

#include "runtime/checked.h"
#include "runtime/dtype.h"
#include "runtime/error.h"

namespace chorus {
namespace {

std::string shape_text(const int64_t *shape, int32_t ndim) {
  return fmt::format("[{}]", fmt::join(shape, shape + ndim, ", "));
}

std::string rule_text(const TensorRule &rule) {
  std::vector<std::string> sizes;
  for (const int64_t size : rule.shape) sizes.push_back(size == kAnySize ? "any" : std::to_string(size));
  return fmt::format("[{}]", fmt::join(sizes, ", "));
}

void check_struct(const chorus_tensor &t, const char *name) {
  if (t.struct_size < CHORUS_END_OF(chorus_tensor, quant)) {
    fail(CHORUS_INVALID_ARGUMENT, "{}: struct_size is {}; initialise it with CHORUS_TENSOR_INIT", name, t.struct_size);
  }
  if ((t.flags & ~CHORUS_TENSOR_READ_ONLY) != 0) {
    fail(CHORUS_INVALID_ARGUMENT, "{}: flags are {:#x}; this version knows CHORUS_TENSOR_READ_ONLY (1) alone", name,
         t.flags);
  }
  if (t.reserved != 0) fail(CHORUS_INVALID_ARGUMENT, "{}: reserved is {}; it must be 0", name, t.reserved);
  if (t.ndim < 0 || t.ndim > CHORUS_MAX_DIMENSIONS) {
    fail(CHORUS_INVALID_ARGUMENT, "{}: ndim is {}; 0 to {} are allowed", name, t.ndim, CHORUS_MAX_DIMENSIONS);
  }
  if (t.ndim > 0 && t.shape == nullptr) fail(CHORUS_INVALID_ARGUMENT, "{}: shape is NULL", name);
}

void check_dtype(const chorus_tensor &t, const TensorRule &rule) {
  const chorus_dtype dtype = dtype_of(t);
  if (t.quant != nullptr && !rule.may_be_quantised) {
    fail(CHORUS_UNIMPLEMENTED, "{}: quantised tensors are not supported yet; dequantise it first", rule.name);
  }
  if (t.dtype_lanes <= 1 && std::ranges::find(rule.dtypes, dtype) != rule.dtypes.end()) return;
  std::vector<std::string> names;
  for (const chorus_dtype allowed : rule.dtypes) names.emplace_back(dtype_name(allowed));
  fail(is_known_dtype(dtype) && t.dtype_lanes <= 1 ? CHORUS_UNIMPLEMENTED : CHORUS_INVALID_ARGUMENT,
       "{}: dtype is {} with {} lane(s); supported here: {}", rule.name, describe_dtype(dtype), t.dtype_lanes,
       fmt::join(names, ", "));
}

void check_shape(const chorus_tensor &t, const TensorRule &rule) {
  bool fits = static_cast<size_t>(t.ndim) == rule.shape.size();
  for (int32_t i = 0; fits && i < t.ndim; ++i) {
    const int64_t wanted = rule.shape.begin()[i];
    fits = t.shape[i] >= 0 && (wanted == kAnySize || t.shape[i] == wanted);
  }
  if (!fits) {
    fail(CHORUS_INVALID_ARGUMENT, "{}: shape is {}; {} is needed", rule.name, shape_text(t.shape, t.ndim),
         rule_text(rule));
  }
}

// Elements from the first to one past the last reachable; nothing on overflow or a negative stride.
std::optional<uint64_t> reach_of(const chorus_tensor &t) {
  const auto elements = checked_elements({t.shape, static_cast<size_t>(t.ndim)});
  if (!elements || *elements == 0 || t.strides == nullptr) return elements;
  uint64_t last = 0;
  for (int32_t i = 0; i < t.ndim; ++i) {
    if (t.strides[i] < 0) return std::nullopt;
    const auto step = checked_multiply(static_cast<uint64_t>(t.shape[i] - 1), static_cast<uint64_t>(t.strides[i]));
    const auto sum = step ? checked_add(last, *step) : std::nullopt;
    if (!sum) return std::nullopt;
    last = *sum;
  }
  return checked_add(last, 1);
}

// Bytes of a compact tensor in one short loop, the common case; false where only reach_of() can tell.
inline bool compact_bytes(const chorus_tensor &t, uint64_t bytes_each, uint64_t *bytes) {
  if (t.strides != nullptr) return false;
  uint64_t product = bytes_each;
  bool wrong = false, empty = false;
  for (int32_t i = 0; i < t.ndim; ++i) {
    const int64_t size = t.shape[i];
    empty |= size == 0;
    wrong |= size < 0;
    wrong |= __builtin_mul_overflow(product, static_cast<uint64_t>(size) | static_cast<uint64_t>(size == 0), &product);
  }
  *bytes = empty ? 0 : product;
  return !wrong;
}

Extent check_memory(const chorus_tensor &t, const TensorRule &rule) {
  const uint64_t bytes_each = std::max<uint64_t>(t.dtype_bits / 8, 1);
  std::optional<uint64_t> bytes = 0;
  if (!compact_bytes(t, bytes_each, &*bytes)) {
    const auto reach = reach_of(t);
    bytes = reach ? checked_multiply(*reach, bytes_each) : std::nullopt;
  }
  if (!bytes) {
    fail(CHORUS_INVALID_ARGUMENT, "{}: shape {} and strides overflow or are negative", rule.name,
         shape_text(t.shape, t.ndim));
  }
  const char *begin = static_cast<const char *>(t.data);
  if (*bytes == 0) return {begin, begin};
  if (t.data == nullptr) fail(CHORUS_INVALID_ARGUMENT, "{}: data is NULL and the tensor is not empty", rule.name);
  if (*bytes > t.size_bytes) {
    fail(CHORUS_INVALID_ARGUMENT, "{}: shape and strides reach {} bytes; size_bytes is {}", rule.name, *bytes,
         t.size_bytes);
  }
  const auto address = reinterpret_cast<uintptr_t>(t.data);
  if (address % bytes_each != 0) {
    fail(CHORUS_INVALID_ARGUMENT, "{}: data is not aligned to its element size of {} bytes", rule.name, bytes_each);
  }
  if (!checked_add(address, t.size_bytes)) {
    fail(CHORUS_INVALID_ARGUMENT, "{}: size_bytes {} runs past the end of memory", rule.name, t.size_bytes);
  }
  return {begin, begin + *bytes};
}

// Distinct elements of an output must be distinct places; nested strides guarantee it.
void check_output(const chorus_tensor &t, const TensorRule &rule) {
  if ((t.flags & CHORUS_TENSOR_READ_ONLY) != 0) fail(CHORUS_INVALID_ARGUMENT, "{}: is read-only, and an output", rule.name);
  if (t.strides == nullptr || reach_of(t) == 0) return;
  uint64_t inner = 1;  // elements that the dimensions further in span
  for (int32_t i = t.ndim - 1; i >= 0; --i) {
    const auto stride = static_cast<uint64_t>(t.strides[i]), size = static_cast<uint64_t>(t.shape[i]);
    if (size > 1 && stride < inner) {
      fail(CHORUS_INVALID_ARGUMENT, "{}: stride {} of dimension {} makes elements share memory", rule.name, stride, i);
    }
    if (size > 1) inner = stride * size;
  }
}

}  // namespace

Extent check_tensor(const chorus_tensor *tensor, const TensorRule &rule, const Device &device) {
  if (tensor == nullptr) fail(CHORUS_INVALID_ARGUMENT, "{} is NULL; it is required", rule.name);
  const chorus_tensor &t = *tensor;
  check_struct(t, rule.name);
  check_dtype(t, rule);
  check_shape(t, rule);
  const Extent extent = check_memory(t, rule);
  if (rule.rows_contiguous && t.strides != nullptr && t.ndim > 0 && t.shape[t.ndim - 1] > 1 &&
      t.strides[t.ndim - 1] != 1) {
    fail(CHORUS_INVALID_ARGUMENT, "{}: the last dimension has stride {}; 1 is needed", rule.name, t.strides[t.ndim - 1]);
  }
  if (rule.output) check_output(t, rule);
  if (t.device_type != device_type(device) || t.device_id != device_id(device)) {
    fail(CHORUS_INVALID_ARGUMENT, "{}: lives on device type {} id {}; the object is on '{}' (type {} id {})", rule.name,
         t.device_type, t.device_id, device_name(device), device_type(device), device_id(device));
  }
  return extent;
}

Extent extent_of(const chorus_tensor &tensor) {
  const char *begin = static_cast<const char *>(tensor.data);
  uint64_t bytes;
  if (compact_bytes(tensor, tensor.dtype_bits / 8, &bytes)) return {begin, begin + bytes};
  const uint64_t reach = reach_of(tensor).value_or(0);
  return {begin, begin + reach * (tensor.dtype_bits / 8)};
}

void check_no_overlap(const chorus_tensor &output, const char *output_name, const chorus_tensor &other,
                      const char *other_name, bool same_allowed) {
  const Extent a = extent_of(output), b = extent_of(other);
  if (!overlap(a, b)) return;
  if (same_allowed && a.begin == b.begin && a.end == b.end && dtype_of(output) == dtype_of(other)) return;
  fail_overlap(output_name, other_name, same_allowed);
}

void fail_overlap(const char *output_name, const char *other_name, bool same_allowed) {
  fail(CHORUS_INVALID_ARGUMENT, "{} overlaps {}; they must not share memory{}", output_name, other_name,
       same_allowed ? ", unless both are the same view" : "");
}

}  // namespace chorus
