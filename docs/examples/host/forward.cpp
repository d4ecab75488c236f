// SPDX-License-Identifier: Apache-2.0
// The forward pass: grouped-query attention with rotary positions, SwiGLU, and mixtures through Chorus.
#include <algorithm>
#include <cmath>

#include "llama.h"

namespace host {
namespace {

// Rotates halves of each head by the angle of its position (Su et al., arXiv:2104.09864, "rotate half" layout).
void rotate(Matrix &x, size_t heads, size_t head_size, float theta) {
  const size_t half = head_size / 2;
  for (size_t t = 0; t < x.rows; ++t) {
    for (size_t i = 0; i < half; ++i) {
      const float frequency = 1.0f / std::pow(theta, static_cast<float>(2 * i) / static_cast<float>(head_size));
      const float angle = static_cast<float>(t) * frequency;
      const float cosine = std::cos(angle), sine = std::sin(angle);
      for (size_t h = 0; h < heads; ++h) {
        float *head = x.row(t) + h * head_size;
        const float a = head[i], b = head[i + half];
        head[i] = a * cosine - b * sine;
        head[i + half] = b * cosine + a * sine;
      }
    }
  }
}

float dot(const float *a, const float *b, size_t n) {
  float sum = 0;
  for (size_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

}  // namespace

Matrix Llama::attention(const Layer &layer, const Matrix &x) const {
  const size_t size = config_.head_size, group = config_.heads / config_.kv_heads;
  Matrix q = multiply(x, layer.q), k = multiply(x, layer.k);
  const Matrix v = multiply(x, layer.v);
  rotate(q, config_.heads, size, config_.rope_theta);
  rotate(k, config_.kv_heads, size, config_.rope_theta);
  const float scale = 1.0f / std::sqrt(static_cast<float>(size));
  Matrix mixed(x.rows, config_.heads * size);
  std::vector<float> weights(x.rows);
  for (size_t h = 0; h < config_.heads; ++h) {
    const size_t kv = h / group * size;
    for (size_t t = 0; t < x.rows; ++t) {
      for (size_t s = 0; s <= t; ++s) weights[s] = scale * dot(q.row(t) + h * size, k.row(s) + kv, size);
      softmax(weights.data(), t + 1);
      float *out = mixed.row(t) + h * size;
      for (size_t s = 0; s <= t; ++s) {
        for (size_t i = 0; i < size; ++i) out[i] += weights[s] * v.row(s)[kv + i];
      }
    }
  }
  return multiply(mixed, layer.o);
}

Matrix Llama::dense(const FeedForward &part, const Matrix &x) const {
  Matrix gate = multiply(x, part.gate);
  const Matrix up = multiply(x, part.up);
  for (size_t i = 0; i < gate.data.size(); ++i) gate.data[i] = silu(gate.data[i]) * up.data[i];
  return multiply(gate, part.down);
}

// Router logits by our own product; choosing the experts and running them is Chorus's part.
Matrix Llama::mixture(const FeedForward &part, const Matrix &x, std::vector<int64_t> *load) const {
  Matrix logits = multiply(x, part.router), y(x.rows, x.columns);
  const auto tokens = static_cast<int64_t>(x.rows), k = static_cast<int64_t>(config_.experts_per_token);
  std::vector<int32_t> ids(x.rows * config_.experts_per_token), counts(config_.experts);
  std::vector<float> weights(ids.size());
  library_.route(part.route, View(logits), View(ids.data(), {tokens, k}), View(weights.data(), {tokens, k}),
                 View(counts.data(), {static_cast<int64_t>(counts.size())}));
  library_.run_experts(part.experts, View(x), View(ids.data(), {tokens, k}), View(weights.data(), {tokens, k}),
                       View(y));
  for (size_t e = 0; load != nullptr && e < counts.size(); ++e) (*load)[e] += counts[e];
  return y;
}

Matrix Llama::forward(const std::vector<int32_t> &tokens, ExpertLoad *load) const {
  if (load != nullptr && config_.experts > 0) load->resize(layers_.size(), std::vector<int64_t>(config_.experts));
  Matrix x(tokens.size(), config_.hidden);
  for (size_t t = 0; t < tokens.size(); ++t) {
    if (static_cast<size_t>(tokens[t]) >= config_.vocabulary) {
      throw std::runtime_error("token " + std::to_string(tokens[t]) + " is none of the model's " +
                               std::to_string(config_.vocabulary));
    }
    std::copy_n(embedding_.row(static_cast<size_t>(tokens[t])), config_.hidden, x.row(t));
  }
  for (size_t i = 0; i < layers_.size(); ++i) {
    const Layer &layer = layers_[i];
    add_to(x, attention(layer, rms_norm(x, layer.attention_norm, config_.norm_eps)));
    const Matrix normed = rms_norm(x, layer.feed_forward_norm, config_.norm_eps);
    add_to(x, config_.experts > 0 ? mixture(layer.feed_forward, normed, load != nullptr ? &(*load)[i] : nullptr)
                                  : dense(layer.feed_forward, normed));
  }
  return multiply(rms_norm(x, norm_, config_.norm_eps), head_);
}

}  // namespace host
