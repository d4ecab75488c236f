// SPDX-License-Identifier: Apache-2.0
// Making and running problems of stages: see stages_problem.h.
#include "conformance/stages_problem.h"

#include <algorithm>
#include <memory>

#include "conformance/check.h"

namespace conformance {

uint64_t StageProblem::groups() const {
  if (granularity == CHORUS_PER_ROW) return rows;
  return granularity == CHORUS_PER_COLUMN ? columns : 1;
}
uint64_t StageProblem::group_size() const {
  if (granularity == CHORUS_PER_ROW) return columns;
  return granularity == CHORUS_PER_COLUMN ? rows : merge.count;
}
uint64_t StageProblem::at(uint64_t group, uint64_t j) const {
  if (granularity == CHORUS_PER_ROW) return group * columns + j;
  return granularity == CHORUS_PER_COLUMN ? j * row_stride + group : j;
}

namespace {

// The tensors of a call. Of a column band they have all elements up to the last of it.
struct Inputs {
  Inputs(const DeviceMemory &memory, const MergeProblem &p) {
    for (const MergeInput &input : p.inputs) {
      owned.push_back(make(memory, input));
      pointers.push_back(owned.back() != nullptr ? owned.back()->data() : nullptr);
      dtypes.push_back(input.dtype);
    }
    base = make(memory, p.base);
  }
  static std::unique_ptr<Tensor> make(const DeviceMemory &memory, const MergeInput &input) {
    if (input.values.empty()) return nullptr;
    return std::make_unique<Tensor>(memory, input.dtype,
                                    std::vector<int64_t>{static_cast<int64_t>(input.values.size())}, input.values);
  }
  const void *base_data() const { return base != nullptr ? base->data() : nullptr; }

