// SPDX-License-Identifier: Apache-2.0
// The same layer stored as each family of models stores it: all give the bytes of experts made from tensors. And what is refused.
#include <array>
#include <map>

#include "unit/route/support.h"

using unit::Array;

namespace {

constexpr int32_t kExperts = 3, kSlots = 2;
constexpr int64_t kHidden = 10, kWidth = 6, kTokens = 5;
const std::string kLayer = "model.layers.1.";

std::vector<float> floats(int64_t count, unsigned seed) {
  std::vector<float> out;
  for (const double x : unit::normals(static_cast<size_t>(count), seed)) out.push_back(static_cast<float>(0.3 * x));
  return out;
}

// Matrix [rows, columns] of one expert.
using Matrix = std::vector<float>;
Matrix turned(const Matrix &m, int64_t rows, int64_t columns) {
  Matrix out(m.size());
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < columns; ++c) out[static_cast<size_t>(c * rows + r)] = m[static_cast<size_t>(r * columns + c)];
  }
  return out;
}
void append(Matrix *to, const Matrix &more) { to->insert(to->end(), more.begin(), more.end()); }

struct Layer {
  std::vector<Matrix> gate, up, down;  // [I, H], [I, H], [H, I]; the shared ones last
  explicit Layer(int32_t all) {
    for (int32_t e = 0; e < all; ++e) {
      const auto seed = static_cast<unsigned>(10 * e);
      gate.push_back(floats(kWidth * kHidden, seed + 1));
      up.push_back(floats(kWidth * kHidden, seed + 2));
      down.push_back(floats(kHidden * kWidth, seed + 3));
    }
  }
};

// A checkpoint of f32 tensors.
struct Files {
  struct Entry {
    std::vector<int64_t> shape;
    Matrix values;
  };
  std::map<std::string, Entry> tensors;
  std::string config;

  void add(const std::string &name, std::vector<int64_t> shape, Matrix values) { tensors[name] = {std::move(shape), std::move(values)}; }
  void write(const unit::TemporaryFolder &folder) const {
    std::string header = "{", data;
    for (const auto &[name, entry] : tensors) {
      std::string shape;
      for (const int64_t size : entry.shape) shape += (shape.empty() ? "" : ",") + std::to_string(size);
      const size_t begin = data.size();
      data.append(reinterpret_cast<const char *>(entry.values.data()), entry.values.size() * 4);
      header += (header.size() > 1 ? "," : "") + ("\"" + name + "\":{\"dtype\":\"F32\",\"shape\":[" + shape + "],\"data_offsets\":[") +
                std::to_string(begin) + "," + std::to_string(data.size()) + "]}";
    }
    header += "}";
    uint64_t length = header.size();
    unit::write_file(folder / "model.safetensors", std::string(reinterpret_cast<char *>(&length), 8) + header + data);
    if (!config.empty()) unit::write_file(folder / "config.json", config);
  }
};

struct Loaded {
  chorus_status status;
  std::string text;
  chorus_experts_spec *spec = nullptr;
  Loaded(const Files &files, int32_t layer = 1) {
    const unit::TemporaryFolder folder;
    files.write(folder);
    chorus_checkpoint *checkpoint = nullptr;
    unit::Outcome o;
    cr_assert_eq(chorus_checkpoint_open(unit::plain_context().get(), folder.path().c_str(), &checkpoint, o.slot()), CHORUS_OK, "%s",
                 o.text().c_str());
    status = chorus_experts_spec_create_from_checkpoint(checkpoint, layer, &spec, o.slot());
    text = status == CHORUS_OK ? "" : o.text();
    chorus_checkpoint_destroy(checkpoint);
  }
  ~Loaded() { chorus_experts_spec_destroy(spec); }
  Loaded(const Loaded &) = delete;
  Loaded &operator=(const Loaded &) = delete;
};

