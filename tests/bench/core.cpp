// SPDX-License-Identifier: Apache-2.0
// What every call pays: an empty routing call through the public ABI (all checks, no work), and creating a context, which
// loads all plugins. Medians of 5 rounds; a table, with --json one object. Usage: bench-core [--json] [--device NAME]
// [--processor-time: on a busy machine, the thread's own time]
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <string>
#include <vector>

#include "chorus/chorus.h"

namespace {

constexpr int kRounds = 5, kCalls = 200000;

bool count_processor_time = false;

double now() {
  timespec t;
  clock_gettime(count_processor_time ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

void must(chorus_status status, chorus_error *&error, const char *what) {
  if (status == CHORUS_OK) return;
  std::fprintf(stderr, "bench-core: %s: %s\n", what, error != nullptr ? chorus_error_get_text(error) : "failed");
  std::exit(1);
}

struct Figure {
  const char *name, *unit;
  double scale, bar;
  std::vector<double> seconds;
};

void print(Figure f, bool json, bool last) {
  std::sort(f.seconds.begin(), f.seconds.end());
  const double median = f.seconds[f.seconds.size() / 2] * f.scale, least = f.seconds[0] * f.scale;
  if (json) {
    std::printf("{\"name\": \"%s\", \"unit\": \"%s\", \"median\": %.4g, \"min\": %.4g, \"bar\": %.4g}%s", f.name, f.unit, median,
                least, f.bar, last ? "" : ", ");
  } else {
    std::printf("%-44s %10.4g %s (min %.4g, bar %.4g)\n", f.name, median, f.unit, least, f.bar);
  }
}

chorus_tensor matrix(void *data, chorus_dtype dtype, const int64_t *shape, int32_t ndim, uint64_t bytes) {
  chorus_tensor t = CHORUS_TENSOR_INIT;
  t.data = data;
  t.size_bytes = bytes;
  t.device_type = CHORUS_DEVICE_HOST;
  t.dtype_code = static_cast<uint8_t>(dtype & 0xff);
  t.dtype_bits = static_cast<uint8_t>(dtype >> 8);
  t.dtype_lanes = 1;
  t.ndim = ndim;
  t.shape = shape;
  return t;
}

}  // namespace

int main(int argc, char **argv) {
  bool json = false;
  const char *device = "auto";
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--json") == 0) json = true;
    if (std::strcmp(argv[i], "--processor-time") == 0) count_processor_time = true;
    if (std::strcmp(argv[i], "--device") == 0 && i + 1 < argc) device = argv[++i];
  }
  chorus_error *error = nullptr;
  Figure load = {"context with all plugins", "ms", 1e3, 50, {}}, route = {"empty route, workspace given", "ns", 1e9, 100, {}},
         cached = {"empty route, workspace of the thread", "ns", 1e9, 100, {}};
  chorus_context *context = nullptr;
  for (int round = 0; round < kRounds; ++round) {
    chorus_context_destroy(context);
    const double start = now();
    must(chorus_context_create(nullptr, &context, &error), error, "context");
    load.seconds.push_back(now() - start);
  }
  chorus_router_spec *spec = nullptr;
  chorus_router *router = nullptr;
  must(chorus_router_spec_create(256, 8, &spec, &error), error, "spec");
  must(chorus_router_spec_set_max_tokens(spec, 64, &error), error, "max tokens");
  must(chorus_router_create(context, spec, device, &router, &error), error, "router");
  const int64_t logits_shape[] = {0, 256}, slots_shape[] = {0, 8};
  const chorus_tensor logits = matrix(nullptr, CHORUS_F32, logits_shape, 2, 0);
  const chorus_tensor ids = matrix(nullptr, CHORUS_I32, slots_shape, 2, 0), weights = matrix(nullptr, CHORUS_F32, slots_shape, 2, 0);
  chorus_route_out out = CHORUS_ROUTE_OUT_INIT;
  out.ids = &ids;
  out.weights = &weights;
  uint64_t bytes = 0;
  must(chorus_router_get_workspace_size(router, 0, &bytes, &error), error, "workspace size");
  std::vector<char> memory(bytes + 64);
  chorus_exec exec = CHORUS_EXEC_INIT;
  exec.workspace = memory.data() + (64 - reinterpret_cast<uintptr_t>(memory.data()) % 64) % 64;
  exec.workspace_bytes = bytes;
  for (int round = 0; round < kRounds; ++round) {
    for (const chorus_exec *with : {static_cast<const chorus_exec *>(&exec), static_cast<const chorus_exec *>(nullptr)}) {
      const double start = now();
      for (int i = 0; i < kCalls; ++i) must(chorus_router_route(router, &logits, nullptr, &out, with, &error), error, "route");
      (with != nullptr ? route : cached).seconds.push_back((now() - start) / kCalls);
    }
  }
  if (json) std::printf("{\"bench\": \"core\", \"kernel\": \"%s\", \"results\": [", chorus_router_get_kernel(router));
  print(load, json, false);
  print(route, json, false);
  print(cached, json, true);
  if (json) std::printf("]}\n");
  chorus_router_destroy(router);
  chorus_router_spec_destroy(spec);
  chorus_context_destroy(context);
  return 0;
}
