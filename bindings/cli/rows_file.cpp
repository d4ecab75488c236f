// SPDX-License-Identifier: Apache-2.0
// Tensors of safetensors files as rows, read and written a block at a time.
#include "rows_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace chorus_cli {
namespace {

bool is_score(chorus_dtype dtype) {
  return dtype == CHORUS_F64 || dtype == CHORUS_F32 || dtype == CHORUS_F16 || dtype == CHORUS_BF16;
}

uint64_t bytes_of(chorus_dtype dtype) { return (dtype >> 8) / 8; }

// Which tensor of a file is meant when no name is given.
size_t choose(const chorus_checkpoint *checkpoint, const std::string &path, const std::vector<std::string> &usual) {
  const size_t count = chorus_checkpoint_get_tensor_count(checkpoint);
  if (count == 1) return 0;
  std::vector<std::string> names;
  for (size_t i = 0; i < count; ++i) {
    const chorus_tensor_info info = tensor_info(checkpoint, i);
    names.emplace_back(info.name, info.name_length);
  }
  for (const std::string &name : usual) {
    const auto found = std::find(names.begin(), names.end(), name);
    if (found != names.end()) return static_cast<size_t>(found - names.begin());
  }
  if (names.empty()) throw CallFailed(fmt::format("{}: holds no tensor", printable(path)), kExitBadInput);
  const size_t shown = std::min<size_t>(names.size(), 8);
  std::string list;
  for (size_t i = 0; i < shown; ++i) list += (i > 0 ? ", " : "") + printable(names[i]);
  throw CallFailed(fmt::format("{}: holds {} tensors ({}{}) and none is called {}; say which one", printable(path), count,
                               list, shown < count ? ", …" : "", fmt::join(usual, " or ")),
                   kExitBadInput);
}

}  // namespace

Checkpoint open_checkpoint(const Context &context, const std::string &path) {
  Call call;
  chorus_checkpoint *checkpoint = nullptr;
  call(chorus_checkpoint_open(context.get(), path.c_str(), &checkpoint, call.slot()));
  return Checkpoint(checkpoint);
}

chorus_tensor_info tensor_info(const chorus_checkpoint *checkpoint, size_t index) {
  Call call;
  chorus_tensor_info info = CHORUS_TENSOR_INFO_INIT;
  call(chorus_checkpoint_get_tensor(checkpoint, index, &info, call.slot()));
  return info;
}

View::View(void *data, chorus_dtype dtype, int64_t rows, int64_t width) : shape_{rows, width} {
  tensor_.data = data;
  tensor_.ndim = width == 0 ? 1 : 2;
  tensor_.size_bytes = static_cast<uint64_t>(rows) * static_cast<uint64_t>(width == 0 ? 1 : width) * bytes_of(dtype);
  tensor_.device_type = CHORUS_DEVICE_HOST;
  tensor_.dtype_code = static_cast<uint8_t>(dtype & 0xff);
  tensor_.dtype_bits = static_cast<uint8_t>(dtype >> 8);
  tensor_.dtype_lanes = 1;
  tensor_.shape = shape_;
}

RowsFile::RowsFile(const Context &context, const std::string &path, const std::string &name,
                   const std::vector<std::string> &usual)
    : path_(path), checkpoint_(open_checkpoint(context, path)) {
  if (name.empty()) {
    index_ = choose(checkpoint_.get(), path, usual);
  } else {
    Call call;
    call(chorus_checkpoint_find_tensor(checkpoint_.get(), name.c_str(), &index_, call.slot()));
  }
  info_ = tensor_info(checkpoint_.get(), index_);
  if (info_.ndim == 0) throw CallFailed(label() + " has no dimensions; needed are rows", kExitBadInput);
  width_ = info_.shape[info_.ndim - 1];
  for (int32_t i = 0; i + 1 < info_.ndim; ++i) rows_ *= info_.shape[i];
}

std::string RowsFile::label() const {
  return fmt::format("{}: tensor '{}'", printable(path_), printable({info_.name, info_.name_length}));
}

chorus_dtype RowsFile::score_dtype() const {
  if (!is_score(info_.dtype)) {
    throw CallFailed(fmt::format("{} is {}; scores are F64, F32, F16 or BF16", label(), info_.dtype_name), kExitBadInput);
  }
  return info_.dtype == CHORUS_F64 ? CHORUS_F32 : info_.dtype;
}

