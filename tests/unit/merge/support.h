// SPDX-License-Identifier: Apache-2.0
// Small models on disk, merges of them, and their numbers as doubles.
#pragma once
#include <criterion/criterion.h>

#include <cmath>
#include <functional>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "chorus/chorus.hpp"
#include "unit/support.h"

namespace unit {

struct Values {
  chorus_dtype dtype = CHORUS_F32;
  std::vector<int64_t> shape;
  std::vector<double> values;
};
using Model = std::map<std::string, Values>;

inline int64_t product(const std::vector<int64_t> &shape) {
  int64_t out = 1;
  for (const int64_t size : shape) out *= size;
  return out;
}

inline chorus::Context context(int threads = 1) {
  chorus::ContextSpec spec;
  spec.set_option("threads", std::to_string(threads));
  return chorus::Context(spec);
}

// Writes the model; its values become what the dtype holds.
inline void save(const std::string &folder, Model *model, const std::string &config = "{\"num_hidden_layers\": 2}") {
  const chorus::Context c = context();
  chorus::CheckpointWriterSpec spec;
  std::map<std::string, size_t> index;
  for (const auto &[name, tensor] : *model) index[name] = spec.add_tensor(name, tensor.dtype, tensor.shape);
  if (!config.empty()) spec.add_text("config.json", config);
  chorus::CheckpointWriter writer(c, spec, folder);
  for (const auto &[name, tensor] : *model) {
    if (tensor.dtype == CHORUS_I64) {
      const std::vector<int64_t> whole(tensor.values.begin(), tensor.values.end());
      writer.write_bytes(index[name], 0, whole.size() * sizeof(int64_t), whole.data());
    } else {
      writer.write(index[name], chorus::Tensor(const_cast<double *>(tensor.values.data()), CHORUS_F64, tensor.shape.data(),
                                               tensor.shape.size()));
    }
  }
  writer.finish();
}

inline Model load(const std::string &folder) {
  const chorus::Checkpoint checkpoint(context(), folder);
  Model out;
  for (size_t i = 0; i < checkpoint.tensor_count(); ++i) {
    const chorus_tensor_info info = checkpoint.tensor(i);
    Values &tensor = out[info.name];
    tensor.dtype = info.dtype;
    tensor.shape.assign(info.shape, info.shape + info.ndim);
    tensor.values.resize(static_cast<size_t>(product(tensor.shape)));
    if (info.dtype == CHORUS_I64) {
      std::vector<int64_t> whole(tensor.values.size());
      checkpoint.read_bytes(i, 0, whole.size() * sizeof(int64_t), whole.data());
      tensor.values.assign(whole.begin(), whole.end());
    } else {
      checkpoint.read(i, chorus::Tensor(tensor.values.data(), CHORUS_F64, tensor.shape.data(), tensor.shape.size()));
    }
  }
  return out;
}

// Random weights under the names of a Llama of `layers` layers.
inline Model random_model(unsigned seed, chorus_dtype dtype = CHORUS_BF16, int layers = 2, int64_t hidden = 64,
                          int64_t vocabulary = 300) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal(0, 0.02);
  Model out;
  const auto add = [&](const std::string &name, std::vector<int64_t> shape) {
    Values &tensor = out[name];
    tensor.dtype = dtype;
    tensor.shape = shape;
    for (int64_t i = 0; i < product(shape); ++i) tensor.values.push_back(normal(random));
  };
  add("model.embed_tokens.weight", {vocabulary, hidden});
  for (int i = 0; i < layers; ++i) {
    const std::string prefix = "model.layers." + std::to_string(i) + ".";
    add(prefix + "input_layernorm.weight", {hidden});
    add(prefix + "self_attn.q_proj.weight", {hidden, hidden});
    add(prefix + "mlp.up_proj.weight", {4 * hidden, hidden});
  }
  add("model.norm.weight", {hidden});
  add("lm_head.weight", {vocabulary, hidden});
  return out;
}

