// SPDX-License-Identifier: Apache-2.0
// What combine.rows of the reference backend supports: all of it. Refused is what makes no sense.
#include <cmath>

#include "reference/combine_full.h"
#include "reference/combine_rows.h"

namespace chorus::reference {
namespace {

bool is_share(double x) { return x >= 0 && x <= 1; }

bool check_map(const chorus_combine_desc &d, int32_t i, char *why, size_t bytes) {
  const chorus_combine_model &m = *d.models[i];
  if (m.map_offsets == nullptr) {
    if (m.map_ids != nullptr || m.map_values != nullptr)
      return refuse(why, bytes, "models[%d] brings map_ids or map_values without map_offsets", i);
    return true;
  }
  if (m.map_ids == nullptr) return refuse(why, bytes, "models[%d].map_ids is NULL; a map needs it", i);
  const auto *offsets = static_cast<const int64_t *>(m.map_offsets->data);
  if (offsets[0] != 0) return refuse(why, bytes, "models[%d].map_offsets begins with %lld; 0 is needed", i, static_cast<long long>(offsets[0]));
  for (int64_t u = 0; u < d.n_tokens; ++u) {
    if (offsets[u + 1] < offsets[u])
      return refuse(why, bytes, "models[%d].map_offsets falls after token %lld", i, static_cast<long long>(u));
  }
  const auto *ids = static_cast<const int32_t *>(m.map_ids->data);
  for (int64_t j = 0; j < offsets[d.n_tokens]; ++j) {
    if (ids[j] < 0 || ids[j] >= m.n_logits)
      return refuse(why, bytes, "models[%d].map_ids has %d; 0 to n_logits - 1 (%lld) are allowed", i, ids[j],
                    static_cast<long long>(m.n_logits - 1));
    const float value = m.map_values != nullptr ? static_cast<const float *>(m.map_values->data)[j] : 1.0f;
    if (!(value >= 0) || std::isinf(value))
      return refuse(why, bytes, "models[%d].map_values has %g; finite and >= 0 is needed", i, static_cast<double>(value));
  }
  return true;
}

bool check_full_model(const chorus_combine_desc &d, int32_t i, char *why, size_t bytes) {
  const chorus_combine_model &m = *d.models[i];
  if (!is_share(m.top_p)) return refuse(why, bytes, "models[%d].top_p is %g; supported: 0 to 1", i, m.top_p);
  if (m.top_k < 0)
    return refuse(why, bytes, "models[%d].top_k is %lld; supported: 0 and above", i, static_cast<long long>(m.top_k));
  if (!is_share(m.plausibility))
    return refuse(why, bytes, "models[%d].plausibility is %g; supported: 0 to 1", i, m.plausibility);
  if (m.missing < CHORUS_MISSING_BY_RULE || m.missing > CHORUS_MISSING_NEUTRAL)
    return refuse(why, bytes, "models[%d].missing is %d; supported: 0 to 5", i, m.missing);
  if (m.missing == CHORUS_MISSING_FLOOR && !(m.missing_log_prob <= 0))
    return refuse(why, bytes, "models[%d].missing_log_prob is %g; supported: 0 and below", i, m.missing_log_prob);
  const bool asks_unknown = m.missing == CHORUS_MISSING_UNKNOWN || m.missing == CHORUS_MISSING_UNKNOWN_SHARED;
  if (asks_unknown && (m.unknown_id < 0 || m.unknown_id >= m.n_valid))
    return refuse(why, bytes, "models[%d].unknown_id is %d; supported: 0 to n_valid - 1 (%lld)", i, m.unknown_id,
                  static_cast<long long>(m.n_valid - 1));
  return check_map(d, i, why, bytes);
}

bool check_rule(const chorus_combine_desc &d, char *why, size_t bytes) {
  const int32_t models = d.n_models + (d.has_neighbours != 0 ? 1 : 0);
  if (d.rule < CHORUS_COMBINE_LINEAR || d.rule > CHORUS_COMBINE_CONDORCET)
    return refuse(why, bytes, "rule is %d; supported: 0 to 10", d.rule);
  if (d.rule == CHORUS_COMBINE_HOLDER && std::isnan(d.order)) return refuse(why, bytes, "order is NaN; any other number is supported");
  if (d.rule == CHORUS_COMBINE_TRIMMED_MEAN && (d.trim < 0 || 2 * int64_t{d.trim} >= models))
    return refuse(why, bytes, "trim is %d; supported: 0 to %d, so that a model of %d is left", d.trim, (models - 1) / 2, models);
  if ((d.rule == CHORUS_COMBINE_RANK_VOTE || d.rule == CHORUS_COMBINE_CONDORCET) && d.vote_k < 1)
    return refuse(why, bytes, "vote_k is %d; supported: 1 and above", d.vote_k);
  if (d.base_model > static_cast<uint32_t>(d.n_models))
    return refuse(why, bytes, "base_model is %u; supported: 0 to n_models (%d)", d.base_model, d.n_models);
  if (d.has_neighbours != 0) {
    if (d.neighbours_kind < CHORUS_SCORES_LOGITS || d.neighbours_kind > CHORUS_SCORES_PROBS)
      return refuse(why, bytes, "neighbours_kind is %d; supported: 0 to 2", d.neighbours_kind);
    if (!std::isfinite(static_cast<float>(d.neighbours_weight)) ||
        (d.neighbours_weight < 0 && takes_no_negative_weight(d.rule)))
      return refuse(why, bytes, "neighbours_weight is %g; supported: finite, 0 and above", d.neighbours_weight);
  }
  return true;
}

bool check_after(const chorus_combine_desc &d, char *why, size_t bytes) {
  if (!(d.temperature >= 0) || d.temperature > std::numeric_limits<float>::max())
    return refuse(why, bytes, "temperature after combining is %g; supported: 0 and above, finite", d.temperature);
  if (!is_share(d.top_p)) return refuse(why, bytes, "top_p after combining is %g; supported: 0 to 1", d.top_p);
  if (!is_share(d.min_p)) return refuse(why, bytes, "min_p is %g; supported: 0 to 1", d.min_p);
  if (!is_share(d.typical_p)) return refuse(why, bytes, "typical_p is %g; supported: 0 to 1", d.typical_p);
  if (d.top_k < 0) return refuse(why, bytes, "top_k after combining is %lld; supported: 0 and above", static_cast<long long>(d.top_k));
  if ((d.outputs & CHORUS_COMBINE_OUT_TOP_K) != 0 && d.n_top < 1)
    return refuse(why, bytes, "n_top is %d; supported with the output top-k: 1 and above", d.n_top);
  constexpr uint32_t kOutputs = 2 * CHORUS_COMBINE_OUT_MODEL_TOKEN_LOG_PROBS - 1;
  if ((d.outputs & ~kOutputs) != 0) return refuse(why, bytes, "outputs is 0x%x; supported: 0x%x", d.outputs, kOutputs);
  return true;
}

}  // namespace

bool check_full(const chorus_combine_desc &d, char *why, size_t bytes) {
  for (int32_t i = 0; i < d.n_models; ++i) {
    if (!check_full_model(d, i, why, bytes)) return false;
  }
  return check_rule(d, why, bytes) && check_after(d, why, bytes);
}

int32_t combine_score(chorus_plugin_device *, const void *desc, char *why, size_t bytes) {
  const auto &d = *static_cast<const chorus_combine_desc *>(desc);
  return check_combine(d, why, bytes) && check_full(d, why, bytes) ? kScore : 0;
}

}  // namespace chorus::reference
