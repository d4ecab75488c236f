// SPDX-License-Identifier: Apache-2.0
// One sparse target in few bits: ids by Elias and Fano, log-probs on a square-root scale below the best. All records of a file have the
// same size, so that a row is found without reading others. Layout: docs/combining.md, "Target files".
#pragma once
#include <cstdint>
#include <vector>

namespace chorus::combine {

// k tokens, best first, and the log of the rest's mass; together they sum to 1.
struct SparseTarget {
  std::vector<int32_t> ids;
  std::vector<double> log_probs;
  double tail;  // -inf: nothing
};

class PackedFormat {
 public:
  // 1 <= k <= n_tokens < 2^31, 2 <= bits <= 16.
  PackedFormat(int32_t k, int64_t n_tokens, int32_t bits);
  uint64_t bytes() const { return (bits_of_record_ + 7) / 8; }

  // At most k tokens; those 40 nats below the best join the tail. `record` has bytes() bytes.
  void pack(const SparseTarget &target, uint8_t *record) const;
  // NULL, or what is wrong with the record.
  const char *unpack(const uint8_t *record, SparseTarget *target) const;

 private:
  int32_t k_, bits_, count_bits_, low_bits_;
  int64_t n_tokens_;
  uint64_t high_bits_, bits_of_record_;
};

// The k best of normalised log-probs [n], lowest id among equals, and the rest summed.
SparseTarget best_of(const double *log_probs, int64_t n, int32_t k);

}  // namespace chorus::combine
