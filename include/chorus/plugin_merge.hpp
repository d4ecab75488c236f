// SPDX-License-Identifier: Apache-2.0
//
// What backends that implement merge.reduce and merge.apply share: which descriptors are whole, how a piece falls into
// groups, the keys of magnitudes, the draws. Semantics: docs/numerics.md, "Merging". Header-only over plugin.hpp.
#ifndef CHORUS_PLUGIN_MERGE_HPP_
#define CHORUS_PLUGIN_MERGE_HPP_

#include <cmath>
#include <limits>

#include "exact_math.h"
#include "plugin.hpp"

namespace chorus::plugin {

// ---- Pieces and operands ----

// A piece as groups: the whole of it, its rows, or the columns of a band. Element j of group g lies at at(g, j), which
// plus `begin` is also its index in the tensor.
struct Groups {
  uint64_t count, size;
  uint64_t group_stride, element_stride;
  uint64_t at(uint64_t group, uint64_t j) const { return group * group_stride + j * element_stride; }
};

template <typename Args>
Groups groups_of(chorus_merge_granularity granularity, const Args &args) {
  if (granularity == CHORUS_PER_ROW)
    return {args.columns == 0 ? 0 : args.count / args.columns, args.columns, args.columns, 1};
  if (granularity == CHORUS_PER_COLUMN) return {args.columns, args.rows, 1, args.row_stride};
  return {1, args.count, args.count, 1};
}

// How a descriptor forms the operands: x or x - base, in f64.
struct Operands {
  int32_t n_inputs;
  bool has_base, deltas;
  chorus_dtype base_dtype;
  chorus_dtype dtypes[CHORUS_MERGE_MAX_INPUTS];

