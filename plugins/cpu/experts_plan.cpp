// SPDX-License-Identifier: Apache-2.0
// Which slots count, sorted by expert: a counting sort, so an expert's rows are in the order of the tokens. Serial; about
// 10 ns per slot.
#include <algorithm>

#include "cpu/experts.h"

namespace chorus::cpu {
namespace {

// The local expert of `id`, -1 for none; sets `status` where no expert has that id.
int32_t local_expert(const ExpertsState &s, int64_t id, int32_t &status) {
  if (id < 0) return -1;
  if (id >= s.n_ids) {
    status = CHORUS_ROW_BAD_TOKEN;
    return -1;
  }
  return s.map != nullptr ? s.map[id] : static_cast<int32_t>(id);
}

}  // namespace

void plan_slots(const ExpertsState &s, const chorus_experts_args &args, int64_t first, int64_t count, ExpertsPlan *plan) {
  std::fill(plan->begin, plan->begin + s.n_experts + 1, 0);
  const int64_t id_step = stride_of(*args.ids, 1), weight_step = stride_of(*args.weights, 1);
  for (int64_t t = 0; t < count; ++t) {
    int32_t status = CHORUS_ROW_OK;
    const void *ids = row_of(*args.ids, first + t);
    const auto *weights = static_cast<const float *>(row_of(*args.weights, first + t));
    const auto put = [&](int64_t j, int32_t expert, float weight) {
      plan->expert[t * s.slots + j] = expert;
      plan->weight[t * s.slots + j] = weight;
      if (expert >= 0) ++plan->begin[expert + 1];
    };
    for (int64_t j = 0; j < s.k; ++j) {
      const int32_t expert = local_expert(s, integer_at(s.ids_dtype, ids, j * id_step), status);
      const float weight = weights[j * weight_step];
      put(j, weight != 0.0f ? expert : -1, weight);
    }
    for (int32_t j = 0; j < s.n_shared; ++j) put(s.k + j, s.n_experts - s.n_shared + j, 1.0f);
    put_integer(args.status, first + t, status);
  }
  plan->n_active = 0;
  for (int32_t e = 0; e < s.n_experts; ++e) {
    if (plan->begin[e + 1] > 0) plan->active[plan->n_active++] = e;
    plan->begin[e + 1] += plan->begin[e];
  }
  plan->n_slots = plan->begin[s.n_experts];
  // Places: begin[e] walks to begin[e + 1] and is put back.
  for (int64_t slot = 0; slot < count * s.slots; ++slot) {
    const int32_t expert = plan->expert[slot];
    plan->place[slot] = expert >= 0 ? plan->begin[expert]++ : -1;
    if (expert >= 0) plan->slot_of[plan->place[slot]] = static_cast<int32_t>(slot);
  }
  for (int32_t e = s.n_experts; e > 0; --e) plan->begin[e] = plan->begin[e - 1];
  plan->begin[0] = 0;
  std::sort(plan->active, plan->active + plan->n_active, [&](int32_t a, int32_t b) {
    return plan->rows(a) != plan->rows(b) ? plan->rows(a) > plan->rows(b) : a < b;
  });
}

}  // namespace chorus::cpu
