// SPDX-License-Identifier: Apache-2.0
// Diagnoses against sums in long double, and what no rounding may break: signs, bounds, and bytes under any split.
#include <criterion/criterion.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "chorus/chorus.hpp"
#include "unit/combine/support.h"

namespace {

using namespace unit;
using Row = std::vector<long double>;

constexpr int64_t kRows = 40, kTokens = 300;

struct Sample {
  std::vector<std::vector<float>> scores;  // [n][rows, tokens]
  std::vector<int32_t> gold;
};

Sample sample(size_t n, float spread) {
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  Sample out;
  std::vector<float> shared(kRows * kTokens);
  for (float &x : shared) x = 2 * normal(random);
  for (size_t i = 0; i < n; ++i) {
    out.scores.emplace_back(shared);
    for (float &x : out.scores.back()) x += spread * normal(random);
  }
  for (int64_t r = 0; r < kRows; ++r) {
    const float *row = &shared[static_cast<size_t>(r * kTokens)];
    out.gold.push_back(r % 3 == 0 ? static_cast<int32_t>(r) : static_cast<int32_t>(std::max_element(row, row + kTokens) - row));
  }
  return out;
}

void add(chorus::Diagnosis &diagnosis, const Sample &sample, int64_t first, int64_t end,
         const std::vector<float> *combined = nullptr) {
  std::vector<chorus::Tensor> tensors;
  std::vector<const chorus_tensor *> pointers;
  for (const auto &scores : sample.scores) tensors.emplace_back(scores.data() + first * kTokens, std::initializer_list<int64_t>{end - first, kTokens});
  for (const auto &tensor : tensors) pointers.push_back(tensor.get());
  const chorus::Tensor tokens(sample.gold.data() + first, {end - first});
  chorus_diagnosis_batch batch = CHORUS_DIAGNOSIS_BATCH_INIT;
  batch.rows = end - first;
  batch.scores = pointers.data();
  batch.tokens = tokens.get();
  std::vector<chorus::Tensor> given;
  if (combined != nullptr) given.emplace_back(combined->data() + first * kTokens, std::initializer_list<int64_t>{end - first, kTokens});
  if (combined != nullptr) batch.combined = given[0].get();
  diagnosis.add(batch);
}

chorus::Diagnosis diagnosis_of(size_t n, const double *weights = nullptr, int threads = 2, int bins = 0) {
  chorus_diagnosis_options options = CHORUS_DIAGNOSIS_OPTIONS_INIT;
  options.n_models = static_cast<int32_t>(n);
  options.weights = weights;
  options.n_bins = bins;
  return chorus::Diagnosis(context(threads), options);
}

Row softmax(const float *z) {
  long double top = z[0], total = 0;
  for (int64_t v = 0; v < kTokens; ++v) top = std::max<long double>(top, z[v]);
  Row p(kTokens);
  for (int64_t v = 0; v < kTokens; ++v) total += p[static_cast<size_t>(v)] = std::exp(z[v] - top);
  for (long double &x : p) x /= total;
  return p;
}

long double entropy(const Row &p) {
  long double sum = 0;
  for (const long double x : p) sum -= x > 0 ? x * std::log(x) : 0;
  return sum;
}

long double kl(const Row &p, const Row &q) {
  long double sum = 0;
  for (size_t v = 0; v < p.size(); ++v) sum += p[v] > 0 ? p[v] * std::log(p[v] / q[v]) : 0;
  return sum;
}

Row mix(const std::vector<Row> &rows, const std::vector<double> &weights) {
  Row out(kTokens, 0);
  for (size_t i = 0; i < rows.size(); ++i) {
    for (size_t v = 0; v < kTokens; ++v) out[v] += weights[i] * rows[i][v];
  }
  return out;
}

// All numbers of an info as bytes.
std::string bytes_of(const chorus_diagnosis_info &info) {
  std::string out(reinterpret_cast<const char *>(&info.rows), offsetof(chorus_diagnosis_info, entropies) - offsetof(chorus_diagnosis_info, rows));
  const auto n = static_cast<size_t>(info.n_models), b = static_cast<size_t>(info.n_bins);
  const auto append = [&](const void *data, size_t count) { out.append(static_cast<const char *>(data), 8 * count); };
  append(info.entropies, n);
  for (const void *matrix : {(const void *)info.kl, (const void *)info.kl_infinite, (const void *)info.js,
                             (const void *)info.total_variation, (const void *)info.disagreements, (const void *)info.both_right,
                             (const void *)info.q_statistic, (const void *)info.correlation, (const void *)info.kappa})
    append(matrix, n * n);
  for (const double *list : {info.nll, info.accuracy, info.brier, info.ece_width, info.ece_mass, info.mce}) append(list, n + 1);
  for (const double *list : {info.width_confidences, info.width_accuracies, info.mass_confidences, info.mass_accuracies})
    append(list, (n + 1) * b);
  append(info.width_counts, (n + 1) * b);
  append(info.mass_counts, (n + 1) * b);
  return out;
}

}  // namespace

