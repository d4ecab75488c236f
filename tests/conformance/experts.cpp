// SPDX-License-Identifier: Apache-2.0
// experts.ffn: within twice the error of the plain f32-accumulating computation of the same dtype, measured
// against double precision; skipped slots, maps, layouts, biases; a token does not know its batch; public C
// ABI.
#include <algorithm>
#include <cmath>

#include "conformance/check.h"
#include "conformance/experts_problem.h"

namespace conformance {
namespace {

void on_problems(const Test &test, int cases, const auto &body) {
  Random random = test.random();
  bool ran = false;
  for (int i = 0; i < test.cases(cases); ++i) {
    const ExpertsProblem p = random_experts(random);
    describe("case %d: E %d (%d shared), k %d, T %lld, H %lld, I %lld, weights 0x%x, x 0x%x, y 0x%x, layout %d, activation %d", i,
             p.n_experts, p.n_shared, p.k, static_cast<long long>(p.tokens), static_cast<long long>(p.hidden),
             static_cast<long long>(p.intermediate), p.weights_dtype, p.x_dtype, p.y_dtype, p.layout, p.activation);
    ran |= attempt("a problem", [&] { body(p, random); });
  }
  if (!ran) skip("every problem was refused");
}

// Errors relative to the largest output, over all problems of one weights dtype: a single small problem may
// be lucky.
struct Tally {
  double squares = 0, max = 0, count = 0;

