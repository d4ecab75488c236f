// SPDX-License-Identifier: Apache-2.0
// route.topk: every bit by the rules, through the kernel and the public C ABI; weights against double
// precision; a token's routing knows neither its batch nor the threads.
#include <algorithm>
#include <cmath>

#include "conformance/check.h"
#include "conformance/combine_problem.h"
#include "conformance/route_problem.h"

namespace conformance {

CONFORMANCE_TEST(route_by_the_rules) {
  on_problems(test, random_routing, 600, [&](const RouteProblem &p) {
    expect_equal(route(test.backend, p), route_by_rules(p), "the rules give");
  });
}

CONFORMANCE_TEST(route_equals_reference) {
  if (!test.has_peer()) skip("the reference itself");
  on_problems(test, random_routing, 300, [&](const RouteProblem &p) {
    expect_equal(route(test.backend, p), route(test.reference, p), "the reference gives");
  });
}

CONFORMANCE_TEST(route_by_public_abi) {
  const PublicAbi abi(test.backend);
  on_problems(test, random_routing, 100, [&](const RouteProblem &p) {
    expect_equal(route(abi, p), route_by_rules(p), "the rules give");
  });
}

// Against a softmax in double precision. An exponential of x - max carries its rounding, |x - max| 2^-24, and
// 0.94 ulp; sum, quotient and store another few.
CONFORMANCE_TEST(route_weights_against_double) {
  Random random = test.random();
  for (int i = 0; i < test.cases(60); ++i) {
    RouteProblem p = simple_routing(static_cast<int32_t>(random.integer(2, 512)), 2, {});
    p.tokens = 4;
    for (int64_t j = 0; j < p.tokens * p.n_experts; ++j)
      p.logits.push_back(rounded(CHORUS_F32, 4 * random.normal()));
    p.k = static_cast<int32_t>(random.integer(1, std::min(p.n_experts, 8)));
    const RouteResult r = route(test.backend, p);
    for (int64_t t = 0; t < p.tokens; ++t) {
      const auto *x = &p.logits[static_cast<size_t>(t * p.n_experts)];
      const double max = *std::max_element(x, x + p.n_experts);
      double sum = 0;
      for (int32_t e = 0; e < p.n_experts; ++e) sum += std::exp(x[e] - max);
      for (int32_t j = 0; j < p.k; ++j) {
        const auto slot = static_cast<size_t>(t * p.k + j);
        const double z = x[r.ids[slot]], want = std::exp(z - max) / sum,
                     got = decode(CHORUS_F32, r.weights[slot]);
        expect(std::fabs(got - want) <= want * 0x1p-24 * (16 + max - z), "weight %zu is %.9g, not %.9g", slot,
               got, want);
      }
    }
  }
}

CONFORMANCE_TEST(route_contract_line_by_line) {
  const auto ids = [&](const RouteProblem &p) { return route(test.backend, p).ids; };
  const auto weights = [&](const RouteProblem &p) {
    std::vector<double> out;
    for (uint64_t w : route(test.backend, p).weights) out.push_back(decode(CHORUS_F32, w));
    return out;
  };
  using Ids = std::vector<uint64_t>;
  using Weights = std::vector<double>;
  const double inf = kInfinity;
  expect(ids(simple_routing(5, 3, {1, 2, 2, 1, 2})) == Ids{1, 2, 4}, "ties go to the lower index");
  expect(ids(simple_routing(5, 3, {-0.0, 0, -0.0, 0, 0})) == Ids{0, 1, 2}, "-0 equals +0");
  expect(ids(simple_routing(4, 4, {kNaN, 1, kNaN, -inf})) == Ids{1, 3, 0, 2}, "NaN ranks last, by index");
  expect(weights(simple_routing(3, 3, {kNaN, 1, kNaN})) == Weights{1, 0, 0}, "NaN has weight 0");
  expect(weights(simple_routing(2, 2, {kNaN, kNaN})) == Weights{0, 0}, "a row of NaN has weights 0");
  expect(ids(simple_routing(3, 2, {kNaN, kNaN, kNaN})) == Ids{0, 1}, "a row of NaN gives the first ids");
  expect(weights(simple_routing(4, 3, {inf, 1, inf, 2})) == Weights{0.5, 0.5, 0}, "+inf entries share equally");
  expect(ids(simple_routing(4, 2, {-inf, -inf, -inf, -inf})) == Ids{0, 1}, "an all -inf row gives the first ids");
  expect(weights(simple_routing(4, 2, {-inf, -inf, -inf, -inf})) == Weights{0.25, 0.25},
         "an all -inf row has equal weights");
  RouteProblem padded = simple_routing(2, 1, {0, 1, 1, 0, 5, 0});
  padded.n_valid = 1;
  const RouteResult r = route(test.backend, padded);
  const uint64_t none = 0xffffffffu;
  expect(r.ids == Ids{1, none, none}, "padding rows have id -1");
  expect(r.weights[1] == 0 && r.weights[2] == 0, "padding rows have weight 0");
  expect(r.counts == Ids{0, 1} && r.offsets == Ids{0, 0, 1}, "padding rows are not counted");
  expect(r.order == Ids{0, none, none} && r.inverse == Ids{0, none, none}, "padding rows are in no list");
  RouteProblem biased = simple_routing(3, 1, {1, 2, 3});
  biased.score = CHORUS_ROUTE_SIGMOID;
  biased.bias = {1, 0, 0};
  expect(ids(biased) == Ids{0}, "the bias chooses");
  const double sigmoid = 1 / (1 + std::exp(-1.0));
  expect(std::fabs(weights(biased)[0] - sigmoid) < 1e-6, "the bias does not leak into the weights");
}

CONFORMANCE_TEST(route_no_tokens) {
  RouteProblem p = simple_routing(6, 2, {});
  const RouteResult r = route(test.backend, p);
  expect(std::all_of(r.counts.begin(), r.counts.end(), [](uint64_t c) { return c == 0; }),
         "counts of no tokens");
  expect(std::all_of(r.offsets.begin(), r.offsets.end(), [](uint64_t c) { return c == 0; }),
         "offsets of no tokens");
}

CONFORMANCE_TEST(route_tokens_do_not_know_their_batch) {
  on_problems(test, random_routing, 100, [&](const RouteProblem &p) {
    if (p.n_valid >= 0) return;
    const RouteResult all = route(test.backend, p);
    RouteProblem one = p;
    one.tokens = 1;
    for (int64_t t = 0; t < p.tokens; ++t) {
      one.logits.assign(p.logits.begin() + t * p.n_experts, p.logits.begin() + (t + 1) * p.n_experts);
      const RouteResult alone = route(test.backend, one);
      expect(std::equal(alone.ids.begin(), alone.ids.end(), all.ids.begin() + t * p.k) &&
                 std::equal(alone.weights.begin(), alone.weights.end(), all.weights.begin() + t * p.k),
             "token %lld depends on its batch", static_cast<long long>(t));
    }
  });
}

CONFORMANCE_TEST(route_same_bytes_for_any_threads) {
  Random random = test.random();
  for (int i = 0; i < test.cases(6); ++i) {
    RouteProblem p = simple_routing(static_cast<int32_t>(random.pick({8, 60, 128, 257})), 4, {});
    p.tokens = random.pick({1, 100, 3000});
    for (int64_t j = 0; j < p.tokens * p.n_experts; ++j) p.logits.push_back(random.normal());
    const RouteResult serial = route(test.backend, p);
    for (int threads : {0, 2, 5}) {
      test.backend.set_threads(threads);
      const RouteResult other = route(test.backend, p);
      test.backend.set_threads(1);
      expect_equal(other, serial, "one thread gives");
    }
  }
}

CONFORMANCE_TEST(fuzz_route) {
  on_problems(test, random_routing, 400, [&](RouteProblem p) {
    Random random(static_cast<uint64_t>(p.tokens * 1000 + p.n_experts));
    for (double &x : p.logits) x = decode(CHORUS_F32, random.bits() & 0xffffffffu);
    const RouteResult r = route(test.backend, p);
    for (int64_t t = 0; t < p.tokens; ++t) {
      std::vector<uint64_t> ids(r.ids.begin() + t * p.k, r.ids.begin() + (t + 1) * p.k);
      if (p.n_valid >= 0 && t >= p.n_valid) continue;
      std::sort(ids.begin(), ids.end());
      expect(std::adjacent_find(ids.begin(), ids.end()) == ids.end() &&
                 ids.back() < static_cast<uint64_t>(p.n_experts),
             "ids of token %lld are not distinct and in range", static_cast<long long>(t));
    }
    for (uint64_t w : r.weights) expect(!std::isnan(decode(p.weights_dtype, w)), "a weight is NaN");
    expect_equal(r, route_by_rules(p), "the rules give");
  });
}

}  // namespace conformance
