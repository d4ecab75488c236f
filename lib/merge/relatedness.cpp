// SPDX-License-Identifier: Apache-2.0
// The cosine over samples of matrices inside layers, which have no mean or scale in common by architecture, as norms have.
#include "merge/relatedness.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "runtime/dtype.h"

namespace chorus::merge {
namespace {

constexpr size_t kMatrices = 8;
constexpr uint64_t kSampled = 4096;      // elements of a matrix
constexpr double kUnrelated = 0.1;       // of 32768 random numbers the cosine's standard deviation is 0.006

bool is_sampled(const Job &job) {
  return job.kind == JobKind::kMerge && job.shape.size() == 2 && job.elements >= kSampled && checkpoint::role_of(job.name).layer >= 0;
}

std::vector<double> sample(const Operand &operand) {
  const uint64_t each = operand.tensor->type->bits() / 8, first = (operand.tensor->bytes / each - kSampled) / 2;
  std::vector<char> bytes(kSampled * each);
  operand.model->read(*operand.tensor, first * each, bytes.size(), bytes.data());
  std::vector<double> out(kSampled);
  for (uint64_t i = 0; i < kSampled; ++i) out[i] = load_f64(bytes.data(), operand.tensor->type->dtype, i);
  return out;
}

struct Sums {
  double dot = 0, a = 0, b = 0;
};

void add(const std::vector<double> &a, const std::vector<double> &b, Sums *out) {
  for (size_t i = 0; i < a.size(); ++i) {
    out->dot += a[i] * b[i];
    out->a += a[i] * a[i];
    out->b += b[i] * b[i];
  }
}

// The operands of a job that are read from a model as floats.
std::vector<Operand> readable(const Job &job) {
  std::vector<Operand> out;
  if (job.base.model != nullptr && job.base.tensor != nullptr) out.push_back(job.base);
  for (const Operand &input : job.inputs) {
    if (input.model != nullptr && input.tensor != nullptr && is_float(input.tensor->type->dtype)) out.push_back(input);
  }
  return out;
}

size_t number_of(const Plan &plan, const checkpoint::Model *model) {
  const auto found = std::ranges::find_if(plan.inputs, [&](const InputModel &input) { return input.model.get() == model; });
  return static_cast<size_t>(found - plan.inputs.begin());
}

}  // namespace

std::vector<std::string> unrelated_inputs(const Plan &plan) {
  std::vector<const Job *> jobs;
  for (const Job &job : plan.jobs) {
    if (is_sampled(job)) jobs.push_back(&job);
  }
  std::map<std::pair<size_t, size_t>, Sums> pairs;  // by number among the inputs
  for (size_t k = 0; k < std::min(kMatrices, jobs.size()); ++k) {
    const std::vector<Operand> operands = readable(*jobs[k * jobs.size() / std::min(kMatrices, jobs.size())]);
    if (operands.size() < 2) continue;
    const std::vector<double> first = sample(operands[0]);
    for (size_t i = 1; i < operands.size(); ++i) {
      if (operands[i].model != operands[0].model) add(first, sample(operands[i]), &pairs[{number_of(plan, operands[0].model), number_of(plan, operands[i].model)}]);
    }
  }
  std::vector<std::string> out;
  for (const auto &[pair, sums] : pairs) {
    const double cosine = sums.a > 0 && sums.b > 0 ? sums.dot / std::sqrt(sums.a * sums.b) : 1;
    if (std::abs(cosine) >= kUnrelated) continue;
    out.push_back(fmt::format("'{}' and '{}' look unrelated: the cosine of their weights is {:.3f}. Averages of models from different "
                              "initialisations are noise; chorus compare tells more",
                              plan.inputs[pair.first].reference.text(), plan.inputs[pair.second].reference.text(), cosine));
  }
  return out;
}

}  // namespace chorus::merge
