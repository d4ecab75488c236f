// SPDX-License-Identifier: Apache-2.0
// What route.topk refuses: fields out of range, and fields that would do nothing beside the others.
#include <cmath>

#include "reference/route_topk.h"

namespace chorus::reference {
namespace {

// Each returns whether it is content; else it has written why.
struct Check {
  const chorus_route_desc &d;
  char *why;
  size_t why_bytes;

  template <typename... Values>
  bool refused(const char *format, Values... values) const {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    refuse(why, why_bytes, format, values...);
#pragma GCC diagnostic pop
    return false;
  }

  bool noise() const {
    if (!(d.noise >= 0.0) || !std::isfinite(static_cast<float>(d.noise)))
      return refused("noise is %g; supported: 0 and above, finite", d.noise);
    return true;
  }

  // Fields that a selection has no use for are refused rather than ignored.
  bool selection() const {
    const auto s = d.selection;
    if (s < CHORUS_ROUTE_TOKENS_CHOOSE || s > CHORUS_ROUTE_GUMBEL_SECOND)
      return refused("selection is %d; supported: 0 to %d", s, CHORUS_ROUTE_GUMBEL_SECOND);
    const bool from_outside = s == CHORUS_ROUTE_HASH_TABLE || s == CHORUS_ROUTE_GIVEN;
    const bool has_no_keys = from_outside || s == CHORUS_ROUTE_EXPERTS_CHOOSE || s == CHORUS_ROUTE_GUMBEL_SECOND;
    if (has_no_keys && d.has_bias != 0) return refused("has_bias is 1; supported with selection %d: 0", s);
    if (has_no_keys && has_groups(d)) return refused("n_groups is %d; supported with selection %d: 0", d.n_groups, s);
    if ((s == CHORUS_ROUTE_EXPERTS_CHOOSE || s == CHORUS_ROUTE_POSITIVE) && !score_first(d))
      return refused("order is %d; supported with selection %d: score-then-topk (0)", d.order, s);
    if (s >= CHORUS_ROUTE_RANDOM_SECOND && d.k != 2) return refused("k is %d; supported with selection %d: 2", d.k, s);
    if (s == CHORUS_ROUTE_EXPERTS_CHOOSE && d.renormalise != CHORUS_ROUTE_RENORMALISE_NONE)
      return refused("renormalise is %d; supported when experts choose: none (0)", d.renormalise);
    return s != CHORUS_ROUTE_HASH_TABLE || hash_table();
  }

  bool hash_table() const {
    const chorus_tensor *t = d.hash_table;
    if (t == nullptr) return refused("hash_table is NULL; supported with selection %d: i32 [token ids, %d]", d.selection, d.k);
    if (dtype_of(*t) != CHORUS_I32 || t->ndim != 2 || t->shape[1] != d.k || t->device_type != CHORUS_DEVICE_HOST)
      return refused("hash_table has %d dimensions and dtype 0x%x; supported: i32 [token ids, %d] in host memory", t->ndim,
                     dtype_of(*t), d.k);
    return true;
  }

  bool capacity() const {
    if (d.capacity < 0) return refused("capacity is %lld; supported: 0 and above", static_cast<long long>(d.capacity));
    if (!(d.capacity_factor >= 0.0) || !std::isfinite(d.capacity_factor))
      return refused("capacity_factor is %g; supported: 0 and above, finite", d.capacity_factor);
    if (d.capacity_minimum < 0 || d.capacity_minimum > INT32_MAX || d.capacity_multiple < 0 || d.capacity_multiple > INT32_MAX)
      return refused("capacity_minimum is %lld, capacity_multiple %lld; supported: 0 to 2^31 - 1",
                     static_cast<long long>(d.capacity_minimum), static_cast<long long>(d.capacity_multiple));
    if (d.drop < CHORUS_ROUTE_DROP_NONE || d.drop > CHORUS_ROUTE_DROP_AT_RANDOM)
      return refused("drop is %d; supported: 0 to %d", d.drop, CHORUS_ROUTE_DROP_AT_RANDOM);
    const bool limited = d.capacity > 0 || d.capacity_factor > 0.0;
    if (experts_choose(d)) {
      if (!limited) return refused("capacity is %d; supported when experts choose: 1 and above, or capacity_factor", 0);
      if (d.drop != CHORUS_ROUTE_DROP_NONE) return refused("drop is %d; supported when experts choose: none (0)", d.drop);
      return true;
    }
    if (limited != (d.drop != CHORUS_ROUTE_DROP_NONE))
      return refused("drop is %d with capacity %lld, capacity_factor %g; supported: a drop rule and a limit, or neither",
                     d.drop, static_cast<long long>(d.capacity), d.capacity_factor);
    return true;
  }

  bool outputs() const {
    const uint32_t known = CHORUS_ROUTE_OUT_EXPERT_LISTS | CHORUS_ROUTE_OUT_BLOCKS | CHORUS_ROUTE_OUT_BITMAP |
                           CHORUS_ROUTE_OUT_SCORE_SUMS;
    if ((d.outputs & ~known) != 0) return refused("outputs is 0x%x; supported: bits of 0x%x", d.outputs, known);
    if (d.block < 0 || ((d.outputs & CHORUS_ROUTE_OUT_BLOCKS) != 0) != (d.block > 0))
      return refused("block is %d with outputs 0x%x; supported: 1 and above with CHORUS_ROUTE_OUT_BLOCKS, else 0", d.block,
                     d.outputs);
    if (d.block > 0 && int64_t{d.n_experts} * (d.block - 1) > INT32_MAX - d.max_tokens * d.k)
      return refused("block is %d; supported: so that max_tokens * k + n_experts * (block - 1) fits i32", d.block);
    return true;
  }
};

}  // namespace

int32_t route_score(chorus_plugin_device *, const void *desc, char *why, size_t why_bytes) {
  const Check check{*static_cast<const chorus_route_desc *>(desc), why, why_bytes};
  if (check_route_fields(check.d, why, why_bytes) == 0) return 0;
  return check.noise() && check.selection() && check.capacity() && check.outputs() ? kScore : 0;
}

}  // namespace chorus::reference
