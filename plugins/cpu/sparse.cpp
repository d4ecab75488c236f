// SPDX-License-Identifier: Apache-2.0
// sparse.gemv and sparse.ffn on the processor. Phases: the kept set of each row; dot products by index (gate, up, outputs); kept
// rows of the down-projection added up by columns. Cost: the bytes of the kept rows, each read once for all rows of x that
// keep it. Pieces of the work write elements of their own, so the bytes are the same for any number of threads.
#include "cpu/sparse.h"

namespace chorus::cpu {
namespace {

constexpr int64_t kIndicesAtOnce = 32;         // rows of weights that stay in the cache while every row of x uses them
constexpr int64_t kColumnsPerPiece = 512;      // of the down-projection
constexpr int64_t kSerialWeights = 32 * 1024;  // below so many a phase stays on its thread

struct SparseState {
  const chorus_host *host;
  SparsePick pick;
  bool is_ffn;
  chorus_sparse_side side;
  chorus_activation activation;
  chorus_dtype x_dtype, y_dtype;
  SparseMatrix gate, up;  // by output; gate without weights: none. sparse.gemv by outputs: `up`
  SparseMatrix down;      // by input; sparse.gemv by inputs
  DotFunction dot;
  AddRowsFunction add_rows;
  void *memory;
  uint64_t bytes;
};

// ---- Prepare ----

uint64_t matrix_bytes(chorus_dtype dtype, int64_t rows, int64_t columns, int64_t outputs) {
  return aligned(static_cast<uint64_t>(rows * sparse_padded(columns)) * bytes_of(dtype)) +
         2 * aligned(sizeof(float) * static_cast<uint64_t>(outputs));
}

// Copies [outputs, inputs]; `by_input` turns it, so that what is skipped is a row.
SparseMatrix pack(const MatrixView &from, const chorus_tensor *bias, int64_t outputs, int64_t inputs, bool by_input, char *&to) {
  const int64_t rows = by_input ? inputs : outputs, columns = by_input ? outputs : inputs, stride = sparse_padded(columns);
  const uint64_t bytes = bytes_of(from.dtype);
  char *weights = to;
  to += aligned(static_cast<uint64_t>(rows * stride) * bytes);
  auto *scales = reinterpret_cast<float *>(to);
  to += aligned(sizeof(float) * static_cast<uint64_t>(outputs));
  auto *biases = reinterpret_cast<float *>(to);
  to += aligned(sizeof(float) * static_cast<uint64_t>(outputs));
  for (int64_t r = 0; r < rows; ++r) {
    char *row = weights + static_cast<uint64_t>(r * stride) * bytes;
    if (!by_input && stride_of(*from.tensor, 1) == 1) {
      std::memcpy(row, from.at(r, 0), static_cast<uint64_t>(columns) * bytes);
    } else {
      for (int64_t c = 0; c < columns; ++c)
        std::memcpy(row + static_cast<uint64_t>(c) * bytes, by_input ? from.at(c, r) : from.at(r, c), bytes);
    }
    std::memset(row + static_cast<uint64_t>(columns) * bytes, 0, static_cast<uint64_t>(stride - columns) * bytes);
  }
  for (int64_t o = 0; o < outputs; ++o) {
    scales[o] = from.scale(o);
    biases[o] = bias != nullptr ? f32_at(*bias, o) : 0.0f;
  }
  return {weights, scales, bias != nullptr ? biases : nullptr, from.dtype, rows, columns, stride};
}

void sparse_release(void *prepared) {
  const auto *state = static_cast<const SparseState *>(prepared);
  if (state == nullptr) return;
  if (state->memory != nullptr) state->host->deallocate(state->host->self, state->memory, state->bytes, kAlignment);
  free_state<SparseState>(prepared);
}

// A state with `bytes` of memory; NULL after an error was described.
SparseState *make_sparse(const chorus_plugin_device *device, chorus_dtype weights, uint64_t bytes, chorus_error_slot slot) {
  const chorus_host *host = device->host;
  auto *state = make_state<SparseState>(host, slot);
  if (state == nullptr) return nullptr;
  state->dot = sparse_dot_for(device, weights);
  state->add_rows = sparse_add_for(device, weights);
  state->bytes = bytes;
  state->memory = host->allocate(host->self, bytes, kAlignment);
  if (state->memory != nullptr) return state;
  report(host, slot, CHORUS_RESOURCE_EXHAUSTED, "no memory for %llu bytes of weights", static_cast<unsigned long long>(bytes));
  sparse_release(state);
  return nullptr;
}

int32_t gemv_score(chorus_plugin_device *, const void *desc, char *why, size_t bytes) {
  return accept_sparse(*static_cast<const chorus_sparse_gemv_desc *>(desc), why, bytes) > 0 ? kScore : 0;
}
int32_t ffn_score(chorus_plugin_device *, const void *desc, char *why, size_t bytes) {
  return accept_sparse(*static_cast<const chorus_sparse_ffn_desc *>(desc), why, bytes) > 0 ? kScore : 0;
}

chorus_status gemv_prepare(chorus_plugin_device *device, const void *desc, void **out, chorus_error_slot slot) {
  const auto &d = *static_cast<const chorus_sparse_gemv_desc *>(desc);
  const bool by_input = d.side == CHORUS_SPARSE_INPUTS;
  const int64_t rows = by_input ? d.inputs : d.outputs, columns = by_input ? d.outputs : d.inputs;
  SparseState *state = make_sparse(device, d.weights_dtype, matrix_bytes(d.weights_dtype, rows, columns, d.outputs), slot);
  if (state == nullptr) return CHORUS_RESOURCE_EXHAUSTED;
  state->side = d.side;
  state->x_dtype = d.x_dtype;
  state->y_dtype = d.y_dtype;
  state->pick = {d.pick, d.threshold, d.dense_above, static_cast<int32_t>(rows)};
  auto *to = static_cast<char *>(state->memory);
  (by_input ? state->down : state->up) = pack({d.weights, d.weights_dtype}, d.bias, d.outputs, d.inputs, by_input, to);
  *out = state;
  return CHORUS_OK;
}

chorus_status ffn_prepare(chorus_plugin_device *device, const void *desc, void **out, chorus_error_slot slot) {
  const auto &d = *static_cast<const chorus_sparse_ffn_desc *>(desc);
  const int64_t h = d.hidden, i = d.intermediate;
  const uint64_t wide = matrix_bytes(d.weights_dtype, i, h, i);
  SparseState *state = make_sparse(device, d.weights_dtype,
                                   (d.gate != nullptr ? 2 : 1) * wide + matrix_bytes(d.weights_dtype, i, h, h), slot);
  if (state == nullptr) return CHORUS_RESOURCE_EXHAUSTED;
  state->is_ffn = true;
  state->activation = d.activation;
  state->x_dtype = d.x_dtype;
  state->y_dtype = d.y_dtype;
  state->pick = {d.pick, d.threshold, d.dense_above, static_cast<int32_t>(i)};
  auto *to = static_cast<char *>(state->memory);
  if (d.gate != nullptr) state->gate = pack({d.gate, d.weights_dtype}, d.gate_bias, i, h, false, to);
  state->up = pack({d.up, d.weights_dtype}, d.up_bias, i, h, false, to);
  state->down = pack({d.down, d.weights_dtype}, d.down_bias, h, i, true, to);
  *out = state;
  return CHORUS_OK;
}

uint64_t sparse_prepared_bytes(const void *prepared) { return static_cast<const SparseState *>(prepared)->bytes; }

// ---- Workspace: per row of x its floats, what is computed by index, the kept list, the sums of columns ----

struct Rows {
  Rows(const SparseState &s, int64_t rows, void *workspace) : at(static_cast<char *>(workspace)) {
    const bool dots = s.up.weights != nullptr;
    x_bytes = aligned(4 * static_cast<uint64_t>(dots ? s.up.stride : sparse_padded(s.down.rows)));
    index_bytes = aligned(4 * static_cast<uint64_t>(s.pick.n));
    y_bytes = s.down.weights != nullptr ? aligned(4 * static_cast<uint64_t>(s.down.stride)) : 0;
    row_bytes = x_bytes + 2 * index_bytes + y_bytes;
    marks_at = row_bytes * static_cast<uint64_t>(rows);
    bytes = marks_at + aligned(static_cast<uint64_t>(s.pick.n));
  }
  float *x(int64_t t) const { return reinterpret_cast<float *>(row(t)); }
  float *values(int64_t t) const { return reinterpret_cast<float *>(row(t) + x_bytes); }
  int32_t *list(int64_t t) const { return reinterpret_cast<int32_t *>(row(t) + x_bytes + index_bytes); }
  float *y(int64_t t) const { return reinterpret_cast<float *>(row(t) + x_bytes + 2 * index_bytes); }
  uint8_t *marks() const { return reinterpret_cast<uint8_t *>(at + marks_at); }

