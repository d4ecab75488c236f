// SPDX-License-Identifier: Apache-2.0
// What holds of any call through the public C ABI: empty batches, any number of pool threads and of calling
// threads, any floating-point environment of the host, no workspace given.
#include <cfenv>
#include <thread>
#if defined(__SSE__)
#include <xmmintrin.h>
#endif

#include "conformance/check.h"
#include "conformance/combine_problem.h"
#include "conformance/public_abi.h"
#include "conformance/route_problem.h"

namespace conformance {
namespace {

// Small enough to be quick, long enough that kernels split them.
CombineProblem mixture(Random &random, uint32_t outputs) {
  CombineProblem p;
  p.rule = outputs == kAllOutputs ? CHORUS_COMBINE_LOG_LINEAR : CHORUS_COMBINE_LINEAR;
  p.rows = 7;
  p.n_tokens = 3001;
  for (double weight : {0.5, 0.4, 0.3}) {
    ModelScores m;
    for (int64_t i = 0; i < p.rows * p.n_tokens; ++i)
      m.scores.push_back(rounded(CHORUS_F32, 3 * random.normal()));
    m.weight = weight;
    p.models.push_back(std::move(m));
  }
  complete(p);
  p.seed = random.bits();
  return p;
}

RouteProblem routing(Random &random) {
  RouteProblem p;
  p.n_experts = 96;
  p.k = 6;
  p.tokens = 300;
  p.score = CHORUS_ROUTE_SIGMOID;
  p.renormalise = CHORUS_ROUTE_RENORMALISE_SUM;
  for (int64_t i = 0; i < p.tokens * p.n_experts; ++i)
    p.logits.push_back(rounded(CHORUS_F32, random.normal()));
  return p;
}

uint32_t outputs_of(const Test &test) {
  Random random = test.random();
  const CombineProblem p = mixture(random, kAllOutputs);
  return attempt("argmax, sample, token log-probs", [&] { Combine(test.backend, p, kAllOutputs); })
             ? kAllOutputs
             : kBasicOutputs;
}

// An environment no kernel may see: rounding upward, subnormals flushed.
class OddEnvironment {
 public:
  OddEnvironment() {
    std::fegetenv(&before_);
    std::fesetround(FE_UPWARD);
#if defined(__SSE__)
    _mm_setcsr(_mm_getcsr() | 0x8040);  // flush to zero, denormals are zero
#endif
  }
  ~OddEnvironment() {
    std::fesetenv(&before_);
  }
  bool stands() const {
#if defined(__SSE__)
    if ((_mm_getcsr() & 0x8040) != 0x8040) return false;
#endif
    return std::fegetround() == FE_UPWARD;
  }

 private:
  std::fenv_t before_;
};

}  // namespace

CONFORMANCE_TEST(calls_same_bytes_for_any_pool) {
  Random random = test.random();
  const uint32_t outputs = outputs_of(test);
  const CombineProblem p = mixture(random, outputs);
  const RouteProblem q = routing(random);
  const CombineResult mixed = combine(PublicAbi(test.backend), p, outputs);
  for (int threads : {2, 5}) {
    const PublicAbi abi(test.backend, threads);
    expect(combine(abi, p, outputs).bits == mixed.bits, "combine: bytes differ with %d threads", threads);
    attempt("route", [&] { expect_equal(route(abi, q), route_by_rules(q), "the rules give"); });
  }
}

CONFORMANCE_TEST(calls_from_many_threads) {
  Random random = test.random();
  const uint32_t outputs = outputs_of(test);
  const CombineProblem p = mixture(random, outputs);
  const Combine kernel(test.backend, p, outputs);
  const CombineResult want = kernel.run(p);
  std::vector<int> equal(4, 0);
  std::vector<std::thread> threads;
  for (int &ok : equal) {
    threads.emplace_back([&] {
      ok = 1;
      for (int i = 0; i < 3; ++i) ok &= kernel.run(p).bits == want.bits;
    });
  }
  for (std::thread &thread : threads) thread.join();
  for (int ok : equal) expect(ok == 1, "a thread got other bytes");
}

CONFORMANCE_TEST(calls_in_any_floating_point_environment) {
  Random random = test.random();
  const uint32_t outputs = outputs_of(test);
  CombineProblem p = mixture(random, outputs);
  p.models[0].scores[5] = 1e-42;  // subnormals count
  const RouteProblem q = routing(random);
  for (int threads : {1, 2}) {
    const PublicAbi abi(test.backend, threads);
    const CombineResult want = combine(abi, p, outputs);
    CombineResult got;
    bool stands = false;
    {
      const OddEnvironment odd;
      got = combine(abi, p, outputs);
      stands = odd.stands();
    }
    expect(got.bits == want.bits, "bytes depend on the host's floating-point environment (%d threads)",
           threads);
    expect(stands, "the host's floating-point environment was not given back");
    attempt("route", [&] {
      RouteResult routed;
      {
        const OddEnvironment odd;
        routed = route(abi, q);
      }
      expect_equal(routed, route_by_rules(q), "the rules give");
    });
  }
}

CONFORMANCE_TEST(calls_with_empty_batches) {
  Random random = test.random();
  CombineProblem p = mixture(random, kBasicOutputs);
  const Combine kernel(test.backend, p, kBasicOutputs);
  p.rows = 0;
  for (ModelScores &m : p.models) m.scores.clear();
  const CombineResult r = kernel.run(p);
  expect(r.log_probs.empty() && r.status.empty(), "no rows gave something");
}

}  // namespace conformance
