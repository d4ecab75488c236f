// SPDX-License-Identifier: Apache-2.0
// Small calls of each object, on memory of their own, whose results are compared byte by byte.
#pragma once
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "chorus/chorus.hpp"

namespace threads {

// Numbers in [-2, 2), the same for the same seed.
inline std::vector<float> numbers(size_t count, uint64_t seed) {
  std::vector<float> out(count);
  for (float &x : out) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    x = static_cast<float>(static_cast<double>(seed >> 40) / (1 << 22)) - 2;
  }
  return out;
}

template <typename T>
void append(const std::vector<T> &values, std::string *bytes) {
  bytes->append(reinterpret_cast<const char *>(values.data()), values.size() * sizeof(T));
}

constexpr int64_t kRows = 7, kTokens = 3001;
constexpr int64_t kExperts = 5, kK = 2, kHidden = 64, kInner = 48, kBatch = 33;

// The objects that all threads share. Their inputs are read-only; each call brings its own outputs.
struct Objects {
  std::vector<float> a = numbers(kRows * kTokens, 1), b = numbers(kRows * kTokens, 2);
  std::vector<float> logits = numbers(kBatch * kExperts, 3), x = numbers(kBatch * kHidden, 4);
  std::vector<float> gate_up = numbers(kExperts * 2 * kInner * kHidden, 5), down = numbers(kExperts * kHidden * kInner, 6);
  chorus::Tensor gate_up_view{gate_up.data(), {kExperts, 2 * kInner, kHidden}}, down_view{down.data(), {kExperts, kHidden, kInner}};
  chorus::Combiner combiner;
  chorus::Router router;
  chorus::Experts experts;

  Objects(const chorus::Context &context, const std::string &device)
      : combiner(context, combiner_spec(), device), router(context, router_spec(), device),
        experts(context, experts_spec(), device) {}

  // Bytes of all results of one call of each.
  std::string run() const { return combined() + routed(); }

  std::string combined() const {
    std::vector<float> log_probs(kRows * kTokens), sample_log_prob(kRows);
    std::vector<int32_t> argmax(kRows), sample(kRows), status(kRows);
    const chorus::Tensor first(a.data(), {kRows, kTokens}), second(b.data(), {kRows, kTokens});
    const chorus::Tensor out_rows(log_probs.data(), {kRows, kTokens}), out_argmax(argmax.data(), {kRows}),
        out_sample(sample.data(), {kRows}), out_sample_log_prob(sample_log_prob.data(), {kRows}), out_status(status.data(), {kRows});
    const chorus_tensor *scores[] = {first.get(), second.get()};
    chorus_combine_in in = CHORUS_COMBINE_IN_INIT;
    in.rows = kRows;
    in.scores = scores;
    in.seed = 11;
    chorus_combine_out out = CHORUS_COMBINE_OUT_INIT;
    out.log_probs = out_rows.get();
    out.argmax = out_argmax.get();
    out.sample = out_sample.get();
    out.sample_log_prob = out_sample_log_prob.get();
    out.status = out_status.get();
    combiner.run(in, out);
    std::string bytes;
    append(log_probs, &bytes);
    append(argmax, &bytes);
    append(sample, &bytes);
    append(sample_log_prob, &bytes);
    append(status, &bytes);
    return bytes;
  }

  std::string routed() const {
    std::vector<int32_t> ids(kBatch * kK), counts(kExperts);
    std::vector<float> weights(kBatch * kK), y(kBatch * kHidden);
    const chorus::Tensor scores(logits.data(), {kBatch, kExperts}), out_ids(ids.data(), {kBatch, kK}),
        out_weights(weights.data(), {kBatch, kK}), out_counts(counts.data(), {kExperts});
    chorus_route_out out = CHORUS_ROUTE_OUT_INIT;
    out.ids = out_ids.get();
    out.weights = out_weights.get();
    out.counts = out_counts.get();
    router.route(scores, nullptr, out);
    experts.run(chorus::Tensor(x.data(), {kBatch, kHidden}), out_ids, out_weights, chorus::Tensor(y.data(), {kBatch, kHidden}));
    std::string bytes;
    append(ids, &bytes);
    append(weights, &bytes);
    append(counts, &bytes);
    append(y, &bytes);
    return bytes;
  }

 private:
  static chorus::CombinerSpec combiner_spec() {
    chorus::CombinerSpec spec;
    spec.set_max_rows(kRows);
    spec.add_model(CHORUS_SCORES_LOGITS, CHORUS_F32, kTokens, kTokens, 0.7);
    spec.add_model(CHORUS_SCORES_LOGITS, CHORUS_F32, kTokens, kTokens, 0.3, 0.8);
    return spec;
  }
  static chorus::RouterSpec router_spec() {
    chorus::RouterSpec spec(kExperts, kK);
    spec.set_max_tokens(kBatch);
    return spec;
  }
  chorus::ExpertsSpec experts_spec() const {
    chorus::ExpertsSpec spec(gate_up_view, down_view, kK);
    spec.set_max_tokens(kBatch);
    return spec;
  }
};

}  // namespace threads
