// SPDX-License-Identifier: Apache-2.0
// Bits are little endian: bit i of a record is bit i % 8 of byte i / 8.
#include "combine/packed_target.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include "chorus/plugin.hpp"
#include "runtime/dtype.h"

namespace chorus::combine {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kDeepest = 40;  // nats below the best token

class BitWriter {
 public:
  explicit BitWriter(uint8_t *to) : to_(to) {}
  void put(uint64_t value, int32_t bits) {
    for (int32_t i = 0; i < bits; ++i, ++at_) to_[at_ / 8] |= static_cast<uint8_t>((value >> i & 1) << at_ % 8);
  }
  void set(uint64_t ahead) { to_[(at_ + ahead) / 8] |= static_cast<uint8_t>(1 << (at_ + ahead) % 8); }
  void skip(uint64_t bits) { at_ += bits; }

 private:
  uint8_t *to_;
  uint64_t at_ = 0;
};

class BitReader {
 public:
  explicit BitReader(const uint8_t *from) : from_(from) {}
  uint64_t take(int32_t bits) {
    uint64_t value = 0;
    for (int32_t i = 0; i < bits; ++i, ++at_) value |= static_cast<uint64_t>(from_[at_ / 8] >> at_ % 8 & 1) << i;
    return value;
  }

 private:
  const uint8_t *from_;
  uint64_t at_ = 0;
};

// The smallest f16 >= x > 0.
uint16_t f16_above(double x) {
  uint16_t half = f64_to_f16(x);
  if (f16_to_f32(half) < x) ++half;  // positive halves are ordered as integers
  return half;
}

double log_sum(const std::vector<double> &logs, double more) {
  double top = more;
  for (const double l : logs) top = std::max(top, l);
  if (top == -kInfinity) return top;
  double sum = std::exp(more - top);
  for (const double l : logs) sum += std::exp(l - top);
  return top + std::log(sum);
}

// log x / (1 - x) of a tail from the logs of x and of the rest, and back.
double logit_of(double log_tail, double log_rest) { return log_tail == -kInfinity ? -kInfinity : log_tail - log_rest; }
double log_sigmoid(double x) { return x < 0 ? x - std::log1p(std::exp(x)) : -std::log1p(std::exp(-x)); }

}  // namespace

PackedFormat::PackedFormat(int32_t k, int64_t n_tokens, int32_t bits)
    : k_(k), bits_(bits), count_bits_(std::bit_width(static_cast<uint32_t>(k))), n_tokens_(n_tokens) {
  low_bits_ = std::bit_width(static_cast<uint64_t>(n_tokens / k)) - 1;
  high_bits_ = static_cast<uint64_t>(k) + (static_cast<uint64_t>(n_tokens - 1) >> low_bits_);
  bits_of_record_ = static_cast<uint64_t>(count_bits_) + 32 +
                    static_cast<uint64_t>(k) * static_cast<uint64_t>(low_bits_ + bits_) + high_bits_;
}

void PackedFormat::pack(const SparseTarget &target, uint8_t *record) const {
  std::memset(record, 0, bytes());
  std::vector<size_t> kept;
  double best = -kInfinity;
  for (const double l : target.log_probs) best = std::max(best, l);
  std::vector<double> logs, dropped;
  for (size_t i = 0; i < target.ids.size(); ++i) {
    const double l = target.log_probs[i];
    if (l == -kInfinity) continue;
    (best - l <= kDeepest ? logs : dropped).push_back(l);
    if (best - l <= kDeepest) kept.push_back(i);
  }
  std::ranges::sort(kept, {}, [&](size_t i) { return target.ids[i]; });
  const double tail = log_sum(dropped, target.tail);
  double deepest = 0;
  for (const double l : logs) deepest = std::max(deepest, best - l);
  const uint16_t range = deepest > 0 ? f16_above(deepest) : 0;
  const double scale = f16_to_f32(range), steps = (1 << bits_) - 1;

  BitWriter out(record);
  out.put(kept.size(), count_bits_);
  out.put(f64_to_f16(kept.empty() ? kInfinity : logit_of(tail, log_sum(logs, -kInfinity))), 16);
  out.put(range, 16);
  for (size_t j = 0; j < static_cast<size_t>(k_); ++j) {
    out.put(j < kept.size() ? static_cast<uint64_t>(target.ids[kept[j]]) & ((uint64_t{1} << low_bits_) - 1) : 0, low_bits_);
  }
  for (size_t j = 0; j < kept.size(); ++j) out.set((static_cast<uint64_t>(target.ids[kept[j]]) >> low_bits_) + j);
  out.skip(high_bits_);
  for (const size_t i : kept) {
    const double depth = best - target.log_probs[i];
    out.put(depth > 0 ? static_cast<uint64_t>(std::nearbyint(std::sqrt(depth / scale) * steps)) : 0, bits_);
  }
}

