// SPDX-License-Identifier: Apache-2.0
// Jacobi eigenvalues (Golub and Van Loan, 8.5) and elimination with pivoting.
#include "combine/symmetric.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace chorus::combine {
namespace {

// Rotates rows and columns p and q so that a(p, q) becomes 0.
void rotate(Matrix &a, Matrix &vectors, size_t p, size_t q) {
  const double theta = (a(q, q) - a(p, p)) / (2 * a(p, q));
  const double t = (theta >= 0 ? 1.0 : -1.0) / (std::abs(theta) + std::sqrt(theta * theta + 1));
  const double c = 1 / std::sqrt(t * t + 1), s = t * c;
  for (size_t k = 0; k < a.n; ++k) {
    const double kp = a(k, p), kq = a(k, q);
    a(k, p) = c * kp - s * kq;
    a(k, q) = s * kp + c * kq;
  }
  for (size_t k = 0; k < a.n; ++k) {
    const double pk = a(p, k), qk = a(q, k), vp = vectors(k, p), vq = vectors(k, q);
    a(p, k) = c * pk - s * qk;
    a(q, k) = s * pk + c * qk;
    vectors(k, p) = c * vp - s * vq;
    vectors(k, q) = s * vp + c * vq;
  }
}

}  // namespace

Eigen eigen_of(Matrix a) {
  const size_t n = a.n;
  Matrix vectors(n);
  for (size_t i = 0; i < n; ++i) vectors(i, i) = 1;
  constexpr int kSweeps = 60;  // converges quadratically; 10 is usual
  for (int sweep = 0; sweep < kSweeps; ++sweep) {
    bool rotated = false;
    for (size_t p = 0; p < n; ++p) {
      for (size_t q = p + 1; q < n; ++q) {
        const double scale = std::sqrt(std::abs(a(p, p)) * std::abs(a(q, q)));
        if (std::abs(a(p, q)) <= 1e-17 * scale || a(p, q) == 0) continue;
        rotate(a, vectors, p, q);
        rotated = true;
      }
    }
    if (!rotated) break;
  }
  Eigen out{Vector(n), std::move(vectors)};
  for (size_t i = 0; i < n; ++i) out.values[i] = a(i, i);
  return out;
}

Vector solve_shifted(const Eigen &a, double shift, const Vector &b) {
  const size_t n = b.size();
  const double top = *std::ranges::max_element(a.values);
  Vector x(n, 0.0);
  for (size_t k = 0; k < n; ++k) {
    double along = 0;
    for (size_t i = 0; i < n; ++i) along += a.vectors(i, k) * b[i];
    const double value = (a.values[k] > 1e-14 * top ? a.values[k] : 0) + shift;
    // A null direction in which b is but rounding is left alone.
    if (a.values[k] <= 1e-14 * top && std::abs(along) <= 1e-12 * std::sqrt(std::max(top, 0.0))) continue;
    if (value <= 0) continue;
    for (size_t i = 0; i < n; ++i) x[i] += a.vectors(i, k) * (along / value);
  }
  return x;
}

bool solve(Matrix a, Vector b, Vector *out) {
  const size_t n = b.size();
  for (size_t k = 0; k < n; ++k) {
    size_t pivot = k;
    for (size_t i = k + 1; i < n; ++i) {
      if (std::abs(a(i, k)) > std::abs(a(pivot, k))) pivot = i;
    }
    if (!(std::abs(a(pivot, k)) > 0) || !std::isfinite(a(pivot, k))) return false;
    for (size_t j = 0; j < n; ++j) std::swap(a(k, j), a(pivot, j));
    std::swap(b[k], b[pivot]);
    for (size_t i = k + 1; i < n; ++i) {
      const double factor = a(i, k) / a(k, k);
      for (size_t j = k; j < n; ++j) a(i, j) -= factor * a(k, j);
      b[i] -= factor * b[k];
    }
  }
  for (size_t k = n; k-- > 0;) {
    for (size_t j = k + 1; j < n; ++j) b[k] -= a(k, j) * b[j];
    b[k] /= a(k, k);
    if (!std::isfinite(b[k])) return false;
  }
  *out = std::move(b);
  return true;
}

}  // namespace chorus::combine
