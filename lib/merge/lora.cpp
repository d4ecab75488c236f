// SPDX-License-Identifier: Apache-2.0
// adapter_config.json and the tensors beside it, and the view that adds them. A piece of n elements costs n r multiply-adds and
// one reading of the adapter's smaller dimension.
#include "merge/lora.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <filesystem>
#include <map>
#include <optional>

#include "checkpoint/convert.h"
#include "runtime/dtype.h"
#include "runtime/files.h"
#include "runtime/json.h"
#include "runtime/locate.h"
#include "runtime/nearest.h"
#include "runtime/utf8.h"

namespace chorus::merge {
namespace {

using checkpoint::Model;
using checkpoint::Tensor;
using Json = nlohmann::json;

constexpr uint64_t kMaxConfigBytes = uint64_t{4} << 20;
constexpr std::string_view kPrefix = "base_model.model.";

// `count` elements of a tensor from `begin` on, as f32.
std::vector<float> read_floats(const Model &model, const Tensor &tensor, uint64_t begin, uint64_t count) {
  const uint64_t width = tensor.type->bits() / 8;
  std::vector<float> out(count);
  if (tensor.type->dtype == CHORUS_F32) {
    model.read(tensor, begin * width, count * width, out.data());
    return out;
  }
  std::vector<double> raw((count * width + sizeof(double) - 1) / sizeof(double));  // aligned for any type
  model.read(tensor, begin * width, count * width, raw.data());
  checkpoint::convert(raw.data(), tensor.type->dtype, out.data(), CHORUS_F32, count);
  return out;
}

// The two factors of a change, A [r, in] and B [out, r]. `transposed`: the weight is [in, out], as in Conv1D and embeddings.
struct Factors {
  const Tensor *a = nullptr, *b = nullptr;
  bool transposed = false;
  double scale = 1;
};

class LoraView final : public TensorView {
 public:
  LoraView(Tensor tensor, const Tensor *weight, std::shared_ptr<const Model> model, std::shared_ptr<const Model> adapter, Factors factors)
      : TensorView(std::move(tensor)), weight_(weight), model_(std::move(model)), adapter_(std::move(adapter)), factors_(factors) {}

  void read(uint64_t begin, uint64_t count, void *to) const override {
    if (count == 0) return;
    const auto columns = static_cast<uint64_t>(tensor().shape[1]);
    const uint64_t first = begin / columns, last = (begin + count - 1) / columns;
    const auto rank = static_cast<uint64_t>(factors_.a->shape[0]);
    const std::vector<float> left = left_rows(first, last - first + 1, rank), right = right_factor(columns, rank);
    const uint64_t width = tensor().type->bits() / 8;
    std::vector<double> values(count), sums(columns);
    model_->read(*weight_, begin * width, count * width, to);
    checkpoint::convert(to, tensor().type->dtype, values.data(), CHORUS_F64, count);
    for (uint64_t row = first; row <= last; ++row) {
      std::ranges::fill(sums, 0.0);
      for (uint64_t k = 0; k < rank; ++k) {
        const double factor = left[(row - first) * rank + k];
        const float *from = right.data() + k * columns;
        for (uint64_t c = 0; c < columns; ++c) sums[c] += factor * from[c];
      }
      const uint64_t from = std::max(begin, row * columns), to_end = std::min(begin + count, (row + 1) * columns);
      for (uint64_t e = from; e < to_end; ++e) values[e - begin] += factors_.scale * sums[e - row * columns];
    }
    checkpoint::convert(values.data(), CHORUS_F64, to, tensor().type->dtype, count);
  }

 private:
  // [rows, rank]: of B, or of A transposed.
  std::vector<float> left_rows(uint64_t first, uint64_t rows, uint64_t rank) const {
    if (!factors_.transposed) return read_floats(*adapter_, *factors_.b, first * rank, rows * rank);
    const auto length = static_cast<uint64_t>(factors_.a->shape[1]);
    std::vector<float> out(rows * rank);
    for (uint64_t k = 0; k < rank; ++k) {
      const std::vector<float> part = read_floats(*adapter_, *factors_.a, k * length + first, rows);
      for (uint64_t i = 0; i < rows; ++i) out[i * rank + k] = part[i];
    }
    return out;
  }

  // [rank, columns]: A, or B transposed.
  std::vector<float> right_factor(uint64_t columns, uint64_t rank) const {
    if (!factors_.transposed) return read_floats(*adapter_, *factors_.a, 0, rank * columns);
    const std::vector<float> b = read_floats(*adapter_, *factors_.b, 0, rank * columns);
    std::vector<float> out(rank * columns);
    for (uint64_t c = 0; c < columns; ++c) {
      for (uint64_t k = 0; k < rank; ++k) out[k * columns + c] = b[c * rank + k];
    }
    return out;
  }

  const Tensor *weight_;
  std::shared_ptr<const Model> model_, adapter_;
  Factors factors_;
};

// A tensor that the adapter stores whole (modules_to_save), in the model's type.
class SavedView final : public TensorView {
 public:
  SavedView(Tensor tensor, const Tensor *saved, std::shared_ptr<const Model> adapter)
      : TensorView(std::move(tensor)), saved_(saved), adapter_(std::move(adapter)) {}

