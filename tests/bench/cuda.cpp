// SPDX-License-Identifier: Apache-2.0
// The CUDA backend beside its floors: the bytes a call must touch over the bandwidth of a device copy in the same run (a
// copy of n bytes touches 2 n). Times are of calls enqueued back to back on one stream, median of the rounds; small cases
// stay in the L2 cache and include the price of a launch. Without a GPU it says so and ends.
// Usage: bench-cuda [--json] [--rounds R]
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "chorus/chorus.hpp"

namespace {

constexpr const char *kDevice = "cuda:0";
using Clock = std::chrono::steady_clock;

struct Bench {
  chorus::Context context;
  bool json;
  int rounds;
  double bandwidth = 0;  // bytes per second
  chorus::Memory flag{context, kDevice, 256};

  // All that was enqueued is done.
  void wait() {
    char bytes[256];
    flag.copy_to(bytes);
  }

  // Seconds of one call of `body`, enqueued `count` times a round.
  double time(int count, const std::function<void()> &body) {
    std::vector<double> seconds;
    for (int round = -1; round < rounds; ++round) {  // round -1 warms up
      wait();
      const auto begin = Clock::now();
      for (int i = 0; i < count; ++i) body();
      wait();
      if (round >= 0) seconds.push_back(std::chrono::duration<double>(Clock::now() - begin).count() / count);
    }
    std::sort(seconds.begin(), seconds.end());
    return seconds[seconds.size() / 2];
  }

  void report(const std::string &name, double bytes, int count, const std::function<void()> &body) {
    const double seconds = time(count, body), floor = bytes / bandwidth;
    if (json) {
      std::printf("{\"case\": \"%s\", \"us\": %.2f, \"floor_us\": %.2f, \"ratio\": %.2f}\n", name.c_str(), 1e6 * seconds, 1e6 * floor,
                  seconds / floor);
    } else {
      std::printf("%-52s %9.2f us  floor %9.2f us  x %.2f\n", name.c_str(), 1e6 * seconds, 1e6 * floor, seconds / floor);
    }
    std::fflush(stdout);
  }
};

chorus::Tensor on_device(const chorus::Memory &memory, chorus_dtype dtype, std::initializer_list<int64_t> shape) {
  return chorus::Tensor(memory.data(), dtype, shape).on(CHORUS_DEVICE_CUDA, 0);
}

// bf16 normal numbers of this deviation, from a short sequence repeated.
chorus::Memory normal_numbers(const Bench &bench, uint64_t count, float deviation, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, deviation);
  std::vector<uint16_t> period(1 << 20), all(count);
  for (uint16_t &x : period) {
    const float value = normal(random);
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    x = static_cast<uint16_t>(bits >> 16);
  }
  for (uint64_t i = 0; i < count; ++i) all[i] = period[(i + (i >> 20) * 7919) % period.size()];
  chorus::Memory memory(bench.context, kDevice, 2 * count);
  memory.copy_from(all.data());
  return memory;
}

