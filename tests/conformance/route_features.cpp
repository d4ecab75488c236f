// SPDX-License-Identifier: Apache-2.0
// route.topk beyond the plain router: who chooses, noise, capacity, tables, given ids and the lists on request. Every bit by
// the rules, each rule once by hand, and the random choices by their frequencies.
#include <cmath>

#include "conformance/check.h"
#include "conformance/combine_problem.h"
#include "conformance/route_problem.h"

namespace conformance {
namespace {

using Bits = std::vector<uint64_t>;
constexpr uint64_t kNone = 0xffffffffu;

std::vector<double> decoded(const Bits &bits, chorus_dtype dtype = CHORUS_F32) {
  std::vector<double> out;
  for (uint64_t b : bits) out.push_back(decode(dtype, b));
  return out;
}

// `tokens` equal rows of logits.
RouteProblem repeated(int32_t k, const std::vector<double> &row, int64_t tokens) {
  std::vector<double> logits;
  for (int64_t t = 0; t < tokens; ++t) logits.insert(logits.end(), row.begin(), row.end());
  return simple_routing(static_cast<int32_t>(row.size()), k, logits);
}

// Five standard deviations of a share that is `p` in truth.
void expect_share(const char *what, int64_t hits, int64_t of, double p) {
  const double share = static_cast<double>(hits) / static_cast<double>(of);
  const double room = 5 * std::sqrt(p * (1 - p) / static_cast<double>(of));
  expect(std::fabs(share - p) <= room, "%s: %g of the draws, not %g", what, share, p);
}

}  // namespace

CONFORMANCE_TEST(route_features_by_the_rules) {
  on_problems(test, random_features, 1500, [&](const RouteProblem &p) {
    expect_equal(route(test.backend, p), route_by_rules(p), "the rules give");
  });
}

CONFORMANCE_TEST(route_features_equal_reference) {
  if (!test.has_peer()) skip("the reference itself");
  on_problems(test, random_features, 300, [&](const RouteProblem &p) {
    expect_equal(route(test.backend, p), route(test.reference, p), "the reference gives");
  });
}

CONFORMANCE_TEST(route_features_by_public_abi) {
  const PublicAbi abi(test.backend);
  on_problems(test, random_features, 300, [&](const RouteProblem &p) {
    expect_equal(route(abi, p), route_by_rules(p), "the rules give");
  });
}

CONFORMANCE_TEST(route_given_ids_and_tables) {
  RouteProblem p = simple_routing(4, 3, {0, 0, 0, 0, 0, 0, 0, 0});
  p.selection = CHORUS_ROUTE_GIVEN;
  p.given_ids = {3, 1, 3, 4, -1, 0};
  const RouteResult given = route(test.backend, p);
  expect(given.ids == Bits{3, 1, kNone, kNone, kNone, 0}, "a repeated id and ids out of range are no experts");
  expect(decoded(given.weights) == std::vector<double>{0.25, 0.25, 0, 0, 0, 0.25}, "given ids are weighed by their scores");
  p.given_ids.clear();
  p.selection = CHORUS_ROUTE_HASH_TABLE;
  p.hash_table = {0, 1, 2, 3, 2, 1};
  p.token_ids = {1, 2};
  expect(route(test.backend, p).ids == Bits{3, 2, 1, kNone, kNone, kNone}, "a token beyond the table has no experts");
}

CONFORMANCE_TEST(route_positive_alone) {
  RouteProblem p = simple_routing(4, 3, {-1, 2, 0, 1, -1, -2, -3, kNaN});
  p.selection = CHORUS_ROUTE_POSITIVE;
  p.score = CHORUS_ROUTE_RELU;
  const RouteResult r = route(test.backend, p);
  expect(r.ids == Bits{1, 3, kNone, kNone, kNone, kNone}, "only positive scores are experts");
  expect(decoded(r.weights) == std::vector<double>{2, 1, 0, 0, 0, 0}, "the scores are the weights");
}

CONFORMANCE_TEST(route_drops) {
  // Three tokens whose first choice is expert 1; the second choices are experts 0, 0 and 2.
  RouteProblem p = simple_routing(3, 2, {1, 2, 0, 2, 3, 0, 1, 9, 2});
  p.capacity = 1;
  const auto ids = [&](chorus_route_drop drop) {
    p.drop = drop;
    return route(test.backend, p).ids;
  };
  expect(ids(CHORUS_ROUTE_DROP_BY_POSITION) == Bits{1, 0, kNone, kNone, kNone, 2}, "by position");
  expect(ids(CHORUS_ROUTE_DROP_BY_CHOICE) == Bits{1, 0, kNone, kNone, kNone, 2}, "by choice");
  expect(ids(CHORUS_ROUTE_DROP_BY_PRIORITY) == Bits{kNone, kNone, kNone, 0, 1, 2}, "by priority");
  expect(ids(CHORUS_ROUTE_DROP_BY_SCORE) == Bits{kNone, kNone, kNone, 0, 1, 2}, "by score");
  p.renormalise = CHORUS_ROUTE_RENORMALISE_SUM;
  p.renormalise_last = 1;
  expect(decoded(route(test.backend, p).weights)[3] == 1, "renormalised over what is left");
}

CONFORMANCE_TEST(route_experts_choose) {
  RouteProblem p = simple_routing(2, 2, {3, 0, 2, 1, 1, 2, 9, 9});
  p.selection = CHORUS_ROUTE_EXPERTS_CHOOSE;
  p.score = CHORUS_ROUTE_IDENTITY;
  p.capacity = 2;
  p.n_valid = 3;
  p.outputs = CHORUS_ROUTE_OUT_EXPERT_LISTS;
  const RouteResult r = route(test.backend, p);
  expect(r.expert_tokens == Bits{0, 1, 2, 1}, "each expert takes its best tokens, never padding");
  expect(decoded(r.expert_weights) == std::vector<double>{3, 2, 2, 1}, "with their scores");
  expect(r.ids == Bits{0, kNone, 0, 1, 1, kNone, kNone, kNone}, "a token has the experts that chose it");
}

CONFORMANCE_TEST(route_random_choices) {
  const int64_t tokens = 4000;
  RouteProblem p = repeated(2, {std::log(6.0), std::log(3.0), 0}, tokens);  // probabilities 0.6, 0.3, 0.1
  p.renormalise = CHORUS_ROUTE_RENORMALISE_SUM;
  p.seed = test.seed;
  const auto seconds = [&](uint64_t id) {
    const RouteResult r = route(test.backend, p);
    int64_t count = 0;
    for (size_t t = 0; t < static_cast<size_t>(tokens); ++t) count += r.ids[2 * t + 1] == id;
    return count;
  };
  p.selection = CHORUS_ROUTE_RANDOM_SECOND;
  expect_share("2 g2 = 2/3", seconds(1), tokens, 2.0 / 3);
  p.selection = CHORUS_ROUTE_RANDOM_SECOND_RAW;
  expect_share("2 p2 = 0.6", seconds(1), tokens, 0.6);
  p.selection = CHORUS_ROUTE_GUMBEL_SECOND;
  expect_share("p2 / (1 - p1) = 3/4", seconds(1), tokens, 0.75);
}

CONFORMANCE_TEST(route_noise_is_normal_and_keyed_by_row) {
  RouteProblem p = repeated(1, {0, 0}, 4000);
  p.noise = 2;
  p.score = CHORUS_ROUTE_IDENTITY;
  p.seed = test.seed;
  p.outputs = CHORUS_ROUTE_OUT_SCORE_SUMS;
  const RouteResult r = route(test.backend, p);
  double sum = 0, squares = 0;
  for (double w : decoded(r.weights)) {  // the larger of two normals: mean 1/sqrt(pi), mean square 1
    sum += w / 2;
    squares += w * w / 4;
  }
  expect(std::fabs(sum / 4000 - 0.5641895835) < 0.07, "mean of the larger of two normals: %g", sum / 4000);
  expect(std::fabs(squares / 4000 - 1) < 0.12, "mean square of a normal: %g", squares / 4000);
  RouteProblem moved = repeated(1, {0, 0}, 1);
  moved.noise = 2;
  moved.score = CHORUS_ROUTE_IDENTITY;
  moved.seed = test.seed;
  moved.row_ids = {1234};
  expect(route(test.backend, moved).weights[0] == r.weights[1234], "the row id names the noise, not the place");
}

}  // namespace conformance
