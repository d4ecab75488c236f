// SPDX-License-Identifier: Apache-2.0
// merge.reduce: Grams and sums in f64 and the order of docs/numerics.md, "Reductions" (a warp per block of 4096, its lanes
// the virtual lanes; blocks joined in the pairwise tree), counts and histograms in u64. Cost: a Gram reads its operands
// n(n+1)/2 times, from cache but for the first.
#include "cuda/merge_element.cuh"

namespace chorus::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kJoinThreads = 256;
constexpr int kLevels = 40;

struct ReduceCall {
  MergeInputs in;
  chorus_merge_statistic statistic;
  chorus_merge_predicate predicate;
  uint32_t epsilon_key, prefix_bits;
  uint32_t prefixes[CHORUS_MERGE_MAX_INPUTS];
  int32_t operands;  // of a Gram; n of sums
  uint64_t results;  // per group
  uint64_t groups, size, blocks;  // blocks of 4096 per group
  void *out;
  double *partial;  // [groups, results, blocks]; `out` where a group is one block
};

// Operand i (the base after the inputs) of an element, 0 where it does not count.
__device__ __forceinline__ double term_of(const ReduceCall &call, int32_t i, uint64_t group, uint64_t at, bool *counts) {
  const MergeInputs &in = call.in;
  const double base = in.base != nullptr ? load64(in.base_dtype, in.base, at) : 0.0;
  *counts = true;
  if (i == in.n) return base;
  *counts = in.inputs[i] != nullptr;
  if (!*counts) return 0.0;
  double a = operand_of(in, i, at, base);
  if (call.predicate == CHORUS_PREDICATE_KEPT) *counts = is_drawn(in, i, at);
  if (in.weighted) a = weights_of(in, group)[i] * a;
  if (call.predicate == CHORUS_PREDICATE_ABOVE_EPSILON) *counts = magnitude_key(a) > call.epsilon_key;
  if (call.predicate == CHORUS_PREDICATE_PREFIX && call.prefix_bits != 0) *counts = magnitude_key(a) >> (31 - call.prefix_bits) == call.prefixes[i];
  return *counts ? a : 0.0;
}

__device__ __forceinline__ uint64_t at_of(const ReduceCall &call, uint64_t group, uint64_t j) {
  switch (call.in.granularity) {
    case CHORUS_PER_ROW: return group * call.in.columns + j;
    case CHORUS_PER_COLUMN: return j * call.in.row_stride + group;
    default: return j;
  }
}

// ---- Sums and Grams ----

__global__ void __launch_bounds__(kThreads) sum_blocks_kernel(const __grid_constant__ ReduceCall call) {
  const uint64_t warps = uint64_t{gridDim.x} * (kThreads / 32);
  const unsigned lane = threadIdx.x % 32;
  for (uint64_t unit = uint64_t{blockIdx.x} * (kThreads / 32) + threadIdx.x / 32; unit < call.groups * call.blocks; unit += warps) {
    const uint64_t group = unit / call.blocks, block = unit % call.blocks;
    const uint64_t begin = block * CHORUS_BLOCK, end = begin + CHORUS_BLOCK < call.size ? begin + CHORUS_BLOCK : call.size;
    uint64_t result = 0;
    const bool is_sum = call.statistic == CHORUS_STATISTIC_SUM;
    for (int32_t i = 0; i < call.operands; ++i) {
      for (int32_t k = i; k < (is_sum ? i + 1 : call.operands); ++k, ++result) {
        double sum = 0.0;
        for (uint64_t j = begin + lane; j < end; j += 32) {
          const uint64_t at = at_of(call, group, j);
          bool counts;
          const double a = term_of(call, i, group, at, &counts);
          sum = sum + (is_sum ? fabs(a) : a * (k == i ? a : term_of(call, k, group, at, &counts)));
        }
        for (int step = 1; step < 32; step *= 2) sum = sum + __shfl_xor_sync(kAllLanes, sum, step);
        if (lane == 0) call.partial[(group * call.results + result) * call.blocks + block] = sum;
      }
    }
  }
}

