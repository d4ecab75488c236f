// SPDX-License-Identifier: Apache-2.0
// Routing over a whole batch, on matrices of doubles; the contracts are those of route_assign.h.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace chorus::route {

// Row-major.
struct Matrix {
  Matrix(int64_t n_rows, int64_t n_columns)
      : rows(n_rows), columns(n_columns), values(static_cast<size_t>(n_rows * n_columns)) {}
  double *row(int64_t r) { return values.data() + r * columns; }
  const double *row(int64_t r) const { return values.data() + r * columns; }
  int64_t rows, columns;
  std::vector<double> values;
};

// `m` becomes the plan; returns the rounds.
int32_t sinkhorn(Matrix *m, double tolerance, int32_t max_rounds);

// The expert of each token, `capacity` of each expert at most.
std::vector<int32_t> balanced_assignment(const Matrix &scores, int64_t capacity);

void softmax_rows(Matrix *m);
void softmax_columns(Matrix *m);

// The k highest columns of a row, best first, ties by index.
std::vector<int32_t> best_columns(const double *row, int64_t columns, int32_t k);

void update_quantile_bias(const Matrix &scores, int32_t k, std::vector<double> *bias);

}  // namespace chorus::route
