// SPDX-License-Identifier: Apache-2.0
// EM with a projected Newton step. The gap is a certificate: L is concave and g.w = 1, so L* - L <= max_i g_i - 1.
#include "combine/fit_linear.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "combine/parallel.h"

namespace chorus::combine {
namespace {

constexpr int32_t kFirstEmSteps = 10;  // before the quadratic model is trusted
constexpr double kAtBound = 1e-12;     // weights below count as 0

double gap_of(const Evaluation &at) { return std::max(0.0, *std::ranges::max_element(at.gradient) - 1); }

// Minimises (x - w)^T H (x - w) / 2 - g^T (x - w) over the simplex: the active-set method for convex quadratic programs
// (Nocedal and Wright, 16.5), from the feasible x = w.
class SimplexStep {
 public:
  SimplexStep(const Evaluation &at, const Vector &weights) : at_(at), w_(weights), x_(weights), free_(weights.size()) {
    double top = 0;
    for (size_t i = 0; i < w_.size(); ++i) top = std::max(top, at.curvature(i, i));
    damping_ = 1e-10 * top;  // identical models make H singular
    for (size_t i = 0; i < w_.size(); ++i) free_[i] = w_[i] > kAtBound;
  }

  // The minimiser; false when the arithmetic gave out.
  bool find(Vector *out) {
    for (size_t round = 0; round < 10 * w_.size() + 10; ++round) {
      Vector target;
      double multiplier;
      if (!minimise_free(&target, &multiplier)) return false;
      if (!move_towards(target)) continue;  // a weight reached 0 and stays there
      const size_t leaving = most_wanted(multiplier);
      if (leaving == w_.size()) {
        *out = x_;
        return true;
      }
      free_[leaving] = true;
    }
    return false;
  }

 private:
  double slope(size_t i) const {  // derivative of the model at x
    double sum = -at_.gradient[i];
    for (size_t j = 0; j < w_.size(); ++j) sum += hessian(i, j) * (x_[j] - w_[j]);
    return sum;
  }
  double hessian(size_t i, size_t j) const { return at_.curvature(i, j) + (i == j ? damping_ : 0); }

  // The minimum over the free weights with their sum kept: H d + 1 m = -slope, 1^T d = 0.
  bool minimise_free(Vector *target, double *multiplier) const {
    std::vector<size_t> index;
    for (size_t i = 0; i < w_.size(); ++i) {
      if (free_[i]) index.push_back(i);
    }
    const size_t k = index.size();
    Matrix a(k + 1);
    Vector b(k + 1, 0.0), d;
    for (size_t i = 0; i < k; ++i) {
      for (size_t j = 0; j < k; ++j) a(i, j) = hessian(index[i], index[j]);
      a(i, k) = a(k, i) = 1;
      b[i] = -slope(index[i]);
    }
    if (!solve(std::move(a), std::move(b), &d)) return false;
    *target = x_;
    for (size_t i = 0; i < k; ++i) (*target)[index[i]] += d[i];
    *multiplier = d[k];
    return true;
  }

  // True when the whole way was free; else x stops where the first weight reaches 0, which is then fixed.
  bool move_towards(const Vector &target) {
    double step = 1;
    size_t blocking = w_.size();
    for (size_t i = 0; i < w_.size(); ++i) {
      if (!free_[i] || target[i] >= 0) continue;
      const double reach = x_[i] / (x_[i] - target[i]);
      if (reach < step) {
        step = reach;
        blocking = i;
      }
    }
    for (size_t i = 0; i < w_.size(); ++i) {
      if (free_[i]) x_[i] += step * (target[i] - x_[i]);
    }
    if (blocking == w_.size()) return true;
    x_[blocking] = 0;
    free_[blocking] = false;
    return false;
  }

  // The fixed weight whose growth lowers the model most; size() when none does.
  size_t most_wanted(double multiplier) const {
    size_t best = w_.size();
    double steepest = -1e-13;
    for (size_t i = 0; i < w_.size(); ++i) {
      if (free_[i]) continue;
      const double value = slope(i) + multiplier;
      if (value < steepest) {
        steepest = value;
        best = i;
      }
    }
    return best;
  }