void combine(Bench &bench, int models, int64_t rows, bool row_out) {
  constexpr int64_t kVocabulary = 128256;
  chorus::CombinerSpec spec;
  spec.set_max_rows(rows).set_outputs(CHORUS_COMBINE_OUT_LOG_PROBS | CHORUS_COMBINE_OUT_SAMPLE | CHORUS_COMBINE_OUT_STATUS);
  std::vector<chorus::Memory> scores;
  std::vector<chorus::Tensor> tensors;
  std::vector<const chorus_tensor *> views;
  for (int i = 0; i < models; ++i) {
    spec.add_model(CHORUS_SCORES_LOGITS, CHORUS_BF16, kVocabulary, kVocabulary, 1.0 / models);
    scores.push_back(normal_numbers(bench, static_cast<uint64_t>(rows * kVocabulary), 3, static_cast<uint32_t>(i)));
  }
  for (const chorus::Memory &memory : scores) tensors.push_back(on_device(memory, CHORUS_BF16, {rows, kVocabulary}));
  for (const chorus::Tensor &tensor : tensors) views.push_back(tensor.get());
  const chorus::Combiner combiner(bench.context, spec, kDevice);
  const chorus::Memory out(bench.context, kDevice, static_cast<uint64_t>(4 * rows * (row_out ? kVocabulary : 1)));
  const chorus::Memory log_prob(bench.context, kDevice, static_cast<uint64_t>(4 * rows));
  const chorus::Tensor log_probs = on_device(out, CHORUS_F32, {rows, row_out ? kVocabulary : 1});
  const chorus::Tensor sample = on_device(out, CHORUS_I32, {rows}), sample_log_prob = on_device(log_prob, CHORUS_F32, {rows});
  chorus_combine_in in = CHORUS_COMBINE_IN_INIT;
  in.rows = rows;
  in.scores = views.data();
  chorus_combine_out outputs = CHORUS_COMBINE_OUT_INIT;
  if (row_out) {
    outputs.log_probs = log_probs.get();
  } else {
    outputs.sample = sample.get();
    outputs.sample_log_prob = sample_log_prob.get();
  }
  const chorus::Memory workspace(bench.context, kDevice, combiner.workspace_size(rows) + 1);
  chorus_exec exec = CHORUS_EXEC_INIT;
  exec.workspace = workspace.data();
  exec.workspace_bytes = combiner.workspace_size(rows);
  const double bytes = static_cast<double>(rows * kVocabulary) * (2 * models + (row_out ? 4 : 0));
  const std::string name = "combine linear " + std::string(row_out ? "row" : "sample") + " N=" + std::to_string(models) + " B=" + std::to_string(rows) + " V=128256 bf16";
  bench.report(name, bytes, rows > 8 ? 20 : 200, [&] {
    ++in.step;
    combiner.run(in, outputs, &exec);
  });
}

void route(Bench &bench, int64_t tokens) {
  constexpr int32_t kExperts = 256, kChosen = 8;
  chorus::RouterSpec spec(kExperts, kChosen);
  spec.set_max_tokens(tokens).set_dtypes(CHORUS_BF16, CHORUS_I32, CHORUS_F32);
  const chorus::Router router(bench.context, spec, kDevice);
  const chorus::Memory logits = normal_numbers(bench, static_cast<uint64_t>(tokens * kExperts), 2, 7);
  const auto slots = static_cast<uint64_t>(tokens * kChosen);
  const chorus::Memory ids(bench.context, kDevice, 4 * slots), weights(bench.context, kDevice, 4 * slots), order(bench.context, kDevice, 4 * slots);
  const chorus::Memory counts(bench.context, kDevice, 4 * kExperts), offsets(bench.context, kDevice, 4 * (kExperts + 1));
  const chorus::Tensor logits_view = on_device(logits, CHORUS_BF16, {tokens, kExperts});
  const chorus::Tensor ids_view = on_device(ids, CHORUS_I32, {tokens, kChosen}), weights_view = on_device(weights, CHORUS_F32, {tokens, kChosen});
  const chorus::Tensor order_view = on_device(order, CHORUS_I32, {tokens * kChosen}), counts_view = on_device(counts, CHORUS_I32, {kExperts}),
                       offsets_view = on_device(offsets, CHORUS_I32, {kExperts + 1});
  chorus_route_out out = CHORUS_ROUTE_OUT_INIT;
  out.ids = ids_view.get();
  out.weights = weights_view.get();
  out.counts = counts_view.get();
  out.offsets = offsets_view.get();
  out.order = order_view.get();
  const uint64_t needed = router.workspace_size(tokens);
  const chorus::Memory workspace(bench.context, kDevice, needed + 1);
  chorus_exec exec = CHORUS_EXEC_INIT;
  exec.workspace = workspace.data();
  exec.workspace_bytes = needed;
  bench.report("route softmax top-8 of 256 T=" + std::to_string(tokens), static_cast<double>(tokens) * (2 * kExperts + 12 * kChosen), 100,
               [&] { router.route(logits_view, nullptr, out, &exec); });
}

