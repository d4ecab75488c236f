// SPDX-License-Identifier: Apache-2.0
// Every output of combine.rows against the oracle in probabilities. Which of two equal tokens is named, and what a filter keeps
// within rounding of its cut, is not compared.
#include <algorithm>
#include <cmath>

#include "conformance/check.h"
#include "conformance/combine_full_oracle.h"

namespace conformance {
namespace {

using Real = long double;
constexpr Real kOff = -std::numeric_limits<Real>::infinity();

// What the tolerances of numerics.md come to on problems of moderate scores.
constexpr Real kTolerance = 2e-5L;

void expect_number(const char *what, int64_t row, size_t at, chorus_dtype dtype, double got, Real want) {
  if (std::isnan(want)) {
    expect(std::isnan(got), "%s %zu of row %lld is %g, not NaN", what, at, static_cast<long long>(row), got);
    return;
  }
  if (std::isinf(want)) {
    expect(got == static_cast<double>(want), "%s %zu of row %lld is %.9g, not %Lg", what, at, static_cast<long long>(row), got, want);
    return;
  }
  const Real tolerance = kTolerance * (1 + fabsl(want));
  const double low = rounded(dtype, static_cast<double>(want - tolerance)), high = rounded(dtype, static_cast<double>(want + tolerance));
  expect(got >= low && got <= high, "%s %zu of row %lld is %.9g; the oracle says %.9Lg", what, at, static_cast<long long>(row), got, want);
}

struct Comparison {
  const CombineProblem &p;
  const CombineResult &r;
  int64_t row;
  const FullOracle &oracle;

  size_t n() const { return static_cast<size_t>(p.n_tokens); }
  size_t at(size_t per_row, size_t i) const { return static_cast<size_t>(row) * per_row + i; }
  bool is_score() const { return p.rule == CHORUS_COMBINE_UNNORMALISED; }

  void rows() const {
    for (size_t v = 0; v < n(); ++v) {
      const Real l = oracle.l[v];
      if (!r.log_probs.empty()) expect_number("log-prob", row, v, p.log_probs_dtype, r.log_probs[at(n(), v)], l);
      if (!r.probs.empty() && !std::isnan(l)) {
        const double got = r.probs[at(n(), v)];
        const Real want = expl(l);
        expect(fabsl(got - want) <= (p.log_probs_dtype == CHORUS_F32 ? 3e-5L : 1e-2L) * want + 1e-7L, "prob %zu of row %lld is %g, not %Lg", v,
               static_cast<long long>(row), got, want);
      }
    }
  }

  void choice(const char *what, const std::vector<double> &tokens, const std::vector<double> &log_probs, bool is_best) const {
    if (tokens.empty()) return;
    const double token = tokens[static_cast<size_t>(row)], l = log_probs[static_cast<size_t>(row)];
    if (!oracle.is_valid) {
      expect(token == -1, "%s of invalid row %lld is %g", what, static_cast<long long>(row), token);
      return;
    }
    if (!expect(token >= 0 && token < static_cast<double>(n()), "%s of row %lld is %g", what, static_cast<long long>(row), token)) return;
    const Real want = oracle.l[static_cast<size_t>(token)];
    if (oracle.is_close_call) return;
    expect(want > kOff, "%s of row %lld is token %g, outside the support", what, static_cast<long long>(row), token);
    expect_number(what, row, static_cast<size_t>(token), CHORUS_F32, l, want);
    const Real best = *std::max_element(oracle.l.begin(), oracle.l.end());
    if (!is_best) return;
    expect(want >= best - 1e-4L * (1 + fabsl(best)), "%s of row %lld has log-prob %Lg; the best has %Lg", what,
           static_cast<long long>(row), want, best);
    for (size_t v = 0; v < static_cast<size_t>(token); ++v) {
      if (p.options.temperature != 0 && oracle.l[v] == want && p.models.size() == 1)
        expect(false, "%s of row %lld is %g; token %zu is equal and lower", what, static_cast<long long>(row), token, v);
    }
  }

  void top() const {
    const auto k = static_cast<size_t>(p.options.n_top);
    if (r.top_ids.empty()) return;
    std::vector<Real> sorted(oracle.l);
    std::sort(sorted.rbegin(), sorted.rend());
    Real tail = 0;
    for (size_t j = k; j < sorted.size(); ++j) tail += expl(sorted[j]);
    for (size_t j = 0; j < k; ++j) {
      const double id = r.top_ids[at(k, j)], l = r.top_log_probs[at(k, j)];
      if (!oracle.is_valid || j >= sorted.size() || sorted[j] == kOff) {
        expect(id == -1 && (oracle.is_valid ? l == -kInfinity : true), "top %zu of row %lld is %g (%g)", j, static_cast<long long>(row), id, l);
        continue;
      }
      expect_number("top log-prob", row, j, CHORUS_F32, l, sorted[j]);
      if (expect(id >= 0 && id < static_cast<double>(n()), "top id %zu of row %lld is %g", j, static_cast<long long>(row), id))
        expect_number("log-prob of top id", row, j, CHORUS_F32, l, oracle.l[static_cast<size_t>(id)]);
    }
    if (oracle.is_valid) {
      const double got = std::exp(r.tail_log_prob[static_cast<size_t>(row)]);
      expect(fabsl(got - tail) <= 3e-5L * tail + 1e-30L, "tail mass of row %lld is %g, not %Lg", static_cast<long long>(row), got, tail);
    }
  }

