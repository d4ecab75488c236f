// SPDX-License-Identifier: Apache-2.0
// What the files of route.topk share: the prepared state, what one call works on, and its stages in their order.
#pragma once
#include <cstdint>

#include "chorus/plugin_route.hpp"
#include "reference/backend.h"

namespace chorus::reference {

struct RouteState {
  const chorus_host *host;
  chorus_route_desc desc;
  bool ranks_logits;   // the logits themselves decide, no score needed for that
  int32_t *table;      // [table_rows, k], copied; NULL unless HASH_TABLE
  int64_t table_rows;
};

// One call. All arrays lie in the workspace.
struct RouteBatch {
  const RouteState &state;
  const chorus_route_args &args;
  int64_t n_valid;     // rows that are no padding, 0 to T
  int64_t capacity;    // slots an expert may keep; 0: no limit
  int32_t *ids;        // [T, k]; -1: none
  float *weights;      // [T, k], before `scale`
  float *priorities;   // [T]: best score of each token, for DROP_BY_PRIORITY
  int32_t *sorted;     // [T * k]: slots or tokens being sorted
  uint32_t *draws;     // [T * k]: random words, for DROP_AT_RANDOM
  int32_t *cursor;     // [E + 1]
  float *logits, *scores, *keys;  // [E], of the token at hand; [T, E] where `keeps_rows`

  int64_t row_offset(int64_t t) const { return keeps_rows ? t * state.desc.n_experts : 0; }
  bool keeps_rows;
};

inline bool score_first(const chorus_route_desc &d) { return d.order == CHORUS_ROUTE_SCORE_THEN_TOPK; }

// ---- Stages ----

// `score`: what this backend does not do, or 1.
int32_t route_score(chorus_plugin_device *device, const void *desc, char *why, size_t why_bytes);

// Logits with noise, scores, and keys of token t, into the batch.
void score_token(RouteBatch &batch, int64_t t);
// The experts of token t by its keys, or from the table or the given ids: fills its `k` ids, -1 for none.
void select_experts(RouteBatch &batch, int64_t t);
// Scores of the chosen, renormalised unless that comes last.
void weigh_token(RouteBatch &batch, int64_t t);
// Every expert takes its best tokens; a token keeps its k best experts.
void choose_tokens(RouteBatch &batch);
// Takes the slots beyond an expert's capacity away.
void drop_slots(RouteBatch &batch);
// Every output but ids and weights.
void write_lists(RouteBatch &batch);

// Slots per expert of a call with `n_valid` tokens; 0: no limit.
int64_t capacity_of(const chorus_route_desc &d, int64_t n_valid);

}  // namespace chorus::reference