// A folder with the models a, b and c, and merges of them.
class Bench {
 public:
  explicit Bench(chorus_dtype dtype = CHORUS_BF16) {
    unsigned seed = 1;
    for (const char *name : {"a", "b", "c"}) add(name, random_model(seed++, dtype));
  }
  // Saves and reads back, so that values() are what the file holds.
  void add(const std::string &name, Model model, const std::string &config = "{\"num_hidden_layers\": 2}") {
    save(folder_ / name, &model, config);
    models_[name] = load(folder_ / name);
  }
  const Model &model(const std::string &name) const { return models_.at(name); }
  std::string operator/(const std::string &name) const { return folder_ / name; }

  // `recipe` with "@a" for the folder of model a.
  std::string recipe(std::string text) const {
    for (size_t at = text.find('@'); at != std::string::npos; at = text.find('@', at)) text.replace(at, 1, folder_.path().string() + "/");
    return text;
  }
  Model merge(const std::string &text, int threads = 1, uint64_t memory = uint64_t{1} << 30, const std::string &output = "out") const {
    chorus::MergerSpec spec;
    spec.set_recipe(recipe(text), "r").set_output(folder_ / output).set_memory(memory).set_replace(true);
    chorus::Merger(context(threads), spec).run();
    return load(folder_ / output);
  }
  // The text of the error that planning this gives; "" when it succeeds. Here "@a" is the name itself, so that columns are
  // those of the text: the working directory holds links of these names.
  std::string error(const std::string &text) const {
    std::error_code ignored;
    for (const auto &[name, model] : models_) std::filesystem::create_symlink(name, folder_ / ("@" + name), ignored);
    std::filesystem::current_path(folder_.path());
    chorus::MergerSpec spec;
    spec.set_recipe(text, "r");
    try {
      chorus::Merger(context(), spec);
    } catch (const chorus::Error &failure) {
      return failure.text();
    }
    return "";
  }

 private:
  TemporaryFolder folder_;
  std::map<std::string, Model> models_;
};

// A fine-tune: the base with small changes, many of them equal once rounded.
inline Model fine_tune(const Model &base, unsigned seed, double size = 0.001) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal(0, size);
  Model out = base;
  for (auto &[name, tensor] : out) {
    for (double &value : tensor.values) value += normal(random);
  }
  return out;
}

// x, y and z: fine-tunes of the bench's a.
inline void add_fine_tunes(Bench *bench) {
  for (const char *name : {"x", "y", "z"}) bench->add(name, fine_tune(bench->model("a"), static_cast<unsigned>(name[0])));
}

// Distance between neighbours of `x` in `dtype`.
inline double ulp(chorus_dtype dtype, double x) {
  const int bits = dtype == CHORUS_BF16 ? 8 : dtype == CHORUS_F16 ? 11 : dtype == CHORUS_F32 ? 24 : 53;
  const int least = dtype == CHORUS_F16 ? -24 : dtype == CHORUS_F64 ? -1074 : dtype == CHORUS_F32 ? -149 : -133;
  const int exponent = x == 0 ? least + bits : std::ilogb(x) + 1;
  return std::ldexp(1.0, std::max(exponent - bits, least));
}

inline double largest(const std::vector<double> &values) {
  double out = 0;
  for (const double value : values) out = std::max(out, std::abs(value));
  return out;
}

using Oracle = std::function<std::vector<double>(const std::string &name)>;

// Every tensor of `got` against the oracle: within `ulps` of its dtype, plus `relative` of the tensor's largest element (by
// default what terms that cancel leave in double precision).
inline void expect_close(const Model &got, const Oracle &oracle, double ulps, double relative = 1e-14) {
  for (const auto &[name, tensor] : got) {
    const std::vector<double> want = oracle(name);
    cr_assert_eq(want.size(), tensor.values.size(), "%s has %zu elements", name.c_str(), tensor.values.size());
    const double slack = relative * largest(want);
    for (size_t i = 0; i < want.size(); ++i) {
      cr_assert(std::abs(tensor.values[i] - want[i]) <= ulps * ulp(tensor.dtype, want[i]) + slack, "%s[%zu] is %.9g, the oracle says %.9g",
                name.c_str(), i, tensor.values[i], want[i]);
    }
  }
}

}  // namespace unit
