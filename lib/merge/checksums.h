// SPDX-License-Identifier: Apache-2.0
// XXH3-64 of every output tensor's bytes, for the manifest and the journal. Pieces are written out of order by many threads;
// a range is hashed from the page cache, in order, while the next one is computed.
#pragma once
#include <xxhash.h>

#include <memory>
#include <string>
#include <vector>

#include "checkpoint/writer.h"

namespace chorus::merge {

class Checksums {
 public:
  explicit Checksums(const checkpoint::Writer *writer) : writer_(writer), tensors_(writer->layout().places.size()) {}

  // Hashes the tensor's bytes up to `end`, from where the last call ended. Calls for one tensor come one after the other.
  void advance(size_t tensor, uint64_t end);
  // Of all bytes, after advance() to their end.
  uint64_t value(size_t tensor) const { return tensors_[tensor].value; }
  void set(size_t tensor, uint64_t value) { tensors_[tensor].value = value; }
  // Of the bytes that lie at the tensor's place now.
  uint64_t compute(size_t tensor) const;

 private:
  struct FreeState {
    void operator()(XXH3_state_t *state) const { XXH3_freeState(state); }
  };
  using State = std::unique_ptr<XXH3_state_t, FreeState>;
  struct Tensor {
    State state;  // while it grows
    uint64_t done = 0, value = 0;
  };
  static State new_state();
  void feed(XXH3_state_t *state, size_t tensor, uint64_t begin, uint64_t end) const;

  const checkpoint::Writer *writer_;
  std::vector<Tensor> tensors_;
};

// "0123456789abcdef".
std::string hash_text(uint64_t hash);

}  // namespace chorus::merge
