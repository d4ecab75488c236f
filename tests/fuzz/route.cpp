// SPDX-License-Identifier: Apache-2.0
// Given equal logits, ids, weights and lists are the same bits on `reference` and `cpu`: random routers (E to 8192, k to 64, any
// E that is no multiple of anything), rows full of ties, NaN, infinities, subnormals and zeros of both signs, padding and no
// tokens at all. Usage: fuzz-route [--rows N] [--seed S]. Exit 1 with the seed of the first case that differs.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "chorus/chorus.hpp"

namespace {

using Engine = std::mt19937_64;

int64_t integer(Engine &engine, int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(engine); }
bool chance(Engine &engine, double p) { return std::uniform_real_distribution<double>()(engine) < p; }
template <typename T>
T pick(Engine &engine, std::initializer_list<T> from) {
  return from.begin()[integer(engine, 0, static_cast<int64_t>(from.size()) - 1)];
}

struct Tensor {
  Tensor(chorus_dtype dtype, std::vector<int64_t> dims) : shape(std::move(dims)) {
    size_t count = 1;
    for (const int64_t size : shape) count *= static_cast<size_t>(size);
    memory.assign(count * (dtype >> 8) / 8, '\x5a');
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
  std::vector<int64_t> shape;
  std::vector<char> memory;
  chorus_tensor view = CHORUS_TENSOR_INIT;
};

// One case, all from its seed.
struct Case {
  explicit Case(uint64_t seed) : engine(seed) {
    experts = static_cast<int32_t>(chance(engine, 0.02)  ? integer(engine, 1000, 8192)
                                   : chance(engine, 0.5) ? pick<int64_t>(engine, {8, 16, 60, 64, 128, 160, 256, 384})
                                                         : integer(engine, 1, 300));
    k = static_cast<int32_t>(integer(engine, 1, std::min(experts, chance(engine, 0.1) ? 64 : 12)));
    tokens = chance(engine, 0.03) ? 0 : chance(engine, 0.05) ? integer(engine, 65, 400) : integer(engine, 1, 64);
    if (experts > 1000) tokens = std::min<int64_t>(tokens, 16);
  }

  // Groups of a divisor of E that hold k experts; 0: none.
  int32_t groups() {
    const int32_t n = pick(engine, {2, 4, 8, 16});
    if (experts % n != 0) return 0;
    kept_groups = static_cast<int32_t>(integer(engine, 1, n));
    return kept_groups * (experts / n) >= k ? n : 0;
  }

  chorus::RouterSpec spec() {
    chorus::RouterSpec out(experts, k);
    dtype = pick<chorus_dtype>(engine, {CHORUS_F32, CHORUS_F32, CHORUS_BF16, CHORUS_F16});
    ids_dtype = pick<chorus_dtype>(engine, {CHORUS_I32, CHORUS_I64});
    weights_dtype = pick<chorus_dtype>(engine, {CHORUS_F32, CHORUS_BF16});
    has_bias = chance(engine, 0.4);
    const auto score = static_cast<chorus_route_score>(integer(engine, 0, 4));
    const chorus_route_order order = chance(engine, 0.7) ? CHORUS_ROUTE_SCORE_THEN_TOPK : CHORUS_ROUTE_TOPK_THEN_SCORE;
    out.set_max_tokens(std::max<int64_t>(tokens, 1)).set_dtypes(dtype, ids_dtype, weights_dtype).set_score(score, order).set_bias(has_bias);
    out.set_weights(static_cast<chorus_route_renormalise>(integer(engine, 0, 2)), pick(engine, {0.0, 1e-20, 0.01}), pick(engine, {1.0, 2.5}));
    const int32_t n_groups = chance(engine, 0.4) ? groups() : 0;
    if (n_groups > 0) {
      const bool sums = chance(engine, 0.6);
      must(chorus_router_spec_set_groups(out.get(), n_groups, kept_groups, sums ? CHORUS_ROUTE_GROUP_TOP_SUM : CHORUS_ROUTE_GROUP_MAX,
                                         sums ? pick(engine, {1, 2, 2, 3}) : 0, nullptr));
    }
    if (chance(engine, 0.2)) must(chorus_router_spec_set_temperature(out.get(), pick(engine, {0.5, 1.7, 1e-6}), nullptr));
    block = chance(engine, 0.3) ? static_cast<int32_t>(integer(engine, 1, 20)) : 0;
    more = chance(engine, 0.3);
    outputs = (block > 0 ? CHORUS_ROUTE_OUT_BLOCKS : 0u) | (more ? CHORUS_ROUTE_OUT_EXPERT_LISTS | CHORUS_ROUTE_OUT_BITMAP : 0u);
    must(chorus_router_spec_set_outputs(out.get(), outputs, block, nullptr));
    return out;
  }