Test(diagnosis, agrees_with_long_double) {
  const std::vector<double> weights = {0.5, 0.3, 0.2};
  const Sample data = sample(3, 1);
  chorus::Diagnosis diagnosis = diagnosis_of(3, weights.data());
  add(diagnosis, data, 0, kRows);
  const chorus_diagnosis_info info = diagnosis.info();
  cr_assert_eq(info.rows, kRows);
  long double h = 0, eh = 0, mi = 0, kl01 = 0, js12 = 0, tv02 = 0, nll[4] = {}, brier[4] = {}, differ = 0, ratio = 0;
  for (int64_t r = 0; r < kRows; ++r) {
    std::vector<Row> p;
    for (const auto &scores : data.scores) p.push_back(softmax(&scores[static_cast<size_t>(r * kTokens)]));
    p.push_back(mix(p, weights));
    h += entropy(p[3]);
    for (size_t i = 0; i < 3; ++i) {
      eh += weights[i] * entropy(p[i]);
      mi += weights[i] * kl(p[i], p[3]);
    }
    kl01 += kl(p[0], p[1]);
    const Row middle = mix({p[1], p[2]}, {0.5, 0.5});
    js12 += (kl(p[1], middle) + kl(p[2], middle)) / 2;
    for (size_t v = 0; v < kTokens; ++v) tv02 += std::abs(p[0][v] - p[2][v]) / 2;
    std::vector<long> best;
    for (size_t i = 0; i < 4; ++i) {
      const auto gold = static_cast<size_t>(data.gold[static_cast<size_t>(r)]);
      nll[i] -= std::log(p[i][gold]);
      for (size_t v = 0; v < kTokens; ++v) brier[i] += (p[i][v] - (v == gold)) * (p[i][v] - (v == gold));
      best.push_back(std::max_element(p[i].begin(), p[i].end()) - p[i].begin());
    }
    const long most = std::max({std::count(best.begin(), best.end() - 1, best[0]), std::count(best.begin(), best.end() - 1, best[1])});
    ratio += 1 - most / 3.0L;
    differ += most < 3;
  }
  const auto near = [](double found, long double sum, const char *what) {
    cr_expect(std::abs(found - (double)(sum / kRows)) <= 1e-11 * (1 + std::abs((double)(sum / kRows))), "%s: %.15g, not %.15Lg", what, found,
              sum / kRows);
  };
  near(info.entropy, h, "entropy");
  near(info.expected_entropy, eh, "expected entropy");
  near(info.mutual_information, mi, "mutual information");
  near(info.kl[1], kl01, "KL");
  near(info.js[5], js12, "JS");
  near(info.js[7], js12, "JS, the other way");
  near(info.total_variation[2], tv02, "total variation");
  near(info.variation_ratio, ratio, "variation ratio");
  near(info.disagreement, differ, "disagreement");
  cr_expect(differ > 0 && differ < kRows);
  for (size_t i = 0; i < 4; ++i) {
    near(info.nll[i], nll[i], "NLL");
    near(info.brier[i], brier[i], "Brier");
  }
  near(info.ensemble_gain, weights[0] * nll[0] + weights[1] * nll[1] + weights[2] * nll[2] - nll[3], "gain");
  cr_expect(info.ensemble_gain >= 0);
}

Test(diagnosis, bytes_do_not_depend_on_splits_or_order) {
  Sample data = sample(2, 1);
  data.scores[0][5 * kTokens] = NAN;
  chorus::Diagnosis whole = diagnosis_of(2, nullptr, 1);
  add(whole, data, 0, kRows);
  const std::string expected = bytes_of(whole.info());
  cr_expect_eq(whole.info().invalid_rows, 1);
  chorus::Diagnosis parts[3] = {diagnosis_of(2, nullptr, 3), diagnosis_of(2), diagnosis_of(2)};
  add(parts[2], data, 0, 7);
  add(parts[1], data, 7, 8);
  add(parts[0], data, 30, kRows);
  add(parts[1], data, 8, 30);
  parts[0].merge(parts[2]);
  parts[0].merge(parts[1]);
  cr_expect(bytes_of(parts[0].info()) == expected);
}

