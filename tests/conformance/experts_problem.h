// SPDX-License-Identifier: Apache-2.0
// An experts.ffn call as plain data: made by the tests, run through a kernel table or the public C ABI, and answered by an
// oracle in double precision.
#pragma once
#include "conformance/combine_problem.h"
#include "conformance/public_abi.h"

namespace conformance {

// A weight tensor [E, rows, columns]: its real values, and for integers what is stored.
struct ExpertWeights {
  int64_t rows = 0, columns = 0, group = 0;  // group: columns per scale, 0: all
  std::vector<double> real, stored, scales;
};

struct ExpertsProblem {
  int32_t n_experts = 0, n_shared = 0, k = 0;
  int64_t hidden = 0, intermediate = 0, tokens = 0, row_stride = 0;
  chorus_dtype weights_dtype = CHORUS_F32, scales_dtype = CHORUS_F32, x_dtype = CHORUS_F32, y_dtype = CHORUS_F32,
               ids_dtype = CHORUS_I32;
  chorus_activation activation = CHORUS_ACTIVATION_SWIGLU;
  chorus_gate_layout layout = CHORUS_GATE_UP_CONCATENATED;
  double limit = 0;
  bool weight_before = false, batch_invariant = false;
  ExpertWeights gate_up, down;
  std::vector<double> gate_up_bias, down_bias, map;  // [E, rows of gate_up], [E, H], [ids]
  std::vector<double> x, ids, weights;               // [T, H], [T, k], [T, k]

  bool is_gated() const { return activation != CHORUS_ACTIVATION_RELU && activation != CHORUS_ACTIVATION_RELU2; }
  int64_t wide() const { return is_gated() ? 2 * intermediate : intermediate; }
  int64_t routed() const { return n_experts - n_shared; }
  int64_t known_ids() const { return map.empty() ? routed() : static_cast<int64_t>(map.size()); }
};

struct ExpertsResult {
  std::vector<double> y, status;
  std::vector<uint64_t> bits;
};

ExpertsResult run(Backend &backend, const ExpertsProblem &p);
ExpertsResult run(const PublicAbi &abi, const ExpertsProblem &p);
std::vector<double> oracle(const ExpertsProblem &p);
ExpertsProblem random_experts(Random &random);
// NaN weights for expert e: a kernel that multiplies them shows it.
void poison(ExpertsProblem &p, int64_t e);

}  // namespace conformance
