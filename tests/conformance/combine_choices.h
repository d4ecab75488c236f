// SPDX-License-Identifier: Apache-2.0
// The oracle's models of a row, and the choices made from them by the f32 and integer rules of
// docs/numerics.md.
#pragma once
#include <cstdint>
#include <vector>

#include "conformance/combine_oracle.h"

namespace conformance {

// A model that counts in a row.
struct OracleModel {
  std::vector<double> raw;             // scores as stored, n_valid of them
  std::vector<long double> l, spread;  // normalised log-probs; (z - max) / T of a regular row
  double weight = 0, temperature = 0;
  bool is_prob = false;
  int64_t top = -1, infinite = 0;

  bool is_one_hot() const { return temperature == 0; }
  bool is_regular() const { return temperature > 0 && infinite == 0; }
};

// Sets argmax and sample of a row with support, from the models left in it.
void choose(const CombineProblem &p, int64_t row, const std::vector<OracleModel> &models, OracleRow &out);

}  // namespace conformance
