// SPDX-License-Identifier: Apache-2.0
// Reads the experts of a layer. First every tensor is found and its shape checked, then memory is taken, then they are read,
// each byte once; matrices stored [in, out] are turned while they are copied.
#include "route/moe_weights.h"

#include <algorithm>
#include <cstring>
#include <fmt/format.h>

#include "checkpoint/transfer.h"
#include "route/config_fields.h"

namespace chorus::route {
namespace {

using checkpoint::Model;
using checkpoint::Tensor;

// ---- Names ----

struct Names {
  const char *block;  // below "layers.<n>."
  const char *gate, *up, *down;
};
constexpr Names kUnfused[] = {{"block_sparse_moe.", "w1", "w3", "w2"}, {"mlp.", "gate_proj", "up_proj", "down_proj"},
                              {"feed_forward.", "gate_proj", "up_proj", "down_proj"}};

// Where a layer's experts are: the text before "experts.", and their naming.
struct Place {
  std::string block;  // "model.layers.3.mlp."
  const Names *names = nullptr;
  bool fused = false;
};

Place find_block(const Model &model, int32_t layer) {
  const std::string in_layer = fmt::format("layers.{}.", layer);
  for (const Tensor &tensor : model.tensors()) {
    const size_t at = tensor.name.find(in_layer);
    if (at == std::string::npos || (at > 0 && tensor.name[at - 1] != '.')) continue;
    for (const Names &names : kUnfused) {
      const std::string block = tensor.name.substr(0, at + in_layer.size()) + names.block;
      if (!tensor.name.starts_with(block + "experts.")) continue;
      const bool fused = tensor.name.starts_with(block + "experts.gate_up_proj");
      if (fused || tensor.name.starts_with(block + "experts.0.")) return {block, &names, fused};
    }
  }
  fail(CHORUS_NOT_FOUND,
       "{}: layer {} has no experts (looked for {}…experts.0.* and experts.gate_up_proj below block_sparse_moe, mlp and "
       "feed_forward)",
       model.folder(), layer, in_layer);
}

// ---- Tensors ----

std::string shape_text(const std::vector<int64_t> &shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

// The tensor `name`, of that shape and a float type the experts compute with.
const Tensor &find(const Model &model, const std::string &name, const std::vector<int64_t> &shape) {
  const Tensor *tensor = model.find(name);
  if (tensor == nullptr) {
    if (model.find(name + "_blocks") != nullptr || model.find(name + "_packed") != nullptr) {
      fail(CHORUS_UNIMPLEMENTED, "{}: '{}' is stored quantised (in blocks with scales); dequantise the model first",
           model.folder(), name);
    }
    fail(CHORUS_DATA_LOSS, "{}: tensor '{}' is missing", model.folder(), name);
  }
  if (tensor->shape != shape) {
    fail(CHORUS_DATA_LOSS, "{}: '{}' has shape {}; {} is needed", model.folder(), name, shape_text(tensor->shape),
         shape_text(shape));
  }
  const chorus_dtype dtype = tensor->type->dtype;
  if (dtype != CHORUS_F32 && dtype != CHORUS_BF16 && dtype != CHORUS_F16) {
    fail(CHORUS_UNIMPLEMENTED, "{}: '{}' is stored as {}; F32, BF16 and F16 are read", model.folder(), name,
         tensor->type->name);
  }
  return *tensor;
}

const Tensor *find_if_there(const Model &model, const std::string &name, const std::vector<int64_t> &shape) {
  return model.find(name) != nullptr ? &find(model, name, shape) : nullptr;
}

// `source`, read and converted to `dtype`.
void load(const Model &model, const Tensor *source, chorus_dtype dtype, OwnedTensor *to) {
  if (source == nullptr) return;
  if (source->shape.size() == 1) {
    to->allocate(dtype, {source->shape[0]});
  } else {
    to->allocate(dtype, {source->shape[0], source->shape[1]});
  }
  read_tensor(model, *source, &to->view);
}

// ---- Sizes ----

struct Sizes {
  int64_t experts, shared, hidden, intermediate;
  int64_t wide() const { return 2 * intermediate; }
};

// The one dtype of all matrices.
void same_type(const Model &model, const Tensor &tensor, chorus_dtype dtype) {
  if (tensor.type->dtype != dtype) {
    fail(CHORUS_UNIMPLEMENTED, "{}: '{}' is stored as {}, other matrices of its experts differently; one type is needed",
         model.folder(), tensor.name, tensor.type->name);
  }
}

// ---- Copying ----

// to[c][r] = from[r][c].
void transpose(const char *from, int64_t rows, int64_t columns, uint64_t bytes, char *to) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < columns; ++c) {
      std::memcpy(to + static_cast<uint64_t>(c * rows + r) * bytes, from + static_cast<uint64_t>(r * columns + c) * bytes, bytes);
    }
  }
}

