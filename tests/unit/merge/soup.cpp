// SPDX-License-Identifier: Apache-2.0
// The greedy soup: which models join is known, because the score is a distance to a target.
#include "unit/merge/support.h"

namespace fs = std::filesystem;
using unit::Bench;

namespace {

// Minus the squared distance of the model's tensors from `target`.
struct Target {
  unit::Model model;
  int calls = 0, cancel_at = -1;
  static int32_t score(void *user, const char *folder, double *out) {
    auto *self = static_cast<Target *>(user);
    if (++self->calls == self->cancel_at) return 1;
    *out = 0;
    for (const auto &[name, tensor] : unit::load(folder)) {
      const auto &want = self->model.at(name).values;
      for (size_t i = 0; i < want.size(); ++i) *out -= (tensor.values[i] - want[i]) * (tensor.values[i] - want[i]);
    }
    return 0;
  }
};

// target + offset along a fixed random direction of each model's own.
unit::Model shifted(const unit::Model &target, double along, unsigned seed) {
  unit::Model out = target;
  std::mt19937 random(seed);
  std::normal_distribution<double> normal(0, 1);
  for (auto &[name, tensor] : out) {
    for (double &value : tensor.values) value += along * normal(random);
  }
  return out;
}

}  // namespace

Test(soup, takes_what_improves_the_average_and_nothing_else) {
  Bench bench(CHORUS_F32);
  Target target;
  target.model = unit::random_model(9, CHORUS_F32, 1, 16, 40);
  bench.add("near", shifted(target.model, 0.010, 1));
  bench.add("opposite", shifted(target.model, -0.011, 1));  // with `near` it is close to the target
  bench.add("far", shifted(target.model, 0.5, 2));
  bench.add("other", shifted(target.model, 0.02, 3));
  const std::string names[4] = {bench / "far", bench / "near", bench / "opposite", bench / "other"};
  const char *const models[4] = {names[0].c_str(), names[1].c_str(), names[2].c_str(), names[3].c_str()};
  double scores[4], score = 0;
  int32_t members[4];
  unit::Outcome outcome;
  const chorus::Context context = unit::context();
  cr_assert_eq(chorus_soup_greedy(context.get(), models, 4, "auto", (bench / "soup").c_str(), Target::score, &target, scores, members, &score,
                                  outcome.slot()), CHORUS_OK, "%s", outcome.text().c_str());
  cr_assert(members[0] == 0 && members[1] == 1 && members[2] == 1 && members[3] == 0);
  cr_assert_eq(target.calls, 7);
  double again = 0;
  Target::score(&target, (bench / "soup").c_str(), &again);
  cr_assert_eq(again, score);
  cr_assert(score > scores[1] && scores[1] > scores[2] && scores[2] > scores[3] && scores[3] > scores[0]);
  cr_assert(!fs::exists(bench / ".soup.candidate") && !fs::exists(bench / ".soup.partial"));
}

Test(soup, what_is_wrong_is_named_and_leaves_nothing) {
  const Bench bench;
  const std::string a = bench / "a", b = bench / "b", out = bench / "soup";
  const char *const models[2] = {a.c_str(), b.c_str()}, *const broken[2] = {a.c_str(), nullptr}, *const absent[2] = {a.c_str(), "/nowhere"};
  Target target;
  target.model = bench.model("c");
  const chorus::Context context = unit::context();
  const auto soup = [&](const char *const *which, size_t count, const char *output, chorus_soup_score_fn score, const char *part) {
    unit::Outcome outcome;
    target.calls = 0;
    const chorus_status status =
        chorus_soup_greedy(context.get(), which, count, "auto", output, score, &target, nullptr, nullptr, nullptr, outcome.slot());
    cr_expect(unit::contains(outcome.text(), part), "'%s' lacks '%s'", outcome.text().c_str(), part);
    cr_expect(!fs::exists(out) && !fs::exists(bench / ".soup.candidate"));
    return status;
  };
  cr_expect_eq(soup(nullptr, 2, out.c_str(), Target::score, "models"), CHORUS_INVALID_ARGUMENT);
  cr_expect_eq(soup(broken, 2, out.c_str(), Target::score, "models[i]"), CHORUS_INVALID_ARGUMENT);
  cr_expect_eq(soup(models, 0, out.c_str(), Target::score, "count is 0"), CHORUS_INVALID_ARGUMENT);
  cr_expect_eq(soup(models, 2, nullptr, Target::score, "output"), CHORUS_INVALID_ARGUMENT);
  cr_expect_eq(soup(models, 2, out.c_str(), nullptr, "score"), CHORUS_INVALID_ARGUMENT);
  cr_expect_eq(soup(models, 2, a.c_str(), Target::score, "is not empty"), CHORUS_ALREADY_EXISTS);
  cr_expect_neq(soup(absent, 2, out.c_str(), Target::score, "/nowhere"), CHORUS_OK);
  cr_expect_eq(target.calls, 0, "nothing is scored before all is known to fit");
  target.cancel_at = 3;
  cr_expect_eq(soup(models, 2, out.c_str(), Target::score, "ended the search"), CHORUS_CANCELLED);
}
