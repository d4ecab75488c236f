// SPDX-License-Identifier: Apache-2.0
// Auxiliary losses by their definitions, and every gradient by central differences of a forward pass of our own, in double.
#include <algorithm>
#include <cmath>

#include "unit/route/support.h"

using unit::Array;

namespace {

constexpr int64_t kTokens = 7;
constexpr int32_t kExperts = 6, kSlots = 3;

struct Setting {
  chorus_route_score score = CHORUS_ROUTE_SOFTMAX;
  chorus_route_order order = CHORUS_ROUTE_SCORE_THEN_TOPK;
  chorus_route_renormalise renormalise = CHORUS_ROUTE_RENORMALISE_NONE;
  double epsilon = 0, scale = 1, temperature = 1;
};

chorus::Router make_router(const Setting &s, const std::function<void(chorus_router_spec *)> &more = nullptr) {
  chorus::RouterSpec spec(kExperts, kSlots);
  spec.set_max_tokens(kTokens).set_score(s.score, s.order).set_weights(s.renormalise, s.epsilon, s.scale);
  cr_assert_eq(chorus_router_spec_set_temperature(spec.get(), s.temperature, nullptr), CHORUS_OK);
  if (more) more(spec.get());
  return chorus::Router(unit::plain_context(), spec, "reference");
}

using Row = std::vector<double>;

double score_of(chorus_route_score kind, double x) {
  if (kind == CHORUS_ROUTE_SIGMOID) return 1 / (1 + std::exp(-x));
  if (kind == CHORUS_ROUTE_SQRT_SOFTPLUS) return std::sqrt(std::log(1 + std::exp(x)));
  return kind == CHORUS_ROUTE_RELU ? std::max(x, 0.0) : x;
}

Row scores_of(chorus_route_score kind, const Row &x) {
  Row out(x.size());
  double sum = 0;
  for (size_t e = 0; e < x.size(); ++e) sum += std::exp(x[e]);
  for (size_t e = 0; e < x.size(); ++e) out[e] = kind == CHORUS_ROUTE_SOFTMAX ? std::exp(x[e]) / sum : score_of(kind, x[e]);
  return out;
}

// The weights of one token for fixed ids.
Row weights_of(const Setting &s, Row x, const int32_t *ids) {
  for (double &v : x) v /= s.temperature;
  Row w(kSlots);
  if (s.order == CHORUS_ROUTE_SCORE_THEN_TOPK) {
    const Row all = scores_of(s.score, x);
    for (int j = 0; j < kSlots; ++j) w[static_cast<size_t>(j)] = ids[j] < 0 ? 0 : all[static_cast<size_t>(ids[j])];
  } else {
    Row chosen;
    for (int j = 0; j < kSlots; ++j) chosen.push_back(x[static_cast<size_t>(ids[j])]);
    w = scores_of(s.score, chosen);
  }
  double sum = 0;
  for (const double v : w) sum += v;
  double divisor = 1;
  if (s.renormalise == CHORUS_ROUTE_RENORMALISE_SUM) divisor = sum + s.epsilon;
  if (s.renormalise == CHORUS_ROUTE_RENORMALISE_CLAMPED) divisor = std::max(sum, s.epsilon);
  for (double &v : w) v = v / divisor * s.scale;
  return w;
}

Row row_of(const std::vector<double> &all, int64_t t) {
  return {all.begin() + t * kExperts, all.begin() + (t + 1) * kExperts};
}

// The k best of each row, as a router without groups and bias has them.
std::vector<int32_t> best_of(const std::vector<double> &logits) {
  std::vector<int32_t> ids;
  for (int64_t t = 0; t < kTokens; ++t) {
    const Row x = row_of(logits, t);
    std::vector<int32_t> order(kExperts);
    for (int32_t e = 0; e < kExperts; ++e) order[static_cast<size_t>(e)] = e;
    std::stable_sort(order.begin(), order.end(),
                     [&](int32_t a, int32_t b) { return x[static_cast<size_t>(a)] > x[static_cast<size_t>(b)]; });
    ids.insert(ids.end(), order.begin(), order.begin() + kSlots);
  }
  return ids;
}

// Central differences of f at every element of x.
std::vector<double> differences(const std::function<double(const std::vector<double> &)> &f, std::vector<double> x) {
  std::vector<double> out;
  constexpr double kStep = 1e-5;
  for (double &v : x) {
    const double at = v;
    v = at + kStep;
    const double up = f(x);
    v = at - kStep;
    out.push_back((up - f(x)) / (2 * kStep));
    v = at;
  }
  return out;
}

void expect_close(const std::vector<double> &found, const std::vector<double> &wanted, const char *what) {
  for (size_t i = 0; i < wanted.size(); ++i) {
    cr_expect(std::fabs(found[i] - wanted[i]) <= 1e-8 * (1 + std::fabs(wanted[i])), "%s: element %zu is %.12g, not %.12g", what,
              i, found[i], wanted[i]);
  }
}

double loss_of(const chorus::Router &router, const std::vector<double> &logits, const chorus_route_loss_in &in,
               std::vector<double> *gradient = nullptr) {
  const Array<double> x({kTokens, kExperts}, logits);
  Array<double> g({kTokens, kExperts});
  double loss = -1;
  unit::Outcome outcome;
  cr_assert_eq(chorus_router_get_loss(router.get(), x.get(), &in, &loss, gradient != nullptr ? g.get() : nullptr, outcome.slot()),
               CHORUS_OK, "%s", outcome.text().c_str());
  if (gradient != nullptr) *gradient = g.data;
  return loss;
}

}  // namespace

