// SPDX-License-Identifier: Apache-2.0
// docs/numerics.md, "The table of rules and filters": every line on every backend that takes it, through the kernel and through
// the public C ABI. What is expected stands here in probabilities, worked out by hand.
#include <cmath>
#include <string>

#include "conformance/check.h"
#include "conformance/combine_full_oracle.h"
#include "conformance/public_abi.h"

namespace conformance {
namespace {

using Row = std::vector<double>;

struct Line {
  const char *name;
  CombineProblem problem;
  uint32_t status;
  Row probs;  // empty: NaN; of the unnormalised rule exp of the scores
};

// A model by its probabilities; a token past the end is one that its vocabulary lacks.
ModelScores model(Row p, double weight = 1) {
  ModelScores m;
  m.scores = std::move(p);
  m.weight = weight;
  m.kind = CHORUS_SCORES_PROBS;
  return m;
}

CombineProblem problem(chorus_combine_rule rule, std::vector<ModelScores> models, int64_t n_tokens = 4) {
  CombineProblem p;
  p.rule = rule;
  p.models = std::move(models);
  p.n_tokens = n_tokens;
  complete(p);
  return p;
}

template <typename Change>
CombineProblem with(CombineProblem p, const Change &change) {
  change(p);
  return p;
}

Row normalised(Row p) {
  double sum = 0;
  for (double x : p) sum += x;
  for (double &x : p) x /= sum;
  return p;
}

constexpr auto kLinear = CHORUS_COMBINE_LINEAR, kLogLinear = CHORUS_COMBINE_LOG_LINEAR, kHolder = CHORUS_COMBINE_HOLDER;
constexpr uint32_t kEmpty = CHORUS_ROW_EMPTY_SUPPORT, kModelEmpty = CHORUS_ROW_MODEL_EMPTY, kBad = CHORUS_ROW_BAD_WEIGHT;
const Row kA = {0.5, 0.25, 0.125, 0.125}, kB = {0.125, 0.5, 0.25, 0.125}, kC = {0.25, 0.125, 0.125, 0.5};
const Row kHoles = {0.5, 0, 0.5, 0}, kNone = {0, 0, 0, 0};

void add_means(std::vector<Line> &t) {
  const auto holder = [](double order, std::vector<ModelScores> models) {
    return with(problem(kHolder, std::move(models)), [&](CombineProblem &p) { p.options.order = order; });
  };
  const Row geometric = normalised({std::sqrt(0.0625), std::sqrt(0.125), std::sqrt(0.03125), 0.125});
  const Row highest = normalised({0.5, 0.5, 0.25, 0.125}), lowest = normalised({0.125, 0.25, 0.125, 0.125});
  t.push_back({"holder_1_is_linear", holder(1, {model(kA), model(kB)}), 0, {0.3125, 0.375, 0.1875, 0.125}});
  t.push_back({"holder_0_is_geometric", holder(0, {model(kA), model(kB)}), 0, geometric});
  t.push_back({"holder_near_0", holder(1e-13, {model(kA), model(kB)}), 0, geometric});
  t.push_back({"holder_weights_are_normalised", holder(0, {model(kA, 5), model(kB, 5)}), 0, geometric});
  t.push_back({"holder_plus_infinity", holder(kInfinity, {model(kA), model(kB, 9)}), 0, highest});
  t.push_back({"holder_minus_infinity", holder(-kInfinity, {model(kA), model(kB, 9)}), 0, lowest});
  t.push_back({"holder_large_order", holder(1e9, {model(kA), model(kB)}), 0, highest});
  t.push_back({"holder_minus_1_is_harmonic", holder(-1, {model(kA), model(kB)}), 0, normalised({0.2, 1 / 3.0, 1 / 6.0, 0.125})});
  t.push_back({"holder_2", holder(2, {model(kA), model(kB)}), 0,
               normalised({std::sqrt(0.265625), std::sqrt(0.3125), std::sqrt(0.078125), std::sqrt(0.03125)})});
  t.push_back({"holder_positive_missing", holder(2, {model(kHoles), model(kC)}), 0,
               normalised({std::sqrt(0.3125), 0.125, std::sqrt(0.265625), 0.5})});
  t.push_back({"holder_negative_missing", holder(-2, {model(kHoles), model(kC)}), 0,
               normalised({1 / std::sqrt(4 + 16.0), 0, 1 / std::sqrt(4 + 64.0), 0})});
  t.push_back({"holder_positive_empty", holder(2, {model(kNone), model(kC)}), kModelEmpty, kC});
  t.push_back({"holder_0_empty", holder(0, {model(kNone), model(kC)}), kModelEmpty | kEmpty, kNone});
  t.push_back({"max", problem(CHORUS_COMBINE_MAX, {model(kA), model(kB)}), 0, highest});
  t.push_back({"max_empty", problem(CHORUS_COMBINE_MAX, {model(kNone), model(kB)}), kModelEmpty, kB});
  t.push_back({"min", problem(CHORUS_COMBINE_MIN, {model(kA), model(kB)}), 0, lowest});
  t.push_back({"min_missing", problem(CHORUS_COMBINE_MIN, {model(kHoles), model(kB)}), 0, normalised({0.125, 0, 0.25, 0})});
  t.push_back({"min_empty", problem(CHORUS_COMBINE_MIN, {model(kNone), model(kB)}), kModelEmpty | kEmpty, kNone});
  t.push_back({"min_disjoint", problem(CHORUS_COMBINE_MIN, {model({1, 0, 0, 0}), model({0, 1, 0, 0})}), kEmpty, kNone});
  t.push_back({"zero_weight_leaves_out", problem(CHORUS_COMBINE_MAX, {model(kA), model({kNaN, 0, 1, 0}, 0)}), 0, kA});
  t.push_back({"median_of_3", problem(CHORUS_COMBINE_MEDIAN, {model(kA), model(kB), model(kC)}), 0, normalised({0.25, 0.25, 0.125, 0.125})});
  t.push_back({"median_of_2", problem(CHORUS_COMBINE_MEDIAN, {model(kA), model(kB)}), 0, {0.3125, 0.375, 0.1875, 0.125}});
  t.push_back({"median_outlier", problem(CHORUS_COMBINE_MEDIAN, {model(kA), model(kA), model({0, 0, 0, 1})}), 0, kA});
  t.push_back({"median_majority_missing", problem(CHORUS_COMBINE_MEDIAN, {model(kHoles), model(kHoles), model(kA)}), 0, kHoles});
  const auto trimmed = with(problem(CHORUS_COMBINE_TRIMMED_MEAN, {model(kA), model(kB), model(kC)}),
                            [](CombineProblem &p) { p.options.trim = 1; });
  t.push_back({"trimmed_mean", trimmed, 0, normalised({0.25, 0.25, 0.125, 0.125})});
  t.push_back({"trimmed_mean_of_0", problem(CHORUS_COMBINE_TRIMMED_MEAN, {model(kA), model(kB)}), 0, {0.3125, 0.375, 0.1875, 0.125}});
}

void add_votes(std::vector<Line> &t) {
  const auto rank = [](chorus_combine_rule rule, int32_t k, std::vector<ModelScores> models) {
    return with(problem(rule, std::move(models)), [&](CombineProblem &p) { p.options.vote_k = k; });
  };
  t.push_back({"vote", problem(CHORUS_COMBINE_VOTE, {model(kA), model(kA), model(kB, 3)}), 0, {0.4, 0.6, 0, 0}});
  t.push_back({"vote_tie_within_a_model", problem(CHORUS_COMBINE_VOTE, {model({0.25, 0.25, 0.25, 0.25})}), 0, {1, 0, 0, 0}});
  t.push_back({"vote_empty", problem(CHORUS_COMBINE_VOTE, {model(kNone), model(kB)}), kModelEmpty, {0, 1, 0, 0}});
  t.push_back({"rank_vote", rank(CHORUS_COMBINE_RANK_VOTE, 2, {model(kA), model(kB)}), 0, normalised({2, 3, 1, 0})});
  t.push_back({"rank_vote_short_list", rank(CHORUS_COMBINE_RANK_VOTE, 3, {model({0, 1, 0, 0}), model(kC)}), 0, normalised({2, 4, 0, 3})});
  t.push_back({"condorcet_winner", rank(CHORUS_COMBINE_CONDORCET, 4, {model({0.4, 0.3, 0.2, 0.1}), model({0.3, 0.4, 0.2, 0.1}),
                                                                       model({0.2, 0.3, 0.4, 0.1})}),
               0, {0, 1, 0, 0}});
  t.push_back({"condorcet_cycle", rank(CHORUS_COMBINE_CONDORCET, 3, {model({0.5, 0.3, 0.2, 0}), model({0.2, 0.5, 0.3, 0}), model({0.3, 0.2, 0.5, 0})}),
               0, {1 / 3.0, 1 / 3.0, 1 / 3.0, 0}});
}

void add_scores(std::vector<Line> &t) {
  const auto rule = CHORUS_COMBINE_UNNORMALISED;
  t.push_back({"unnormalised", problem(rule, {model(kA), model(kB, 0.5)}), 0,
               {0.5 * std::sqrt(0.125), 0.25 * std::sqrt(0.5), 0.125 * 0.5, 0.125 * std::sqrt(0.125)}});
  t.push_back({"unnormalised_above_0", problem(rule, {model(kA), model(kC, -1)}), 0, {2, 2, 1, 0.25}});
  t.push_back({"unnormalised_missing", problem(rule, {model(kHoles), model(kB)}), 0, {0.0625, 0, 0.125, 0}});
  t.push_back({"unnormalised_negative_missing", problem(rule, {model(kA), model(kHoles, -1)}), 0, {1, 0.25, 0.25, 0.125}});
}

void add_model_filters(std::vector<Line> &t) {
  const auto filtered = [](chorus_combine_rule rule, std::vector<ModelScores> models, int64_t k, double top_p, double plausibility,
                           int32_t base = -1) {
    return with(problem(rule, std::move(models)), [&](CombineProblem &p) {
      p.models[0].top_k = k;
      p.models[0].top_p = top_p;
      p.models[0].plausibility = plausibility;
      p.options.base_model = base;
    });
  };
  t.push_back({"model_top_k", filtered(kLinear, {model(kA)}, 2, 0, 0), 0, {2 / 3.0, 1 / 3.0, 0, 0}});
  t.push_back({"model_top_k_ties", filtered(kLinear, {model(kA)}, 3, 0, 0), 0, normalised({4, 2, 1, 0})});
  t.push_back({"model_top_p", filtered(kLinear, {model(kA)}, 0, 0.7, 0), 0, {2 / 3.0, 1 / 3.0, 0, 0}});
  t.push_back({"model_top_p_exact_mass", filtered(kLinear, {model(kA)}, 0, 0.5, 0), 0, {1, 0, 0, 0}});
  t.push_back({"model_top_p_tiny", filtered(kLinear, {model(kB)}, 0, 1e-9, 0), 0, {0, 1, 0, 0}});
  t.push_back({"model_plausibility", filtered(kLinear, {model(kA)}, 0, 0, 0.3), 0, {2 / 3.0, 1 / 3.0, 0, 0}});
  t.push_back({"filter_is_its_own_model's", filtered(kLinear, {model(kA), model(kB)}, 1, 0, 0), 0, {0.5625, 0.25, 0.125, 0.0625}});
  t.push_back({"filter_of_the_base", filtered(kLinear, {model(kA), model(kB)}, 2, 0, 0, 0), 0, normalised({0.3125, 0.375, 0, 0})});
  t.push_back({"filter_and", filtered(kLogLinear, {model(kA), model(kB)}, 2, 0, 0), 0, normalised({0.0625, 0.125, 0, 0})});
  t.push_back({"dexperts", filtered(kLogLinear, {model(kA), model(kB, 2), model(kC, -2)}, 0, 0.7, 0), 0,
               normalised({0.5 * 0.25, 0.25 * 16, 0, 0})});
  t.push_back({"contrastive", filtered(kLogLinear, {model(kA), model(kC, -1)}, 0, 0, 0.25), 0, normalised({2, 2, 1, 0.25})});
  t.push_back({"base_of_weight_0", with(filtered(kLogLinear, {model(kA), model(kB)}, 1, 0, 0, 0), [](CombineProblem &p) { p.weights = {0, 1}; }),
               kBad, {}});
  const auto masked = [](const Row &p, double bits) {
    return with(problem(kLinear, {model(p)}), [&](CombineProblem &q) { q.models[0].mask = {bits}; });
  };
  t.push_back({"mask", masked(kA, 0b1010), 0, {0, 2 / 3.0, 0, 1 / 3.0}});
  t.push_back({"mask_hides_nan", masked({kNaN, 0.5, 0.25, 0.25}, 0b1110), 0, {0, 0.5, 0.25, 0.25}});
  t.push_back({"mask_of_nothing", masked(kA, 0), kEmpty | kModelEmpty, kNone});
  const auto biased = [](Row bias) { return with(problem(kLinear, {model(kA)}), [&](CombineProblem &q) { q.models[0].bias = std::move(bias); }); };
  t.push_back({"bias", biased({0, std::log(2), -kInfinity, 0}), 0, normalised({0.5, 0.5, 0, 0.125})});
  t.push_back({"bias_nan", biased({0, kNaN, 0, 0}), CHORUS_ROW_NAN, {}});
  t.push_back({"bias_infinite", biased({0, kInfinity, 0, 0}), CHORUS_ROW_INFINITE, {0, 1, 0, 0}});
}

void add_maps(std::vector<Line> &t) {
  const auto mapped = [](chorus_combine_rule rule, std::vector<ModelScores> models, std::vector<int64_t> offsets, std::vector<int32_t> ids,
                         std::vector<float> values = {}) {
    return with(problem(rule, std::move(models)), [&](CombineProblem &p) {
      p.models[0].map_offsets = std::move(offsets);
      p.models[0].map_ids = std::move(ids);
      p.models[0].map_values = std::move(values);
    });
  };
  t.push_back({"map_permutes", mapped(kLinear, {model(kA), model(kB)}, {0, 1, 2, 3, 4}, {3, 2, 1, 0}), 0, {0.125, 0.3125, 0.25, 0.3125}});
  t.push_back({"map_pushes_mass", mapped(kLinear, {model(kA)}, {0, 2, 3, 4, 4}, {0, 2, 3, 1}), 0, {0.625, 0.125, 0.25, 0}});
  t.push_back({"map_from_more_tokens", mapped(kLinear, {model({0.1, 0.2, 0.3, 0.1, 0.2, 0.1})}, {0, 2, 4, 5, 6}, {0, 1, 2, 3, 4, 5}), 0,
               {0.3, 0.4, 0.2, 0.1}});
  t.push_back({"map_values", mapped(kLinear, {model(kA)}, {0, 1, 2, 3, 4}, {0, 0, 1, 2}, {0.5, 0.5, 1, 1}), 0,
               normalised({0.25, 0.25, 0.25, 0.125})});
  t.push_back({"map_lacks_linear", mapped(kLinear, {model(kA), model(kB)}, {0, 1, 2, 3, 3}, {0, 1, 2}), 0,
               normalised({0.625, 0.75, 0.375, 0.125})});
  t.push_back({"map_lacks_log_linear", mapped(kLogLinear, {model(kA), model(kB)}, {0, 1, 2, 3, 3}, {0, 1, 2}), 0,
               normalised({0.0625, 0.125, 0.03125, 0})});
  // A model that lacks token 3, by each policy, with one that has it.
  const Row short_row = {0.5, 0.25, 0.25};
  const auto lacking = [&](chorus_combine_rule rule, chorus_combine_missing policy, double weight = 1) {
    return with(problem(rule, {model(short_row, weight), model(kB)}), [&](CombineProblem &p) {
      p.models[0].missing = policy;
      p.models[0].missing_log_prob = std::log(0.125);
      p.models[0].unknown_id = 2;
    });
  };
  t.push_back({"missing_floor_linear", lacking(kLinear, CHORUS_MISSING_FLOOR), 0, normalised({0.625, 0.75, 0.5, 0.25})});
  t.push_back({"missing_floor", lacking(kLogLinear, CHORUS_MISSING_FLOOR), 0, normalised({0.0625, 0.125, 0.0625, 0.015625})});
  t.push_back({"missing_unknown", lacking(kLogLinear, CHORUS_MISSING_UNKNOWN), 0, normalised({0.0625, 0.125, 0.0625, 0.03125})});
  t.push_back({"missing_unknown_shared", with(lacking(kLogLinear, CHORUS_MISSING_UNKNOWN_SHARED), [](CombineProblem &p) {
                 p.models[0].scores = {0.5, 0.5};
                 p.models[0].n_logits = p.models[0].n_valid = 2;
                 p.models[0].unknown_id = 1;
               }),
               0, normalised({0.0625, 0.25, 0.0625, 0.03125})});
  t.push_back({"missing_skip_linear", lacking(kLinear, CHORUS_MISSING_SKIP), 0, normalised({0.3125, 0.375, 0.25, 0.125})});
  t.push_back({"missing_skip", lacking(kLogLinear, CHORUS_MISSING_SKIP), 0, normalised({0.0625, 0.125, 0.0625, 0.015625})});
  t.push_back({"missing_neutral", lacking(kLogLinear, CHORUS_MISSING_NEUTRAL), 0, normalised({0.0625, 0.125, 0.0625, 0.125})});
  t.push_back({"missing_by_rule_negative", lacking(kLogLinear, CHORUS_MISSING_BY_RULE, -1), 0, normalised({0.25, 2, 1, 0.125})});
  t.push_back({"missing_everywhere", with(lacking(kLogLinear, CHORUS_MISSING_NEUTRAL), [](CombineProblem &p) {
                 p.models.pop_back();
               }),
               0, {0.5, 0.25, 0.25, 0}});
}

void add_after(std::vector<Line> &t) {
  const auto after = [](const Row &p, auto change, chorus_combine_rule rule = kLinear) {
    return with(problem(rule, {model(p)}), [&](CombineProblem &q) { change(q.options); });
  };
  t.push_back({"temperature_2", after(kA, [](auto &o) { o.temperature = 2; }), 0,
               normalised({std::sqrt(0.5), 0.5, std::sqrt(0.125), std::sqrt(0.125)})});
  t.push_back({"temperature_0", after({0.2, 0.4, 0.4, 0}, [](auto &o) { o.temperature = 0; }), 0, {0, 1, 0, 0}});
  t.push_back({"temperature_mixes_first",
               with(problem(kLinear, {model({1, 0, 0, 0}), model({0, 1, 0, 0}, 3)}), [](CombineProblem &p) { p.options.temperature = 0.5; }), 0,
               {0.1, 0.9, 0, 0}});
  t.push_back({"top_k", after(kB, [](auto &o) { o.top_k = 2; }), 0, {0, 2 / 3.0, 1 / 3.0, 0}});
  t.push_back({"top_k_ties", after({0.25, 0.25, 0.25, 0.25}, [](auto &o) { o.top_k = 2; }), 0, {0.5, 0.5, 0, 0}});
  t.push_back({"top_k_more_than_there_are", after(kA, [](auto &o) { o.top_k = 99; }), 0, kA});
  t.push_back({"top_p", after(kB, [](auto &o) { o.top_p = 0.6; }), 0, {0, 2 / 3.0, 1 / 3.0, 0}});
  t.push_back({"top_p_reached_exactly", after(kB, [](auto &o) { o.top_p = 0.75; }), 0, {0, 2 / 3.0, 1 / 3.0, 0}});
  t.push_back({"top_p_1_keeps_all", after({1, 1e-30, 0, 0}, [](auto &o) { o.top_p = 1; }), 0, {1, 1e-30, 0, 0}});
  t.push_back({"min_p", after(kB, [](auto &o) { o.min_p = 0.4; }), 0, {0, 2 / 3.0, 1 / 3.0, 0}});
  t.push_back({"min_p_1", after({0.25, 0.25, 0.25, 0.25}, [](auto &o) { o.min_p = 1; }), 0, {0.25, 0.25, 0.25, 0.25}});
  t.push_back({"typical", after({0.9, 0.04, 0.03, 0.03}, [](auto &o) { o.typical_p = 0.5; }), 0, {1, 0, 0, 0}});
  t.push_back({"filters_follow_temperature", after({0.5, 0.3, 0.2, 0}, [](auto &o) {
                 o.temperature = 0.5;
                 o.top_p = 0.6;
               }),
               0, {1, 0, 0, 0}});
  t.push_back({"filters_of_log_linear", with(problem(kLogLinear, {model(kA), model(kB)}), [](CombineProblem &p) { p.options.top_k = 2; }), 0,
               normalised({0.0625, 0.125, 0, 0})});
  const auto penalised = [](Row penalties, Row history, chorus_combine_rule rule = kLinear) {
    return with(problem(rule, {model(kA)}), [&](CombineProblem &p) {
      p.options.penalties = std::move(penalties);
      p.options.history_offsets = {0, static_cast<double>(history.size())};
      p.options.history_ids = std::move(history);
    });
  };
  t.push_back({"repetition", penalised({2, 0, 0}, {0, 0}), 0, normalised({0.25, 0.25, 0.125, 0.125})});
  t.push_back({"repetition_1_is_off", penalised({1, 0, 0}, {0, 1}), 0, kA});
  t.push_back({"presence", penalised({1, std::log(2), 0}, {0, 0}), 0, normalised({0.25, 0.25, 0.125, 0.125})});
  t.push_back({"frequency", penalised({1, 0, std::log(2)}, {0, 0}), 0, normalised({0.125, 0.25, 0.125, 0.125})});
  t.push_back({"history_outside", penalised({2, 0, 0}, {-1, 4, 1e6}), 0, kA});
  t.push_back({"history_empty", penalised({2, 1, 1}, {}), 0, kA});
  t.push_back({"repetition_0", penalised({0, 0, 0}, {0}), kBad, {}});
  t.push_back({"penalty_nan", penalised({1, kNaN, 0}, {0}), kBad, {}});
  CombineProblem raw = penalised({2, 0, 0}, {0, 1}, kLogLinear);
  raw.models[0].kind = CHORUS_SCORES_LOGITS;
  raw.models[0].scores = {1, -1, 0, 0};
  t.push_back({"repetition_of_raw_scores", raw, 0, normalised({std::exp(0.5), std::exp(-2.0), 1, 1})});
}

void add_neighbours(std::vector<Line> &t) {
  const auto list = [](Row ids, Row scores, double weight, double model_weight, chorus_score_kind kind = CHORUS_SCORES_PROBS) {
    return with(problem(kLinear, {model(kA, model_weight)}), [&](CombineProblem &p) {
      p.options.has_neighbours = true;
      p.options.neighbours_kind = kind;
      p.options.neighbours_weight = weight;
      p.options.neighbours_offsets = {0, static_cast<double>(ids.size())};
      p.options.neighbours_ids = std::move(ids);
      p.options.neighbours_scores = std::move(scores);
    });
  };
  t.push_back({"neighbours", list({3, 1}, {3, 1}, 0.5, 0.5), 0, {0.25, 0.25, 0.0625, 0.4375}});
  t.push_back({"neighbours_add_up", list({3, 1, 3}, {1, 2, 1}, 0.5, 0.5), 0, {0.25, 0.375, 0.0625, 0.3125}});
  t.push_back({"neighbours_by_distance", list({3, 1}, {-1, -1 - std::log(3)}, 0.5, 0.5, CHORUS_SCORES_LOGITS), 0,
               {0.25, 0.25, 0.0625, 0.4375}});
  t.push_back({"neighbours_none", list({}, {}, 0.5, 0.5), kModelEmpty, kA});
  t.push_back({"neighbours_outside", list({9, 1}, {1, 1}, 0.5, 0.5), CHORUS_ROW_BAD_TOKEN, {0.25, 0.625, 0.0625, 0.0625}});
  t.push_back({"neighbours_alone", list({2}, {1}, 1, 0), 0, {0, 0, 1, 0}});
  t.push_back({"neighbours_of_weight_0", list({2}, {kNaN}, 0, 1), 0, kA});
  t.push_back({"neighbours_nan", list({2}, {kNaN}, 1, 1), CHORUS_ROW_NAN, {}});
}

std::vector<Line> table() {
  std::vector<Line> t;
  add_means(t);
  add_votes(t);
  add_scores(t);
  add_model_filters(t);
  add_maps(t);
  add_after(t);
  add_neighbours(t);
  return t;
}

void expect_line(const Line &line, const CombineResult &r) {
  expect(r.status_of(0) == line.status, "[%s] status is %u, not %u", line.name, r.status_of(0), line.status);
  for (size_t v = 0; v < r.log_probs.size(); ++v) {
    const double got = r.log_probs[v];
    if (line.probs.empty()) {
      expect(std::isnan(got), "[%s] log-prob %zu is %g, not NaN", line.name, v, got);
    } else if (line.probs[v] == 0) {
      expect(got == -kInfinity, "[%s] log-prob %zu is %g, not -inf", line.name, v, got);
    } else {
      expect(std::fabs(got - std::log(line.probs[v])) <= 3e-6 * (1 + std::fabs(got)), "[%s] log-prob %zu is %.9g, not %.9g", line.name, v,
             got, std::log(line.probs[v]));
    }
  }
  const bool invalid = line.probs.empty() || (line.status & kEmpty) != 0;
  expect((r.argmax[0] == -1) == invalid && (r.sample[0] == -1) == invalid, "[%s] tokens are %g and %g", line.name, r.argmax[0], r.sample[0]);
}

CombineProblem with_outputs(CombineProblem p) {
  p.tokens = {0, 3, -1, 2};
  p.options.n_top = 3;
  return p;
}

}  // namespace

CONFORMANCE_TEST(combine_rules_table_by_kernel) {
  const auto lines = table();
  expect(lines.size() >= 40, "the table has %zu lines", lines.size());
  for (const Line &line : lines) {
    describe("[%s]", line.name);
    attempt(line.name, [&] {
      expect_line(line, Combine(test.backend, line.problem, kAllOutputs).run(line.problem));
      const CombineProblem full = with_outputs(line.problem);
      expect_full_agrees(full, Combine(test.backend, full, kEveryOutput).run(full));
    });
  }
}

CONFORMANCE_TEST(combine_rules_table_by_public_abi) {
  const PublicAbi abi(test.backend);
  for (const Line &line : table()) {
    describe("[%s]", line.name);
    attempt(line.name, [&] {
      const CombineProblem full = with_outputs(line.problem);
      const CombineResult r = combine(abi, full, kEveryOutput);
      expect(r.bits == Combine(test.backend, full, kEveryOutput).run(full).bits, "[%s] bytes differ from the kernel's", line.name);
    });
  }
}

}  // namespace conformance
