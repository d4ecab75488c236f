// SPDX-License-Identifier: Apache-2.0
// Running merge problems, and doing them by the rules: see merge_problem.h.
#include "conformance/merge_problem.h"

#include <memory>

#include "conformance/check.h"

namespace conformance {
namespace {

// A flat tensor for [begin, begin + count) of an input; NULL when absent.
std::unique_ptr<Tensor> piece_of(const DeviceMemory &memory, const MergeInput &input, uint64_t begin,
                                 uint64_t count) {
  if (input.values.empty()) return nullptr;
  const auto from = input.values.begin() + static_cast<int64_t>(begin);
  auto tensor =
      std::make_unique<Tensor>(memory, input.dtype, std::vector<int64_t>{static_cast<int64_t>(count)},
                               std::vector<double>(from, from + static_cast<int64_t>(count)));
  tensor->buffer().protect(true);
  return tensor;
}

// The inputs of one piece in the backend's memory.
struct Piece {
  Piece(const DeviceMemory &memory, const MergeProblem &p, uint64_t begin, uint64_t count) {
    for (const MergeInput &input : p.inputs) {
      tensors.push_back(piece_of(memory, input, begin, count));
      pointers.push_back(tensors.back() != nullptr ? tensors.back()->data() : nullptr);
    }
    base = piece_of(memory, p.base, begin, count);
  }
  std::vector<std::unique_ptr<Tensor>> tensors;
  std::vector<const void *> pointers;
  std::unique_ptr<Tensor> base;
};

std::vector<chorus_dtype> dtypes_of(const MergeProblem &p) {
  std::vector<chorus_dtype> dtypes;
  for (const MergeInput &input : p.inputs) dtypes.push_back(input.dtype);
  return dtypes;
}

double element(const MergeInput &input, uint64_t i) {
  return input.values.empty() ? 0 : input.values[i];
}

}  // namespace

std::vector<uint64_t> apply(Backend &backend, const MergeProblem &p, uint64_t piece) {
  const auto dtypes = dtypes_of(p);
  chorus_merge_desc desc = CHORUS_MERGE_DESC_INIT;
  desc.n_inputs = static_cast<int32_t>(p.inputs.size());
  desc.has_base = p.has_base();
  desc.input_dtypes = dtypes.data();
  desc.base_dtype = p.base.dtype;
  desc.output_dtype = p.output_dtype;
  desc.operand = p.operand;
  desc.combine = p.combine;
  desc.add_base = p.add_base;
  desc.max_elements = p.count;
  const Prepared kernel(backend, CHORUS_OP_MERGE_APPLY, &desc);
  std::vector<uint64_t> out;
  if (piece == 0) piece = p.count;
  for (uint64_t begin = 0; begin < p.count; begin += piece) {
    const uint64_t count = std::min(piece, p.count - begin);
    const Piece inputs(backend.memory(), p, begin, count);
    Tensor output(backend.memory(), p.output_dtype, {static_cast<int64_t>(count)});
    chorus_merge_args args = CHORUS_MERGE_ARGS_INIT;
    args.begin = begin;
    args.count = count;
    args.columns = p.count;
    args.inputs = inputs.pointers.data();
    args.base = inputs.base != nullptr ? inputs.base->data() : nullptr;
    args.output = output.buffer().device();
    args.weights = p.weights.data();
    args.lambda = p.lambda;
    kernel.run(&args);
    const auto bits = output.bits();
    out.insert(out.end(), bits.begin(), bits.end());
  }
  return out;
}

std::vector<uint64_t> apply_by_rules(const MergeProblem &p) {
  std::vector<uint64_t> out;
  double weights = 0;
  for (double w : p.weights) weights += w;
  for (uint64_t e = 0; e < p.count; ++e) {
    double y = 0;
    bool first = true;
    const auto add = [&](double w, double a) {
      const double product = w * a;
      y = first ? product : y + product;
      first = false;
    };
    const double base = element(p.base, e);
    for (size_t i = 0; i < p.inputs.size(); ++i) {
      if (p.weights[i] == 0) continue;
      const double x = element(p.inputs[i], e);
      add(p.weights[i], p.operand == CHORUS_OPERAND_DELTA ? x - base : x);
    }
    if (p.combine == CHORUS_MERGE_COEFFICIENTS && p.has_base() && p.weights.back() != 0)
      add(p.weights.back(), base);
    if (p.combine == CHORUS_MERGE_MEAN) y = y / weights;
    y = p.lambda * y;
    if (p.add_base) y = base + y;
    out.push_back(encode(p.output_dtype, y));
  }
  return out;
}

std::vector<double> gram(Backend &backend, const MergeProblem &p, uint64_t begin, uint64_t end) {
  const auto dtypes = dtypes_of(p);
  chorus_merge_reduce_desc desc = CHORUS_MERGE_REDUCE_DESC_INIT;
  desc.n_inputs = static_cast<int32_t>(p.inputs.size());
  desc.has_base = p.has_base();
  desc.input_dtypes = dtypes.data();
  desc.base_dtype = p.base.dtype;
  desc.operand = p.operand;
  desc.statistic = CHORUS_STATISTIC_GRAM;
  desc.max_elements = end - begin;
  const Prepared kernel(backend, CHORUS_OP_MERGE_REDUCE, &desc);
  const Piece inputs(backend.memory(), p, begin, end - begin);
  const auto n = static_cast<int64_t>(p.inputs.size()) + (p.has_base() && p.operand == CHORUS_OPERAND_X);
  Tensor statistic(backend.memory(), CHORUS_F64, {n * (n + 1) / 2});
  chorus_merge_reduce_args args = CHORUS_MERGE_REDUCE_ARGS_INIT;
  args.begin = begin;
  args.count = end - begin;
  args.columns = p.count;
  args.inputs = inputs.pointers.data();
  args.base = inputs.base != nullptr ? inputs.base->data() : nullptr;
  args.weights = p.weights.data();
  args.statistic = statistic.buffer().device();
  args.statistic_bytes = statistic.buffer().bytes();
  kernel.run(&args);
  return statistic.values();
}

double join(std::vector<double> values) {
  if (values.empty()) return 0;
  while (values.size() > 1) {
    std::vector<double> next;
    for (size_t i = 0; i < values.size(); i += 2)
      next.push_back(i + 1 < values.size() ? values[i] + values[i + 1] : values[i]);
    values = std::move(next);
  }
  return values[0];
}

namespace {

// Operand i of element e; after the inputs comes the base, with operand x.
double operand(const MergeProblem &p, size_t i, uint64_t e) {
  if (i == p.inputs.size()) return element(p.base, e);
  if (p.inputs[i].values.empty()) return 0;
  return p.operand == CHORUS_OPERAND_DELTA ? p.inputs[i].values[e] - element(p.base, e)
                                           : p.inputs[i].values[e];
}

}  // namespace

std::vector<double> gram_by_rules(const MergeProblem &p, uint64_t begin, uint64_t end) {
  const size_t n = p.inputs.size() + (p.has_base() && p.operand == CHORUS_OPERAND_X);
  std::vector<double> out;
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = i; j < n; ++j) {
      std::vector<double> blocks;
      for (uint64_t b = begin; b < end; b += CHORUS_BLOCK) {
        std::vector<double> lanes(CHORUS_LANES, 0);
        for (uint64_t e = b; e < std::min(end, b + CHORUS_BLOCK); ++e)
          lanes[e % CHORUS_LANES] = lanes[e % CHORUS_LANES] + operand(p, i, e) * operand(p, j, e);
        blocks.push_back(join(lanes));
      }
      out.push_back(join(blocks));
    }
  }
  return out;
}

