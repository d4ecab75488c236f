// SPDX-License-Identifier: Apache-2.0
// Tensors of the tests: guarded memory plus a chorus_tensor, filled from and read as doubles; formats of our
// own.
#pragma once
#include <cstdint>
#include <vector>

#include "conformance/memory.h"

namespace conformance {

// ---- Formats: written apart from the library's, by search and arithmetic in double ----

uint64_t size_of(chorus_dtype dtype);
double decode(chorus_dtype dtype, uint64_t bits);
// Nearest value of the format, ties to even; NaN gives a quiet NaN, overflow an infinity.
uint64_t encode(chorus_dtype dtype, double x);
// The value `x` becomes when stored.
double rounded(chorus_dtype dtype, double x);
// Distance between neighbours around x in the format (of the largest finite one beyond it).
double ulp(chorus_dtype dtype, double x);

// ---- Tensors ----

class Tensor {
 public:
  // Compact but for `row_stride` (elements, >= the last dimension; 0: compact) of a matrix.
  Tensor(const DeviceMemory &memory, chorus_dtype dtype, std::vector<int64_t> shape, int64_t row_stride = 0,
         Buffer::Edge edge = Buffer::Edge::kEnd);
  Tensor(const DeviceMemory &memory, chorus_dtype dtype, std::vector<int64_t> shape,
         const std::vector<double> &values, int64_t row_stride = 0, Buffer::Edge edge = Buffer::Edge::kEnd);

  const chorus_tensor *view() const { return &view_; }
  const void *data() const { return view_.data; }
  void fill(const std::vector<double> &values);  // and upload
  std::vector<double> values();                  // download and decode
  std::vector<uint64_t> bits();                  // download; elements as they are stored
  // Whether the bytes between rows are still what they were made as.
  bool gaps_are_untouched();
  Buffer &buffer() { return buffer_; }

 private:
  int64_t count() const;
  char *at(int64_t element) const;

  chorus_dtype dtype_;
  std::vector<int64_t> shape_, strides_;
  Buffer buffer_;
  chorus_tensor view_;
};

}  // namespace conformance
