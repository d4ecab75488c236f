// SPDX-License-Identifier: Apache-2.0
// Routing through the public ABI with ids, weights, counts, offsets, order and inverse: few tokens and many, softmax and
// DeepSeek-V3 groups. The floor is a plain vectorised sum over the logits in the same run, on one thread. Medians of 5
// interleaved rounds; a table, with --json one object. Usage: bench-route [--json] [--threads N] [--device NAME]
// [--processor-time: on a busy machine, the calling thread's own time; with --threads 1]
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <random>
#include <string>
#include <vector>

#include "chorus/chorus.h"

namespace {

constexpr int kRounds = 5;
constexpr int32_t kExperts = 256, kBest = 8;

bool count_processor_time = false;

double now() {
  timespec t;
  clock_gettime(count_processor_time ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

void must(chorus_status status, chorus_error *&error, const char *what) {
  if (status == CHORUS_OK) return;
  std::fprintf(stderr, "bench-route: %s: %s\n", what, error != nullptr ? chorus_error_get_text(error) : "failed");
  std::exit(1);
}

double median(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  return v[v.size() / 2];
}

template <typename T>
struct Tensor {
  Tensor(chorus_dtype dtype, std::vector<int64_t> dims) : shape(std::move(dims)) {
    int64_t count = 1;
    for (const int64_t size : shape) count *= size;
    values.resize(static_cast<size_t>(count));
    view = CHORUS_TENSOR_INIT;
    view.data = values.data();
    view.size_bytes = values.size() * sizeof(T);
    view.device_type = CHORUS_DEVICE_HOST;
    view.dtype_code = static_cast<uint8_t>(dtype & 0xff);
    view.dtype_bits = static_cast<uint8_t>(dtype >> 8);
    view.dtype_lanes = 1;
    view.ndim = static_cast<int32_t>(shape.size());
    view.shape = shape.data();
  }
  std::vector<int64_t> shape;
  std::vector<T> values;
  chorus_tensor view;
};

// A router of one kind with all it writes.
class Call {
 public:
  Call(const chorus_context *context, const char *device, bool groups, int64_t tokens)
      : logits(CHORUS_F32, {tokens, kExperts}),
        bias(CHORUS_F32, {kExperts}),
        weights(CHORUS_F32, {tokens, kBest}),
        ids(CHORUS_I32, {tokens, kBest}),
        counts(CHORUS_I32, {kExperts}),
        offsets(CHORUS_I32, {kExperts + 1}),
        order(CHORUS_I32, {tokens * kBest}),
        inverse(CHORUS_I32, {tokens * kBest}) {
    chorus_error *error = nullptr;
    chorus_router_spec *spec = nullptr;
    must(chorus_router_spec_create(kExperts, kBest, &spec, &error), error, "spec");
    must(chorus_router_spec_set_max_tokens(spec, tokens, &error), error, "max tokens");
    if (groups) {
      must(chorus_router_spec_set_score(spec, CHORUS_ROUTE_SIGMOID, CHORUS_ROUTE_SCORE_THEN_TOPK, &error), error, "score");
      must(chorus_router_spec_set_bias(spec, 1, &error), error, "bias");
      must(chorus_router_spec_set_groups(spec, 8, 4, CHORUS_ROUTE_GROUP_TOP_SUM, 2, &error), error, "groups");
      must(chorus_router_spec_set_weights(spec, CHORUS_ROUTE_RENORMALISE_SUM, 1e-20, 2.5, &error), error, "weights");
      in.bias = &bias.view;
    }
    must(chorus_router_create(context, spec, device, &router_, &error), error, "router");
    chorus_router_spec_destroy(spec);
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    for (float &x : logits.values) x = 2 * normal(random);
    for (float &x : bias.values) x = 0.1f * normal(random);
    out.ids = &ids.view;
    out.weights = &weights.view;
    out.counts = &counts.view;
    out.offsets = &offsets.view;
    out.order = &order.view;
    out.inverse = &inverse.view;
    uint64_t bytes = 0;
    must(chorus_router_get_workspace_size(router_, tokens, &bytes, &error), error, "workspace size");
    memory.resize(bytes + 64);
    exec.workspace = memory.data() + (64 - reinterpret_cast<uintptr_t>(memory.data()) % 64) % 64;
    exec.workspace_bytes = bytes;
    calls = std::max(1, static_cast<int>(20000 / tokens));
  }
  ~Call() { chorus_router_destroy(router_); }

  // Seconds of a call.
  double run() {
    chorus_error *error = nullptr;
    const double start = now();
    for (int i = 0; i < calls; ++i) must(chorus_router_route(router_, &logits.view, &in, &out, &exec, &error), error, "route");
    return (now() - start) / calls;
  }
  double read() {
    const double start = now();
    for (int i = 0; i < calls; ++i) {
      float sums[32] = {};
      for (size_t j = 0; j < logits.values.size(); j += 32) {
        for (size_t lane = 0; lane < 32; ++lane) sums[lane] += logits.values[j + lane];
      }
      sink += sums[i % 32];
    }
    return (now() - start) / calls;
  }
  const char *kernel() const { return chorus_router_get_kernel(router_); }
  float sink = 0;  // so that the reading is not left out

 private:
  Tensor<float> logits, bias, weights;
  Tensor<int32_t> ids, counts, offsets, order, inverse;
  std::vector<char> memory;
  chorus_route_in in = CHORUS_ROUTE_IN_INIT;
  chorus_route_out out = CHORUS_ROUTE_OUT_INIT;
  chorus_exec exec = CHORUS_EXEC_INIT;
  chorus_router *router_ = nullptr;
  int calls = 1;
};

}  // namespace

int main(int argc, char **argv) {
  bool json = false;
  const char *device = "auto", *threads = "2";
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--json") == 0) json = true;
    if (std::strcmp(argv[i], "--processor-time") == 0) count_processor_time = true;
    if (std::strcmp(argv[i], "--device") == 0 && i + 1 < argc) device = argv[++i];
    if (std::strcmp(argv[i], "--threads") == 0 && i + 1 < argc) threads = argv[++i];
  }
  chorus_error *error = nullptr;
  chorus_context_spec *spec = nullptr;
  chorus_context *context = nullptr;
  must(chorus_context_spec_create(&spec, &error), error, "context spec");
  must(chorus_context_spec_set_option(spec, "threads", threads, &error), error, "threads");
  must(chorus_context_create(spec, &context, &error), error, "context");
  chorus_context_spec_destroy(spec);
  if (json) std::printf("{\"bench\": \"route\", \"threads\": %s, \"results\": [", threads);
  bool first = true;
  for (const bool groups : {false, true}) {
    for (const int64_t tokens : {1, 64, 4096}) {
      Call call(context, device, groups, tokens);
      call.run();
      std::vector<double> seconds, floors;
      for (int round = 0; round < kRounds; ++round) {
        floors.push_back(call.read());
        seconds.push_back(call.run());
      }
      const char *name = groups ? "deepseek-v3 groups" : "softmax";
      const double s = median(seconds), least = *std::min_element(seconds.begin(), seconds.end());
      if (json) {
        std::printf("%s{\"name\": \"%s\", \"kernel\": \"%s\", \"tokens\": %lld, \"us\": %.4g, \"min_us\": %.4g, \"read_us\": %.4g}",
                    first ? "" : ", ", name, call.kernel(), static_cast<long long>(tokens), s * 1e6, least * 1e6,
                    median(floors) * 1e6);
      } else {
        std::printf("%-20s %-16s T %5lld  E %d k %d: %9.3f us (min %.3f), %6.1f ns per token; reading the logits alone %.3f us\n",
                    name, call.kernel(), static_cast<long long>(tokens), kExperts, kBest, s * 1e6, least * 1e6,
                    s * 1e9 / static_cast<double>(tokens), median(floors) * 1e6);
      }
      first = false;
    }
  }
  if (json) std::printf("]}\n");
  chorus_context_destroy(context);
  return 0;
}
