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
void slice_lists(const std::vector<Group> &groups, int64_t old_layers, Json *section) {
  for (auto &[key, value] : section->items()) {
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

// The part of config.json that `key` lies in ("vision_config.depth"), and the rest of the key; NULL when it is not there.
Json *section_of(Json *config, std::string *key) {
  const size_t dot = key->find('.');
  if (dot == std::string::npos) return config;
  const auto section = config->find(key->substr(0, dot));
  if (section == config->end() || !section->is_object()) return nullptr;
  key->erase(0, dot + 1);
  return &*section;
}

// `groups`: the slices of one module.
void set_layers(const std::vector<Group> &groups, Json *config) {
  for (std::string key : layer_keys(groups.front().module)) {
    Json *section = section_of(config, &key);
    if (section == nullptr || !section->contains(key) || !(*section)[key].is_number_integer()) continue;
    slice_lists(groups, (*section)[key].get<int64_t>(), section);
    (*section)[key] = output_layers(groups);
  }
}

void set_all_layers(const std::vector<Group> &groups, Json *config) {
  for (size_t begin = 0, end = 0; begin < groups.size(); begin = end) {
    for (end = begin + 1; end < groups.size() && groups[end].module == groups[begin].module; ++end) {
    }
    const std::vector<Group> slices(groups.begin() + static_cast<ptrdiff_t>(begin), groups.begin() + static_cast<ptrdiff_t>(end));
    if (slices.front().is_slice) set_layers(slices, config);
  }
}

void set_vocabulary(int64_t rows, Json *config) {
  for (std::string key : {"vocab_size", "text_config.vocab_size", "llm_config.vocab_size"}) {
    Json *section = section_of(config, &key);
    if (section != nullptr && section->contains(key)) (*section)[key] = rows;
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
  set_all_layers(groups, &config);
  if (plan.vocabulary) set_vocabulary(plan.vocabulary->rows, &config);
  untie(plan, reference, &config);
  return config.dump(2) + "\n";
}

// The recipe's own template replaces the one of the tokenizer.
void set_chat_template(const std::string &text, std::vector<checkpoint::SideFile> *files) {
  std::erase_if(*files, [](const auto &file) { return file.name == "chat_template.jinja" || file.name == "chat_template.json"; });
  for (checkpoint::SideFile &file : *files) {
    if (file.name != "tokenizer_config.json") continue;
    const std::string config = file.path.empty() ? file.text : read_text(file.path, kMaxTokenizerConfigBytes);
    parse_json(config, file.path);  // bounded, with file and byte in its errors
    Json json = Json::parse(config);
    json["chat_template"] = text;
    file = {file.name, "", json.dump(2) + "\n"};
  }
  files->push_back({"chat_template.jinja", "", text});
}

// The tokenizer with its tokens changed replaces the files of the one it came from; older formats of it would contradict it.
void set_tokenizer(const OutputVocabulary &vocabulary, std::vector<checkpoint::SideFile> *files) {
  if (!vocabulary.changed) return;
  constexpr std::string_view kGone[] = {"tokenizer.json", "tokenizer.model", "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "spiece.model"};
  std::erase_if(*files, [&](const checkpoint::SideFile &file) {
    return std::ranges::find(kGone, file.name) != std::end(kGone) || (file.name == "tokenizer_config.json" && !vocabulary.config.empty());
  });
  files->push_back({"tokenizer.json", "", vocabulary.json});
  if (!vocabulary.config.empty()) files->push_back({"tokenizer_config.json", "", vocabulary.config});
}

// The template of a model: of chat_template.jinja, else of tokenizer_config.json (the one called "default" of a list); "" for none.
std::string chat_template_of(const std::string &folder) {
  std::string text;
  if (is_file(folder + "/chat_template.jinja")) {
    text = read_text(folder + "/chat_template.jinja", kMaxTokenizerConfigBytes);
  } else if (is_file(folder + "/tokenizer_config.json")) {
    const std::string path = folder + "/tokenizer_config.json";
    const nlohmann::json config = parse_json(read_text(path, kMaxTokenizerConfigBytes), path);
    const auto found = config.is_object() ? config.find("chat_template") : config.end();
    if (config.is_object() && found != config.end() && found->is_string()) text = found->get<std::string>();
    if (config.is_object() && found != config.end() && found->is_array()) {
      for (const nlohmann::json &one : *found) {
        if (!one.is_object() || !one.contains("name") || one["name"] != "default" || !one.contains("template")) continue;
        if (one["template"].is_string()) text = one["template"].get<std::string>();
      }
    }
  }
  const size_t first = text.find_first_not_of(" \t\r\n");
  return first == std::string::npos ? "" : text.substr(first, text.find_last_not_of(" \t\r\n") - first + 1);
}

// The template that most inputs have; of equally many the first.
std::string most_common_template(const Plan &plan) {
  std::vector<std::pair<std::string, size_t>> counts;
  for (const InputModel &input : plan.inputs) {
    std::string text = input.model != nullptr ? chat_template_of(input.model->folder()) : "";
    if (text.empty()) continue;
    const auto known = std::ranges::find(counts, text, &std::pair<std::string, size_t>::first);
    if (known != counts.end()) {
      ++known->second;
    } else {
      counts.emplace_back(std::move(text), 1);
    }
  }
  const auto most = std::ranges::max_element(counts, {}, &std::pair<std::string, size_t>::second);
  return most == counts.end() ? "" : most->first;
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
  const std::string command = plan.settings.command.empty() ? "" : fmt::format("\n## Command\n\n```\n{}\n```\n", plan.settings.command);
  return fmt::format(
      "---\nbase_model:\n{}base_model_relation: merge\nlibrary_name: transformers\ntags:\n  - merge\n  - chorus\n---\n# {}\n\nMerged from\n\n{}\n"
      "by chorus {} with the method `{}`: {}.\n`chorus_manifest.json` holds fingerprints of these inputs and a checksum of every tensor.\n\n"
      "## Recipe\n\n```yaml\n{}```\n{}",
      models, title, list, chorus_version(), plan.recipe.method->name, plan.recipe.method->summary, recipe, command);
}

}  // namespace

std::vector<checkpoint::SideFile> plan_side_files(const Plan &plan, const std::vector<Group> &groups, Diagnostics *diagnostics) {
  std::vector<checkpoint::SideFile> files;
  const checkpoint::Model &reference = *groups.front().reference().input->model;
  const std::string tokenizer = plan.vocabulary ? plan.vocabulary->folder : reference.folder();
  try {
    if (!reference.config_text().empty()) {
      files.push_back({"config.json", "", config_text(plan, groups, reference)});
    } else {
      diagnostics->warning({}, "{} has no config.json; the output has none either", reference.folder());
    }
    copy_from(reference.folder(), kConfigFiles, &files);
    copy_from(tokenizer, kTokenizerFiles, &files);
    if (plan.vocabulary) set_tokenizer(*plan.vocabulary, &files);
    const std::string chat = plan.recipe.auto_chat_template ? most_common_template(plan) : plan.recipe.chat_template;
    if (!chat.empty()) set_chat_template(chat, &files);
  } catch (const Failure &failure) {
    diagnostics->error_because({}, "the files beside the weights cannot be made", failure);
  }
  files.push_back({"mergekit_config.yml", "", plan.recipe.text});
  files.push_back({"README.md", "", model_card(plan)});
  return files;
}

}  // namespace chorus::merge
