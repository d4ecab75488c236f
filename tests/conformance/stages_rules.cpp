// SPDX-License-Identifier: Apache-2.0
// docs/numerics.md, "Merging", written down once more from the text, stage by stage over whole arrays: what is above a
// cut by a full stable sort, ranks by a full stable sort.
#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>

#include "chorus/exact_math.h"
#include "conformance/stages_problem.h"

namespace conformance {
namespace {

using Values = std::vector<double>;
using Flags = std::vector<char>;

// All elements of a problem, group by group: one row per input.
struct Table {
  std::vector<Values> values;
  std::vector<Flags> kept;
  Values base;
  std::vector<uint64_t> index, group;  // of each element: in the tensor, of its group
};

double value_of(const MergeInput &input, uint64_t at) { return input.values.empty() ? 0 : input.values[at]; }

Table table_of(const StageProblem &p, bool zero_weights_count) {
  Table t;
  t.values.resize(p.n());
  t.kept.resize(p.n());
  for (uint64_t g = 0; g < p.groups(); ++g) {
    const uint64_t w = p.granularity == CHORUS_PER_TENSOR ? 0 : g * p.n();
    for (uint64_t j = 0; j < p.group_size(); ++j) {
      const uint64_t at = p.at(g, j);
      t.index.push_back(p.merge.begin + at);
      t.group.push_back(g);
      t.base.push_back(value_of(p.merge.base, at));
      for (size_t i = 0; i < p.n(); ++i) {
        const bool there = !p.merge.inputs[i].values.empty() && (zero_weights_count || p.merge.weights[w + i] != 0);
        const double x = value_of(p.merge.inputs[i], at);
        t.kept[i].push_back(there);
        t.values[i].push_back(!there ? 0 : p.merge.operand == CHORUS_OPERAND_X ? x : x - t.base.back());
      }
    }
  }
  return t;
}

// Positions of `which`, by key from the highest, equal ones in order.
std::vector<size_t> sorted(const Values &magnitudes, const Flags &which, size_t begin, size_t end) {
  std::vector<size_t> order;
  for (size_t e = begin; e < end; ++e) {
    if (which[e]) order.push_back(e);
  }
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return magnitude_key(magnitudes[a]) > magnitude_key(magnitudes[b]);
  });
  return order;
}

// Those of `which` above the cut: all with a higher key, and the first `ties` equal ones.
Flags above(const Values &magnitudes, const Flags &which, double cut, uint64_t ties) {
  Flags out(magnitudes.size(), 0);
  for (size_t e : sorted(magnitudes, which, 0, magnitudes.size())) {
    const uint32_t key = magnitude_key(magnitudes[e]);
    if (key < magnitude_key(cut) || (key == magnitude_key(cut) && ties-- == 0)) break;
    out[e] = 1;
  }
  return out;
}

Values variances(const Table &t) {
  Values out;
  for (size_t e = 0; e < t.index.size(); ++e) {
    double sum = 0, squares = 0, n = 0;
    for (size_t i = 0; i < t.values.size(); ++i) {
      if (t.kept[i][e]) sum += t.values[i][e];
      n += t.kept[i][e];
    }
    for (size_t i = 0; i < t.values.size(); ++i) {
      const double gap = t.values[i][e] - sum / n;
      if (t.kept[i][e]) squares += gap * gap;
    }
    out.push_back(squares / n);
  }
  return out;
}

bool admitted(uint64_t key, uint64_t index, double p) {
  const uint32_t counter[4] = {static_cast<uint32_t>(index >> 2), static_cast<uint32_t>(index >> 34), 0, 0};
  const uint32_t keys[2] = {static_cast<uint32_t>(key), static_cast<uint32_t>(key >> 32)};
  uint32_t words[4];
  chorus_philox4x32(counter, keys, words);
  return words[index & 3] < std::floor(0x1p32 * p);
}

void keep_by_rank(const StageProblem &p, Table &t, size_t i) {
  const uint64_t size = p.group_size();
  for (size_t g = 0; g < p.groups(); ++g) {
    const Flags all(t.index.size(), 1);
    std::vector<size_t> order(size);
    std::iota(order.begin(), order.end(), g * size);
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
      return magnitude_key(t.values[i][a]) < magnitude_key(t.values[i][b]);
    });
    for (size_t r = 0; r < size; ++r) {
      const double share = size < 2 ? 0 : static_cast<double>(r) / static_cast<double>(size - 1);
      const double probability =
          size < 2 ? p.densities[i] : (p.densities[i] - p.epsilons[i]) + 2 * p.epsilons[i] * share;
      t.kept[i][order[r]] &= admitted(p.keys[i], t.index[order[r]], probability);
    }
  }
}

