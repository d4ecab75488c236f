// SPDX-License-Identifier: Apache-2.0
// Both binnings of the expected calibration error (Guo et al. 2017; Nixon et al. 2019).
#include "combine/calibration.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "combine/fixed_sum.h"

namespace chorus::combine {
namespace {

float confidence_of(uint32_t packed) { return std::bit_cast<float>(packed >> 1); }

class Binning {
 public:
  explicit Binning(size_t n) : counts_(n), right_(n), confidence_(n) {}
  void add(size_t bin, uint32_t packed) {
    ++counts_[bin];
    right_[bin] += packed & 1;
    confidence_[bin].add(confidence_of(packed));
  }
  Bins finish() const {
    constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
    Bins out;
    int64_t rows = 0;
    for (size_t b = 0; b < counts_.size(); ++b) {
      const auto count = static_cast<double>(counts_[b]);
      rows += counts_[b];
      out.counts.push_back(counts_[b]);
      out.confidences.push_back(counts_[b] > 0 ? confidence_[b].value() / count : kNaN);
      out.accuracies.push_back(counts_[b] > 0 ? static_cast<double>(right_[b]) / count : kNaN);
      if (counts_[b] == 0) continue;
      const double error = std::abs(out.accuracies[b] - out.confidences[b]);
      out.expected_error += count * error;
      out.largest_error = std::max(out.largest_error, error);
    }
    out.expected_error = rows > 0 ? out.expected_error / static_cast<double>(rows) : kNaN;
    if (rows == 0) out.largest_error = kNaN;
    return out;
  }

 private:
  std::vector<int64_t> counts_, right_;
  std::vector<FixedSum> confidence_;
};

}  // namespace

Bins Calibration::by_width(size_t n) const {
  Binning out(n);
  for (const uint32_t packed : seen_) {
    const double place = static_cast<double>(confidence_of(packed)) * static_cast<double>(n);
    out.add(std::min(n - 1, static_cast<size_t>(place)), packed);
  }
  return out.finish();
}

Bins Calibration::by_mass(size_t n) const {
  std::vector<uint32_t> sorted = seen_;
  std::ranges::sort(sorted);
  Binning out(n);
  size_t bin = 0;
  for (size_t i = 0; i < sorted.size(); ++i) {
    const bool tied = i > 0 && sorted[i] >> 1 == sorted[i - 1] >> 1;
    // Rank i lies in the bin b with floor(b rows / n) <= i < floor((b + 1) rows / n).
    while (!tied && bin + 1 < n && i >= (bin + 1) * sorted.size() / n) ++bin;
    out.add(bin, sorted[i]);
  }
  return out.finish();
}

}  // namespace chorus::combine
