// SPDX-License-Identifier: Apache-2.0
// route_assign.h: checks of the tensors, and calls into route/assign.
#include "chorus/route_assign.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "abi/boundary.h"
#include "chorus/plugin.hpp"
#include "route/assign.h"
#include "runtime/context.h"
#include "runtime/device.h"
#include "runtime/tensor.h"

using chorus::check_no_overlap;
using chorus::check_tensor;
using chorus::fail;
using chorus::kAnySize;
using chorus::abi::guarded;
using chorus::abi::require;
using chorus::route::Matrix;

namespace {

constexpr int64_t kMostBalanced = 1024;  // experts of chorus_route_balance: it keeps E^2 distances

chorus::DevicePtr host_of(const chorus_context *context) {
  return chorus::find_device(chorus::context_of(context), "reference");
}

// A matrix of finite numbers, [rows, columns] where those are not kAnySize, with at least one column.
Matrix read_matrix(const char *name, const chorus_tensor *tensor, int64_t rows, int64_t columns, const chorus::Device &host) {
  check_tensor(tensor, {name, {CHORUS_F64, CHORUS_F32, CHORUS_F16, CHORUS_BF16}, {rows, columns}}, host);
  if (tensor->shape[1] < 1) fail(CHORUS_INVALID_ARGUMENT, "{} has no columns; at least 1 is needed", name);
  Matrix out(tensor->shape[0], tensor->shape[1]);
  const chorus_dtype dtype = chorus::dtype_of(*tensor);
  for (int64_t r = 0; r < out.rows; ++r) {
    const void *row = chorus::plugin::row_of(*tensor, r);
    for (int64_t c = 0; c < out.columns; ++c) {
      out.row(r)[c] = chorus::plugin::load_f64(dtype, row, c);
      if (!std::isfinite(out.row(r)[c])) {
        fail(CHORUS_INVALID_ARGUMENT, "{}[{}, {}] is {}; finite numbers are needed", name, r, c, out.row(r)[c]);
      }
    }
  }
  return out;
}

// An f32 or f64 output that may be NULL and overlaps no input.
void check_output(const char *name, const chorus_tensor *tensor, int64_t rows, int64_t columns, const chorus_tensor &input,
                  const char *input_name, const chorus::Device &host) {
  if (tensor == nullptr) return;
  check_tensor(tensor, {name, {CHORUS_F32, CHORUS_F64}, {rows, columns}, true}, host);
  check_no_overlap(*tensor, name, input, input_name);
}

void write_matrix(const Matrix &from, const chorus_tensor *to) {
  if (to == nullptr) return;
  for (int64_t r = 0; r < from.rows; ++r) {
    for (int64_t c = 0; c < from.columns; ++c)
      chorus::plugin::store_f64(chorus::dtype_of(*to), chorus::plugin::row_of(*to, r), c, from.row(r)[c]);
  }
}

}  // namespace

