// SPDX-License-Identifier: Apache-2.0
// combine.rows: N score rows -> outputs per row, one task per row. A plain mixture keeps nothing beside its sums; everything
// else fills tables (combine_full.h). Semantics: docs/numerics.md, "Combining". Cost per row: a few f64 exponentials per model
// and token; workspace for the tables of a few rows.
#include "reference/combine_rows.h"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "reference/combine_full.h"

namespace chorus::reference {
namespace {

struct CombineState {
  const chorus_host *host;
  CombineSetup setup;
  bool is_plain;
  FullSetup full;
  void *maps;  // copies of the models' maps
  uint64_t map_bytes;
};

// Rows in flight at once, each with tables in the workspace.
constexpr int64_t kMostSlots = 16;

// The log-prob row comes last: it may overwrite the scores of model 0, token by token.
bool write_valid(const chorus_combine_args &args, int64_t row, Mixture &mix) {
  if (asks_log_probs(args)) prepare_log_probs(mix);
  const auto value = [&](int64_t v) { return as_log_prob(CHORUS_F32, log_prob(mix, v)); };
  const auto write = [&](const chorus_tensor *token_out, const chorus_tensor *log_prob_out, int64_t token) {
    write_choice(token_out, log_prob_out, row, token,
                 log_prob_out != nullptr ? value(token) : 0.0);
  };
  if (args.argmax != nullptr || args.argmax_log_prob != nullptr) write(args.argmax, args.argmax_log_prob, argmax(mix));
  if (args.sample != nullptr || args.sample_log_prob != nullptr)
    write(args.sample, args.sample_log_prob, sample(mix, draw_of(args, row)));
  const bool bad_token = write_token_log_probs(args, row, mix.n_tokens, value);
  write_row(args.log_probs, row, mix.n_tokens,
            [&](chorus_dtype dtype, int64_t v) { return as_log_prob(dtype, log_prob(mix, v)); });
  return bad_token;
}

void run_row(const CombineState &state, const chorus_combine_args &args, int64_t row) {
  Mixture mix;
  const CombineSetup &setup = state.setup;
  mix.rule = setup.rule;
  mix.n_tokens = setup.n_tokens;
  bool bad_token;
  if (!collect_models(setup, args, row, mix.models, mix.count) || (mix.count == 0 && !may_lack_models(setup.rule))) {
    mix.status = CHORUS_ROW_BAD_WEIGHT;
    bad_token = write_invalid(args, row, setup.n_tokens, kCombineNaN);
  } else if (scan(mix)) {
    bad_token = write_valid(args, row, mix);
  } else {
    bad_token = write_invalid(args, row, setup.n_tokens, (mix.status & CHORUS_ROW_NAN) != 0 ? kCombineNaN : -kInfinity64);
  }
  put_integer(args.status, row, mix.status | (bad_token ? CHORUS_ROW_BAD_TOKEN : 0));
}

// ---- A row with everything ----

// After collect_models(): of the list of neighbours, of the base model, and that something counts where the rule needs it.
bool has_usable_weights(const FullRow &r) {
  const Mixture &mix = r.mix;
  const auto is_base = [&](const ModelRow &m) { return static_cast<uint32_t>(m.index) + 1 == r.full->base_model; };
  if (r.full->base_model != 0 && std::none_of(mix.models, mix.models + mix.count, is_base)) return false;
  double list = 0.0;
  if (r.full->has_neighbours)
    list = weight_of(*r.setup, *r.args, r.row, r.setup->n_models, r.full->neighbours_weight);
  if (!std::isfinite(list) || (list < 0 && takes_no_negative_weight(r.setup->rule))) return false;
  return mix.count > 0 || list != 0.0 || may_lack_models(r.setup->rule);
}

bool run_full(FullRow &r) {
  Mixture &mix = r.mix;
  const double nothing = -kInfinity64;
  std::fill(r.kept, r.kept + r.setup->n_tokens, uint8_t{1});
  if (!collect_models(*r.setup, *r.args, r.row, mix.models, mix.count) || !has_usable_weights(r)) {
    mix.status = CHORUS_ROW_BAD_WEIGHT;
    return write_invalid_row(r, kCombineNaN);
  }
  const bool has_models = (!r.full->has_exact_keys || scan(mix)) && build_tables(r);
  if (!has_models) return write_invalid_row(r, (mix.status & CHORUS_ROW_NAN) != 0 ? kCombineNaN : nothing);
  apply_rule(r);
  if (std::none_of(r.kept, r.kept + r.setup->n_tokens, [](uint8_t x) { return x != 0; })) {
    mix.status |= CHORUS_ROW_EMPTY_SUPPORT;
    return write_invalid_row(r, nothing);
  }
  write_combination(r);
  if (!apply_after(r)) {
    mix.status |= CHORUS_ROW_BAD_WEIGHT;
    return write_invalid_row(r, kCombineNaN);
  }
  return write_final(r, choose_best(r), choose_by_draw(r, draw_of(*r.args, r.row)));
}

struct Layout {
  uint64_t tables, own, values, keys, order, kept, passed, slot;  // bytes

