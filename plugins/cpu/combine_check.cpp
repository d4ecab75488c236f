// SPDX-License-Identifier: Apache-2.0
// What combine.rows of the cpu backend supports: plain mixtures, and choices from what temperature, top-k, top-p and min-p leave.
#include "cpu/combine_row.h"

namespace chorus::cpu {
namespace {

// After a plain mixture: filters that keep a prefix of the tokens by key, and choices alone.
bool is_cut(const chorus_combine_desc &d, char *why, size_t bytes) {
  constexpr uint32_t kChoices = CHORUS_COMBINE_OUT_ARGMAX | CHORUS_COMBINE_OUT_SAMPLE | CHORUS_COMBINE_OUT_STATUS;
  if (d.has_penalties != 0) return refuse(why, bytes, "has_penalties is %u; supported: 0", d.has_penalties);
  if (!is_off(d.typical_p)) return refuse(why, bytes, "typical_p is %g; supported: 0 or 1 (off)", d.typical_p);
  if ((d.outputs & ~kChoices) != 0)
    return refuse(why, bytes, "outputs is 0x%x; supported after temperature, top_k, top_p or min_p: argmax, sample, status (0x%x)",
                  d.outputs, kChoices);
  const bool is_linear = d.rule == CHORUS_COMBINE_LINEAR;
  if (is_linear && d.temperature != 1.0 && d.temperature != 0.0)
    return refuse(why, bytes, "temperature after combining is %g; supported by the linear rule: 0, 1", d.temperature);
  if (!(d.temperature == 0.0 || (d.temperature >= 0x1p-20 && d.temperature <= 0x1p20)))
    return refuse(why, bytes, "temperature after combining is %g; supported: 0, and 2^-20 to 2^20", d.temperature);
  const auto is_share = [](double x) { return x >= 0 && x <= 1; };
  if (!is_share(d.top_p) || !is_share(d.min_p) || d.top_k < 0)
    return refuse(why, bytes, "top_p is %g, min_p %g, top_k %lld; supported: 0 to 1, 0 to 1, 0 and above", d.top_p, d.min_p,
                  static_cast<long long>(d.top_k));
  return true;
}

}  // namespace

int32_t combine_score(chorus_plugin_device *, const void *desc, char *why, size_t bytes) {
  const auto &d = *static_cast<const chorus_combine_desc *>(desc);
  if (!check_combine(d, why, bytes) || !is_plain_mixture(d, why, bytes)) return 0;
  const bool takes = is_plain_after(d, nullptr, 0) ? has_plain_outputs(d, why, bytes) : is_cut(d, why, bytes);
  return takes ? kScore : 0;
}

}  // namespace chorus::cpu
