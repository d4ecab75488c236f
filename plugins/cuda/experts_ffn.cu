// SPDX-License-Identifier: Apache-2.0
// experts.ffn: slots sorted by expert into tiles, each tile multiplied with its expert's rows, then the weighted sum in slot
// order. bf16 and f16 weights go through the tensor cores (experts_mma.cuh); the rest, here, through f32 fused
// multiply-adds, lanes over the columns. Sizes stay on the device. Cost: an expert's weights once per tile.
// A token's sums do not depend on its tile, so its bytes do not depend on its batch.
#include <algorithm>

#include "cuda/experts_mma.cuh"

namespace chorus::cuda {
namespace {

constexpr int kTile = 8;       // slots of a tile of the plain kernels
constexpr int kColumns = 256;  // of a step: 8 per lane
constexpr int kThreads = kExpertThreads;
constexpr int kWarpRows = 8;  // weight rows a warp has in flight
constexpr int32_t kMostExperts = 8192;

// ---- Slots and tiles ----

__device__ int64_t id_of(const ExpertsCall &call, int64_t t, int32_t j) {
  const int64_t at = t * call.ids.row_stride + j * call.ids.stride;
  return call.ids_dtype == CHORUS_I64 ? static_cast<const int64_t *>(call.ids.data)[at] : static_cast<const int32_t *>(call.ids.data)[at];
}

__device__ int32_t expert_of(const ExpertsCall &call, int64_t t, int32_t j) {
  if (j >= call.k) return call.n_experts - call.n_shared + j - call.k;
  const int64_t id = id_of(call, t, j);
  if (id < 0 || id >= call.n_ids || weight_of(call, t, j) == 0.0f) return -1;
  return call.map != nullptr ? call.map[id] : static_cast<int32_t>(id);
}

// One block: the slots of each expert, their order, the tiles, the row statuses.
__global__ void tiles_kernel(const __grid_constant__ ExpertsCall call) {
  extern __shared__ int32_t next[];  // [E]
  const int32_t per_token = call.k + call.n_shared;
  for (int e = threadIdx.x; e < call.n_experts; e += blockDim.x) next[e] = 0;
  __syncthreads();
  for (int64_t s = threadIdx.x; s < call.slots; s += blockDim.x) {
    const int32_t e = expert_of(call, s / per_token, static_cast<int32_t>(s % per_token));
    call.experts[s] = e;
    if (e >= 0) atomicAdd(next + e, 1);
  }
  for (int64_t t = threadIdx.x; call.status.data != nullptr && t < call.tokens; t += blockDim.x) {
    bool bad = false;
    for (int32_t j = 0; j < call.k; ++j) bad = bad || id_of(call, t, j) >= call.n_ids;
    static_cast<int32_t *>(call.status.data)[t * call.status.stride] = bad ? CHORUS_ROW_BAD_TOKEN : CHORUS_ROW_OK;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    int32_t place = 0, n_tiles = 0;
    for (int e = 0; e < call.n_experts; ++e) {
      const int32_t count = next[e];
      for (int32_t from = 0; from < count; from += call.tile) {
        int32_t *tile = call.tiles + 3 * n_tiles++;
        tile[0] = e;
        tile[1] = place + from;
        tile[2] = count - from < call.tile ? count - from : call.tile;
      }
      next[e] = place;
      place += count;
    }
    *call.n_tiles = n_tiles;
  }
  __syncthreads();
  if (threadIdx.x >= 32) return;
  for (int64_t from = 0; from < call.slots; from += 32) {
    const int64_t s = from + threadIdx.x;
    const int32_t e = s < call.slots ? call.experts[s] : -1;
    const unsigned same = __match_any_sync(kAllLanes, e), before = same & ((1u << threadIdx.x) - 1);
    const int32_t place = e >= 0 ? next[e] + __popc(before) : -1;
    __syncwarp();
    if (e >= 0 && before == 0) next[e] += __popc(same);
    __syncwarp();
    if (e >= 0) call.order[place] = static_cast<int32_t>(s);
  }
}

// ---- Products ----

// Weights c … c + 7 of a row of `columns`; 0 past its end.
__device__ __forceinline__ void load_weights(chorus_dtype dtype, const char *row, int64_t c, int64_t columns, float (&out)[8]) {
  const char *at = row + c * (dtype == CHORUS_F32 ? 4 : 2);
  if (c + 8 <= columns && reinterpret_cast<uintptr_t>(at) % 16 == 0) {
    const uint4 a = __ldg(reinterpret_cast<const uint4 *>(at));
    if (dtype == CHORUS_F32) {
      const uint4 b = __ldg(reinterpret_cast<const uint4 *>(at) + 1);
      const uint32_t words[8] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
#pragma unroll
      for (int i = 0; i < 8; ++i) out[i] = __uint_as_float(words[i]);
      return;
    }
    const uint32_t words[4] = {a.x, a.y, a.z, a.w};
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const uint32_t bits = words[i / 2] >> 16 * (i % 2) & 0xffffu;
      out[i] = dtype == CHORUS_BF16 ? from_bf16(bits) : from_f16(bits);
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < 8; ++i) out[i] = c + i < columns ? load(dtype, row, c + i) : 0.0f;
}

// sums[r][m] = <weight row r, input m>, in every lane. `input(m, c)` is operand c of the tile's token m.
template <typename Input>
__device__ __forceinline__ void multiply_tile(chorus_dtype dtype, const char *const (&rows)[kWarpRows], int64_t columns, int count,
                                              const Input &input, float (&sums)[kWarpRows][kTile]) {
  __shared__ __align__(16) float staged[kTile][kColumns];
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int r = 0; r < kWarpRows; ++r) {
#pragma unroll
    for (int m = 0; m < kTile; ++m) sums[r][m] = 0.0f;
  }
  for (int64_t begin = 0; begin < columns; begin += kColumns) {
    __syncthreads();
    for (int i = threadIdx.x; i < count * kColumns; i += kThreads) {
      const int64_t c = begin + i % kColumns;
      staged[i / kColumns][i % kColumns] = c < columns ? input(i / kColumns, c) : 0.0f;
    }
    __syncthreads();
    const int64_t c = begin + lane * 8;
    if (c >= columns) continue;
#pragma unroll
    for (int r = 0; r < kWarpRows; ++r) {
      if (rows[r] == nullptr) continue;
      float w[8];
      load_weights(dtype, rows[r], c, columns, w);
#pragma unroll
      for (int m = 0; m < kTile; ++m) {
        if (m >= count) continue;
        const float4 a = *reinterpret_cast<const float4 *>(&staged[m][lane * 8]);
        const float4 b = *reinterpret_cast<const float4 *>(&staged[m][lane * 8 + 4]);
        float sum = sums[r][m];
        sum = fmaf(w[0], a.x, sum);
        sum = fmaf(w[1], a.y, sum);
        sum = fmaf(w[2], a.z, sum);
        sum = fmaf(w[3], a.w, sum);
        sum = fmaf(w[4], b.x, sum);
        sum = fmaf(w[5], b.y, sum);
        sum = fmaf(w[6], b.z, sum);
        sums[r][m] = fmaf(w[7], b.w, sum);
      }
    }
  }
#pragma unroll
  for (int r = 0; r < kWarpRows; ++r) {
#pragma unroll
    for (int m = 0; m < kTile; ++m) {
      if (m >= count) continue;
      for (int step = 16; step > 0; step /= 2) sums[r][m] += __shfl_xor_sync(kAllLanes, sums[r][m], step);
    }
  }
}

// h = act(gate x, up x): blocks (tiles, outputs / 32); a warp makes 4 outputs of the tile's tokens.
__global__ void __launch_bounds__(kThreads) gate_up_kernel(const __grid_constant__ ExpertsCall call) {
  if (static_cast<int32_t>(blockIdx.x) >= *call.n_tiles) return;
  const int32_t *tile = call.tiles + 3 * blockIdx.x;
  const int32_t expert = tile[0], *slots = call.order + tile[1], count = tile[2];
  const int64_t first = (int64_t{blockIdx.y} * (kThreads / 32) + threadIdx.x / 32) * (kWarpRows / 2);
  const int64_t size = call.weights_dtype == CHORUS_F32 ? 4 : 2;
  const auto row_at = [&](int64_t r) { return call.gate_up + (expert * call.wide + r) * call.hidden * size; };
  const char *rows[kWarpRows];
#pragma unroll
  for (int r = 0; r < kWarpRows; r += 2) {
    const bool inside = first + r / 2 < call.intermediate;
    const GateUpRows at = inside ? rows_of(call, first + r / 2) : GateUpRows{-1, -1};
    rows[r] = at.gate >= 0 ? row_at(at.gate) : nullptr;
    rows[r + 1] = at.up >= 0 ? row_at(at.up) : nullptr;
  }
  float sums[kWarpRows][kTile];
  multiply_tile(call.weights_dtype, rows, call.hidden, count, [&](int m, int64_t c) { return operand_of(call, slots[m], c); }, sums);
#pragma unroll
  for (int r = 0; r < kWarpRows; r += 2) {
    const int64_t i = first + r / 2;
    if (i >= call.intermediate) continue;
#pragma unroll
    for (int m = 0; m < kTile; ++m) {
      if (m < count && static_cast<int>(threadIdx.x % 32) == m) store_h(call, expert, slots[m], i, rows_of(call, i), sums[r][m], sums[r + 1][m]);
    }
  }
}

// out = down h: blocks (tiles, H / 64).
__global__ void __launch_bounds__(kThreads) down_kernel(const __grid_constant__ ExpertsCall call) {
  if (static_cast<int32_t>(blockIdx.x) >= *call.n_tiles) return;
  const int32_t *tile = call.tiles + 3 * blockIdx.x;
  const int32_t expert = tile[0], *slots = call.order + tile[1], count = tile[2];
  const int64_t first = (int64_t{blockIdx.y} * (kThreads / 32) + threadIdx.x / 32) * kWarpRows;
  const int64_t size = call.weights_dtype == CHORUS_F32 ? 4 : 2;
  const char *rows[kWarpRows];
#pragma unroll
  for (int r = 0; r < kWarpRows; ++r)
    rows[r] = first + r < call.hidden ? call.down + (expert * call.hidden + first + r) * call.intermediate * size : nullptr;
  float sums[kWarpRows][kTile];
  multiply_tile(call.weights_dtype, rows, call.intermediate, count,
                [&](int m, int64_t c) { return call.h[slots[m] * call.intermediate + c]; }, sums);
#pragma unroll
  for (int r = 0; r < kWarpRows; ++r) {
    if (first + r >= call.hidden) continue;
    const float bias = call.down_bias != nullptr ? call.down_bias[expert * call.hidden + first + r] : 0.0f;
#pragma unroll
    for (int m = 0; m < kTile; ++m) {
      if (m >= count || static_cast<int>(threadIdx.x % 32) != m) continue;
      call.out[slots[m] * call.hidden + first + r] = call.down_bias != nullptr ? sums[r][m] + bias : sums[r][m];
    }
  }
}

// y = sum of weight * out, slot after slot from +0.
__global__ void combine_kernel(const __grid_constant__ ExpertsCall call) {
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  const int32_t per_token = call.k + call.n_shared;
  if (i >= call.hidden) return;
  for (int64_t t = blockIdx.y; t < call.tokens; t += gridDim.y) {
    float sum = 0.0f;
    for (int32_t j = 0; j < per_token; ++j) {
      const int64_t s = t * per_token + j;
      if (call.experts[s] < 0) continue;
      const float after = call.weight_before ? 1.0f : weight_of(call, t, j);
      sum = sum + after * call.out[s * call.hidden + i];
    }
    store(call.y_dtype, call.y.data, t * call.y.row_stride + i, sum);
  }
}

// ---- The kernel of the table ----

struct ExpertsState {
  const chorus_host *host;
  chorus_plugin_device *device;
  ExpertsCall call;
  void *memory;  // weights, biases, map: on the device
  uint64_t bytes;
};

bool rows_are_compact(const chorus_tensor &t) { return stride_of(t, 2) == 1; }

int32_t score(chorus_plugin_device *, const void *desc, char *why, size_t bytes) {
  const auto &d = *static_cast<const chorus_experts_desc *>(desc);
  if (accept_experts(d, why, bytes) == 0) return 0;
  if (is_quantised(d.weights_dtype)) return refuse(why, bytes, "weights_dtype is 0x%x; supported on CUDA: f32, bf16, f16", d.weights_dtype);
  if (d.n_experts > kMostExperts) return refuse(why, bytes, "n_experts is %d; supported on CUDA: up to %d", d.n_experts, kMostExperts);
  for (const chorus_tensor *t : {d.gate_up, d.down}) {
    if (!rows_are_compact(*t)) return refuse(why, bytes, "weights with a column stride of %lld; supported on CUDA: 1", static_cast<long long>(stride_of(*t, 2)));
  }
  return kScore;
}

uint64_t weights_bytes(const chorus_experts_desc &d, int64_t rows, int64_t columns) {
  return aligned_on_device(static_cast<uint64_t>(d.n_experts * rows * columns) * bytes_of(d.weights_dtype));
}
uint64_t vector_bytes(const chorus_tensor *t) {
  if (t == nullptr) return 0;
  uint64_t bytes = 4;
  for (int32_t i = 0; i < t->ndim; ++i) bytes *= static_cast<uint64_t>(t->shape[i]);
  return aligned_on_device(bytes);
}

// Copies rows of compact elements to `to`, which moves past them; the source may be host or device memory.
cudaError_t pack(const chorus_tensor *t, uint64_t bytes, char *&to, const char **out) {
  *out = nullptr;
  if (t == nullptr) return cudaSuccess;
  const int last = t->ndim - 1;
  const uint64_t size = bytes_of(dtype_of(*t)), width = static_cast<uint64_t>(t->shape[last]) * size;
  const int64_t rows = last > 0 ? t->shape[last - 1] : 1, outer = last > 1 ? t->shape[0] : 1;
  cudaError_t error = cudaSuccess;
  for (int64_t e = 0; e < outer && error == cudaSuccess && width > 0; ++e) {
    const char *from = static_cast<const char *>(t->data) + (last > 1 ? e * stride_of(*t, 0) : 0) * static_cast<int64_t>(size);
    const uint64_t pitch = last > 0 && rows > 1 ? static_cast<uint64_t>(stride_of(*t, last - 1)) * size : width;
    char *into = to + static_cast<uint64_t>(e * rows) * width;
    error = pitch == width ? cudaMemcpy(into, from, width * static_cast<uint64_t>(rows), cudaMemcpyDefault)
                           : cudaMemcpy2D(into, width, from, pitch, width, static_cast<size_t>(rows), cudaMemcpyDefault);
  }
  *out = to;
  to += bytes;
  return error;
}

void release(void *prepared) {
  auto *state = static_cast<ExpertsState *>(prepared);
  if (state == nullptr) return;
  if (state->memory != nullptr) {
    const Current current(state->device);
    cudaFree(state->memory);
  }
  free_state<ExpertsState>(prepared);
}

cudaError_t pack_all(const chorus_experts_desc &d, ExpertsState *state) {
  ExpertsCall &call = state->call;
  cudaError_t error = cudaMalloc(&state->memory, state->bytes);
  if (error != cudaSuccess) return error;
  auto *to = static_cast<char *>(state->memory);
  const char *gate_up_bias, *down_bias, *map;
  error = pack(d.gate_up, weights_bytes(d, call.wide, d.hidden), to, &call.gate_up);
  if (error == cudaSuccess) error = pack(d.down, weights_bytes(d, d.hidden, d.intermediate), to, &call.down);
  if (error == cudaSuccess) error = pack(d.gate_up_bias, vector_bytes(d.gate_up_bias), to, &gate_up_bias);
  if (error == cudaSuccess) error = pack(d.down_bias, vector_bytes(d.down_bias), to, &down_bias);
  if (error == cudaSuccess) error = pack(d.expert_map, vector_bytes(d.expert_map), to, &map);
  if (error != cudaSuccess) return error;
  call.gate_up_bias = reinterpret_cast<const float *>(gate_up_bias);
  call.down_bias = reinterpret_cast<const float *>(down_bias);
  call.map = reinterpret_cast<const int32_t *>(map);
  return cudaStreamSynchronize(nullptr);
}

// The map's values, read back: each names a routed expert or none.
chorus_status check_map(const ExpertsState &state, chorus_error_slot slot) {
  const int32_t routed = state.call.n_experts - state.call.n_shared;
  for (int64_t i = 0; state.call.map != nullptr && i < state.call.n_ids; ++i) {
    int32_t value = 0;
    const cudaError_t error = cudaMemcpy(&value, state.call.map + i, sizeof value, cudaMemcpyDefault);
    if (error != cudaSuccess) return fail(state.device, slot, error, "reading expert_map");
    if (value >= routed || value < -1)
      return report(state.host, slot, CHORUS_INVALID_ARGUMENT, "expert_map[%lld] is %d; allowed: -1 to %d",
                    static_cast<long long>(i), value, routed - 1);
  }
  return CHORUS_OK;
}

chorus_status prepare(chorus_plugin_device *device, const void *desc, void **out, chorus_error_slot slot) {
  const auto &d = *static_cast<const chorus_experts_desc *>(desc);
  auto *state = make_state<ExpertsState>(device->host, slot);
  if (state == nullptr) return CHORUS_RESOURCE_EXHAUSTED;
  state->device = device;
  ExpertsCall &call = state->call;
  call.n_experts = d.n_experts;
  call.n_shared = d.n_shared;
  call.k = d.k;
  call.hidden = d.hidden;
  call.intermediate = d.intermediate;
  call.wide = is_gated(d.activation) ? 2 * d.intermediate : d.intermediate;
  call.weights_dtype = d.weights_dtype;
  call.x_dtype = d.x_dtype;
  call.y_dtype = d.y_dtype;
  call.ids_dtype = d.ids_dtype;
  call.activation = d.activation;
  call.layout = d.layout;
  call.limit = static_cast<float>(d.limit);
  call.weight_before = d.weight_before != 0;
  call.tile = uses_tensor_cores(call) ? kMmaTile : kTile;
  call.n_ids = d.expert_map != nullptr ? d.expert_map->shape[0] : d.n_experts - d.n_shared;
  state->bytes = weights_bytes(d, call.wide, d.hidden) + weights_bytes(d, d.hidden, d.intermediate);
  for (const chorus_tensor *t : {d.gate_up_bias, d.down_bias, d.expert_map}) state->bytes += vector_bytes(t);
  const Current current(device);
  chorus_status status = outcome(device, slot, pack_all(d, state), "packing expert weights");
  if (status == CHORUS_OK) status = check_map(*state, slot);
  if (status != CHORUS_OK) {
    release(state);
    return status;
  }
  *out = state;
  return CHORUS_OK;
}

uint64_t prepared_bytes(const void *prepared) { return static_cast<const ExpertsState *>(prepared)->bytes; }

int64_t most_tiles(const ExpertsCall &call) { return std::min(call.slots, call.slots / call.tile + call.n_experts); }

// Places the workspace's pieces into the call; from NULL it only counts.
uint64_t lay_out(ExpertsCall *call, void *workspace) {
  uint64_t used = 0;
  const auto take = [&](auto *&piece, int64_t count) {
    piece = reinterpret_cast<std::remove_reference_t<decltype(piece)>>(static_cast<char *>(workspace) + used);
    used += aligned_on_device(sizeof(*piece) * static_cast<uint64_t>(count));
  };
  take(call->experts, call->slots);
  take(call->order, call->slots);
  take(call->tiles, 3 * most_tiles(*call));
  take(call->n_tiles, 1);
  take(call->h, call->slots * call->intermediate);
  take(call->out, call->slots * call->hidden);
  return used;
}

ExpertsCall sized(const ExpertsState &state, int64_t tokens) {
  ExpertsCall call = state.call;
  call.tokens = tokens;
  call.slots = tokens * (call.k + call.n_shared);
  return call;
}

uint64_t workspace(const void *prepared, const void *args) {
  ExpertsCall call = sized(*static_cast<const ExpertsState *>(prepared), static_cast<const chorus_experts_args *>(args)->tokens);
  return lay_out(&call, nullptr);
}

cudaError_t launch_all(const ExpertsCall &call, const chorus_exec *exec) {
  constexpr int64_t kWarps = kThreads / 32;
  const auto blocks = [](int64_t count, int64_t each) { return static_cast<unsigned>((count + each - 1) / each); };
  const auto tiles = static_cast<unsigned>(most_tiles(call));
  cudaError_t error = launch(grid_of(dim3(1), 1024, exec, 4 * static_cast<size_t>(call.n_experts)), tiles_kernel, call);
  if (uses_tensor_cores(call)) {
    if (error == cudaSuccess) error = launch(grid_of(dim3(tiles, blocks(call.intermediate, kWarps * 8)), kThreads, exec), gate_up_mma_kernel, call);
    if (error == cudaSuccess) error = launch(grid_of(dim3(tiles, blocks(call.hidden, kWarps * 16)), kThreads, exec), down_mma_kernel, call);
  } else {
    if (error == cudaSuccess) error = launch(grid_of(dim3(tiles, blocks(call.intermediate, kWarps * kWarpRows / 2)), kThreads, exec), gate_up_kernel, call);
    if (error == cudaSuccess) error = launch(grid_of(dim3(tiles, blocks(call.hidden, kWarps * kWarpRows)), kThreads, exec), down_kernel, call);
  }
  if (error == cudaSuccess) error = launch(grid_of(dim3(blocks(call.hidden, 128), static_cast<unsigned>(std::min<int64_t>(call.tokens, 65535))), 128, exec), combine_kernel, call);
  return error;
}

chorus_status run(const void *prepared, const void *args_pointer, const chorus_exec *exec, chorus_error_slot slot) {
  const auto &state = *static_cast<const ExpertsState *>(prepared);
  const auto &args = *static_cast<const chorus_experts_args *>(args_pointer);
  if (args.tokens == 0) return CHORUS_OK;
  ExpertsCall call = sized(state, args.tokens);
  lay_out(&call, exec->workspace);
  call.x = matrix_of(args.x);
  call.ids = matrix_of(args.ids);
  call.weights = matrix_of(args.weights);
  call.y = matrix_of(args.y);
  call.status = column_of(args.status);
  return enqueue(state.device, exec, "experts_ffn", slot, [&] { return launch_all(call, exec); });
}

}  // namespace

const chorus_kernel kExpertsFfn = {CHORUS_END_OF(chorus_kernel, prepared_bytes),
                                   CHORUS_OP_EXPERTS_FFN,
                                   1,
                                   0,
                                   "experts_ffn",
                                   score,
                                   prepare,
                                   workspace,
                                   run,
                                   release,
                                   prepared_bytes};

}  // namespace chorus::cuda
