// SPDX-License-Identifier: Apache-2.0
// Cases of the property tests: a seeded generator (SplitMix64, Steele et al. 2014), the same on every
// machine.
#pragma once
#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <iterator>

namespace conformance {

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  uint64_t bits() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
  }
  double uniform() { return static_cast<double>(bits() >> 11) * 0x1p-53; }
  double uniform(double low, double high) { return low + (high - low) * uniform(); }
  // low to high, both included.
  int64_t integer(int64_t low, int64_t high) {
    return low + static_cast<int64_t>(bits() % static_cast<uint64_t>(high - low + 1));
  }
  // 1 to `high`, each size of number alike.
  int64_t size(int64_t high) {
    return static_cast<int64_t>(std::exp(uniform(0, std::log(static_cast<double>(high) + 1))));
  }
  bool chance(double p) { return uniform() < p; }
  // Box and Muller.
  double normal() {
    return std::sqrt(-2 * std::log(1 - uniform())) * std::cos(6.283185307179586 * uniform());
  }
  template <typename Container>
  auto pick(const Container &from) {
    return *std::next(std::begin(from), integer(0, static_cast<int64_t>(std::size(from)) - 1));
  }
  template <typename T>
  T pick(std::initializer_list<T> from) {
    return *(from.begin() + integer(0, static_cast<int64_t>(from.size()) - 1));
  }

 private:
  uint64_t state_;
};

}  // namespace conformance
