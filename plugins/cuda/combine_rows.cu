// SPDX-License-Identifier: Apache-2.0
// combine.rows: N score rows -> log-prob row, argmax, sample, log-probs of given tokens, status; one cooperative launch.
// A group of blocks works on a row, each block on a run of its tokens that it keeps in shared memory where it fits:
// then the scores are read from device memory once. Bytes: N rows in, one row out where asked for.
#include <algorithm>

#include "chorus/plugin_combine.hpp"
#include "cuda/combine_rules.cuh"

namespace chorus::cuda {
namespace {

// ---- Outputs of a row ----

__device__ void put(const Column &out, int64_t row, int32_t value) {
  if (out.data != nullptr) static_cast<int32_t *>(out.data)[row * out.stride] = value;
}
__device__ void put(const Column &out, int64_t row, double value) {
  if (out.data != nullptr) static_cast<float *>(out.data)[row * out.stride] = static_cast<float>(value >= -0x1p-150 ? 0.0 : value);
}

__device__ int64_t integer_at(const Column &in, int64_t row) { return static_cast<const int64_t *>(in.data)[row * in.stride]; }

__device__ Draw draw_of(const CombineCall &call, int64_t row) {
  const auto id = static_cast<uint64_t>(call.row_ids.data != nullptr ? integer_at(call.row_ids, row) : row);
  const uint64_t step = call.steps.data != nullptr ? static_cast<uint64_t>(integer_at(call.steps, row)) : call.step;
  const uint32_t counter[4] = {static_cast<uint32_t>(id), static_cast<uint32_t>(id >> 32), static_cast<uint32_t>(step), static_cast<uint32_t>(step >> 32)};
  const uint32_t key[2] = {static_cast<uint32_t>(call.seed), static_cast<uint32_t>(call.seed >> 32)};
  uint32_t words[4];
  chorus_philox4x32(counter, key, words);
  return {words[0] | uint64_t{words[1]} << 32, words[2] | uint64_t{words[3]} << 32};
}

// By the first block of the group; row.bad_token where one is outside the vocabulary.
template <typename Value>
__device__ void write_token_log_probs(const Place &place, int64_t row, const Value &value) {
  const Matrix &tokens = place.call.tokens, &out = place.call.token_log_probs;
  if (place.rank != 0 || tokens.data == nullptr || out.data == nullptr) return;
  for (int64_t j = threadIdx.x; j < tokens.columns; j += kCombineThreads) {
    const int64_t at = row * tokens.row_stride + j * tokens.stride;
    const int64_t token = tokens.dtype == CHORUS_I64 ? static_cast<const int64_t *>(tokens.data)[at] : static_cast<const int32_t *>(tokens.data)[at];
    const bool outside = token < 0 || token >= place.call.n_tokens;
    if (outside) place.row.bad_token = true;
    const double x = outside ? not_a_number64() : value(token);
    static_cast<float *>(out.data)[row * out.row_stride + j * out.stride] = static_cast<float>(x >= -0x1p-150 ? 0.0 : x);
  }
  __syncthreads();
}

__device__ void write_status(const Place &place, int64_t row) {
  if (place.rank == 0 && threadIdx.x == 0) put(place.call.status, row, place.row.status | (place.row.bad_token ? CHORUS_ROW_BAD_TOKEN : 0));
}

// Calls value(v, out) for the block's tokens and stores what it gives; what rounds to -0, or lies above 0 by rounding, is +0.
template <typename Value>
__device__ void write_log_probs(const Place &place, int64_t row, const Value &value) {
  const Matrix &to = place.call.log_probs;
  if (to.data == nullptr) return;
  const int64_t size = to.dtype == CHORUS_F32 ? 4 : 2;
  char *out = static_cast<char *>(to.data) + row * to.row_stride * size;
  const float nothing = to.dtype == CHORUS_F16 ? 0x1p-25f : to.dtype == CHORUS_BF16 ? 0x1p-134f : 0.0f;
  for_tokens(place, [&](int64_t v, int count) {
    float x[kVector];
    value(v, x);
#pragma unroll
    for (int j = 0; j < kVector; ++j) x[j] = x[j] >= -nothing ? 0.0f : x[j];
    char *at = out + v * size;
    if (count == kVector && to.dtype == CHORUS_F32 && reinterpret_cast<uintptr_t>(at) % 16 == 0) {
      __stcs(reinterpret_cast<float4 *>(at), make_float4(x[0], x[1], x[2], x[3]));
      __stcs(reinterpret_cast<float4 *>(at) + 1, make_float4(x[4], x[5], x[6], x[7]));
    } else {
#pragma unroll
      for (int j = 0; j < kVector; ++j) {
        if (j < count) store(to.dtype, out, v + j, x[j]);
      }
    }
  });
}

// A row without a distribution: every log-prob is `value`, every token -1.
__device__ void write_invalid(const Place &place, int64_t row, double value) {
  if (place.rank == 0 && threadIdx.x == 0) {
    put(place.call.argmax, row, -1);
    put(place.call.argmax_log_prob, row, value);
    put(place.call.sample, row, -1);
    put(place.call.sample_log_prob, row, value);
  }
  write_token_log_probs(place, row, [&](int64_t) { return value; });
  write_log_probs(place, row, [&](int64_t, float (&out)[kVector]) {
    for (int j = 0; j < kVector; ++j) out[j] = static_cast<float>(value);
  });
}

// The log-prob row comes last: it may overwrite scores.
__device__ void write_valid(Place &place, int64_t index) {
  const CombineCall &call = place.call;
  const RowState &row = place.row;
  const bool linear = call.rule == CHORUS_COMBINE_LINEAR;
  const auto log_prob = [&](int64_t v) { return linear ? linear_log_prob(row, v) : log_linear_log_prob(row, v); };
  if (threadIdx.x == 0 && place.rank == 0) {
    put(call.argmax, index, static_cast<int32_t>(row.argmax));
    if (call.argmax_log_prob.data != nullptr) put(call.argmax_log_prob, index, log_prob(row.argmax));
  }
  if (threadIdx.x == 32 && row.sample >= 0) {
    put(call.sample, index, static_cast<int32_t>(row.sample));
    if (call.sample_log_prob.data != nullptr) put(call.sample_log_prob, index, log_prob(row.sample));
  }
  write_token_log_probs(place, index, log_prob);
  if (call.log_probs.data == nullptr) return;
  if (call.overwrites) wait_for_group(place);
  if (row.is_wild) {
    write_log_probs(place, index, [&](int64_t v, float (&out)[kVector]) {
      for (int j = 0; j < kVector; ++j) out[j] = v + j < place.end ? static_cast<float>(log_prob(v + j)) : 0.0f;
    });
  } else if (linear) {
    write_log_probs(place, index, [&](int64_t v, float (&out)[kVector]) { linear_values(place, v, out); });
  } else {
    write_log_probs(place, index, [&](int64_t v, float (&out)[kVector]) { log_linear_values(place, v, out); });
  }
}

__device__ void run_row(Place &place, int64_t index, char *cache) {
  const CombineCall &call = place.call;
  RowState &row = place.row;
  collect(place, index);
  if (row.bad_weight) {
    __syncthreads();
    if (threadIdx.x == 0) row.status = CHORUS_ROW_BAD_WEIGHT;
    write_invalid(place, index, not_a_number64());
    write_status(place, index);
    return;
  }
  scan_models(place, cache);
  const Wanted wanted = {call.argmax.data != nullptr || call.argmax_log_prob.data != nullptr,
                         call.sample.data != nullptr || call.sample_log_prob.data != nullptr,
                         call.log_probs.data != nullptr || call.argmax_log_prob.data != nullptr ||
                             call.sample_log_prob.data != nullptr || call.token_log_probs.data != nullptr};
  const bool has_nan = (row.status & CHORUS_ROW_NAN) != 0;
  const Draw draw = draw_of(call, index);
  __syncthreads();
  const bool valid = !has_nan && (call.rule == CHORUS_COMBINE_LINEAR ? linear_solve(place, draw, wanted) : log_linear_solve(place, draw, wanted));
  if (valid) {
    write_valid(place, index);
  } else {
    if (call.overwrites) wait_for_group(place);
    write_invalid(place, index, has_nan ? not_a_number64() : -infinity64());
  }
  write_status(place, index);
}

__global__ void __launch_bounds__(kCombineThreads) combine_rows_kernel(const __grid_constant__ CombineCall call) {
  __shared__ RowState row;
  extern __shared__ __align__(16) char cache[];
  const int32_t index = static_cast<int32_t>(blockIdx.x) / call.group, rank = static_cast<int32_t>(blockIdx.x) % call.group;
  const int64_t begin = rank * call.chunk < call.n_tokens ? rank * call.chunk : call.n_tokens;
  const int64_t end = begin + call.chunk < call.n_tokens ? begin + call.chunk : call.n_tokens;
  Place place{call, row, index, rank, begin, end};
  for (int64_t r = index; r < call.rows; r += call.groups) run_row(place, r, cache);
}

// ---- The kernel of the table ----

struct CombineState {
  const chorus_host *host;
  chorus_plugin_device *device;
  CombineCall call;  // the static part
  bool weight_rows;
  int64_t token_bytes;  // of one token over all models
};

int32_t score(chorus_plugin_device *, const void *desc, char *why, size_t bytes) {
  return check_combine_plain(*static_cast<const chorus_combine_desc *>(desc), why, bytes) == 0 ? 0 : kScore;
}

// Bits of the integer weights floor(2^bits exp(z - max)): 45, fewer where 2^18 < V so that V 2^bits < 2^64.
int token_bits(int64_t n_tokens) {
  int bits = 45;
  for (int64_t size = int64_t{1} << 18; size < n_tokens; size *= 2) --bits;
  return bits;
}

// Shared memory a block may ask for beside its own state.
int cache_limit(const chorus_plugin_device *device) { return device->shared_bytes - static_cast<int>(sizeof(RowState)) - 1024; }

chorus_status prepare(chorus_plugin_device *device, const void *desc, void **out, chorus_error_slot slot) {
  const auto &d = *static_cast<const chorus_combine_desc *>(desc);
  const Current current(device);
  const cudaError_t error = cudaFuncSetAttribute(combine_rows_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, cache_limit(device));
  if (error != cudaSuccess) return fail(device, slot, error, "preparing combine_rows");
  auto *state = make_state<CombineState>(device->host, slot);
  if (state == nullptr) return CHORUS_RESOURCE_EXHAUSTED;
  state->device = device;
  state->weight_rows = d.weight_rows != 0;
  CombineCall &call = state->call;
  call.rule = d.rule;
  call.n_models = d.n_models;
  call.n_tokens = d.n_tokens;
  call.bits = token_bits(d.n_tokens);
  call.words = std::max(kModelWords * d.n_models, 2);
  for (int32_t i = 0; i < d.n_models; ++i) {
    const chorus_combine_model &m = *d.models[i];
    call.models[i] = {nullptr, 0, m.n_valid, m.weight, m.temperature, m.dtype, m.kind};
    state->token_bytes += static_cast<int64_t>(bytes_of(m.dtype));
  }
  *out = state;
  return CHORUS_OK;
}

// How `rows` fall onto the device: as few blocks per row as keep the scores in shared memory, more where rows are few.
// Depends on counts alone, so that workspace_size tells what run needs.
void spread(const CombineState &state, int64_t rows, CombineCall *call) {
  constexpr int64_t kLeastChunk = 1024, kStep = int64_t{kCombineWarps} * kVector;
  const int64_t blocks = state.device->processors, limit = cache_limit(state.device);
  const int64_t fitting = (call->n_tokens * state.token_bytes + limit - 1) / limit;
  int64_t group = std::max<int64_t>(1, rows > 0 ? blocks / rows : 1);
  group = std::min(group, (call->n_tokens + kLeastChunk - 1) / kLeastChunk);
  if (fitting + 1 <= blocks / 4) group = std::max(group, fitting);
  const auto chunk_of = [&] { return ((call->n_tokens + group - 1) / group + kStep - 1) / kStep * kStep; };
  while (chunk_of() * state.token_bytes > limit && group < blocks / 4) ++group;
  call->chunk = chunk_of();
  call->group = static_cast<int32_t>((call->n_tokens + call->chunk - 1) / call->chunk);
  call->groups = static_cast<int32_t>(std::max<int64_t>(1, std::min<int64_t>(rows, blocks / call->group)));
  call->cached = call->chunk * state.token_bytes <= limit;
}

uint64_t exchange_bytes(const CombineCall &call) {
  return aligned_on_device(8 * static_cast<uint64_t>(call.groups) * 2 * static_cast<uint64_t>(call.group) * static_cast<uint64_t>(call.words));
}

uint64_t workspace(const void *prepared, const void *args) {
  const auto &state = *static_cast<const CombineState *>(prepared);
  CombineCall call = state.call;
  spread(state, static_cast<const chorus_combine_args *>(args)->rows, &call);
  return call.group == 1 ? 0 : exchange_bytes(call) + aligned_on_device(4 * static_cast<uint64_t>(call.groups));
}

bool overlap(const chorus_tensor &a, const chorus_tensor &b) {
  const auto *from_a = static_cast<const char *>(a.data), *from_b = static_cast<const char *>(b.data);
  return from_a < from_b + b.size_bytes && from_b < from_a + a.size_bytes;
}

void fill_call(const CombineState &state, const chorus_combine_args &args, CombineCall *call) {
  call->rows = args.rows;
  for (int32_t i = 0; i < call->n_models; ++i) {
    const chorus_tensor *scores = args.scores[i];
    if (scores == nullptr) continue;
    call->models[i].scores = scores->data;
    call->models[i].stride = stride_of(*scores, 0);
    call->overwrites = call->overwrites || (args.log_probs != nullptr && overlap(*scores, *args.log_probs));
  }
  if (args.weights != nullptr) {
    call->weights.data = args.weights->data;
    call->weights.row_stride = state.weight_rows ? stride_of(*args.weights, 0) : 0;
    call->weights.stride = stride_of(*args.weights, state.weight_rows ? 1 : 0);
  }
  call->temperatures = column_of(args.temperatures);
  call->row_ids = column_of(args.row_ids);
  call->steps = column_of(args.steps);
  call->seed = args.seed;
  call->step = args.step;
  call->tokens = matrix_of(args.tokens);
  call->token_log_probs = matrix_of(args.token_log_probs);
  call->log_probs = matrix_of(args.log_probs);
  call->argmax = column_of(args.argmax);
  call->argmax_log_prob = column_of(args.argmax_log_prob);
  call->sample = column_of(args.sample);
  call->sample_log_prob = column_of(args.sample_log_prob);
  call->status = column_of(args.status);
}

chorus_status run(const void *prepared, const void *args_pointer, const chorus_exec *exec, chorus_error_slot slot) {
  const auto &state = *static_cast<const CombineState *>(prepared);
  const auto &args = *static_cast<const chorus_combine_args *>(args_pointer);
  if (args.rows == 0) return CHORUS_OK;
  CombineCall call = state.call;
  fill_call(state, args, &call);
  spread(state, args.rows, &call);
  call.exchange = static_cast<uint64_t *>(exec->workspace);
  if (call.group > 1) call.arrivals = reinterpret_cast<uint32_t *>(static_cast<char *>(exec->workspace) + exchange_bytes(call));
  return enqueue(state.device, exec, "combine_rows", slot, [&] {
    if (call.group > 1) {
      const cudaError_t error = cudaMemsetAsync(call.arrivals, 0, 4 * static_cast<size_t>(call.groups), static_cast<cudaStream_t>(exec->stream));
      if (error != cudaSuccess) return error;
    }
    const size_t shared = call.cached ? static_cast<size_t>(call.chunk * state.token_bytes) : 0;
    cudaLaunchConfig_t config = grid_of(dim3(static_cast<unsigned>(call.group * call.groups)), kCombineThreads, exec, shared);
    cudaLaunchAttribute cooperative{};
    cooperative.id = cudaLaunchAttributeCooperative;
    cooperative.val.cooperative = 1;
    config.attrs = &cooperative;
    config.numAttrs = call.group > 1 ? 1 : 0;
    return launch(config, combine_rows_kernel, call);
  });
}

}  // namespace

const chorus_kernel kCombineRows = {CHORUS_END_OF(chorus_kernel, prepared_bytes),
                                    CHORUS_OP_COMBINE_ROWS,
                                    1,
                                    0,
                                    "combine_rows",
                                    score,
                                    prepare,
                                    workspace,
                                    run,
                                    free_state<CombineState>,
                                    nullptr};

}  // namespace chorus::cuda