const char *PackedFormat::unpack(const uint8_t *record, SparseTarget *target) const {
  BitReader in(record);
  const uint64_t count = in.take(count_bits_);
  if (count > static_cast<uint64_t>(k_)) return "it counts more tokens than k";
  const double logit = f16_to_f32(static_cast<uint16_t>(in.take(16)));
  const double scale = f16_to_f32(static_cast<uint16_t>(in.take(16)));
  if (std::isnan(logit) || (logit == kInfinity) != (count == 0)) return "its tail is no probability";
  if (!(scale >= 0 && scale <= 2 * kDeepest)) return "its range is no distance";
  std::vector<int64_t> ids(count);
  for (size_t j = 0; j < static_cast<size_t>(k_); ++j) {
    const uint64_t low = in.take(low_bits_);
    if (j < count) ids[j] = static_cast<int64_t>(low);
  }
  uint64_t found = 0;
  for (uint64_t at = 0; at < high_bits_; ++at) {
    if (in.take(1) == 0) continue;
    if (found == count) return "it holds more ids than it counts";
    ids[found] |= static_cast<int64_t>((at - found) << low_bits_);
    ++found;
  }
  if (found != count) return "it holds fewer ids than it counts";
  std::vector<double> depths(count);
  for (uint64_t j = 0; j < count; ++j) {
    if (ids[j] >= n_tokens_ || (j > 0 && ids[j] <= ids[j - 1])) return "its ids do not ascend within the vocabulary";
    const double part = static_cast<double>(in.take(bits_)) / ((1 << bits_) - 1);
    depths[j] = -part * part * scale;
  }
  const double total = log_sum(depths, -kInfinity) - log_sigmoid(-logit);  // the tokens share 1 - tail
  std::vector<size_t> order(count);
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::stable_sort(order, std::greater{}, [&](size_t j) { return depths[j]; });
  *target = {{}, {}, count == 0 ? 0.0 : log_sigmoid(logit)};
  for (const size_t j : order) {
    target->ids.push_back(static_cast<int32_t>(ids[j]));
    target->log_probs.push_back(depths[j] - total);
  }
  return nullptr;
}

SparseTarget best_of(const double *log_probs, int64_t n, int32_t k) {
  std::vector<int32_t> ids(static_cast<size_t>(n));
  std::iota(ids.begin(), ids.end(), 0);
  const auto better = [&](int32_t a, int32_t b) { return log_probs[a] != log_probs[b] ? log_probs[a] > log_probs[b] : a < b; };
  std::ranges::nth_element(ids, ids.begin() + (k - 1), better);
  std::sort(ids.begin(), ids.begin() + k, better);
  SparseTarget out{{}, {}, -kInfinity};
  std::vector<bool> taken(static_cast<size_t>(n));
  for (int32_t j = 0; j < k && log_probs[ids[static_cast<size_t>(j)]] > -kInfinity; ++j) {
    out.ids.push_back(ids[static_cast<size_t>(j)]);
    out.log_probs.push_back(log_probs[out.ids.back()]);
    taken[static_cast<size_t>(out.ids.back())] = true;
  }
  // The rest below its own maximum, so that a tail of 1e-400 keeps its logarithm.
  double top = -kInfinity;
  for (int64_t v = 0; v < n; ++v) {
    if (!taken[static_cast<size_t>(v)]) top = std::max(top, log_probs[v]);
  }
  if (top > -kInfinity) {
    out.tail = top + std::log(plugin::sum_in_order<double>(n, [&](int64_t v) {
      return taken[static_cast<size_t>(v)] ? 0.0 : std::exp(log_probs[v] - top);
    }));
  }
  return out;
}

}  // namespace chorus::combine
