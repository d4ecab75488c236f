// SPDX-License-Identifier: Apache-2.0
// Divergences summed from terms that cannot be negative, so that no cancellation makes the sum so.
#pragma once
#include <cmath>

namespace chorus::combine {

// p log(p / q) - p + q >= 0: summed over the tokens of two distributions it is KL(p || q). +inf where q = 0 < p.
// `log_ratio` = log p - log q.
inline double excess(double p, double q, double log_ratio) {
  if (p == 0) return q;
  const double d = (q - p) / p;
  if (std::abs(d) > 1e-2) return p * log_ratio + (q - p);
  // d - log(1 + d), whose first terms cancel: d^2/2 - d^3/3 + …; the eighth is below 1e-16 of the first.
  double series = 0;
  for (int k = 9; k >= 2; --k) series = series * -d + 1.0 / k;
  return p * d * d * series;
}

// p log p with 0 log 0 = 0.
inline double p_log_p(double p, double log_p) { return p == 0 ? 0.0 : p * log_p; }

}  // namespace chorus::combine
