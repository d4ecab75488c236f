// SPDX-License-Identifier: Apache-2.0
// Whole-batch routing against its definitions: Sinkhorn's marginals and its loop, the balanced optimum by trying all, soft slots,
// quantiles that fill experts alike, cosines; and what is refused.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "unit/route/support.h"

using unit::Array;

namespace {

const chorus_context *context() { return unit::plain_context().get(); }

// The best total of any assignment with at most `room` tokens per expert, by trying all.
double best_total(const std::vector<double> &scores, int64_t tokens, int64_t experts, int64_t room, int64_t t, std::vector<int64_t> &used) {
  if (t == tokens) return 0;
  double best = -1e300;
  for (int64_t e = 0; e < experts; ++e) {
    auto &count = used[static_cast<size_t>(e)];
    if (count == room) continue;
    ++count;
    best = std::max(best, scores[static_cast<size_t>(t * experts + e)] + best_total(scores, tokens, experts, room, t + 1, used));
    --count;
  }
  return best;
}

}  // namespace

Test(assign, sinkhorn) {
  constexpr int64_t kTokens = 12, kExperts = 4;
  const auto values = unit::normals(kTokens * kExperts, 1);
  const Array<double> logits({kTokens, kExperts}, values);
  const Array<double> plan({kTokens, kExperts});
  const Array<int32_t> ids({kTokens, 2});
  int32_t rounds = 0;
  cr_assert_eq(chorus_route_sinkhorn(context(), logits.get(), 1e-4, 1000, plan.get(), ids.get(), &rounds, nullptr), CHORUS_OK);
  // The loop as Megatron-LM writes it.
  std::vector<double> d0(kTokens, 1), d1(kExperts, 1), cost;
  for (const double v : values) cost.push_back(std::exp(v));
  int32_t wanted = 0;
  for (double error = 1e9; error > 1e-4; ++wanted) {
    for (size_t t = 0; t < kTokens; ++t) {
      double sum = 0;
      for (size_t e = 0; e < kExperts; ++e) sum += d1[e] * cost[t * kExperts + e];
      d0[t] = 1.0 / kTokens / (sum + 1e-8);
    }
    error = 0;
    for (size_t e = 0; e < kExperts; ++e) {
      double sum = 0;
      for (size_t t = 0; t < kTokens; ++t) sum += d0[t] * cost[t * kExperts + e];
      const double next = 1.0 / kExperts / (sum + 1e-8);
      error += std::fabs(d1[e] - next) / kExperts;
      d1[e] = next;
    }
  }
  cr_expect_eq(rounds, wanted);
  for (size_t t = 0; t < kTokens; ++t) {
    for (size_t e = 0; e < kExperts; ++e) {
      cr_expect_float_eq(plan.data[t * kExperts + e], d1[e] * cost[t * kExperts + e] * d0[t], 1e-15);
      if (static_cast<int32_t>(e) != ids.data[2 * t])
        cr_expect_leq(plan.data[t * kExperts + e], plan.data[t * kExperts + static_cast<size_t>(ids.data[2 * t])]);
    }
  }
  const Array<double> huge({2, 2}, {1000, 0, 0, 1000});
  const Array<double> finite({2, 2});
  cr_assert_eq(chorus_route_sinkhorn(context(), huge.get(), 1e-4, 10, finite.get(), nullptr, nullptr, nullptr), CHORUS_OK);
  for (const double v : finite.data) cr_expect(std::isfinite(v));
}

Test(assign, balance_is_the_optimum) {
  for (unsigned seed = 1; seed <= 40; ++seed) {
    const int64_t tokens = 1 + seed % 8, experts = 1 + seed % 4, least = (tokens + experts - 1) / experts;
    auto values = unit::normals(static_cast<size_t>(tokens * experts), seed);
    if (seed % 5 == 0) std::transform(values.begin(), values.end(), values.begin(), [](double v) { return std::round(v); });
    const int64_t capacity = seed % 3 == 0 ? 0 : least + seed % 2;
    const Array<double> logits({tokens, experts}, values);
    const Array<int32_t> ids({tokens});
    double total = 0;
    cr_assert_eq(chorus_route_balance(context(), logits.get(), capacity, ids.get(), &total, nullptr), CHORUS_OK);
    std::vector<int64_t> used(static_cast<size_t>(experts));
    double sum = 0;
    for (int64_t t = 0; t < tokens; ++t) {
      const int32_t e = ids.data[static_cast<size_t>(t)];
      cr_assert(e >= 0 && e < experts);
      ++used[static_cast<size_t>(e)];
      sum += values[static_cast<size_t>(t * experts + e)];
    }
    const int64_t room = capacity == 0 ? least : capacity;
    for (const int64_t count : used) cr_expect_leq(count, room);
    std::vector<int64_t> none(static_cast<size_t>(experts));
    cr_expect_float_eq(sum, best_total(values, tokens, experts, room, 0, none), 1e-9, "seed %u", seed);
    cr_expect_float_eq(sum, total, 1e-12);
  }
}