void sparsify(const StageProblem &p, Table &t) {
  constexpr uint64_t kAll = ~uint64_t{0};
  const bool statistic = p.sparsify == CHORUS_SPARSIFY_STATISTIC_CUT;
  const auto ties = [&](size_t slot) { return p.ties.empty() ? (statistic ? kAll : 0) : p.ties[slot]; };
  if (statistic && p.cut_statistic == CHORUS_CUT_VARIANCE) {
    Flags any(t.index.size(), 1);
    const Flags over = above(variances(t), any, p.cuts[0], ties(0));
    for (Flags &kept : t.kept) {
      for (size_t e = 0; e < kept.size(); ++e) kept[e] = kept[e] && over[e];
    }
    return;
  }
  for (size_t i = 0; i < p.n(); ++i) {
    Flags &kept = t.kept[i];
    if (p.sparsify == CHORUS_SPARSIFY_MAGNITUDE_CUT) kept = above(t.values[i], kept, p.cuts[i], ties(i));
    if (p.sparsify == CHORUS_SPARSIFY_BAND) {
      const Flags low = above(t.values[i], kept, p.cuts[2 * i], ties(2 * i));
      const Flags high = above(t.values[i], kept, p.cuts[2 * i + 1], ties(2 * i + 1));
      for (size_t e = 0; e < kept.size(); ++e) kept[e] = low[e] && !high[e];
    }
    if (p.sparsify == CHORUS_SPARSIFY_BERNOULLI) {
      for (size_t e = 0; e < kept.size(); ++e) kept[e] &= admitted(p.keys[i], t.index[e], p.densities[i]);
    }
    if (p.sparsify == CHORUS_SPARSIFY_RANK) keep_by_rank(p, t, i);
    if (statistic) {
      Values scaled;
      for (size_t e = 0; e < kept.size(); ++e) scaled.push_back(p.cut_scales[t.group[e] * p.n() + i] * t.values[i][e]);
      kept = above(scaled, kept, p.cuts[i], ties(i));
    }
  }
}

// One element after the sparsify stage.
double combined(const StageProblem &p, const Table &t, size_t e) {
  const double *w = p.merge.weights.data() + (p.granularity == CHORUS_PER_TENSOR ? 0 : t.group[e] * p.n());
  Values a;
  Flags kept;
  double votes = 0, all = 0;
  for (size_t i = 0; i < p.n(); ++i) {
    double x = t.values[i][e];
    if (p.rescale == CHORUS_RESCALE_L1) x = p.rescales[i] * x;
    if (p.rescale == CHORUS_RESCALE_INVERSE_DENSITY) x = x / p.densities[i];
    a.push_back(x);
    kept.push_back(t.kept[i][e]);
    all += w[i];
    if (kept[i]) votes += p.merge.operand == CHORUS_OPERAND_WEIGHTED_DELTA ? w[i] * x : x;
  }
  for (size_t i = 0; i < p.n() && p.consensus == CHORUS_CONSENSUS_SIGN; ++i) {
    const double vote = p.merge.operand == CHORUS_OPERAND_WEIGHTED_DELTA ? w[i] * a[i] : a[i];
    kept[i] = kept[i] && vote != 0 && (votes >= 0) == (vote > 0) && !std::isnan(vote);
  }
  Values products, scales;
  double divisor = 0;
  for (size_t i = 0; i < p.n(); ++i) {
    if (!kept[i]) continue;
    products.push_back(w[i] * a[i]);
    scales.push_back(p.unique_scales.empty() ? 1 : p.unique_scales[i]);
    divisor += w[i];
  }
  double y = products.empty() ? 0 : products[0];
  for (size_t i = 1; i < products.size(); ++i) y = y + products[i];
  if (p.merge.combine == CHORUS_MERGE_MEAN) y = y / all;
  if (p.merge.combine == CHORUS_MERGE_MEAN_OF_KEPT) {
    if (p.divisor_floor > 0) divisor = std::max(divisor, p.divisor_floor);
    y = y / (divisor == 0 ? 1 : divisor);
    if (products.size() == 1 && !p.unique_scales.empty()) y = scales[0] * y;
  }
  y = p.merge.lambda * y;
  return p.merge.add_base ? t.base[e] + y : y;
}

}  // namespace

std::vector<uint64_t> apply_by_rules(const StageProblem &p) {
  Table t = table_of(p, false);
  sparsify(p, t);
  std::vector<uint64_t> out;
  for (size_t e = 0; e < t.index.size(); ++e) out.push_back(encode(p.merge.output_dtype, combined(p, t, e)));
  return out;
}