std::vector<float> run(const chorus_experts_spec *spec) {
  cr_assert_eq(chorus_experts_spec_set_max_tokens(const_cast<chorus_experts_spec *>(spec), kTokens, nullptr), CHORUS_OK);
  chorus_experts *experts = nullptr;
  unit::Outcome o;
  cr_assert_eq(chorus_experts_create(unit::plain_context().get(), spec, "reference", &experts, o.slot()), CHORUS_OK, "%s",
               o.text().c_str());
  const Array<float> x({kTokens, kHidden}, floats(kTokens * kHidden, 90)), weights({kTokens, kSlots}, floats(kTokens * kSlots, 91)),
      y({kTokens, kHidden});
  const Array<int32_t> ids({kTokens, kSlots}, {0, 1, 2, 0, 1, 2, 0, 2, 1, 0});
  cr_assert_eq(chorus_experts_run(experts, x.get(), ids.get(), weights.get(), y.get(), nullptr, nullptr, o.slot()), CHORUS_OK, "%s",
               o.text().c_str());
  chorus_experts_destroy(experts);
  return y.data;
}

// The layer made from tensors.
std::vector<float> expected(const Layer &layer, int32_t shared, const std::function<void(chorus_experts_spec *)> &more = nullptr) {
  Matrix gate_up, down;
  for (size_t e = 0; e < layer.gate.size(); ++e) {
    append(&gate_up, layer.gate[e]);
    append(&gate_up, layer.up[e]);
    append(&down, layer.down[e]);
  }
  const auto all = static_cast<int64_t>(layer.gate.size());
  const Array<float> first({all, 2 * kWidth, kHidden}, gate_up), second({all, kHidden, kWidth}, down);
  chorus_experts_spec *spec = nullptr;
  cr_assert_eq(chorus_experts_spec_create(first.get(), second.get(), kSlots, &spec, nullptr), CHORUS_OK);
  cr_assert_eq(chorus_experts_spec_set_shared(spec, shared, nullptr), CHORUS_OK);
  if (more) more(spec);
  auto y = run(spec);
  chorus_experts_spec_destroy(spec);
  return y;
}

std::string config_of(const std::string &type, const std::string &more = "") {
  return R"({"model_type":")" + type + R"(","num_local_experts":3,"num_experts_per_tok":2)" + more + "}";
}

void add_gate(Files *files, const std::string &name) { files->add(kLayer + name, {kExperts, kHidden}, floats(kExperts * kHidden, 80)); }

// One tensor per matrix, below `block`, by these names.
Files unfused(const Layer &layer, const std::string &block, const std::array<const char *, 3> &names, const std::string &type) {
  Files files;
  files.config = config_of(type);
  for (int32_t e = 0; e < kExperts; ++e) {
    const std::string at = kLayer + block + "experts." + std::to_string(e) + ".";
    const auto i = static_cast<size_t>(e);
    files.add(at + names[0] + ".weight", {kWidth, kHidden}, layer.gate[i]);
    files.add(at + names[1] + ".weight", {kWidth, kHidden}, layer.up[i]);
    files.add(at + names[2] + ".weight", {kHidden, kWidth}, layer.down[i]);
  }
  add_gate(&files, block + "gate.weight");
  return files;
}

void expect_same(const Loaded &loaded, const std::vector<float> &y) {
  cr_assert_eq(loaded.status, CHORUS_OK, "%s", loaded.text.c_str());
  cr_expect(run(loaded.spec) == y, "the loaded layer computes something else");
}

}  // namespace

Test(moe_weights, one_tensor_per_matrix) {
  const Layer layer(kExperts);
  const auto y = expected(layer, 0);
  expect_same(Loaded(unfused(layer, "block_sparse_moe.", {"w1", "w3", "w2"}, "mixtral")), y);
  expect_same(Loaded(unfused(layer, "mlp.", {"gate_proj", "up_proj", "down_proj"}, "qwen3_moe")), y);
}

