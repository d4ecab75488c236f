// SPDX-License-Identifier: Apache-2.0
// A sum that does not depend on order: each term rounded to a multiple of 2^-40, summed in 128-bit integers.
#pragma once
#include <cmath>
#include <cstdint>

namespace chorus::combine {

class FixedSum {
 public:
  // |x| beyond 2^60 saturates; 2^26 such terms fit.
  void add(double x) {
    const double most = 0x1p60;
    const double held = x > most ? most : x < -most ? -most : x;
    const double whole = std::floor(held);
    total_ += (static_cast<Wide>(static_cast<int64_t>(whole)) << 40) +
              static_cast<int64_t>(std::nearbyint((held - whole) * 0x1p40));
  }
  void merge(const FixedSum &other) { total_ += other.total_; }
  double value() const { return static_cast<double>(total_) * 0x1p-40; }

 private:
  __extension__ typedef __int128 Wide;
  Wide total_ = 0;
};

}  // namespace chorus::combine