  const Evaluation &at_;
  const Vector &w_;
  Vector x_;
  std::vector<uint8_t> free_;
  double damping_;
};

void renormalise(Vector *weights) {
  for (double &w : *weights) w = w > 0 ? w : 0;
  const double sum = std::accumulate(weights->begin(), weights->end(), 0.0);
  for (double &w : *weights) w /= sum;
}

struct State {
  const Pool &pool;
  const GoldTable &gold;
  Vector weights;
  Evaluation at;
};

// One quadratic step with backtracking; false when it does not gain.
bool quadratic_step(State *state) {
  Vector target;
  if (!SimplexStep(state->at, state->weights).find(&target)) return false;
  renormalise(&target);
  double slope = 0;
  for (size_t i = 0; i < target.size(); ++i) slope += state->at.gradient[i] * (target[i] - state->weights[i]);
  if (!(slope > 0)) return false;
  for (double step = 1; step > 1e-3; step /= 2) {
    Vector trial = state->weights;
    for (size_t i = 0; i < trial.size(); ++i) trial[i] += step * (target[i] - trial[i]);
    renormalise(&trial);
    Evaluation at = state->gold.evaluate(state->pool, trial, true);
    if (at.value - state->at.value >= 0.1 * step * slope) {  // Armijo; false for NaN
      state->weights = std::move(trial);
      state->at = std::move(at);
      return true;
    }
  }
  return false;
}

// w_i <- w_i g_i never lowers the likelihood. A weight that a quadratic step set to 0 and that is wanted again gets a start.
void em_step(State *state) {
  for (size_t i = 0; i < state->weights.size(); ++i) {
    double &w = state->weights[i];
    if (w == 0 && state->at.gradient[i] > 1) w = 1e-6;
    w *= state->at.gradient[i];
  }
  renormalise(&state->weights);
  state->at = state->gold.evaluate(state->pool, state->weights, true);
}

// An orthonormal basis of the moves of the weights above 0 that keep their sum (Helmert's).
Matrix basis_of(const std::vector<size_t> &free, size_t n) {
  Matrix basis(n);
  for (size_t k = 1; k < free.size(); ++k) {
    const double scale = 1 / std::sqrt(static_cast<double>(k) * static_cast<double>(k + 1));
    for (size_t i = 0; i < k; ++i) basis(free[i], k - 1) = scale;
    basis(free[k], k - 1) = -static_cast<double>(k) * scale;
  }
  return basis;
}

Solution describe(const State &state, chorus_fit_status status, int32_t iterations) {
  const size_t n = state.weights.size();
  Solution out{status, iterations, state.at.value, gap_of(state.at), state.weights, Vector(n, 0.0),
               std::vector<uint32_t>(n, 0)};
  std::vector<size_t> free;
  Matrix information(n);
  for (size_t i = 0; i < n; ++i) {
    if (out.weights[i] > 1e-9) free.push_back(i);
    for (size_t j = 0; j < n; ++j) information(i, j) = state.at.curvature(i, j) * static_cast<double>(state.gold.tokens());
  }
  set_errors(information, basis_of(free, n), free.size() - 1, &out);
  for (size_t i = 0; i < n; ++i) {
    if (out.weights[i] > 1e-9) continue;
    out.standard_errors[i] = 0;
    out.flags[i] = CHORUS_FIT_AT_BOUND;
  }
  return out;
}

}  // namespace

void GoldTable::add(const double *log_probs) {
  const double top = *std::max_element(log_probs, log_probs + n_);
  if (top == -std::numeric_limits<double>::infinity()) {
    ++zero_tokens_;
    return;
  }
  for (size_t i = 0; i < n_; ++i) ratios_.push_back(std::exp(log_probs[i] - top));
  maxima_.add(&top);
  logs_.add(log_probs);
  ++tokens_;
}

Evaluation GoldTable::evaluate(const Pool &pool, const Vector &weights, bool derivatives) const {
  const size_t n = n_, width = derivatives ? 1 + n + n * (n + 1) / 2 : 1;
  const int64_t blocks = (tokens_ + CHORUS_BLOCK - 1) / CHORUS_BLOCK;
  std::vector<double> of_blocks(static_cast<size_t>(blocks) * width);
  parallel_runs(pool, blocks, [&](int64_t first, int64_t end) {
    BlockSums sums(width);
    Vector values(width);
    for (int64_t b = first; b < end; ++b) {
      const int64_t last = std::min<int64_t>((b + 1) * CHORUS_BLOCK, tokens_);
      for (int64_t t = b * CHORUS_BLOCK; t < last; ++t) {
        const double *p = &ratios_[static_cast<size_t>(t) * n];
        double mix = 0;
        for (size_t i = 0; i < n; ++i) mix += weights[i] * p[i];
        values[0] = std::log(mix);
        for (size_t i = 0; derivatives && i < n; ++i) {
          const double slope = p[i] / mix;
          values[1 + i] = slope;
          for (size_t j = 0; j <= i; ++j) values[1 + n + triangle_index(j, i, n)] = slope * values[1 + j];
        }
        sums.add(static_cast<uint64_t>(t - b * CHORUS_BLOCK), values.data());
      }
      sums.take(&of_blocks[static_cast<size_t>(b) * width]);
    }
  });
  OrderedSums total(width);
  for (int64_t b = 0; b < blocks; ++b) total.add_block(&of_blocks[static_cast<size_t>(b) * width]);
  const Vector sums = total.total();
  const auto count = static_cast<double>(tokens_);
  Evaluation out;
  out.value = (maxima_.total()[0] + sums[0]) / count;
  if (!derivatives) return out;
  out.curvature = Matrix(n);
  for (size_t i = 0; i < n; ++i) {
    out.gradient.push_back(sums[1 + i] / count);
    for (size_t j = i; j < n; ++j) {
      out.curvature(i, j) = out.curvature(j, i) = sums[1 + n + triangle_index(i, j, n)] / count;
    }
  }
  return out;
}

Vector GoldTable::alone() const {
  Vector out = logs_.total();
  for (double &sum : out) sum /= static_cast<double>(tokens_);
  return out;
}

Solution solve_linear(const Pool &pool, const GoldTable &gold, Vector weights, const Settings &settings) {
  State state{pool, gold, std::move(weights), {}};
  renormalise(&state.weights);
  state.at = gold.evaluate(pool, state.weights, true);
  chorus_fit_status status = CHORUS_FIT_MAX_ITERATIONS;
  int32_t iterations = 0;
  for (; iterations < settings.max_iterations; ++iterations) {
    if (gap_of(state.at) <= settings.tolerance) {
      status = CHORUS_FIT_CONVERGED;
      break;
    }
    if (iterations < kFirstEmSteps || !quadratic_step(&state)) em_step(&state);
  }
  if (gap_of(state.at) <= settings.tolerance) status = CHORUS_FIT_CONVERGED;
  return describe(state, status, iterations);
}

}  // namespace chorus::combine
