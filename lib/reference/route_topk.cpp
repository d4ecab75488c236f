// SPDX-License-Identifier: Apache-2.0
// route.topk: logits -> the k experts of every token, their weights, and the slots sorted by expert.
// The contract is docs/numerics.md, "Routing"; every operation here is IEEE binary32 in written order.
// The stages are declared in route_topk.h: score, select, weigh, drop, then the lists.
#include "reference/route_topk.h"

#include <algorithm>

namespace chorus::reference {
namespace {

// ---- Prepared state ----

void route_release(void *prepared) {
  if (prepared == nullptr) return;
  auto *state = static_cast<RouteState *>(prepared);
  const chorus_host *host = state->host;
  const uint64_t bytes = 4 * static_cast<uint64_t>(state->table_rows) * static_cast<uint64_t>(state->desc.k);
  if (state->table != nullptr) host->deallocate(host->self, state->table, bytes, kAlignment);
  free_state<RouteState>(prepared);
}

// Copies the hash table; entries that are no expert fail, naming the first.
chorus_status copy_table(RouteState &state, const chorus_tensor &table, chorus_error_slot slot) {
  const int32_t k = state.desc.k;
  const int64_t rows = table.shape[0];
  const uint64_t bytes = 4 * static_cast<uint64_t>(rows) * static_cast<uint64_t>(k);
  if (rows == 0) return CHORUS_OK;
  state.table = static_cast<int32_t *>(state.host->allocate(state.host->self, bytes, kAlignment));
  if (state.table == nullptr)
    return report(state.host, slot, CHORUS_RESOURCE_EXHAUSTED, "no memory for the %llu bytes of the hash table",
                  static_cast<unsigned long long>(bytes));
  state.table_rows = rows;
  for (int64_t r = 0; r < rows; ++r) {
    for (int32_t j = 0; j < k; ++j) {
      const int64_t id = integer_at(CHORUS_I32, row_of(table, r), j);
      if (id < -1 || id >= state.desc.n_experts)
        return report(state.host, slot, CHORUS_INVALID_ARGUMENT, "hash_table[%lld, %d] is %lld; -1 to %d are allowed",
                      static_cast<long long>(r), j, static_cast<long long>(id), state.desc.n_experts - 1);
      state.table[r * k + j] = static_cast<int32_t>(id);
    }
  }
  return CHORUS_OK;
}

chorus_status route_prepare(chorus_plugin_device *device, const void *desc, void **out, chorus_error_slot slot) {
  auto *state = make_state<RouteState>(device->host, slot);
  if (state == nullptr) return CHORUS_RESOURCE_EXHAUSTED;
  state->desc = *static_cast<const chorus_route_desc *>(desc);
  state->desc.hash_table = nullptr;  // lent to prepare alone
  state->ranks_logits = ranks_logits(state->desc);
  if (state->desc.selection == CHORUS_ROUTE_HASH_TABLE) {
    const chorus_status status = copy_table(*state, *static_cast<const chorus_route_desc *>(desc)->hash_table, slot);
    if (status != CHORUS_OK) {
      route_release(state);
      return status;
    }
  }
  *out = state;
  return CHORUS_OK;
}

uint64_t route_prepared_bytes(const void *prepared) {
  const auto &state = *static_cast<const RouteState *>(prepared);
  return 4 * static_cast<uint64_t>(state.table_rows) * static_cast<uint64_t>(state.desc.k);
}

// ---- Workspace ----

// Scores and keys of all tokens are kept where tokens are compared or summed over.
bool keeps_rows(const chorus_route_desc &d) {
  return experts_choose(d) || (d.outputs & CHORUS_ROUTE_OUT_SCORE_SUMS) != 0;
}

// Hands out the workspace piece by piece; from NULL it only counts.
struct Pieces {
  char *at;
  uint64_t used = 0;