void RowsFile::read_scores(int64_t first, int64_t count, std::vector<char> *block) const {
  const uint64_t row_bytes = static_cast<uint64_t>(width_) * bytes_of(info_.dtype);
  block->resize(std::max<size_t>(1, static_cast<uint64_t>(count) * row_bytes));
  Call call;
  call(chorus_checkpoint_read_bytes(checkpoint_.get(), index_, static_cast<uint64_t>(first) * row_bytes,
                                    static_cast<uint64_t>(count) * row_bytes, block->data(), call.slot()));
  if (info_.dtype != CHORUS_F64) return;
  // In place: element i of f32 ends before element i + 1 of f64 begins.
  for (int64_t i = 0; i < count * width_; ++i) {
    double wide;
    std::memcpy(&wide, block->data() + i * 8, 8);
    const float narrow = static_cast<float>(wide);
    std::memcpy(block->data() + i * 4, &narrow, 4);
  }
}

std::vector<int64_t> RowsFile::read_integers() const {
  const size_t count = static_cast<size_t>(rows_ * width_);
  std::vector<int64_t> values(count);
  Call call;
  if (info_.dtype == CHORUS_I64) {
    call(chorus_checkpoint_read_bytes(checkpoint_.get(), index_, 0, count * 8, values.data(), call.slot()));
  } else if (info_.dtype == CHORUS_I32) {
    std::vector<int32_t> narrow(count);
    call(chorus_checkpoint_read_bytes(checkpoint_.get(), index_, 0, count * 4, narrow.data(), call.slot()));
    values.assign(narrow.begin(), narrow.end());
  } else {
    throw CallFailed(fmt::format("{} is {}; ids are I64 or I32", label(), info_.dtype_name), kExitBadInput);
  }
  return values;
}

std::vector<float> RowsFile::read_floats() const {
  if (!is_score(info_.dtype)) {
    throw CallFailed(fmt::format("{} is {}; needed are F64, F32, F16 or BF16", label(), info_.dtype_name), kExitBadInput);
  }
  std::vector<float> values(static_cast<size_t>(rows_ * width_));
  chorus_tensor out = CHORUS_TENSOR_INIT;  // the shape of the file's tensor, whatever its rank
  out.data = values.data();
  out.size_bytes = values.size() * sizeof(float);
  out.device_type = CHORUS_DEVICE_HOST;
  out.dtype_code = CHORUS_DTYPE_CODE_FLOAT;
  out.dtype_bits = 32;
  out.dtype_lanes = 1;
  out.ndim = info_.ndim;
  out.shape = info_.shape;
  Call call;
  call(chorus_checkpoint_read(checkpoint_.get(), index_, &out, call.slot()));
  return values;
}

RowsWriter::RowsWriter() {
  Call call;
  chorus_checkpoint_writer_spec *spec = nullptr;
  call(chorus_checkpoint_writer_spec_create(&spec, call.slot()));
  spec_.reset(spec);
  call(chorus_checkpoint_writer_spec_set_max_shard_bytes(spec, 0, call.slot()));
}

size_t RowsWriter::declare(const std::string &name, chorus_dtype dtype, const std::vector<int64_t> &shape) {
  Call call;
  size_t index = 0;
  call(chorus_checkpoint_writer_spec_add_tensor(spec_.get(), name.c_str(), dtype, static_cast<int32_t>(shape.size()),
                                                shape.data(), &index, call.slot()));
  written_.push_back(0);
  return index;
}

void RowsWriter::start(const Context &context, const std::string &folder, bool replace) {
  Call call;
  call(chorus_checkpoint_writer_spec_set_replace(spec_.get(), replace ? 1 : 0, call.slot()));
  chorus_checkpoint_writer *writer = nullptr;
  call(chorus_checkpoint_writer_create(context.get(), spec_.get(), folder.c_str(), &writer, call.slot()));
  writer_.reset(writer);
}

void RowsWriter::append(size_t index, const void *data, uint64_t bytes) {
  Call call;
  call(chorus_checkpoint_writer_write_bytes(writer_.get(), index, written_[index], bytes, data, call.slot()));
  written_[index] += bytes;
}

void RowsWriter::finish() {
  Call call;
  call(chorus_checkpoint_writer_finish(writer_.get(), call.slot()));
}

}  // namespace chorus_cli
