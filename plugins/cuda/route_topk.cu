// SPDX-License-Identifier: Apache-2.0
// route.topk for tokens that choose: a warp per token, then a stable counting sort of the slots by expert without atomics on
// memory. Two launches for up to 256 tokens, four above. Bytes: the logits once, ids twice, the lists once.
#include <algorithm>

#include "chorus/plugin_route.hpp"
#include "cuda/route_token.cuh"

namespace chorus::cuda {
namespace {

constexpr int kChunkTokens = 256;  // tokens whose slots one warp sorts
constexpr int kMostWarps = 8;
constexpr int kScanThreads = 1024;

__host__ __device__ int scratch_words(int n_experts, int n_groups) { return 2 * n_experts + n_groups + 2 * 64; }

__device__ int64_t valid_tokens(const RouteCall &call) {
  if (call.n_valid.data == nullptr) return call.tokens;
  const int64_t n = *static_cast<const int64_t *>(call.n_valid.data);
  return n < 0 ? 0 : n < call.tokens ? n : call.tokens;
}

__device__ void put_i32(const Column &out, int64_t i, int32_t value) {
  if (out.data != nullptr) static_cast<int32_t *>(out.data)[i * out.stride] = value;
}

__global__ void choose_kernel(const __grid_constant__ RouteCall call) {
  extern __shared__ uint32_t shared[];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int64_t t = int64_t{blockIdx.x} * (blockDim.x / 32) + warp;
  if (t >= call.tokens) return;
  uint32_t *at = shared + warp * scratch_words(call.n_experts, call.n_groups);
  const TokenScratch scratch = {reinterpret_cast<float *>(at), at + call.n_experts, at + 2 * call.n_experts,
                                reinterpret_cast<int32_t *>(at + 2 * call.n_experts + call.n_groups),
                                reinterpret_cast<float *>(at + 2 * call.n_experts + call.n_groups + 64)};
  const bool valid = t < valid_tokens(call);
  if (valid) route_token(call, t, scratch);
  for (int j = lane; j < call.k; j += 32) {
    const int32_t id = valid ? scratch.ids[j] : -1;
    const float weight = valid ? scratch.weights[j] * call.scale : 0.0f;
    call.chosen[t * call.k + j] = id;
    if (call.ids.data != nullptr) {
      const int64_t place = t * call.ids.row_stride + j;
      if (call.ids_dtype == CHORUS_I64) {
        static_cast<int64_t *>(call.ids.data)[place] = id;
      } else {
        static_cast<int32_t *>(call.ids.data)[place] = id;
      }
    }
    if (call.weights.data != nullptr) store(call.weights_dtype, call.weights.data, t * call.weights.row_stride + j, weight);
  }
}

// ---- The lists ----

struct Slots {
  int64_t begin, end;
};
__device__ Slots slots_of_chunk(const RouteCall &call, int chunk) {
  const int64_t begin = int64_t{chunk} * kChunkTokens * call.k, all = call.tokens * call.k;
  const int64_t end = begin + int64_t{kChunkTokens} * call.k;
  return {begin, end < all ? end : all};
}

// Slots of each expert among the chunk's tokens.
__device__ void count_chunk(const RouteCall &call, int chunk, int32_t *counts) {
  for (int e = threadIdx.x; e < call.n_experts; e += blockDim.x) counts[e] = 0;
  __syncthreads();
  const Slots slots = slots_of_chunk(call, chunk);
  for (int64_t s = slots.begin + threadIdx.x; s < slots.end; s += blockDim.x) {
    const int32_t e = call.chosen[s];
    if (e >= 0) atomicAdd(counts + e, 1);
  }
  __syncthreads();
}

// counts[e] become the slots of the experts before e; the total comes back. The block's threads take neighbouring experts.
__device__ int32_t scan_experts(int32_t *counts, int n_experts) {
  __shared__ int32_t warps[32];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, each = (n_experts + blockDim.x - 1) / blockDim.x;
  const int from = threadIdx.x * each, to = from + each < n_experts ? from + each : n_experts;
  int32_t sum = 0;
  for (int e = from; e < to; ++e) sum += counts[e];
  const auto before = static_cast<int32_t>(warp_before(static_cast<uint64_t>(sum)));
  if (lane == 31) warps[warp] = before + sum;
  __syncthreads();
  int32_t place = before, total = 0;
  for (int w = 0; w < static_cast<int>(blockDim.x / 32); ++w) {
    if (w < warp) place += warps[w];
    total += warps[w];
  }
  __syncthreads();
  for (int e = from; e < to; ++e) {
    const int32_t count = counts[e];
    counts[e] = place;
    place += count;
  }
  __syncthreads();
  return total;
}

__device__ void write_offsets(const RouteCall &call, const int32_t *begins, int32_t total) {
  for (int e = threadIdx.x; e < call.n_experts; e += blockDim.x) {
    const int32_t end = e + 1 < call.n_experts ? begins[e + 1] : total;
    put_i32(call.counts, e, end - begins[e]);
    put_i32(call.offsets, e, begins[e]);
  }
  if (threadIdx.x == 0) put_i32(call.offsets, call.n_experts, total);
}

// One warp places the chunk's slots in order: next[e] is where the next slot of expert e goes.
__device__ void place_chunk(const RouteCall &call, int chunk, int32_t *next) {
  if (threadIdx.x >= 32) return;
  const unsigned lane = threadIdx.x;
  const Slots slots = slots_of_chunk(call, chunk);
  for (int64_t from = slots.begin; from < slots.end; from += 32) {
    const int64_t s = from + lane;
    const int32_t e = s < slots.end ? call.chosen[s] : -1;
    const unsigned same = __match_any_sync(kAllLanes, e), before = same & ((1u << lane) - 1);
    const int32_t place = e >= 0 ? next[e] + __popc(before) : -1;
    __syncwarp();
    if (e >= 0 && before == 0) next[e] += __popc(same);
    __syncwarp();
    if (e >= 0) put_i32(call.order, place, static_cast<int32_t>(s));
    if (s < slots.end) put_i32(call.inverse, s, place);
  }
}

__device__ void fill_order(const RouteCall &call, int64_t from, int64_t first, int64_t step) {
  for (int64_t s = from + first; s < call.tokens * call.k; s += step) put_i32(call.order, s, -1);
}

__global__ void lists_in_one_kernel(const __grid_constant__ RouteCall call) {
  extern __shared__ int32_t counts[];
  count_chunk(call, 0, counts);
  const int32_t total = scan_experts(counts, call.n_experts);
  write_offsets(call, counts, total);
  fill_order(call, total, threadIdx.x, blockDim.x);
  __syncthreads();
  place_chunk(call, 0, counts);
}

__global__ void count_kernel(const __grid_constant__ RouteCall call) {
  extern __shared__ int32_t counts[];
  count_chunk(call, blockIdx.x, counts);
  for (int e = threadIdx.x; e < call.n_experts; e += blockDim.x) call.histogram[int64_t{blockIdx.x} * call.n_experts + e] = counts[e];
}

// The chunks' counts become the places of their first slots.
__global__ void scan_kernel(const __grid_constant__ RouteCall call) {
  extern __shared__ int32_t counts[];
  for (int e = threadIdx.x; e < call.n_experts; e += blockDim.x) {
    int32_t sum = 0;
    for (int c = 0; c < call.chunks; ++c) {
      int32_t *at = call.histogram + int64_t{c} * call.n_experts + e;
      const int32_t count = *at;
      *at = sum;
      sum += count;
    }
    counts[e] = sum;
  }
  __syncthreads();
  const int32_t total = scan_experts(counts, call.n_experts);
  write_offsets(call, counts, total);
  for (int e = threadIdx.x; e < call.n_experts; e += blockDim.x) {
    for (int c = 0; c < call.chunks; ++c) call.histogram[int64_t{c} * call.n_experts + e] += counts[e];
  }
  fill_order(call, total, threadIdx.x, blockDim.x);
}

__global__ void place_kernel(const __grid_constant__ RouteCall call) {
  extern __shared__ int32_t next[];
  for (int e = threadIdx.x; e < call.n_experts; e += blockDim.x) next[e] = call.histogram[int64_t{blockIdx.x} * call.n_experts + e];
  __syncthreads();
  place_chunk(call, blockIdx.x, next);
}

// ---- The kernel of the table ----

struct RouteState {
  const chorus_host *host;
  chorus_plugin_device *device;
  RouteCall call;
  int warps;  // per block of choose_kernel
};

int32_t score(chorus_plugin_device *, const void *desc, char *why, size_t bytes) {
  return check_route(*static_cast<const chorus_route_desc *>(desc), why, bytes) == 0 ? 0 : kScore;
}

chorus_status prepare(chorus_plugin_device *device, const void *desc, void **out, chorus_error_slot slot) {
  const auto &d = *static_cast<const chorus_route_desc *>(desc);
  auto *state = make_state<RouteState>(device->host, slot);
  if (state == nullptr) return CHORUS_RESOURCE_EXHAUSTED;
  state->device = device;
  RouteCall &call = state->call;
  call.n_experts = d.n_experts;
  call.k = d.k;
  call.logits_dtype = d.logits_dtype;
  call.ids_dtype = d.ids_dtype;
  call.weights_dtype = d.weights_dtype;
  call.score = d.score;
  call.score_first = d.order == CHORUS_ROUTE_SCORE_THEN_TOPK;
  call.ranks_logits = ranks_logits(d);
  call.n_groups = has_groups(d) ? d.n_groups : 0;
  call.topk_groups = d.topk_groups;
  call.group_top = d.group_score == CHORUS_ROUTE_GROUP_TOP_SUM ? d.group_top : 0;
  call.renormalise = d.renormalise;
  call.epsilon = static_cast<float>(d.epsilon);
  call.scale = static_cast<float>(d.scale);
  call.temperature = static_cast<float>(d.temperature);
  const int token_bytes = 4 * scratch_words(d.n_experts, call.n_groups);
  state->warps = std::clamp(48 * 1024 / token_bytes, 1, kMostWarps);
  *out = state;
  const Current current(device);
  const cudaError_t error = cudaFuncSetAttribute(choose_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, device->shared_bytes);
  if (error == cudaSuccess) return CHORUS_OK;
  free_state<RouteState>(state);
  return fail(device, slot, error, "preparing route_topk");
}

int32_t chunks_of(int64_t tokens) { return static_cast<int32_t>((tokens + kChunkTokens - 1) / kChunkTokens); }

uint64_t chosen_bytes(const RouteCall &call, int64_t tokens) {
  return aligned_on_device(4 * static_cast<uint64_t>(tokens) * static_cast<uint64_t>(call.k));
}

uint64_t workspace(const void *prepared, const void *args) {
  const RouteCall &call = static_cast<const RouteState *>(prepared)->call;
  const int64_t tokens = static_cast<const chorus_route_args *>(args)->tokens;
  return chosen_bytes(call, tokens) + aligned_on_device(4 * static_cast<uint64_t>(chunks_of(tokens)) * static_cast<uint64_t>(call.n_experts));
}

cudaError_t launch_lists(const RouteCall &call, const chorus_exec *exec) {
  const size_t shared = 4 * static_cast<size_t>(call.n_experts);
  if (call.chunks <= 1) return launch(grid_of(dim3(1), 512, exec, shared), lists_in_one_kernel, call);
  const dim3 chunks(static_cast<unsigned>(call.chunks));
  cudaError_t error = launch(grid_of(chunks, 256, exec, shared), count_kernel, call);
  if (error == cudaSuccess) error = launch(grid_of(dim3(1), kScanThreads, exec, shared), scan_kernel, call);
  if (error == cudaSuccess) error = launch(grid_of(chunks, 128, exec, shared), place_kernel, call);
  return error;
}

chorus_status run(const void *prepared, const void *args_pointer, const chorus_exec *exec, chorus_error_slot slot) {
  const auto &state = *static_cast<const RouteState *>(prepared);
  const auto &args = *static_cast<const chorus_route_args *>(args_pointer);
  RouteCall call = state.call;
  call.tokens = args.tokens;
  call.chunks = chunks_of(args.tokens);
  call.logits = matrix_of(args.logits);
  call.ids = matrix_of(args.ids);
  call.weights = matrix_of(args.weights);
  call.bias = column_of(args.bias);
  call.n_valid = column_of(args.n_valid);
  call.counts = column_of(args.counts);
  call.offsets = column_of(args.offsets);
  call.order = column_of(args.order);
  call.inverse = column_of(args.inverse);
  call.chosen = static_cast<int32_t *>(exec->workspace);
  call.histogram = reinterpret_cast<int32_t *>(static_cast<char *>(exec->workspace) + chosen_bytes(call, args.tokens));
  const bool lists = args.counts != nullptr || args.offsets != nullptr || args.order != nullptr || args.inverse != nullptr;
  return enqueue(state.device, exec, "route_topk", slot, [&] {
    cudaError_t error = cudaSuccess;
    if (args.tokens > 0) {
      const auto blocks = static_cast<unsigned>((args.tokens + state.warps - 1) / state.warps);
      const size_t shared = 4 * static_cast<size_t>(scratch_words(call.n_experts, call.n_groups)) * static_cast<size_t>(state.warps);
      error = launch(grid_of(dim3(blocks), static_cast<unsigned>(32 * state.warps), exec, shared), choose_kernel, call);
    }
    return error == cudaSuccess && lists ? launch_lists(call, exec) : error;
  });
}

}  // namespace

const chorus_kernel kRouteTopk = {CHORUS_END_OF(chorus_kernel, prepared_bytes),
                                  CHORUS_OP_ROUTE_TOPK,
                                  1,
                                  0,
                                  "route_topk",
                                  score,
                                  prepare,
                                  workspace,
                                  run,
                                  free_state<RouteState>,
                                  nullptr};

}  // namespace chorus::cuda
