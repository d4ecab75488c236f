// SPDX-License-Identifier: Apache-2.0
// Rows that follow one another in the input are read at once; means are of f64, rounded once.
#include "merge/tokenizer/row_view.h"

#include <algorithm>
#include <cstring>

#include "checkpoint/convert.h"

namespace chorus::merge {
namespace {

constexpr uint64_t kChunk = uint64_t{1} << 16;  // elements read at once for the mean of all rows

}  // namespace

bool RowTable::is_identity(size_t i, int64_t input_rows) const {
  if (rows != tokens() || input_rows != rows) return false;
  for (int64_t token = 0; token < rows; ++token) {
    const auto at = static_cast<size_t>(token);
    if (own[i][at] != token || otherwise[at].force) return false;
  }
  return true;
}

uint64_t RowView::columns() const {
  uint64_t out = 1;
  for (size_t d = 1; d < tensor().shape.size(); ++d) out *= static_cast<uint64_t>(tensor().shape[d]);
  return out;
}

int64_t RowView::own_row(int64_t token) const {
  if (token >= table_->tokens()) return -1;
  const auto at = static_cast<size_t>(token);
  return table_->otherwise[at].force ? -1 : table_->own[input_][at];
}

void RowView::read_row(const RowSource &source, int64_t row, uint64_t first, uint64_t count, void *to) const {
  const uint64_t begin = static_cast<uint64_t>(row) * columns() + first, width = source.tensor->type->bits() / 8;
  const auto read = [&](void *where) {
    if (source.view != nullptr) {
      source.view->read(begin, count, where);
    } else {
      source.model->read(*source.tensor, begin * width, count * width, where);
    }
  };
  if (source.tensor->type == tensor().type) return read(to);
  std::vector<double> raw((count * width + sizeof(double) - 1) / sizeof(double));
  read(raw.data());
  checkpoint::convert(raw.data(), source.tensor->type->dtype, to, tensor().type->dtype, count);
}

void RowView::read_mean(int64_t token, uint64_t first, uint64_t count, void *to) const {
  std::vector<double> sum(count), values(count), raw(count);
  double present = 0;
  for (size_t i = 0; i < sources_->size(); ++i) {
    const RowSource &source = (*sources_)[i];
    const int64_t row = table_->own[i][static_cast<size_t>(token)];
    if (row < 0 || source.tensor == nullptr) continue;
    read_row(source, row, first, count, raw.data());
    checkpoint::convert(raw.data(), tensor().type->dtype, values.data(), CHORUS_F64, count);
    for (uint64_t e = 0; e < count; ++e) sum[e] += values[e];
    present += 1;
  }
  for (double &value : sum) value /= std::max(present, 1.0);
  checkpoint::convert(sum.data(), CHORUS_F64, to, tensor().type->dtype, count);
}

// Of the rows of all tokens, as this view has them.
const std::vector<double> &RowView::mean_row() const {
  std::call_once(once_, [&] {
    const uint64_t width = columns(), all = static_cast<uint64_t>(table_->tokens()) * width;
    std::vector<double> sum(width), raw(kChunk), values(kChunk);
    for (uint64_t begin = 0; begin < all; begin += kChunk) {
      const uint64_t count = std::min(kChunk, all - begin);
      read(begin, count, raw.data());
      checkpoint::convert(raw.data(), tensor().type->dtype, values.data(), CHORUS_F64, count);
      for (uint64_t e = 0; e < count; ++e) sum[(begin + e) % width] += values[e];
    }
    for (double &value : sum) value /= static_cast<double>(std::max<int64_t>(table_->tokens(), 1));
    mean_row_ = std::move(sum);
  });
  return mean_row_;
}

void RowView::read_token(int64_t token, uint64_t first, uint64_t count, char *to) const {
  if (token >= table_->tokens()) {
    checkpoint::convert(mean_row().data() + first, CHORUS_F64, to, tensor().type->dtype, count);
    return;
  }
  const RowTable::Otherwise &otherwise = table_->otherwise[static_cast<size_t>(token)];
  switch (otherwise.kind) {
    case RowTable::Otherwise::Kind::kRow:
      return read_row((*sources_)[otherwise.input], otherwise.row, first, count, to);
    case RowTable::Otherwise::Kind::kMean:
      return read_mean(token, first, count, to);
    case RowTable::Otherwise::Kind::kZero:
      std::memset(to, 0, count * tensor().type->bits() / 8);
  }
}

void RowView::read(uint64_t begin, uint64_t count, void *to) const {
  const uint64_t width = columns(), bytes = tensor().type->bits() / 8, end = begin + count;
  auto *out = static_cast<char *>(to);
  for (uint64_t at = begin; at < end;) {
    const auto token = static_cast<int64_t>(at / width);
    const uint64_t first = at % width;
    uint64_t stop = std::min(end, at - first + width);
    const int64_t own = own_row(token);
    if (own < 0) {
      read_token(token, first, stop - at, out);
    } else {
      for (int64_t next = 1; stop < end && own_row(token + next) == own + next; ++next) stop = std::min(end, stop + width);
      read_row((*sources_)[input_], own, first, stop - at, out);
    }
    out += (stop - at) * bytes;
    at = stop;
  }
}

}  // namespace chorus::merge
