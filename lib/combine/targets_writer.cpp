// SPDX-License-Identifier: Apache-2.0
// Writing targets: rows of distributions or of their best tokens, packed in parallel, written in order.
#include <algorithm>
#include <cmath>
#include <limits>

#include "chorus/plugin.hpp"
#include "combine/parallel.h"
#include "combine/score_row.h"
#include "combine/targets.h"
#include "runtime/dtype.h"
#include "runtime/error.h"
#include "runtime/tensor.h"

namespace chorus::combine {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

checkpoint::Layout layout_of(const TargetsInfo &info) {
  return checkpoint::plan_layout(tensors_of(info.info), metadata_of(info), 0);
}

SparseTarget target_of(const chorus_targets_info &info, const chorus_tensor &ids, const chorus_tensor &log_probs, double tail,
                       int64_t row) {
  SparseTarget out{{}, {}, tail};
  for (int64_t j = 0; j < info.k; ++j) {
    const int64_t id = plugin::integer_at(CHORUS_I32, plugin::row_of(ids, row), j * plugin::stride_of(ids, 1));
    const double l = plugin::load_f64(CHORUS_F32, plugin::row_of(log_probs, row), j * plugin::stride_of(log_probs, 1));
    if (id == -1) continue;
    if (id < 0 || id >= info.n_tokens) {
      fail(CHORUS_INVALID_ARGUMENT, "ids: row {} has {}; -1 to {} are allowed", row, id, info.n_tokens - 1);
    }
    if (std::isnan(l) || l == kInfinity) fail(CHORUS_INVALID_ARGUMENT, "log_probs: row {} has {}", row, l);
    out.ids.push_back(static_cast<int32_t>(id));
    out.log_probs.push_back(l);
  }
  std::vector<int32_t> sorted = out.ids;
  std::ranges::sort(sorted);
  if (std::ranges::adjacent_find(sorted) != sorted.end()) {
    fail(CHORUS_INVALID_ARGUMENT, "ids: row {} has {} twice", row, *std::ranges::adjacent_find(sorted));
  }
  const bool something = tail > -kInfinity || std::ranges::any_of(out.log_probs, [](double l) { return l > -kInfinity; });
  if (std::isnan(tail) || tail == kInfinity || !something) {
    fail(CHORUS_INVALID_ARGUMENT, "row {} is no distribution: its tail is {}", row, tail);
  }
  return out;
}

}  // namespace

TargetsWriter::TargetsWriter(std::shared_ptr<const Context> context, const chorus_targets_info &info,
                             const std::string &folder)
    : context_(std::move(context)),
      host_(find_device(context_, "reference")),
      info_(checked_targets_info(info)),
      writer_(layout_of(info_), folder, {}) {}

void TargetsWriter::check_room(int64_t rows) const {
  if (rows > info_.info.rows - next_) {
    fail(CHORUS_OUT_OF_RANGE, "{} rows after {}; the file was declared with {}", rows, next_, info_.info.rows);
  }
}

void TargetsWriter::write_rows(const chorus_tensor *log_probs) {
  check_tensor(log_probs, {"log_probs", {CHORUS_F64, CHORUS_F32, CHORUS_F16, CHORUS_BF16}, {kAnySize, kAnySize}}, *host_);
  const chorus_targets_info &info = info_.info;
  const int64_t rows = log_probs->shape[0], n = info.n_tokens;
  if (log_probs->shape[1] < n) {
    fail(CHORUS_INVALID_ARGUMENT, "log_probs: rows have {} entries; n_tokens is {}", log_probs->shape[1], n);
  }
  check_room(rows);
  const bool dense = info.form == CHORUS_TARGETS_ROWS;
  std::vector<SparseTarget> targets(dense ? 0 : static_cast<size_t>(rows));
  std::vector<double> whole(dense ? static_cast<size_t>(rows * n) : 0);
  parallel_runs(context_->pool(), rows, [&](int64_t first, int64_t end) {
    std::vector<double> row_log_probs(static_cast<size_t>(n));
    for (int64_t row = first; row < end; ++row) {
      double *to = dense ? &whole[static_cast<size_t>(row * n)] : row_log_probs.data();
      const RowState state = normalise_row(plugin::row_of(*log_probs, row), plugin::dtype_of(*log_probs), n, to, n);
      if (state == RowState::kNaN || state == RowState::kEmpty) {
        fail(CHORUS_INVALID_ARGUMENT, "log_probs: row {} {}", row, state == RowState::kNaN ? "has a NaN" : "is all -inf");
      }
      if (!dense) targets[static_cast<size_t>(row)] = best_of(to, n, info.k);
    }
  });
  if (dense) {
    write_dense(whole, rows);
  } else {
    write_targets(targets);
  }
}

