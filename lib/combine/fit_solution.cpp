// SPDX-License-Identifier: Apache-2.0
// The covariance of fitted weights: the inverse of the observed information in the space they may move in.
#include "combine/fit_solution.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace chorus::combine {

void set_errors(const Matrix &information, const Matrix &basis, size_t directions, Solution *solution) {
  const size_t n = information.n;
  Matrix reduced(directions);
  for (size_t a = 0; a < directions; ++a) {
    for (size_t b = 0; b < directions; ++b) {
      for (size_t i = 0; i < n; ++i) {
        for (size_t j = 0; j < n; ++j) reduced(a, b) += basis(i, a) * information(i, j) * basis(j, b);
      }
    }
  }
  const Eigen eigen = eigen_of(reduced);
  const double top = directions > 0 ? *std::ranges::max_element(eigen.values) : 0;
  for (size_t i = 0; i < n; ++i) {
    double variance = 0;
    bool identified = true;
    for (size_t k = 0; k < directions; ++k) {
      double along = 0;
      for (size_t a = 0; a < directions; ++a) along += basis(i, a) * eigen.vectors(a, k);
      if (eigen.values[k] <= 1e-10 * top || top <= 0) {
        identified &= std::abs(along) < 1e-4;
      } else {
        variance += along * along / eigen.values[k];
      }
    }
    solution->standard_errors[i] = identified ? std::sqrt(variance) : std::numeric_limits<double>::infinity();
    if (!identified) solution->flags[i] |= CHORUS_FIT_NOT_IDENTIFIED;
  }
}

}  // namespace chorus::combine
