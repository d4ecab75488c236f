// SPDX-License-Identifier: Apache-2.0
// arcee_fusion: of the other model take the elements that matter, importance = |x - base| KL(softmax(x) || softmax(base)) of the row,
// from median + 1.5 (third - first quartile) on. mergekit's; its quartiles of more than 10^6 elements are of a sample, these are exact.
#include <algorithm>

#include "merge/methods/table.h"

namespace chorus::merge {
namespace {

constexpr double kEpsilon = 1e-8;  // added to probabilities

void take_divergences(const Statistic &s, Coefficients *c) {
  for (const double kl : s.sums) c->cut_scales.push_back(std::max(kl, 0.0));  // below 0 by rounding alone
  c->weights = c->cut_scales;  // of the histograms of importance
}

void set_cut(Coefficients *c) {
  const auto quartile = [&](size_t i) { return c->selections[i].cuts[0]; };
  c->cuts = {quartile(1) + 1.5 * (quartile(2) - quartile(0))};
  c->selections.clear();
  c->weights = {1};
}

Program program(const Settings &settings) {
  Program out;
  out.stages.operand = CHORUS_OPERAND_DELTA;
  out.stages.granularity = CHORUS_PER_ROW;
  out.stages.sparsify = CHORUS_SPARSIFY_STATISTIC_CUT;
  out.stages.cut_statistic = CHORUS_CUT_SCALED_MAGNITUDE;
  out.stages.add_base = true;
  out.coefficients.weights = {1};
  const uint64_t n = settings.elements();
  if (n == 0) return out;
  Reduction rows;
  rows.granularity = CHORUS_PER_ROW;
  rows.statistic = CHORUS_STATISTIC_ROW_SOFTMAX;
  out.passes.push_back({rows, [](const Statistic &s, Coefficients *c) { c->row_softmax = s.sums; }});
  rows.statistic = CHORUS_STATISTIC_ROW_KL;
  rows.epsilon = kEpsilon;
  out.passes.push_back({rows, take_divergences});
  Reduction importance;
  importance.operand = CHORUS_OPERAND_WEIGHTED_DELTA;
  importance.granularity = CHORUS_PER_ROW;
  std::vector<uint64_t> from_top;  // element floor(q (n - 1)) of the ascending order
  for (const uint64_t quarter : {1, 2, 3}) from_top.push_back(n - quarter * (n - 1) / 4);
  add_order_statistics(&out, importance, from_top);
  const auto last = out.passes.back().then;
  out.passes.back().then = [last](const Statistic &s, Coefficients *c) {
    last(s, c);
    set_cut(c);
  };
  return out;
}

}  // namespace

Method arcee_fusion_method() {
  return {"arcee_fusion", "the base with the other model's most important changes", BaseUse::kRequired, 1, 1, {}, program};
}

}  // namespace chorus::merge
