// SPDX-License-Identifier: Apache-2.0
// Contexts without plugins, and numbers that the scripts of tests/vectors make the same way.
#pragma once
#include <cstdint>
#include <limits>
#include <map>
#include <string>

#include "chorus/chorus.hpp"
#include "unit/support.h"

namespace unit {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

inline const chorus::Context &context(int threads = 2) {
  static std::map<int, chorus::Context> contexts;
  auto found = contexts.find(threads);
  if (found == contexts.end()) {
    chorus::ContextSpec spec;
    spec.set_option("plugins", "none");
    spec.set_option("threads", std::to_string(threads));
    found = contexts.emplace(threads, chorus::Context(spec)).first;
  }
  return found->second;
}

inline uint64_t splitmix(uint64_t x) {
  x += 0x9E3779B97F4A7C15u;
  x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
  x = (x ^ x >> 27) * 0x94D049BB133111EBu;
  return x ^ x >> 31;
}

// A number in [-4, 4) in steps of 1/128.
inline double noise(uint64_t seed, uint64_t a, uint64_t b, uint64_t c) {
  return (static_cast<double>((splitmix(((seed * 64 + a) * 4096 + b) * 64 + c) >> 40) % 1024) - 512) / 128;
}

}  // namespace unit
