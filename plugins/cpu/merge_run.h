// SPDX-License-Identifier: Apache-2.0
// The first stages of a run in vectors: operands, and which of them the sparsify stage keeps. The choices are the
// reference's to the bit. Included once per instruction set.
#include "cpu/merge_stages.h"
#include "cpu/merge_vector.h"

#if defined(CHORUS_CPU_MERGE_RUN_H_) == defined(HWY_TARGET_TOGGLE)  // Highway's guard: once per target
#ifdef CHORUS_CPU_MERGE_RUN_H_
#undef CHORUS_CPU_MERGE_RUN_H_
#else
#define CHORUS_CPU_MERGE_RUN_H_
#endif

HWY_BEFORE_NAMESPACE();
namespace chorus::cpu {
namespace HWY_NAMESPACE {

// Calls body(e) for the first element of each vector of a run; arrays are padded to whole vectors.
template <class Body>
HWY_INLINE void vectors_of(uint64_t count, const Body &body) {
  for (uint64_t e = 0; e < count; e += hn::Lanes(F64())) body(e);
}

HWY_INLINE hn::Mask<F64> load_mask(const double *from) { return hn::MaskFromVec(hn::Load(F64(), from)); }
HWY_INLINE void store_mask(hn::Mask<F64> mask, double *to) { hn::Store(hn::VecFromMask(F64(), mask), F64(), to); }

// Elements [at, at + count) as f64, then +0 to the end of the last pack.
HWY_INLINE void load_run(chorus_dtype dtype, const void *data, uint64_t at, uint64_t count, double *out) {
  uint64_t e = 0;
  for (; e + pack_lanes() <= count; e += pack_lanes()) store_pack(load_pack(dtype, data, at + e), out + e);
  if (e == count) return;
  for (uint64_t p = e; p < e + pack_lanes(); ++p)
    out[p] = p < count ? load_f64(dtype, data, static_cast<int64_t>(at + p)) : 0.0;
}

HWY_INLINE bool is_present(const StageJob &job, const Run &run, int32_t i) {
  return job.inputs[i] != nullptr && (run.weights == nullptr || run.weights[i] != 0.0);
}

// x or x - base of every input that counts, else 0; kept: all ones for those.
HWY_INLINE void load_operands(const StageJob &job, const Run &run, const RunMemory &m) {
  const F64 d;
  const Operands &o = *job.operands;
  const hn::RebindToUnsigned<F64> u;
  if (job.needs_base) load_run(o.base_dtype, job.base, run.at, run.count, m.base);
  for (int32_t i = 0; i < o.n_inputs; ++i) {
    double *values = m.values + static_cast<uint64_t>(i) * kRun, *kept = m.kept + static_cast<uint64_t>(i) * kRun;
    const bool present = is_present(job, run, i);
    const auto ones = hn::BitCast(d, hn::Set(u, present ? ~uint64_t{0} : 0));
    vectors_of(run.count, [&](uint64_t e) HWY_ATTR { hn::Store(ones, d, kept + e); });
    if (!present) {
      std::memset(values, 0, kRun * sizeof(double));
      continue;
    }
    load_run(o.dtypes[i], job.inputs[i], run.at, run.count, values);
    if (!o.deltas) continue;
    vectors_of(run.count, [&](uint64_t e) HWY_ATTR {
      hn::Store(hn::Sub(hn::Load(d, values + e), hn::Load(d, m.base + e)), d, values + e);
    });
  }
  const uint64_t whole = (run.count + hn::Lanes(d) - 1) / hn::Lanes(d) * hn::Lanes(d);  // no element of the padding counts
  for (int32_t i = 0; i < o.n_inputs; ++i) {
    for (uint64_t e = run.count; e < whole; ++e) m.kept[static_cast<uint64_t>(i) * kRun + e] = 0.0;
  }
}

// ---- Cuts ----

// Keys as numbers: |x| rounded to f32, exactly what orders and equals as the keys do; NaN apart.
#if HWY_TARGET == HWY_SCALAR  // whose DemoteTo makes infinity the largest number
HWY_INLINE Vec64 key_value(Vec64 x) { return hn::Set(F64(), static_cast<double>(static_cast<float>(std::fabs(hn::GetLane(x))))); }
#else
HWY_INLINE Vec64 key_value(Vec64 x) { return hn::PromoteTo(F64(), hn::DemoteTo(F32Half(), hn::Abs(x))); }
#endif

struct Edge {
  double value;
  bool nan;
};
HWY_INLINE Edge edge_of(double cut) { return {static_cast<double>(static_cast<float>(std::fabs(cut))), is_nan(cut)}; }

// Whether the keys of x are above the edge, and whether they equal it.
HWY_INLINE void compare(const Edge &edge, Vec64 x, hn::Mask<F64> *above, hn::Mask<F64> *equal) {
  const F64 d;
  const auto nan = hn::IsNaN(x);
  if (edge.nan) {
    *above = hn::And(nan, hn::Not(nan));
    *equal = nan;
    return;
  }
  const auto key = key_value(x), at = hn::Set(d, edge.value);
  *above = hn::Or(nan, hn::Gt(key, at));
  *equal = hn::Eq(key, at);
}

// A cut with its ties: how many of the elements equal to it count as above it.
struct Cut {
  Edge edge;
  uint64_t ties;
  uint64_t *seen;
};

HWY_INLINE Cut cut_of(const StageJob &job, const Run &run, uint64_t slot) {
  const bool all = job.sparsify == CHORUS_SPARSIFY_STATISTIC_CUT;
  const uint64_t ties = job.args.ties != nullptr ? job.args.ties[slot] : all ? ~uint64_t{0} : 0;
  return {edge_of(job.args.cuts[slot]), ties, run.seen + slot};
}

// What of `which` is above the cut; ties are admitted in order.
HWY_INLINE hn::Mask<F64> above(const Cut &cut, Vec64 x, hn::Mask<F64> which) {
  const F64 d;
  hn::Mask<F64> over, equal;
  compare(cut.edge, x, &over, &equal);
  over = hn::And(over, which);
  equal = hn::And(equal, which);
  const uint64_t count = hn::CountTrue(d, equal), before = *cut.seen;
  if (count == 0) return over;
  *cut.seen = before + count;
  if (before >= cut.ties) return over;
  if (cut.ties - before >= count) return hn::Or(over, equal);
  HWY_ALIGN double admitted[hn::MaxLanes(d)];  // the last ones to come in: once per cut
  store_mask(equal, admitted);
  uint64_t left = cut.ties - before;
  for (double &lane : admitted) {
    if (std::bit_cast<uint64_t>(lane) == 0) continue;
    if (left == 0) lane = 0.0;
    if (left != 0) --left;
  }
  return hn::Or(over, load_mask(admitted));
}

// Population variance over the inputs kept at an element.
HWY_INLINE Vec64 variance_of(int32_t n, const RunMemory &m, uint64_t e) {
  const F64 d;
  const auto zero = hn::Zero(d), one = hn::Set(d, 1.0);
  auto sum = zero, count = zero, squares = zero;
  for (int32_t i = 0; i < n; ++i) {
    const auto kept = load_mask(m.kept + static_cast<uint64_t>(i) * kRun + e);
    sum = hn::IfThenElse(kept, hn::Add(sum, hn::Load(d, m.values + static_cast<uint64_t>(i) * kRun + e)), sum);
    count = hn::Add(count, hn::IfThenElseZero(kept, one));
  }
  const auto mean = hn::Div(sum, count);
  for (int32_t i = 0; i < n; ++i) {
    const auto kept = load_mask(m.kept + static_cast<uint64_t>(i) * kRun + e);
    const auto gap = hn::Sub(hn::Load(d, m.values + static_cast<uint64_t>(i) * kRun + e), mean);
    squares = hn::IfThenElse(kept, hn::Add(squares, hn::Mul(gap, gap)), squares);
  }
  return hn::Div(squares, count);
}

// ---- Draws ----

#if HWY_TARGET == HWY_SCALAR

HWY_INLINE void draw_blocks(uint64_t key, uint64_t block, uint64_t blocks, uint32_t *words) {
  const uint32_t keys[2] = {static_cast<uint32_t>(key), static_cast<uint32_t>(key >> 32)};
  for (uint64_t b = 0; b < blocks; ++b) {
    const uint32_t counter[4] = {static_cast<uint32_t>(block + b), static_cast<uint32_t>((block + b) >> 32), 0, 0};
    chorus_philox4x32(counter, keys, words + 4 * b);
  }
}

#else

// Philox of several blocks at once: each 64-bit lane holds one 32-bit word of a block's state.
HWY_INLINE void draw_blocks(uint64_t key, uint64_t block, uint64_t blocks, uint32_t *words) {
  const hn::ScalableTag<uint64_t> d;
  const hn::Repartition<uint32_t, decltype(d)> half;
  const auto low = hn::Set(d, 0xffffffffu);
  const auto multiply = [&](auto a, uint32_t by) HWY_ATTR {
    return hn::MulEven(hn::BitCast(half, a), hn::BitCast(half, hn::Set(d, by)));
  };
  for (uint64_t b = 0; b < blocks; b += hn::Lanes(d)) {
    const auto index = hn::Iota(d, block + b);
    auto c0 = hn::And(index, low), c1 = hn::ShiftRight<32>(index), c2 = hn::Zero(d), c3 = hn::Zero(d);
    uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
    for (int round = 0; round < 10; ++round) {
      const auto a = multiply(c0, 0xD2511F53u), m = multiply(c2, 0xCD9E8D57u);
      c0 = hn::Xor(hn::Xor(hn::ShiftRight<32>(m), c1), hn::Set(d, k0));
      c2 = hn::Xor(hn::Xor(hn::ShiftRight<32>(a), c3), hn::Set(d, k1));
      c1 = hn::And(m, low);
      c3 = hn::And(a, low);
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
    HWY_ALIGN uint64_t pairs[2][hn::MaxLanes(d)];
    hn::Store(hn::Or(c0, hn::ShiftLeft<32>(c1)), d, pairs[0]);
    hn::Store(hn::Or(c2, hn::ShiftLeft<32>(c3)), d, pairs[1]);
    for (uint64_t lane = 0; lane < hn::Lanes(d) && b + lane < blocks; ++lane) {
      std::memcpy(words + 4 * (b + lane), &pairs[0][lane], 8);
      std::memcpy(words + 4 * (b + lane) + 2, &pairs[1][lane], 8);
    }
  }
}

#endif  // HWY_SCALAR

// Clears what input i does not draw; admitted(e) is its admission.
template <class Admitted>
HWY_INLINE void keep_drawn(const StageJob &job, const Run &run, int32_t i, const RunMemory &m, const Admitted &admitted) {
  const uint64_t first = job.begin + run.at, block = first / 4, skip = first % 4;
  draw_blocks(job.args.keys[i], block, (skip + run.count + 3) / 4, m.words);
  double *kept = m.kept + static_cast<uint64_t>(i) * kRun;
  for (uint64_t e = 0; e < run.count; ++e) {
    if (!(m.words[skip + e] < admitted(e))) kept[e] = 0.0;
  }
}

// ---- The stage ----

HWY_INLINE void sparsify(const StageJob &job, const Run &run, const RunMemory &m) {
  const F64 d;
  const int32_t n = job.operands->n_inputs;
  if (job.sparsify == CHORUS_SPARSIFY_NONE) return;
  if (job.sparsify == CHORUS_SPARSIFY_STATISTIC_CUT && job.cut_statistic == CHORUS_CUT_VARIANCE) {
    const Cut cut = cut_of(job, run, 0);
    vectors_of(run.count, [&](uint64_t e) HWY_ATTR {
      const auto real = hn::Lt(hn::Iota(d, static_cast<double>(e)), hn::Set(d, static_cast<double>(run.count)));
      const auto over = above(cut, variance_of(n, m, e), real);
      for (int32_t i = 0; i < n; ++i) {
        double *kept = m.kept + static_cast<uint64_t>(i) * kRun + e;
        store_mask(hn::And(load_mask(kept), over), kept);
      }
    });
    return;
  }
  for (int32_t i = 0; i < n; ++i) {
    if (!is_present(job, run, i)) continue;
    const double *values = m.values + static_cast<uint64_t>(i) * kRun;
    double *kept = m.kept + static_cast<uint64_t>(i) * kRun;
    const auto slot = static_cast<uint64_t>(i);
    if (job.sparsify == CHORUS_SPARSIFY_BERNOULLI) {
      const uint64_t admitted = admission(job.args.densities[i]);
      keep_drawn(job, run, i, m, [&](uint64_t) { return admitted; });
    } else if (job.sparsify == CHORUS_SPARSIFY_RANK) {
      const uint32_t *ranks = m.ranks + slot * job.group_size + run.in_group;
      keep_drawn(job, run, i, m, [&](uint64_t e) {
        return admission(rank_probability(job.args.densities[i], job.args.epsilons[i], ranks[e], job.group_size));
      });
    } else if (job.sparsify == CHORUS_SPARSIFY_BAND) {
      const Cut lower = cut_of(job, run, 2 * slot), upper = cut_of(job, run, 2 * slot + 1);
      vectors_of(run.count, [&](uint64_t e) HWY_ATTR {
        const auto which = load_mask(kept + e);
        const auto x = hn::Load(d, values + e);
        store_mask(hn::AndNot(above(upper, x, which), above(lower, x, which)), kept + e);
      });
    } else {
      const Cut cut = cut_of(job, run, slot);
      const bool scaled = job.sparsify == CHORUS_SPARSIFY_STATISTIC_CUT;
      const double scale = scaled ? job.args.cut_scales[run.group * static_cast<uint64_t>(n) + slot] : 1.0;
      vectors_of(run.count, [&](uint64_t e) HWY_ATTR {
        auto x = hn::Load(d, values + e);
        if (scaled) x = hn::Mul(hn::Set(d, scale), x);
        store_mask(above(cut, x, load_mask(kept + e)), kept + e);
      });
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace chorus::cpu
HWY_AFTER_NAMESPACE();

#endif  // per-target guard