  template <typename T>
  T *take(int64_t count) {
    T *piece = at != nullptr ? reinterpret_cast<T *>(at + used) : nullptr;
    used += aligned(sizeof(T) * static_cast<uint64_t>(count));
    return piece;
  }
};

RouteBatch make_batch(const RouteState &state, const chorus_route_args &args, Pieces &pieces) {
  const chorus_route_desc &d = state.desc;
  const int64_t slots = args.tokens * d.k, rows = keeps_rows(d) ? std::max<int64_t>(args.tokens, 1) : 1;
  return {state,
          args,
          args.tokens,
          0,
          pieces.take<int32_t>(slots),
          pieces.take<float>(slots),
          pieces.take<float>(args.tokens),
          pieces.take<int32_t>(slots),
          pieces.take<uint32_t>(d.drop == CHORUS_ROUTE_DROP_AT_RANDOM ? slots : 0),
          pieces.take<int32_t>(int64_t{d.n_experts} + 1),
          pieces.take<float>(d.n_experts),
          pieces.take<float>(rows * d.n_experts),
          pieces.take<float>(rows * d.n_experts),
          keeps_rows(d)};
}

uint64_t route_workspace(const void *prepared, const void *args) {
  Pieces pieces{nullptr};
  make_batch(*static_cast<const RouteState *>(prepared), *static_cast<const chorus_route_args *>(args), pieces);
  return pieces.used;
}

// ---- Run ----

void write_slots(const RouteBatch &batch, int64_t t) {
  const chorus_route_desc &d = batch.state.desc;
  const float scale = static_cast<float>(d.scale);
  if (batch.args.ids != nullptr) {
    void *row = row_of(*batch.args.ids, t);
    for (int32_t j = 0; j < d.k; ++j) put_integer(d.ids_dtype, row, j, batch.ids[t * d.k + j]);
  }
  if (batch.args.weights != nullptr) {
    void *row = row_of(*batch.args.weights, t);
    for (int32_t j = 0; j < d.k; ++j) store_f32(d.weights_dtype, row, j, batch.weights[t * d.k + j] * scale);
  }
}

chorus_status route_run(const void *prepared, const void *args_pointer, const chorus_exec *exec, chorus_error_slot) {
  const auto &state = *static_cast<const RouteState *>(prepared);
  const auto &args = *static_cast<const chorus_route_args *>(args_pointer);
  const chorus_route_desc &d = state.desc;
  Pieces pieces{static_cast<char *>(exec->workspace)};
  RouteBatch batch = make_batch(state, args, pieces);
  if (args.n_valid != nullptr) batch.n_valid = std::clamp<int64_t>(integer_at(*args.n_valid, 0), 0, args.tokens);
  batch.capacity = capacity_of(d, batch.n_valid);
  std::fill(batch.ids, batch.ids + args.tokens * d.k, -1);
  std::fill(batch.weights, batch.weights + args.tokens * d.k, 0.0f);
  for (int64_t t = 0; t < batch.n_valid; ++t) {
    score_token(batch, t);
    if (experts_choose(d)) continue;
    select_experts(batch, t);
    weigh_token(batch, t);
  }
  if (experts_choose(d)) choose_tokens(batch);
  drop_slots(batch);
  for (int64_t t = 0; d.renormalise_last != 0 && t < batch.n_valid; ++t) renormalise(d, batch.weights + t * d.k);
  for (int64_t t = 0; t < args.tokens; ++t) write_slots(batch, t);
  write_lists(batch);
  return CHORUS_OK;
}

}  // namespace

const chorus_kernel kRouteTopk = {CHORUS_END_OF(chorus_kernel, prepared_bytes),
                                  CHORUS_OP_ROUTE_TOPK,
                                  1,
                                  0,
                                  "route_topk",
                                  route_score,
                                  route_prepare,
                                  route_workspace,
                                  route_run,
                                  route_release,
                                  route_prepared_bytes};

}  // namespace chorus::reference