Test(gradients, weights_by_finite_differences) {
  const auto logits = unit::normals(kTokens * kExperts, 1), slots = unit::normals(kTokens * kSlots, 2);
  std::vector<int32_t> ids = best_of(logits);
  for (const chorus_route_score score : {CHORUS_ROUTE_SOFTMAX, CHORUS_ROUTE_SIGMOID, CHORUS_ROUTE_SQRT_SOFTPLUS,
                                         CHORUS_ROUTE_IDENTITY, CHORUS_ROUTE_RELU}) {
    for (const chorus_route_order order : {CHORUS_ROUTE_SCORE_THEN_TOPK, CHORUS_ROUTE_TOPK_THEN_SCORE}) {
      for (const chorus_route_renormalise renormalise :
           {CHORUS_ROUTE_RENORMALISE_NONE, CHORUS_ROUTE_RENORMALISE_SUM, CHORUS_ROUTE_RENORMALISE_CLAMPED}) {
        const Setting s{score, order, renormalise, renormalise == CHORUS_ROUTE_RENORMALISE_CLAMPED ? 0.8 : 0.01, 2.5, 1.3};
        const chorus::Router router = make_router(s);
        const auto forward = [&](const std::vector<double> &x) {
          double sum = 0;
          for (int64_t t = 0; t < kTokens; ++t) {
            const Row w = weights_of(s, row_of(x, t), &ids[static_cast<size_t>(t * kSlots)]);
            for (int j = 0; j < kSlots; ++j) sum += w[static_cast<size_t>(j)] * slots[static_cast<size_t>(t * kSlots + j)];
          }
          return sum;
        };
        const Array<double> x({kTokens, kExperts}, logits), dw({kTokens, kSlots}, slots);
        const Array<int32_t> chosen({kTokens, kSlots}, ids);
        Array<double> dx({kTokens, kExperts});
        unit::Outcome outcome;
        cr_assert_eq(chorus_router_backward(router.get(), x.get(), chosen.get(), dw.get(), dx.get(), outcome.slot()), CHORUS_OK,
                     "%s", outcome.text().c_str());
        // Relu and the clamp have corners; a row whose sum is within a step of one would differ, none here is.
        expect_close(dx.data, differences(forward, logits), "weights");
      }
    }
  }
}