struct Loader {
  const Model &model;
  const Sizes &sizes;
  chorus_dtype dtype;
  MoeWeights *to;

  uint64_t bytes() const { return (dtype >> 8) / 8; }
  // First byte of row `row` of expert `e`.
  char *gate_up_row(int64_t e, int64_t row) const {
    return to->gate_up.memory.bytes() + static_cast<uint64_t>((e * sizes.wide() + row) * sizes.hidden) * bytes();
  }
  char *down_of(int64_t e) const {
    return to->down.memory.bytes() + static_cast<uint64_t>(e * sizes.hidden * sizes.intermediate) * bytes();
  }
  const Tensor &matrix(const std::string &name, int64_t rows, int64_t columns) const {
    const Tensor &tensor = find(model, name, {rows, columns});
    same_type(model, tensor, dtype);
    return tensor;
  }
  void read_whole(const Tensor &tensor, char *memory) const { model.read(tensor, 0, tensor.bytes, memory); }

  // Expert `e` from three matrices [out, in].
  void read_expert(const std::string &prefix, const Names &names, int64_t e) const {
    read_whole(matrix(prefix + names.gate + ".weight", sizes.intermediate, sizes.hidden), gate_up_row(e, 0));
    read_whole(matrix(prefix + names.up + ".weight", sizes.intermediate, sizes.hidden), gate_up_row(e, sizes.intermediate));
    read_whole(matrix(prefix + names.down + ".weight", sizes.hidden, sizes.intermediate), down_of(e));
  }
  // All experts from tensors [E, out, in], or [E, in, out] when `turned`.
  void read_fused(const Tensor &tensor, int64_t rows, int64_t columns, bool turned, char *memory) const {
    if (!turned) return read_whole(tensor, memory);
    const uint64_t each = static_cast<uint64_t>(rows * columns) * bytes();
    const Buffer one(each, 64, "an expert being turned");
    for (int64_t e = 0; e < sizes.experts; ++e) {
      model.read(tensor, static_cast<uint64_t>(e) * each, each, one.data());
      transpose(one.bytes(), columns, rows, bytes(), memory + static_cast<uint64_t>(e) * each);
    }
  }
  // Shared experts: one block of width n I is n experts of width I.
  void read_shared(const std::string &prefix, const Names &names) const {
    const int64_t width = sizes.shared * sizes.intermediate, half = sizes.intermediate;
    const Tensor &gate = matrix(prefix + names.gate + ".weight", width, sizes.hidden);
    const Tensor &up = matrix(prefix + names.up + ".weight", width, sizes.hidden);
    const Tensor &down = matrix(prefix + names.down + ".weight", sizes.hidden, width);
    const uint64_t part = static_cast<uint64_t>(half * sizes.hidden) * bytes(), row = static_cast<uint64_t>(width) * bytes(),
                   piece = static_cast<uint64_t>(half) * bytes();
    const Buffer whole(down.bytes, 64, "a shared expert");
    read_whole(down, whole.bytes());
    for (int64_t s = 0; s < sizes.shared; ++s) {
      const int64_t e = sizes.experts + s;
      model.read(gate, static_cast<uint64_t>(s) * part, part, gate_up_row(e, 0));
      model.read(up, static_cast<uint64_t>(s) * part, part, gate_up_row(e, half));
      for (int64_t r = 0; r < sizes.hidden; ++r) {
        std::memcpy(down_of(e) + static_cast<uint64_t>(r) * piece,
                    whole.bytes() + static_cast<uint64_t>(r) * row + static_cast<uint64_t>(s) * piece, piece);
      }
    }
  }
};

// ---- What config.json says ----

