// SPDX-License-Identifier: Apache-2.0
// The auxiliary losses of route_loss.h: sums over the tokens first, then what they are to each token. Two passes over the
// logits in f64; a row of probabilities at a time, so O(E) memory.
#include <algorithm>
#include <cmath>

#include "chorus/plugin.hpp"
#include "route/backward.h"
#include "route/probabilities.h"
#include "runtime/error.h"

namespace chorus::route {
namespace {

using Row = std::vector<double>;

// Probabilities of a row, and the way back through them.
class Probabilities {
 public:
  explicit Probabilities(const chorus_route_desc &d) : desc_(d), p(static_cast<size_t>(d.n_experts)), x_(p.size()), s_(p.size()) {
    if (d.score == CHORUS_ROUTE_IDENTITY || d.score == CHORUS_ROUTE_RELU) {
      fail(CHORUS_UNIMPLEMENTED, "kind needs probabilities; the router's score ({}) is identity or relu, which has none", d.score);
    }
  }
  void compute(const chorus_tensor &logits, int64_t t) {
    read_row(logits, t, &x_);
    for (double &x : x_) x /= desc_.temperature;
    score(desc_.score, x_, &s_);
    divisor_ = 1;
    if (desc_.score != CHORUS_ROUTE_SOFTMAX) {
      divisor_ = 1e-20;
      for (const double s : s_) divisor_ += s;
    }
    bool finite = true;
    for (const double x : x_) finite = finite && std::isfinite(x);
    for (size_t e = 0; e < p.size(); ++e) p[e] = finite ? s_[e] / divisor_ : NAN;
  }
  // Gradient of p, in place, becomes that of the logits.
  void backward(Row *gradient) const {
    if (desc_.score != CHORUS_ROUTE_SOFTMAX) {
      double mean = 0;
      for (size_t e = 0; e < p.size(); ++e) mean += (*gradient)[e] * p[e];
      for (double &g : *gradient) g = (g - mean) / divisor_;
    }
    score_backward(desc_.score, x_, s_, gradient);
    for (double &g : *gradient) g /= desc_.temperature;
  }

 private:
  const chorus_route_desc &desc_;

 public:
  Row p;

