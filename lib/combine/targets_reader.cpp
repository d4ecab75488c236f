// SPDX-License-Identifier: Apache-2.0
// Reading targets. Shapes are checked at opening, records when they are read.
#include <cmath>
#include <limits>

#include "chorus/plugin.hpp"
#include "combine/parallel.h"
#include "combine/targets.h"
#include "runtime/dtype.h"
#include "runtime/error.h"
#include "runtime/tensor.h"

namespace chorus::combine {
namespace {

std::string file_of(const checkpoint::Model &model) {
  return model.files().empty() ? model.folder() : model.files().front().path();
}

}  // namespace

Targets::Targets(std::shared_ptr<const Context> context, const std::string &path)
    : context_(std::move(context)),
      host_(find_device(context_, "reference")),
      model_(checkpoint::Model::open(path)),
      info_(info_of(model_.metadata(), file_of(model_))) {
  for (const checkpoint::DeclaredTensor &wanted : tensors_of(info_.info)) {
    const checkpoint::Tensor *found = model_.find(wanted.name);
    if (found == nullptr || found->type != wanted.type || found->shape != wanted.shape) {
      fail(CHORUS_DATA_LOSS, "{}: tensor '{}' {}; metadata ask for {} [{}]", file_of(model_), wanted.name,
           found == nullptr ? "is missing" : fmt::format("is {} [{}]", found->type->name, fmt::join(found->shape, ", ")),
           wanted.type->name, fmt::join(wanted.shape, ", "));
    }
  }
}

void Targets::check_fingerprint(uint64_t low, uint64_t high) const {
  const chorus_targets_info &info = info_.info;
  if (info.fingerprint_low == 0 && info.fingerprint_high == 0) {
    fail(CHORUS_FAILED_PRECONDITION, "{} does not tell the vocabulary of its targets", file_of(model_));
  }
  if (info.fingerprint_low != low || info.fingerprint_high != high) {
    fail(CHORUS_FAILED_PRECONDITION,
         "{}: its ids are those of vocabulary {:016x}{:016x}, not {:016x}{:016x}; the same id may mean another token",
         file_of(model_), info.fingerprint_high, info.fingerprint_low, high, low);
  }
}

void Targets::check_range(int64_t first, int64_t rows) const {
  if (first < 0 || first > info_.info.rows || rows > info_.info.rows - first) {
    fail(CHORUS_OUT_OF_RANGE, "rows {} to {} were asked for; there are {}", first, first + rows, info_.info.rows);
  }
}

std::vector<SparseTarget> Targets::read_packed(int64_t first, int64_t rows) const {
  const chorus_targets_info &info = info_.info;
  const PackedFormat format(info.k, info.n_tokens, info.bits);
  std::vector<uint8_t> records(static_cast<size_t>(rows) * format.bytes());
  model_.read(*model_.find("targets"), static_cast<uint64_t>(first) * format.bytes(), records.size(), records.data());
  std::vector<SparseTarget> out(static_cast<size_t>(rows));
  parallel_for(context_->pool(), rows, [&](int64_t row) {
    const auto at = static_cast<size_t>(row);
    if (const char *wrong = format.unpack(&records[at * format.bytes()], &out[at])) {
      fail(CHORUS_DATA_LOSS, "{}: row {} is broken: {}", file_of(model_), first + row, wrong);
    }
  });
  return out;
}

std::vector<SparseTarget> Targets::read_plain(int64_t first, int64_t rows) const {
  const chorus_targets_info &info = info_.info;
  const uint64_t bytes = dtype_bytes(info.dtype), k = static_cast<uint64_t>(info.k), count = static_cast<uint64_t>(rows) * k,
                 skipped = static_cast<uint64_t>(first);
  std::vector<int32_t> ids(count);
  std::vector<char> log_probs(count * bytes);
  std::vector<float> tails(static_cast<size_t>(rows));
  model_.read(*model_.find("ids"), skipped * k * 4, count * 4, ids.data());
  model_.read(*model_.find("log_probs"), skipped * k * bytes, count * bytes, log_probs.data());
  model_.read(*model_.find("tail"), skipped * 4, tails.size() * 4, tails.data());
  std::vector<SparseTarget> out(static_cast<size_t>(rows));
  for (size_t i = 0; i < count; ++i) {
    const double l = load_f64(log_probs.data(), info.dtype, i);
    if (ids[i] < -1 || ids[i] >= info.n_tokens || std::isnan(l)) {
      fail(CHORUS_DATA_LOSS, "{}: row {} is broken: id {} with log-prob {}", file_of(model_), skipped + i / k, ids[i], l);
    }
    if (ids[i] < 0) continue;
    out[i / k].ids.push_back(ids[i]);
    out[i / k].log_probs.push_back(l);
  }
  for (size_t row = 0; row < out.size(); ++row) out[row].tail = tails[row];
  return out;
}

void Targets::read_top(int64_t first, const chorus_tensor *ids, const chorus_tensor *log_probs, const chorus_tensor *tail) const {
  const chorus_targets_info &info = info_.info;
  if (info.form == CHORUS_TARGETS_ROWS) {
    fail(CHORUS_FAILED_PRECONDITION, "{} holds whole rows; chorus_targets_read_rows() reads them", file_of(model_));
  }
  check_tensor(ids, {"ids", {CHORUS_I32}, {kAnySize, info.k}, true}, *host_);
  const int64_t rows = ids->shape[0];
  check_tensor(log_probs, {"log_probs", {CHORUS_F32}, {rows, info.k}, true}, *host_);
  check_tensor(tail, {"tail", {CHORUS_F32}, {rows}, true}, *host_);
  check_no_overlap(*ids, "ids", *log_probs, "log_probs");
  check_no_overlap(*ids, "ids", *tail, "tail");
  check_no_overlap(*log_probs, "log_probs", *tail, "tail");
  check_range(first, rows);
  const std::vector<SparseTarget> targets = is_packed(info) ? read_packed(first, rows) : read_plain(first, rows);
  for (int64_t row = 0; row < rows; ++row) {
    const SparseTarget &target = targets[static_cast<size_t>(row)];
    for (int64_t j = 0; j < info.k; ++j) {
      const auto at = static_cast<size_t>(j);
      const bool present = at < target.ids.size();
      plugin::put_integer(CHORUS_I32, plugin::row_of(*ids, row), j, present ? target.ids[at] : -1);
      plugin::store_f64(CHORUS_F32, plugin::row_of(*log_probs, row), j,
                        present ? target.log_probs[at] : -std::numeric_limits<double>::infinity());
    }
    plugin::put_float(tail, row, target.tail);
  }
}

void Targets::read_rows(int64_t first, const chorus_tensor *log_probs) const {
  const chorus_targets_info &info = info_.info;
  if (info.form != CHORUS_TARGETS_ROWS) {
    fail(CHORUS_FAILED_PRECONDITION, "{} holds the {} best tokens; chorus_targets_read_top() reads them", file_of(model_), info.k);
  }
  check_tensor(log_probs, {"log_probs", {CHORUS_F32}, {kAnySize, info.n_tokens}, true}, *host_);
  const int64_t rows = log_probs->shape[0];
  check_range(first, rows);
  std::vector<char> stored(static_cast<size_t>(rows) * info.bytes_per_row);
  model_.read(*model_.find("log_probs"), static_cast<uint64_t>(first) * info.bytes_per_row, stored.size(), stored.data());
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t v = 0; v < info.n_tokens; ++v) {
      plugin::store_f64(CHORUS_F32, plugin::row_of(*log_probs, row), v,
                        load_f64(stored.data(), info.dtype, static_cast<uint64_t>(row * info.n_tokens + v)));
    }
  }
}

}  // namespace chorus::combine
