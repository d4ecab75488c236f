// SPDX-License-Identifier: Apache-2.0
// Sinkhorn's scaling, softmaxes both ways, and quantiles of columns. Sums run in the order of the rows.
#include "route/assign.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

namespace chorus::route {

int32_t sinkhorn(Matrix *m, double tolerance, int32_t max_rounds) {
  constexpr double kEpsilon = 1e-8, kHighest = 500;  // exp(709) is the last finite one
  const double top = *std::max_element(m->values.begin(), m->values.end());
  const double shift = top > kHighest ? top : 0;
  for (double &v : m->values) v = std::exp(v - shift);
  const auto tokens = static_cast<double>(m->rows), experts = static_cast<double>(m->columns);
  std::vector<double> d0(static_cast<size_t>(m->rows), 1.0), d1(static_cast<size_t>(m->columns), 1.0), sums(d1.size());
  int32_t rounds = 0;
  for (double change = std::numeric_limits<double>::infinity(); change > tolerance && rounds < max_rounds; ++rounds) {
    std::fill(sums.begin(), sums.end(), 0.0);
    for (int64_t t = 0; t < m->rows; ++t) {
      const double *cost = m->row(t);
      double sum = 0;
      for (size_t e = 0; e < d1.size(); ++e) sum += d1[e] * cost[e];
      d0[static_cast<size_t>(t)] = 1 / tokens / (sum + kEpsilon);
      for (size_t e = 0; e < d1.size(); ++e) sums[e] += d0[static_cast<size_t>(t)] * cost[e];
    }
    change = 0;
    for (size_t e = 0; e < d1.size(); ++e) {
      const double next = 1 / experts / (sums[e] + kEpsilon);
      change += std::fabs(next - d1[e]) / experts;
      d1[e] = next;
    }
  }
  for (int64_t t = 0; t < m->rows; ++t) {
    for (size_t e = 0; e < d1.size(); ++e) m->row(t)[e] = d1[e] * m->row(t)[e] * d0[static_cast<size_t>(t)];
  }
  return rounds;
}

void softmax_rows(Matrix *m) {
  for (int64_t r = 0; r < m->rows; ++r) {
    double *row = m->row(r);
    const double top = m->columns > 0 ? *std::max_element(row, row + m->columns) : 0;
    double sum = 0;
    for (int64_t c = 0; c < m->columns; ++c) sum += row[c] = std::exp(row[c] - top);
    for (int64_t c = 0; c < m->columns; ++c) row[c] /= sum;
  }
}

void softmax_columns(Matrix *m) {
  std::vector<double> top(static_cast<size_t>(m->columns), -std::numeric_limits<double>::infinity()), sum(top.size());
  const auto each = [&](auto body) {
    for (int64_t r = 0; r < m->rows; ++r) {
      for (size_t c = 0; c < top.size(); ++c) body(m->row(r)[c], c);
    }
  };
  each([&](double &v, size_t c) { top[c] = std::max(top[c], v); });
  each([&](double &v, size_t c) { sum[c] += v = std::exp(v - top[c]); });
  each([&](double &v, size_t c) { v /= sum[c]; });
}

std::vector<int32_t> best_columns(const double *row, int64_t columns, int32_t k) {
  std::vector<int32_t> order(static_cast<size_t>(columns));
  for (int64_t c = 0; c < columns; ++c) order[static_cast<size_t>(c)] = static_cast<int32_t>(c);
  std::partial_sort(order.begin(), order.begin() + k, order.end(),
                    [&](int32_t a, int32_t b) { return row[a] > row[b] || (row[a] == row[b] && a < b); });
  order.resize(static_cast<size_t>(k));
  return order;
}

void update_quantile_bias(const Matrix &scores, int32_t k, std::vector<double> *bias) {
  const int64_t experts = scores.columns, filled = scores.rows * k / experts;
  std::vector<double> row(static_cast<size_t>(experts)), cutoff(static_cast<size_t>(scores.rows)), column(cutoff.size());
  const auto nth_highest = [](std::vector<double> *values, int64_t n) {
    std::nth_element(values->begin(), values->begin() + n, values->end(), std::greater<>());
    return (*values)[static_cast<size_t>(n)];
  };
  for (int64_t t = 0; t < scores.rows; ++t) {
    for (size_t e = 0; e < row.size(); ++e) row[e] = scores.row(t)[e] + (*bias)[e];
    cutoff[static_cast<size_t>(t)] = k < experts ? nth_highest(&row, k) : 0.0;
  }
  for (size_t e = 0; e < row.size(); ++e) {
    for (int64_t t = 0; t < scores.rows; ++t) column[static_cast<size_t>(t)] = scores.row(t)[e] - cutoff[static_cast<size_t>(t)];
    (*bias)[e] = -nth_highest(&column, std::min(filled, scores.rows - 1));
  }
}

}  // namespace chorus::route
