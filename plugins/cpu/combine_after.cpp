// SPDX-License-Identifier: Apache-2.0
// The cut of a row: see combine_after.h. Tokens of integer weight 0 change neither a draw nor a sum, so only those within
// 2^45 of the best count; usually those near it are enough, and none is sorted.
#include "cpu/combine_after.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace chorus::cpu {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Candidate {
  float key;
  int32_t id;
  uint64_t weight;
};

bool is_before(const Candidate &a, const Candidate &b) { return a.key != b.key ? a.key > b.key : a.id < b.id; }

// One row's cut in the making.
class Cutter {
 public:
  Cutter(Row &row, const After &after) : row_(row), run_(*row.run), after_(after) {
    cut_.keys_are_probs = row.rule == CHORUS_COMBINE_LINEAR;
    cut_.top = row.top_key;
    total_ = total_weight();
  }

  Cut make(const Draw &draw) {
    gather();
    int64_t count = keep_top_k();
    count = keep_top_p(count);
    set_cut(count);
    draw_token(draw);
    return cut_;
  }

 private:
  uint64_t weight_of(float key) const {
    if (cut_.keys_are_probs) return static_cast<uint64_t>(key * (1.0f / cut_.top) * chorus_exact_pow2(run_.bits));
    return integer_weight(key, cut_.top, run_.bits);
  }

  uint64_t total_weight() {
    run_.for_blocks([&](int64_t b) {
      const float *keys = row_.slot.keys + b * kBlock;
      uint64_t *sums = row_.slot.sums + b * (kBlock / kPiece);
      const int64_t n = run_.size_of(b);
      if (cut_.keys_are_probs) {
        run_.ops.scaled_weights(keys, n, 1.0f / cut_.top, run_.bits, sums);
      } else {
        run_.ops.weights({keys, CHORUS_F32}, n, {0.0f, 1.0f}, cut_.top, run_.bits, sums);
      }
    });
    uint64_t total = 0;
    for (int64_t p = 0; p * kPiece < run_.n_tokens; ++p) total += row_.slot.sums[p];
    return total;
  }

  // The lowest key that min-p leaves.
  float least_by_min_p() const {
    if (after_.min_p <= 0) return -kInfinity;
    const auto share = static_cast<float>(after_.min_p);
    return cut_.keys_are_probs ? share * cut_.top : cut_.top + chorus_exact_log(share);
  }

  // Tokens from the best down, until they hold what top-k and top-p ask for, in the order of their ids.
  void gather() {
    constexpr int kSteps = 12;  // of 2^-4: below, the weight is 0
    const bool cuts = after_.top_k > 0 || !is_off(after_.top_p);
    const float least = least_by_min_p();
    const bool min_p_is_enough = after_.top_k == 0 || is_off(after_.top_p);
    for (int step = cuts ? 1 : kSteps; ; ++step) {
      float from = cut_.keys_are_probs ? std::ldexp(cut_.top, -4 * step) : cut_.top - 2.7725887f * static_cast<float>(step);
      if (step >= kSteps) from = cut_.keys_are_probs ? std::ldexp(cut_.top, -47) : cut_.top - 33.0f;
      const bool is_last = step >= kSteps || (min_p_is_enough && from <= least);
      if (min_p_is_enough) from = std::max(from, least);
      count_ = 0;
      for (int64_t b = 0; b < run_.blocks(); ++b) {
        if (row_.slot.tops[b] < from) continue;
        count_ += run_.ops.at_least(row_.slot.keys + b * kBlock, run_.size_of(b), from, static_cast<int32_t>(b * kBlock),
                                    row_.slot.ids + count_);
      }
      if (!is_last && after_.top_k > 0 && count_ < after_.top_k) continue;
      sum_ = 0;
      for (int64_t j = 0; j < count_; ++j) {
        const float key = row_.slot.keys[row_.slot.ids[j]];
        candidates()[j] = {key, row_.slot.ids[j], weight_of(key)};
        sum_ += candidates()[j].weight;
      }
      if (is_last || after_.top_k > 0 || static_cast<double>(sum_) >= after_.top_p * static_cast<double>(total_)) return;
    }
  }

  // Moves the k best to the front.
  int64_t keep_top_k() {
    if (after_.top_k == 0) return count_;
    if (after_.top_k >= count_) {  // just k were gathered, or the rest weighs nothing
      total_ = sum_;
      return count_;
    }
    std::nth_element(candidates(), candidates() + after_.top_k, candidates() + count_, is_before);
    total_ = 0;
    for (int64_t j = 0; j < after_.top_k; ++j) total_ += candidates()[j].weight;
    return after_.top_k;
  }

  // Moves the fewest best whose weight reaches the share to the front, by halves.
  int64_t keep_top_p(int64_t count) {
    if (is_off(after_.top_p)) return count;
    const double wanted = after_.top_p * static_cast<double>(total_);
    int64_t low = 0, high = count;  // the answer is in (low, high]
    uint64_t before = 0;
    while (high - low > 1) {
      const int64_t middle = (low + high) / 2;
      std::nth_element(candidates() + low, candidates() + middle, candidates() + high, is_before);
      uint64_t sum = before;
      for (int64_t j = low; j < middle; ++j) sum += candidates()[j].weight;
      if (static_cast<double>(sum) >= wanted) {
        high = middle;
      } else {
        low = middle;
        before = sum;
      }
    }
    return high;
  }

