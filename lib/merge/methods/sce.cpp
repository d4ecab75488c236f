// SPDX-License-Identifier: Apache-2.0
// sce: keep the elements whose differences vary most over the models, weigh the models by the energy of what is kept, elect signs,
// take the weighted mean of what agrees. Wan et al. 2024, arXiv 2408.07990; mergekit's constants.
#include "merge/methods/table.h"

namespace chorus::merge {
namespace {

constexpr double kLeastWeights = 1e-6;

Program program(const Settings &settings) {
  Program out;
  out.stages.operand = CHORUS_OPERAND_DELTA;
  out.stages.consensus = CHORUS_CONSENSUS_SIGN;
  out.stages.combine = CHORUS_MERGE_MEAN_OF_KEPT;
  out.stages.divisor_floor = kLeastWeights;
  out.stages.add_base = true;
  keep_varying(settings, &out);
  weigh_by_energy(settings, &out);
  return out;
}

}  // namespace

Method sce_method() {
  return {"sce",
          "elements that vary most between the models, weighed by energy, with an elected sign",
          BaseUse::kRequired,
          1,
          CHORUS_MERGE_MAX_INPUTS,
          {{"select_topk", ParameterType::kNumber, false, false, 1, 0, 1, "share of the varying elements that is kept"}},
          program};
}

}  // namespace chorus::merge