Test(diagnosis, near_equal_models_never_go_below_zero) {
  for (const float spread : {0.0f, 1e-6f, 1e-4f, 1e-2f}) {
    const Sample data = sample(3, spread);
    chorus::Diagnosis diagnosis = diagnosis_of(3);
    add(diagnosis, data, 0, kRows);
    const chorus_diagnosis_info info = diagnosis.info();
    cr_expect(info.mutual_information >= 0 && info.mutual_information <= std::log(3));
    for (size_t k = 0; k < 9; ++k) cr_expect(info.kl[k] >= 0 && info.js[k] >= 0 && info.js[k] <= std::log(2));
    if (spread == 0) cr_expect_eq(info.mutual_information, 0);
    if (spread > 1e-5f) cr_expect(info.mutual_information > 0);
  }
}

Test(diagnosis, disjoint_models_are_at_the_bounds) {
  Sample data = sample(2, 0);
  for (int64_t k = 0; k < kRows * kTokens; ++k) data.scores[static_cast<size_t>(k % 2)][static_cast<size_t>(k)] = -INFINITY;
  chorus::Diagnosis diagnosis = diagnosis_of(2);
  add(diagnosis, data, 0, kRows);
  const chorus_diagnosis_info info = diagnosis.info();
  cr_expect_eq(info.rows, kRows);
  cr_expect_float_eq(info.js[1], std::log(2), 1e-11);
  cr_expect_float_eq(info.mutual_information, std::log(2), 1e-11);
  cr_expect_float_eq(info.total_variation[1], 1, 1e-11);
  cr_expect_eq(info.kl_infinite[1], kRows);
  cr_expect(std::isnan(info.kl[1]));
  cr_expect_eq(info.nll_infinite[0] + info.nll_infinite[1], kRows);
  cr_expect_eq(info.nll_infinite[2], 0);
  cr_expect_eq(info.ensemble_gain, INFINITY);
}

// Ten rows of two tokens with known confidences and outcomes.
Test(diagnosis, calibration_by_hand) {
  const double confidences[10] = {0.55, 0.65, 0.65, 0.75, 0.85, 0.95, 0.95, 0.95, 1, 1};
  const int right[10] = {1, 0, 1, 1, 0, 1, 1, 0, 1, 1};
  std::vector<double> log_probs;
  std::vector<int32_t> gold;
  for (int k = 0; k < 10; ++k) {
    log_probs.push_back(std::log(confidences[k]));
    log_probs.push_back(std::log(1 - confidences[k]));
    gold.push_back(right[k] ? 0 : 1);
  }
  const chorus::Tensor scores(log_probs.data(), {10, 2}), tokens(gold.data(), {10});
  const chorus_tensor *pointer = scores.get();
  chorus_diagnosis_batch batch = CHORUS_DIAGNOSIS_BATCH_INIT;
  batch.rows = 10;
  batch.scores = &pointer;
  batch.tokens = tokens.get();
  chorus::Diagnosis diagnosis = diagnosis_of(1, nullptr, 2, 5);
  diagnosis.add(batch);
  const chorus_diagnosis_info info = diagnosis.info();
  const int64_t width_counts[5] = {0, 0, 1, 3, 6};  // 1.0 lies in the last bin
  for (size_t b = 0; b < 5; ++b) cr_expect_eq(info.width_counts[b], width_counts[b]);
  const double bin2 = std::abs(1 - 0.55), bin3 = std::abs(2.0 / 3 - (0.65 + 0.65 + 0.75) / 3),
               bin4 = std::abs(4.0 / 6 - (0.85 + 3 * 0.95 + 2) / 6);
  cr_expect_float_eq(info.ece_width[0], (bin2 + 3 * bin3 + 6 * bin4) / 10, 1e-7);
  cr_expect_float_eq(info.mce[0], bin2, 1e-7);
  // Two rows per bin; 0.65 and 0.65 fill ranks 1 and 2, so bin 0 takes rank 2 as well; 0.95 likewise.
  const int64_t mass_counts[5] = {3, 1, 4, 0, 2};
  for (size_t b = 0; b < 5; ++b) cr_expect_eq(info.mass_counts[b], mass_counts[b], "bin %zu: %ld", b, (long)info.mass_counts[b]);
  cr_expect_float_eq(info.accuracy[0], 0.7, 1e-15);
  cr_expect(std::isnan(info.right_entropy));
}