 private:
  Row x_, s_;
  double divisor_ = 1;
};

struct Batch {
  const chorus_route_desc &desc;
  const chorus_tensor &logits;
  const chorus_route_loss_in &in;
  const chorus_tensor *gradient;
  int64_t tokens;  // valid ones
  size_t experts() const { return static_cast<size_t>(desc.n_experts); }
};

// Slots per expert among rows [begin, end), of the first `slots` of each.
Row count_slots(const Batch &b, int64_t begin, int64_t end, int32_t slots) {
  Row counts(b.experts());
  for (int64_t t = begin; t < end; ++t) {
    for (int32_t j = 0; j < slots; ++j) {
      const int64_t id = plugin::integer_at(b.desc.ids_dtype, plugin::row_of(*b.in.ids, t), j);
      if (id < -1 || id >= b.desc.n_experts) {
        fail(CHORUS_INVALID_ARGUMENT, "ids[{}, {}] is {}; -1 to {} are allowed", t, j, id, b.desc.n_experts - 1);
      }
      if (id >= 0) counts[static_cast<size_t>(id)] += 1;
    }
  }
  return counts;
}

void write_gradient(const Batch &b, int64_t t, const Row &gradient) {
  if (b.gradient != nullptr) write_row(*b.gradient, t, gradient);
}

// sum_e factors_e sum_t p_te over rows [begin, end), with its gradient.
double weighted_mass(const Batch &b, int64_t begin, int64_t end, const Row &factors) {
  Probabilities probabilities(b.desc);
  double total = 0;
  Row gradient;
  for (int64_t t = begin; t < end; ++t) {
    probabilities.compute(b.logits, t);
    double mass = 0;
    for (size_t e = 0; e < factors.size(); ++e) mass += factors[e] * probabilities.p[e];
    total += mass;
    if (b.gradient == nullptr) continue;
    gradient = factors;
    probabilities.backward(&gradient);
    write_gradient(b, t, gradient);
  }
  return total;
}

// E sum_e (n_e / (T slots_divisor)) mean_t p_te over [begin, end), times `weight`.
double balance(const Batch &b, int64_t begin, int64_t end, int32_t slots, double slots_divisor, double weight) {
  if (begin == end) return 0;
  const auto tokens = static_cast<double>(end - begin);
  Row factors = count_slots(b, begin, end, slots);
  for (double &f : factors) f *= weight * static_cast<double>(b.desc.n_experts) / (tokens * slots_divisor) / tokens;
  return weighted_mass(b, begin, end, factors);
}

void check_sequences(const chorus_tensor &sequences, int64_t rows) {
  const int64_t count = sequences.shape[0] - 1;
  const auto at = [&](int64_t i) { return plugin::integer_at(sequences, i); };
  if (count < 0 || at(0) != 0 || at(count) != rows) {
    fail(CHORUS_INVALID_ARGUMENT, "sequences must ascend from 0 to the {} rows of the logits", rows);
  }
  for (int64_t i = 0; i < count; ++i) {
    if (at(i + 1) < at(i)) fail(CHORUS_INVALID_ARGUMENT, "sequences[{}] is {}, below sequences[{}]", i + 1, at(i + 1), i);
  }
}

double sequence_balance(const Batch &b) {
  const int64_t count = b.in.sequences->shape[0] - 1;
  const auto at = [&](int64_t i) { return plugin::integer_at(*b.in.sequences, i); };
  int64_t filled = 0;
  for (int64_t i = 0; i < count; ++i) filled += std::min(at(i + 1), b.tokens) > std::min(at(i), b.tokens);
  double loss = 0;
  for (int64_t i = 0; i < count; ++i) {
    loss += balance(b, std::min(at(i), b.tokens), std::min(at(i + 1), b.tokens), b.desc.k, b.desc.k,
                    b.in.coefficient / static_cast<double>(std::max<int64_t>(filled, 1)));
  }
  return loss;
}

double z_loss(const Batch &b) {
  Row x(b.experts());
  double sum = 0;
  for (int64_t t = 0; t < b.tokens; ++t) {
    read_row(b.logits, t, &x);
    bool finite = true;
    for (const double v : x) finite = finite && std::isfinite(v);
    const double top = *std::max_element(x.begin(), x.end());
    double mass = 0;
    for (const double v : x) mass += std::exp(v - top);
    const double log_sum = finite ? top + std::log(mass) : NAN;
    sum += log_sum * log_sum;
    const double factor = b.in.coefficient * 2 * log_sum / static_cast<double>(b.tokens);
    for (double &v : x) v = factor * std::exp(v - log_sum);
    write_gradient(b, t, x);
  }
  return b.in.coefficient * sum / static_cast<double>(b.tokens);
}

// CV^2 of `sums`, and in `slopes` its derivative by each: with m the mean, v the variance, 2 (s_e - m - v / m) / (E m^2).
double squared_variation(const Row &sums, Row *slopes) {
  const auto n = static_cast<double>(sums.size());
  double mean = 0, variance = 0;
  for (const double s : sums) mean += s / n;
  for (const double s : sums) variance += (s - mean) * (s - mean) / n;
  for (size_t e = 0; e < sums.size(); ++e) (*slopes)[e] = 2 * (sums[e] - mean - variance / mean) / (n * mean * mean);
  return variance / (mean * mean);
}

double importance(const Batch &b) {
  Probabilities probabilities(b.desc);
  Row sums(b.experts()), slopes(b.experts());
  for (int64_t t = 0; t < b.tokens; ++t) {
    probabilities.compute(b.logits, t);
    for (size_t e = 0; e < sums.size(); ++e) sums[e] += probabilities.p[e];
  }
  const double loss = squared_variation(sums, &slopes);
  for (double &s : slopes) s *= b.in.coefficient;
  if (b.gradient != nullptr) weighted_mass(b, 0, b.tokens, slopes);
  return b.in.coefficient * loss;
}

// P(x_e + noise >= threshold) = Phi((x_e - threshold) / noise), and the place of the threshold.
struct Chance {
  Row x, noisy, p, slope;  // slope: derivative of p by x_e
  size_t threshold = 0;