Test(moe_weights, shared_experts_are_appended) {
  const Layer layer(kExperts + 2);
  Files files = unfused(layer, "mlp.", {"gate_proj", "up_proj", "down_proj"}, "deepseek_v3");
  Matrix gate = layer.gate[3], up = layer.up[3], down(static_cast<size_t>(2 * kWidth * kHidden));
  append(&gate, layer.gate[4]);
  append(&up, layer.up[4]);
  for (int64_t r = 0; r < kHidden; ++r) {
    for (int64_t c = 0; c < 2 * kWidth; ++c)
      down[static_cast<size_t>(r * 2 * kWidth + c)] = layer.down[c < kWidth ? 3 : 4][static_cast<size_t>(r * kWidth + c % kWidth)];
  }
  files.add(kLayer + "mlp.shared_experts.gate_proj.weight", {2 * kWidth, kHidden}, gate);
  files.add(kLayer + "mlp.shared_experts.up_proj.weight", {2 * kWidth, kHidden}, up);
  files.add(kLayer + "mlp.shared_experts.down_proj.weight", {kHidden, 2 * kWidth}, down);
  files.add(kLayer + "mlp.gate.e_score_correction_bias", {kExperts}, {1, 2, 3});
  const Loaded loaded(files);
  expect_same(loaded, expected(layer, 2));
  const chorus_tensor *weights = nullptr, *bias = nullptr, *selection = nullptr;
  cr_assert_eq(chorus_experts_spec_get_gate(loaded.spec, &weights, &bias, &selection, nullptr), CHORUS_OK);
  cr_expect(weights != nullptr && weights->shape[0] == kExperts && weights->shape[1] == kHidden);
  cr_expect_null(bias);
  cr_expect_eq(static_cast<const float *>(selection->data)[2], 3);
}

Test(moe_weights, fused) {
  const Layer layer(kExperts);
  Matrix straight, turned_up, down, turned_down;
  for (size_t e = 0; e < kExperts; ++e) {
    Matrix both = layer.gate[e];
    append(&both, layer.up[e]);
    append(&straight, both);
    append(&turned_up, turned(both, 2 * kWidth, kHidden));
    append(&down, layer.down[e]);
    append(&turned_down, turned(layer.down[e], kHidden, kWidth));
  }
  Files plain;
  plain.config = config_of("qwen3_moe");
  plain.add(kLayer + "mlp.experts.gate_up_proj", {kExperts, 2 * kWidth, kHidden}, straight);
  plain.add(kLayer + "mlp.experts.down_proj", {kExperts, kHidden, kWidth}, down);
  add_gate(&plain, "mlp.gate.weight");
  expect_same(Loaded(plain), expected(layer, 0));
  Files llama;
  llama.config = R"({"text_config":)" + config_of("llama4_text") + "}";
  llama.add(kLayer + "feed_forward.experts.gate_up_proj", {kExperts, kHidden, 2 * kWidth}, turned_up);
  llama.add(kLayer + "feed_forward.experts.down_proj", {kExperts, kWidth, kHidden}, turned_down);
  add_gate(&llama, "feed_forward.router.weight");
  expect_same(Loaded(llama), expected(layer, 0, [](chorus_experts_spec *spec) { chorus_experts_spec_set_weight_before(spec, 1, nullptr); }));
}

// gpt-oss: turned, gate and up interleaved, biases, a clamp.
Test(moe_weights, gpt_oss) {
  const Layer layer(kExperts);
  Matrix interleaved, turned_up, down, turned_down;
  for (size_t e = 0; e < kExperts; ++e) {
    Matrix both;
    for (int64_t i = 0; i < kWidth; ++i) {
      append(&both, {layer.gate[e].begin() + i * kHidden, layer.gate[e].begin() + (i + 1) * kHidden});
      append(&both, {layer.up[e].begin() + i * kHidden, layer.up[e].begin() + (i + 1) * kHidden});
    }
    append(&interleaved, both);
    append(&turned_up, turned(both, 2 * kWidth, kHidden));
    append(&down, layer.down[e]);
    append(&turned_down, turned(layer.down[e], kHidden, kWidth));
  }
  const auto up_bias = floats(kExperts * 2 * kWidth, 70), down_bias = floats(kExperts * kHidden, 71);
  Files files;
  files.config = config_of("gpt_oss", R"(,"swiglu_limit":0.4)");
  files.add(kLayer + "mlp.experts.gate_up_proj", {kExperts, kHidden, 2 * kWidth}, turned_up);
  files.add(kLayer + "mlp.experts.gate_up_proj_bias", {kExperts, 2 * kWidth}, up_bias);
  files.add(kLayer + "mlp.experts.down_proj", {kExperts, kWidth, kHidden}, turned_down);
  files.add(kLayer + "mlp.experts.down_proj_bias", {kExperts, kHidden}, down_bias);
  add_gate(&files, "mlp.router.weight");
  files.add(kLayer + "mlp.router.bias", {kExperts}, {4, 5, 6});
  const Array<float> first({kExperts, 2 * kWidth, kHidden}, interleaved), second({kExperts, kHidden, kWidth}, down),
      first_bias({kExperts, 2 * kWidth}, up_bias), second_bias({kExperts, kHidden}, down_bias);
  chorus_experts_spec *spec = nullptr;
  cr_assert_eq(chorus_experts_spec_create(first.get(), second.get(), kSlots, &spec, nullptr), CHORUS_OK);
  chorus_experts_spec_set_activation(spec, CHORUS_ACTIVATION_GPT_OSS, CHORUS_GATE_UP_INTERLEAVED, nullptr);
  chorus_experts_spec_set_biases(spec, first_bias.get(), second_bias.get(), nullptr);
  chorus_experts_spec_set_limit(spec, 0.4, nullptr);
  const Loaded loaded(files);
  expect_same(loaded, run(spec));
  chorus_experts_spec_destroy(spec);
  const chorus_tensor *weights = nullptr, *bias = nullptr, *selection = nullptr;
  cr_assert_eq(chorus_experts_spec_get_gate(loaded.spec, &weights, &bias, &selection, nullptr), CHORUS_OK);
  cr_expect_eq(static_cast<const float *>(bias->data)[1], 5);
  cr_expect_null(selection);
}

