// SPDX-License-Identifier: Apache-2.0
// Confidences of best tokens and whether they were right; binned by width and by mass when asked.
#pragma once
#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace chorus::combine {

struct Bins {
  std::vector<int64_t> counts;
  std::vector<double> confidences, accuracies;  // NaN where empty
  // sum of counts |accuracy - confidence| / rows, and the largest of them
  double expected_error = 0, largest_error = 0;
};

class Calibration {
 public:
  // Packs the confidence as f32, whose sign bit is free.
  void add(float confidence, bool right) { seen_.push_back(std::bit_cast<uint32_t>(confidence) << 1 | uint32_t{right}); }
  void merge(const Calibration &other) { seen_.insert(seen_.end(), other.seen_.begin(), other.seen_.end()); }
  // Bin floor(confidence * n), 1 in the last one.
  Bins by_width(size_t n) const;
  // Bins that end at ranks floor(k rows / n), moved up so that equal confidences share a bin.
  Bins by_mass(size_t n) const;

 private:
  std::vector<uint32_t> seen_;
};

}  // namespace chorus::combine
