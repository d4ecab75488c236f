// SPDX-License-Identifier: Apache-2.0
// Calls of chorus_combiner: scoring whole windows, drawing one token.
#include "mixture.h"

namespace host {

Mixture::Mixture(const Library &library, const chorus_context *context, chorus_combine_rule rule,
                 const std::vector<double> &weights, size_t vocabulary, size_t max_rows, double temperature)
    : library_(library), vocabulary_(vocabulary) {
  const auto spec = library.make(library.chorus_combiner_spec_destroy, library.chorus_combiner_spec_create);
  const auto size = static_cast<int64_t>(vocabulary);
  library.check([&](auto **error) { return library.chorus_combiner_spec_set_rule(spec.get(), rule, error); });
  library.check([&](auto **error) {
    return library.chorus_combiner_spec_set_max_rows(spec.get(), static_cast<int64_t>(max_rows), error);
  });
  for (double weight : weights) {
    library.check([&](auto **error) {
      return library.chorus_combiner_spec_add_model(spec.get(), CHORUS_SCORES_LOGITS, CHORUS_F32, size, size, weight,
                                                    temperature, nullptr, error);
    });
  }
  combiner_ = library.make(library.chorus_combiner_destroy, [&](auto **out, auto **error) {
    return library.chorus_combiner_create(context, spec.get(), "auto", out, error);
  });
}

double Mixture::loss(const std::vector<const Scores *> &members, const Text &text) const {
  double total = 0;
  for (size_t w = 0; w < text.windows.size(); ++w) {
    const std::vector<int32_t> &targets = text.windows[w].targets;
    const auto rows = static_cast<int64_t>(targets.size());
    std::vector<std::unique_ptr<View>> views;
    std::vector<const chorus_tensor *> scores;
    for (const Scores *member : members) {
      views.push_back(std::make_unique<View>((*member)[w]));
      scores.push_back(*views.back());
    }
    std::vector<float> log_probs(targets.size());
    const View tokens(targets.data(), {rows, 1}), told(log_probs.data(), {rows, 1});
    chorus_combine_in in = CHORUS_COMBINE_IN_INIT;
    in.rows = rows;
    in.scores = scores.data();
    in.tokens = tokens;
    chorus_combine_out out = CHORUS_COMBINE_OUT_INIT;
    out.token_log_probs = told;
    library_.check([&](auto **error) {
      return library_.chorus_combiner_run(combiner_.get(), &in, &out, nullptr, error);
    });
    for (float log_prob : log_probs) total -= log_prob;
  }
  return total;
}

int32_t Mixture::sample(const std::vector<Matrix> &members, uint64_t seed, uint64_t step) const {
  std::vector<std::unique_ptr<View>> views;
  std::vector<const chorus_tensor *> scores;
  for (const Matrix &member : members) {
    views.push_back(std::make_unique<View>(member.row(member.rows - 1),
                                           std::initializer_list<int64_t>{1, static_cast<int64_t>(vocabulary_)}));
    scores.push_back(*views.back());
  }
  int32_t token = -1;
  const View drawn(&token, {1});
  chorus_combine_in in = CHORUS_COMBINE_IN_INIT;
  in.rows = 1;
  in.scores = scores.data();
  in.seed = seed;
  in.step = step;
  chorus_combine_out out = CHORUS_COMBINE_OUT_INIT;
  out.sample = drawn;
  library_.check([&](auto **error) {
    return library_.chorus_combiner_run(combiner_.get(), &in, &out, nullptr, error);
  });
  return token;
}

}  // namespace host
