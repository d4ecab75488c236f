// SPDX-License-Identifier: Apache-2.0
// The setters of a router's spec that check more than one value.
#include "route/router_spec.h"

#include <algorithm>
#include <cmath>

#include "runtime/error.h"
#include "runtime/tensor.h"

namespace chorus::route {
namespace {

constexpr int64_t kMostTokenIds = 1 << 24;

void check_drop(chorus_route_drop drop) {
  if (drop < CHORUS_ROUTE_DROP_NONE || drop > CHORUS_ROUTE_DROP_AT_RANDOM) {
    fail(CHORUS_INVALID_ARGUMENT, "drop is {}; 0 to {} are known", drop, CHORUS_ROUTE_DROP_AT_RANDOM);
  }
}

void check_count(const char *name, int64_t value, int64_t least) {
  if (value < least || value > INT32_MAX) {
    fail(CHORUS_INVALID_ARGUMENT, "{} is {}; {} to 2^31 - 1 are allowed", name, value, least);
  }
}

}  // namespace

RouterSpec::RouterSpec(int32_t n_experts, int32_t k) : desc(CHORUS_ROUTE_DESC_INIT) {
  if (n_experts < 1 || n_experts > 8192) {
    fail(CHORUS_INVALID_ARGUMENT, "n_experts is {}; 1 to 8192 are allowed", n_experts);
  }
  if (k < 1 || k > 64 || k > n_experts) {
    fail(CHORUS_INVALID_ARGUMENT, "k is {}; 1 to {} are allowed", k, std::min(n_experts, 64));
  }
  desc.n_experts = n_experts;
  desc.k = k;
  desc.max_tokens = 1;
  desc.logits_dtype = CHORUS_F32;
  desc.ids_dtype = CHORUS_I32;
  desc.weights_dtype = CHORUS_F32;
  desc.scale = 1;
  desc.temperature = 1;
}

void RouterSpec::set_groups(int32_t n_groups, int32_t topk_groups, chorus_route_group_score score, int32_t top) {
  if (score != CHORUS_ROUTE_GROUP_MAX && score != CHORUS_ROUTE_GROUP_TOP_SUM) {
    fail(CHORUS_INVALID_ARGUMENT, "score is {}; CHORUS_ROUTE_GROUP_MAX (0) and _TOP_SUM (1) are known", score);
  }
  if (score == CHORUS_ROUTE_GROUP_TOP_SUM && (top < 1 || top > 64)) {
    fail(CHORUS_INVALID_ARGUMENT, "top is {}; 1 to 64 are allowed", top);
  }
  if (n_groups < 0 || (n_groups > 1 && desc.n_experts % n_groups != 0)) {
    fail(CHORUS_INVALID_ARGUMENT, "n_groups is {}; a divisor of {} experts is needed, or 0 for no groups", n_groups,
         desc.n_experts);
  }
  const int32_t most = std::min(n_groups, 64);
  if (n_groups > 1 && (topk_groups < 1 || topk_groups > most)) {
    fail(CHORUS_INVALID_ARGUMENT, "topk_groups is {}; 1 to {} are allowed", topk_groups, most);
  }
  if (n_groups > 1 && int64_t{topk_groups} * (desc.n_experts / n_groups) < desc.k) {
    fail(CHORUS_INVALID_ARGUMENT, "topk_groups is {}: groups of {} experts then hold fewer than k = {}", topk_groups,
         desc.n_experts / n_groups, desc.k);
  }
  desc.n_groups = n_groups;
  desc.topk_groups = topk_groups;
  desc.group_score = score;
  desc.group_top = top;
}

void RouterSpec::set_hash_table(const chorus_tensor &table) {
  const bool is_matrix = table.ndim == 2 && table.shape != nullptr && table.strides == nullptr &&
                         dtype_of(table) == CHORUS_I32 && table.device_type == CHORUS_DEVICE_HOST;
  if (!is_matrix || table.shape[0] < 1 || table.shape[0] > kMostTokenIds || table.shape[1] != desc.k ||
      table.data == nullptr || table.size_bytes / sizeof(int32_t) < static_cast<uint64_t>(table.shape[0] * desc.k)) {
    fail(CHORUS_INVALID_ARGUMENT, "table must be a compact i32 matrix [1 to {} token ids, {}] in host memory",
         kMostTokenIds, desc.k);
  }
  const auto *entries = static_cast<const int32_t *>(table.data);
  std::vector<int32_t> copy(entries, entries + table.shape[0] * desc.k);
  for (size_t i = 0; i < copy.size(); ++i) {
    if (copy[i] < -1 || copy[i] >= desc.n_experts) {
      fail(CHORUS_INVALID_ARGUMENT, "table[{}, {}] is {}; -1 to {} are allowed", i / static_cast<size_t>(desc.k),
           i % static_cast<size_t>(desc.k), copy[i], desc.n_experts - 1);
    }
  }
  hash_table = std::move(copy);
  desc.selection = CHORUS_ROUTE_HASH_TABLE;
}

void RouterSpec::set_capacity(chorus_route_drop drop, int64_t capacity) {
  check_drop(drop);
  check_count("capacity", capacity, 0);
  if (capacity == 0 && drop != CHORUS_ROUTE_DROP_NONE) {
    fail(CHORUS_INVALID_ARGUMENT, "capacity is 0, no limit, with drop rule {}; give at least 1", drop);
  }
  desc.drop = drop;
  desc.capacity = capacity;
  desc.capacity_factor = 0;
  desc.capacity_minimum = desc.capacity_multiple = 0;
}

void RouterSpec::set_capacity_factor(chorus_route_drop drop, double factor, int64_t minimum, int64_t multiple) {
  check_drop(drop);
  if (!(factor > 0) || !std::isfinite(factor)) {
    fail(CHORUS_INVALID_ARGUMENT, "factor is {}; above 0 and finite is needed", factor);
  }
  check_count("minimum", minimum, 0);
  check_count("multiple", multiple, 0);
  desc.drop = drop;
  desc.capacity = 0;
  desc.capacity_factor = factor;
  desc.capacity_minimum = minimum;
  desc.capacity_multiple = multiple;
}

void RouterSpec::set_outputs(uint32_t outputs, int32_t block) {
  constexpr uint32_t kKnown = CHORUS_ROUTE_OUT_EXPERT_LISTS | CHORUS_ROUTE_OUT_BLOCKS | CHORUS_ROUTE_OUT_BITMAP |
                              CHORUS_ROUTE_OUT_SCORE_SUMS;
  if ((outputs & ~kKnown) != 0) {
    fail(CHORUS_INVALID_ARGUMENT, "outputs is {:#x}; bits of {:#x} (CHORUS_ROUTE_OUT_*) are known", outputs, kKnown);
  }
  const bool blocks = (outputs & CHORUS_ROUTE_OUT_BLOCKS) != 0;
  if (blocks != (block > 0) || block < 0) {
    fail(CHORUS_INVALID_ARGUMENT, "block is {}; {}", block,
         blocks ? "CHORUS_ROUTE_OUT_BLOCKS needs 1 or more" : "it goes with CHORUS_ROUTE_OUT_BLOCKS; 0 is needed");
  }
  desc.outputs = outputs;
  desc.block = block;
}

int64_t capacity_of(const chorus_route_desc &d, int64_t tokens) {
  if (d.capacity > 0) return d.capacity;
  if (d.capacity_factor == 0) return 0;
  const double exact =
      std::ceil(d.capacity_factor * static_cast<double>(tokens * d.k) / static_cast<double>(d.n_experts));
  const int64_t slots =
      std::max<int64_t>({exact < 0x1p31 ? static_cast<int64_t>(exact) : INT32_MAX, d.capacity_minimum, 1});
  const int64_t multiple = std::max<int64_t>(d.capacity_multiple, 1);
  return (slots + multiple - 1) / multiple * multiple;
}

}  // namespace chorus::route
