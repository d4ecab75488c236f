// SPDX-License-Identifier: Apache-2.0
// Mixtures of distributions beside their floor, a plain vectorised sum over the same bytes of logits, interleaved in the
// same run: linear and log-linear, a row of log-probs or a sample (of all, of mass 0.9) with its exact log-prob. Medians of the rounds.
// Usage: bench-combine [--json] [--vocab V] [--rows B] [--models N] [--dtype bf16|f16|f32] [--threads T] [--rounds R]
//                      [--device NAME]
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "chorus/chorus.h"

namespace {

struct Options {
  bool json = false;
  int64_t vocab = 128256, rows = 32, models = 3, threads = std::max(1u, std::thread::hardware_concurrency()), rounds = 7;
  std::string dtype = "bf16", device = "auto";
};

[[noreturn]] void stop(const std::string &text) {
  std::fprintf(stderr, "bench-combine: %s\n", text.c_str());
  std::exit(2);
}

Options parse(int argc, char **argv) {
  Options o;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word == "--json") {
      o.json = true;
      continue;
    }
    if (i + 1 == argc) stop("unknown argument, or one without its value: '" + word + "'");
    const char *value = argv[++i];
    const std::pair<const char *, int64_t *> numbers[] = {{"--vocab", &o.vocab}, {"--rows", &o.rows},
                                                          {"--models", &o.models}, {"--threads", &o.threads},
                                                          {"--rounds", &o.rounds}};
    const auto *number = std::find_if(std::begin(numbers), std::end(numbers), [&](auto &n) { return word == n.first; });
    if (number != std::end(numbers)) {
      *number->second = std::atoll(value);
      if (*number->second < 1) stop(word + " is '" + value + "'; allowed: 1 and above");
    } else if (word == "--dtype") {
      o.dtype = value;
    } else if (word == "--device") {
      o.device = value;
    } else {
      stop("unknown argument '" + word + "'");
    }
  }
  if (o.dtype != "bf16" && o.dtype != "f16" && o.dtype != "f32") stop("--dtype is '" + o.dtype + "'; allowed: bf16, f16, f32");
  return o;
}

void must(chorus_status status, chorus_error *error) {
  if (status != CHORUS_OK) stop(error != nullptr ? chorus_error_get_text(error) : "a call failed");
}

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

double median(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  return v[v.size() / 2];
}

chorus_dtype dtype_of(const Options &o) { return o.dtype == "bf16" ? CHORUS_BF16 : o.dtype == "f16" ? CHORUS_F16 : CHORUS_F32; }
size_t bytes_of(const Options &o) { return o.dtype == "f32" ? 4 : 2; }

// Normal logits, as a trained model's roughly are.
std::vector<uint8_t> logits(const Options &o, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, 3);
  const auto count = static_cast<size_t>(o.rows * o.vocab);
  std::vector<uint8_t> data(count * bytes_of(o));
  for (size_t i = 0; i < count; ++i) {
    const float x = normal(random);
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    if (o.dtype == "f32") std::memcpy(&data[4 * i], &bits, 4);
    auto half = static_cast<uint16_t>(bits >> 16);
    // Rounded toward 0, normal numbers alone: enough for speed.
    if (o.dtype == "f16")
      half = static_cast<uint16_t>((bits >> 16 & 0x8000u) | std::max(0, (static_cast<int>(bits >> 13 & 0x3ffffu)) - (112 << 10)));
    if (o.dtype != "f32") std::memcpy(&data[2 * i], &half, 2);
  }
  return data;
}