  float value(int kind) {
    static constexpr float kSpecials[] = {NAN, INFINITY, -INFINITY, 0.0f, -0.0f, 1e-42f, -1e-42f, 3e38f, -3e38f, 88.0f, -104.0f};
    if (kind == 1) return static_cast<float>(integer(engine, -2, 2));  // ties
    if (kind == 2 || chance(engine, 0.02)) return kSpecials[integer(engine, 0, 10)];
    if (kind == 3) return 1.5f;  // all alike
    const float x = std::normal_distribution<float>(0, 3)(engine);
    return x;
  }

  void fill(Tensor &logits) {
    size_t at = 0;
    for (int64_t t = 0; t < tokens; ++t) {
      const int kind = chance(engine, 0.5) ? 0 : static_cast<int>(integer(engine, 1, 3));
      for (int32_t e = 0; e < experts; ++e, ++at) {
        const float x = value(kind);
        const auto bits = std::bit_cast<uint32_t>(x);
        if (dtype == CHORUS_F32) std::memcpy(&logits.memory[4 * at], &x, 4);
        const auto high = static_cast<uint16_t>(bits >> 16);
        const auto half = static_cast<uint16_t>(kind == 0 ? integer(engine, 0, 65535) : high);  // f16: any pattern
        if (dtype == CHORUS_BF16) std::memcpy(&logits.memory[2 * at], &high, 2);
        if (dtype == CHORUS_F16) std::memcpy(&logits.memory[2 * at], &half, 2);
      }
    }
  }

  static void must(chorus_status status) {
    if (status != CHORUS_OK) throw std::runtime_error("a setter failed");
  }

  Engine engine;
  int32_t experts, k, kept_groups = 0, block = 0;
  int64_t tokens;
  chorus_dtype dtype = CHORUS_F32, ids_dtype = CHORUS_I32, weights_dtype = CHORUS_F32;
  bool has_bias = false, more = false;
  uint32_t outputs = 0;
};

// All outputs of one router.
struct Outputs {
  explicit Outputs(const Case &c)
      : ids(c.ids_dtype, {c.tokens, c.k}),
        weights(c.weights_dtype, {c.tokens, c.k}),
        counts(CHORUS_I32, {c.experts}),
        offsets(CHORUS_I32, {c.experts + 1}),
        order(CHORUS_I32, {c.tokens * c.k}),
        inverse(CHORUS_I32, {c.tokens * c.k}),
        padded(CHORUS_I32, {c.tokens * c.k + int64_t{c.experts} * std::max(c.block - 1, 0)}),
        block_experts(CHORUS_I32, {(padded.shape[0] + std::max(c.block, 1) - 1) / std::max(c.block, 1)}),
        n_blocks(CHORUS_I32, {1}),
        expert_tokens(CHORUS_I32, {c.experts, c.tokens}),
        expert_weights(CHORUS_F32, {c.experts, c.tokens}),
        bitmap(CHORUS_U8, {c.tokens, (c.experts + 7) / 8}) {
    out.ids = &ids.view;
    out.weights = &weights.view;
    out.counts = &counts.view;
    out.offsets = &offsets.view;
    out.order = &order.view;
    out.inverse = &inverse.view;
    if (c.block > 0) {
      out.padded_order = &padded.view;
      out.block_experts = &block_experts.view;
      out.n_blocks = &n_blocks.view;
    }
    if (c.more) {
      out.expert_tokens = &expert_tokens.view;
      out.expert_weights = &expert_weights.view;
      out.bitmap = &bitmap.view;
    }
  }
  // Name of the first output that differs; NULL: none.
  const char *difference(const Outputs &other) const {
    const struct {
      const char *name;
      const Tensor &mine, &theirs;
    } all[] = {{"ids", ids, other.ids}, {"weights", weights, other.weights}, {"counts", counts, other.counts},
               {"offsets", offsets, other.offsets}, {"order", order, other.order}, {"inverse", inverse, other.inverse},
               {"padded_order", padded, other.padded}, {"block_experts", block_experts, other.block_experts},
               {"n_blocks", n_blocks, other.n_blocks}, {"expert_tokens", expert_tokens, other.expert_tokens},
               {"expert_weights", expert_weights, other.expert_weights}, {"bitmap", bitmap, other.bitmap}};
    for (const auto &one : all) {
      if (one.mine.memory != one.theirs.memory) return one.name;
    }
    return nullptr;
  }