  explicit Layout(const CombineState &state) {
    const auto v = static_cast<uint64_t>(state.setup.n_tokens), row = static_cast<uint64_t>(state.full.row_size);
    const auto count = static_cast<uint64_t>(state.setup.n_models + (state.full.has_neighbours ? 1 : 0));
    tables = aligned(count * v * sizeof(double));
    own = aligned(row * sizeof(double));
    values = aligned(v * sizeof(double));
    keys = aligned(v * sizeof(float));
    order = aligned(row * sizeof(int32_t));
    kept = aligned(v);
    passed = aligned(row);
    slot = tables + own + values + keys + order + kept + passed;
  }
  void give(void *workspace, int64_t index, FullRow &r) const {
    char *at = static_cast<char *>(workspace) + static_cast<uint64_t>(index) * slot;
    const auto take = [&](auto *&pointer, uint64_t bytes) {
      pointer = reinterpret_cast<std::remove_reference_t<decltype(pointer)>>(at);
      at += bytes;
    };
    take(r.tables, tables);
    take(r.own, own);
    take(r.values, values);
    take(r.keys, keys);
    take(r.order, order);
    take(r.kept, kept);
    take(r.passed, passed);
  }
};

void run_full_row(const CombineState &state, const chorus_combine_args &args, void *workspace, int64_t slot, int64_t row) {
  FullRow r;
  Layout(state).give(workspace, slot, r);
  r.setup = &state.setup;
  r.full = &state.full;
  r.args = &args;
  r.row = row;
  r.mix.rule = state.setup.rule;
  r.mix.n_tokens = state.setup.n_tokens;
  const bool bad_token = run_full(r);
  put_integer(args.status, row, r.mix.status | (bad_token ? CHORUS_ROW_BAD_TOKEN : 0));
}

// ---- The kernel ----

// Rows of a CSR map, copied behind each other.
void copy_map(const chorus_combine_model &from, int64_t n_tokens, char *&at, FullModel &to) {
  const auto copy = [&](const chorus_tensor *t, int64_t count, auto *&pointer) {
    using Value = std::remove_const_t<std::remove_pointer_t<std::remove_reference_t<decltype(pointer)>>>;
    const uint64_t bytes = static_cast<uint64_t>(count) * sizeof(Value);
    if (bytes > 0) std::memcpy(at, t->data, bytes);
    pointer = reinterpret_cast<const Value *>(at);
    at += aligned(bytes);
  };
  copy(from.map_offsets, n_tokens + 1, to.map_offsets);
  const int64_t entries = to.map_offsets[n_tokens];
  copy(from.map_ids, entries, to.map_ids);
  if (from.map_values != nullptr) copy(from.map_values, entries, to.map_values);
}

uint64_t map_bytes_of(const chorus_combine_desc &d) {
  uint64_t bytes = 0;
  for (int32_t i = 0; i < d.n_models; ++i) {
    const chorus_combine_model &m = *d.models[i];
    if (m.map_offsets == nullptr) continue;
    const auto entries = static_cast<uint64_t>(static_cast<const int64_t *>(m.map_offsets->data)[d.n_tokens]);
    bytes += aligned(static_cast<uint64_t>(d.n_tokens + 1) * sizeof(int64_t)) + 2 * aligned(entries * sizeof(int32_t));
  }
  return bytes;
}

void copy_model(const chorus_combine_model &m, int64_t n_tokens, char *&at, FullModel &to) {
  to = FullModel{};
  to.n_logits = m.n_logits;
  to.top_k = m.top_k;
  to.top_p = m.top_p;
  to.plausibility = m.plausibility;
  to.has_bias = m.has_bias != 0;
  to.has_mask = m.has_mask != 0;
  to.missing = m.missing;
  to.unknown_id = m.unknown_id;
  to.missing_log_prob = m.missing_log_prob;
  if (m.map_offsets != nullptr) copy_map(m, n_tokens, at, to);
  int64_t lacking = 0;
  for (int64_t u = 0; u < n_tokens; ++u)
    lacking += to.map_offsets != nullptr ? to.map_offsets[u] == to.map_offsets[u + 1] : u >= m.n_valid;
  to.log_lacking = std::log(static_cast<double>(lacking));
}

void copy_full(const chorus_combine_desc &d, char *at, FullSetup &f) {
  f.has_exact_keys = is_plain_mixture(d, nullptr, 0) && d.has_penalties == 0;
  f.has_after = !is_plain_after(d, nullptr, 0);
  f.base_model = d.base_model;
  f.order = d.order;
  f.trim = d.trim;
  f.vote_k = d.vote_k;
  f.n_top = d.n_top;
  f.temperature = d.temperature;
  f.top_p = d.top_p;
  f.min_p = d.min_p;
  f.typical_p = d.typical_p;
  f.top_k = d.top_k;
  f.has_penalties = d.has_penalties != 0;
  f.has_neighbours = d.has_neighbours != 0;
  f.neighbours_kind = d.neighbours_kind;
  f.neighbours_weight = d.neighbours_weight;
  f.row_size = d.n_tokens;
  for (int32_t i = 0; i < d.n_models; ++i) {
    copy_model(*d.models[i], d.n_tokens, at, f.models[i]);
    f.row_size = std::max(f.row_size, d.models[i]->n_logits);
  }
}

void combine_release(void *prepared) {
  if (prepared == nullptr) return;
  const auto *state = static_cast<CombineState *>(prepared);
  if (state->maps != nullptr) state->host->deallocate(state->host->self, state->maps, state->map_bytes, kAlignment);
  free_state<CombineState>(prepared);
}

chorus_status combine_prepare(chorus_plugin_device *device, const void *desc, void **out, chorus_error_slot slot) {
  const auto &d = *static_cast<const chorus_combine_desc *>(desc);
  auto *state = make_state<CombineState>(device->host, slot);
  if (state == nullptr) return CHORUS_RESOURCE_EXHAUSTED;
  state->setup.copy(d);
  state->is_plain = is_plain_combine(d, nullptr, 0);
  state->map_bytes = map_bytes_of(d);
  if (state->map_bytes > 0) {
    state->maps = device->host->allocate(device->host->self, state->map_bytes, kAlignment);
    if (state->maps == nullptr) {
      free_state<CombineState>(state);
      return report(device->host, slot, CHORUS_RESOURCE_EXHAUSTED, "no memory for the models' maps");
    }
  }
  copy_full(d, static_cast<char *>(state->maps), state->full);
  *out = state;
  return CHORUS_OK;
}

int64_t slots_of(int64_t rows) { return rows < kMostSlots ? rows : kMostSlots; }

uint64_t combine_workspace(const void *prepared, const void *args) {
  const auto &state = *static_cast<const CombineState *>(prepared);
  if (state.is_plain) return 0;
  return static_cast<uint64_t>(slots_of(static_cast<const chorus_combine_args *>(args)->rows)) * Layout(state).slot;
}

uint64_t combine_bytes(const void *prepared) { return static_cast<const CombineState *>(prepared)->map_bytes; }

chorus_status combine_run(const void *prepared, const void *args_pointer, const chorus_exec *exec, chorus_error_slot) {
  const auto &state = *static_cast<const CombineState *>(prepared);
  const auto &args = *static_cast<const chorus_combine_args *>(args_pointer);
  if (state.is_plain) {
    parallel_for(state.host, args.rows, [&](int64_t row) { run_row(state, args, row); });
    return CHORUS_OK;
  }
  std::atomic<int64_t> next{0};
  parallel_for(state.host, slots_of(args.rows), [&](int64_t slot) {
    for (int64_t row; (row = next.fetch_add(1)) < args.rows;) run_full_row(state, args, exec->workspace, slot, row);
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
                                    combine_release,
                                    combine_bytes};

}  // namespace chorus::reference