// Joins the blocks of one result: each thread an aligned run of 2^k of them, then the threads, all in the one tree.
__global__ void __launch_bounds__(kJoinThreads) join_kernel(const __grid_constant__ ReduceCall call) {
  __shared__ double runs[2][kJoinThreads];
  const double *from = call.partial + uint64_t{blockIdx.x} * call.blocks;
  uint64_t run = 1;
  while (run * kJoinThreads < call.blocks) run *= 2;
  const uint64_t begin = threadIdx.x * run, end = begin + run < call.blocks ? begin + run : call.blocks;
  double levels[kLevels];  // slot l: a finished subtree of 2^l blocks
  uint64_t seen = 0;
  for (uint64_t b = begin; b < end; ++b, ++seen) {
    double value = from[b];
    int level = 0;
    for (uint64_t c = seen; c & 1; c >>= 1) value = levels[level++] + value;
    levels[level] = value;
  }
  double total = 0.0;
  bool first = true;
  for (int level = 0; seen >> level != 0; ++level) {
    if ((seen >> level & 1) == 0) continue;
    total = first ? levels[level] : levels[level] + total;
    first = false;
  }
  runs[0][threadIdx.x] = total;
  __syncthreads();
  int now = 0;
  for (uint64_t count = (call.blocks + run - 1) / run; count > 1; count = (count + 1) / 2, now = 1 - now) {
    const unsigned i = threadIdx.x;
    if (i < (count + 1) / 2) runs[1 - now][i] = 2 * i + 1 < count ? runs[now][2 * i] + runs[now][2 * i + 1] : runs[now][2 * i];
    __syncthreads();
  }
  if (threadIdx.x == 0) static_cast<double *>(call.out)[blockIdx.x] = runs[now][0];
}

// ---- Counts and histograms ----

__device__ __forceinline__ void add_one(const ReduceCall &call, uint64_t at) {
  atomicAdd(static_cast<unsigned long long *>(call.out) + at, 1ull);
}

__global__ void __launch_bounds__(kThreads) count_kernel(const __grid_constant__ ReduceCall call) {
  for (uint64_t e = uint64_t{blockIdx.x} * kThreads + threadIdx.x; e < call.in.count; e += uint64_t{gridDim.x} * kThreads) {
    const MergePlace place = place_of(call.in, e);
    uint64_t satisfied = 0;
    for (int32_t i = 0; i < call.in.n; ++i) {
      bool counts;
      const double a = term_of(call, i, place.group, place.at, &counts);
      if (!counts) continue;
      satisfied |= uint64_t{1} << i;
      if (call.statistic == CHORUS_STATISTIC_HISTOGRAM) {
        const uint32_t left = 31 - call.prefix_bits, width = left < 16 ? left : 16;
        add_one(call, static_cast<uint64_t>(i) * 65536 + (magnitude_key(a) >> (left - width) & ((1u << width) - 1)));
      }
    }
    if (call.statistic != CHORUS_STATISTIC_COUNT || satisfied == 0) continue;
    const auto others = static_cast<uint64_t>(__popcll(satisfied) - 1);
    for (int32_t i = 0; i < call.in.n; ++i) {
      if (satisfied >> i & 1) add_one(call, static_cast<uint64_t>(i) * static_cast<uint64_t>(call.in.n) + others);
    }
  }
}

// ---- The kernel of the table ----

struct ReduceState {
  const chorus_host *host;
  chorus_plugin_device *device;
  ReduceCall call;
  chorus_merge_reduce_desc desc;
};

int32_t score(chorus_plugin_device *, const void *desc, char *why, size_t bytes) {
  const auto &d = *static_cast<const chorus_merge_reduce_desc *>(desc);
  if (check_reduce(d, why, bytes) == 0 || check_accurate(d, why, bytes) == 0 || check_sparsify(d, why, bytes) == 0) return 0;
  if (d.statistic > CHORUS_STATISTIC_COUNT) return refuse(why, bytes, "statistic is %d; supported on CUDA: Gram, sum, histogram, count (0 to 3)", d.statistic);
  if (d.predicate == CHORUS_PREDICATE_TIE) return refuse(why, bytes, "predicate is tie; supported on CUDA: all, above epsilon, kept, prefix (0 to 3)");
  return kScore;
}

chorus_status prepare(chorus_plugin_device *device, const void *desc, void **out, chorus_error_slot slot) {
  const auto &d = *static_cast<const chorus_merge_reduce_desc *>(desc);
  auto *state = make_state<ReduceState>(device->host, slot);
  if (state == nullptr) return CHORUS_RESOURCE_EXHAUSTED;
  state->device = device;
  state->desc = d;
  state->desc.input_dtypes = nullptr;
  ReduceCall &call = state->call;
  describe_inputs(d, &call.in);
  call.in.weight_stride = d.n_inputs;
  call.statistic = d.statistic;
  call.predicate = d.predicate;
  call.epsilon_key = key_of(d.epsilon);
  call.operands = d.statistic == CHORUS_STATISTIC_GRAM ? gram_operands(d) : d.n_inputs;
  call.results = d.statistic == CHORUS_STATISTIC_GRAM ? gram_size(d) : static_cast<uint64_t>(d.n_inputs);
  *out = state;
  return CHORUS_OK;
}