Test(assign, soft) {
  const Array<float> logits({3, 2}, {1, 2, 3, -1, 0, 5});
  const Array<double> dispatch({3, 2}), combine({3, 2});
  cr_assert_eq(chorus_route_soft(context(), logits.get(), dispatch.get(), combine.get(), nullptr), CHORUS_OK);
  for (size_t s = 0; s < 2; ++s) cr_expect_float_eq(dispatch.data[s] + dispatch.data[2 + s] + dispatch.data[4 + s], 1, 1e-12);
  for (size_t t = 0; t < 3; ++t) cr_expect_float_eq(combine.data[2 * t] + combine.data[2 * t + 1], 1, 1e-12);
  cr_expect_float_eq(dispatch.data[0] / dispatch.data[2], std::exp(-2), 1e-12);
  cr_expect_float_eq(combine.data[0] / combine.data[1], std::exp(-1), 1e-12);
}

// Repeated, the update evens the loads out.
Test(assign, quantile_bias_balances) {
  constexpr int64_t kTokens = 240, kExperts = 6;
  constexpr int32_t kSlots = 2;
  auto values = unit::normals(kTokens * kExperts, 3);
  for (size_t i = 0; i < values.size(); ++i) values[i] += i % kExperts == 0 ? 2.0 : 0.0;  // everybody's favourite
  const Array<double> scores({kTokens, kExperts}, values);
  const Array<float> bias({kExperts});
  const auto busiest = [&] {
    std::vector<int> counts(kExperts);
    for (size_t t = 0; t < kTokens; ++t) {
      std::vector<size_t> order(kExperts);
      std::iota(order.begin(), order.end(), size_t{0});
      std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
        return values[t * kExperts + a] + bias.data[a] > values[t * kExperts + b] + bias.data[b];
      });
      for (int j = 0; j < kSlots; ++j) ++counts[order[static_cast<size_t>(j)]];
    }
    return *std::max_element(counts.begin(), counts.end());
  };
  const int before = busiest();
  for (int i = 0; i < 30; ++i) {
    cr_assert_eq(chorus_route_update_quantile_bias(context(), scores.get(), kSlots, bias.get(), nullptr), CHORUS_OK);
  }
  cr_expect_lt(busiest(), before / 2 + 1, "%d, then %d", before, busiest());
  cr_expect_leq(busiest(), kTokens * kSlots / kExperts + 8);
}

Test(assign, cosine_gate) {
  const Array<float> x({2, 2}, {3, 4, 0, 0}), centroids({2, 2}, {1, 0, 0, -2});
  const Array<double> logits({2, 2});
  cr_assert_eq(chorus_route_cosine_gate(context(), x.get(), centroids.get(), std::log(2.0), logits.get(), nullptr), CHORUS_OK);
  cr_expect_float_eq(logits.data[0], 1.2, 1e-12);
  cr_expect_float_eq(logits.data[1], -1.6, 1e-12);
  cr_expect_eq(logits.data[2], 0);
  cr_assert_eq(chorus_route_cosine_gate(context(), x.get(), centroids.get(), 50, logits.get(), nullptr), CHORUS_OK);
  cr_expect_float_eq(logits.data[0], 60, 1e-10);
}

Test(assign, refuses) {
  const Array<double> logits({4, 2}), bad({1, 2}, {0, NAN}), plan({4, 3});
  const Array<int32_t> ids({4}), wide({4, 3});
  const Array<float> bias({2});
  unit::Outcome o;
  const auto expect = [&](chorus_status status, const char *words) {
    cr_expect_eq(status, CHORUS_INVALID_ARGUMENT);
    cr_expect(unit::contains(o.text(), words), "%s", o.text().c_str());
  };
  expect(chorus_route_sinkhorn(context(), nullptr, 0, 1, nullptr, nullptr, nullptr, o.slot()), "logits is NULL");
  expect(chorus_route_sinkhorn(context(), bad.get(), 0, 1, nullptr, nullptr, nullptr, o.slot()), "logits[0, 1] is nan");
  expect(chorus_route_sinkhorn(context(), logits.get(), -1, 1, nullptr, nullptr, nullptr, o.slot()), "tolerance is -1");
  expect(chorus_route_sinkhorn(context(), logits.get(), 0, 0, nullptr, nullptr, nullptr, o.slot()), "max_rounds is 0");
  expect(chorus_route_sinkhorn(context(), logits.get(), 0, 1, plan.get(), nullptr, nullptr, o.slot()), "plan: shape");
  expect(chorus_route_sinkhorn(context(), logits.get(), 0, 1, nullptr, wide.get(), nullptr, o.slot()), "ids has 3 columns");
  expect(chorus_route_balance(context(), logits.get(), 1, ids.get(), nullptr, o.slot()), "capacity is 1");
  expect(chorus_route_balance(context(), logits.get(), 0, nullptr, nullptr, o.slot()), "ids is NULL");
  expect(chorus_route_soft(context(), logits.get(), logits.get(), nullptr, o.slot()), "dispatch overlaps logits");
  expect(chorus_route_update_quantile_bias(context(), logits.get(), 3, bias.get(), o.slot()), "k is 3");
  expect(chorus_route_cosine_gate(context(), logits.get(), plan.get(), 0, logits.get(), o.slot()), "centroids: shape");
  expect(chorus_route_cosine_gate(context(), logits.get(), logits.get(), 0, nullptr, o.slot()), "logits is NULL");
  cr_expect_eq(chorus_route_soft(nullptr, logits.get(), nullptr, nullptr, o.slot()), CHORUS_INVALID_ARGUMENT);
}
