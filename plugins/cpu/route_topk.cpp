// SPDX-License-Identifier: Apache-2.0
// route.topk on the processor: rows to the vector code, a few tasks for many rows, and the slots sorted by expert. The
// bytes are the reference's, for any number of threads. Lists cost one counting sort, each task placing its own slots.
#include "cpu/route_topk.h"

#include <cstring>

#include "chorus/plugin_route_lists.hpp"

namespace chorus::cpu {
namespace {

struct RouteState {
  const chorus_host *host;
  chorus_route_desc desc;
  bool ranks_logits;
  RowFunction row;
};

// Below this many scores a call stays on its thread: waking another costs more than it takes over where the machine is
// busy (T 64, E 256 in four tasks: 61 us instead of 46). Above, at most kMostTasks share it.
constexpr int64_t kSerialScores = 48 * 1024;
constexpr int64_t kMostTasks = 16;

int32_t route_score(chorus_plugin_device *, const void *desc, char *why, size_t why_bytes) {
  constexpr uint32_t kOutputs = CHORUS_ROUTE_OUT_EXPERT_LISTS | CHORUS_ROUTE_OUT_BLOCKS | CHORUS_ROUTE_OUT_BITMAP;
  return check_route(*static_cast<const chorus_route_desc *>(desc), why, why_bytes, kOutputs) == 0 ? 0 : kScore;
}

chorus_status route_prepare(chorus_plugin_device *device, const void *desc, void **out, chorus_error_slot slot) {
  auto *state = make_state<RouteState>(device->host, slot);
  if (state == nullptr) return CHORUS_RESOURCE_EXHAUSTED;
  state->desc = *static_cast<const chorus_route_desc *>(desc);
  state->ranks_logits = ranks_logits(state->desc);
  state->row = row_for(device);
  *out = state;
  return CHORUS_OK;
}

int64_t tasks_of(const chorus_route_desc &d, int64_t tokens) {
  const int64_t most = tokens < kMostTasks ? tokens : kMostTasks;
  return tokens * d.n_experts < kSerialScores ? 1 : most;
}

// The workspace: per task the scratch of a row and the counts of its slots; all slots, the bias; for the lists beyond the four,
// the weights, the slots sorted by expert and where each expert's begin.
struct Memory {
  Memory(const chorus_route_desc &d, int64_t n_tokens, void *workspace)
      : tasks(tasks_of(d, n_tokens)), base(static_cast<char *>(workspace)), experts(d.n_experts) {
    task_bytes = scratch_bytes(d.n_experts) + aligned(4 * static_cast<uint64_t>(d.n_experts));
    slots_at = static_cast<uint64_t>(tasks) * task_bytes;
    bias_at = slots_at + slots_bytes(d, n_tokens);
    weights_at = bias_at + aligned(4 * static_cast<uint64_t>(d.n_experts));
    const uint64_t slot_bytes = d.outputs != 0 ? slots_bytes(d, n_tokens) : 0;
    sorted_at = weights_at + slot_bytes;
    offsets_at = sorted_at + slot_bytes;
    bytes = offsets_at + (d.outputs != 0 ? aligned(4 * (static_cast<uint64_t>(d.n_experts) + 1)) : 0);
  }
  static uint64_t slots_bytes(const chorus_route_desc &d, int64_t n_tokens) {
    return aligned(4 * static_cast<uint64_t>(n_tokens) * static_cast<uint64_t>(d.k));
  }
  RowScratch scratch(int64_t task) const {
    auto *floats = reinterpret_cast<float *>(base + static_cast<uint64_t>(task) * task_bytes);
    const int32_t padded = padded_experts(experts);
    return {floats, floats + padded, floats + 2 * padded, reinterpret_cast<int32_t *>(floats + 3 * padded)};
  }
  int32_t *counts(int64_t task) const {
    return reinterpret_cast<int32_t *>(base + static_cast<uint64_t>(task) * task_bytes + scratch_bytes(experts));
  }
  int32_t *slots() const { return reinterpret_cast<int32_t *>(base + slots_at); }
  float *bias() const { return reinterpret_cast<float *>(base + bias_at); }
  float *weights() const { return reinterpret_cast<float *>(base + weights_at); }
  int32_t *sorted() const { return reinterpret_cast<int32_t *>(base + sorted_at); }
  int32_t *offsets() const { return reinterpret_cast<int32_t *>(base + offsets_at); }

