// SPDX-License-Identifier: Apache-2.0
// Widening the stored types: exact, but for f64, which is rounded.
#include "tensor_values.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

namespace chorus_cli {
namespace {

float from_f16(uint16_t bits) {
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  const float sign = (bits & 0x8000) != 0 ? -1.0f : 1.0f;
  if (exponent == 31) return fraction != 0 ? std::nanf("") : sign * HUGE_VALF;
  return sign * (exponent == 0 ? std::ldexp(static_cast<float>(fraction), -24) : std::ldexp(static_cast<float>(1024 + fraction), exponent - 25));
}

template <typename T>
T element(const std::vector<char> &bytes, uint64_t i) {
  T out;
  std::memcpy(&out, bytes.data() + i * sizeof(T), sizeof(T));
  return out;
}

}  // namespace

chorus_tensor_info Model::info(size_t index) const {
  chorus_tensor_info out = CHORUS_TENSOR_INFO_INIT;
  Call call;
  call(chorus_checkpoint_get_tensor(get(), index, &out, call.slot()));
  return out;
}

std::optional<size_t> Model::find(const std::string &name) const {
  size_t index = 0;
  if (chorus_checkpoint_find_tensor(get(), name.c_str(), &index, nullptr) != CHORUS_OK) return std::nullopt;
  return index;
}

bool same_shape(const chorus_tensor_info &a, const chorus_tensor_info &b) {
  return a.ndim == b.ndim && std::equal(a.shape, a.shape + a.ndim, b.shape);
}

bool TensorValues::is_readable(const chorus_tensor_info &info) {
  return info.dtype == CHORUS_F64 || info.dtype == CHORUS_F32 || info.dtype == CHORUS_F16 || info.dtype == CHORUS_BF16;
}

std::vector<float> TensorValues::read(uint64_t begin, uint64_t count) const {
  const uint64_t each = info_.dtype >> 11;
  std::vector<char> bytes(count * each);
  Call call;
  call(chorus_checkpoint_read_bytes(model_->get(), index_, begin * each, bytes.size(), bytes.data(), call.slot()));
  std::vector<float> out(count);
  for (uint64_t i = 0; i < count; ++i) {
    switch (info_.dtype) {
      case CHORUS_F64: out[i] = static_cast<float>(element<double>(bytes, i)); break;
      case CHORUS_F32: out[i] = element<float>(bytes, i); break;
      case CHORUS_F16: out[i] = from_f16(element<uint16_t>(bytes, i)); break;
      default: out[i] = std::bit_cast<float>(uint32_t{element<uint16_t>(bytes, i)} << 16);
    }
  }
  return out;
}

}  // namespace chorus_cli