// Seconds to add up the words of all inputs on `threads` threads.
double read_once(const std::vector<std::vector<uint8_t>> &inputs, int64_t threads) {
  static std::atomic<uint64_t> sink;
  const auto sum_part = [&](int64_t t) {
    uint64_t total = 0;
    for (const auto &input : inputs) {
      const size_t words = input.size() / 8 / static_cast<size_t>(threads);
      const auto *p = reinterpret_cast<const uint64_t *>(input.data()) + static_cast<size_t>(t) * words;
      uint64_t sums[16] = {};
      for (size_t i = 0; i + 16 <= words; i += 16) {
        for (size_t j = 0; j < 16; ++j) sums[j] += p[i + j];
      }
      for (const uint64_t s : sums) total += s;
    }
    sink = total;
  };
  const double begin = now();
  std::vector<std::thread> others;
  for (int64_t t = 1; t < threads; ++t) others.emplace_back(sum_part, t);
  sum_part(0);
  for (auto &thread : others) thread.join();
  return now() - begin;
}

struct View {
  int64_t shape[2];
  chorus_tensor tensor = CHORUS_TENSOR_INIT;
  View(void *data, chorus_dtype dtype, int64_t rows, int64_t columns) : shape{rows, columns} {
    tensor.data = data;
    tensor.size_bytes = static_cast<uint64_t>(rows * std::max<int64_t>(columns, 1)) * (dtype >> 8) / 8;
    tensor.device_type = CHORUS_DEVICE_HOST;
    tensor.dtype_code = static_cast<uint8_t>(dtype & 0xff);
    tensor.dtype_bits = static_cast<uint8_t>(dtype >> 8);
    tensor.dtype_lanes = 1;
    tensor.ndim = columns == 0 ? 1 : 2;
    tensor.shape = shape;
  }
  View(const View &) = delete;
};

class Bench {
 public:
  explicit Bench(const Options &o) : o_(o) {
    chorus_error *error = nullptr;
    chorus_context_spec *spec = nullptr;
    must(chorus_context_spec_create(&spec, &error), error);
    must(chorus_context_spec_set_option(spec, "threads", std::to_string(o.threads).c_str(), &error), error);
    must(chorus_context_create(spec, &context_, &error), error);
    chorus_context_spec_destroy(spec);
    for (int64_t i = 0; i < o.models; ++i) inputs_.push_back(logits(o, static_cast<uint32_t>(i + 1)));
    log_probs_.resize(static_cast<size_t>(o.rows * o.vocab));
    samples_.resize(static_cast<size_t>(o.rows));
    sample_log_probs_.resize(static_cast<size_t>(o.rows));
    if (o.json)
      std::printf("{\"bench\": \"combine\", \"vocab\": %lld, \"rows\": %lld, \"models\": %lld, \"dtype\": \"%s\", "
                  "\"threads\": %lld, \"results\": [",
                  static_cast<long long>(o.vocab), static_cast<long long>(o.rows), static_cast<long long>(o.models),
                  o.dtype.c_str(), static_cast<long long>(o.threads));
  }
  ~Bench() {
    if (o_.json) std::printf("\n]}\n");
    chorus_context_destroy(context_);
  }

  void measure(const char *name, chorus_combine_rule rule, uint32_t outputs, double top_p = 0) {
    chorus_error *error = nullptr;
    chorus_combiner_spec *spec = nullptr;
    chorus_combiner *combiner = nullptr;
    must(chorus_combiner_spec_create(&spec, &error), error);
    must(chorus_combiner_spec_set_rule(spec, rule, &error), error);
    must(chorus_combiner_spec_set_max_rows(spec, o_.rows, &error), error);
    must(chorus_combiner_spec_set_outputs(spec, outputs, &error), error);
    must(chorus_combiner_spec_set_top_p(spec, top_p, &error), error);
    for (int64_t i = 0; i < o_.models; ++i)
      must(chorus_combiner_spec_add_model(spec, CHORUS_SCORES_LOGITS, dtype_of(o_), o_.vocab, o_.vocab,
                                          1.0 / static_cast<double>(i + 1), 1.0, nullptr, &error),
           error);
    must(chorus_combiner_create(context_, spec, o_.device.c_str(), &combiner, &error), error);
    chorus_combiner_spec_destroy(spec);
    std::vector<double> seconds, floors, parts;
    run(combiner, outputs);
    for (int64_t round = 0; round < o_.rounds; ++round) {
      floors.push_back(read_once(inputs_, o_.threads));
      seconds.push_back(run(combiner, outputs));
      parts.push_back(seconds.back() / floors.back());
    }
    print(name, chorus_combiner_get_kernel(combiner), median(seconds), median(floors), median(parts));
    chorus_combiner_destroy(combiner);
  }