  Real model_p(size_t i, size_t v) const { return oracle.models[i].empty() || oracle.models[i][v] < 0 ? 0 : oracle.models[i][v]; }

  void diagnostics() const {
    const size_t models = p.models.size();
    if (r.diagnostics.empty() || !oracle.is_valid || p.options.has_neighbours) return;
    Real all = 0, entropy = 0, expected = 0, gap = 0;
    for (Real w : oracle.weights) all += std::max<Real>(w, 0);
    for (Real x : oracle.p) entropy -= x > 0 ? x * logl(x) : 0;
    for (size_t i = 0; i < models; ++i) {
      Real own = 0, most = 0, divergence = 0;
      for (size_t v = 0; v < n(); ++v) {
        const Real x = model_p(i, v), q = oracle.p[v];
        own -= x > 0 ? x * logl(x) : 0;
        most = std::max(most, x);
        divergence += (x > 0 ? x * (logl(x) - logl(q)) : 0) - x + q;
      }
      const double *got = r.diagnostics.data() + at(3 + 2 * models, 0);
      expect_number("entropy of model", row, i, CHORUS_F32, got[3 + i], own);
      expect_number("max p of model", row, i, CHORUS_F32, got[3 + models + i], most);
      if (oracle.weights[i] <= 0) continue;
      expected += oracle.weights[i] / all * own;
      gap += oracle.weights[i] / all * divergence;
    }
    const double *got = r.diagnostics.data() + at(3 + 2 * models, 0);
    expect_number("entropy", row, 0, CHORUS_F32, got[0], entropy);
    expect_number("expected entropy", row, 1, CHORUS_F32, got[1], expected);
    expect_number("mutual information", row, 2, CHORUS_F32, got[2], gap);
  }

  void gradients() const {
    const size_t models = p.models.size(), columns = models + models * (models + 1) / 2;
    if (r.gradient_sums.empty() || !oracle.is_valid) return;
    const auto l = [&](size_t i, size_t v) { return model_p(i, v) > 0 ? logl(model_p(i, v)) : 0; };
    std::vector<Real> mean(models, 0);
    for (size_t i = 0; i < models; ++i) {
      for (size_t v = 0; v < n(); ++v) mean[i] += oracle.p[v] * l(i, v);
      expect_number("E[l]", row, i, CHORUS_F32, r.gradient_sums[at(columns, i)], oracle.models[i].empty() ? 0 : mean[i]);
    }
    for (size_t i = 0, c = models; i < models; ++i) {
      for (size_t j = i; j < models; ++j, ++c) {
        Real sum = 0;
        for (size_t v = 0; v < n(); ++v) sum += oracle.p[v] * (l(i, v) - mean[i]) * (l(j, v) - mean[j]);
        expect_number("Cov", row, c, CHORUS_F32, r.gradient_sums[at(columns, c)], sum);
      }
    }
  }

  uint32_t tokens() const {
    const auto count = static_cast<size_t>(p.tokens_per_row());
    uint32_t bad = 0;
    for (size_t j = 0; j < count && !r.token_log_probs.empty(); ++j) {
      const double token = p.tokens[at(count, j)];
      const bool outside = token < 0 || token >= static_cast<double>(n());
      if (outside) bad = CHORUS_ROW_BAD_TOKEN;
      const Real nothing = std::numeric_limits<Real>::quiet_NaN();
      if (!oracle.is_close_call || outside)
        expect_number("token log-prob", row, j, CHORUS_F32, r.token_log_probs[at(count, j)], outside ? nothing : oracle.l[static_cast<size_t>(token)]);
      for (size_t i = 0; i < p.models.size() && !r.model_token_log_probs.empty() && oracle.is_valid && !oracle.is_close_call; ++i) {
        const double got = r.model_token_log_probs[at(count, j) * p.models.size() + i];
        if (outside || oracle.models[i].empty() || oracle.models[i][static_cast<size_t>(token)] < 0) {
          expect(std::isnan(got), "log-prob of token %zu under model %zu is %g, not NaN", j, i, got);
        } else {
          expect_number("log-prob under a model", row, j, CHORUS_F32, got, logl(oracle.models[i][static_cast<size_t>(token)]));
        }
      }
    }
    return bad;
  }
};

}  // namespace

void expect_full_agrees(const CombineProblem &p, const CombineResult &r) {
  for (int64_t row = 0; row < p.rows; ++row) {
    const FullOracle oracle = full_oracle(p, row);
    const Comparison c{p, r, row, oracle};
    const uint32_t bad = c.tokens();
    if (!r.status.empty())
      expect(r.status_of(row) == (oracle.status | bad), "status of row %lld is %u, not %u", static_cast<long long>(row), r.status_of(row),
             oracle.status | bad);
    if (!oracle.is_close_call) {
      c.rows();
      c.top();
      c.diagnostics();
      c.gradients();
    }
    c.choice("argmax", r.argmax, r.argmax_log_prob, true);
    c.choice("sample", r.sample, r.sample_log_prob, false);
  }
}

}  // namespace conformance
