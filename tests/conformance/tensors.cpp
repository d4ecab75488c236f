// SPDX-License-Identifier: Apache-2.0
// Test tensors and number formats: see tensors.h.
#include "conformance/tensors.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

namespace conformance {
namespace {

struct Format {
  int mantissa, exponent;  // bits
};

Format format_of(chorus_dtype dtype) {
  switch (dtype) {
    case CHORUS_F16:
      return {10, 5};
    case CHORUS_BF16:
      return {7, 8};
    case CHORUS_F32:
      return {23, 8};
    default:
      return {52, 11};
  }
}

bool is_integer(chorus_dtype dtype) {
  return (dtype & 0xff) <= CHORUS_DTYPE_CODE_UINT;
}

int lowest_exponent(const Format &f) {
  return 2 - (1 << (f.exponent - 1));
}  // of the smallest normal number

double largest(const Format &f) {
  return std::ldexp(2 - std::ldexp(1, -f.mantissa), (1 << (f.exponent - 1)) - 1);
}

}  // namespace

uint64_t size_of(chorus_dtype dtype) {
  return (dtype >> 8) / 8;
}

double decode(chorus_dtype dtype, uint64_t bits) {
  if (dtype == CHORUS_I32) return static_cast<int32_t>(bits);
  if (dtype == CHORUS_I64) return static_cast<double>(static_cast<int64_t>(bits));
  if (dtype == CHORUS_F64) return std::bit_cast<double>(bits);
  if (dtype == CHORUS_F32) return std::bit_cast<float>(static_cast<uint32_t>(bits));
  const Format f = format_of(dtype);
  const uint64_t fraction = bits & ((uint64_t{1} << f.mantissa) - 1);
  const int exponent = static_cast<int>(bits >> f.mantissa & ((1u << f.exponent) - 1));
  const double sign = bits >> (f.mantissa + f.exponent) & 1 ? -1 : 1;
  if (exponent == (1 << f.exponent) - 1)
    return fraction != 0 ? std::numeric_limits<double>::quiet_NaN()
                         : sign * std::numeric_limits<double>::infinity();
  const double significand = std::ldexp(static_cast<double>(fraction), -f.mantissa) + (exponent == 0 ? 0 : 1);
  return sign * std::ldexp(significand, lowest_exponent(f) + (exponent == 0 ? 0 : exponent - 1));
}

double ulp(chorus_dtype dtype, double x) {
  const Format f = format_of(dtype);
  int exponent = 0;
  std::frexp(std::fmin(std::fabs(x), largest(f)), &exponent);  // x = m 2^exponent, m in [1/2, 1)
  return std::ldexp(
      1, (x == 0 || exponent - 1 < lowest_exponent(f) ? lowest_exponent(f) : exponent - 1) - f.mantissa);
}

double rounded(chorus_dtype dtype, double x) {
  if (is_integer(dtype) || dtype == CHORUS_F64 || !std::isfinite(x)) return x;
  if (dtype == CHORUS_F32) return static_cast<float>(x);
  const Format f = format_of(dtype);
  const double step = ulp(dtype, x), units = std::nearbyint(x / step);  // exact: step is a power of two
  if (std::fabs(units * step) > largest(f)) return std::copysign(std::numeric_limits<double>::infinity(), x);
  return std::copysign(units * step, x);
}

uint64_t encode(chorus_dtype dtype, double x) {
  if (is_integer(dtype)) {
    const auto integer = static_cast<uint64_t>(static_cast<int64_t>(x));
    return dtype == CHORUS_I32 ? integer & 0xffffffffu : integer;
  }
  if (dtype == CHORUS_F64) return std::bit_cast<uint64_t>(x);
  if (dtype == CHORUS_F32) return std::bit_cast<uint32_t>(static_cast<float>(x));
  const Format f = format_of(dtype);
  const uint64_t infinity = ((uint64_t{1} << f.exponent) - 1) << f.mantissa;
  const uint64_t sign = static_cast<uint64_t>(std::signbit(x)) << (f.mantissa + f.exponent);
  if (std::isnan(x)) return infinity | uint64_t{1} << (f.mantissa - 1);
  const double y = std::fabs(rounded(dtype, x));
  if (std::isinf(y)) return sign | infinity;
  if (y == 0) return sign;
  int exponent = 0;
  std::frexp(y, &exponent);
  const int low = lowest_exponent(f);
  if (exponent - 1 < low) return sign | static_cast<uint64_t>(std::ldexp(y, f.mantissa - low));
  const auto significand = static_cast<uint64_t>(std::ldexp(y, f.mantissa - exponent + 1));
  const auto biased = static_cast<uint64_t>(exponent - low);
  return sign | biased << f.mantissa | (significand - (uint64_t{1} << f.mantissa));
}

Tensor::Tensor(const DeviceMemory &memory, chorus_dtype dtype, std::vector<int64_t> shape, int64_t row_stride,
               Buffer::Edge edge)
    : dtype_(dtype),
      shape_(std::move(shape)),
      strides_(shape_.size(), 1),
      buffer_(
          memory,
          [&] {
            for (size_t i = shape_.size(); i-- > 1;) strides_[i - 1] = strides_[i] * shape_[i];
            if (row_stride > 0) strides_[0] = row_stride;
            int64_t extent = 1;
            for (size_t i = 0; i < shape_.size(); ++i) extent += (shape_[i] - 1) * strides_[i];
            return count() == 0 ? 0 : static_cast<uint64_t>(extent) * size_of(dtype);
          }(),
          edge) {
  view_ = CHORUS_TENSOR_INIT;
  view_.data = buffer_.device();
  view_.size_bytes = buffer_.bytes();
  view_.device_type = memory.device_type;
  view_.device_id = memory.device_id;
  view_.dtype_code = static_cast<uint8_t>(dtype & 0xff);
  view_.dtype_bits = static_cast<uint8_t>(dtype >> 8);
  view_.dtype_lanes = 1;
  view_.ndim = static_cast<int32_t>(shape_.size());
  view_.shape = shape_.data();
  view_.strides = row_stride > 0 ? strides_.data() : nullptr;
  buffer_.upload();
}

Tensor::Tensor(const DeviceMemory &memory, chorus_dtype dtype, std::vector<int64_t> shape,
               const std::vector<double> &values, int64_t row_stride, Buffer::Edge edge)
    : Tensor(memory, dtype, std::move(shape), row_stride, edge) {
  fill(values);
}

int64_t Tensor::count() const {
  return std::accumulate(shape_.begin(), shape_.end(), int64_t{1}, std::multiplies<>());
}

// Compact index -> place.
char *Tensor::at(int64_t element) const {
  int64_t offset = 0;
  for (size_t i = shape_.size(); i-- > 0; element /= shape_[i]) offset += element % shape_[i] * strides_[i];
  return buffer_.host() + offset * static_cast<int64_t>(size_of(dtype_));
}

void Tensor::fill(const std::vector<double> &values) {
  for (int64_t i = 0; i < count(); ++i) {
    const uint64_t bits = encode(dtype_, values[static_cast<size_t>(i)]);
    std::memcpy(at(i), &bits, size_of(dtype_));  // little endian
  }
  buffer_.upload();
}

std::vector<uint64_t> Tensor::bits() {
  buffer_.download();
  std::vector<uint64_t> out(static_cast<size_t>(count()));
  for (int64_t i = 0; i < count(); ++i) std::memcpy(&out[static_cast<size_t>(i)], at(i), size_of(dtype_));
  return out;
}

std::vector<double> Tensor::values() {
  std::vector<double> out;
  for (uint64_t element : bits()) out.push_back(decode(dtype_, element));
  return out;
}

bool Tensor::gaps_are_untouched() {
  buffer_.download();
  if (shape_.size() != 2 || count() == 0) return true;
  const auto size = static_cast<int64_t>(size_of(dtype_));
  for (int64_t row = 0; row + 1 < shape_[0]; ++row) {
    const char *begin = buffer_.host() + (row * strides_[0] + shape_[1]) * size;
    const char *end = buffer_.host() + (row + 1) * strides_[0] * size;
    for (; begin < end; ++begin) {
      if (*begin != static_cast<char>(0xA5)) return false;
    }
  }
  return true;
}

}  // namespace conformance