void TargetsWriter::write_top(const chorus_tensor *ids, const chorus_tensor *log_probs, const chorus_tensor *tail) {
  const chorus_targets_info &info = info_.info;
  if (info.form == CHORUS_TARGETS_ROWS) {
    fail(CHORUS_FAILED_PRECONDITION, "the file holds whole rows; chorus_targets_writer_write_rows() writes them");
  }
  check_tensor(ids, {"ids", {CHORUS_I32}, {kAnySize, info.k}}, *host_);
  const int64_t rows = ids->shape[0];
  check_tensor(log_probs, {"log_probs", {CHORUS_F32}, {rows, info.k}}, *host_);
  check_tensor(tail, {"tail", {CHORUS_F32}, {rows}}, *host_);
  check_room(rows);
  std::vector<SparseTarget> targets;
  for (int64_t row = 0; row < rows; ++row) {
    targets.push_back(target_of(info, *ids, *log_probs, plugin::f32_at(*tail, row), row));
  }
  write_targets(targets);
}

void TargetsWriter::write_targets(const std::vector<SparseTarget> &targets) {
  const chorus_targets_info &info = info_.info;
  const auto rows = static_cast<int64_t>(targets.size());
  const auto first = static_cast<uint64_t>(next_), count = targets.size(), k = static_cast<uint64_t>(info.k);
  if (is_packed(info)) {
    const PackedFormat format(info.k, info.n_tokens, info.bits);
    std::vector<uint8_t> records(count * format.bytes());
    parallel_for(context_->pool(), rows, [&](int64_t row) {
      format.pack(targets[static_cast<size_t>(row)], &records[static_cast<size_t>(row) * format.bytes()]);
    });
    writer_.write(0, first * format.bytes(), records.size(), records.data());
  } else {
    const uint64_t bytes = dtype_bytes(info.dtype);
    std::vector<int32_t> ids(count * k, -1);
    std::vector<char> log_probs(count * k * bytes);
    std::vector<float> tails(count);
    for (size_t row = 0; row < count; ++row) {
      tails[row] = static_cast<float>(targets[row].tail);
      for (size_t j = 0; j < k; ++j) {
        const bool present = j < targets[row].ids.size();
        if (present) ids[row * k + j] = targets[row].ids[j];
        store_f64(log_probs.data(), info.dtype, row * k + j, present ? targets[row].log_probs[j] : -kInfinity);
      }
    }
    writer_.write(0, first * k * 4, ids.size() * 4, ids.data());
    writer_.write(1, first * k * bytes, log_probs.size(), log_probs.data());
    writer_.write(2, first * 4, tails.size() * 4, tails.data());
  }
  next_ += rows;
}

void TargetsWriter::write_dense(const std::vector<double> &log_probs, int64_t rows) {
  const uint64_t bytes = dtype_bytes(info_.info.dtype);
  std::vector<char> stored(log_probs.size() * bytes);
  for (size_t i = 0; i < log_probs.size(); ++i) store_f64(stored.data(), info_.info.dtype, i, log_probs[i]);
  writer_.write(0, static_cast<uint64_t>(next_) * info_.info.bytes_per_row, stored.size(), stored.data());
  next_ += rows;
}

void TargetsWriter::finish() {
  if (next_ != info_.info.rows) {
    fail(CHORUS_FAILED_PRECONDITION, "{} rows were written; the file was declared with {}", next_, info_.info.rows);
  }
  writer_.finish();
}

}  // namespace chorus::combine