  Tensor ids, weights, counts, offsets, order, inverse, padded, block_experts, n_blocks, expert_tokens, expert_weights, bitmap;
  chorus_route_out out = CHORUS_ROUTE_OUT_INIT;
};

struct Word {
  const char *name;
  uint64_t *value;
};

}  // namespace

int main(int argc, char **argv) try {
  uint64_t rows = 20000, seed = 1;
  for (int i = 1; i + 1 < argc; i += 2) {
    for (const Word &word : {Word{"--rows", &rows}, Word{"--seed", &seed}}) {
      if (std::strcmp(argv[i], word.name) == 0) *word.value = std::strtoull(argv[i + 1], nullptr, 10);
    }
  }
  const chorus::Context context;
  uint64_t done = 0;
  for (uint64_t at = seed; done < rows; ++at) {
    Case c(at);
    const chorus::RouterSpec spec = c.spec();
    const chorus::Router reference(context, spec, "reference"), cpu(context, spec, "cpu");
    if (std::string(cpu.kernel()).rfind("cpu/", 0) != 0) {
      std::printf("seed %llu: cpu falls back to %s\n", static_cast<unsigned long long>(at), cpu.kernel());
      return 1;
    }
    Tensor logits(c.dtype, {c.tokens, c.experts}), bias(CHORUS_F32, {c.experts}), n_valid(CHORUS_I64, {1});
    c.fill(logits);
    for (int32_t e = 0; e < c.experts; ++e) {
      const float b = c.value(chance(c.engine, 0.5) ? 1 : 0);
      std::memcpy(&bias.memory[4 * static_cast<size_t>(e)], &b, 4);
    }
    const int64_t valid = integer(c.engine, -1, c.tokens + 1);
    std::memcpy(n_valid.memory.data(), &valid, 8);
    chorus_route_in in = CHORUS_ROUTE_IN_INIT;
    if (c.has_bias) in.bias = &bias.view;
    if (chance(c.engine, 0.3)) in.n_valid = &n_valid.view;
    Outputs mine(c), theirs(c);
    chorus_error *error = nullptr;
    for (const auto &[router, out] : {std::pair{&reference, &theirs}, std::pair{&cpu, &mine}}) {
      if (chorus_router_route(router->get(), &logits.view, &in, &out->out, nullptr, &error) != CHORUS_OK) {
        std::printf("seed %llu: %s\n", static_cast<unsigned long long>(at), chorus_error_get_text(error));
        return 1;
      }
    }
    if (const char *name = mine.difference(theirs)) {
      std::printf("seed %llu: %s differs (E %d, k %d, T %lld)\n", static_cast<unsigned long long>(at), name, c.experts, c.k,
                  static_cast<long long>(c.tokens));
      return 1;
    }
    done += static_cast<uint64_t>(c.tokens);
  }
  std::printf("%llu rows, all bits equal\n", static_cast<unsigned long long>(done));
  return 0;
} catch (const std::exception &error) {
  std::printf("%s\n", error.what());
  return 1;
}
