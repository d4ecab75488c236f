// SPDX-License-Identifier: Apache-2.0
// What combine.rows must give, from docs/numerics.md alone: log-probs in long double with the contract's
// tolerance, and the choices (argmax, sample) bit by bit. Shares no code with the library but exact_math.h,
// which is the contract.
#pragma once
#include <cstdint>
#include <vector>

#include "conformance/combine_problem.h"

namespace conformance {

struct OracleRow {
  uint32_t status = 0;
  std::vector<long double> log_probs;  // [V]
  std::vector<long double> tolerance;  // [V], DESIGN 3a.6
  std::vector<long double> closeness;  // [V]: how far a key may be off, 2^-22 sum |c_i s_i| in nats
  int64_t argmax = -1, sample = -1;    // by the integer rules of "Choices"
};

OracleRow combine_oracle(const CombineProblem &p, int64_t row);

// Compares a result with the oracle, row by row.
void expect_agrees(const CombineProblem &p, const CombineResult &r);
void expect_row_agrees(const CombineProblem &p, const CombineResult &r, int64_t row, const OracleRow &oracle);

}  // namespace conformance