Test(diagnosis, pairs_by_hand) {
  // Right or not, models 0 and 1, eight rows: both 3, only 0: 2, only 1: 1, none: 2.
  const int right[8][2] = {{1, 1}, {1, 1}, {1, 1}, {1, 0}, {1, 0}, {0, 1}, {0, 0}, {0, 0}};
  std::vector<float> scores[2];
  const std::vector<int32_t> gold(8, 0);
  for (const auto &row : right) {
    for (int i = 0; i < 2; ++i) {
      scores[i].push_back(row[i] ? 1.0f : 0.0f);
      scores[i].push_back(row[i] ? 0.0f : 1.0f);
    }
  }
  const chorus::Tensor a(scores[0].data(), {8, 2}), b(scores[1].data(), {8, 2}), tokens(gold.data(), {8});
  const chorus_tensor *pointers[] = {a.get(), b.get()};
  chorus_diagnosis_batch batch = CHORUS_DIAGNOSIS_BATCH_INIT;
  batch.rows = 8;
  batch.scores = pointers;
  batch.tokens = tokens.get();
  chorus::Diagnosis diagnosis = diagnosis_of(2);
  diagnosis.add(batch);
  const chorus_diagnosis_info info = diagnosis.info();
  cr_expect_eq(info.both_right[1], 3);
  cr_expect_eq(info.both_right[0], 5);
  cr_expect_float_eq(info.q_statistic[1], (3 * 2 - 2 * 1) / (3.0 * 2 + 2 * 1), 1e-15);
  cr_expect_float_eq(info.correlation[1], 4 / std::sqrt(5.0 * 3 * 4 * 4), 1e-15);
  cr_expect_float_eq(info.double_fault[1], 0.25, 1e-15);
  const double agreement = 5.0 / 8, chance = (5.0 * 4 + 3 * 4) / 64;
  cr_expect_float_eq(info.kappa[1], (agreement - chance) / (1 - chance), 1e-15);
  cr_expect_float_eq(info.right_entropy, 3.0 / 8, 1e-15);
  cr_expect_float_eq(info.disagreements[1], 3.0 / 8, 1e-15);
}

Test(diagnosis, a_combination_of_ones_own) {
  const Sample data = sample(2, 1);
  chorus::Diagnosis diagnosis = diagnosis_of(2);
  add(diagnosis, data, 0, kRows, &data.scores[1]);
  const chorus_diagnosis_info info = diagnosis.info();
  cr_expect_eq(info.nll[2], info.nll[1]);
  cr_expect_eq(info.ece_mass[2], info.ece_mass[1]);
}

Test(diagnosis, refuses) {
  Sample data = sample(2, 1);
  chorus::Diagnosis diagnosis = diagnosis_of(2);
  data.gold[3] = kTokens;
  const auto message = [&] {
    try {
      add(diagnosis, data, 0, kRows);
    } catch (const chorus::Error &error) {
      return std::string(error.what());
    }
    return std::string();
  }();
  cr_expect(contains(message, "tokens: row 3 is 300; 0 to 299"), "%s", message.c_str());
  cr_expect_eq(diagnosis.info().rows, 0);
  cr_expect(std::isnan(diagnosis.info().entropy));
  const chorus::Diagnosis other = diagnosis_of(3);
  cr_expect_eq(chorus_diagnosis_merge(diagnosis.get(), other.get(), nullptr), CHORUS_INVALID_ARGUMENT);
  chorus_diagnosis_options options = CHORUS_DIAGNOSIS_OPTIONS_INIT;
  chorus_diagnosis *out = nullptr;
  cr_expect_eq(chorus_diagnosis_create(context().get(), &options, &out, nullptr), CHORUS_INVALID_ARGUMENT);
  options.n_models = 1;
  const double zero = 0;
  options.weights = &zero;
  cr_expect_eq(chorus_diagnosis_create(context().get(), &options, &out, nullptr), CHORUS_INVALID_ARGUMENT);
}

// ---- Passes ----