Test(gradients, slots_that_give_nothing) {
  const chorus::Router router = make_router({});
  std::vector<double> logits = unit::normals(kTokens * kExperts, 3);
  std::vector<int32_t> ids = best_of(logits);
  std::fill(ids.begin(), ids.begin() + kSlots, -1);                    // padding
  logits[kExperts + static_cast<size_t>(ids[kSlots])] = NAN;           // a NaN among the chosen
  for (int e = 0; e < 2; ++e) logits[2 * kExperts + static_cast<size_t>(e)] = HUGE_VAL;  // shared by infinities
  const Array<double> x({kTokens, kExperts}, logits), dw({kTokens, kSlots}, std::vector<double>(kTokens * kSlots, 1.0));
  const Array<int32_t> chosen({kTokens, kSlots}, ids);
  Array<double> dx({kTokens, kExperts});
  cr_assert_eq(chorus_router_backward(router.get(), x.get(), chosen.get(), dw.get(), dx.get(), nullptr), CHORUS_OK);
  for (size_t e = 0; e < kExperts; ++e) {
    cr_expect_eq(dx.data[e], 0, "padding");
    cr_expect(std::isfinite(dx.data[kExperts + e]), "NaN spreads");
    cr_expect_eq(dx.data[2 * kExperts + e], 0, "infinities");
  }
  cr_expect_eq(dx.data[kExperts + static_cast<size_t>(ids[kSlots])], 0);
}

Test(gradients, backward_refuses) {
  const Array<double> x({kTokens, kExperts}), dw({kTokens, kSlots});
  Array<int32_t> ids({kTokens, kSlots});
  Array<double> dx({kTokens, kExperts});
  unit::Outcome o;
  const auto backward = [&](const chorus::Router &router) {
    return chorus_router_backward(router.get(), x.get(), ids.get(), dw.get(), dx.get(), o.slot());
  };
  cr_expect_eq(chorus_router_backward(nullptr, x.get(), ids.get(), dw.get(), dx.get(), o.slot()), CHORUS_INVALID_ARGUMENT);
  const chorus::Router plain = make_router({});
  cr_expect_eq(chorus_router_backward(plain.get(), x.get(), ids.get(), dw.get(), x.get(), o.slot()), CHORUS_INVALID_ARGUMENT);
  cr_expect(unit::contains(o.text(), "logits_gradient overlaps logits"));
  ids.data[4] = kExperts;
  cr_expect_eq(backward(plain), CHORUS_INVALID_ARGUMENT);
  cr_expect(unit::contains(o.text(), "ids[1, 1] is 6"), "%s", o.text().c_str());
  ids.data[4] = -1;
  cr_expect_eq(backward(plain), CHORUS_OK);
  Setting summed;
  summed.renormalise = CHORUS_ROUTE_RENORMALISE_SUM;
  const chorus::Router dropping = make_router(summed, [](chorus_router_spec *spec) {
    chorus_router_spec_set_capacity(spec, CHORUS_ROUTE_DROP_BY_POSITION, 2, nullptr);
  });
  cr_expect_eq(backward(dropping), CHORUS_INVALID_ARGUMENT);
  cr_expect(unit::contains(o.text(), "before dropping"), "%s", o.text().c_str());
  const chorus::Router noisy =
      make_router({}, [](chorus_router_spec *spec) { chorus_router_spec_set_noise(spec, 0.5, nullptr); });
  cr_expect_eq(backward(noisy), CHORUS_UNIMPLEMENTED);
}

