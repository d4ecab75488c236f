// SPDX-License-Identifier: Apache-2.0
// Same type: straight between file and memory. Else by blocks of 1 MiB through a buffer.
#include "checkpoint/transfer.h"

#include <fmt/format.h>

#include <algorithm>

#include "checkpoint/convert.h"
#include "runtime/allocate.h"
#include "runtime/dtype.h"
#include "runtime/error.h"
#include "runtime/tensor.h"

namespace chorus::checkpoint {
namespace {

constexpr uint64_t kBlockBytes = uint64_t{1} << 20;

bool is_compact(const chorus_tensor &t) {
  if (t.strides == nullptr) return true;
  int64_t expected = 1;
  for (int32_t i = t.ndim - 1; i >= 0; --i) {
    if (t.shape[i] == 0) return true;
    if (t.shape[i] != 1 && t.strides[i] != expected) return false;
    expected *= t.shape[i];
  }
  return true;
}

bool is_host(int32_t device_type) {
  return device_type == CHORUS_DEVICE_HOST || device_type == CHORUS_DEVICE_CUDA_HOST;
}

// Calls step(first element, count) over `elements` in blocks of a buffer of elements of `bytes_each`.
template <typename Step>
void by_blocks(uint64_t elements, uint64_t bytes_each, Step step) {
  const uint64_t most = kBlockBytes / bytes_each;
  for (uint64_t first = 0; first < elements; first += most) step(first, std::min(most, elements - first));
}

}  // namespace

uint64_t check_memory(const chorus_tensor *tensor, const char *name, const std::string &whose, const StorageType &stored,
                      const std::vector<int64_t> &shape) {
  if (tensor == nullptr) fail(CHORUS_INVALID_ARGUMENT, "{} is NULL; it is required", name);
  const chorus_tensor &t = *tensor;
  if (t.struct_size < CHORUS_END_OF(chorus_tensor, quant)) {
    fail(CHORUS_INVALID_ARGUMENT, "{}: struct_size is {}; initialise it with CHORUS_TENSOR_INIT", name, t.struct_size);
  }
  if (shape.size() > CHORUS_MAX_DIMENSIONS) {
    fail(CHORUS_UNIMPLEMENTED, "tensor '{}' has {} dimensions, a chorus_tensor at most {}; move its bytes instead", whose,
         shape.size(), CHORUS_MAX_DIMENSIONS);
  }
  if (t.ndim < 0 || static_cast<size_t>(t.ndim) != shape.size() || (t.ndim > 0 && t.shape == nullptr) ||
      !std::ranges::equal(shape, std::span(t.shape, shape.size()))) {
    fail(CHORUS_INVALID_ARGUMENT, "{}: its shape must be that of tensor '{}': [{}]", name, whose, fmt::join(shape, ", "));
  }
  if (!is_compact(t)) fail(CHORUS_INVALID_ARGUMENT, "{}: strides are not compact row-major; pass NULL strides", name);
  if (!is_host(t.device_type)) {
    fail(CHORUS_INVALID_ARGUMENT, "{}: device_type is {}; host memory is needed (chorus_memory_copy() moves it on)", name,
         t.device_type);
  }
  if (t.quant != nullptr || t.dtype_lanes > 1 || (t.flags & ~CHORUS_TENSOR_READ_ONLY) != 0) {
    fail(CHORUS_INVALID_ARGUMENT, "{}: quant must be NULL, lanes 1, flags known", name);
  }
  const StorageType *type = storage_type(dtype_of(t));
  if (type == nullptr || !can_convert(stored.dtype, type->dtype)) {
    fail(CHORUS_UNIMPLEMENTED, "{}: dtype is {}; tensor '{}' is {}. Conversions are between f64, f32, f16 and bf16", name,
         describe_dtype(dtype_of(t)), whose, stored.name);
  }
  uint64_t bytes = 0;
  if (!data_bytes(*type, shape, &bytes) || bytes > t.size_bytes) {
    fail(CHORUS_INVALID_ARGUMENT, "{}: size_bytes is {}; {} are needed", name, t.size_bytes, bytes);
  }
  if (bytes > 0 && t.data == nullptr) fail(CHORUS_INVALID_ARGUMENT, "{}: data is NULL and the tensor is not empty", name);
  if (bytes > 0 && reinterpret_cast<uintptr_t>(t.data) % std::max<uint64_t>(type->bits() / 8, 1) != 0) {
    fail(CHORUS_INVALID_ARGUMENT, "{}: data is not aligned to its element size", name);
  }
  return bytes;
}

void read_tensor(const Model &model, const Tensor &tensor, const chorus_tensor *out) {
  const uint64_t bytes = check_memory(out, "out", tensor.name, *tensor.type, tensor.shape);
  if ((out->flags & CHORUS_TENSOR_READ_ONLY) != 0) fail(CHORUS_INVALID_ARGUMENT, "out: is read-only, and an output");
  const chorus_dtype wanted = dtype_of(*out);
  if (wanted == tensor.type->dtype) return model.read(tensor, 0, bytes, out->data);
  const uint64_t from_each = tensor.type->bits() / 8, to_each = dtype_bytes(wanted);
  const Buffer buffer(kBlockBytes, 64, "converting a tensor");
  by_blocks(tensor.bytes / from_each, from_each, [&](uint64_t first, uint64_t count) {
    model.read(tensor, first * from_each, count * from_each, buffer.data());
    convert(buffer.data(), tensor.type->dtype, static_cast<char *>(out->data) + first * to_each, wanted, count);
  });
}

void write_tensor(Writer *writer, size_t index, const DeclaredTensor &declared, const chorus_tensor *in) {
  const uint64_t bytes = check_memory(in, "tensor", declared.name, *declared.type, declared.shape);
  const chorus_dtype given = dtype_of(*in);
  if (given == declared.type->dtype) return writer->write(index, 0, bytes, in->data);
  const uint64_t from_each = dtype_bytes(given), to_each = declared.type->bits() / 8;
  const Buffer buffer(kBlockBytes, 64, "converting a tensor");
  by_blocks(bytes / from_each, to_each, [&](uint64_t first, uint64_t count) {
    convert(static_cast<const char *>(in->data) + first * from_each, given, buffer.data(), declared.type->dtype, count);
    writer->write(index, first * to_each, count * to_each, buffer.data());
  });
}

}  // namespace chorus::checkpoint
