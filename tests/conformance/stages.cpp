// SPDX-License-Identifier: Apache-2.0
// The stages of merge.apply and the statistics of merge.reduce: every bit by the rules; whole selections as a host runs
// them, against a sort; the shares that draws keep.
#include <algorithm>
#include <bit>
#include <cmath>

#include "conformance/check.h"
#include "conformance/stages_problem.h"

namespace conformance {
namespace {

__extension__ typedef __float128 Quad;

template <typename Body>
void on_stages(const Test &test, int cases, const Body &body) {
  Random random = test.random();
  bool ran = false;
  for (int i = 0; i < test.cases(cases); ++i) {
    const StageProblem p = random_stages(random);
    describe("case %d: %zu inputs, %llu x %llu, granularity %d, operand %d, sparsify %d, rescale %d, consensus %d, combine %d",
             i, p.n(), static_cast<unsigned long long>(p.rows), static_cast<unsigned long long>(p.columns), p.granularity,
             p.merge.operand, p.sparsify, p.rescale, p.consensus, p.merge.combine);
    ran |= attempt("a problem", [&] { body(p, random); });
  }
  if (!ran) skip("every problem was refused");
}

// Equal bits; of NaN only that it is one.
void expect_bits(chorus_dtype dtype, const std::vector<uint64_t> &got, const std::vector<uint64_t> &want, const char *what) {
  for (size_t e = 0; e < want.size(); ++e) {
    const bool nan = std::isnan(decode(dtype, want[e])) && std::isnan(decode(dtype, got[e]));
    if (!expect(nan || got[e] == want[e], "%s %zu is 0x%llx (%g); the rules give 0x%llx (%g)", what, e,
                static_cast<unsigned long long>(got[e]), decode(dtype, got[e]),
                static_cast<unsigned long long>(want[e]), decode(dtype, want[e])))
      return;
  }
}

}  // namespace

CONFORMANCE_TEST(merge_stages_by_the_rules) {
  on_stages(test, 250, [&](const StageProblem &p, Random &) {
    expect_bits(p.merge.output_dtype, apply(test.backend, p), apply_by_rules(p), "element");
  });
}

CONFORMANCE_TEST(merge_statistics_by_the_rules) {
  on_stages(test, 250, [&](StageProblem p, Random &random) {
    random_statistic(random, p);
    describe("statistic %d, predicate %d, granularity %d, sparsify %d", p.statistic, p.predicate, p.granularity, p.sparsify);
    const auto got = reduce(test.backend, p), want = reduce_by_rules(p);
    const bool sums = p.statistic == CHORUS_STATISTIC_GRAM || p.statistic == CHORUS_STATISTIC_SUM;
    if (sums) return expect_bits(CHORUS_F64, got, want, "sum");
    for (size_t i = 0; i < want.size(); ++i) {
      if (!expect(got[i] == want[i], "count %zu is %llu; the rules give %llu", i, static_cast<unsigned long long>(got[i]),
                  static_cast<unsigned long long>(want[i])))
        return;
    }
  });
}

CONFORMANCE_TEST(merge_stages_same_bytes_for_any_threads) {
  on_stages(test, 40, [&](const StageProblem &p, Random &random) {
    const auto serial = apply(test.backend, p);
    StageProblem reduced = p;
    random_statistic(random, reduced);
    const auto statistic = reduce(test.backend, reduced);
    for (int threads : {0, 2, 5}) {
      test.backend.set_threads(threads);
      const auto other = apply(test.backend, p);
      const auto other_statistic = reduce(test.backend, reduced);
      test.backend.set_threads(1);
      expect_bits(p.merge.output_dtype, other, serial, "with threads, element");
      expect(other_statistic == statistic, "the statistic differs with %d threads", threads);
    }
  });
}

namespace {

// Two models of `count` elements on a grid, whose deltas tie by the thousand, cut to `density`.
StageProblem trimmed(Random &random, uint64_t count, chorus_dtype dtype) {
  StageProblem p;
  p.merge.operand = CHORUS_OPERAND_WEIGHTED_DELTA;
  p.merge.combine = CHORUS_MERGE_SUM;
  p.merge.output_dtype = CHORUS_F64;
  p.merge.count = count;
  p.merge.base.dtype = dtype;
  p.merge.inputs.resize(1);
  p.merge.inputs[0].dtype = dtype;
  p.merge.weights = {1};
  p.sparsify = CHORUS_SPARSIFY_MAGNITUDE_CUT;
  for (uint64_t e = 0; e < count; ++e) {
    p.merge.base.values.push_back(rounded(dtype, 0.02 * random.normal()));
    p.merge.inputs[0].values.push_back(rounded(dtype, p.merge.base.values[e] + 0.001 * random.normal()));
  }
  return p;
}

// The key of rank k (0 the highest) as a host finds it: two passes, summed over pieces.
double cut_of_rank(Backend &backend, StageProblem p, uint64_t k, uint64_t piece) {
  p.statistic = CHORUS_STATISTIC_HISTOGRAM;
  const auto pass = [&] {
    std::vector<uint64_t> bins(65536);
    for (uint64_t begin = 0; begin < p.merge.count; begin += piece) {
      const auto part = reduce(backend, piece_of(p, begin, std::min(p.merge.count, begin + piece)));
      for (size_t b = 0; b < bins.size(); ++b) bins[b] += part[b];
    }
    uint32_t bin = 65535;
    while (k >= bins[bin]) k -= bins[bin--];
    return bin;
  };
  const uint32_t high = pass();
  p.predicate = CHORUS_PREDICATE_PREFIX;
  p.prefix_bits = 16;
  p.prefixes = {high};
  return decode(CHORUS_F32, high << 15 | pass());
}

}  // namespace

// Trimming as `ties` does it: exactly ⌊density·n⌋ survive, those of a sort by magnitude, whatever the pieces.
CONFORMANCE_TEST(merge_trim_keeps_exactly_k) {
  Random random = test.random();
  for (int i = 0; i < test.cases(8); ++i) {
    const chorus_dtype dtype = random.pick({CHORUS_BF16, CHORUS_F16, CHORUS_F32});
    StageProblem p = trimmed(random, static_cast<uint64_t>(random.integer(1, 30000)), dtype);
    const uint64_t count = p.merge.count, k = std::max<uint64_t>(1, count * 2 / 5);
    for (uint64_t piece : {uint64_t{4096}, uint64_t{12288}, uint64_t{1} << 20}) {
      p.cuts = {cut_of_rank(test.backend, p, k - 1, piece)};
      // What is above the cut leaves this many places to ties, handed out piece by piece.
      std::vector<std::pair<uint32_t, uint64_t>> order;
      for (uint64_t e = 0; e < count; ++e)
        order.emplace_back(magnitude_key(static_cast<double>(Quad{p.merge.inputs[0].values[e]} - p.merge.base.values[e])), e);
      std::stable_sort(order.begin(), order.end(), [](const auto &a, const auto &b) { return a.first > b.first; });
      expect(order[k - 1].first == magnitude_key(p.cuts[0]), "the cut is %g, not the magnitude of rank %llu", p.cuts[0],
             static_cast<unsigned long long>(k));
      uint64_t left = k;
      for (const auto &[key, e] : order) left -= key > magnitude_key(p.cuts[0]);
      std::vector<uint64_t> survivors;
      for (uint64_t begin = 0; begin < count; begin += piece) {
        StageProblem part = piece_of(p, begin, std::min(count, begin + piece));
        part.statistic = CHORUS_STATISTIC_COUNT;
        part.predicate = CHORUS_PREDICATE_TIE;
        const uint64_t ties = reduce(test.backend, part)[0];
        part.ties.assign(1, std::min(left, ties));
        left -= part.ties[0];
        const auto out = apply(test.backend, part);
        for (uint64_t e = 0; e < out.size(); ++e) {
          if (out[e] != 0) survivors.push_back(begin + e);
        }
      }
      std::vector<uint64_t> want;
      for (uint64_t r = 0; r < k; ++r) {
        if (order[r].first != 0) want.push_back(order[r].second);
      }
      std::sort(want.begin(), want.end());
      expect(survivors == want, "%zu elements survive a cut to %llu in pieces of %llu, or others than the largest",
             survivors.size(), static_cast<unsigned long long>(k), static_cast<unsigned long long>(piece));
    }
  }
}

// Draws keep their density within 5 standard deviations, alike in every fifth of the tensor, and apart from each other.
CONFORMANCE_TEST(merge_bernoulli_keeps_its_density) {
  Random random = test.random();
  StageProblem p = trimmed(random, 100000, CHORUS_F32);
  p.merge.inputs.push_back(p.merge.inputs[0]);
  p.merge.weights = {1, 1};
  p.merge.combine = CHORUS_MERGE_SUM;
  p.sparsify = CHORUS_SPARSIFY_BERNOULLI;
  p.statistic = CHORUS_STATISTIC_COUNT;
  p.predicate = CHORUS_PREDICATE_KEPT;
  p.keys = {random.bits(), random.bits()};
  const auto near = [](uint64_t got, double n, double share) {
    return std::fabs(static_cast<double>(got) - n * share) <= 5 * std::sqrt(n * share * (1 - share)) + 0.5;
  };
  for (double density : {0.1, 0.5, 0.9}) {
    p.densities = {density, density};
    for (uint64_t begin = 0; begin < p.merge.count; begin += 20480) {
      const StageProblem part = piece_of(p, begin, std::min(p.merge.count, begin + 20480));
      const auto got = reduce(test.backend, part);  // alone, shared; of either input
      const auto n = static_cast<double>(part.merge.count);
      expect(near(got[0] + got[1], n, density) && near(got[2] + got[3], n, density), "density %g kept %llu and %llu of %g",
             density, static_cast<unsigned long long>(got[0] + got[1]), static_cast<unsigned long long>(got[2] + got[3]), n);
      expect(near(got[1], n, density * density), "two draws of density %g agree on %llu of %g", density,
             static_cast<unsigned long long>(got[1]), n);
    }
  }
}

// Rows as distributions against quadruple sums; the divergence within what its logarithms can give.
CONFORMANCE_TEST(merge_row_softmax_and_divergence) {
  Random random = test.random();
  for (int i = 0; i < test.cases(12); ++i) {
    StageProblem p;
    p.granularity = CHORUS_PER_ROW;
    p.rows = static_cast<uint64_t>(random.integer(1, 6));
    p.columns = static_cast<uint64_t>(random.pick({1, 7, 128, 4097, 9000}));
    p.merge.count = p.rows * p.columns;
    p.merge.base.dtype = CHORUS_BF16;
    p.merge.inputs.resize(2);
    p.merge.weights.assign(2 * p.rows, 1);
    for (uint64_t e = 0; e < p.merge.count; ++e) {
      p.merge.base.values.push_back(rounded(CHORUS_BF16, random.normal()));
      for (MergeInput &input : p.merge.inputs)
        input.values.push_back(rounded(CHORUS_F32, p.merge.base.values[e] + 0.1 * random.normal()));
    }
    p.statistic = CHORUS_STATISTIC_ROW_SOFTMAX;
    p.epsilon = 1e-8;
    for (uint64_t word : reduce(test.backend, p)) p.row_softmax.push_back(std::bit_cast<double>(word));
    p.statistic = CHORUS_STATISTIC_ROW_KL;
    const auto divergences = reduce(test.backend, p);
    for (uint64_t r = 0; r < p.rows; ++r) {
      const auto value = [&](size_t m, uint64_t c) {
        return (m < 2 ? p.merge.inputs[m] : p.merge.base).values[r * p.columns + c];
      };
      long double max[3], sum[3];
      for (size_t m = 0; m < 3; ++m) {
        max[m] = -INFINITY;
        sum[m] = 0;
        for (uint64_t c = 0; c < p.columns; ++c) max[m] = std::max<long double>(max[m], value(m, c));
        for (uint64_t c = 0; c < p.columns; ++c) sum[m] += expl(value(m, c) - max[m]);
        const double *got = &p.row_softmax[(r * 3 + m) * 2];
        expect(got[0] == static_cast<double>(max[m]) && fabsl(got[1] - sum[m]) <= 1e-14L * sum[m],
               "row %llu: max %g, sum %.17g; %.17Lg in extended precision", static_cast<unsigned long long>(r), got[0], got[1], sum[m]);
      }
      for (size_t m = 0; m < 2; ++m) {
        long double kl = 0;
        for (uint64_t c = 0; c < p.columns; ++c) {
          const long double a = expl(value(m, c) - max[m]) / sum[m] + 1e-8L, b = expl(value(2, c) - max[2]) / sum[2] + 1e-8L;
          kl += a * logl(a / b);
        }
        const double got = std::bit_cast<double>(divergences[r * 2 + m]);
        expect(fabsl(got - kl) <= 1e-13L, "divergence %.17g; %.17Lg in extended precision", got, kl);
      }
    }
  }
}

}  // namespace conformance