Test(losses, by_definition_and_finite_differences) {
  const auto logits = unit::normals(kTokens * kExperts, 4), noise = unit::normals(kTokens * kExperts, 5);
  constexpr double kNoise = 0.7, kCoefficient = 0.3;
  std::vector<double> noisy;
  for (size_t i = 0; i < logits.size(); ++i) noisy.push_back(logits[i] + kNoise * noise[i]);
  const Array<int32_t> ids({kTokens, kSlots}, best_of(logits));
  const Array<int64_t> sequences({4}, {0, 3, 3, kTokens});
  for (const chorus_route_score score : {CHORUS_ROUTE_SOFTMAX, CHORUS_ROUTE_SIGMOID, CHORUS_ROUTE_SQRT_SOFTPLUS}) {
    Setting setting;
    setting.score = score;
    setting.temperature = 1.5;
    const chorus::Router router = make_router(setting);
    // p of a token, normalised over the experts.
    const auto probabilities = [&](const std::vector<double> &x, int64_t t) {
      Row row = row_of(x, t);
      for (double &v : row) v /= setting.temperature;
      Row p = scores_of(score, row);
      double sum = 0;
      for (const double v : p) sum += v;
      for (double &v : p) v /= sum;
      return p;
    };
    const auto balance = [&](const std::vector<double> &x, int64_t begin, int64_t end, int slots, double divisor) {
      double loss = 0;
      const auto tokens = static_cast<double>(end - begin);
      for (int32_t e = 0; e < kExperts; ++e) {
        double count = 0, mass = 0;
        for (int64_t t = begin; t < end; ++t) {
          for (int j = 0; j < slots; ++j) count += ids.data[static_cast<size_t>(t * kSlots + j)] == e;
          mass += probabilities(x, t)[static_cast<size_t>(e)];
        }
        loss += kExperts * (count / (tokens * divisor)) * (mass / tokens);
      }
      return loss;
    };
    const auto variation = [](const Row &s) {
      double mean = 0, square = 0;
      for (const double v : s) mean += v / kExperts;
      for (const double v : s) square += (v - mean) * (v - mean) / kExperts;
      return square / (mean * mean);
    };
    const auto truth = [&](chorus_route_loss_kind kind, const std::vector<double> &x) {
      Row sums(kExperts);
      switch (kind) {
        case CHORUS_ROUTE_LOSS_SWITCH: return balance(x, 0, kTokens, kSlots, kSlots);
        case CHORUS_ROUTE_LOSS_HF: return balance(x, 0, kTokens, kSlots, 1);
        case CHORUS_ROUTE_LOSS_GSHARD: return balance(x, 0, kTokens, 1, 1);
        case CHORUS_ROUTE_LOSS_SEQUENCE: return (balance(x, 0, 3, kSlots, kSlots) + balance(x, 3, kTokens, kSlots, kSlots)) / 2;
        case CHORUS_ROUTE_LOSS_Z: {
          double sum = 0;
          for (int64_t t = 0; t < kTokens; ++t) {
            double mass = 0;
            for (const double v : row_of(x, t)) mass += std::exp(v);
            sum += std::log(mass) * std::log(mass);
          }
          return sum / kTokens;
        }
        case CHORUS_ROUTE_LOSS_IMPORTANCE:
          for (int64_t t = 0; t < kTokens; ++t) {
            for (size_t e = 0; e < kExperts; ++e) sums[e] += probabilities(x, t)[e];
          }
          return variation(sums);
        default:  // load: the noise stays what it was
          for (int64_t t = 0; t < kTokens; ++t) {
            const Row clean = row_of(x, t);
            Row with = clean;
            for (size_t e = 0; e < kExperts; ++e) with[e] += kNoise * noise[static_cast<size_t>(t) * kExperts + e];
            std::sort(with.rbegin(), with.rend());
            for (size_t e = 0; e < kExperts; ++e) {
              sums[e] += 0.5 * std::erfc((with[kSlots - 1] - clean[e]) / kNoise / std::sqrt(2.0)) / kTokens;
            }
          }
          return variation(sums);
      }
    };
    for (chorus_route_loss_kind kind = CHORUS_ROUTE_LOSS_SWITCH; kind <= CHORUS_ROUTE_LOSS_SEQUENCE; ++kind) {
      const Array<double> noisy_view({kTokens, kExperts}, noisy);
      chorus_route_loss_in in = CHORUS_ROUTE_LOSS_IN_INIT;
      in.kind = kind;
      in.coefficient = kCoefficient;
      const bool load = kind == CHORUS_ROUTE_LOSS_LOAD;
      if (!load && kind != CHORUS_ROUTE_LOSS_Z && kind != CHORUS_ROUTE_LOSS_IMPORTANCE) in.ids = ids.get();
      if (kind == CHORUS_ROUTE_LOSS_SEQUENCE) in.sequences = sequences.get();
      if (load) in.noisy_logits = noisy_view.get();
      if (load) in.noise = kNoise;
      std::vector<double> gradient;
      const double loss = loss_of(router, logits, in, &gradient);
      cr_expect_float_eq(loss, kCoefficient * truth(kind, logits), 1e-12, "kind %d: %g, not %g", kind, loss,
                         kCoefficient * truth(kind, logits));
      cr_expect_eq(loss, loss_of(router, logits, in), "kind %d: the loss depends on the gradient being asked for", kind);
      const auto wanted = differences([&](const std::vector<double> &x) { return kCoefficient * truth(kind, x); }, logits);
      expect_close(gradient, wanted, ("kind " + std::to_string(kind)).c_str());
    }
  }
}

