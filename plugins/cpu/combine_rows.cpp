// SPDX-License-Identifier: Apache-2.0
// combine.rows: N score rows -> log-prob row, argmax, sample, log-probs of given tokens, status. Rows run side by side;
// fewer rows than threads share the threads block by block.
#include <atomic>

#include "cpu/combine_after.h"

namespace chorus::cpu {
namespace {

// Rows in flight at once, each with a slot of the workspace.
constexpr int64_t kMostSlots = 64;

struct CombineState {
  const chorus_host *host;
  BlockOps ops;
  CombineSetup setup;
  bool has_cut;
  After after;
};

bool is_linear(const CombineState &state) { return state.setup.rule == CHORUS_COMBINE_LINEAR; }

// ---- Workspace: a slot per row in flight ----

struct Layout {
  uint64_t keys, scans, tops, sums, ids, candidates, slot;  // bytes

  explicit Layout(const CombineState &state) {
    const auto tokens = static_cast<uint64_t>(state.setup.n_tokens);
    const uint64_t blocks = (tokens + kBlock - 1) / kBlock;
    keys = is_linear(state) && !state.has_cut ? 0 : aligned(tokens * sizeof(float));
    scans = aligned(static_cast<uint64_t>(state.setup.n_models) * blocks * sizeof(float));
    tops = aligned(blocks * sizeof(float));
    sums = aligned(blocks * (kBlock / kPiece) * sizeof(uint64_t));
    ids = state.has_cut ? aligned(tokens * sizeof(int32_t)) + kAlignment : 0;
    candidates = state.has_cut ? aligned(tokens * 16) : 0;
    slot = keys + 2 * scans + tops + sums + ids + candidates;
  }
  Slot at(void *workspace, int64_t index) const {
    char *keys_at = static_cast<char *>(workspace) + static_cast<uint64_t>(index) * slot;
    char *highs_at = keys_at + keys, *lows_at = highs_at + scans, *tops_at = lows_at + scans, *sums_at = tops_at + tops, *ids_at = sums_at + sums;
    return {reinterpret_cast<float *>(keys_at), reinterpret_cast<float *>(highs_at), reinterpret_cast<float *>(lows_at),
            reinterpret_cast<float *>(tops_at), reinterpret_cast<uint64_t *>(sums_at),
            reinterpret_cast<int32_t *>(ids_at), ids_at + ids};
  }
};

int64_t slots_of(int64_t rows) { return rows < kMostSlots ? rows : kMostSlots; }

// The log-prob row comes last: it may overwrite the scores of model 0, block by block.
bool write_valid(const CombineState &state, const chorus_combine_args &args, int64_t index, Row &row) {
  const bool linear = is_linear(state);
  int64_t best = -1, drawn = -1;
  if (args.argmax != nullptr || args.argmax_log_prob != nullptr) best = linear ? linear_argmax(row) : log_linear_argmax(row);
  if (args.sample != nullptr || args.sample_log_prob != nullptr) {
    const Draw draw = draw_of(args, index);
    drawn = linear ? linear_sample(row, draw) : log_linear_sample(row, draw);
  }
  if (asks_log_probs(args)) linear ? linear_prepare_log_probs(row) : log_linear_prepare_log_probs(row);
  const auto value = [&](int64_t v) {
    return as_log_prob(CHORUS_F32, linear ? linear_log_prob(row, v) : log_linear_log_prob(row, v));
  };
  write_choice(args.argmax, args.argmax_log_prob, index, best, args.argmax_log_prob != nullptr ? value(best) : 0.0);
  write_choice(args.sample, args.sample_log_prob, index, drawn, args.sample_log_prob != nullptr ? value(drawn) : 0.0);
  const bool bad_token = write_token_log_probs(args, index, state.setup.n_tokens, value);
  if (args.log_probs != nullptr) {
    const chorus_dtype dtype = dtype_of(*args.log_probs);
    void *out = row_of(*args.log_probs, index);
    linear ? linear_store(row, dtype, out) : log_linear_store(row, dtype, out);
  }
  return bad_token;
}

// The outputs of a cut row: choices only.
void write_cut(const CombineState &state, const chorus_combine_args &args, int64_t index, Row &row) {
  Cut cut{};
  cut_row(row, state.after, draw_of(args, index), cut);
  if (asks_log_probs(args)) prepare_cut_log_probs(row, state.after, cut);
  const auto write = [&](const chorus_tensor *token_out, const chorus_tensor *log_prob_out, int64_t token) {
    const double log_prob = log_prob_out != nullptr ? cut_log_prob(row, state.after, cut, token) : 0.0;
    write_choice(token_out, log_prob_out, index, token, as_log_prob(CHORUS_F32, log_prob));
  };
  write(args.argmax, args.argmax_log_prob, cut.best);
  write(args.sample, args.sample_log_prob, cut.drawn);
}

void run_row(const CombineState &state, const chorus_combine_args &args, const Run &run, const Slot &slot, int64_t index) {
  Row row;
  row.run = &run;
  row.slot = slot;
  row.rule = state.setup.rule;
  bool bad_token;
  if (!collect_models(state.setup, args, index, row.models, row.count) || (row.count == 0 && !may_lack_models(state.setup.rule))) {
    row.status = CHORUS_ROW_BAD_WEIGHT;
    bad_token = write_invalid(args, index, state.setup.n_tokens, kCombineNaN);
  } else {
    scan_models(row);
    if (is_linear(state) ? linear_begin(row) : log_linear_begin(row)) {
      bad_token = false;
      state.has_cut ? write_cut(state, args, index, row) : void(bad_token = write_valid(state, args, index, row));
    } else {
      bad_token = write_invalid(args, index, state.setup.n_tokens, (row.status & CHORUS_ROW_NAN) != 0 ? kCombineNaN : -kCombineInfinity);
    }
  }
  put_integer(args.status, index, row.status | (bad_token ? CHORUS_ROW_BAD_TOKEN : 0));
}

// ---- The kernel ----

chorus_status combine_prepare(chorus_plugin_device *device, const void *desc, void **out, chorus_error_slot slot) {
  const auto &d = *static_cast<const chorus_combine_desc *>(desc);
  auto *state = make_state<CombineState>(device->host, slot);
  if (state == nullptr) return CHORUS_RESOURCE_EXHAUSTED;
  state->ops = block_ops(device);
  state->setup.copy(d);
  state->has_cut = !is_plain_after(d, nullptr, 0);
  state->after = {d.temperature, d.top_p, d.min_p, d.top_k};
  *out = state;
  return CHORUS_OK;
}

uint64_t combine_workspace(const void *prepared, const void *args) {
  const Layout layout(*static_cast<const CombineState *>(prepared));
  return static_cast<uint64_t>(slots_of(static_cast<const chorus_combine_args *>(args)->rows)) * layout.slot;
}

chorus_status combine_run(const void *prepared, const void *args_pointer, const chorus_exec *exec, chorus_error_slot) {
  const auto &state = *static_cast<const CombineState *>(prepared);
  const auto &args = *static_cast<const chorus_combine_args *>(args_pointer);
  const Layout layout(state);
  const int64_t threads = state.host->thread_count(state.host->self);
  Run run = {state.host, state.ops, state.setup.n_tokens, token_bits(state.setup.n_tokens), args.rows < threads};
  if (run.split) {
    for (int64_t row = 0; row < args.rows; ++row) run_row(state, args, run, layout.at(exec->workspace, 0), row);
    return CHORUS_OK;
  }
  // As many tasks as threads, so that few slots stay in the caches; each takes rows until none is left.
  std::atomic<int64_t> next{0};
  const int64_t slots = slots_of(args.rows);
  parallel_for(state.host, slots < threads ? slots : threads, [&](int64_t task) {
    for (int64_t row; (row = next.fetch_add(1)) < args.rows;)
      run_row(state, args, run, layout.at(exec->workspace, task), row);
  });
  return CHORUS_OK;
}

}  // namespace

const chorus_kernel kCombineRows = {CHORUS_END_OF(chorus_kernel, prepared_bytes),
                                    CHORUS_OP_COMBINE_ROWS,
                                    1,
                                    0,
                                    "combine_rows",
                                    combine_score,
                                    combine_prepare,
                                    combine_workspace,
                                    combine_run,
                                    free_state<CombineState>,
                                    nullptr};

}  // namespace chorus::cpu