  char *at;
  uint64_t x_bytes, index_bytes, y_bytes, row_bytes, marks_at, bytes;
  int32_t counts[kSparseMaxRows] = {};

 private:
  char *row(int64_t t) const { return at + row_bytes * static_cast<uint64_t>(t); }
};

uint64_t sparse_workspace(const void *prepared, const void *args) {
  const auto &s = *static_cast<const SparseState *>(prepared);
  return Rows(s, static_cast<const chorus_sparse_args *>(args)->rows, nullptr).bytes;
}

// ---- Phases ----

template <typename Body>
void for_pieces(const chorus_host *host, int64_t pieces, int64_t weights, const Body &body) {
  if (weights >= kSerialWeights) return parallel_for(host, pieces, body);
  for (int64_t i = 0; i < pieces; ++i) body(i);
}

// Calls body(t, first, last) for the parts of the rows' lists that lie in each run of indices; runs in parallel. `all`: every
// index of every row instead.
template <typename Body>
void for_runs(const SparseState &s, const Rows &rows, int64_t count, int64_t weights_each, bool all, const Body &body) {
  int64_t kept = 0;
  for (int64_t t = 0; t < count; ++t) kept += all ? s.pick.n : rows.counts[t];
  const int64_t runs = (s.pick.n + kIndicesAtOnce - 1) / kIndicesAtOnce;
  for_pieces(s.host, runs, kept * weights_each, [&](int64_t run) {
    const auto begin = static_cast<int32_t>(run * kIndicesAtOnce);
    const auto end = static_cast<int32_t>(std::min<int64_t>(begin + kIndicesAtOnce, s.pick.n));
    for (int64_t t = 0; t < count; ++t) {
      if (all) {
        for (int32_t i = begin; i < end; ++i) body(t, i);
        continue;
      }
      const int32_t *list = rows.list(t), *last = list + rows.counts[t];
      for (const int32_t *i = std::lower_bound(list, last, begin); i != last && *i < end; ++i) body(t, *i);
    }
  });
}

float output(const SparseState &s, const SparseMatrix &m, int64_t i, const float *x) {
  const float sum = s.dot(m, i, x) * m.scales[i];
  return m.bias != nullptr ? sum + m.bias[i] : sum;
}

void load_rows(const SparseState &s, const chorus_sparse_args &args, const Rows &rows) {
  const int64_t n = s.up.weights != nullptr ? s.up.columns : s.down.rows;
  for (int64_t t = 0; t < args.rows; ++t) {
    const void *from = row_of(*args.x, t);
    float *x = rows.x(t);
    for (int64_t i = 0; i < n; ++i) x[i] = load_f32(s.x_dtype, from, i);
    std::fill(x + n, x + rows.x_bytes / 4, 0.0f);
  }
}

// y from the kept rows of the down-projection, `values` giving each row's factors.
template <typename Values>
void add_up(const SparseState &s, const chorus_sparse_args &args, const Rows &rows, const Values &values) {
  const SparseMatrix &m = s.down;
  int64_t kept = 0;
  for (int64_t t = 0; t < args.rows; ++t) kept += rows.counts[t];
  const int64_t pieces = (m.stride + kColumnsPerPiece - 1) / kColumnsPerPiece;
  for_pieces(s.host, pieces, kept * m.columns, [&](int64_t piece) {
    const int64_t begin = piece * kColumnsPerPiece, end = std::min(begin + kColumnsPerPiece, m.stride);
    int32_t done[kSparseMaxRows] = {};
    for (int64_t t = 0; t < args.rows; ++t) std::fill(rows.y(t) + begin, rows.y(t) + end, 0.0f);
    // A run of indices for every row of x before the next, so that weights two rows keep are read once.
    const int64_t step = args.rows > 1 ? 2 * kIndicesAtOnce : s.pick.n;
    for (int64_t last = step; last < s.pick.n + step; last += step) {
      for (int64_t t = 0; t < args.rows; ++t) {
        const int32_t *list = rows.list(t);
        const int32_t first = done[t];
        while (done[t] < rows.counts[t] && list[done[t]] < last) ++done[t];
        s.add_rows({&m, list + first, done[t] - first, values(t), rows.y(t), begin, end});
      }
    }
    for (int64_t t = 0; t < args.rows; ++t) {
      void *y = row_of(*args.y, t);
      for (int64_t c = begin; c < std::min(end, m.columns); ++c) {
        const float sum = rows.y(t)[c] * m.scales[c];
        store_f32(s.y_dtype, y, c, m.bias != nullptr ? sum + m.bias[c] : sum);
      }
    }
  });
}

void keep_by_args(const SparseState &s, const chorus_sparse_args &args, Rows &rows) {
  for (int64_t t = 0; t < args.rows; ++t) rows.counts[t] = s.pick.of_args(args, t, rows.list(t), rows.marks());
}

void run_gemv(const SparseState &s, const chorus_sparse_args &args, Rows &rows) {
  if (s.pick.by_value()) {
    for (int64_t t = 0; t < args.rows; ++t) rows.counts[t] = s.pick.of_values(rows.x(t), rows.list(t));
  } else {
    keep_by_args(s, args, rows);
  }
  if (s.side == CHORUS_SPARSE_INPUTS) return add_up(s, args, rows, [&](int64_t t) { return rows.x(t); });
  for (int64_t t = 0; t < args.rows; ++t) {
    void *y = row_of(*args.y, t);
    for (int64_t o = 0; o < s.up.rows; ++o) store_f32(s.y_dtype, y, o, 0.0f);
  }
  for_runs(s, rows, args.rows, s.up.columns, false, [&](int64_t t, int32_t o) {
    store_f32(s.y_dtype, row_of(*args.y, t), o, output(s, s.up, o, rows.x(t)));
  });
}

void run_ffn(const SparseState &s, const chorus_sparse_args &args, Rows &rows) {
  const bool gated = s.gate.weights != nullptr, by_value = s.pick.by_value();
  const SparseMatrix &first = gated ? s.gate : s.up;
  if (!by_value) keep_by_args(s, args, rows);
  for_runs(s, rows, args.rows, first.columns, by_value, [&](int64_t t, int32_t i) {
    float h = activate_gate(s.activation, output(s, first, i, rows.x(t)));
    if (gated && !by_value) h = h * output(s, s.up, i, rows.x(t));
    rows.values(t)[i] = h;
  });
  if (by_value) {
    for (int64_t t = 0; t < args.rows; ++t) rows.counts[t] = s.pick.of_values(rows.values(t), rows.list(t));
    if (gated) {
      for_runs(s, rows, args.rows, s.up.columns, false, [&](int64_t t, int32_t i) {
        rows.values(t)[i] = rows.values(t)[i] * output(s, s.up, i, rows.x(t));
      });
    }
  }
  add_up(s, args, rows, [&](int64_t t) { return rows.values(t); });
}

chorus_status sparse_run(const void *prepared, const void *args_pointer, const chorus_exec *exec, chorus_error_slot) {
  const auto &s = *static_cast<const SparseState *>(prepared);
  const auto &args = *static_cast<const chorus_sparse_args *>(args_pointer);
  if (args.rows == 0) return CHORUS_OK;
  Rows rows(s, args.rows, exec->workspace);
  load_rows(s, args, rows);
  if (s.is_ffn) {
    run_ffn(s, args, rows);
  } else {
    run_gemv(s, args, rows);
  }
  for (int64_t t = 0; t < args.rows; ++t) s.pick.tell(args, t, rows.list(t), rows.counts[t]);
  return CHORUS_OK;
}

}  // namespace

const chorus_kernel kSparseGemv = {CHORUS_END_OF(chorus_kernel, prepared_bytes),
                                   CHORUS_OP_SPARSE_GEMV,
                                   1,
                                   0,
                                   "sparse_gemv",
                                   gemv_score,
                                   gemv_prepare,
                                   sparse_workspace,
                                   sparse_run,
                                   sparse_release,
                                   sparse_prepared_bytes};

const chorus_kernel kSparseFfn = {CHORUS_END_OF(chorus_kernel, prepared_bytes),
                                  CHORUS_OP_SPARSE_FFN,
                                  1,
                                  0,
                                  "sparse_ffn",
                                  ffn_score,
                                  ffn_prepare,
                                  sparse_workspace,
                                  sparse_run,
                                  sparse_release,
                                  sparse_prepared_bytes};

}  // namespace chorus::cpu