bool sums(const ReduceCall &call) { return call.statistic == CHORUS_STATISTIC_GRAM || call.statistic == CHORUS_STATISTIC_SUM; }

ReduceCall sized(const ReduceState &state, const chorus_merge_reduce_args &args) {
  ReduceCall call = state.call;
  const Groups groups = groups_of(call.in.granularity, args);
  call.groups = groups.count;
  call.size = groups.size;
  call.blocks = (groups.size + CHORUS_BLOCK - 1) / CHORUS_BLOCK;
  return call;
}

uint64_t group_weights_bytes(const ReduceCall &call) { return call.in.weighted ? weights_bytes(call.in, call.groups) : 0; }

uint64_t workspace(const void *prepared, const void *args) {
  const ReduceCall call = sized(*static_cast<const ReduceState *>(prepared), *static_cast<const chorus_merge_reduce_args *>(args));
  return group_weights_bytes(call) + (sums(call) && call.blocks > 1 ? aligned_on_device(8 * call.groups * call.results * call.blocks) : 0);
}

cudaError_t launch_all(const ReduceState &state, ReduceCall &call, const chorus_exec *exec, uint64_t bytes) {
  if (call.in.count == 0 || !sums(call)) {
    const cudaError_t error = cudaMemsetAsync(call.out, 0, bytes, static_cast<cudaStream_t>(exec->stream));
    if (error != cudaSuccess || call.in.count == 0) return error;
    return launch(grid_of(dim3(blocks_for(call.in.count, kThreads, state.device)), kThreads, exec), count_kernel, call);
  }
  const cudaError_t error = launch(grid_of(dim3(blocks_for(call.groups * call.blocks, kThreads / 32, state.device)), kThreads, exec), sum_blocks_kernel, call);
  if (error != cudaSuccess || call.blocks == 1) return error;
  return launch(grid_of(dim3(static_cast<unsigned>(call.groups * call.results)), kJoinThreads, exec), join_kernel, call);
}

chorus_status run(const void *prepared, const void *args_pointer, const chorus_exec *exec, chorus_error_slot slot) {
  const auto &state = *static_cast<const ReduceState *>(prepared);
  const auto &args = *static_cast<const chorus_merge_reduce_args *>(args_pointer);
  const uint64_t needed = statistic_bytes(state.desc, groups_of(state.desc.granularity, args));
  if (args.statistic_bytes < needed)
    return report(state.host, slot, CHORUS_INVALID_ARGUMENT, "statistic_bytes is %llu; statistic %d of this piece takes %llu",
                  static_cast<unsigned long long>(args.statistic_bytes), state.desc.statistic,
                  static_cast<unsigned long long>(needed));
  if (needed == 0) return CHORUS_OK;
  ReduceCall call = sized(state, args);
  take_inputs(args, &call.in);
  call.prefix_bits = args.prefix_bits;
  for (int32_t i = 0; args.prefixes != nullptr && call.predicate == CHORUS_PREDICATE_PREFIX && i < call.in.n; ++i) call.prefixes[i] = args.prefixes[i];
  call.out = args.statistic;
  char *rest = static_cast<char *>(exec->workspace) + group_weights_bytes(call);
  call.partial = call.blocks > 1 ? reinterpret_cast<double *>(rest) : static_cast<double *>(args.statistic);
  return enqueue(state.device, exec, "merge_reduce", slot, [&] {
    const cudaError_t error = call.in.weighted ? take_weights(args.weights, call.groups, &call.in, exec->workspace, exec) : cudaSuccess;
    return error == cudaSuccess ? launch_all(state, call, exec, needed) : error;
  });
}

}  // namespace

const chorus_kernel kMergeReduce = {CHORUS_END_OF(chorus_kernel, prepared_bytes),
                                    CHORUS_OP_MERGE_REDUCE,
                                    1,
                                    0,
                                    "merge_reduce",
                                    score,
                                    prepare,
                                    workspace,
                                    run,
                                    free_state<ReduceState>,
                                    nullptr};

}  // namespace chorus::cuda
