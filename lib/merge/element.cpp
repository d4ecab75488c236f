// SPDX-License-Identifier: Apache-2.0
// Blocks of a piece, widened, through the element function.
#include "merge/element.h"

#include "runtime/dtype.h"

namespace chorus::merge {
namespace {

constexpr uint64_t kBlock = 1024;

class Blocks {
 public:
  Blocks(const Job &job, std::span<const void *const> inputs, const void *base)
      : job_(job), inputs_(inputs), base_(base), memory_((inputs.size() + 2) * kBlock) {
    for (size_t i = 0; i < inputs.size(); ++i) operands_.push_back(inputs[i] != nullptr ? memory_.data() + i * kBlock : nullptr);
  }

  // Elements [from, from + count) of the piece, with these weights.
  void run(const Coefficients &c, const double *weights, uint64_t from, uint64_t count, void *output) {
    for (size_t i = 0; i < inputs_.size(); ++i) load(inputs_[i], job_.inputs[i], from, count, memory_.data() + i * kBlock);
    double *base = memory_.data() + inputs_.size() * kBlock, *out = base + kBlock;
    load(base_, job_.base, from, count, base);
    job_.program.element({operands_, base_ != nullptr ? base : nullptr, weights, c, count, out});
    for (uint64_t i = 0; i < count; ++i) store_f64(output, job_.type->dtype, from + i, out[i]);
  }

 private:
  void load(const void *data, const Operand &operand, uint64_t from, uint64_t count, double *to) const {
    if (data == nullptr) return;
    const chorus_dtype dtype = operand.tensor->type->dtype;
    const Rounding round(dtype == job_.work ? 0 : job_.work);
    for (uint64_t i = 0; i < count; ++i) to[i] = round(load_f64(data, dtype, from + i));
  }

  const Job &job_;
  std::span<const void *const> inputs_;
  const void *base_;
  std::vector<double> memory_;
  std::vector<const double *> operands_;
};

}  // namespace

void apply_element(const Job &job, const Coefficients &c, uint64_t begin, uint64_t count, std::span<const void *const> inputs,
                   const void *base, void *output) {
  Blocks blocks(job, inputs, base);
  const bool by_row = job.is_by_row();
  const uint64_t group = by_row ? job.columns() : count, entries = job.program.coefficients.weights.size();
  for (uint64_t at = 0; at < count; at += group) {
    const double *weights = c.weights.data() + (by_row ? (begin + at) / group * entries : 0);
    for (uint64_t from = at; from < at + group; from += kBlock) {
      blocks.run(c, weights, from, std::min(kBlock, at + group - from), output);
    }
  }
}

}  // namespace chorus::merge
