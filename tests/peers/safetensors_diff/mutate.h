// SPDX-License-Identifier: Apache-2.0
// Files for the differential test: drawn from a grammar of headers with faults, then mutated byte by byte.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace diff {

// SplitMix64: the same files for the same seed everywhere.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t next();
  uint64_t below(uint64_t bound) { return next() % bound; }
  bool chance(uint64_t one_in) { return below(one_in) == 0; }

 private:
  uint64_t state_;
};

// A whole file: length, header, data. About a third are valid, the others hold one fault or a few.
std::string draw_file(Random *random);

}  // namespace diff
