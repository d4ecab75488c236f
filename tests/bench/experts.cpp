// SPDX-License-Identifier: Apache-2.0
// Expert layers beside their floors, measured in the same run and interleaved: few tokens against a plain vectorised sum
// over as many bytes as the experts' weights, many tokens against one oneDNN GEMM of 1024 x 4096 x 4096 (bf16, or f32
// where the processor has no bf16 arithmetic). Medians of 5 rounds; prints a table, with --json one object.
// Usage: bench-experts [--json] [--shape qwen3|mixtral|small|top2of8|formats] [--tokens T] [--threads N] [--device NAME] [--processor-time]
// --processor-time: on a busy machine, the calling thread's own time; with one thread, which it implies.
#include <omp.h>
#include <oneapi/dnnl/dnnl.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "chorus/chorus.h"

namespace {

constexpr int kRounds = 5;

bool count_processor_time = false;

double now() {
  if (count_processor_time) {
    timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
  }
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double median(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  return v[v.size() / 2];
}

[[noreturn]] void stop(const char *what, chorus_error *error) {
  std::fprintf(stderr, "bench-experts: %s: %s\n", what, error != nullptr ? chorus_error_get_text(error) : "failed");
  std::exit(1);
}

void must(chorus_status status, chorus_error *&error, const char *what) {
  if (status != CHORUS_OK) stop(what, error);
}

// ---- Floors ----

// Sums `bytes` bytes on `threads` threads; returns seconds.
double read_once(const std::vector<uint64_t> &memory, size_t bytes, int threads) {
  static std::atomic<uint64_t> sink;
  const size_t words = std::min(bytes / 8, memory.size()), part = words / static_cast<size_t>(threads);
  const auto sum_part = [&](int t) {
    const uint64_t *p = memory.data() + static_cast<size_t>(t) * part;
    uint64_t sums[16] = {};
    for (size_t i = 0; i + 16 <= part; i += 16) {
      for (size_t j = 0; j < 16; ++j) sums[j] += p[i + j];
    }
    uint64_t sum = 0;
    for (const uint64_t s : sums) sum += s;
    sink = sum;
  };
  const double begin = now();
  std::vector<std::thread> others;
  for (int t = 1; t < threads; ++t) others.emplace_back(sum_part, t);
  sum_part(0);
  for (auto &thread : others) thread.join();
  return now() - begin;
}

// One big GEMM through oneDNN, its weights in the layout it prefers.
class Gemm {
 public:
  Gemm() {
    dnnl_engine_create(&engine_, dnnl_cpu, 0);
    dnnl_stream_create(&stream_, engine_, dnnl_stream_default_flags);
    if (!make(dnnl_bf16) && !make(dnnl_f32)) stop("oneDNN matmul", nullptr);
  }
  const char *name() const { return type_ == dnnl_bf16 ? "bf16" : "f32"; }
  double flops() const { return 2.0 * kM * kN * kK; }
  double run(int threads) {
    omp_set_num_threads(threads);
    const dnnl_exec_arg_t args[] = {{DNNL_ARG_SRC, a_}, {DNNL_ARG_WEIGHTS, b_}, {DNNL_ARG_DST, c_}};
    const double begin = now();
    dnnl_primitive_execute(primitive_, stream_, 3, args);
    dnnl_stream_wait(stream_);
    return now() - begin;
  }

 private:
  static constexpr int64_t kM = 1024, kK = 4096, kN = 4096;
  dnnl_memory_t memory_of(const_dnnl_memory_desc_t desc) {
    dnnl_memory_t memory;
    dnnl_memory_create(&memory, desc, engine_, DNNL_MEMORY_ALLOCATE);
    void *data;
    dnnl_memory_get_data_handle(memory, &data);
    std::memset(data, 0, dnnl_memory_desc_get_size(desc));
    return memory;
  }
  bool make(dnnl_data_type_t type) {
    type_ = type;
    const dnnl_dims_t a = {kM, kK}, b = {kK, kN}, c = {kM, kN};
    dnnl_memory_desc_t ad, bd, cd;
    dnnl_memory_desc_create_with_tag(&ad, 2, a, type, dnnl_ab);
    dnnl_memory_desc_create_with_tag(&bd, 2, b, type, dnnl_format_tag_any);
    dnnl_memory_desc_create_with_tag(&cd, 2, c, dnnl_f32, dnnl_ab);
    dnnl_primitive_desc_t desc;
    if (dnnl_matmul_primitive_desc_create(&desc, engine_, ad, bd, nullptr, cd, nullptr) != dnnl_success) return false;
    dnnl_primitive_create(&primitive_, desc);
    a_ = memory_of(ad);
    b_ = memory_of(dnnl_primitive_desc_query_md(desc, dnnl_query_weights_md, 0));
    c_ = memory_of(cd);
    return true;
  }
  dnnl_engine_t engine_;
  dnnl_stream_t stream_;
  dnnl_primitive_t primitive_;
  dnnl_memory_t a_, b_, c_;
  dnnl_data_type_t type_ = dnnl_bf16;
};

// ---- The layer ----

struct Shape {
  const char *name;
  int64_t experts, k, hidden, intermediate;
  double expert_bytes() const { return 3.0 * static_cast<double>(hidden * intermediate) * 2; }
  double flops(double slots) const { return 6.0 * static_cast<double>(hidden * intermediate) * slots; }
};

constexpr Shape kShapes[] = {{"qwen3", 128, 8, 2048, 768}, {"mixtral", 8, 2, 4096, 14336}, {"small", 16, 4, 512, 512}};

chorus_tensor tensor(void *data, uint64_t bytes, chorus_dtype dtype, const std::vector<int64_t> &shape) {
  chorus_tensor t = CHORUS_TENSOR_INIT;
  t.data = data;
  t.size_bytes = bytes;
  t.device_type = CHORUS_DEVICE_HOST;
  t.dtype_code = static_cast<uint8_t>(dtype & 0xff);
  t.dtype_bits = static_cast<uint8_t>(dtype >> 8);
  t.dtype_lanes = 1;
  t.ndim = static_cast<int32_t>(shape.size());
  t.shape = shape.data();
  return t;
}

std::vector<uint16_t> random_bf16(int64_t count, double spread) {
  std::vector<uint16_t> values(static_cast<size_t>(count));
  uint64_t state = 0x9e3779b97f4a7c15u;
  for (auto &v : values) {  // uniform in ±spread, enough for speed
    state = state * 6364136223846793005u + 1442695040888963407u;
    const auto x = static_cast<float>((static_cast<double>(state >> 40) * 0x1p-23 - 1) * spread);
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    v = static_cast<uint16_t>(bits >> 16);
  }
  return values;
}

// Random weights [experts, rows, columns]: bf16, or int8 or int4 with a scale per 128 columns.
struct Weights {
  Weights(chorus_dtype dtype, int64_t experts, int64_t rows, int64_t columns)
      : bytes(random_bf16(experts * rows * columns * (dtype >> 8) / 16, 0.02)),
        scales(static_cast<size_t>(experts * rows * (columns / 128)), 0.001f),
        shape{experts, rows, dtype == CHORUS_I4 ? columns / 2 : columns},
        scales_shape{experts, rows, columns / 128} {
    view = tensor(bytes.data(), bytes.size() * 2, dtype == CHORUS_I4 ? CHORUS_U8 : dtype, shape);
    if (dtype == CHORUS_BF16) return;
    scales_view = tensor(scales.data(), scales.size() * 4, CHORUS_F32, scales_shape);
    quant.scales = &scales_view;
    quant.group_size = 128;
    quant.axis = 2;
    quant.packing = dtype == CHORUS_I4 ? CHORUS_PACKING_INT4 : CHORUS_PACKING_NONE;
    view.quant = &quant;
  }
  Weights(const Weights &) = delete;
  std::vector<uint16_t> bytes;
  std::vector<float> scales;
  std::vector<int64_t> shape, scales_shape;
  chorus_tensor view, scales_view = CHORUS_TENSOR_INIT;
  chorus_quant quant = CHORUS_QUANT_INIT;
};

class Layer {
 public:
  Layer(const chorus_context *context, const char *device, const Shape &s, int64_t k, int64_t max_tokens,
        chorus_dtype dtype = CHORUS_BF16)
      : s_(s), k_(k) {
    chorus_error *error = nullptr;
    const Weights gate_up(dtype, s.experts, 2 * s.intermediate, s.hidden), down(dtype, s.experts, s.hidden, s.intermediate);
    chorus_experts_spec *spec = nullptr;
    must(chorus_experts_spec_create(&gate_up.view, &down.view, static_cast<int32_t>(k), &spec, &error), error, "spec");
    must(chorus_experts_spec_set_max_tokens(spec, max_tokens, &error), error, "max tokens");
    must(chorus_experts_spec_set_dtypes(spec, CHORUS_BF16, CHORUS_BF16, CHORUS_I32, &error), error, "dtypes");
    must(chorus_experts_create(context, spec, device, &experts_, &error), error, "experts");
    chorus_experts_spec_destroy(spec);
  }
  ~Layer() { chorus_experts_destroy(experts_); }
  const char *kernel() const { return chorus_experts_get_kernel(experts_); }

  // Random tokens; each chooses k different experts uniformly.
  void set_tokens(int64_t tokens) {
    tokens_ = tokens;
    x_ = random_bf16(tokens * s_.hidden, 1);
    y_.assign(static_cast<size_t>(tokens * s_.hidden), 0);
    std::mt19937 random(1);
    std::vector<int32_t> all(static_cast<size_t>(s_.experts));
    std::vector<bool> used(static_cast<size_t>(s_.experts));
    ids_.clear();
    for (int64_t t = 0; t < tokens; ++t) {
      for (size_t e = 0; e < all.size(); ++e) all[e] = static_cast<int32_t>(e);
      std::shuffle(all.begin(), all.end(), random);
      for (int64_t j = 0; j < k_; ++j) {
        ids_.push_back(all[static_cast<size_t>(j)]);
        used[static_cast<size_t>(all[static_cast<size_t>(j)])] = true;
      }
    }
    active_ = static_cast<double>(std::count(used.begin(), used.end(), true));
    weights_.assign(ids_.size(), 1.0f / static_cast<float>(k_));
  }
  // One token for the next k experts in turn, so that weights come from memory, not from a cache.
  void set_next_token() {
    set_tokens(1);
    for (auto &id : ids_) id = static_cast<int32_t>(next_++ % s_.experts);
  }
  double bytes() const { return active_ * s_.expert_bytes(); }
  double flops() const { return s_.flops(static_cast<double>(ids_.size())); }

  double run() {
    const std::vector<int64_t> wide = {tokens_, s_.hidden}, slots = {tokens_, k_};
    const chorus_tensor x = tensor(x_.data(), x_.size() * 2, CHORUS_BF16, wide),
                        y = tensor(y_.data(), y_.size() * 2, CHORUS_BF16, wide),
                        ids = tensor(ids_.data(), ids_.size() * 4, CHORUS_I32, slots),
                        weights = tensor(weights_.data(), weights_.size() * 4, CHORUS_F32, slots);
    chorus_error *error = nullptr;
    const double begin = now();
    must(chorus_experts_run(experts_, &x, &ids, &weights, &y, nullptr, nullptr, &error), error, "run");
    return now() - begin;
  }

 private:
  Shape s_;
  int64_t k_, tokens_ = 0, next_ = 0;
  double active_ = 0;
  std::vector<uint16_t> x_, y_;
  std::vector<int32_t> ids_;
  std::vector<float> weights_;
  chorus_experts *experts_ = nullptr;
};

// ---- Report ----

struct Options {
  bool json = false;
  std::string shape, device = "cpu";
  int64_t tokens = 0;
  int threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
};

Options parse(int argc, char **argv) {
  Options o;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    const char *value = i + 1 < argc ? argv[i + 1] : "";
    if (word == "--json") {
      o.json = true;
      continue;
    }
    if (word == "--processor-time") {
      count_processor_time = true;
      continue;
    }
    ++i;
    if (word == "--shape") {
      o.shape = value;
    } else if (word == "--tokens") {
      o.tokens = std::atoll(value);
    } else if (word == "--threads") {
      o.threads = std::max(1, std::atoi(value));
    } else if (word == "--device") {
      o.device = value;
    } else {
      std::fprintf(stderr, "bench-experts: unknown argument '%s'\n", word.c_str());
      std::exit(2);
    }
  }
  if (count_processor_time) o.threads = 1;
  return o;
}

bool first_line = true;

// One line: seconds, the part of the floor reached (median over rounds, and the least).
void print(const Options &o, const char *shape, const char *kernel, int64_t tokens, const char *floor,
           const std::vector<double> &seconds, std::vector<double> parts, double rate, const char *unit) {
  std::sort(parts.begin(), parts.end());
  if (o.json) {
    std::printf("%s\n  {\"shape\": \"%s\", \"kernel\": \"%s\", \"tokens\": %lld, \"seconds\": %.6g, \"rate\": %.4g, "
                "\"unit\": \"%s\", \"floor\": \"%s\", \"of_floor_median\": %.4f, \"of_floor_min\": %.4f}",
                first_line ? "" : ",", shape, kernel, static_cast<long long>(tokens), median(seconds), rate, unit, floor,
                median(parts), parts.front());
  } else {
    std::printf("%-10s T=%-6lld %10.3f ms %9.1f %-8s %5.1f %% of %s (least %.1f %%)\n", shape,
                static_cast<long long>(tokens), median(seconds) * 1e3, rate, unit, 100 * median(parts), floor,
                100 * parts.front());
  }
  first_line = false;
  std::fflush(stdout);
}

void bench(const Options &o, const chorus_context *context, const Shape &shape, Gemm &gemm) {
  const std::vector<int64_t> counts = o.tokens > 0                 ? std::vector<int64_t>{o.tokens}
                                      : shape.intermediate > 4096 ? std::vector<int64_t>{1, 16, 256}
                                                                  : std::vector<int64_t>{1, 4, 16, 256, 1024};
  Layer layer(context, o.device.c_str(), shape, shape.k, std::max<int64_t>(1024, counts.back()));
  const std::vector<uint64_t> memory(static_cast<size_t>(static_cast<double>(shape.experts) * shape.expert_bytes() / 8), 1);
  for (const int64_t tokens : counts) {
    layer.set_tokens(tokens);
    layer.run();
    const bool streams = tokens <= 16;
    std::vector<double> seconds, parts;
    for (int round = 0; round < kRounds; ++round) {
      const double floor = streams ? layer.bytes() / read_once(memory, static_cast<size_t>(layer.bytes()), o.threads)
                                   : gemm.flops() / gemm.run(o.threads);
      seconds.push_back(layer.run());
      parts.push_back((streams ? layer.bytes() : layer.flops()) / seconds.back() / floor);
    }
    const std::string floor = streams ? "a plain read" : std::string("one oneDNN GEMM, ") + gemm.name();
    print(o, shape.name, layer.kernel(), tokens, floor.c_str(), seconds, parts,
          (streams ? layer.bytes() : layer.flops()) / median(seconds) * 1e-9, streams ? "GB/s" : "GFLOP/s");
  }
}

// A zero weight costs nothing: two of eight experts per token against all eight.
void bench_sparsity(const Options &o, const chorus_context *context) {
  const Shape shape = {"top-k of 8", 8, 8, 1024, 2048};
  Layer two(context, o.device.c_str(), shape, 2, 1024), all(context, o.device.c_str(), shape, 8, 1024);
  two.set_tokens(1024);
  all.set_tokens(1024);
  two.run();
  all.run();
  std::vector<double> seconds, parts;
  for (int round = 0; round < kRounds; ++round) {
    const double dense = all.run();
    seconds.push_back(two.run());
    parts.push_back(seconds.back() / dense);
  }
  print(o, "top2of8", two.kernel(), 1024, "all 8 experts", seconds, parts, 1 / median(parts), "x faster");
}

// One token: integer weights against bf16 ones of the same shape.
void bench_formats(const Options &o, const chorus_context *context) {
  const Shape shape = {"formats", 64, 8, 2048, 768};
  Layer bf16(context, o.device.c_str(), shape, shape.k, 1);
  for (const auto &[dtype, name] : {std::pair{CHORUS_I8, "int8"}, std::pair{CHORUS_I4, "int4"}}) {
    Layer layer(context, o.device.c_str(), shape, shape.k, 1, dtype);
    std::vector<double> seconds, parts;
    for (int round = 0; round < 4 * kRounds; ++round) {
      bf16.set_next_token();
      layer.set_next_token();
      const double slow = bf16.run();
      seconds.push_back(layer.run());
      parts.push_back(seconds.back() / slow);
    }
    print(o, name, layer.kernel(), 1, "the time of bf16", seconds, parts, 1 / median(parts), "x faster");
  }
}

}  // namespace

int main(int argc, char **argv) {
  const Options o = parse(argc, argv);
  chorus_error *error = nullptr;
  chorus_context_spec *spec = nullptr;
  chorus_context *context = nullptr;
  must(chorus_context_spec_create(&spec, &error), error, "context spec");
  must(chorus_context_spec_set_option(spec, "threads", std::to_string(o.threads).c_str(), &error), error, "threads");
  must(chorus_context_create(spec, &context, &error), error, "context");
  chorus_context_spec_destroy(spec);
  Gemm gemm;
  if (o.json) std::printf("{\"bench\": \"experts\", \"threads\": %d, \"gemm\": \"%s\", \"results\": [", o.threads, gemm.name());
  for (const Shape &shape : kShapes) {
    if (o.shape.empty() ? std::strcmp(shape.name, "small") != 0 : o.shape == shape.name) bench(o, context, shape, gemm);
  }
  if (o.shape.empty() || o.shape == "top2of8") bench_sparsity(o, context);
  if (o.shape.empty() || o.shape == "formats") bench_formats(o, context);
  if (o.json) std::printf("\n]}\n");
  chorus_context_destroy(context);
  return 0;
}