// Random distinct experts for each token; bytes count the experts touched once.
void experts(Bench &bench, const char *model, int32_t n, int32_t k, int64_t hidden, int64_t intermediate, int64_t tokens) {
  const chorus::Memory gate_up = normal_numbers(bench, static_cast<uint64_t>(n * 2 * intermediate * hidden), 0.02f, 1);
  const chorus::Memory down = normal_numbers(bench, static_cast<uint64_t>(n * hidden * intermediate), 0.02f, 2);
  const chorus::Tensor gate_up_view = on_device(gate_up, CHORUS_BF16, {n, 2 * intermediate, hidden}),
                       down_view = on_device(down, CHORUS_BF16, {n, hidden, intermediate});
  chorus::ExpertsSpec spec(gate_up_view, down_view, k);
  spec.set_max_tokens(tokens).set_dtypes(CHORUS_BF16, CHORUS_BF16, CHORUS_I32);
  const chorus::Experts layer(bench.context, spec, kDevice);
  std::mt19937 random(5);
  std::vector<int32_t> ids, all(static_cast<size_t>(n));
  std::vector<bool> touched(static_cast<size_t>(n));
  for (int32_t e = 0; e < n; ++e) all[static_cast<size_t>(e)] = e;
  for (int64_t t = 0; t < tokens; ++t) {
    std::shuffle(all.begin(), all.end(), random);
    ids.insert(ids.end(), all.begin(), all.begin() + k);
  }
  for (const int32_t e : ids) touched[static_cast<size_t>(e)] = true;
  const std::vector<float> ones(ids.size(), 0.125f);
  chorus::Memory ids_memory(bench.context, kDevice, 4 * ids.size()), weights(bench.context, kDevice, 4 * ids.size());
  ids_memory.copy_from(ids.data());
  weights.copy_from(ones.data());
  const chorus::Memory x = normal_numbers(bench, static_cast<uint64_t>(tokens * hidden), 1, 3), y(bench.context, kDevice, static_cast<uint64_t>(2 * tokens * hidden));
  const chorus::Tensor x_view = on_device(x, CHORUS_BF16, {tokens, hidden}), y_view = on_device(y, CHORUS_BF16, {tokens, hidden});
  const chorus::Tensor ids_view = on_device(ids_memory, CHORUS_I32, {tokens, k}), weights_view = on_device(weights, CHORUS_F32, {tokens, k});
  const uint64_t needed = layer.workspace_size(tokens);
  const chorus::Memory workspace(bench.context, kDevice, needed + 1);
  chorus_exec exec = CHORUS_EXEC_INIT;
  exec.workspace = workspace.data();
  exec.workspace_bytes = needed;
  const auto used = static_cast<double>(std::count(touched.begin(), touched.end(), true));
  bench.report("experts " + std::string(model) + " T=" + std::to_string(tokens), used * 6 * static_cast<double>(intermediate * hidden), tokens > 64 ? 3 : 20,
               [&] { layer.run(x_view, ids_view, weights_view, y_view, nullptr, &exec); });
}

void measure_bandwidth(Bench &bench) {
  constexpr uint64_t kBytes = uint64_t{1} << 30;
  chorus::Memory from(bench.context, kDevice, kBytes), to(bench.context, kDevice, kBytes);
  const double seconds = bench.time(5, [&] { to.copy_from(from.data()); });
  bench.bandwidth = 2.0 * kBytes / seconds;
  std::printf("device copy: %.0f GB/s\n", bench.bandwidth / 1e9);
}

}  // namespace

int main(int argc, char **argv) {
  bool json = false;
  int rounds = 7;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--json") == 0) {
      json = true;
    } else if (std::strcmp(argv[i], "--rounds") == 0 && i + 1 < argc && std::atoi(argv[i + 1]) > 0) {
      rounds = std::atoi(argv[++i]);
    } else {
      std::fprintf(stderr, "usage: bench-cuda [--json] [--rounds R]\n");
      return 2;
    }
  }
  try {
    std::optional<Bench> bench;
    try {
      bench.emplace(chorus::Context(), json, rounds);
    } catch (const chorus::Error &error) {
      std::printf("no benchmark of CUDA on this machine: %s\n", error.text());
      return 0;
    }
    measure_bandwidth(*bench);
    combine(*bench, 3, 256, true);
    combine(*bench, 3, 256, false);
    combine(*bench, 2, 1, true);
    combine(*bench, 2, 1, false);
    for (const int64_t tokens : {1, 64, 16384}) route(*bench, tokens);
    for (const int64_t tokens : {1, 16, 1024}) experts(*bench, "Qwen3-30B", 128, 8, 2048, 768, tokens);
    experts(*bench, "Mixtral", 8, 2, 4096, 14336, 1);
  } catch (const chorus::Error &error) {
    std::fprintf(stderr, "bench-cuda: %s\n", error.text());
    return 1;
  }
  return 0;
}