chorus_activation activation_of(const Fields &fields, const std::string &type) {
  if (type == "gpt_oss") return CHORUS_ACTIVATION_GPT_OSS;
  const std::string word = fields.text("hidden_act");
  if (word.empty() || word == "silu" || word == "swish") return CHORUS_ACTIVATION_SWIGLU;
  if (word == "gelu_new" || word == "gelu_pytorch_tanh") return CHORUS_ACTIVATION_GEGLU;
  if (word == "relu") return CHORUS_ACTIVATION_REGLU;
  fail(CHORUS_UNIMPLEMENTED, "config.json: hidden_act is '{}'; silu, gelu_new, gelu_pytorch_tanh and relu are known", word);
}

// Experts of a shared block, by the rows of its gate.
int64_t shared_experts(const Model &model, const std::string &prefix, const Names &names, int64_t intermediate) {
  const std::string name = prefix + names.gate + ".weight";
  const Tensor *tensor = model.find(name);
  if (tensor == nullptr) return 0;
  const int64_t width = tensor->shape.empty() ? 0 : tensor->shape[0];
  if (width < 1 || width % intermediate != 0) {
    fail(CHORUS_UNIMPLEMENTED, "{}: '{}' has {} rows; a multiple of the experts' width {} is needed", model.folder(), name,
         width, intermediate);
  }
  return width / intermediate;
}

}  // namespace

void OwnedTensor::allocate(chorus_dtype dtype, std::initializer_list<int64_t> sizes) {
  uint64_t bytes = (dtype >> 8) / 8;
  std::copy(sizes.begin(), sizes.end(), shape);
  for (const int64_t size : sizes) {
    if (__builtin_mul_overflow(bytes, static_cast<uint64_t>(size), &bytes)) {
      fail(CHORUS_RESOURCE_EXHAUSTED, "the experts' weights need more bytes than can be counted");
    }
  }
  memory = Buffer(bytes, CHORUS_WORKSPACE_ALIGNMENT_HOST, "weights of experts");
  view.data = memory.data();
  view.size_bytes = bytes;
  view.device_type = CHORUS_DEVICE_HOST;
  view.dtype_code = static_cast<uint8_t>(dtype & 0xff);
  view.dtype_bits = static_cast<uint8_t>(dtype >> 8);
  view.dtype_lanes = 1;
  view.ndim = static_cast<int32_t>(sizes.size());
  view.shape = shape;
}

