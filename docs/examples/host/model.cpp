// SPDX-License-Identifier: Apache-2.0
// Reading a model folder: shapes from config.json, weights by their names, all through chorus_checkpoint_*.
#include <cmath>
#include <optional>

#include "llama.h"

namespace host {
namespace {

// The tensors and numbers of one folder.
class Reader {
 public:
  Reader(const Library &library, const chorus_context *context, const std::string &folder)
      : library_(library), file_(library.make(library.chorus_checkpoint_destroy, [&](auto **out, auto **error) {
          return library.chorus_checkpoint_open(context, folder.c_str(), out, error);
        })) {}

  std::optional<double> find_number(const char *key) const {
    double value = 0;
    if (library_.chorus_checkpoint_get_config_number(file_.get(), key, &value, nullptr) != CHORUS_OK) return {};
    return value;
  }
  double number(const char *key) const {
    double value = 0;
    library_.check([&](chorus_error **error) {
      return library_.chorus_checkpoint_get_config_number(file_.get(), key, &value, error);
    });
    return value;
  }
  size_t size(const char *key) const {
    const double value = number(key);
    if (value >= 1 && value <= 1 << 20 && value == std::floor(value)) return static_cast<size_t>(value);
    throw std::runtime_error(std::string("config.json: ") + key + " is " + std::to_string(value) +
                             "; allowed are whole numbers from 1 to 1048576");
  }

  // As stored, [rows, columns]: Chorus converts bf16 and f16 to f32 and refuses any other shape.
  Matrix matrix(const std::string &name, size_t rows, size_t columns) const {
    Matrix out(rows, columns);
    read(name, View(out));
    return out;
  }
  std::vector<float> vector(const std::string &name, size_t n) const {
    std::vector<float> out(n);
    read(name, View(out.data(), {static_cast<int64_t>(n)}));
    return out;
  }

 private:
  void read(const std::string &name, const View &out) const {
    size_t index = 0;
    library_.check([&](chorus_error **error) {
      return library_.chorus_checkpoint_find_tensor(file_.get(), name.c_str(), &index, error);
    });
    library_.check([&](chorus_error **error) {
      return library_.chorus_checkpoint_read(file_.get(), index, out, error);
    });
  }

