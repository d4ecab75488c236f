// SPDX-License-Identifier: Apache-2.0
// Plain loops; `target_clones` lets the loader pick the widest vectors this machine has.
#include "matrix.h"

#include <algorithm>
#include <cmath>

namespace host {

Matrix Matrix::transposed() const {
  Matrix out(columns, rows);
  for (size_t i = 0; i < rows; ++i) {
    for (size_t j = 0; j < columns; ++j) out.row(j)[i] = row(i)[j];
  }
  return out;
}

// Four rows of x share each row of w, and 64 outputs stay in registers while the inputs stream by.
__attribute__((target_clones("default", "avx2,fma", "avx512f"))) static void multiply_block(
    const float *const *x, size_t rows, const Matrix &w, float *const *y) {
  constexpr size_t kTile = 64;
  for (size_t first = 0; first < w.columns; first += kTile) {
    const size_t width = std::min(kTile, w.columns - first);
    float sums[4][kTile] = {};
    for (size_t i = 0; i < w.rows; ++i) {
      const float *weights = w.row(i) + first;
      for (size_t r = 0; r < rows; ++r) {
        const float value = x[r][i];
        for (size_t j = 0; j < width; ++j) sums[r][j] += value * weights[j];
      }
    }
    for (size_t r = 0; r < rows; ++r) std::copy_n(sums[r], width, y[r] + first);
  }
}

Matrix multiply(const Matrix &x, const Matrix &w) {
  Matrix y(x.rows, w.columns);
  for (size_t t = 0; t < x.rows; t += 4) {
    const size_t rows = std::min<size_t>(4, x.rows - t);
    const float *in[4] = {};
    float *out[4] = {};
    for (size_t r = 0; r < rows; ++r) {
      in[r] = x.row(t + r);
      out[r] = y.row(t + r);
    }
    multiply_block(in, rows, w, out);
  }
  return y;
}

Matrix rms_norm(const Matrix &x, const std::vector<float> &gain, float eps) {
  Matrix y(x.rows, x.columns);
  for (size_t t = 0; t < x.rows; ++t) {
    float sum = 0;
    for (size_t j = 0; j < x.columns; ++j) sum += x.row(t)[j] * x.row(t)[j];
    const float scale = 1.0f / std::sqrt(sum / static_cast<float>(x.columns) + eps);
    for (size_t j = 0; j < x.columns; ++j) y.row(t)[j] = x.row(t)[j] * scale * gain[j];
  }
  return y;
}

void add_to(Matrix &x, const Matrix &y) {
  for (size_t i = 0; i < x.data.size(); ++i) x.data[i] += y.data[i];
}

float silu(float x) { return x / (1.0f + std::exp(-x)); }

void softmax(float *values, size_t n) {
  const float largest = *std::max_element(values, values + n);
  float sum = 0;
  for (size_t i = 0; i < n; ++i) sum += values[i] = std::exp(values[i] - largest);
  for (size_t i = 0; i < n; ++i) values[i] /= sum;
}

}  // namespace host