  void read(uint64_t begin, uint64_t count, void *to) const override {
    const uint64_t width = saved_->type->bits() / 8;
    if (saved_->type == tensor().type) return adapter_->read(*saved_, begin * width, count * width, to);
    std::vector<double> raw((count * width + sizeof(double) - 1) / sizeof(double));
    adapter_->read(*saved_, begin * width, count * width, raw.data());
    checkpoint::convert(raw.data(), saved_->type->dtype, to, tensor().type->dtype, count);
  }

 private:
  const Tensor *saved_;
  std::shared_ptr<const Model> adapter_;
};

// adapter_config.json, as far as it says how to add.
class Config {
 public:
  explicit Config(const std::string &folder) : path_(folder + "/adapter_config.json") {
    root_ = parse_json(read_text(path_, kMaxConfigBytes), path_);
    if (!root_.is_object()) fail(CHORUS_DATA_LOSS, "{} is no JSON object", path_);
    const auto kind = root_.find("peft_type");
    if (kind != root_.end() && *kind != "LORA") fail(CHORUS_UNIMPLEMENTED, "{}: peft_type is {}; LORA adapters are merged", path_, kind->dump());
    refuse("use_dora", "weight-decomposed adapters (DoRA)");
    refuse("lora_bias", "biases of adapters");
    refuse("layer_replication", "replicated layers");
    refuse("target_parameters", "adapters of parameters that are no modules");
    refuse("trainable_token_indices", "adapters of single tokens");
    const auto bias = root_.find("bias");
    if (bias != root_.end() && bias->is_string() && *bias != "none") fail(CHORUS_UNIMPLEMENTED, "{}: bias is {}; none is merged", path_, bias->dump());
    alpha_ = number(root_, "lora_alpha", 8);
    rank_ = number(root_, "r", 8);
    rank_stabilised_ = flag("use_rslora");
    fan_in_fan_out_ = flag("fan_in_fan_out");
  }

  bool fan_in_fan_out() const { return fan_in_fan_out_; }

  // alpha / r, or alpha / sqrt(r) rank-stabilised (arXiv 2312.03732), with what the patterns say of `module`.
  double scale(const std::string &module) const {
    const double alpha = by_pattern("alpha_pattern", module, alpha_), rank = by_pattern("rank_pattern", module, rank_);
    if (!(rank > 0)) fail(CHORUS_INVALID_ARGUMENT, "{}: the rank of {} is {}; it is at least 1", path_, module, rank);
    return rank_stabilised_ ? alpha / std::sqrt(rank) : alpha / rank;
  }

 private:
  void refuse(const char *key, const char *what) const {
    const auto found = root_.find(key);
    if (found == root_.end() || found->is_null() || *found == false || found->empty()) return;
    fail(CHORUS_UNIMPLEMENTED, "{}: {} is set; {} are not implemented yet", path_, key, what);
  }
  bool flag(const char *key) const {
    const auto found = root_.find(key);
    return found != root_.end() && *found == true;
  }
  double number(const Json &object, const std::string &key, double otherwise) const {
    const auto found = object.find(key);
    if (found == object.end() || found->is_null()) return otherwise;
    if (!found->is_number() || !std::isfinite(found->get<double>())) fail(CHORUS_DATA_LOSS, "{}: {} is {}; a number is needed", path_, key, found->dump());
    return found->get<double>();
  }

  // PEFT takes keys for the end of a module's name, whole between dots, and as regular expressions: those that are none are read.
  double by_pattern(const char *key, const std::string &module, double otherwise) const {
    const auto patterns = root_.find(key);
    if (patterns == root_.end() || !patterns->is_object()) return otherwise;
    for (const auto &[pattern, value] : patterns->items()) {
      const bool whole = pattern.starts_with('^');
      const std::string plain = whole ? pattern.substr(1) : pattern;
      const bool is_plain = std::ranges::all_of(plain, [](unsigned char c) { return std::isalnum(c) != 0 || c == '_' || c == '.' || c == '-'; });
      if (!is_plain) fail(CHORUS_UNIMPLEMENTED, "{}: {} has the regular expression '{}'; names of modules are read", path_, key, shown(pattern));
      if (module == plain || (!whole && module.ends_with("." + plain))) return number(*patterns, pattern, otherwise);
    }
    return otherwise;
  }

  std::string path_;
  Json root_;
  double alpha_ = 8, rank_ = 8;
  bool rank_stabilised_ = false, fan_in_fan_out_ = false;
};

// A name without `end`; nothing when it ends otherwise.
std::optional<std::string> without(const std::string &name, std::string_view end) {
  if (!name.ends_with(end)) return std::nullopt;
  return name.substr(0, name.size() - end.size());
}

class Adder {
 public:
  Adder(InputModel *input, const std::string &folder) : input_(*input), config_(folder) {}

  void add() {
    for (const Tensor &tensor : input_.adapter->tensors()) sort(tensor);
    for (const auto &[module, factors] : factors_) add_factors(module, factors);
    if (input_.views.empty()) fail(CHORUS_INVALID_ARGUMENT, "{} holds no adapter's tensors", input_.adapter->folder());
  }

