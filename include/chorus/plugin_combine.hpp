// SPDX-License-Identifier: Apache-2.0
//
// What backends of combine.rows with the two plain rules share: the descriptors they take, linear or log-linear, without
// filters, maps or post-processing. Header-only over plugin.hpp.
#ifndef CHORUS_PLUGIN_COMBINE_HPP_
#define CHORUS_PLUGIN_COMBINE_HPP_

#include <cmath>
#include <limits>

#include "plugin.hpp"

namespace chorus::plugin {

inline bool is_score_dtype(chorus_dtype dtype) { return dtype == CHORUS_F32 || dtype == CHORUS_F16 || dtype == CHORUS_BF16; }

inline bool is_off(double probability) { return probability == 0.0 || probability == 1.0; }

inline int32_t check_combine_model(const chorus_combine_desc &d, int32_t i, char *why, size_t bytes) {
  const chorus_combine_model &m = *d.models[i];
  if (m.kind < CHORUS_SCORES_LOGITS || m.kind > CHORUS_SCORES_PROBS)
    return refuse(why, bytes, "models[%d].kind is %d; supported: logits, log-probs, probs (0 to 2)", i, m.kind);
  if (!is_score_dtype(m.dtype))
    return refuse(why, bytes, "models[%d].dtype is 0x%x; supported: f32, f16, bf16", i, m.dtype);
  if (m.n_valid < 1 || m.n_valid > m.n_logits)
    return refuse(why, bytes, "models[%d].n_valid is %lld; supported: 1 to n_logits (%lld)", i,
                  static_cast<long long>(m.n_valid), static_cast<long long>(m.n_logits));
  if (m.n_valid > d.n_tokens)
    return refuse(why, bytes, "models[%d].n_valid is %lld; supported without a map: up to n_tokens (%lld)", i,
                  static_cast<long long>(m.n_valid), static_cast<long long>(d.n_tokens));
  if (!std::isfinite(static_cast<float>(m.weight)))
    return refuse(why, bytes, "models[%d].weight is %g; supported: finite in f32", i, m.weight);
  if (d.rule == CHORUS_COMBINE_LINEAR && m.weight < 0)
    return refuse(why, bytes, "models[%d].weight is %g; supported by the linear rule: 0 and above", i, m.weight);
  if (!(m.temperature >= 0) || m.temperature > std::numeric_limits<float>::max())
    return refuse(why, bytes, "models[%d].temperature is %g; supported: 0 and above, finite", i, m.temperature);
  if (!is_off(m.top_p)) return refuse(why, bytes, "models[%d].top_p is %g; supported: 0 or 1 (off)", i, m.top_p);
  if (m.top_k != 0)
    return refuse(why, bytes, "models[%d].top_k is %lld; supported: 0 (off)", i, static_cast<long long>(m.top_k));
  if (m.plausibility != 0)
    return refuse(why, bytes, "models[%d].plausibility is %g; supported: 0 (off)", i, m.plausibility);
  if (m.has_bias != 0) return refuse(why, bytes, "models[%d].has_bias is %u; supported: 0", i, m.has_bias);
  if (m.has_mask != 0) return refuse(why, bytes, "models[%d].has_mask is %u; supported: 0", i, m.has_mask);
  if (m.map_offsets != nullptr || m.map_ids != nullptr)
    return refuse(why, bytes, "models[%d] brings map_offsets or map_ids; supported: NULL (identity)", i);
  if (m.missing != CHORUS_MISSING_BY_RULE)
    return refuse(why, bytes, "models[%d].missing is %d; supported: by rule (0)", i, m.missing);
  return 1;
}

inline int32_t check_combine_outputs(const chorus_combine_desc &d, char *why, size_t bytes) {
  constexpr uint32_t kOutputs = CHORUS_COMBINE_OUT_LOG_PROBS | CHORUS_COMBINE_OUT_ARGMAX | CHORUS_COMBINE_OUT_SAMPLE |
                                CHORUS_COMBINE_OUT_TOKEN_LOG_PROBS | CHORUS_COMBINE_OUT_STATUS;
  if ((d.outputs & ~kOutputs) != 0)
    return refuse(why, bytes, "outputs is 0x%x; supported: log_probs, argmax, sample, token_log_probs, status (0x%x)",
                  d.outputs, kOutputs);
  if ((d.outputs & CHORUS_COMBINE_OUT_LOG_PROBS) != 0 && !is_score_dtype(d.log_probs_dtype))
    return refuse(why, bytes, "log_probs_dtype is 0x%x; supported: f32, f16, bf16", d.log_probs_dtype);
  if (d.temperature != 1.0) return refuse(why, bytes, "temperature after combining is %g; supported: 1", d.temperature);
  if (!is_off(d.top_p)) return refuse(why, bytes, "top_p after combining is %g; supported: 0 or 1 (off)", d.top_p);
  if (d.min_p != 0) return refuse(why, bytes, "min_p is %g; supported: 0 (off)", d.min_p);
  if (!is_off(d.typical_p)) return refuse(why, bytes, "typical_p is %g; supported: 0 or 1 (off)", d.typical_p);
  if (d.top_k != 0)
    return refuse(why, bytes, "top_k after combining is %lld; supported: 0 (off)", static_cast<long long>(d.top_k));
  if (d.has_penalties != 0) return refuse(why, bytes, "has_penalties is %u; supported: 0", d.has_penalties);
  if (d.has_neighbours != 0) return refuse(why, bytes, "has_neighbours is %u; supported: 0", d.has_neighbours);
  return 1;
}

// 0 with the reason in `why`, or 1.
inline int32_t check_combine_plain(const chorus_combine_desc &d, char *why, size_t bytes) {
  if (d.rule != CHORUS_COMBINE_LINEAR && d.rule != CHORUS_COMBINE_LOG_LINEAR)
    return refuse(why, bytes, "rule is %d; supported: linear, log-linear (0, 1)", d.rule);
  if (d.n_models < 1 || d.n_models > CHORUS_COMBINE_MAX_MODELS)
    return refuse(why, bytes, "n_models is %d; supported: 1 to %d", d.n_models, CHORUS_COMBINE_MAX_MODELS);
  if (d.n_tokens < 1 || d.n_tokens > std::numeric_limits<int32_t>::max())
    return refuse(why, bytes, "n_tokens is %lld; supported: 1 to 2^31 - 1", static_cast<long long>(d.n_tokens));
  if (d.weight_rows > 1) return refuse(why, bytes, "weight_rows is %u; supported: 0, 1", d.weight_rows);
  for (int32_t i = 0; i < d.n_models; ++i) {
    if (check_combine_model(d, i, why, bytes) == 0) return 0;
  }
  return check_combine_outputs(d, why, bytes);
}

}  // namespace chorus::plugin
#endif  // CHORUS_PLUGIN_COMBINE_HPP_