Test(losses, padding_counts_nowhere) {
  const chorus::Router router = make_router({});
  auto logits = unit::normals(kTokens * kExperts, 6);
  Array<int32_t> ids({kTokens, kSlots}, best_of(logits));
  const Array<int64_t> valid({1}, {4}), none({1}, {-3});
  chorus_route_loss_in in = CHORUS_ROUTE_LOSS_IN_INIT;
  in.coefficient = 1;
  in.ids = ids.get();
  in.n_valid = valid.get();
  std::vector<double> gradient;
  const double loss = loss_of(router, logits, in, &gradient);
  for (size_t i = 4 * kExperts; i < logits.size(); ++i) {
    cr_expect_eq(gradient[i], 0);
    logits[i] = NAN;
  }
  std::fill(ids.data.begin() + 4 * kSlots, ids.data.end(), -1);
  cr_expect_eq(loss_of(router, logits, in), loss);
  in.n_valid = none.get();
  cr_expect_eq(loss_of(router, logits, in), 0);
}

Test(losses, refuse) {
  const chorus::Router router = make_router({});
  const Array<double> x({kTokens, kExperts});
  const Array<int32_t> ids({kTokens, kSlots});
  const Array<int64_t> backward_order({3}, {0, 5, 4}), short_of({2}, {0, 3});
  double loss = 0;
  unit::Outcome o;
  chorus_route_loss_in in = CHORUS_ROUTE_LOSS_IN_INIT;
  in.coefficient = 1;
  const auto expect = [&](const char *words, chorus_status status = CHORUS_INVALID_ARGUMENT) {
    cr_expect_eq(chorus_router_get_loss(router.get(), x.get(), &in, &loss, nullptr, o.slot()), status);
    cr_expect(unit::contains(o.text(), words), "%s", o.text().c_str());
  };
  expect("ids is NULL");
  in.ids = ids.get();
  in.kind = CHORUS_ROUTE_LOSS_Z;
  expect("ids is given");
  in.kind = 9;
  expect("kind is 9");
  in.kind = CHORUS_ROUTE_LOSS_SEQUENCE;
  expect("sequences is NULL");
  in.sequences = backward_order.get();
  expect("sequences");
  in.sequences = short_of.get();
  expect("sequences must ascend from 0 to the 7 rows");
  in.sequences = nullptr;
  in.kind = CHORUS_ROUTE_LOSS_SWITCH;
  in.coefficient = NAN;
  expect("coefficient");
  in.coefficient = 1;
  cr_expect_eq(chorus_router_get_loss(router.get(), x.get(), nullptr, &loss, nullptr, o.slot()), CHORUS_INVALID_ARGUMENT);
  cr_expect_eq(chorus_router_get_loss(router.get(), x.get(), &in, nullptr, nullptr, o.slot()), CHORUS_INVALID_ARGUMENT);
  cr_expect_eq(chorus_router_get_loss(nullptr, x.get(), &in, &loss, nullptr, o.slot()), CHORUS_INVALID_ARGUMENT);
  Setting relu;
  relu.score = CHORUS_ROUTE_RELU;
  const chorus::Router positive = make_router(relu);
  cr_expect_eq(chorus_router_get_loss(positive.get(), x.get(), &in, &loss, nullptr, o.slot()), CHORUS_UNIMPLEMENTED);
}