Test(moe_weights, refuses) {
  const Layer layer(kExperts);
  const std::array<const char *, 3> names = {"gate_proj", "up_proj", "down_proj"};
  const Files good = unfused(layer, "mlp.", names, "qwen3_moe");
  const auto expect = [](const Loaded &loaded, chorus_status status, const char *words) {
    cr_expect_eq(loaded.status, status, "%d: %s", loaded.status, loaded.text.c_str());
    cr_expect(unit::contains(loaded.text, words), "%s", loaded.text.c_str());
    cr_expect_null(loaded.spec);
  };
  expect(Loaded(good, 2), CHORUS_NOT_FOUND, "layer 2 has no experts");
  expect(Loaded(good, -1), CHORUS_INVALID_ARGUMENT, "layer is -1");
  Files files = good;
  files.config.clear();
  expect(Loaded(files), CHORUS_NOT_FOUND, "config.json");
  files = good;
  files.tensors.erase(kLayer + "mlp.experts.2.up_proj.weight");
  expect(Loaded(files), CHORUS_DATA_LOSS, "mlp.experts.2.up_proj.weight' is missing");
  files = good;
  files.tensors[kLayer + "mlp.experts.1.down_proj.weight"].shape = {kWidth, kHidden};
  expect(Loaded(files), CHORUS_DATA_LOSS, "has shape [6, 10]; [10, 6] is needed");
  files = good;
  files.config = R"({"model_type":"qwen3_moe","num_experts":2000000000,"num_experts_per_tok":2})";
  expect(Loaded(files), CHORUS_DATA_LOSS, "experts.3.gate_proj.weight' is missing");
  files = good;
  files.config = config_of("qwen3_moe", R"(,"hidden_act":"tanh")");
  expect(Loaded(files), CHORUS_UNIMPLEMENTED, "hidden_act is 'tanh'");
  files = good;
  files.add(kLayer + "mlp.shared_expert_gate.weight", {1, kHidden}, floats(kHidden, 60));
  expect(Loaded(files), CHORUS_UNIMPLEMENTED, "shared_expert_gate");
  Files blocks;
  blocks.config = config_of("gpt_oss");
  blocks.add(kLayer + "mlp.experts.gate_up_proj_blocks", {1}, {0});
  expect(Loaded(blocks), CHORUS_UNIMPLEMENTED, "quantised");
  chorus_experts_spec *spec = nullptr;
  cr_expect_eq(chorus_experts_spec_create_from_checkpoint(nullptr, 0, &spec, nullptr), CHORUS_INVALID_ARGUMENT);
  const Array<float> first({1, 2, 1}), second({1, 1, 1});
  const chorus_tensor *a = nullptr, *b = nullptr, *c = nullptr;
  cr_assert_eq(chorus_experts_spec_create(first.get(), second.get(), 1, &spec, nullptr), CHORUS_OK);
  cr_expect_eq(chorus_experts_spec_get_gate(spec, &a, &b, &c, nullptr), CHORUS_FAILED_PRECONDITION);
  cr_expect_eq(chorus_experts_spec_get_gate(spec, nullptr, &b, &c, nullptr), CHORUS_INVALID_ARGUMENT);
  chorus_experts_spec_destroy(spec);
}