extern "C" {

chorus_status chorus_route_sinkhorn(const chorus_context *context, const chorus_tensor *logits, double tolerance,
                                    int32_t max_rounds, const chorus_tensor *plan, const chorus_tensor *ids,
                                    int32_t *out_rounds, chorus_error **error) {
  return guarded(error, [&] {
    const auto host = host_of(context);
    Matrix m = read_matrix("logits", logits, kAnySize, kAnySize, *host);
    check_output("plan", plan, m.rows, m.columns, *logits, "logits", *host);
    if (!(tolerance >= 0)) fail(CHORUS_INVALID_ARGUMENT, "tolerance is {}; 0 or more is needed", tolerance);
    if (max_rounds < 1 || max_rounds > 1000000) {
      fail(CHORUS_INVALID_ARGUMENT, "max_rounds is {}; 1 to 1000000 are allowed", max_rounds);
    }
    if (ids != nullptr) {
      check_tensor(ids, {"ids", {CHORUS_I32}, {m.rows, kAnySize}, true}, *host);
      check_no_overlap(*ids, "ids", *logits, "logits");
      if (plan != nullptr) check_no_overlap(*ids, "ids", *plan, "plan");
      if (ids->shape[1] > m.columns) {
        fail(CHORUS_INVALID_ARGUMENT, "ids has {} columns; at most the {} experts are allowed", ids->shape[1], m.columns);
      }
    }
    const int32_t rounds = m.rows > 0 ? chorus::route::sinkhorn(&m, tolerance, max_rounds) : 0;
    write_matrix(m, plan);
    for (int64_t t = 0; ids != nullptr && t < m.rows; ++t) {
      const auto best = chorus::route::best_columns(m.row(t), m.columns, static_cast<int32_t>(ids->shape[1]));
      std::copy(best.begin(), best.end(), static_cast<int32_t *>(chorus::plugin::row_of(*ids, t)));
    }
    if (out_rounds != nullptr) *out_rounds = rounds;
  });
}

chorus_status chorus_route_balance(const chorus_context *context, const chorus_tensor *logits, int64_t capacity,
                                   const chorus_tensor *ids, double *out_total, chorus_error **error) {
  return guarded(error, [&] {
    const auto host = host_of(context);
    const Matrix m = read_matrix("logits", logits, kAnySize, kAnySize, *host);
    check_tensor(ids, {"ids", {CHORUS_I32}, {m.rows}, true}, *host);
    check_no_overlap(*ids, "ids", *logits, "logits");
    if (m.columns > kMostBalanced) {
      fail(CHORUS_INVALID_ARGUMENT, "logits has {} experts; at most {} are balanced", m.columns, kMostBalanced);
    }
    const int64_t least = (m.rows + m.columns - 1) / m.columns, room = capacity == 0 ? least : capacity;
    if (room < least) {
      fail(CHORUS_INVALID_ARGUMENT, "capacity is {}; {} tokens on {} experts need 0 (as many as needed) or {} and above", capacity,
           m.rows, m.columns, least);
    }
    const auto experts = chorus::route::balanced_assignment(m, room);
    double total = 0;
    for (int64_t t = 0; t < m.rows; ++t) {
      chorus::plugin::put_integer(ids, t, experts[static_cast<size_t>(t)]);
      total += m.row(t)[experts[static_cast<size_t>(t)]];
    }
    if (out_total != nullptr) *out_total = total;
  });
}

chorus_status chorus_route_soft(const chorus_context *context, const chorus_tensor *logits, const chorus_tensor *dispatch,
                                const chorus_tensor *combine, chorus_error **error) {
  return guarded(error, [&] {
    const auto host = host_of(context);
    Matrix by_slot = read_matrix("logits", logits, kAnySize, kAnySize, *host);
    check_output("dispatch", dispatch, by_slot.rows, by_slot.columns, *logits, "logits", *host);
    check_output("combine", combine, by_slot.rows, by_slot.columns, *logits, "logits", *host);
    if (dispatch != nullptr && combine != nullptr) check_no_overlap(*dispatch, "dispatch", *combine, "combine");
    Matrix by_token = by_slot;
    chorus::route::softmax_columns(&by_slot);
    chorus::route::softmax_rows(&by_token);
    write_matrix(by_slot, dispatch);
    write_matrix(by_token, combine);
  });
}

chorus_status chorus_route_update_quantile_bias(const chorus_context *context, const chorus_tensor *scores, int32_t k,
                                                const chorus_tensor *bias, chorus_error **error) {
  return guarded(error, [&] {
    const auto host = host_of(context);
    const Matrix m = read_matrix("scores", scores, kAnySize, kAnySize, *host);
    check_tensor(bias, {"bias", {CHORUS_F32}, {m.columns}, true}, *host);
    check_no_overlap(*bias, "bias", *scores, "scores");
    if (k < 1 || k > m.columns) fail(CHORUS_INVALID_ARGUMENT, "k is {}; 1 to {} are allowed", k, m.columns);
    if (m.rows * k % m.columns != 0) {
      fail(CHORUS_INVALID_ARGUMENT, "scores has {} rows; with k = {} and {} experts their product must be a multiple of the experts",
           m.rows, k, m.columns);
    }
    if (m.rows == 0) return;
    std::vector<double> values;
    for (int64_t e = 0; e < m.columns; ++e) {
      values.push_back(chorus::plugin::f32_at(*bias, e));
      if (!std::isfinite(values.back())) fail(CHORUS_INVALID_ARGUMENT, "bias[{}] is {}; finite is needed", e, values.back());
    }
    chorus::route::update_quantile_bias(m, k, &values);
    for (int64_t e = 0; e < m.columns; ++e) chorus::plugin::put_float(bias, e, values[static_cast<size_t>(e)]);
  });
}

chorus_status chorus_route_cosine_gate(const chorus_context *context, const chorus_tensor *x, const chorus_tensor *centroids,
                                       double log_scale, const chorus_tensor *logits, chorus_error **error) {
  return guarded(error, [&] {
    const auto host = host_of(context);
    const Matrix tokens = read_matrix("x", x, kAnySize, kAnySize, *host);
    const Matrix experts = read_matrix("centroids", centroids, kAnySize, tokens.columns, *host);
    check_output("logits", require(logits, "logits"), tokens.rows, experts.rows, *x, "x", *host);
    check_no_overlap(*logits, "logits", *centroids, "centroids");
    if (std::isnan(log_scale)) fail(CHORUS_INVALID_ARGUMENT, "log_scale is NaN; a number is needed");
    const double scale = std::exp(std::min(log_scale, std::log(100.0)));
    const auto dot = [&](const double *a, const double *b) { return std::inner_product(a, a + tokens.columns, b, 0.0); };
    Matrix out(tokens.rows, experts.rows);
    for (int64_t t = 0; t < tokens.rows; ++t) {
      for (int64_t e = 0; e < experts.rows; ++e) {
        const double lengths = std::sqrt(dot(tokens.row(t), tokens.row(t))) * std::sqrt(dot(experts.row(e), experts.row(e)));
        out.row(t)[e] = lengths > 0 ? dot(tokens.row(t), experts.row(e)) / lengths * scale : 0.0;
      }
    }
    write_matrix(out, logits);
  });
}

}  // extern "C"
