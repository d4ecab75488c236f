// SPDX-License-Identifier: Apache-2.0
// Small dense symmetric matrices (n <= 64), in double precision: what fits of weights need.
#pragma once
#include <cstddef>
#include <vector>

namespace chorus::combine {

using Vector = std::vector<double>;

// Row-major n x n.
struct Matrix {
  Matrix() = default;
  explicit Matrix(size_t size) : n(size), at_(size * size, 0.0) {}
  double &operator()(size_t i, size_t j) { return at_[i * n + j]; }
  double operator()(size_t i, size_t j) const { return at_[i * n + j]; }
  size_t n = 0;

 private:
  std::vector<double> at_;
};

// A = V diag(values) V^T by cyclic Jacobi rotations; column k of `vectors` belongs to values[k]. O(n^3) per sweep.
struct Eigen {
  Vector values;
  Matrix vectors;
};
Eigen eigen_of(Matrix a);

// x of (A + shift I) x = b for a positive semidefinite A: directions whose eigenvalue is below rounding count as 0.
Vector solve_shifted(const Eigen &a, double shift, const Vector &b);

// x of A x = b by Gaussian elimination with partial pivoting; false when A is singular to working precision.
bool solve(Matrix a, Vector b, Vector *out);

}  // namespace chorus::combine