  int64_t tasks;
  char *base;
  int32_t experts;
  uint64_t task_bytes, slots_at, bias_at, weights_at, sorted_at, offsets_at, bytes;
};

uint64_t route_workspace(const void *prepared, const void *args) {
  const auto &d = static_cast<const RouteState *>(prepared)->desc;
  return Memory(d, static_cast<const chorus_route_args *>(args)->tokens, nullptr).bytes;
}

// ---- Rows ----

void write_row(const chorus_route_desc &d, const chorus_route_args &args, int64_t t, const int32_t *ids, const float *weights) {
  if (args.ids != nullptr) {
    void *row = row_of(*args.ids, t);
    if (d.ids_dtype == CHORUS_I32) {
      std::copy(ids, ids + d.k, static_cast<int32_t *>(row));
    } else {
      std::copy(ids, ids + d.k, static_cast<int64_t *>(row));
    }
  }
  if (args.weights != nullptr) {
    void *row = row_of(*args.weights, t);
    const float scale = static_cast<float>(d.scale);
    if (d.weights_dtype == CHORUS_F32) {
      for (int32_t j = 0; j < d.k; ++j) static_cast<float *>(row)[j] = weights[j] * scale;
    } else {
      for (int32_t j = 0; j < d.k; ++j) store_f32(d.weights_dtype, row, j, weights[j] * scale);
    }
  }
}

void count_slots(const int32_t *ids, int32_t k, int32_t *counts) {
  for (int32_t j = 0; j < k; ++j) ++counts[ids[j]];
}

// Rows [begin, end) of one task; `counts` NULL when no list is wanted, `kept` where the weights are needed later.
void route_rows(const RouteState &state, const chorus_route_args &args, const RowJob &job, int64_t begin, int64_t end,
                int64_t n_valid, const RowScratch &scratch, int32_t *slots, int32_t *counts, float *kept) {
  const chorus_route_desc &d = state.desc;
  if (counts != nullptr) std::fill(counts, counts + d.n_experts, 0);
  float own[kRouteMaxSlots];
  for (int64_t t = begin; t < end; ++t) {
    float *weights = kept != nullptr ? kept + t * d.k : own;
    int32_t *ids = slots + t * d.k;
    if (t < n_valid) {
      state.row(job, row_of(*args.logits, t), scratch, ids, weights);
      if (counts != nullptr) count_slots(ids, d.k, counts);
    } else {
      std::fill(ids, ids + d.k, -1);
      std::fill(weights, weights + d.k, 0.0f);
    }
    write_row(d, args, t, ids, weights);
  }
}

// ---- Lists ----

using List = IntegerList;

// Counts of the one task become its first place per expert; counts and offsets are told as whole rows.
int32_t place_one_task(const List &counts, const List &offsets, int32_t experts, int32_t *places, int32_t *own_offsets) {
  const size_t bytes = 4 * static_cast<size_t>(experts);
  if (counts.data != nullptr) std::memcpy(counts.data, places, bytes);
  int32_t place = 0;
  for (int32_t e = 0; e < experts; ++e) {
    const int32_t here = places[e];
    places[e] = place;
    place += here;
  }
  for (int32_t *told : {offsets.data, own_offsets}) {
    if (told == nullptr) continue;
    std::memcpy(told, places, bytes);
    told[experts] = place;
  }
  return place;
}

// Counts of the tasks become each task's first place per expert; counts and offsets are told on the way.
int32_t place_tasks(const List &counts, const List &offsets, const Memory &memory, int32_t *own_offsets) {
  const bool compact = counts.stride <= 1 && offsets.stride <= 1;
  if (memory.tasks == 1 && compact) return place_one_task(counts, offsets, memory.experts, memory.counts(0), own_offsets);
  int32_t place = 0;
  offsets.put(0, 0);
  if (own_offsets != nullptr) own_offsets[0] = 0;
  int32_t *of_tasks[kMostTasks];
  for (int64_t task = 0; task < memory.tasks; ++task) of_tasks[task] = memory.counts(task);
  for (int32_t e = 0; e < memory.experts; ++e) {
    const int32_t first = place;
    for (int64_t task = 0; task < memory.tasks; ++task) {
      const int32_t here = of_tasks[task][e];
      of_tasks[task][e] = place;
      place += here;
    }
    counts.put(e, place - first);
    offsets.put(e + 1, place);
    if (own_offsets != nullptr) own_offsets[e + 1] = place;
  }
  return place;
}

void place_slots(const List &order, const List &inverse, const int32_t *slots, int64_t begin, int64_t end, int32_t *places,
                 int32_t *sorted) {
  for (int64_t s = begin; s < end; ++s) {
    const int32_t place = slots[s] >= 0 ? places[slots[s]]++ : -1;
    inverse.put(s, place);
    if (place < 0) continue;
    order.put(place, static_cast<int32_t>(s));
    if (sorted != nullptr) sorted[place] = static_cast<int32_t>(s);
  }
}

template <typename Body>
void for_tasks(const chorus_host *host, int64_t tasks, const Body &body) {
  if (tasks == 1) return body(0);  // not worth a trip to the pool
  parallel_for(host, tasks, body);
}

chorus_status route_run(const void *prepared, const void *args_pointer, const chorus_exec *exec, chorus_error_slot) {
  const auto &state = *static_cast<const RouteState *>(prepared);
  const auto &args = *static_cast<const chorus_route_args *>(args_pointer);
  const chorus_route_desc &d = state.desc;
  const bool sorts = wants_blocks(args) || wants_expert_lists(args), more = sorts || args.bitmap != nullptr;
  const bool lists =
      sorts || args.counts != nullptr || args.offsets != nullptr || args.order != nullptr || args.inverse != nullptr;
  if (args.tokens == 0 && !lists && !more) return CHORUS_OK;
  Memory memory(d, args.tokens, exec->workspace);
  if (state.host->thread_count(state.host->self) == 1) memory.tasks = 1;
  const int64_t n_valid =
      args.n_valid != nullptr ? std::clamp<int64_t>(integer_at(*args.n_valid, 0), 0, args.tokens) : args.tokens;
  RowJob job{&d, state.ranks_logits, nullptr};
  if (d.has_bias != 0) {
    float *bias = memory.bias();
    job.bias = bias;
    const auto *from = static_cast<const float *>(args.bias->data);
    const int64_t stride = stride_of(*args.bias, 0);
    for (int32_t e = 0; e < d.n_experts; ++e) bias[e] = from[e * stride];
  }
  const int64_t tasks = memory.tasks > 0 ? memory.tasks : 1;
  const auto first = [&](int64_t task) { return args.tokens * task / tasks; };
  for_tasks(state.host, tasks, [&](int64_t task) {
    route_rows(state, args, job, first(task), first(task + 1), n_valid, memory.scratch(task), memory.slots(),
               lists ? memory.counts(task) : nullptr, wants_expert_lists(args) ? memory.weights() : nullptr);
  });
  const SortedSlots sorted{d, args, memory.slots(), memory.weights(), memory.offsets(), memory.sorted()};
  if (args.bitmap != nullptr) write_bitmap(sorted);
  if (!lists) return CHORUS_OK;
  const int32_t placed = place_tasks(List(args.counts), List(args.offsets), memory, sorts ? memory.offsets() : nullptr);
  const List order(args.order), inverse(args.inverse);
  if (args.order == nullptr && args.inverse == nullptr && !sorts) return CHORUS_OK;
  for_tasks(state.host, tasks, [&](int64_t task) {
    place_slots(order, inverse, memory.slots(), first(task) * d.k, first(task + 1) * d.k, memory.counts(task),
                sorts ? memory.sorted() : nullptr);
  });
  order.fill_from(placed, -1);
  if (wants_blocks(args)) write_blocks(sorted);
  if (wants_expert_lists(args)) write_expert_lists(sorted);
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
                                  free_state<RouteState>,
                                  nullptr};

}  // namespace chorus::cpu
