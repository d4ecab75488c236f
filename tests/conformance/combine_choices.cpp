// SPDX-License-Identifier: Apache-2.0
// docs/numerics.md, "Choices", written down once more from the text: IEEE f32, u64, Philox, exact_math.h.
#include "conformance/combine_choices.h"

#include <algorithm>
#include <cmath>

#include "chorus/exact_math.h"

namespace conformance {
namespace {

__extension__ typedef unsigned __int128 Wide;

constexpr float kMinus = -std::numeric_limits<float>::infinity();

float clamped(float x, float most) {
  return std::max(-most, std::min(most, x));
}

uint64_t scaled_floor(float e, int bits) {
  return static_cast<uint64_t>(std::floor(std::ldexp(e, bits)));
}

// s_bits.
int weight_bits(int64_t n_tokens) {
  int bits = 45;
  while (n_tokens > int64_t{1} << (18 + 45 - bits)) --bits;
  return bits;
}

struct Rules {
  const OracleModel &m;
  int bits;

  bool present(int64_t v) const {
    return v < static_cast<int64_t>(m.raw.size()) &&
           m.l[static_cast<size_t>(v)] != -std::numeric_limits<long double>::infinity();
  }
  float score(int64_t v) const {
    const float x = static_cast<float>(m.raw[static_cast<size_t>(v)]);
    return m.is_prob ? chorus_exact_log(x) : x;
  }
  // The model alone: z, its maximum, W, the total.
  float own(int64_t v) const {
    const float c = clamped(1.0f / static_cast<float>(m.temperature), 0x1p100f);
    return clamped(c * score(v), 0x1p121f);
  }
  uint64_t weight(int64_t v) const {
    if (!present(v)) return 0;
    if (!m.is_regular()) return uint64_t{1} << bits;
    return scaled_floor(chorus_exact_exp(own(v) - own(m.top)), bits);
  }
  uint64_t total() const {
    uint64_t sum = 0;
    for (int64_t v = 0; v < static_cast<int64_t>(m.raw.size()); ++v) sum += weight(v);
    return sum;
  }
  // What a token missing in a model of negative weight adds to the key.
  float neutral() const {
    if (!m.is_regular()) return 0;
    const float sum = std::ldexp(static_cast<float>(total()), -bits);
    return clamped(static_cast<float>(m.weight) * (own(m.top) + chorus_exact_log(sum)), 0x1p121f);
  }
  float term(int64_t v) const {
    const float w = static_cast<float>(m.weight);
    if (m.is_one_hot()) return 0;
    if (!m.is_regular()) return w > 0 ? 0 : clamped(w * -chorus_exact_log(static_cast<float>(m.infinite)), 0x1p121f);
    const float c = clamped(w / static_cast<float>(m.temperature), 0x1p100f);
    return clamped(c * score(v), 0x1p121f);
  }
};

struct Draws {
  uint64_t token, model;
};

Draws draws(const CombineProblem &p, int64_t row) {
  const auto value = [&](const std::vector<double> &list, uint64_t otherwise) {
    return list.empty() ? otherwise
                        : static_cast<uint64_t>(static_cast<int64_t>(list[static_cast<size_t>(row)]));
  };
  const uint64_t id = value(p.row_ids, static_cast<uint64_t>(row)), step = value(p.steps, p.step);
  const uint32_t counter[4] = {static_cast<uint32_t>(id), static_cast<uint32_t>(id >> 32),
                               static_cast<uint32_t>(step), static_cast<uint32_t>(step >> 32)};
  const uint32_t key[2] = {static_cast<uint32_t>(p.seed), static_cast<uint32_t>(p.seed >> 32)};
  uint32_t words[4];
  chorus_philox4x32(counter, key, words);
  return {words[0] + (uint64_t{words[1]} << 32), words[2] + (uint64_t{words[3]} << 32)};
}

int64_t draw(const std::vector<uint64_t> &weights, uint64_t random) {
  uint64_t total = 0;
  for (uint64_t w : weights) total += w;
  const auto r = static_cast<uint64_t>(static_cast<Wide>(random) * total >> 64);
  uint64_t cumulative = 0;
  for (size_t i = 0; i < weights.size(); ++i) {
    cumulative += weights[i];
    if (cumulative > r) return static_cast<int64_t>(i);
  }
  return -1;
}

int64_t highest(const std::vector<float> &values, float floor) {
  int64_t best = -1;
  for (size_t v = 0; v < values.size(); ++v) {
    if (values[v] > floor) {
      floor = values[v];
      best = static_cast<int64_t>(v);
    }
  }
  return best;
}

void choose_log_linear(const std::vector<Rules> &models, int64_t n_tokens, int bits, const Draws &random,
                       OracleRow &out) {
  std::vector<float> keys(static_cast<size_t>(n_tokens), 0), neutral;
  for (const Rules &r : models) neutral.push_back(r.m.weight < 0 ? r.neutral() : 0);
  for (int64_t v = 0; v < n_tokens; ++v) {
    float &z = keys[static_cast<size_t>(v)];
    for (size_t i = 0; i < models.size() && z != kMinus; ++i) {
      if (models[i].present(v)) {
        z = z + models[i].term(v);
      } else {
        z = models[i].m.weight > 0 ? kMinus : z + neutral[i];
      }
    }
  }
  out.argmax = highest(keys, kMinus);
  std::vector<uint64_t> weights;
  for (float z : keys)
    weights.push_back(
        z == kMinus ? 0 : scaled_floor(chorus_exact_exp(z - keys[static_cast<size_t>(out.argmax)]), bits));
  out.sample = draw(weights, random.token);
}

void choose_linear(const std::vector<Rules> &models, int64_t n_tokens, int bits, const Draws &random,
                   OracleRow &out) {
  double most = 0;
  for (const Rules &r : models) most = std::max(most, r.m.weight);
  std::vector<float> p(static_cast<size_t>(n_tokens), 0);
  std::vector<uint64_t> shares;
  for (const Rules &r : models) {
    shares.push_back(static_cast<uint64_t>(std::floor(std::ldexp(r.m.weight / most, 56))));
    const auto factor =
        static_cast<float>(r.m.weight / most / std::ldexp(static_cast<double>(r.total()), -bits));
    for (int64_t v = 0; v < n_tokens; ++v) {
      if (!r.present(v)) continue;
      const float q = r.m.is_regular() ? chorus_exact_exp(r.own(v) - r.own(r.m.top)) : 1.0f;
      p[static_cast<size_t>(v)] = p[static_cast<size_t>(v)] + factor * q;
    }
  }
  out.argmax = models.size() == 1 ? models[0].m.top : highest(p, 0);
  const Rules &drawn = models[static_cast<size_t>(draw(shares, random.model))];
  std::vector<uint64_t> weights;
  for (int64_t v = 0; v < n_tokens; ++v) weights.push_back(drawn.weight(v));
  out.sample = draw(weights, random.token);
}

}  // namespace

void choose(const CombineProblem &p, int64_t row, const std::vector<OracleModel> &models, OracleRow &out) {
  const int bits = weight_bits(p.n_tokens);
  std::vector<Rules> rules;
  for (const OracleModel &m : models) rules.push_back({m, bits});
  (p.rule == CHORUS_COMBINE_LINEAR ? choose_linear : choose_log_linear)(rules, p.n_tokens, bits,
                                                                        draws(p, row), out);
}

}  // namespace conformance