 private:
  void sort(const Tensor &tensor) {
    std::string name = tensor.name;
    if (name.starts_with(kPrefix)) name.erase(0, kPrefix.size());
    for (const std::string_view adapter : {".default", ""}) {  // some writers keep the adapter's name
      for (const std::string_view weight : {".weight", ""}) {
        const std::string end = std::string(adapter) + std::string(weight);
        if (const auto module = without(name, ".lora_A" + end)) return put(*module, &Factors::a, tensor, false);
        if (const auto module = without(name, ".lora_B" + end)) return put(*module, &Factors::b, tensor, false);
        if (const auto module = without(name, ".lora_embedding_A" + end)) return put(*module, &Factors::a, tensor, true);
        if (const auto module = without(name, ".lora_embedding_B" + end)) return put(*module, &Factors::b, tensor, true);
      }
    }
    if (name.find(".lora_") != std::string::npos) {
      fail(CHORUS_UNIMPLEMENTED, "adapter tensor '{}' is of a kind that is not implemented yet; lora_A, lora_B and whole tensors are", tensor.name);
    }
    add_saved(name, tensor);
  }

  void put(const std::string &module, const Tensor *Factors::*which, const Tensor &tensor, bool embedding) {
    Factors &factors = factors_[module];
    factors.*which = &tensor;
    factors.transposed = embedding || config_.fan_in_fan_out();
    if (tensor.shape.size() != 2 || !is_float(tensor.type->dtype)) {
      fail(CHORUS_UNIMPLEMENTED, "adapter tensor '{}' is [{}] {}; matrices of f32, f16, bf16, f64 are added", tensor.name, fmt::join(tensor.shape, ", "),
           tensor.type->name);
    }
  }

  const Tensor &weight_of(const std::string &name, const std::string &adapter_tensor) const {
    const Tensor *weight = input_.model->find(name);
    if (weight != nullptr) return *weight;
    std::vector<std::string> names;
    for (const Tensor &tensor : input_.model->tensors()) names.push_back(tensor.name);
    fail(CHORUS_INVALID_ARGUMENT, "adapter tensor '{}' belongs to '{}', which the model lacks{}", adapter_tensor, name, did_you_mean(name, names));
  }

  void add_factors(const std::string &module, Factors factors) {
    if (factors.a == nullptr || factors.b == nullptr) {
      fail(CHORUS_INVALID_ARGUMENT, "module '{}' of the adapter has one factor alone; lora_A and lora_B are needed", module);
    }
    const Tensor &weight = weight_of(module + ".weight", factors.a->name);
    const int64_t rank = factors.a->shape[0], in = factors.a->shape[1], out = factors.b->shape[0];
    const std::vector<int64_t> shape = factors.transposed ? std::vector<int64_t>{in, out} : std::vector<int64_t>{out, in};
    if (factors.b->shape[1] != rank || rank == 0 || weight.shape != shape || !is_float(weight.type->dtype)) {
      fail(CHORUS_INVALID_ARGUMENT, "'{}' is [{}] {}; the adapter's factors [{}] and [{}] give [{}]", weight.name, fmt::join(weight.shape, ", "),
           weight.type->name, fmt::join(factors.b->shape, ", "), fmt::join(factors.a->shape, ", "), fmt::join(shape, ", "));
    }
    factors.scale = config_.scale(module);
    Tensor tensor = weight;
    tensor.bytes += factors.a->bytes + factors.b->bytes;
    input_.views[weight.name] = std::make_shared<LoraView>(std::move(tensor), &weight, input_.model, input_.adapter, factors);
  }

  void add_saved(std::string name, const Tensor &saved) {
    for (const std::string_view part : {".modules_to_save.default", ".modules_to_save", ".base_layer"}) {
      const size_t at = name.find(part);
      if (at != std::string::npos) name.erase(at, part.size());
    }
    Tensor tensor = weight_of(name, saved.name);
    if (tensor.shape != saved.shape || !is_float(saved.type->dtype) || !is_float(tensor.type->dtype)) {
      fail(CHORUS_INVALID_ARGUMENT, "adapter tensor '{}' is [{}] {}; '{}' of the model is [{}] {}", saved.name, fmt::join(saved.shape, ", "),
           saved.type->name, name, fmt::join(tensor.shape, ", "), tensor.type->name);
    }
    tensor.bytes = saved.bytes;
    input_.views[name] = std::make_shared<SavedView>(std::move(tensor), &saved, input_.adapter);
  }

  InputModel &input_;
  Config config_;
  std::map<std::string, Factors> factors_;
};

}  // namespace

void add_adapter(InputModel *input) {
  const std::string folder = locate(input->reference.lora), file = folder + "/adapter_model.safetensors";
  std::error_code ignored;
  input->adapter = std::make_shared<const Model>(Model::open(std::filesystem::is_regular_file(file, ignored) ? file : folder));
  Adder(input, input->adapter->folder()).add();
}

}  // namespace chorus::merge