  void add(const ExpertsProblem &p, const std::vector<double> &y, const std::vector<double> &truth) {
    double largest = 0.1;
    for (double t : truth) largest = std::max(largest, std::fabs(t));
    for (size_t i = 0; i < y.size(); ++i) {
      // What the store of y rounds away is nobody's error.
      const double gap = std::max(0.0, std::fabs(y[i] - truth[i]) - ulp(p.y_dtype, truth[i]) / 2) / largest;
      squares += std::isnan(gap) ? kInfinity : gap * gap;
      max = std::max(max, std::isnan(gap) ? kInfinity : gap);
      count += 1;
    }
  }
  double rms() const { return count > 0 ? std::sqrt(squares / count) : 0; }
};

}  // namespace

// DESIGN 3a.6: twice the error of the plain computation, which is the reference. Its own error is that of f32
// sums and of operands rounded to the weights' dtype.
CONFORMANCE_TEST(experts_against_oracle) {
  constexpr struct {
    const char *name;
    chorus_dtype dtype;
    double own_rms, own_max;  // of the plain computation itself
  } kWeights[] = {{"f32", CHORUS_F32, 0x1p-20, 0x1p-16},
                  {"bf16", CHORUS_BF16, 0x1p-7, 0x1p-4},
                  {"f16", CHORUS_F16, 0x1p-10, 0x1p-7},
                  {"i8", CHORUS_I8, 0x1p-7, 0x1p-4},
                  {"i4", CHORUS_I4, 0x1p-7, 0x1p-4}};
  Tally mine[std::size(kWeights)], plain[std::size(kWeights)];
  on_problems(test, 150, [&](const ExpertsProblem &p, Random &) {
    const auto truth = oracle(p);
    size_t at = 0;
    while (kWeights[at].dtype != p.weights_dtype) ++at;
    mine[at].add(p, run(test.backend, p).y, truth);
    if (test.has_peer()) plain[at].add(p, run(test.reference, p).y, truth);
  });
  for (size_t at = 0; at < std::size(kWeights); ++at) {
    const Tally &t = mine[at], &r = plain[at];
    describe("%s weights, %.0f outputs", kWeights[at].name, t.count);
    if (test.has_peer()) {
      expect(t.rms() <= 2 * r.rms(), "rms error is %g; the plain computation's %g", t.rms(), r.rms());
      expect(t.max <= 2 * r.max, "largest error is %g; the plain computation's %g", t.max, r.max);
    } else {
      expect(t.rms() <= kWeights[at].own_rms, "rms error is %g, more than %g", t.rms(), kWeights[at].own_rms);
      expect(t.max <= kWeights[at].own_max, "largest error is %g, more than %g", t.max, kWeights[at].own_max);
    }
  }
}

CONFORMANCE_TEST(experts_by_public_abi) {
  const PublicAbi abi(test.backend);
  on_problems(test, 40, [&](const ExpertsProblem &p, Random &) {
    expect(run(abi, p).bits == run(test.backend, p).bits, "bytes differ from the kernel's");
  });
}

// Slots that do not count are not computed: NaN weights of experts nobody chose leave no trace.
CONFORMANCE_TEST(experts_skipped_slots_cost_nothing) {
  on_problems(test, 30, [&](ExpertsProblem p, Random &) {
    p.map.clear();
    const int64_t unused = p.routed() - 1;
    for (size_t s = 0; s < p.ids.size(); ++s) {
      p.ids[s] = p.ids[s] < 0 ? -1 : static_cast<double>(static_cast<int64_t>(p.ids[s]) % p.routed());
      if (p.ids[s] == static_cast<double>(unused)) p.weights[s] = 0;
    }
    const auto clean = run(test.backend, p).bits;
    poison(p, unused);
    expect(run(test.backend, p).bits == clean, "an expert of weight 0 was multiplied");
  });
}

CONFORMANCE_TEST(experts_ids_out_of_range) {
  on_problems(test, 20, [&](ExpertsProblem p, Random &random) {
    const ExpertsResult clean = run(test.backend, p);
    expect(std::all_of(clean.status.begin(), clean.status.end(), [](double s) { return s == 0; }),
           "a status is not 0");
    const int64_t token = random.integer(0, p.tokens - 1);
    const auto slot = static_cast<size_t>(token * p.k);
    p.ids[slot] = -1;
    const ExpertsResult without = run(test.backend, p);
    p.ids[slot] = static_cast<double>(p.known_ids() + random.pick({0, 1, 1000000}));
    const ExpertsResult bad = run(test.backend, p);
    expect(bad.status[static_cast<size_t>(token)] == CHORUS_ROW_BAD_TOKEN, "an id out of range is not told");
    expect(bad.bits == without.bits, "an id out of range contributes");
  });
}

// A row of NaN or infinities poisons itself alone.
CONFORMANCE_TEST(experts_rows_stand_alone) {
  on_problems(test, 20, [&](ExpertsProblem p, Random &random) {
    if (p.tokens < 2) return;
    p.batch_invariant = true;
    const ExpertsResult clean = run(test.backend, p);
    const int64_t hit = random.integer(0, p.tokens - 1);
    p.x[static_cast<size_t>(hit * p.hidden)] = random.pick({kNaN, kInfinity});
    const ExpertsResult dirty = run(test.backend, p);
    for (int64_t at = 0; at < p.tokens * p.hidden; ++at) {
      if (at / p.hidden != hit)
        expect(clean.bits[static_cast<size_t>(at)] == dirty.bits[static_cast<size_t>(at)],
               "token %lld changed with token %lld", static_cast<long long>(at / p.hidden),
               static_cast<long long>(hit));
    }
  });
}

CONFORMANCE_TEST(experts_batch_invariant) {
  on_problems(test, 20, [&](ExpertsProblem p, Random &) {
    p.batch_invariant = true;
    const ExpertsResult all = run(test.backend, p);
    ExpertsProblem one = p;
    one.tokens = 1;
    for (int64_t t = 0; t < p.tokens; t += 1 + p.tokens / 5) {
      one.x.assign(p.x.begin() + t * p.hidden, p.x.begin() + (t + 1) * p.hidden);
      one.ids.assign(p.ids.begin() + t * p.k, p.ids.begin() + (t + 1) * p.k);
      one.weights.assign(p.weights.begin() + t * p.k, p.weights.begin() + (t + 1) * p.k);
      const ExpertsResult alone = run(test.backend, one);
      expect(std::equal(alone.bits.begin(), alone.bits.end(), all.bits.begin() + t * p.hidden),
             "token %lld depends on its batch", static_cast<long long>(t));
    }
  });
}

CONFORMANCE_TEST(experts_same_bytes_for_any_threads) {
  on_problems(test, 10, [&](const ExpertsProblem &p, Random &) {
    const ExpertsResult serial = run(test.backend, p);
    for (int threads : {0, 2, 5}) {
      test.backend.set_threads(threads);
      const ExpertsResult other = run(test.backend, p);
      test.backend.set_threads(1);
      expect(other.bits == serial.bits, "bytes differ with %d threads", threads);
    }
  });
}

}  // namespace conformance
