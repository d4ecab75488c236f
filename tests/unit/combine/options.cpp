// SPDX-License-Identifier: Apache-2.0
// Setters of combine_options.h: what each refuses, naming the argument; and what only creation and calls can see.
#include "chorus/combine_options.h"

#include <criterion/criterion.h>

#include <cmath>
#include <functional>
#include <vector>

#include "unit/combine/support.h"

namespace {

using namespace unit;
using Call = std::function<chorus_status(chorus_combiner_spec *, chorus_error **)>;

chorus::CombinerSpec two_models(int64_t n = 4) {
  chorus::CombinerSpec spec;
  for (int i = 0; i < 2; ++i) spec.add_model(CHORUS_SCORES_LOGITS, CHORUS_F32, n, n, 1);
  return spec;
}

void expect_refused(const Call &call, const char *text) {
  const chorus::CombinerSpec spec = two_models();
  Outcome outcome;
  cr_expect_eq(call(spec.get(), outcome.slot()), CHORUS_INVALID_ARGUMENT, "%s", text);
  cr_expect(contains(outcome.text(), text), "'%s' does not say %s", outcome.text().c_str(), text);
  Outcome none;
  cr_expect_eq(call(nullptr, none.slot()), CHORUS_INVALID_ARGUMENT);
}

void expect_not_created(chorus::CombinerSpec spec, const char *text) {
  Outcome outcome;
  chorus_combiner *combiner = nullptr;
  cr_expect_eq(chorus_combiner_create(context().get(), spec.get(), "reference", &combiner, outcome.slot()), CHORUS_INVALID_ARGUMENT);
  cr_expect(contains(outcome.text(), text), "'%s' does not say %s", outcome.text().c_str(), text);
}

}  // namespace

Test(options, refuse) {
  expect_refused([](auto *s, auto **e) { return chorus_combiner_spec_set_order(s, NAN, e); }, "order is NaN");
  expect_refused([](auto *s, auto **e) { return chorus_combiner_spec_set_trim(s, -1, e); }, "trim is -1");
  expect_refused([](auto *s, auto **e) { return chorus_combiner_spec_set_vote_size(s, 0, e); }, "k is 0");
  expect_refused([](auto *s, auto **e) { return chorus_combiner_spec_set_base_model(s, 2, e); }, "the spec has 2 models");
  expect_refused([](auto *s, auto **e) { return chorus_combiner_spec_set_neighbours(s, 7, 1, e); }, "kind is 7");
  expect_refused([](auto *s, auto **e) { return chorus_combiner_spec_set_neighbours(s, 0, INFINITY, e); }, "weight is inf");
  expect_refused([](auto *s, auto **e) { return chorus_combiner_spec_set_model_filter(s, 2, 0, 0, 0, e); }, "model is 2");
  expect_refused([](auto *s, auto **e) { return chorus_combiner_spec_set_model_filter(s, 0, -1, 0, 0, e); }, "top_k is -1");
  expect_refused([](auto *s, auto **e) { return chorus_combiner_spec_set_model_filter(s, 0, 0, 1.5, 0, e); }, "top_p is 1.5");
  expect_refused([](auto *s, auto **e) { return chorus_combiner_spec_set_model_filter(s, 0, 0, 0, -0.1, e); }, "plausibility is -0.1");
  expect_refused([](auto *s, auto **e) { return chorus_combiner_spec_set_model_bias(s, -1, 1, e); }, "model is -1");
  expect_refused([](auto *s, auto **e) { return chorus_combiner_spec_set_model_mask(s, 9, 1, e); }, "model is 9");
  expect_refused([](auto *s, auto **e) { return chorus_combiner_spec_set_model_map(s, 0, nullptr, e); }, "map");
  expect_refused([](auto *s, auto **e) { return chorus_combiner_spec_set_model_missing(s, 0, 6, 0, 0, e); }, "policy is 6");
  expect_refused([](auto *s, auto **e) { return chorus_combiner_spec_set_model_missing(s, 0, CHORUS_MISSING_UNKNOWN, 4, 0, e); },
                 "unknown_id is 4");
  expect_refused([](auto *s, auto **e) { return chorus_combiner_spec_set_model_missing(s, 0, CHORUS_MISSING_FLOOR, 0, 1, e); },
                 "log_prob is 1");
  expect_refused([](auto *s, auto **e) { return chorus_combiner_spec_set_model_fingerprint(s, 3, 1, 2, e); }, "model is 3");
  expect_refused([](auto *s, auto **e) { return chorus_combiner_spec_set_temperature(s, -1, e); }, "temperature is -1");
  expect_refused([](auto *s, auto **e) { return chorus_combiner_spec_set_top_k(s, -2, e); }, "k is -2");
  expect_refused([](auto *s, auto **e) { return chorus_combiner_spec_set_top_p(s, 2, e); }, "p is 2");
  expect_refused([](auto *s, auto **e) { return chorus_combiner_spec_set_min_p(s, NAN, e); }, "p is nan");
  expect_refused([](auto *s, auto **e) { return chorus_combiner_spec_set_typical_p(s, -1, e); }, "p is -1");
  expect_refused([](auto *s, auto **e) { return chorus_combiner_spec_set_top_size(s, 0, e); }, "n_top is 0");
  cr_expect_eq(chorus_combiner_spec_set_penalties(nullptr, 1, nullptr), CHORUS_INVALID_ARGUMENT);
}

