// SPDX-License-Identifier: Apache-2.0
// The files beside the weights: config.json adapted, tokenizer and generation settings copied, the recipe, a model card.
#include <algorithm>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>

#include "checkpoint/model.h"
#include "chorus/base.h"
#include "merge/plan.h"
#include "runtime/files.h"
#include "runtime/json.h"

namespace chorus::merge {
namespace {

using Json = nlohmann::ordered_json;

// Of the model whose tokenizer is taken; those that are there are copied.
constexpr const char *kTokenizerFiles[] = {"tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json",
                                           "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "chat_template.jinja",
                                           "chat_template.json", "spiece.model"};
// Of the model whose config is taken.
constexpr const char *kConfigFiles[] = {"generation_config.json", "preprocessor_config.json", "processor_config.json",
                                        "video_preprocessor_config.json"};
constexpr uint64_t kMaxTokenizerConfigBytes = uint64_t{64} << 20;

bool is_file(const std::string &path) {
  std::error_code ignored;
  return std::filesystem::is_regular_file(path, ignored);
}

template <typename Names>
void copy_from(const std::string &folder, const Names &names, std::vector<checkpoint::SideFile> *out) {
  for (const char *name : names) {
    if (is_file(folder + "/" + name)) out->push_back({name, folder + "/" + name, ""});
  }
}

const char *torch_name(const checkpoint::StorageType *type) {
  switch (type->dtype) {
    case CHORUS_BF16:
      return "bfloat16";
    case CHORUS_F16:
      return "float16";
    case CHORUS_F64:
      return "float64";
    default:
      return "float32";
  }
}

// The type most elements of the output have.
const checkpoint::StorageType *main_type(const Plan &plan) {
  std::map<const checkpoint::StorageType *, uint64_t> elements;
  for (const Job &job : plan.jobs) {
    if (job.kind != JobKind::kCompare) elements[job.type] += job.elements;
  }
  const auto most = std::ranges::max_element(elements, {}, [](const auto &entry) { return entry.second; });
  return most == elements.end() ? checkpoint::storage_type(CHORUS_F32) : most->first;
}

// Lists with an entry for each layer follow the layers of the slices.
void slice_lists(const std::vector<Group> &groups, int64_t old_layers, Json *config) {
  for (auto &[key, value] : config->items()) {
    if (!value.is_array() || static_cast<int64_t>(value.size()) != old_layers || key == "architectures") continue;
    Json sliced = Json::array();
    for (const Group &group : groups) {
      const LayerRange range = *group.reference().layers;
      for (int64_t layer = range.begin; layer < range.end; ++layer) {
        if (layer < old_layers) sliced.push_back(value[static_cast<size_t>(layer)]);
      }
    }
    value = sliced;
  }
}

void set_layers(const std::vector<Group> &groups, Json *config) {
  for (const char *key : {"num_hidden_layers", "n_layer", "num_layers", "n_layers"}) {
    if (!config->contains(key) || !(*config)[key].is_number_integer()) continue;
    slice_lists(groups, (*config)[key].get<int64_t>(), config);
    (*config)[key] = output_layers(groups);
  }
}

// A head of its own in the output contradicts a config that ties it to the embedding.
void untie(const Plan &plan, const checkpoint::Model &reference, Json *config) {
  const auto is_head = [](const auto &tensor) { return tensor.role.kind == CHORUS_TENSOR_KIND_HEAD; };
  if (!config->contains("tie_word_embeddings") || (*config)["tie_word_embeddings"] != true) return;
  const auto head = std::ranges::find_if(plan.jobs, [](const Job &job) { return checkpoint::role_of(job.name).kind == CHORUS_TENSOR_KIND_HEAD; });
  if (head != plan.jobs.end() && std::ranges::none_of(reference.tensors(), is_head)) (*config)["tie_word_embeddings"] = false;
}

std::string config_text(const Plan &plan, const std::vector<Group> &groups, const checkpoint::Model &reference) {
  reference.config();  // says what is wrong with it
  Json config = Json::parse(reference.config_text());
  const char *dtype = torch_name(main_type(plan));
  if (config.contains("dtype")) {
    config["dtype"] = dtype;
  } else {
    config["torch_dtype"] = dtype;
  }
  if (!plan.recipe.slices.empty()) set_layers(groups, &config);
  untie(plan, reference, &config);
  return config.dump(2) + "\n";
}

// The recipe's own template replaces the one of the tokenizer.
void set_chat_template(const std::string &text, std::vector<checkpoint::SideFile> *files) {
  std::erase_if(*files, [](const auto &file) { return file.name == "chat_template.jinja" || file.name == "chat_template.json"; });
  for (checkpoint::SideFile &file : *files) {
    if (file.name != "tokenizer_config.json") continue;
    const std::string config = read_text(file.path, kMaxTokenizerConfigBytes);
    parse_json(config, file.path);  // bounded, with file and byte in its errors
    Json json = Json::parse(config);
    json["chat_template"] = text;
    file = {file.name, "", json.dump(2) + "\n"};
  }
  files->push_back({"chat_template.jinja", "", text});
}

// A name for the model card: what the hub calls it, or the last part of a path.
std::string card_name(const ModelReference &reference) {
  const std::string &path = reference.path;
  const bool is_path = path.starts_with('/') || path.starts_with('.') || std::ranges::count(path, '/') > 1;
  return is_path ? std::filesystem::path(path).lexically_normal().filename().string() : path;
}

std::string quoted(const std::string &text) { return Json(text).dump(-1, ' ', false, Json::error_handler_t::replace); }

std::string model_card(const Plan &plan) {
  std::string models, list;
  for (const InputModel &input : plan.inputs) {
    models += fmt::format("  - {}\n", quoted(card_name(input.reference)));
    list += fmt::format("- {}\n", card_name(input.reference));
  }
  const std::string title = plan.settings.output.empty()
                                ? "merge"
                                : std::filesystem::path(plan.settings.output).lexically_normal().filename().string();
  std::string recipe = plan.recipe.text;
  if (!recipe.ends_with('\n')) recipe += '\n';
  return fmt::format(
      "---\nbase_model:\n{}library_name: transformers\ntags:\n  - merge\n  - chorus\n---\n# {}\n\nMerged from\n\n{}\nby chorus {} with the method "
      "`{}`: {}.\n\n## Recipe\n\n```yaml\n{}```\n",
      models, title, list, chorus_version(), plan.recipe.method->name, plan.recipe.method->summary, recipe);
}

}  // namespace

std::vector<checkpoint::SideFile> plan_side_files(const Plan &plan, const std::vector<Group> &groups, Diagnostics *diagnostics) {
  std::vector<checkpoint::SideFile> files;
  const checkpoint::Model &reference = *groups.front().reference().input->model;
  const checkpoint::Model *tokenizer = &reference;
  if (plan.recipe.tokenizer_model) {
    const auto found = std::ranges::find_if(plan.inputs, [&](const InputModel &input) { return input.reference == *plan.recipe.tokenizer_model; });
    tokenizer = found->model.get();
  }
  try {
    if (!reference.config_text().empty()) {
      files.push_back({"config.json", "", config_text(plan, groups, reference)});
    } else {
      diagnostics->warning({}, "{} has no config.json; the output has none either", reference.folder());
    }
    copy_from(reference.folder(), kConfigFiles, &files);
    copy_from(tokenizer->folder(), kTokenizerFiles, &files);
    if (!plan.recipe.chat_template.empty()) set_chat_template(plan.recipe.chat_template, &files);
  } catch (const Failure &failure) {
    diagnostics->error_because({}, "the files beside the weights cannot be made", failure);
  }
  files.push_back({"mergekit_config.yml", "", plan.recipe.text});
  files.push_back({"README.md", "", model_card(plan)});
  return files;
}

}  // namespace chorus::merge
