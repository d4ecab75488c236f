// SPDX-License-Identifier: Apache-2.0
// An embedding or a head with its rows in the order of another vocabulary: a row is the input's own, another input's, a mean of several, zero,
// or, beyond the tokens, the mean of all rows (Hewitt 2021, "Initializing new word embeddings").
#pragma once
#include <memory>
#include <mutex>
#include <vector>

#include "merge/tensor_view.h"

namespace chorus::merge {

// Which rows every input gives to the tokens of the output, and what takes their place.
struct RowTable {
  struct Otherwise {
    enum class Kind { kZero, kRow, kMean } kind = Kind::kZero;
    size_t input = 0;  // of kRow
    int64_t row = 0;
    bool force = false;  // for inputs with a row of their own too
  };
  std::vector<std::vector<int64_t>> own;  // [input][token]: -1 for none
  std::vector<Otherwise> otherwise;       // [token]
  int64_t rows = 0;                       // tokens and padding

  int64_t tokens() const { return static_cast<int64_t>(otherwise.size()); }
  // Input `i` of `rows` rows needs no view.
  bool is_identity(size_t i, int64_t input_rows) const;
};

// A tensor of an input, as it is read.
struct RowSource {
  std::shared_ptr<const checkpoint::Model> model;
  const checkpoint::Tensor *tensor = nullptr;  // NULL: the input has none
  std::shared_ptr<const TensorView> view;
};

class RowView final : public TensorView {
 public:
  // Input `input` of `table`; `sources` holds every input's tensor of this name. `tensor` has the shape and type of the result.
  RowView(checkpoint::Tensor tensor, size_t input, std::shared_ptr<const RowTable> table, std::shared_ptr<const std::vector<RowSource>> sources)
      : TensorView(std::move(tensor)), input_(input), table_(std::move(table)), sources_(std::move(sources)) {}

  void read(uint64_t begin, uint64_t count, void *to) const override;

 private:
  uint64_t columns() const;
  int64_t own_row(int64_t token) const;
  void read_token(int64_t token, uint64_t first, uint64_t count, char *to) const;
  void read_row(const RowSource &source, int64_t row, uint64_t first, uint64_t count, void *to) const;
  void read_mean(int64_t token, uint64_t first, uint64_t count, void *to) const;
  const std::vector<double> &mean_row() const;

  size_t input_;
  std::shared_ptr<const RowTable> table_;
  std::shared_ptr<const std::vector<RowSource>> sources_;
  mutable std::once_flag once_;
  mutable std::vector<double> mean_row_;
};

}  // namespace chorus::merge