  const Library &library_;
  Handle<chorus_checkpoint> file_;
};

Config read_config(const Reader &reader) {
  Config c;
  c.hidden = reader.size("hidden_size");
  c.intermediate = reader.size("intermediate_size");
  c.layers = reader.size("num_hidden_layers");
  c.heads = reader.size("num_attention_heads");
  c.kv_heads = reader.size("num_key_value_heads");
  c.head_size = reader.find_number("head_dim") ? reader.size("head_dim") : c.hidden / c.heads;
  c.vocabulary = reader.size("vocab_size");
  c.window = reader.size("max_position_embeddings");
  if (reader.find_number("num_local_experts")) {
    c.experts = reader.size("num_local_experts");
    c.experts_per_token = reader.size("num_experts_per_tok");
  }
  const auto nested = reader.find_number("rope_parameters.rope_theta");
  c.rope_theta = static_cast<float>(nested ? *nested : reader.find_number("rope_theta").value_or(10000));
  c.norm_eps = static_cast<float>(reader.number("rms_norm_eps"));
  if (c.heads % c.kv_heads != 0 || c.head_size == 0 || c.head_size % 2 != 0) {
    throw std::runtime_error("config.json: num_attention_heads must be a multiple of num_key_value_heads, and a head's "
                             "size even");
  }
  return c;
}

}  // namespace

Llama::Llama(const Library &library, const chorus_context *context, const std::string &folder) : library_(library) {
  const Reader reader(library, context, folder);
  config_ = read_config(reader);
  const Config &c = config_;
  embedding_ = reader.matrix("model.embed_tokens.weight", c.vocabulary, c.hidden);
  norm_ = reader.vector("model.norm.weight", c.hidden);
  head_ = reader.matrix("lm_head.weight", c.vocabulary, c.hidden).transposed();
  for (size_t i = 0; i < c.layers; ++i) {
    const std::string at = "model.layers." + std::to_string(i) + ".";
    const auto product = [&](const std::string &name, size_t out, size_t in) {
      return reader.matrix(at + name + ".weight", out, in).transposed();
    };
    Layer layer;
    layer.attention_norm = reader.vector(at + "input_layernorm.weight", c.hidden);
    layer.feed_forward_norm = reader.vector(at + "post_attention_layernorm.weight", c.hidden);
    layer.q = product("self_attn.q_proj", c.heads * c.head_size, c.hidden);
    layer.k = product("self_attn.k_proj", c.kv_heads * c.head_size, c.hidden);
    layer.v = product("self_attn.v_proj", c.kv_heads * c.head_size, c.hidden);
    layer.o = product("self_attn.o_proj", c.hidden, c.heads * c.head_size);
    if (c.experts == 0) {
      layer.feed_forward.gate = product("mlp.gate_proj", c.intermediate, c.hidden);
      layer.feed_forward.up = product("mlp.up_proj", c.intermediate, c.hidden);
      layer.feed_forward.down = product("mlp.down_proj", c.hidden, c.intermediate);
    } else {
      layer.feed_forward.router = product("block_sparse_moe.gate", c.experts, c.hidden);
      std::vector<float> gate_up, down;  // [E, 2I, H] and [E, H, I], as chorus_experts wants them
      const auto append = [](std::vector<float> &to, const Matrix &m) {
        to.insert(to.end(), m.data.begin(), m.data.end());
      };
      for (size_t e = 0; e < c.experts; ++e) {
        const std::string expert = at + "block_sparse_moe.experts." + std::to_string(e) + ".";
        append(gate_up, reader.matrix(expert + "w1.weight", c.intermediate, c.hidden));
        append(gate_up, reader.matrix(expert + "w3.weight", c.intermediate, c.hidden));
        append(down, reader.matrix(expert + "w2.weight", c.hidden, c.intermediate));
      }
      pack(context, layer.feed_forward, gate_up, down);
    }
    layers_.push_back(std::move(layer));
  }
}

std::string Llama::router_kernel() const {
  if (config_.experts == 0) return "";
  return library_.chorus_router_get_kernel(layers_.front().feed_forward.route.get());
}

std::string Llama::experts_kernel() const {
  if (config_.experts == 0) return "";
  return library_.chorus_experts_get_kernel(layers_.front().feed_forward.experts.get());
}

// Mixtral's rule: softmax of all experts, the best k, their weights made to sum to one.
void Llama::pack(const chorus_context *context, FeedForward &part, const std::vector<float> &gate_up,
                 const std::vector<float> &down) const {
  const auto experts = static_cast<int64_t>(config_.experts), hidden = static_cast<int64_t>(config_.hidden);
  const auto inner = static_cast<int64_t>(config_.intermediate), window = static_cast<int64_t>(config_.window);
  const auto k = static_cast<int32_t>(config_.experts_per_token);
  const auto &lib = library_;

  const auto route = lib.make(lib.chorus_router_spec_destroy, [&](auto **out, auto **error) {
    return lib.chorus_router_spec_create(static_cast<int32_t>(experts), k, out, error);
  });
  lib.check([&](auto **error) { return lib.chorus_router_spec_set_max_tokens(route.get(), window, error); });
  lib.check([&](auto **error) {
    return lib.chorus_router_spec_set_weights(route.get(), CHORUS_ROUTE_RENORMALISE_SUM, 0, 1, error);
  });
  part.route = lib.make(lib.chorus_router_destroy, [&](auto **out, auto **error) {
    return lib.chorus_router_create(context, route.get(), "auto", out, error);
  });

  const View up(gate_up.data(), {experts, 2 * inner, hidden}), back(down.data(), {experts, hidden, inner});
  const auto packed = lib.make(lib.chorus_experts_spec_destroy, [&](auto **out, auto **error) {
    return lib.chorus_experts_spec_create(up, back, k, out, error);
  });
  lib.check([&](auto **error) { return lib.chorus_experts_spec_set_max_tokens(packed.get(), window, error); });
  part.experts = lib.make(lib.chorus_experts_destroy, [&](auto **out, auto **error) {
    return lib.chorus_experts_create(context, packed.get(), "auto", out, error);
  });
}

}  // namespace host