namespace {

struct PassesResult {
  std::vector<double> log_probs, entropy, expected, information;
  bool operator==(const PassesResult &) const = default;
};

PassesResult read(const chorus::Passes &passes) {
  PassesResult out{std::vector<double>(kRows * kTokens), std::vector<double>(kRows), std::vector<double>(kRows),
                   std::vector<double>(kRows)};
  const chorus::Tensor l(out.log_probs.data(), {kRows, kTokens}), h(out.entropy.data(), {kRows}), e(out.expected.data(), {kRows}),
      i(out.information.data(), {kRows});
  chorus_passes_out to = CHORUS_PASSES_OUT_INIT;
  to.log_probs = l.get();
  to.entropy = h.get();
  to.expected_entropy = e.get();
  to.mutual_information = i.get();
  passes.read(to);
  return out;
}

chorus::Tensor tensor_of(const std::vector<float> &scores) { return chorus::Tensor(scores.data(), {kRows, kTokens}); }

}  // namespace

Test(passes, are_the_mixture_of_all) {
  const Sample data = sample(5, 1);
  const std::vector<double> weights = {1, 2, 0.5, 1, 0.5};
  chorus::Passes one(context(1), kRows, kTokens), two(context(3), kRows, kTokens), rest(context(), kRows, kTokens);
  for (size_t i = 0; i < 5; ++i) one.add(tensor_of(data.scores[i]), weights[i]);
  for (size_t i = 0; i < 5; ++i) two.add(tensor_of(data.scores[i]), weights[i]);
  const PassesResult found = read(one);
  cr_expect(found == read(two));
  chorus::Passes merged(context(), kRows, kTokens);
  for (size_t i = 0; i < 3; ++i) merged.add(tensor_of(data.scores[i]), weights[i]);
  for (size_t i = 3; i < 5; ++i) rest.add(tensor_of(data.scores[i]), weights[i]);
  merged.merge(rest);
  const PassesResult joined = read(merged);
  for (int64_t r = 0; r < kRows; ++r) {
    const auto at = static_cast<size_t>(r);
    std::vector<Row> p;
    long double expected = 0, information = 0;
    for (size_t i = 0; i < 5; ++i) p.push_back(softmax(&data.scores[i][at * kTokens]));
    const Row all = mix(p, {0.2, 0.4, 0.1, 0.2, 0.1});
    for (size_t i = 0; i < 5; ++i) {
      expected += weights[i] / 5 * entropy(p[i]);
      information += weights[i] / 5 * kl(p[i], all);
    }
    for (const PassesResult &result : {found, joined}) {
      cr_expect_float_eq(result.entropy[at], (double)entropy(all), 1e-12);
      cr_expect_float_eq(result.expected[at], (double)expected, 1e-12);
      cr_expect_float_eq(result.information[at], (double)information, 1e-12);
      for (size_t v = 0; v < kTokens; ++v) cr_expect_float_eq(result.log_probs[at * kTokens + v], (double)std::log(all[v]), 1e-12);
    }
  }
}

Test(passes, the_same_pass_twice_tells_nothing) {
  const Sample data = sample(1, 0);
  chorus::Passes passes(context(), kRows, kTokens);
  passes.add(tensor_of(data.scores[0]));
  const PassesResult once = read(passes);
  passes.merge(passes);
  passes.add(tensor_of(data.scores[0]));
  for (const double x : read(passes).information) cr_expect(x >= 0 && x < 1e-28);
  for (const double x : once.information) cr_expect_eq(x, 0);
}

Test(passes, refuse_and_tell) {
  chorus::Passes passes(context(), kRows, kTokens);
  chorus_passes_out out = CHORUS_PASSES_OUT_INIT;
  cr_expect_eq(chorus_passes_get(passes.get(), &out, nullptr), CHORUS_FAILED_PRECONDITION);
  Sample data = sample(1, 0);
  cr_expect_eq(chorus_passes_add(passes.get(), tensor_of(data.scores[0]).get(), 0, nullptr), CHORUS_INVALID_ARGUMENT);
  cr_expect_eq(chorus_passes_add(passes.get(), tensor_of(data.scores[0]).get(), -1, nullptr), CHORUS_INVALID_ARGUMENT);
  data.scores[0][0] = NAN;
  passes.add(tensor_of(data.scores[0]));
  const PassesResult found = read(passes);
  cr_expect(std::isnan(found.entropy[0]) && std::isfinite(found.entropy[1]));
  chorus_passes *huge = nullptr;
  cr_expect_eq(chorus_passes_create(context().get(), INT64_MAX, 1000, &huge, nullptr), CHORUS_RESOURCE_EXHAUSTED);
}