Test(options, maps_that_are_wrong) {
  const int64_t falls[] = {0, 2, 1}, late[] = {1, 1, 1}, good[] = {0, 1, 2};
  const int32_t ids[] = {0, 9}, fine[] = {0, 1};
  const float values[] = {1, -1};
  const auto map = [](const int64_t *offsets, const int32_t *list, const float *factors, int64_t n = 2) {
    return [=](auto *s, auto **e) { return chorus_combiner_spec_set_model_map_arrays(s, 0, n, offsets, list, factors, e); };
  };
  expect_refused(map(falls, fine, nullptr), "falls from 2 to 1");
  expect_refused(map(late, fine, nullptr), "begins with 1");
  expect_refused(map(good, ids, nullptr), "names token 9");
  expect_refused(map(good, fine, values), "values has -1");
  expect_refused(map(good, nullptr, nullptr), "ids");
  expect_refused(map(nullptr, fine, nullptr), "offsets");
  expect_refused(map(good, fine, nullptr, 0), "n_tokens is 0");
}

Test(options, what_creation_sees) {
  expect_not_created(std::move(two_models().set_model_fingerprint(0, 1, 2).set_model_fingerprint(1, 1, 3)), "the same id is not the same token");
  expect_not_created(std::move(two_models().set_rule(CHORUS_COMBINE_TRIMMED_MEAN).set_trim(1)), "trim is 1");
  chorus::CombinerSpec spec = two_models();
  spec.set_vocabulary_size(5);
  const int64_t offsets[] = {0, 1, 2};
  const int32_t ids[] = {0, 1};
  cr_assert_eq(chorus_combiner_spec_set_model_map_arrays(spec.get(), 0, 2, offsets, ids, nullptr, nullptr), CHORUS_OK);
  expect_not_created(std::move(spec), "the vocabulary size is 5");
  chorus::CombinerSpec mapped = two_models();  // a map makes different fingerprints fit
  const int64_t all[] = {0, 1, 2, 3, 4};
  const int32_t tokens[] = {3, 2, 1, 0};
  cr_assert_eq(chorus_combiner_spec_set_model_map_arrays(mapped.get(), 0, 4, all, tokens, nullptr, nullptr), CHORUS_OK);
  mapped.set_model_fingerprint(0, 1, 2).set_model_fingerprint(1, 1, 3);
  chorus::Combiner(context(), mapped, "reference");
}

Test(options, what_is_announced_must_come) {
  const std::vector<float> scores(4, 0);
  std::vector<float> out(4);
  const chorus::Tensor row(scores.data(), {1, 4}), to(out.data(), {1, 4});
  const chorus_tensor *list[] = {row.get(), row.get()};
  chorus_combine_in in = CHORUS_COMBINE_IN_INIT;
  in.rows = 1;
  in.scores = list;
  chorus_combine_out outputs = CHORUS_COMBINE_OUT_INIT;
  outputs.log_probs = to.get();
  const auto refused = [&](const chorus::CombinerSpec &spec, const char *text) {
    const chorus::Combiner combiner(context(), spec, "reference");
    Outcome outcome;
    cr_expect_eq(chorus_combiner_run(combiner.get(), &in, &outputs, nullptr, outcome.slot()), CHORUS_INVALID_ARGUMENT);
    cr_expect(contains(outcome.text(), text), "'%s' does not say %s", outcome.text().c_str(), text);
  };
  refused(two_models().set_penalties(true), "penalties is NULL");
  refused(two_models().set_model_mask(1, true), "masks[1] is NULL");
  refused(two_models().set_model_bias(0, true), "biases[0] is NULL");
  refused(two_models().set_neighbours(CHORUS_SCORES_PROBS, 1), "neighbours_offsets is NULL");
  in.biases = list;
  refused(two_models(), "biases[0] is given");
  in.biases = nullptr;
  outputs.probs = to.get();
  refused(two_models(), "probs is asked for");
}