  explicit Chance(size_t experts) : x(experts), noisy(experts), p(experts), slope(experts) {}
  void compute(const Batch &b, int64_t t) {
    read_row(b.logits, t, &x);
    read_row(*b.in.noisy_logits, t, &noisy);
    std::vector<size_t> order(x.size());
    for (size_t e = 0; e < x.size(); ++e) order[e] = e;
    const auto better = [&](size_t l, size_t r) { return noisy[l] > noisy[r] || (noisy[l] == noisy[r] && l < r); };
    bool finite = true;
    for (size_t e = 0; e < x.size(); ++e) finite = finite && std::isfinite(x[e]) && std::isfinite(noisy[e]);
    const auto kth = order.begin() + (b.desc.k - 1);
    if (finite) std::nth_element(order.begin(), kth, order.end(), better);
    threshold = *kth;
    for (size_t e = 0; e < x.size(); ++e) {
      const double z = (x[e] - noisy[threshold]) / b.in.noise;
      p[e] = finite ? 0.5 * std::erfc(-z / std::sqrt(2.0)) : NAN;
      slope[e] = std::exp(-0.5 * z * z) / (b.in.noise * std::sqrt(2 * M_PI));
    }
  }
};

double load_loss(const Batch &b) {
  Chance chance(b.experts());
  Row means(b.experts()), slopes(b.experts()), gradient(b.experts());
  for (int64_t t = 0; t < b.tokens; ++t) {
    chance.compute(b, t);
    for (size_t e = 0; e < means.size(); ++e) means[e] += chance.p[e] / static_cast<double>(b.tokens);
  }
  const double loss = squared_variation(means, &slopes);
  for (int64_t t = 0; b.gradient != nullptr && t < b.tokens; ++t) {
    chance.compute(b, t);
    double through_threshold = 0;
    for (size_t e = 0; e < means.size(); ++e) {
      gradient[e] = b.in.coefficient * slopes[e] * chance.slope[e] / static_cast<double>(b.tokens);
      through_threshold += gradient[e];
    }
    gradient[chance.threshold] -= through_threshold;
    write_gradient(b, t, gradient);
  }
  return b.in.coefficient * loss;
}

bool counts_slots(chorus_route_loss_kind kind) {
  return kind == CHORUS_ROUTE_LOSS_SWITCH || kind == CHORUS_ROUTE_LOSS_HF || kind == CHORUS_ROUTE_LOSS_GSHARD ||
         kind == CHORUS_ROUTE_LOSS_SEQUENCE;
}

// A tensor that `kind` needs, or must not have.
void check_input(const char *name, const chorus_tensor *tensor, bool wanted, const TensorRule &rule, const Batch &b,
                 const Device &device) {
  if (!wanted && tensor != nullptr) fail(CHORUS_INVALID_ARGUMENT, "{} is given; loss kind {} takes none", name, b.in.kind);
  if (!wanted) return;
  check_tensor(tensor, rule, device);
  if (b.gradient != nullptr) check_no_overlap(*b.gradient, "gradient", *tensor, name);
}

void check(const Batch &b, const Device &device) {
  const chorus_route_loss_in &in = b.in;
  const int64_t rows = b.logits.shape[0], experts = b.desc.n_experts;
  if (in.kind < CHORUS_ROUTE_LOSS_SWITCH || in.kind > CHORUS_ROUTE_LOSS_SEQUENCE) {
    fail(CHORUS_INVALID_ARGUMENT, "kind is {}; 0 to {} are known", in.kind, CHORUS_ROUTE_LOSS_SEQUENCE);
  }
  if (in.reserved != 0) fail(CHORUS_INVALID_ARGUMENT, "reserved is {}; it must be 0", in.reserved);
  if (!std::isfinite(in.coefficient)) fail(CHORUS_INVALID_ARGUMENT, "coefficient is {}; finite is needed", in.coefficient);
  const bool load = in.kind == CHORUS_ROUTE_LOSS_LOAD, sequence = in.kind == CHORUS_ROUTE_LOSS_SEQUENCE;
  if (b.gradient != nullptr) {
    check_tensor(b.gradient, {"gradient", {CHORUS_F32, CHORUS_F64}, {rows, experts}, true}, device);
    check_no_overlap(*b.gradient, "gradient", b.logits, "logits");
  }
  check_input("ids", in.ids, counts_slots(in.kind), {"ids", {b.desc.ids_dtype}, {rows, b.desc.k}}, b, device);
  check_input("sequences", in.sequences, sequence, {"sequences", {CHORUS_I64}, {kAnySize}}, b, device);
  check_input("noisy_logits", in.noisy_logits, load, {"noisy_logits", {CHORUS_F32, CHORUS_F64}, {rows, experts}}, b, device);
  if (sequence) check_sequences(*in.sequences, rows);
  if (load && !(in.noise > 0 && std::isfinite(in.noise))) {
    fail(CHORUS_INVALID_ARGUMENT, "noise is {}; the load loss needs one above 0, finite", in.noise);
  }
  if (in.kind != CHORUS_ROUTE_LOSS_Z && !load) Probabilities{b.desc};  // refuses scores that have none
}

}  // namespace

double router_loss(const Router &router, const chorus_tensor *logits, const chorus_route_loss_in &in,
                   const chorus_tensor *gradient) {
  check_host_router(router);
  const chorus_route_desc &d = router.desc();
  const Device &device = router.device();
  check_tensor(logits, {"logits", {d.logits_dtype, CHORUS_F64}, {kAnySize, d.n_experts}}, device);
  Batch b{d, *logits, in, gradient, logits->shape[0]};
  check(b, device);
  if (in.n_valid != nullptr) {
    check_tensor(in.n_valid, {"n_valid", {CHORUS_I64}, {1}}, device);
    if (gradient != nullptr) check_no_overlap(*gradient, "gradient", *in.n_valid, "n_valid");
    b.tokens = std::clamp<int64_t>(plugin::integer_at(*in.n_valid, 0), 0, b.tokens);
  }
  if (counts_slots(in.kind)) count_slots(b, 0, b.tokens, d.k);  // bad ids fail before anything is written
  for (int64_t t = b.tokens; t < logits->shape[0]; ++t) write_gradient(b, t, Row(b.experts()));
  if (b.tokens == 0) return 0;
  switch (in.kind) {
    case CHORUS_ROUTE_LOSS_SWITCH: return balance(b, 0, b.tokens, d.k, d.k, in.coefficient);
    case CHORUS_ROUTE_LOSS_HF: return balance(b, 0, b.tokens, d.k, 1, in.coefficient);
    case CHORUS_ROUTE_LOSS_GSHARD: return balance(b, 0, b.tokens, 1, 1, in.coefficient);
    case CHORUS_ROUTE_LOSS_Z: return z_loss(b);
    case CHORUS_ROUTE_LOSS_IMPORTANCE: return importance(b);
    case CHORUS_ROUTE_LOSS_LOAD: return load_loss(b);
    default: return sequence_balance(b);
  }
}

}  // namespace chorus::route
