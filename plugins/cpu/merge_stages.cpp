// SPDX-License-Identifier: Apache-2.0
// Memory of a run, and the ranks of a group: see merge_stages.h. Ranks cost three passes of a radix sort per input.
#include "cpu/merge_stages.h"

#include <algorithm>

namespace chorus::cpu {
namespace {

constexpr uint64_t kSmallGroup = 512;  // below, comparing beats counting

// Sorts by the upper 32 bits, stable: 3 passes of 11 bits.
void radix_sort(uint64_t *values, uint64_t *other, uint64_t count) {
  for (int shift = 32; shift < 64; shift += 11) {
    uint32_t places[2049] = {};
    for (uint64_t j = 0; j < count; ++j) ++places[(values[j] >> shift & 2047) + 1];
    for (int b = 0; b < 2048; ++b) places[b + 1] += places[b];
    for (uint64_t j = 0; j < count; ++j) other[places[values[j] >> shift & 2047]++] = values[j];
    std::swap(values, other);
  }
}

}  // namespace

// Doubles first: base, scratch, values, kept; then words, sorted, ranks.
uint64_t run_bytes(int32_t n_inputs, uint64_t rank_size) {
  const auto n = static_cast<uint64_t>(n_inputs);
  return 8 * kRun * (3 + 2 * n) + aligned(4 * (kRun + 8)) + aligned(16 * rank_size) + aligned(4 * rank_size * n);
}

RunMemory run_memory(void *memory, int32_t n_inputs, uint64_t rank_size) {
  const auto n = static_cast<uint64_t>(n_inputs);
  auto *doubles = static_cast<double *>(memory);
  RunMemory m{doubles, doubles + 3 * kRun, doubles + (3 + n) * kRun, doubles + kRun, nullptr, nullptr, nullptr};
  auto *rest = reinterpret_cast<char *>(doubles + (3 + 2 * n) * kRun);
  m.words = reinterpret_cast<uint32_t *>(rest);
  m.sorted = reinterpret_cast<uint64_t *>(rest + aligned(4 * (kRun + 8)));
  m.ranks = reinterpret_cast<uint32_t *>(rest + aligned(4 * (kRun + 8)) + aligned(16 * rank_size));
  return m;
}

bool counts_ties(const StageJob &job) {
  const bool cuts = job.sparsify == CHORUS_SPARSIFY_MAGNITUDE_CUT || job.sparsify == CHORUS_SPARSIFY_BAND ||
                    job.sparsify == CHORUS_SPARSIFY_STATISTIC_CUT;
  return cuts && job.args.ties != nullptr;
}

void rank_group(const StageJob &job, uint64_t at, const double *weights, const RunMemory &m) {
  const Operands &o = *job.operands;
  const uint64_t size = job.group_size;
  for (int32_t i = 0; i < o.n_inputs; ++i) {
    if (job.inputs[i] == nullptr || (weights != nullptr && weights[i] == 0.0)) continue;
    for (uint64_t j = 0; j < size; ++j) {
      double x = o.x(i, job.inputs[i], at + j);
      if (o.deltas) x = x - o.base(job.base, at + j);
      m.sorted[j] = uint64_t{key_of(x)} << 32 | j;
    }
    uint64_t *sorted = m.sorted;
    if (size < kSmallGroup) {
      std::sort(sorted, sorted + size);
    } else {
      radix_sort(sorted, sorted + size, size);
      sorted += size;  // three passes end in the other half
    }
    uint32_t *ranks = m.ranks + static_cast<uint64_t>(i) * size;
    for (uint64_t r = 0; r < size; ++r) ranks[sorted[r] & 0xffffffffu] = static_cast<uint32_t>(r);
  }
}

}  // namespace chorus::cpu
