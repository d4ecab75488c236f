// SPDX-License-Identifier: Apache-2.0
// Statistics over rows of N models and their combination; sums are order-free (fixed_sum), so batches and merges change no bit.
#pragma once
#include <memory>
#include <vector>

#include "chorus/diagnose.h"
#include "combine/calibration.h"
#include "combine/fixed_sum.h"
#include "runtime/context.h"
#include "runtime/device.h"

namespace chorus::combine {

// What one row says; index N is the combination.
struct RowDiagnosis {
  bool valid = false, has_gold = false;
  double entropy = 0, expected_entropy = 0, information = 0, variation_ratio = 0;
  bool all_agree = true;
  std::vector<int64_t> best;                             // [N + 1]
  std::vector<double> entropies, kl, js, total_variation;  // [N], [N, N]
  std::vector<double> nll, brier, confidence;            // [N + 1]
};

class Diagnosis {
 public:
  Diagnosis(std::shared_ptr<const Context> context, const chorus_diagnosis_options &options);

  void add(const chorus_diagnosis_batch &batch);
  void merge(const Diagnosis &other);
  // Pointers live until the next call.
  chorus_diagnosis_info get();

 private:
  void check(const chorus_diagnosis_batch &batch) const;
  int64_t valid_tokens(const chorus_diagnosis_batch &batch) const;
  RowDiagnosis diagnose(const chorus_diagnosis_batch &batch, int64_t row, int64_t v, std::vector<double> *scratch) const;
  void add_row(const RowDiagnosis &row, int64_t gold);
  void finish_rows();
  void finish_gold();
  void finish_pair(size_t i, size_t j);

  std::shared_ptr<const Context> context_;
  DevicePtr host_;
  size_t n_, n_bins_;
  std::vector<double> weights_;

  // Sums and counts.
  int64_t rows_ = 0, invalid_rows_ = 0, gold_rows_ = 0, disagreeing_rows_ = 0, right_spread_ = 0;
  FixedSum entropy_, expected_entropy_, information_, variation_ratio_;
  std::vector<FixedSum> entropies_, kl_, js_, total_variation_, nll_, brier_;
  std::vector<int64_t> kl_infinite_, different_, nll_infinite_, both_right_, right_;
  std::vector<Calibration> calibration_;

  // What get() lends.
  struct Lent {
    std::vector<double> entropies, kl, js, total_variation, disagreements, nll, accuracy, brier, ece_width, ece_mass, mce;
    std::vector<int64_t> width_counts, mass_counts;
    std::vector<double> width_confidences, width_accuracies, mass_confidences, mass_accuracies;
    std::vector<double> q_statistic, correlation, kappa, double_fault;
  } lent_;
};

}  // namespace chorus::combine
