// SPDX-License-Identifier: Apache-2.0
// A feed-forward block of one row by the part of its neurons that is kept (a list, as a predictor gives it; ReLU zeros), beside the
// same block dense, and beside a plain vectorised read of as many bytes as are kept. Medians of 7 interleaved rounds; a table,
// with --json one object. Usage: bench-sparse [--json] [--threads N] [--device NAME] [--rows T] [--weights f32|bf16|i8]
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "chorus/chorus.h"

namespace {

constexpr int kRounds = 7;
constexpr int64_t kHidden = 2048, kNeurons = 8192;

double now() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

void must(chorus_status status, chorus_error *&error, const char *what) {
  if (status == CHORUS_OK) return;
  std::fprintf(stderr, "bench-sparse: %s: %s\n", what, error != nullptr ? chorus_error_get_text(error) : "failed");
  std::exit(1);
}

struct Tensor {
  Tensor(chorus_dtype dtype, std::vector<int64_t> dims) : shape(std::move(dims)) {
    size_t count = 1;
    for (const int64_t size : shape) count *= static_cast<size_t>(size);
    memory.resize(count * (dtype >> 8) / 8);
    view.data = memory.data();
    view.size_bytes = memory.size();
    view.device_type = CHORUS_DEVICE_HOST;
    view.dtype_code = static_cast<uint8_t>(dtype & 0xff);
    view.dtype_bits = static_cast<uint8_t>(dtype >> 8);
    view.dtype_lanes = 1;
    view.ndim = static_cast<int32_t>(shape.size());
    view.shape = shape.data();
  }
  Tensor(const Tensor &) = delete;
  Tensor &operator=(const Tensor &) = delete;
  template <typename T>
  T *at() {
    return reinterpret_cast<T *>(memory.data());
  }
  std::vector<int64_t> shape;
  std::vector<char> memory;
  chorus_tensor view = CHORUS_TENSOR_INIT;
};

// Small numbers of either sign in any of the three formats.
void fill(Tensor &t, std::mt19937 &random) {
  std::normal_distribution<float> normal;
  const size_t count = t.memory.size() / (t.view.dtype_bits / 8);
  for (size_t i = 0; i < count; ++i) {
    const float x = 0.02f * normal(random);
    if (t.view.dtype_bits == 32) std::memcpy(t.memory.data() + 4 * i, &x, 4);
    if (t.view.dtype_bits == 16) std::memcpy(t.memory.data() + 2 * i, reinterpret_cast<const char *>(&x) + 2, 2);
    if (t.view.dtype_bits == 8) t.memory[i] = static_cast<char>(static_cast<int8_t>(std::clamp(x * 1000, -127.0f, 127.0f)));
  }
}

// Seconds to read `bytes` of `from` by as many threads as compute.
double read(const std::vector<char> &from, size_t bytes, int threads, uint64_t *sink) {
  const double start = now();
  std::vector<std::thread> workers;
  std::vector<uint64_t> sums(static_cast<size_t>(threads));
  for (int w = 0; w < threads; ++w) {
    workers.emplace_back([&, w] {
      const size_t part = bytes / static_cast<size_t>(threads) / 64 * 64;
      const auto *words = reinterpret_cast<const uint64_t *>(from.data() + part * static_cast<size_t>(w));
      uint64_t lanes[8] = {};
      for (size_t i = 0; i < part / 8; i += 8) {
        for (size_t l = 0; l < 8; ++l) lanes[l] += words[i + l];
      }
      for (const uint64_t lane : lanes) sums[static_cast<size_t>(w)] += lane;
    });
  }
  for (auto &worker : workers) worker.join();
  for (const uint64_t sum : sums) *sink += sum;
  return now() - start;
}

}  // namespace