MergeProblem random_merge(Random &random, uint64_t count) {
  MergeProblem p;
  p.count = count;
  const std::initializer_list<chorus_dtype> floats = {CHORUS_F32, CHORUS_BF16, CHORUS_F16, CHORUS_F64};
  p.output_dtype = random.pick(floats);
  p.operand = random.pick({CHORUS_OPERAND_X, CHORUS_OPERAND_DELTA});
  p.combine = random.pick({CHORUS_MERGE_SUM, CHORUS_MERGE_MEAN, CHORUS_MERGE_COEFFICIENTS});
  if (p.combine == CHORUS_MERGE_COEFFICIENTS) p.operand = CHORUS_OPERAND_X;
  p.add_base = p.operand == CHORUS_OPERAND_DELTA && random.chance(0.8);
  const bool base = p.operand == CHORUS_OPERAND_DELTA || random.chance(0.3);
  const auto made = [&](double spread) {
    MergeInput input{random.pick(floats), {}};
    for (uint64_t e = 0; e < count; ++e)
      input.values.push_back(rounded(input.dtype, spread * random.normal()));
    return input;
  };
  if (base) p.base = made(1);
  const int64_t n = random.integer(1, 6);
  for (int64_t i = 0; i < n; ++i) {
    p.inputs.push_back(made(random.pick({1.0, 0.02, 100.0})));
    p.weights.push_back(random.pick({1.0, 0.5, random.uniform(), -random.uniform()}));
    if (i > 0 && random.chance(0.15)) p.weights.back() = 0;
    if (i > 0 && p.weights.back() == 0 && random.chance(0.5)) p.inputs.back().values.clear();
  }
  if (p.combine == CHORUS_MERGE_MEAN) {
    for (double &w : p.weights) w = w < 0 ? -w : w;
  }
  if (p.combine == CHORUS_MERGE_COEFFICIENTS && base) p.weights.push_back(random.pick({0.0, 0.25, -1.5}));
  p.lambda = random.pick({1.0, 1.0, 0.7, 1.5});
  return p;
}

}  // namespace conformance
