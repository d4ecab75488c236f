// SPDX-License-Identifier: Apache-2.0
// What a full row gives: of the combination itself diagnostics, gradient sums and each model's log-probs; of the final row
// everything else.
#include <algorithm>
#include <cmath>

#include "reference/combine_full.h"

namespace chorus::reference {
namespace {

bool is_number(double l) { return l > -kInfinity64 && l < kInfinity64; }

double *f64_row(const chorus_tensor &t, int64_t row) { return static_cast<double *>(row_of(t, row)); }

void put(const chorus_tensor &t, int64_t row, int64_t column, double value) {
  store_f64(dtype_of(t), row_of(t, row), column * stride_of(t, 1), value);
}

// Entropy, sum lambda_i H_i, sum lambda_i KL(p_i || p) by terms that are not negative; H_i; max p_i. lambda: the positive
// weights over their sum. A model that was not read has 0 in its columns.
void write_diagnostics(const FullRow &r, double log_sum) {
  const chorus_tensor &out = *r.args->diagnostics;
  const int64_t n = r.setup->n_tokens;
  const auto log_p = [&](int64_t v) { return r.values[v] - log_sum; };
  const auto entropy_term = [](double l) { return is_number(l) ? -std::exp(l) * l : 0.0; };
  double all = 0, expected = 0, gap = 0;
  for (int i = 0; i < r.count; ++i) all += std::max(r.weights[i], 0.0);
  for (int64_t j = 0; j < 3 + 2 * r.setup->n_models; ++j) put(out, r.row, j, 0.0);
  put(out, r.row, 0, sum_in_order<double>(n, [&](int64_t v) { return entropy_term(log_p(v)); }));
  for (int i = 0; i < r.count; ++i) {
    const double *l = r.table(i);
    const double own = sum_in_order<double>(n, [&](int64_t v) { return entropy_term(l[v]); });
    double most = -kInfinity64;
    for (int64_t v = 0; v < n; ++v) most = is_number(l[v]) ? std::max(most, l[v]) : most;
    if (r.weights[i] > 0) {
      expected += r.weights[i] / all * own;
      const auto divergence = [&](int64_t v) {
        const double p = is_number(l[v]) ? std::exp(l[v]) : 0.0, q = std::exp(log_p(v));
        return std::max(0.0, (p > 0 ? p * (l[v] - log_p(v)) : 0.0) - p + q);
      };
      gap += r.weights[i] / all * sum_in_order<double>(n, divergence);
    }
    if (r.index[i] == r.setup->n_models) continue;  // the list of neighbours has no columns
    put(out, r.row, 3 + r.index[i], own);
    put(out, r.row, 3 + r.setup->n_models + r.index[i], std::exp(most));
  }
  put(out, r.row, 1, expected);
  put(out, r.row, 2, gap);
}

// E[l_i] and Cov(l_i, l_j), i <= j, under the combination; an entry that adds no term counts as 0.
void write_gradient_sums(const FullRow &r, double log_sum) {
  const int64_t n = r.setup->n_tokens, models = r.setup->n_models;
  double *out = f64_row(*r.args->gradient_sums, r.row);
  const int64_t step = stride_of(*r.args->gradient_sums, 1);
  const double *tables[CHORUS_COMBINE_MAX_MODELS] = {};
  double means[CHORUS_COMBINE_MAX_MODELS] = {};
  for (int i = 0; i < r.count; ++i) {
    if (r.index[i] < models) tables[r.index[i]] = r.table(i);
  }
  const auto p = [&](int64_t v) { return std::exp(r.values[v] - log_sum); };
  const auto entry = [](const double *l, int64_t v) { return is_number(l[v]) ? l[v] : 0.0; };
  for (int64_t i = 0; i < models; ++i) {
    if (tables[i] != nullptr) means[i] = sum_in_order<double>(n, [&](int64_t v) { return p(v) * entry(tables[i], v); });
    out[i * step] = means[i];
  }
  int64_t at = models;
  for (int64_t i = 0; i < models; ++i) {
    for (int64_t j = i; j < models; ++j, ++at) {
      const auto term = [&](int64_t v) { return p(v) * (entry(tables[i], v) - means[i]) * (entry(tables[j], v) - means[j]); };
      out[at * step] = tables[i] == nullptr || tables[j] == nullptr ? 0.0 : sum_in_order<double>(n, term);
    }
  }
}

// log p_i of the tokens asked for; NaN of a model that was not read, of a token outside and of an entry without number.
void write_model_log_probs(const FullRow &r) {
  const chorus_tensor &out = *r.args->model_token_log_probs, &tokens = *r.args->tokens;
  const int64_t n = tokens.shape[1], models = r.setup->n_models;
  auto *to = static_cast<float *>(row_of(out, r.row));
  for (int64_t j = 0; j < n; ++j) {
    const int64_t token = integer_at(dtype_of(tokens), row_of(tokens, r.row), j * stride_of(tokens, 1));
    float *line = to + j * stride_of(out, 1);
    const int64_t step = stride_of(out, 2);
    for (int64_t i = 0; i < models; ++i) line[i * step] = static_cast<float>(kCombineNaN);
    if (token < 0 || token >= r.setup->n_tokens) continue;
    for (int i = 0; i < r.count; ++i) {
      const double l = r.table(i)[token];
      if (r.index[i] < models && l < kInfinity64) line[r.index[i] * step] = static_cast<float>(without_negative_zero(CHORUS_F32, l));
    }
  }
}

void write_top(FullRow &r) {
  const chorus_combine_args &a = *r.args;
  if (a.top_ids == nullptr && a.top_log_probs == nullptr && a.tail_log_prob == nullptr) return;
  const int64_t count = sort_best(r.values, r.setup->n_tokens, r.order);
  for (int64_t j = 0; j < r.full->n_top; ++j) {
    const bool is_there = j < count;
    if (a.top_ids != nullptr)
      put_integer(CHORUS_I32, row_of(*a.top_ids, r.row), j * stride_of(*a.top_ids, 1), is_there ? r.order[j] : -1);
    if (a.top_log_probs != nullptr)
      put(*a.top_log_probs, r.row, j, is_there ? without_negative_zero(CHORUS_F32, r.values[r.order[j]]) : -kInfinity64);
  }
  double top = -kInfinity64, sum = 0;
  for (int64_t j = count - 1; j >= r.full->n_top; --j) {  // smallest first
    top = r.values[r.order[r.full->n_top]];
    sum += std::exp(r.values[r.order[j]] - top);
  }
  put_float(a.tail_log_prob, r.row, top == -kInfinity64 ? top : top + std::log(sum));
}

}  // namespace

void write_combination(const FullRow &r) {
  const chorus_combine_args &a = *r.args;
  if (a.model_token_log_probs != nullptr && a.tokens != nullptr) write_model_log_probs(r);
  if (a.diagnostics == nullptr && a.gradient_sums == nullptr) return;
  const double log_sum = log_sum_exp(r.values, r.setup->n_tokens);
  if (a.diagnostics != nullptr) write_diagnostics(r, log_sum);
  if (a.gradient_sums != nullptr) write_gradient_sums(r, log_sum);
}

bool write_final(FullRow &r, int64_t best, int64_t drawn) {
  const chorus_combine_args &a = *r.args;
  const bool is_score = r.setup->rule == CHORUS_COMBINE_UNNORMALISED;
  const auto value = [&](chorus_dtype dtype, int64_t v) {
    return is_score ? without_negative_zero(dtype, r.values[v]) : as_log_prob(dtype, r.values[v]);
  };
  const auto f32 = [&](int64_t v) { return value(CHORUS_F32, v); };
  write_choice(a.argmax, a.argmax_log_prob, r.row, best, f32(best));
  write_choice(a.sample, a.sample_log_prob, r.row, drawn, drawn >= 0 ? f32(drawn) : kCombineNaN);
  const bool bad_token = write_token_log_probs(a, r.row, r.setup->n_tokens, f32);
  write_top(r);
  write_row(a.probs, r.row, r.setup->n_tokens, [&](chorus_dtype, int64_t v) { return std::exp(r.values[v]); });
  write_row(a.log_probs, r.row, r.setup->n_tokens, value);
  return bad_token;
}

bool write_invalid_row(const FullRow &r, double value) {
  const chorus_combine_args &a = *r.args;
  const auto fill = [&](const chorus_tensor *t, int64_t columns, double x) {
    for (int64_t j = 0; t != nullptr && j < columns; ++j) put(*t, r.row, j, x);
  };
  const int64_t models = r.setup->n_models;
  for (int64_t j = 0; a.top_ids != nullptr && j < r.full->n_top; ++j)
    put_integer(CHORUS_I32, row_of(*a.top_ids, r.row), j * stride_of(*a.top_ids, 1), -1);
  fill(a.top_log_probs, r.full->n_top, value);
  put_float(a.tail_log_prob, r.row, value);
  fill(a.diagnostics, 3 + 2 * models, kCombineNaN);
  fill(a.gradient_sums, models + models * (models + 1) / 2, kCombineNaN);
  write_row(a.probs, r.row, r.setup->n_tokens, [&](chorus_dtype, int64_t) { return std::exp(value); });
  if (a.model_token_log_probs != nullptr && a.tokens != nullptr) {
    const chorus_tensor &out = *a.model_token_log_probs;
    for (int64_t j = 0; j < a.tokens->shape[1]; ++j) {
      for (int64_t i = 0; i < models; ++i)
        store_f64(CHORUS_F32, row_of(out, r.row), j * stride_of(out, 1) + i * stride_of(out, 2), kCombineNaN);
    }
  }
  return write_invalid(a, r.row, r.setup->n_tokens, value);
}

}  // namespace chorus::reference