int main(int argc, char **argv) {
  bool json = false;
  const char *device = "auto", *threads = "2", *format = "bf16";
  int64_t rows = 1;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--json") == 0) json = true;
    if (std::strcmp(argv[i], "--device") == 0 && i + 1 < argc) device = argv[++i];
    if (std::strcmp(argv[i], "--threads") == 0 && i + 1 < argc) threads = argv[++i];
    if (std::strcmp(argv[i], "--weights") == 0 && i + 1 < argc) format = argv[++i];
    if (std::strcmp(argv[i], "--rows") == 0 && i + 1 < argc) rows = std::clamp<int64_t>(std::atoll(argv[++i]), 1, 8);
  }
  const chorus_dtype dtype = std::strcmp(format, "f32") == 0 ? CHORUS_F32 : std::strcmp(format, "i8") == 0 ? CHORUS_I8 : CHORUS_BF16;
  chorus_error *error = nullptr;
  chorus_context_spec *options = nullptr;
  chorus_context *context = nullptr;
  must(chorus_context_spec_create(&options, &error), error, "context spec");
  must(chorus_context_spec_set_option(options, "threads", threads, &error), error, "threads");
  must(chorus_context_create(options, &context, &error), error, "context");
  std::mt19937 random(1);
  Tensor gate(dtype, {kNeurons, kHidden}), up(dtype, {kNeurons, kHidden}), down(dtype, {kHidden, kNeurons});
  Tensor scales(CHORUS_F32, {kNeurons, 1}), few_scales(CHORUS_F32, {kHidden, 1}), x(CHORUS_F32, {rows, kHidden}), y(CHORUS_F32, {rows, kHidden});
  for (Tensor *t : {&gate, &up, &down, &x}) fill(*t, random);
  std::fill_n(scales.at<float>(), kNeurons, 1e-3f);
  std::fill_n(few_scales.at<float>(), kHidden, 1e-3f);
  chorus_quant wide = CHORUS_QUANT_INIT, narrow = CHORUS_QUANT_INIT;
  wide.scales = &scales.view;
  narrow.scales = &few_scales.view;
  wide.axis = narrow.axis = 1;
  if (dtype == CHORUS_I8) {
    gate.view.quant = up.view.quant = &wide;
    down.view.quant = &narrow;
  }
  chorus_sparse_spec *spec = nullptr;
  chorus_sparse *block = nullptr;
  must(chorus_sparse_spec_create_ffn(&gate.view, &up.view, &down.view, &spec, &error), error, "spec");
  must(chorus_sparse_spec_set_max_rows(spec, 8, &error), error, "rows");
  must(chorus_sparse_spec_set_pick(spec, CHORUS_SPARSE_GIVEN, 0, &error), error, "pick");
  must(chorus_sparse_create(context, spec, device, &block, &error), error, "block");

  const std::vector<double> densities = {1.0, 0.5, 0.25, 0.1, 0.05};
  std::vector<std::vector<double>> seconds(densities.size()), floors(densities.size());
  std::vector<int32_t> all(kNeurons);
  for (int32_t i = 0; i < kNeurons; ++i) all[static_cast<size_t>(i)] = i;
  uint64_t sink = 0;
  const double bytes = static_cast<double>(chorus_sparse_get_packed_bytes(block));
  for (int round = 0; round < kRounds; ++round) {
    for (size_t d = 0; d < densities.size(); ++d) {
      const auto kept = static_cast<int64_t>(densities[d] * kNeurons);
      Tensor given(CHORUS_I32, {rows, kept});
      for (int64_t t = 0; t < rows; ++t) {
        std::shuffle(all.begin(), all.end(), random);
        std::copy(all.begin(), all.begin() + kept, given.at<int32_t>() + t * kept);
      }
      chorus_sparse_in in = CHORUS_SPARSE_IN_INIT;
      in.given = &given.view;
      const double start = now();
      must(chorus_sparse_linear(block, &x.view, &in, &y.view, nullptr, nullptr, nullptr, &error), error, "run");
      seconds[d].push_back(now() - start);
      const auto part = std::min(static_cast<size_t>(densities[d] * bytes), 3 * gate.memory.size());
      double floor = 0;
      for (size_t left = part; left > 0;) {
        const size_t now_read = std::min(left, gate.memory.size());
        floor += read((left % 3 == 0 ? gate : left % 3 == 1 ? up : down).memory, now_read, std::atoi(threads), &sink);
        left -= now_read;
      }
      floors[d].push_back(floor);
    }
  }
  const auto median = [](std::vector<double> v) {
    std::sort(v.begin(), v.end());
    return v[v.size() / 2];
  };
  if (json) std::printf("{\"bench\": \"sparse\", \"kernel\": \"%s\", \"weights\": \"%s\", \"rows\": %ld, \"results\": [", chorus_sparse_get_kernel(block), format, static_cast<long>(rows));
  if (!json) std::printf("%s, %s weights, H %ld, I %ld, %ld row(s), %s threads\n%8s %12s %12s %10s\n", chorus_sparse_get_kernel(block), format,
                         static_cast<long>(kHidden), static_cast<long>(kNeurons), static_cast<long>(rows), threads, "density", "ms", "floor ms", "speed-up");
  for (size_t d = 0; d < densities.size(); ++d) {
    const double ms = 1e3 * median(seconds[d]), floor = 1e3 * median(floors[d]), gain = median(seconds[0]) / median(seconds[d]);
    if (json) {
      std::printf("%s{\"density\": %g, \"ms\": %.4g, \"floor_ms\": %.4g, \"times_dense\": %.3g}", d > 0 ? ", " : "", densities[d], ms, floor, gain);
    } else {
      std::printf("%8.2f %12.4g %12.4g %9.2fx\n", densities[d], ms, floor, gain);
    }
  }
  if (json) std::printf("], \"sink\": %lu}\n", static_cast<unsigned long>(sink & 1));
  chorus_sparse_destroy(block);
  chorus_sparse_spec_destroy(spec);
  chorus_context_destroy(context);
  chorus_context_spec_destroy(options);
  return 0;
}
