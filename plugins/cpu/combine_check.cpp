// SPDX-License-Identifier: Apache-2.0
// What combine.rows of the cpu backend supports: two rules, no filters, maps or post-processing.
#include "cpu/combine_row.h"

namespace chorus::cpu {

int32_t combine_score(chorus_plugin_device *, const void *desc, char *why, size_t bytes) {
  const auto &d = *static_cast<const chorus_combine_desc *>(desc);
  return check_combine_plain(d, why, bytes) * kScore;
}

}  // namespace chorus::cpu
