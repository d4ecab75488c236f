// SPDX-License-Identifier: Apache-2.0
// A Llama (or Mixtral) read from a model folder, and its forward pass: plain code, but the experts of a
// mixture-of-experts layer, which go through chorus_router and chorus_experts.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "library.h"
#include "matrix.h"

namespace host {

struct Config {
  size_t hidden = 0, intermediate = 0, layers = 0, heads = 0, kv_heads = 0, head_size = 0, vocabulary = 0;
  size_t window = 0;                          // most tokens of one forward pass
  size_t experts = 0, experts_per_token = 0;  // 0: dense
  float rope_theta = 10000.0f, norm_eps = 1e-6f;
};

// The feed-forward part of a layer: dense weights, or a gate with experts.
struct FeedForward {
  Matrix gate, up, down;  // [in, out]
  Matrix router;          // [hidden, experts]
  Handle<chorus_router> route;
  Handle<chorus_experts> experts;
};

struct Layer {
  std::vector<float> attention_norm, feed_forward_norm;
  Matrix q, k, v, o;  // [in, out]
  FeedForward feed_forward;
};

// How many tokens each expert was given, [layers][experts]; no layers for a dense model.
using ExpertLoad = std::vector<std::vector<int64_t>>;

class Llama {
 public:
  // Reads `folder` through chorus_checkpoint_*.
  Llama(const Library &library, const chorus_context *context, const std::string &folder);

  // Logits [tokens, vocabulary] of every position of one window, each seeing itself and what comes before. The work
  // given to experts is added to `load`, which may be null.
  Matrix forward(const std::vector<int32_t> &tokens, ExpertLoad *load = nullptr) const;

  const Config &config() const { return config_; }

  // The kernels that serve the mixture-of-experts layers; "" for a dense model.
  std::string router_kernel() const;
  std::string experts_kernel() const;

 private:
  Matrix attention(const Layer &layer, const Matrix &x) const;
  Matrix dense(const FeedForward &part, const Matrix &x) const;
  Matrix mixture(const FeedForward &part, const Matrix &x, std::vector<int64_t> *load) const;
  void pack(const chorus_context *context, FeedForward &part, const std::vector<float> &gate_up,
            const std::vector<float> &down) const;

  const Library &library_;
  Config config_;
  Matrix embedding_, head_;  // [vocabulary, hidden], [hidden, vocabulary]
  std::vector<float> norm_;
  std::vector<Layer> layers_;
};

}  // namespace host
