// SPDX-License-Identifier: Apache-2.0
// The two halves of the routing oracle: what a token alone decides, and what the tokens of a call decide together.
#pragma once
#include <cstdint>
#include <vector>

#include "conformance/route_problem.h"

namespace conformance {

using Floats = std::vector<float>;

struct RoutedToken {
  Floats scores, keys;       // [E]
  Floats x;                  // [E]: logits with noise and temperature
  std::vector<int32_t> ids;  // [k], -1: none
  Floats weights;            // [k], before `scale`
  float priority = 0;        // best score of the chosen
};

// The token's own part of docs/numerics.md, "Routing"; with experts that choose, scores and keys alone.
RoutedToken route_token(const RouteProblem &p, int64_t t);
void renormalise_by_rules(const RouteProblem &p, Floats &w);

template <typename T>
T join_by_rules(std::vector<T> v) {
  while (v.size() > 1) {
    std::vector<T> next;
    for (size_t i = 0; i < v.size(); i += 2) next.push_back(i + 1 < v.size() ? v[i] + v[i + 1] : v[i]);
    v = next;
  }
  return v.empty() ? 0 : v[0];
}

// "Reductions".
template <typename T>
T sum_by_rules(const std::vector<T> &x) {
  std::vector<T> blocks;
  for (size_t b = 0; b < x.size(); b += 4096) {
    std::vector<T> lanes(32, 0);
    for (size_t i = b; i < std::min(x.size(), b + 4096); ++i) lanes[i % 32] = lanes[i % 32] + x[i];
    blocks.push_back(join_by_rules(lanes));
  }
  return join_by_rules(blocks);
}

// Word `element` of use `use` of the random numbers of token t: 0 noise, 1 second expert, 2 drop.
uint32_t random_word(const RouteProblem &p, int64_t t, uint32_t use, int64_t element);

// Indices `from` by key, higher first, equal by place in `from`, NaN last.
std::vector<int32_t> ranked(const Floats &keys, std::vector<int32_t> from);
std::vector<int32_t> range(int32_t begin, int32_t end);

}  // namespace conformance