  std::vector<std::unique_ptr<Tensor>> owned;
  std::vector<const void *> pointers;
  std::vector<chorus_dtype> dtypes;
  std::unique_ptr<Tensor> base;
};

template <typename T>
const T *data_of(const std::vector<T> &v) {
  return v.empty() ? nullptr : v.data();
}

template <typename Desc>
void set_desc(const StageProblem &p, const Inputs &inputs, Desc *desc) {
  desc->n_inputs = static_cast<int32_t>(p.n());
  desc->has_base = p.merge.has_base();
  desc->input_dtypes = inputs.dtypes.data();
  desc->base_dtype = p.merge.base.dtype;
  desc->operand = p.merge.operand;
  desc->granularity = p.granularity;
  desc->sparsify = p.sparsify;
  desc->cut_statistic = p.cut_statistic;
  desc->max_elements = p.merge.count;
}

template <typename Args>
void set_args(const StageProblem &p, const Inputs &inputs, uint64_t begin, Args *args) {
  args->begin = begin;
  args->count = p.merge.count;
  args->columns = p.granularity == CHORUS_PER_TENSOR ? p.merge.count : p.columns;
  args->rows = p.rows;
  args->row_stride = p.row_stride;
  args->inputs = inputs.pointers.data();
  args->base = inputs.base_data();
  args->weights = p.merge.weights.data();
  args->cuts = data_of(p.cuts);
  args->ties = data_of(p.ties);
  args->densities = data_of(p.densities);
  args->epsilons = data_of(p.epsilons);
  args->keys = data_of(p.keys);
  args->cut_scales = data_of(p.cut_scales);
}

uint64_t statistic_words(const StageProblem &p) {
  const uint64_t n = p.n(), operands = n + (p.merge.has_base() && p.merge.operand == CHORUS_OPERAND_X);
  switch (p.statistic) {
    case CHORUS_STATISTIC_GRAM: return p.groups() * operands * (operands + 1) / 2;
    case CHORUS_STATISTIC_HISTOGRAM: return n * 65536;
    case CHORUS_STATISTIC_COUNT: return n * n;
    case CHORUS_STATISTIC_VARIANCE_HISTOGRAM: return 65536;
    case CHORUS_STATISTIC_ROW_SOFTMAX: return p.rows * (n + 1) * 2;
    default: return p.groups() * n;
  }
}

}  // namespace

std::vector<uint64_t> apply(Backend &backend, const StageProblem &p) {
  const Inputs inputs(backend.memory(), p.merge);
  chorus_merge_desc desc = CHORUS_MERGE_DESC_INIT;
  set_desc(p, inputs, &desc);
  desc.output_dtype = p.merge.output_dtype;
  desc.rescale = p.rescale;
  desc.consensus = p.consensus;
  desc.combine = p.merge.combine;
  desc.add_base = p.merge.add_base;
  desc.divisor_floor = p.divisor_floor;
  const Prepared kernel(backend, CHORUS_OP_MERGE_APPLY, &desc);
  const uint64_t last = p.merge.count == 0 ? 0 : p.at(p.groups() - 1, p.group_size() - 1) + 1;
  Tensor output(backend.memory(), p.merge.output_dtype, {static_cast<int64_t>(last)});
  chorus_merge_args args = CHORUS_MERGE_ARGS_INIT;
  set_args(p, inputs, p.merge.begin, &args);
  args.output = output.buffer().device();
  args.lambda = p.merge.lambda;
  args.rescales = data_of(p.rescales);
  args.unique_scales = data_of(p.unique_scales);
  kernel.run(&args);
  const auto bits = output.bits();
  std::vector<uint64_t> out;
  for (uint64_t g = 0; g < p.groups(); ++g) {
    for (uint64_t j = 0; j < p.group_size(); ++j) out.push_back(bits[p.at(g, j)]);
  }
  return out;
}

std::vector<uint64_t> reduce(Backend &backend, const StageProblem &p) {
  const Inputs inputs(backend.memory(), p.merge);
  chorus_merge_reduce_desc desc = CHORUS_MERGE_REDUCE_DESC_INIT;
  set_desc(p, inputs, &desc);
  desc.statistic = p.statistic;
  desc.predicate = p.predicate;
  desc.epsilon = p.epsilon;
  const Prepared kernel(backend, CHORUS_OP_MERGE_REDUCE, &desc);
  Tensor statistic(backend.memory(), CHORUS_F64, {static_cast<int64_t>(statistic_words(p))});
  Tensor softmax(backend.memory(), CHORUS_F64, {static_cast<int64_t>(p.row_softmax.size())}, p.row_softmax);
  chorus_merge_reduce_args args = CHORUS_MERGE_REDUCE_ARGS_INIT;
  set_args(p, inputs, p.merge.begin, &args);
  args.prefixes = data_of(p.prefixes);
  args.prefix_bits = p.prefix_bits;
  args.statistic = statistic.buffer().device();
  args.statistic_bytes = statistic.buffer().bytes();
  args.row_softmax = p.row_softmax.empty() ? nullptr : static_cast<const double *>(softmax.data());
  kernel.run(&args);
  return statistic.bits();
}

StageProblem piece_of(const StageProblem &p, uint64_t begin, uint64_t end) {
  StageProblem out = p;
  const auto cut = [&](std::vector<double> &values) {
    if (values.empty()) return;
    values = {values.begin() + static_cast<int64_t>(begin), values.begin() + static_cast<int64_t>(end)};
  };
  for (MergeInput &input : out.merge.inputs) cut(input.values);
  cut(out.merge.base.values);
  out.merge.begin = p.merge.begin + begin;
  out.merge.count = end - begin;
  return out;
}

namespace {

// Values on a coarse grid around the base, so that magnitudes tie as bf16 deltas do.
MergeInput random_input(Random &random, const StageProblem &p, uint64_t elements, double spread) {
  MergeInput input{random.pick({CHORUS_F32, CHORUS_BF16, CHORUS_F16, CHORUS_F64}), {}};
  const bool coarse = random.chance(0.6);
  for (uint64_t e = 0; e < elements; ++e) {
    const double base = p.merge.operand != CHORUS_OPERAND_X ? p.merge.base.values[e] : 0;
    const double step = coarse ? 0.125 * std::round(4 * random.normal()) : spread * random.normal();
    input.values.push_back(rounded(input.dtype, base + step));
    if (random.chance(0.0005)) input.values.back() = random.pick({HUGE_VAL, -HUGE_VAL, -0.0, 0.0});
  }
  return input;
}

void random_shape(Random &random, StageProblem &p) {
  p.granularity = random.pick({CHORUS_PER_TENSOR, CHORUS_PER_TENSOR, CHORUS_PER_ROW, CHORUS_PER_COLUMN});
  p.rows = static_cast<uint64_t>(random.integer(1, 40));
  p.columns = static_cast<uint64_t>(random.chance(0.2) ? random.size(6000) : random.size(100));
  p.row_stride = p.columns + static_cast<uint64_t>(random.integer(0, 5));
  p.merge.count = p.rows * p.columns;
}

void random_sparsify(Random &random, StageProblem &p) {
  p.sparsify = random.pick({CHORUS_SPARSIFY_NONE, CHORUS_SPARSIFY_MAGNITUDE_CUT, CHORUS_SPARSIFY_BAND,
                            CHORUS_SPARSIFY_BERNOULLI, CHORUS_SPARSIFY_RANK, CHORUS_SPARSIFY_STATISTIC_CUT});
  p.cut_statistic = random.pick({CHORUS_CUT_VARIANCE, CHORUS_CUT_SCALED_MAGNITUDE});
  const bool by_element = p.sparsify == CHORUS_SPARSIFY_BERNOULLI || p.sparsify == CHORUS_SPARSIFY_RANK;
  if (p.sparsify == CHORUS_SPARSIFY_RANK && p.granularity == CHORUS_PER_TENSOR) p.granularity = CHORUS_PER_ROW;
  if (!by_element && p.sparsify != CHORUS_SPARSIFY_NONE && p.granularity == CHORUS_PER_COLUMN)
    p.granularity = CHORUS_PER_ROW;
  for (size_t i = 0; i < 2 * p.n(); ++i) {
    p.cuts.push_back(random.pick({0.0, 0.125, 0.25, 0.5, std::fabs(random.normal()), HUGE_VAL}));
    p.ties.push_back(static_cast<uint64_t>(random.size(200) - 1));
  }
  if (random.chance(0.2)) p.ties.clear();
  for (uint64_t i = 0; i < p.n(); ++i) {
    p.densities.push_back(random.pick({0.0, 0.1, 0.5, 0.9, 1.0, random.uniform()}));
    p.epsilons.push_back(random.pick({0.0, 0.15, 0.4}));
    p.keys.push_back(random.bits());
    p.rescales.push_back(random.uniform(0.5, 3));
    p.unique_scales.push_back(random.uniform(0.5, 2));
  }
  if (random.chance(0.5)) p.unique_scales.clear();
}

}  // namespace

StageProblem random_stages(Random &random) {
  StageProblem p;
  MergeProblem &m = p.merge;
  random_shape(random, p);
  m.begin = 4096 * static_cast<uint64_t>(random.integer(0, 3));
  m.output_dtype = random.pick({CHORUS_F32, CHORUS_BF16, CHORUS_F16, CHORUS_F64});
  m.operand = random.pick({CHORUS_OPERAND_DELTA, CHORUS_OPERAND_WEIGHTED_DELTA, CHORUS_OPERAND_X});
  m.combine = random.pick({CHORUS_MERGE_SUM, CHORUS_MERGE_MEAN, CHORUS_MERGE_MEAN_OF_KEPT});
  m.add_base = m.operand != CHORUS_OPERAND_X && random.chance(0.7);
  m.lambda = random.pick({1.0, 1.0, 0.7});
  m.inputs.resize(static_cast<size_t>(random.integer(1, 5)));
  random_sparsify(random, p);
  if (p.granularity != CHORUS_PER_COLUMN) p.row_stride = 0;
  const uint64_t elements = p.at(p.groups() - 1, p.group_size() - 1) + 1;
  if (m.operand != CHORUS_OPERAND_X || random.chance(0.3)) {
    const chorus_dtype dtype = random.pick({CHORUS_F32, CHORUS_BF16, CHORUS_F16, CHORUS_F64});
    m.base.dtype = dtype;
    for (uint64_t e = 0; e < elements; ++e) m.base.values.push_back(rounded(dtype, random.normal()));
  }
  for (MergeInput &input : m.inputs) input = random_input(random, p, elements, random.pick({1.0, 0.02}));
  for (uint64_t i = 0; i < p.groups() * p.n(); ++i) {
    m.weights.push_back(random.pick({1.0, 0.5, random.uniform(), -random.uniform(), random.chance(0.3) ? 0.0 : 1.0}));
    p.cut_scales.push_back(random.pick({0.0, 1.0, random.uniform()}));
  }
  if (m.combine == CHORUS_MERGE_MEAN) {
    for (double &w : m.weights) w = std::fabs(w) + 0.125;
  }
  p.rescale = random.pick({CHORUS_RESCALE_NONE, CHORUS_RESCALE_L1, CHORUS_RESCALE_INVERSE_DENSITY});
  p.consensus = random.pick({CHORUS_CONSENSUS_NONE, CHORUS_CONSENSUS_SIGN});
  p.divisor_floor = random.pick({0.0, 1e-6, 0.75});
  return p;
}

void random_statistic(Random &random, StageProblem &p) {
  p.statistic = random.pick({CHORUS_STATISTIC_GRAM, CHORUS_STATISTIC_SUM, CHORUS_STATISTIC_HISTOGRAM,
                             CHORUS_STATISTIC_COUNT, CHORUS_STATISTIC_VARIANCE_HISTOGRAM});
  p.predicate = random.pick({CHORUS_PREDICATE_ALL, CHORUS_PREDICATE_ABOVE_EPSILON, CHORUS_PREDICATE_KEPT,
                             CHORUS_PREDICATE_PREFIX, CHORUS_PREDICATE_TIE});
  const bool histogram =
      p.statistic == CHORUS_STATISTIC_HISTOGRAM || p.statistic == CHORUS_STATISTIC_VARIANCE_HISTOGRAM;
  if (!histogram && p.predicate == CHORUS_PREDICATE_PREFIX) p.predicate = CHORUS_PREDICATE_ALL;
  if (p.statistic == CHORUS_STATISTIC_VARIANCE_HISTOGRAM && p.predicate != CHORUS_PREDICATE_PREFIX)
    p.predicate = CHORUS_PREDICATE_ALL;
  if (p.sparsify == CHORUS_SPARSIFY_NONE && p.predicate == CHORUS_PREDICATE_KEPT) p.predicate = CHORUS_PREDICATE_ALL;
  p.epsilon = random.pick({0.0, 0.125, 0.3});
  p.prefix_bits = p.predicate == CHORUS_PREDICATE_PREFIX ? 16 : 0;
  for (size_t i = 0; i < p.n(); ++i) p.prefixes.push_back(magnitude_key(random.pick({0.125, 0.25, 0.0})) >> 15);
  for (MergeInput &input : p.merge.inputs) {
    if (random.chance(0.1)) input.values.clear();
  }
}

uint32_t magnitude_key(double x) {
  return static_cast<uint32_t>(encode(CHORUS_F32, x)) & 0x7fffffffu;
}

}  // namespace conformance
