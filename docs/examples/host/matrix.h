// SPDX-License-Identifier: Apache-2.0
// The little linear algebra a Llama needs, in plain loops that the compiler vectorises.
#pragma once
#include <cstddef>
#include <vector>

namespace host {

// Row-major [rows, columns].
struct Matrix {
  size_t rows = 0, columns = 0;
  std::vector<float> data;

  Matrix() = default;
  Matrix(size_t r, size_t c) : rows(r), columns(c), data(r * c) {}
  float *row(size_t i) { return data.data() + i * columns; }
  const float *row(size_t i) const { return data.data() + i * columns; }
  Matrix transposed() const;
};

// y = x w, with w stored [in, out] so that the inner loop runs over outputs. Cost: 2 * x.rows * in * out flops.
Matrix multiply(const Matrix &x, const Matrix &w);

// Each row divided by its root mean square (eps added to the mean square), times `gain`.
Matrix rms_norm(const Matrix &x, const std::vector<float> &gain, float eps);

void add_to(Matrix &x, const Matrix &y);

float silu(float x);

// Softmax of n numbers in place.
void softmax(float *values, size_t n);

}  // namespace host