namespace {

// sum() of "Reductions".
double sum(const Values &x) {
  Values blocks;
  for (size_t b = 0; b < x.size(); b += CHORUS_BLOCK) {
    Values lanes(CHORUS_LANES, 0);
    for (size_t i = b; i < std::min<size_t>(x.size(), b + CHORUS_BLOCK); ++i) lanes[i % 32] = lanes[i % 32] + x[i];
    blocks.push_back(join(lanes));
  }
  return join(blocks);
}

// Operands and who satisfies the predicate.
Table satisfied(const StageProblem &p) {
  Table t = table_of(p, true);
  const Values variance = variances(t);
  if (p.predicate == CHORUS_PREDICATE_KEPT) sparsify(p, t);
  const bool by_variance = p.sparsify == CHORUS_SPARSIFY_STATISTIC_CUT && p.cut_statistic == CHORUS_CUT_VARIANCE;
  for (size_t i = 0; i < p.n(); ++i) {
    for (size_t e = 0; e < t.index.size(); ++e) {
      double &a = t.values[i][e];
      const uint64_t w = p.granularity == CHORUS_PER_TENSOR ? 0 : t.group[e] * p.n();
      if (p.merge.operand == CHORUS_OPERAND_WEIGHTED_DELTA) a = p.merge.weights[w + i] * a;
      const uint32_t key = magnitude_key(a);
      bool holds = true;
      if (p.predicate == CHORUS_PREDICATE_ABOVE_EPSILON) holds = key > magnitude_key(p.epsilon);
      if (p.predicate == CHORUS_PREDICATE_PREFIX && p.statistic == CHORUS_STATISTIC_HISTOGRAM)
        holds = key >> 15 == p.prefixes[i];
      if (p.predicate == CHORUS_PREDICATE_TIE)
        holds = by_variance ? magnitude_key(variance[e]) == magnitude_key(p.cuts[0]) : key == magnitude_key(p.cuts[i]);
      t.kept[i][e] = t.kept[i][e] && holds;
    }
  }
  return t;
}

std::vector<uint64_t> sums(const StageProblem &p, const Table &t) {
  std::vector<uint64_t> out;
  const uint64_t size = p.group_size();
  const size_t n = p.n() + (p.merge.has_base() && p.merge.operand == CHORUS_OPERAND_X ? 1 : 0);
  const auto operand = [&](size_t i, size_t e) {
    if (i == p.n()) return t.base[e];
    return t.kept[i][e] ? t.values[i][e] : 0;
  };
  for (size_t first = 0; first < p.groups() * size; first += size) {
    for (size_t i = 0; i < (p.statistic == CHORUS_STATISTIC_GRAM ? n : p.n()); ++i) {
      for (size_t j = i; j < (p.statistic == CHORUS_STATISTIC_GRAM ? n : i + 1); ++j) {
        Values terms;
        for (size_t e = first; e < first + size; ++e)
          terms.push_back(p.statistic == CHORUS_STATISTIC_GRAM ? operand(i, e) * operand(j, e)
                                                               : std::fabs(operand(i, e)));
        out.push_back(std::bit_cast<uint64_t>(sum(terms)));
      }
    }
  }
  return out;
}

std::vector<uint64_t> counts(const StageProblem &p, const Table &t) {
  const size_t n = p.n();
  if (p.statistic == CHORUS_STATISTIC_COUNT) {
    std::vector<uint64_t> out(n * n);
    for (size_t e = 0; e < t.index.size(); ++e) {
      size_t sharers = 0;
      for (size_t i = 0; i < n; ++i) sharers += static_cast<size_t>(t.kept[i][e]);
      for (size_t i = 0; i < n; ++i) {
        if (t.kept[i][e]) ++out[i * n + sharers - 1];
      }
    }
    return out;
  }
  const auto bin = [&](uint32_t key) { return p.prefix_bits == 0 ? key / 32768 : key % 32768; };
  const bool of_variance = p.statistic == CHORUS_STATISTIC_VARIANCE_HISTOGRAM;
  std::vector<uint64_t> out((of_variance ? 1 : n) * 65536);
  const Values variance = variances(t);
  for (size_t e = 0; e < t.index.size(); ++e) {
    const uint32_t key = magnitude_key(variance[e]);
    bool any = false;
    for (size_t i = 0; i < n; ++i) {
      any |= t.kept[i][e] != 0;
      if (!of_variance && t.kept[i][e]) ++out[i * 65536 + bin(magnitude_key(t.values[i][e]))];
    }
    const bool prefixed = p.predicate != CHORUS_PREDICATE_PREFIX || key / 32768 == p.prefixes[0];
    if (of_variance && any && prefixed) ++out[bin(key)];
  }
  return out;
}

}  // namespace

std::vector<uint64_t> reduce_by_rules(const StageProblem &p) {
  const Table t = satisfied(p);
  return p.statistic == CHORUS_STATISTIC_GRAM || p.statistic == CHORUS_STATISTIC_SUM ? sums(p, t) : counts(p, t);
}

}  // namespace conformance
