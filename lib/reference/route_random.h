// SPDX-License-Identifier: Apache-2.0
// Random words of routing, keyed by (seed, row id, step) so that a token's draws know nothing of its batch
// (docs/numerics.md, "Routing").
#pragma once
#include <cstdint>

#include "chorus/exact_math.h"
#include "reference/backend.h"

namespace chorus::reference {

// What a word is for.
inline constexpr uint32_t kNoiseWords = 0;   // element e: the expert
inline constexpr uint32_t kSecondWords = 1;  // element e: the expert (Gumbel), or 0 (random second)
inline constexpr uint32_t kDropWords = 2;    // element j: the slot

class RandomWords {
 public:
  // Of row t of a call.
  RandomWords(const chorus_route_args &args, int64_t t) {
    const auto row = static_cast<uint64_t>(args.row_ids != nullptr ? integer_at(*args.row_ids, t) : t);
    const uint32_t counter[4] = {low(row), high(row), low(args.step), high(args.step)};
    const uint32_t seed[2] = {low(args.seed), high(args.seed)};
    uint32_t words[4];
    chorus_philox4x32(counter, seed, words);
    key_[0] = words[0];
    key_[1] = words[1];
  }
  uint32_t operator()(uint32_t use, int32_t element) const {
    const uint32_t counter[4] = {static_cast<uint32_t>(element) / 4, use, 0, 0};
    uint32_t words[4];
    chorus_philox4x32(counter, key_, words);
    return words[element % 4];
  }

 private:
  static uint32_t low(uint64_t x) { return static_cast<uint32_t>(x); }
  static uint32_t high(uint64_t x) { return static_cast<uint32_t>(x >> 32); }
  uint32_t key_[2];
};

}  // namespace chorus::reference
