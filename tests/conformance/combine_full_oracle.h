// SPDX-License-Identifier: Apache-2.0
// The whole of combine.rows in probabilities of long double (no underflow above e^-11355), written from docs/numerics.md apart
// from the library, which works on logarithms.
#pragma once
#include "conformance/combine_problem.h"

namespace conformance {

struct FullOracle {
  uint32_t status = 0;
  bool is_valid = true;       // else NaN or nothing
  bool is_close_call = false;  // a filter cuts within rounding: what it keeps is not compared
  std::vector<long double> l;  // final log-probs, or scores; -inf outside the support
  std::vector<long double> p;  // of the combination before anything follows it
  std::vector<std::vector<long double>> models;  // p_i in the output vocabulary; empty: not read
  std::vector<long double> weights;              // of those
};

FullOracle full_oracle(const CombineProblem &p, int64_t row);

// A random one, moderate scores: the oracle's tolerance is one for all rules. (combine_full_random.cpp)
CombineProblem full_problem(Random &random);

// Compares every output of `r` with the oracle.
void expect_full_agrees(const CombineProblem &p, const CombineResult &r);

}  // namespace conformance