  void set_cut(int64_t count) {
    const Candidate last = *std::max_element(candidates(), candidates() + count, is_before);
    cut_.least = last.key;
    cut_.last = last.id;
    if (const float least = least_by_min_p(); cut_.least < least) {
      cut_.least = least;
      cut_.last = std::numeric_limits<int32_t>::max();
    }
  }

  // Over the ids in their order; those that stay are moved to the front of slot.ids.
  void draw_token(const Draw &draw) {
    uint64_t kept = 0, cumulative = 0;
    int64_t count = 0;
    for (int64_t j = 0; j < count_; ++j) {
      const int32_t id = row_.slot.ids[j];
      const float key = row_.slot.keys[id];
      if (!cut_.keeps(key, id)) continue;
      row_.slot.ids[count++] = id;
      kept += weight_of(key);
    }
    const uint64_t random = chorus_multiply_high(draw.token, kept);
    cut_.drawn = -1;
    for (int64_t j = 0; j < count && cut_.drawn < 0; ++j) {
      cumulative += weight_of(row_.slot.keys[row_.slot.ids[j]]);
      if (cumulative > random) cut_.drawn = row_.slot.ids[j];
    }
    cut_.count = count;
    cut_.share = static_cast<double>(kept) / static_cast<double>(total_of_row());
    const int64_t b = index_of(row_.slot.tops, run_.blocks(), cut_.top);
    cut_.best = b * kBlock + index_of(row_.slot.keys + b * kBlock, run_.size_of(b), cut_.top);
  }

  uint64_t total_of_row() const {
    uint64_t total = 0;
    for (int64_t p = 0; p * kPiece < run_.n_tokens; ++p) total += row_.slot.sums[p];
    return total;
  }

  Candidate *candidates() { return reinterpret_cast<Candidate *>(row_.slot.candidates); }

  Row &row_;
  const Run &run_;
  const After &after_;
  Cut cut_{};
  uint64_t total_ = 0, sum_ = 0;
  int64_t count_ = 0;
};

// Keys times 1 / T, in place, and their new tops.
void apply_temperature(Row &row, double temperature) {
  const Run &run = *row.run;
  const float c = clamp(1.0f / static_cast<float>(temperature), kMostCoefficient);
  run.for_blocks([&](int64_t b) {
    float *keys = row.slot.keys + b * kBlock;
    run.ops.add_terms({keys, CHORUS_F32}, run.size_of(b), {0.0f, c, -kInfinity}, false, true, keys);
    row.slot.tops[b] = run.ops.highest(keys, run.size_of(b));
  });
  row.top_key = *std::max_element(row.slot.tops, row.slot.tops + run.blocks());
}

// log of the mass that stays, of a linear mixture: from the integer weights, whose keys are exact where no product was
// rounded far from 0, else in double.
double linear_log_mass(Row &row, const Cut &cut) {
  bool is_exact = true;
  for (int i = 0; i < row.count; ++i)
    is_exact &= row.models[i].coefficient == 1.0f || std::fabs(own_top(row.models[i])) <= 16.0f;
  if (is_exact) return std::log(cut.share);
  double mass = 0;
  for (int64_t j = 0; j < cut.count; ++j) mass += std::exp(linear_log_prob(row, row.slot.ids[j]));
  return std::log(mass);
}

// log sum exp((key - top) / T) over what stays, of the keys that log-probs are made from.
double log_linear_log_mass(const Row &row, const Cut &cut, double temperature) {
  const auto c = static_cast<float>(1.0 / temperature);
  double mass = 0;
  for (int64_t j = 0; j < cut.count; ++j)
    mass += static_cast<double>(chorus_exact_exp(c * (row.slot.keys[row.slot.ids[j]] - row.top_key)));
  return std::log(mass);
}

}  // namespace

void cut_row(Row &row, const After &after, const Draw &draw, Cut &cut) {
  const bool linear = row.rule == CHORUS_COMBINE_LINEAR;
  if (linear) {
    linear_fill_probs(row);
  } else {
    log_linear_argmax(row);  // fills the keys
    if (after.temperature != 1.0 && after.temperature != 0.0) apply_temperature(row, after.temperature);
  }
  After wanted = after;
  if (after.temperature == 0.0) wanted = {1.0, 0.0, 0.0, 1};  // the best token alone
  cut = Cutter(row, wanted).make(draw);
}

void prepare_cut_log_probs(Row &row, const After &after, Cut &cut) {
  if (row.rule == CHORUS_COMBINE_LINEAR) {
    linear_prepare_log_probs(row);
    cut.log_mass = after.temperature == 0.0 ? 0.0 : linear_log_mass(row, cut);
    return;
  }
  if (after.temperature != 1.0) row.has_keys = false;  // those at hand are divided
  log_linear_prepare_log_probs(row);
  cut.log_mass = after.temperature == 0.0 ? 0.0 : log_linear_log_mass(row, cut, after.temperature);
}

double cut_log_prob(const Row &row, const After &after, const Cut &cut, int64_t v) {
  if (after.temperature == 0.0) return 0.0;
  if (row.rule == CHORUS_COMBINE_LINEAR) return linear_log_prob(row, v) - cut.log_mass;
  return (static_cast<double>(row.slot.keys[v]) - row.top_key) / after.temperature - cut.log_mass;
}

}  // namespace chorus::cpu
