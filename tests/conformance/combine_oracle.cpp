// SPDX-License-Identifier: Apache-2.0
// Log-probs and statuses of a row in long double: see combine_oracle.h. The choices are in
// combine_choices.cpp.
#include "conformance/combine_oracle.h"

#include <algorithm>
#include <cmath>

#include "conformance/check.h"
#include "conformance/combine_choices.h"

namespace conformance {
namespace {

constexpr long double kMinus = -std::numeric_limits<long double>::infinity();

double weight_of(const CombineProblem &p, int64_t row, size_t i) {
  if (p.weights.empty()) return p.models[i].weight;
  return rounded(CHORUS_F32, p.weights[(p.weight_rows ? static_cast<size_t>(row) * p.models.size() : 0) + i]);
}

// False: a weight, a temperature or a missing tensor makes the row BAD_WEIGHT.
bool collect(const CombineProblem &p, int64_t row, std::vector<OracleModel> &out) {
  for (size_t i = 0; i < p.models.size(); ++i) {
    const ModelScores &from = p.models[i];
    OracleModel m;
    m.weight = weight_of(p, row, i);
    m.temperature = p.temperatures.empty() ? from.temperature : rounded(CHORUS_F32, p.temperatures[i]);
    if (m.weight == 0) continue;
    if (!std::isfinite(m.weight) || (m.weight < 0 && p.rule == CHORUS_COMBINE_LINEAR)) return false;
    if (std::isnan(m.temperature) || m.temperature < 0 || from.scores.empty()) return false;
    if (m.temperature > 0) m.temperature = std::max(m.temperature, 0x1p-100);
    m.is_prob = from.kind == CHORUS_SCORES_PROBS;
    const double *scores = from.scores.data() + row * from.n_logits;
    for (int64_t v = 0; v < from.n_valid; ++v)
      m.raw.push_back(decode(from.dtype, encode(from.dtype, scores[v])));
    out.push_back(std::move(m));
  }
  return !out.empty() || p.rule != CHORUS_COMBINE_LINEAR;
}

// Shape of the row and its log-probs; returns the status bits it sets, but for MODEL_EMPTY.
uint32_t read_model(OracleModel &m) {
  uint32_t status = 0;
  double best = -kInfinity;
  for (size_t v = 0; v < m.raw.size(); ++v) {
    const double x = m.raw[v];
    if (std::isnan(x) || (m.is_prob && x < 0)) status |= CHORUS_ROW_NAN;
    if (x == kInfinity) {
      status |= CHORUS_ROW_INFINITE;
      ++m.infinite;
    }
    if (x > best && !(m.is_prob && x <= 0)) {
      best = x;
      m.top = static_cast<int64_t>(v);
    }
  }
  m.l.assign(m.raw.size(), kMinus);
  if ((status & CHORUS_ROW_NAN) != 0 || m.top < 0) return status;
  if (m.temperature == 0) {
    m.l[static_cast<size_t>(m.top)] = 0;
  } else if (m.infinite > 0) {
    for (size_t v = 0; v < m.raw.size(); ++v) {
      if (m.raw[v] == kInfinity) m.l[v] = -logl(static_cast<long double>(m.infinite));
    }
  } else {
    const auto score = [&](double x) { return m.is_prob ? logl(x) : static_cast<long double>(x); };
    const long double top = score(best);
    long double sum = 0;
    for (size_t v = 0; v < m.raw.size(); ++v) {
      if (!(m.raw[v] > (m.is_prob ? 0 : -kInfinity))) continue;
      m.l[v] = (score(m.raw[v]) - top) / m.temperature;
      sum += expl(m.l[v]);
    }
    m.spread = m.l;  // (z - max) / T, for the tolerance
    for (long double &l : m.l) l -= logl(sum);
  }
  return status;
}

long double at(const std::vector<long double> &x, int64_t v, long double otherwise) {
  return v < static_cast<int64_t>(x.size()) ? x[static_cast<size_t>(v)] : otherwise;
}

void mix_linear(const std::vector<OracleModel> &models, OracleRow &out) {
  long double weights = 0;
  for (const OracleModel &m : models) weights += m.weight;
  for (size_t v = 0; v < out.log_probs.size(); ++v) {
    long double top = kMinus, sum = 0;
    for (const OracleModel &m : models) top = std::max(top, at(m.l, static_cast<int64_t>(v), kMinus));
    for (const OracleModel &m : models) {
      const long double l = at(m.l, static_cast<int64_t>(v), kMinus);
      if (l != kMinus) sum += m.weight * expl(l - top);
    }
    out.log_probs[v] = top == kMinus ? kMinus : top + logl(sum / weights);
    out.tolerance[v] = 2e-6L * (1 + fabsl(out.log_probs[v]));
  }
}

bool lacks_tokens(const OracleModel &m, size_t n_tokens) {
  for (size_t v = 0; v < n_tokens; ++v) {
    if (at(m.l, static_cast<int64_t>(v), kMinus) == kMinus) return true;
  }
  return false;
}

// t[v] = sum of terms, then normalised; per token the sum of |w (z - max)| for the tolerance.
void mix_log_linear(const std::vector<OracleModel> &models, OracleRow &out) {
  std::vector<long double> moved(out.log_probs.size(), 0);
  long double top = kMinus;
  for (size_t v = 0; v < out.log_probs.size(); ++v) {
    long double t = 0;
    for (const OracleModel &m : models) {
      const long double l = at(m.l, static_cast<int64_t>(v), kMinus);
      // A positive one-hot or infinite model has one term for all its tokens: it cancels, however large its weight.
      const bool cancels = m.weight > 0 && !m.is_regular();
      // So does the normaliser, unless a token that a negative one lacks is neutral: left out, because beside a huge weight
      // it would swallow the rest.
      const bool normalised = !m.is_regular() || (m.weight < 0 && lacks_tokens(m, out.log_probs.size()));
      if (l != kMinus && !cancels) t += m.weight * (normalised ? l : at(m.spread, static_cast<int64_t>(v), 0));
      if (l == kMinus && m.weight > 0) t = kMinus;
      // What a model of equal shares moves is its term, which a negative weight keeps.
      const long double spread = m.is_regular() ? at(m.spread, static_cast<int64_t>(v), 0) : m.weight < 0 ? l : 0;
      if (l != kMinus) moved[v] += fabsl(m.weight * spread);
      if (t == kMinus) break;
    }
    out.log_probs[v] = t;
    top = std::max(top, t);
  }
  if (top == kMinus) {
    out.status |= CHORUS_ROW_EMPTY_SUPPORT;
    return;
  }
  long double sum = 0, most = 0;
  for (size_t v = 0; v < out.log_probs.size(); ++v) {
    sum += expl(out.log_probs[v] - top);
    if (out.log_probs[v] >= top - 40) most = std::max(most, moved[v]);
  }
  for (size_t v = 0; v < out.log_probs.size(); ++v) {
    if (out.log_probs[v] != kMinus) out.log_probs[v] = (out.log_probs[v] - top) - logl(sum);
    out.tolerance[v] = 2e-6L * (1 + std::max(most, moved[v]));
  }
}

}  // namespace

OracleRow combine_oracle(const CombineProblem &p, int64_t row) {
  OracleRow out;
  out.log_probs.assign(static_cast<size_t>(p.n_tokens), kNaN);
  out.tolerance.assign(out.log_probs.size(), 0);
  std::vector<OracleModel> models, kept;
  if (!collect(p, row, models)) {
    out.status = CHORUS_ROW_BAD_WEIGHT;
    return out;
  }
  bool lost = false;
  for (OracleModel &m : models) {
    out.status |= read_model(m);
    if (m.top >= 0) {
      kept.push_back(std::move(m));
    } else if (m.weight > 0) {
      out.status |= CHORUS_ROW_MODEL_EMPTY;
      lost |= p.rule == CHORUS_COMBINE_LOG_LINEAR;
    }
  }
  if ((out.status & CHORUS_ROW_NAN) != 0) return out;
  lost |= p.rule == CHORUS_COMBINE_LINEAR && kept.empty();
  if (lost) out.status |= CHORUS_ROW_EMPTY_SUPPORT;
  if (!lost) (p.rule == CHORUS_COMBINE_LINEAR ? mix_linear : mix_log_linear)(kept, out);
  if ((out.status & CHORUS_ROW_EMPTY_SUPPORT) != 0) {
    std::fill(out.log_probs.begin(), out.log_probs.end(), kMinus);
    return out;
  }
  choose(p, row, kept, out);
  return out;
}

// ---- Comparing ----

namespace {

void expect_log_prob(const char *what, int64_t row, int64_t token, chorus_dtype dtype, double got,
                     const OracleRow &oracle) {
  const long double want = oracle.log_probs[static_cast<size_t>(token)];
  const long double tolerance = oracle.tolerance[static_cast<size_t>(token)];
  if (std::isnan(want)) {
    expect(std::isnan(got), "%s of row %lld, token %lld is %g, not NaN", what, static_cast<long long>(row),
           static_cast<long long>(token), got);
    return;
  }
  if (want == kMinus) {
    expect(got == -kInfinity, "%s of row %lld, token %lld is %.9g, not -inf", what,
           static_cast<long long>(row), static_cast<long long>(token), got);
    return;
  }
  const double low = rounded(dtype, static_cast<double>(want - tolerance));
  const double high = rounded(dtype, static_cast<double>(want + tolerance));
  expect(got >= low && got <= high && !(got == 0 && std::signbit(got)),
         "%s of row %lld, token %lld is %.9g; the oracle says %.12Lg (tolerance %.3Lg)", what,
         static_cast<long long>(row), static_cast<long long>(token), got, want, tolerance);
}

void expect_choice(const char *what, int64_t row, double got, double got_log_prob, int64_t want,
                   const OracleRow &oracle) {
  expect(got == static_cast<double>(want), "%s of row %lld is token %.0f; the rules of numerics.md give %lld",
         what, static_cast<long long>(row), got, static_cast<long long>(want));
  if (want >= 0 && got == static_cast<double>(want)) {
    expect_log_prob(what, row, want, CHORUS_F32, got_log_prob, oracle);
  } else if (want < 0) {
    const bool empty = (oracle.status & CHORUS_ROW_EMPTY_SUPPORT) != 0;
    expect(empty ? got_log_prob == -kInfinity : std::isnan(got_log_prob),
           "log-prob beside %s -1 of row %lld is %g", what, static_cast<long long>(row), got_log_prob);
  }
}

}  // namespace

void expect_row_agrees(const CombineProblem &p, const CombineResult &r, int64_t row,
                       const OracleRow &oracle) {
  uint32_t status = oracle.status;
  const auto n = p.tokens_per_row();
  for (int64_t i = 0; i < n && has_all_outputs(r); ++i) {
    const auto place = static_cast<size_t>(row * n + i);
    const auto token = static_cast<int64_t>(p.tokens[place]);
    if (token < 0 || token >= p.n_tokens) {
      status |= CHORUS_ROW_BAD_TOKEN;
      expect(std::isnan(r.token_log_probs[place]), "log-prob of token %lld outside the vocabulary is %g",
             static_cast<long long>(token), r.token_log_probs[place]);
    } else {
      expect_log_prob("token log-prob", row, token, CHORUS_F32, r.token_log_probs[place], oracle);
    }
  }
  expect(r.status_of(row) == status, "status of row %lld is %u, not %u", static_cast<long long>(row),
         r.status_of(row), status);
  for (int64_t v = 0; v < p.n_tokens; ++v) {
    expect_log_prob("log-prob", row, v, p.log_probs_dtype,
                    r.log_probs[static_cast<size_t>(row * p.n_tokens + v)], oracle);
  }
  if (!has_all_outputs(r)) return;
  const auto at_row = static_cast<size_t>(row);
  expect_choice("argmax", row, r.argmax[at_row], r.argmax_log_prob[at_row], oracle.argmax, oracle);
  expect_choice("sample", row, r.sample[at_row], r.sample_log_prob[at_row], oracle.sample, oracle);
}

void expect_agrees(const CombineProblem &p, const CombineResult &r) {
  for (int64_t row = 0; row < p.rows; ++row) expect_row_agrees(p, r, row, combine_oracle(p, row));
}

}  // namespace conformance