ExpertsSpec load_experts(const Model &model, int32_t layer) {
  const Fields fields{text_config(model.config())};
  const std::string type = fields.text("model_type");
  const Place place = find_block(model, layer);
  const std::string experts_at = place.block + "experts.";
  const bool turned = place.fused && (type == "gpt_oss" || type.starts_with("llama4"));
  Sizes sizes{fields.required({"n_routed_experts", "num_experts", "num_local_experts"}), 0, 0, 0};
  const int32_t k = fields.required({"num_experts_per_tok"});

  // Shapes follow from the first matrix: [I, H] of an expert, or [E, 2I, H] ([E, H, 2I] turned) of all.
  const std::string first = place.fused ? experts_at + "gate_up_proj" : experts_at + "0." + place.names->gate + ".weight";
  const Tensor *sample = model.find(first);
  if (sample == nullptr) find(model, first, {});  // says what is there instead
  if (sample->shape.size() != (place.fused ? 3u : 2u)) {
    fail(CHORUS_DATA_LOSS, "{}: '{}' has shape {}; {} dimensions are needed", model.folder(), first, shape_text(sample->shape),
         place.fused ? 3 : 2);
  }
  const int64_t outputs = sample->shape[sample->shape.size() - (turned ? 1 : 2)];
  sizes.hidden = sample->shape[sample->shape.size() - (turned ? 2 : 1)];
  sizes.intermediate = place.fused ? outputs / 2 : outputs;
  if (sizes.experts < 1 || sizes.hidden < 1 || sizes.intermediate < 1 || (place.fused && outputs % 2 != 0)) {
    fail(CHORUS_DATA_LOSS, "{}: '{}' has shape {} with {} experts; sizes of at least 1 and pairs of gate and up are needed",
         model.folder(), first, shape_text(sample->shape), sizes.experts);
  }
  if (model.find(place.block + "shared_expert_gate.weight") != nullptr) {
    fail(CHORUS_UNIMPLEMENTED, "{}: '{}shared_expert_gate.weight': a shared expert with a gate of its own; build the layer "
         "from tensors and give that expert an extra slot", model.folder(), place.block);
  }
  std::string shared_at;
  for (const char *word : {"shared_experts.", "shared_expert."}) {
    const int64_t found = shared_experts(model, place.block + word, kUnfused[1], sizes.intermediate);
    if (found > 0) shared_at = place.block + word;
    sizes.shared = std::max(sizes.shared, found);
  }

  auto weights = std::make_shared<MoeWeights>();
  const chorus_dtype dtype = sample->type->dtype;
  const Loader loader{model, sizes, dtype, weights.get()};
  const auto all = sizes.experts + sizes.shared, wide = sizes.wide(), hidden = sizes.hidden;
  // Everything is looked for before anything is allocated: a wrong number of experts costs nothing.
  const Tensor *gate_up = nullptr, *down = nullptr;
  if (place.fused) {
    const auto fused = [&](const char *name, int64_t rows, int64_t columns) {
      return &find(model, experts_at + name,
                   turned ? std::vector<int64_t>{sizes.experts, columns, rows} : std::vector<int64_t>{sizes.experts, rows, columns});
    };
    gate_up = fused("gate_up_proj", wide, hidden);
    down = fused("down_proj", hidden, sizes.intermediate);
    same_type(model, *down, dtype);
  } else {
    for (int64_t e = 0; e < sizes.experts; ++e) {
      const std::string prefix = fmt::format("{}{}.", experts_at, e);
      for (const char *name : {place.names->gate, place.names->up}) loader.matrix(prefix + name + ".weight", sizes.intermediate, hidden);
      loader.matrix(prefix + place.names->down + ".weight", hidden, sizes.intermediate);
    }
  }
  const std::string gate_at = place.block + (model.find(place.block + "router.weight") != nullptr ? "router." : "gate.");
  const Tensor &gate = find(model, gate_at + "weight", {sizes.experts, hidden});
  load(model, &gate, gate.type->dtype, &weights->gate);
  load(model, find_if_there(model, gate_at + "bias", {sizes.experts}), CHORUS_F32, &weights->gate_bias);
  for (const std::string &at : {gate_at, place.block}) {
    const Tensor *bias = find_if_there(model, at + "e_score_correction_bias", {sizes.experts});
    if (bias != nullptr && weights->selection_bias.get() == nullptr) load(model, bias, CHORUS_F32, &weights->selection_bias);
  }
  load(model, find_if_there(model, experts_at + "gate_up_proj_bias", {sizes.experts, wide}), CHORUS_F32, &weights->gate_up_bias);
  load(model, find_if_there(model, experts_at + "down_proj_bias", {sizes.experts, hidden}), CHORUS_F32, &weights->down_bias);

  weights->gate_up.allocate(dtype, {all, wide, hidden});
  weights->down.allocate(dtype, {all, hidden, sizes.intermediate});
  if (place.fused) {
    loader.read_fused(*gate_up, wide, hidden, turned, weights->gate_up.memory.bytes());
    loader.read_fused(*down, hidden, sizes.intermediate, turned, weights->down.memory.bytes());
  } else {
    for (int64_t e = 0; e < sizes.experts; ++e) loader.read_expert(fmt::format("{}{}.", experts_at, e), *place.names, e);
  }
  if (sizes.shared > 0) loader.read_shared(shared_at, kUnfused[1]);

  ExpertsSpec spec(weights->gate_up.get(), weights->down.get(), k);
  spec.set_shared(static_cast<int32_t>(sizes.shared));
  spec.desc.activation = activation_of(fields, type);
  spec.desc.layout = type == "gpt_oss" ? CHORUS_GATE_UP_INTERLEAVED : CHORUS_GATE_UP_CONCATENATED;
  if (type == "gpt_oss" || type == "deepseek_v4") {
    spec.desc.limit = fields.number("swiglu_limit").value_or(type == "gpt_oss" ? 7.0 : 0.0);
  }
  spec.desc.weight_before = type.starts_with("llama4") ? 1 : 0;
  spec.desc.gate_up_bias = weights->gate_up_bias.get();
  spec.desc.down_bias = weights->down_bias.get();
  spec.loaded = std::move(weights);
  return spec;
}

}  // namespace chorus::route
