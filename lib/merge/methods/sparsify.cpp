// SPDX-License-Identifier: Apache-2.0
// The sparsify stages with the passes that find what they cut, from "density" and its kin in the settings. Each returns false, and adds
// nothing, where all is kept: then nothing is rescaled either.
#include <algorithm>
#include <cmath>

#include "merge/methods/table.h"
#include "runtime/error.h"

namespace chorus::merge {
namespace {

bool keeps_all(const std::vector<double> &density) {
  return std::ranges::all_of(density, [](double d) { return d >= 1; });
}

uint64_t share(double part, uint64_t elements) {
  return std::min(elements, static_cast<uint64_t>(std::floor(part * static_cast<double>(elements))));
}

void check_range(double density, double epsilon) {
  if (density <= 0 || density >= 1 || (density - epsilon > 0 && density + epsilon < 1)) return;
  fail(CHORUS_INVALID_ARGUMENT, "density {} with epsilon {}: density - epsilon and density + epsilon must lie between 0 and 1", density, epsilon);
}

}  // namespace

// k = max(1, floor(density n)), as in mergekit.
bool cut_magnitudes(const Settings &settings, Program *program) {
  const std::vector<double> &density = settings.per_model("density");
  if (keeps_all(density)) return false;
  std::vector<uint64_t> wanted;
  for (const double d : density) wanted.push_back(d <= 0 ? 0 : std::max<uint64_t>(1, share(d, settings.elements())));
  program->stages.sparsify = CHORUS_SPARSIFY_MAGNITUDE_CUT;
  add_selection(program, 0, std::move(wanted));
  return true;
}

bool cut_band(const Settings &settings, Program *program) {
  const std::vector<double> &density = settings.per_model("density"), &gamma = settings.per_model("gamma");
  if (keeps_all(density)) return false;
  const uint64_t n = settings.elements();
  std::vector<uint64_t> from_lower, from_upper;  // elements above each end of the band
  for (size_t i = 0; i < density.size(); ++i) {
    const uint64_t target = share(density[i], n), top = std::min(share(gamma[i], n), n - target);
    from_upper.push_back(density[i] >= 1 ? 0 : top);
    from_lower.push_back(target + from_upper.back());
  }
  program->stages.sparsify = CHORUS_SPARSIFY_BAND;
  add_selection(program, 0, std::move(from_lower));
  add_selection(program, 1, std::move(from_upper));
  return true;
}

bool thin(const Settings &settings, Program *program) {
  program->coefficients.densities = settings.per_model("density");
  if (keeps_all(program->coefficients.densities)) return false;
  program->coefficients.keys = settings.keys();
  program->stages.sparsify = CHORUS_SPARSIFY_BERNOULLI;
  return true;
}

bool thin_by_rank(const Settings &settings, Program *program) {
  Coefficients &c = program->coefficients;
  c.densities = settings.per_model("density");
  c.epsilons = settings.per_model("epsilon");
  if (keeps_all(c.densities)) return false;
  for (size_t i = 0; i < c.densities.size(); ++i) {
    check_range(c.densities[i], c.epsilons[i]);
    if (c.densities[i] <= 0 || c.densities[i] >= 1) c.epsilons[i] = 0;  // none or all, whatever the rank
  }
  c.keys = settings.keys();
  program->stages.sparsify = CHORUS_SPARSIFY_RANK;
  program->stages.granularity = CHORUS_PER_ROW;
  if (settings.shape().size() > 2) program->row_axis = 1;  // as mergekit; of experts the columns of each matrix
  return true;
}

bool keep_varying(const Settings &settings, Program *program) {
  const double topk = settings.number("select_topk");
  if (topk >= 1) return false;
  program->stages.sparsify = CHORUS_SPARSIFY_STATISTIC_CUT;
  const size_t first = program->passes.size();
  add_selection(program, 0, {0}, true);
  // How many are wanted depends on how many vary at all: a bin of its own holds variances that f32 takes for 0.
  const auto take_upper = program->passes[first].then;
  program->passes[first].then = [=](const Statistic &s, Coefficients *c) {
    uint64_t varying = 0;
    for (size_t bin = 1; bin < s.counts.size(); ++bin) varying += s.counts[bin];
    // The product is f32, as in mergekit.
    c->selections[0].wanted = {static_cast<uint64_t>(static_cast<float>(topk) * static_cast<float>(varying))};
    take_upper(s, c);
  };
  return true;
}

}  // namespace chorus::merge