  double base(const void *data, uint64_t at) const { return load_f64(base_dtype, data, static_cast<int64_t>(at)); }
  double x(int32_t i, const void *data, uint64_t at) const { return load_f64(dtypes[i], data, static_cast<int64_t>(at)); }
};

template <typename Desc>
Operands operands_of(const Desc &d) {
  Operands out{d.n_inputs, d.has_base != 0, d.operand != CHORUS_OPERAND_X, d.base_dtype, {}};
  for (int32_t i = 0; i < d.n_inputs; ++i) out.dtypes[i] = d.input_dtypes[i];
  return out;
}

// Key of a magnitude: the pattern of |x| as f32, 31 bits that order as the magnitudes do; every NaN has the highest.
inline uint32_t key_of(double x) {
  if (is_nan(x)) return 0x7fc00000u;
  return std::bit_cast<uint32_t>(static_cast<float>(std::fabs(x)));
}

// Population variance of the present operands, in f64 and input order.
inline double variance(const double *operands, const bool *present, int32_t n) {
  double sum = 0.0, squares = 0.0, count = 0.0;
  for (int32_t i = 0; i < n; ++i) {
    if (present[i]) sum = sum + operands[i];
    if (present[i]) count = count + 1.0;
  }
  const double mean = sum / count;
  for (int32_t i = 0; i < n; ++i) {
    const double gap = operands[i] - mean;
    if (present[i]) squares = squares + gap * gap;
  }
  return squares / count;
}

// ---- What is supported: 0 with the reason in `why`, or 1 ----

// The fields that reduce and apply refuse alike.
template <typename Desc>
int32_t check_operands(const Desc &d, char *why, size_t bytes) {
  if (d.n_inputs < 1 || d.n_inputs > CHORUS_MERGE_MAX_INPUTS)
    return refuse(why, bytes, "n_inputs is %d; supported: 1 to %d", d.n_inputs, CHORUS_MERGE_MAX_INPUTS);
  for (int32_t i = 0; i < d.n_inputs; ++i) {
    if (!is_float(d.input_dtypes[i]))
      return refuse(why, bytes, "input_dtypes[%d] is 0x%x; supported: f64, f32, f16, bf16", i, d.input_dtypes[i]);
  }
  if (d.has_base != 0 && !is_float(d.base_dtype))
    return refuse(why, bytes, "base_dtype is 0x%x; supported: f64, f32, f16, bf16", d.base_dtype);
  if (d.operand < CHORUS_OPERAND_X || d.operand > CHORUS_OPERAND_WEIGHTED_DELTA)
    return refuse(why, bytes, "operand is %d; supported: x, delta, weighted delta (0 to 2)", d.operand);
  if (d.operand != CHORUS_OPERAND_X && d.has_base == 0)
    return refuse(why, bytes, "operand is %d and has_base is 0; a delta needs a base", d.operand);
  if (d.granularity < CHORUS_PER_TENSOR || d.granularity > CHORUS_PER_COLUMN)
    return refuse(why, bytes, "granularity is %d; supported: tensor, row, column (0 to 2)", d.granularity);
  if (d.sparsify < CHORUS_SPARSIFY_NONE || d.sparsify > CHORUS_SPARSIFY_STATISTIC_CUT)
    return refuse(why, bytes, "sparsify is %d; supported: none, cut, band, Bernoulli, rank, statistic (0 to 5)", d.sparsify);
  if (d.sparsify == CHORUS_SPARSIFY_STATISTIC_CUT && d.cut_statistic != CHORUS_CUT_VARIANCE &&
      d.cut_statistic != CHORUS_CUT_SCALED_MAGNITUDE)
    return refuse(why, bytes, "cut_statistic is %d; supported: variance, scaled magnitude (0, 1)", d.cut_statistic);
  if (d.sparsify == CHORUS_SPARSIFY_RANK && d.granularity == CHORUS_PER_TENSOR)
    return refuse(why, bytes, "sparsify is rank and granularity per tensor; supported: row, column (1, 2)");
  const bool counts_ties = d.sparsify == CHORUS_SPARSIFY_MAGNITUDE_CUT || d.sparsify == CHORUS_SPARSIFY_BAND ||
                           d.sparsify == CHORUS_SPARSIFY_STATISTIC_CUT;
  if (counts_ties && d.granularity == CHORUS_PER_COLUMN)
    return refuse(why, bytes, "sparsify is %d and granularity per column; a cut needs tensor or row (0, 1)", d.sparsify);
  if (d.numerics != CHORUS_NUMERICS_ACCURATE && d.numerics != CHORUS_NUMERICS_MERGEKIT)
    return refuse(why, bytes, "numerics is %d; supported: accurate, mergekit (0, 1)", d.numerics);
  if (d.numerics == CHORUS_NUMERICS_MERGEKIT && !is_float(d.work_dtype))
    return refuse(why, bytes, "work_dtype is 0x%x with numerics mergekit; supported: f64, f32, f16, bf16", d.work_dtype);
  return 1;
}

// For kernels that know one numerics alone.
template <typename Desc>
int32_t check_accurate(const Desc &d, char *why, size_t bytes) {
  if (d.numerics == CHORUS_NUMERICS_ACCURATE) return 1;
  return refuse(why, bytes, "numerics is %d; supported: accurate (0)", d.numerics);
}

inline int32_t check_apply(const chorus_merge_desc &d, char *why, size_t bytes) {
  if (check_operands(d, why, bytes) == 0) return 0;
  if (!is_float(d.output_dtype))
    return refuse(why, bytes, "output_dtype is 0x%x; supported: f64, f32, f16, bf16", d.output_dtype);
  if (d.combine < CHORUS_MERGE_SUM || d.combine > CHORUS_MERGE_COEFFICIENTS)
    return refuse(why, bytes, "combine is %d; supported: sum, mean, mean of kept, coefficients (0 to 3)", d.combine);
  if (d.add_base != 0 && d.has_base == 0)
    return refuse(why, bytes, "add_base is %u and has_base is 0; adding a base needs one", d.add_base);
  if (d.rescale < CHORUS_RESCALE_NONE || d.rescale > CHORUS_RESCALE_INVERSE_DENSITY)
    return refuse(why, bytes, "rescale is %d; supported: none, L1, inverse density (0 to 2)", d.rescale);
  if (d.consensus != CHORUS_CONSENSUS_NONE && d.consensus != CHORUS_CONSENSUS_SIGN)
    return refuse(why, bytes, "consensus is %d; supported: none, sign (0, 1)", d.consensus);
  if (d.combine == CHORUS_MERGE_COEFFICIENTS &&
      (d.operand != CHORUS_OPERAND_X || d.sparsify != CHORUS_SPARSIFY_NONE || d.rescale != CHORUS_RESCALE_NONE ||
       d.consensus != CHORUS_CONSENSUS_NONE))
    return refuse(why, bytes, "combine is coefficients; supported with operand x, without sparsify, rescale, consensus");
  if (!(d.divisor_floor >= 0.0)) return refuse(why, bytes, "divisor_floor is %g; supported: 0 and above", d.divisor_floor);
  return 1;
}

inline bool is_row_statistic(const chorus_merge_reduce_desc &d) {
  return d.statistic == CHORUS_STATISTIC_ROW_SOFTMAX || d.statistic == CHORUS_STATISTIC_ROW_KL;
}

inline int32_t check_statistic(const chorus_merge_reduce_desc &d, char *why, size_t bytes) {
  if (d.statistic < CHORUS_STATISTIC_GRAM || d.statistic > CHORUS_STATISTIC_ROW_KL)
    return refuse(why, bytes, "statistic is %d; supported: 0 to %d", d.statistic, CHORUS_STATISTIC_ROW_KL);
  if (!is_row_statistic(d)) return 1;
  if (d.operand != CHORUS_OPERAND_X || d.granularity != CHORUS_PER_ROW || d.predicate != CHORUS_PREDICATE_ALL)
    return refuse(why, bytes, "statistic is %d with operand %d, granularity %d, predicate %d; supported: x, row, all (0, 1, 0)",
                  d.statistic, d.operand, d.granularity, d.predicate);
  if (d.has_base == 0) return refuse(why, bytes, "statistic is %d and has_base is 0; it compares with a base", d.statistic);
  return 1;
}

inline int32_t check_predicate(const chorus_merge_reduce_desc &d, char *why, size_t bytes) {
  if (d.predicate < CHORUS_PREDICATE_ALL || d.predicate > CHORUS_PREDICATE_TIE)
    return refuse(why, bytes, "predicate is %d; supported: all, above epsilon, kept, prefix, tie (0 to 4)", d.predicate);
  if (d.predicate == CHORUS_PREDICATE_KEPT && d.sparsify == CHORUS_SPARSIFY_NONE)
    return refuse(why, bytes, "predicate is kept and sparsify none; it needs the stage that keeps");
  const bool of_variance = d.statistic == CHORUS_STATISTIC_VARIANCE_HISTOGRAM;
  if (of_variance && d.predicate != CHORUS_PREDICATE_ALL && d.predicate != CHORUS_PREDICATE_PREFIX)
    return refuse(why, bytes, "statistic is the variance's histogram and predicate %d; supported: all, prefix (0, 3)", d.predicate);
  if (d.predicate == CHORUS_PREDICATE_PREFIX && !of_variance && d.statistic != CHORUS_STATISTIC_HISTOGRAM)
    return refuse(why, bytes, "predicate is prefix and statistic %d; supported: histograms (2, 4)", d.statistic);
  return 1;
}

inline int32_t check_reduce(const chorus_merge_reduce_desc &d, char *why, size_t bytes) {
  if (check_operands(d, why, bytes) == 0 || check_statistic(d, why, bytes) == 0) return 0;
  return check_predicate(d, why, bytes);
}

// ---- The sparsify stage ----

// The arrays of either args struct that the stage reads.
struct SparsifyArgs {
  const double *cuts;
  const uint64_t *ties;
  const double *densities, *epsilons;
  const uint64_t *keys;
  const double *cut_scales;
};

template <typename Args>
SparsifyArgs sparsify_args(const Args &a) {
  return {a.cuts, a.ties, a.densities, a.epsilons, a.keys, a.cut_scales};
}

// floor(p 2^32): what a draw of 32 bits must stay below; 2^32 admits all.
inline uint64_t admission(double probability) {
  if (!(probability > 0.0)) return 0;
  return probability >= 1.0 ? uint64_t{1} << 32 : static_cast<uint64_t>(probability * 0x1p32);
}

// Whether input `key` draws element `index` with this admission: word index mod 4 of Philox block index / 4.
inline bool drawn(uint64_t key, uint64_t index, uint64_t admitted) {
  const uint32_t counter[4] = {static_cast<uint32_t>(index / 4), static_cast<uint32_t>(index / 4 >> 32), 0, 0};
  const uint32_t keys[2] = {static_cast<uint32_t>(key), static_cast<uint32_t>(key >> 32)};
  uint32_t words[4];
  chorus_philox4x32(counter, keys, words);
  return words[index % 4] < admitted;
}

// Probability of the element of rank `rank` in a group of `size`, rank 0 the smallest magnitude: density - epsilon for
// it, density + epsilon for the largest, in equal steps between.
inline double rank_probability(double density, double epsilon, uint64_t rank, uint64_t size) {
  if (size < 2) return density;
  return (density - epsilon) + (2.0 * epsilon) * (static_cast<double>(rank) / static_cast<double>(size - 1));
}

// ---- Statistics ----

// Operands of a Gram: the inputs, and with operand x the base after them.
template <typename Desc>
int32_t gram_operands(const Desc &d) {
  return d.n_inputs + (d.has_base != 0 && d.operand == CHORUS_OPERAND_X ? 1 : 0);
}

template <typename Desc>
uint64_t gram_size(const Desc &d) {
  const auto n = static_cast<uint64_t>(gram_operands(d));
  return n * (n + 1) / 2;
}

// Bytes of the result; of sums and Grams once per group.
inline uint64_t statistic_bytes(const chorus_merge_reduce_desc &d, const Groups &groups) {
  const auto n = static_cast<uint64_t>(d.n_inputs);
  switch (d.statistic) {
    case CHORUS_STATISTIC_GRAM: return 8 * groups.count * gram_size(d);
    case CHORUS_STATISTIC_SUM: return 8 * groups.count * n;
    case CHORUS_STATISTIC_HISTOGRAM: return 8 * n * 65536;
    case CHORUS_STATISTIC_COUNT: return 8 * n * n;
    case CHORUS_STATISTIC_VARIANCE_HISTOGRAM: return 8 * 65536;
    case CHORUS_STATISTIC_ROW_SOFTMAX: return 8 * groups.count * (n + 1) * 2;
    default: return 8 * groups.count * n;
  }
}

// The up to 16 bits of a key after its first prefix_bits.
inline uint32_t bin_of(uint32_t key, uint32_t prefix_bits) {
  const uint32_t left = 31 - prefix_bits;
  const uint32_t width = left < 16 ? left : 16;
  return key >> (left - width) & ((1u << width) - 1);
}

// ---- Rows as distributions ----

// Row g of input i, or of the base when i is n_inputs.
struct MergeRow {
  const Operands &operands;
  int32_t i;
  const void *data;
  uint64_t first;
  double operator[](int64_t j) const {
    const uint64_t at = first + static_cast<uint64_t>(j);
    return i == operands.n_inputs ? operands.base(data, at) : operands.x(i, data, at);
  }
};

struct RowSoftmax {
  double max, sum;
  double of(double x) const { return std::exp(x - max) / sum; }
};

inline RowSoftmax softmax_of(const MergeRow &row, int64_t columns) {
  double max = -std::numeric_limits<double>::infinity();
  for (int64_t j = 0; j < columns; ++j) max = row[j] > max ? row[j] : max;
  return {max, sum_in_order<double>(columns, [&](int64_t j) { return std::exp(row[j] - max); })};
}

// KL(softmax(a) || softmax(b)), epsilon added to both probabilities.
inline double divergence(const MergeRow &a, const RowSoftmax &of_a, const MergeRow &b, const RowSoftmax &of_b, double epsilon, int64_t columns) {
  return sum_in_order<double>(columns, [&](int64_t j) {
    const double p = of_a.of(a[j]) + epsilon, q = of_b.of(b[j]) + epsilon;
    return p * std::log(p / q);
  });
}

// ROW_SOFTMAX or ROW_KL of row g of a piece, to its place in the statistic. An absent input gives zeros.
inline void reduce_row(const Operands &operands, const chorus_merge_reduce_desc &d, const chorus_merge_reduce_args &args,
                       uint64_t g) {
  const int32_t n = operands.n_inputs;
  const auto columns = static_cast<int64_t>(args.columns);
  const bool softmax = d.statistic == CHORUS_STATISTIC_ROW_SOFTMAX;
  const uint64_t operand_count = static_cast<uint64_t>(n) + 1;
  double *out = static_cast<double *>(args.statistic) + g * (softmax ? 2 * operand_count : operand_count - 1);
  const auto row = [&](int32_t i) { return MergeRow{operands, i, i == n ? args.base : args.inputs[i], g * args.columns}; };
  const auto given = [&](int32_t i) {
    const double *of = args.row_softmax + 2 * (g * operand_count + static_cast<uint64_t>(i));
    return RowSoftmax{of[0], of[1]};
  };
  for (int32_t i = 0; i < (softmax ? n + 1 : n); ++i) {
    const bool absent = row(i).data == nullptr;
    if (softmax) {
      const RowSoftmax made = absent ? RowSoftmax{0.0, 0.0} : softmax_of(row(i), columns);
      *out++ = made.max;
      *out++ = made.sum;
    } else {
      *out++ = absent ? 0.0 : divergence(row(i), given(i), row(n), given(n), d.epsilon, columns);
    }
  }
}

}  // namespace chorus::plugin
#endif  // CHORUS_PLUGIN_MERGE_HPP_