 private:
  double run(const chorus_combiner *combiner, uint32_t outputs) {
    chorus_error *error = nullptr;
    std::vector<std::unique_ptr<View>> views;
    std::vector<const chorus_tensor *> scores;
    for (auto &input : inputs_) {
      views.push_back(std::make_unique<View>(input.data(), dtype_of(o_), o_.rows, o_.vocab));
      scores.push_back(&views.back()->tensor);
    }
    const View log_probs(log_probs_.data(), CHORUS_F32, o_.rows, o_.vocab), samples(samples_.data(), CHORUS_I32, o_.rows, 0),
        sample_log_probs(sample_log_probs_.data(), CHORUS_F32, o_.rows, 0);
    chorus_combine_in in = CHORUS_COMBINE_IN_INIT;
    in.rows = o_.rows;
    in.scores = scores.data();
    in.seed = 7;
    in.step = step_++;
    chorus_combine_out out = CHORUS_COMBINE_OUT_INIT;
    if ((outputs & CHORUS_COMBINE_OUT_LOG_PROBS) != 0) out.log_probs = &log_probs.tensor;
    if ((outputs & CHORUS_COMBINE_OUT_SAMPLE) != 0) {
      out.sample = &samples.tensor;
      out.sample_log_prob = &sample_log_probs.tensor;
    }
    const double begin = now();
    must(chorus_combiner_run(combiner, &in, &out, nullptr, &error), error);
    return now() - begin;
  }

  void print(const char *name, const char *kernel, double seconds, double floor, double part) {
    const double rows = static_cast<double>(o_.rows);
    if (o_.json) {
      std::printf("%s\n  {\"name\": \"%s\", \"kernel\": \"%s\", \"us_per_row\": %.4g, \"floor_us_per_row\": %.4g, "
                  "\"times_floor\": %.4g}",
                  first_ ? "" : ",", name, kernel, seconds / rows * 1e6, floor / rows * 1e6, part);
    } else {
      std::printf("%-18s %10.1f us/row   a plain sum %8.1f us/row   %6.2f x   (%s)\n", name, seconds / rows * 1e6,
                  floor / rows * 1e6, part, kernel);
    }
    first_ = false;
    std::fflush(stdout);
  }

  Options o_;
  chorus_context *context_ = nullptr;
  std::vector<std::vector<uint8_t>> inputs_;
  std::vector<float> log_probs_, sample_log_probs_;
  std::vector<int32_t> samples_;
  uint64_t step_ = 0;
  bool first_ = true;
};

}  // namespace

int main(int argc, char **argv) {
  Bench bench(parse(argc, argv));
  bench.measure("linear row", CHORUS_COMBINE_LINEAR, CHORUS_COMBINE_OUT_LOG_PROBS);
  bench.measure("log-linear row", CHORUS_COMBINE_LOG_LINEAR, CHORUS_COMBINE_OUT_LOG_PROBS);
  bench.measure("linear sample", CHORUS_COMBINE_LINEAR, CHORUS_COMBINE_OUT_SAMPLE);
  bench.measure("log-linear sample", CHORUS_COMBINE_LOG_LINEAR, CHORUS_COMBINE_OUT_SAMPLE);
  bench.measure("linear top-p", CHORUS_COMBINE_LINEAR, CHORUS_COMBINE_OUT_SAMPLE, 0.9);
  bench.measure("log-linear top-p", CHORUS_COMBINE_LOG_LINEAR, CHORUS_COMBINE_OUT_SAMPLE, 0.9);
  return 0;
}
