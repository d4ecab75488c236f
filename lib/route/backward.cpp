// SPDX-License-Identifier: Apache-2.0
// The chain back from the weights of a token: scale, renormalisation, score, temperature. One token at a time, f64, one
// rounding; O(T E).
#include "route/backward.h"

#include <algorithm>
#include <cmath>

#include "chorus/plugin.hpp"
#include "route/probabilities.h"
#include "runtime/device.h"
#include "runtime/error.h"

namespace chorus::route {
namespace {

using Row = std::vector<double>;

// Whether weights were renormalised over slots that were dropped afterwards.
bool drops_after_renormalising(const chorus_route_desc &d) {
  const bool random = d.selection == CHORUS_ROUTE_RANDOM_SECOND || d.selection == CHORUS_ROUTE_RANDOM_SECOND_RAW;
  const bool dropping = d.drop != CHORUS_ROUTE_DROP_NONE && d.renormalise_last == 0;
  return d.renormalise != CHORUS_ROUTE_RENORMALISE_NONE && (dropping || random);
}

// gradient of w / divisor(w), in place. Infinite weights share 1 whatever they are.
void renormalise_backward(const chorus_route_desc &d, const Row &w, Row *gradient) {
  if (d.renormalise == CHORUS_ROUTE_RENORMALISE_NONE) return;
  double sum = 0;
  for (const double v : w) sum += v;
  const bool clamped = d.renormalise == CHORUS_ROUTE_RENORMALISE_CLAMPED && sum < d.epsilon;
  const double divisor = clamped                                              ? d.epsilon
                         : d.renormalise == CHORUS_ROUTE_RENORMALISE_SUM ? sum + d.epsilon
                                                                              : sum;
  double mean = 0;
  for (size_t j = 0; j < w.size(); ++j) mean += clamped ? 0.0 : (*gradient)[j] * (w[j] / divisor);
  const bool constant = divisor == 0 || !std::isfinite(divisor);
  for (double &g : *gradient) g = constant ? 0.0 : (g - mean) / divisor;
}

// -1 among others is refused where the dropped slots had a share in the weights of the kept; a row of -1 alone has no weights.
void check_ids(const chorus_route_desc &d, const chorus_tensor &ids, int64_t tokens) {
  const bool needs_all = drops_after_renormalising(d);
  for (int64_t t = 0; t < tokens; ++t) {
    int32_t missing = 0;
    for (int32_t j = 0; j < d.k; ++j) {
      const int64_t id = plugin::integer_at(d.ids_dtype, plugin::row_of(ids, t), j);
      if (id < -1 || id >= d.n_experts) {
        fail(CHORUS_INVALID_ARGUMENT, "ids[{}, {}] is {}; -1 to {} are allowed", t, j, id, d.n_experts - 1);
      }
      missing += id < 0;
    }
    if (needs_all && missing > 0 && missing < d.k) {
      fail(CHORUS_INVALID_ARGUMENT,
           "ids: row {} has {} slots of -1; this router drops slots after it renormalised: give the experts chosen before "
           "dropping", t, missing);
    }
  }
}

struct Token {
  const chorus_route_desc &desc;
  Row x, scores, wide;             // [E]: logits over the temperature, their scores, the gradient
  Row chosen, values, weights, slots;  // [k]: chosen logits, their scores, weights before renormalising, the gradient
  std::vector<int64_t> ids;

  explicit Token(const chorus_route_desc &d)
      : desc(d), x(static_cast<size_t>(d.n_experts)), scores(x.size()), wide(x.size()), chosen(static_cast<size_t>(d.k)),
        values(chosen.size()), weights(chosen.size()), slots(chosen.size()), ids(chosen.size()) {}

  // `slots` (gradient of the weights) becomes `wide` (gradient of the logits).
  void backward() {
    const bool first = desc.order == CHORUS_ROUTE_SCORE_THEN_TOPK;
    for (size_t j = 0; j < ids.size(); ++j) chosen[j] = ids[j] >= 0 ? x[static_cast<size_t>(ids[j])] : NAN;
    if (first) {
      score(desc.score, x, &scores);
      for (size_t j = 0; j < ids.size(); ++j) values[j] = ids[j] >= 0 ? scores[static_cast<size_t>(ids[j])] : 0.0;
    } else {
      score(desc.score, chosen, &values);
    }
    for (size_t j = 0; j < ids.size(); ++j) {
      const bool counts = ids[j] >= 0 && !std::isnan(chosen[j]);
      weights[j] = counts ? values[j] : 0.0;
      slots[j] = counts ? slots[j] * desc.scale : 0.0;
    }
    renormalise_backward(desc, weights, &slots);
    for (size_t j = 0; j < ids.size(); ++j) {
      if (ids[j] < 0 || std::isnan(chosen[j])) slots[j] = 0;
    }
    std::fill(wide.begin(), wide.end(), 0.0);
    if (!first) score_backward(desc.score, chosen, values, &slots);
    for (size_t j = 0; j < ids.size(); ++j) {
      if (ids[j] >= 0) wide[static_cast<size_t>(ids[j])] += slots[j];
    }
    if (first) score_backward(desc.score, x, scores, &wide);
    for (double &g : wide) g /= desc.temperature;
  }
};

}  // namespace

void check_host_router(const Router &router) {
  if (!is_host_memory(router.device())) {
    fail(CHORUS_UNIMPLEMENTED, "the router is on '{}', whose memory the host cannot read; gradients and losses run on the host: "
         "make one on 'cpu' or 'reference'", router.device().name());
  }
}

void router_backward(const Router &router, const chorus_tensor *logits, const chorus_tensor *ids,
                     const chorus_tensor *weights_gradient, const chorus_tensor *logits_gradient) {
  check_host_router(router);
  const chorus_route_desc &d = router.desc();
  const Device &device = router.device();
  check_tensor(logits, {"logits", {d.logits_dtype, CHORUS_F64}, {kAnySize, d.n_experts}}, device);
  const int64_t tokens = logits->shape[0];
  check_tensor(ids, {"ids", {d.ids_dtype}, {tokens, d.k}}, device);
  check_tensor(weights_gradient, {"weights_gradient", {CHORUS_F32, CHORUS_F64}, {tokens, d.k}}, device);
  check_tensor(logits_gradient, {"logits_gradient", {CHORUS_F32, CHORUS_F64}, {tokens, d.n_experts}, true}, device);
  check_no_overlap(*logits_gradient, "logits_gradient", *logits, "logits");
  check_no_overlap(*logits_gradient, "logits_gradient", *ids, "ids");
  check_no_overlap(*logits_gradient, "logits_gradient", *weights_gradient, "weights_gradient");
  if (d.noise != 0) {
    fail(CHORUS_UNIMPLEMENTED, "the router adds noise ({}); give the noisy logits to a router without", d.noise);
  }
  check_ids(d, *ids, tokens);
  Token token(d);
  for (int64_t t = 0; t < tokens; ++t) {
    read_row(*logits, t, &token.x);
    for (double &x : token.x) x /= d.temperature;
    read_row(*weights_gradient, t, &token.slots);
    const void *row = plugin::row_of(*ids, t);
    for (int32_t j = 0; j < d.k; ++j) token.ids[static_cast<size_t>(j)] = plugin::integer_at(d.ids_dtype, row, j);
    token.backward();
    write_row(*logits_gradient, t, token.wide);
  }
}

}  // namespace chorus::route
