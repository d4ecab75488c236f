// SPDX-License-Identifier: Apache-2.0
// The parts of tokenizer.json that hold tokens: model.vocab (a map, or Unigram's list), model.merges, added_tokens.
#include "merge/tokenizer/tokenizer_json.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <unordered_set>

#include "runtime/error.h"
#include "runtime/files.h"
#include "runtime/json.h"

namespace chorus::merge {
namespace {

using Json = nlohmann::json;

constexpr uint64_t kMaxBytes = uint64_t{256} << 20;
constexpr int64_t kMostTokens = int64_t{1} << 26;

int64_t id_from(const Json &value, const std::string &file) {
  if (!value.is_number_integer() || value.get<int64_t>() < 0 || value.get<int64_t>() >= kMostTokens) {
    fail(CHORUS_DATA_LOSS, "{}: a token's id is {}; 0 to {} are accepted", file, value.dump(), kMostTokens - 1);
  }
  return value.get<int64_t>();
}

// The two tokens a merge joins; "a b" or ["a", "b"].
std::pair<std::string, std::string> parts_of(const Json &merge) {
  if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) return {merge[0].get<std::string>(), merge[1].get<std::string>()};
  if (!merge.is_string()) return {};
  const auto &text = merge.get_ref<const std::string &>();
  const size_t space = text.find(' ');
  return space == std::string::npos ? std::pair<std::string, std::string>() : std::pair(text.substr(0, space), text.substr(space + 1));
}

// What transformers writes for a token in added_tokens_decoder.
Json decoder_entry(const Json &added) {
  Json out = added;
  out.erase("id");
  return out;
}

}  // namespace

TokenizerJson TokenizerJson::load(const std::string &folder) {
  TokenizerJson out;
  out.folder_ = folder;
  const std::string path = folder + "/tokenizer.json", config = folder + "/tokenizer_config.json";
  out.root_ = parse_json(read_text(path, kMaxBytes), path);
  std::error_code ignored;
  if (std::filesystem::exists(config, ignored)) out.config_ = parse_json(read_text(config, kMaxBytes), config);
  const auto model = out.root_.find("model");
  if (model == out.root_.end() || !model->is_object() || !model->contains("vocab")) fail(CHORUS_DATA_LOSS, "{} has no model.vocab", path);
  out.index();
  return out;
}

void TokenizerJson::index() {
  const std::string file = folder_ + "/tokenizer.json";
  ids_.clear();
  added_.clear();
  const Json &vocabulary = root_["model"]["vocab"];
  if (vocabulary.is_object()) {
    for (const auto &[token, id] : vocabulary.items()) ids_[token] = id_from(id, file);
  } else if (vocabulary.is_array()) {
    int64_t id = 0;
    for (const Json &entry : vocabulary) {
      if (!entry.is_array() || entry.empty() || !entry[0].is_string()) fail(CHORUS_DATA_LOSS, "{}: model.vocab[{}] is no pair of token and score", file, id);
      ids_.emplace(entry[0].get<std::string>(), id++);
    }
  } else {
    fail(CHORUS_DATA_LOSS, "{}: model.vocab is neither a map nor a list", file);
  }
  if (!root_.contains("added_tokens")) root_["added_tokens"] = Json::array();
  Json &added = root_["added_tokens"];
  if (!added.is_array()) fail(CHORUS_DATA_LOSS, "{}: added_tokens is no list", file);
  const auto decoder = config_.is_object() ? config_.find("added_tokens_decoder") : config_.end();
  if (config_.is_object() && decoder != config_.end() && decoder->is_object()) {  // tokens that the config alone has
    std::unordered_set<std::string> there;
    for (const Json &entry : added) {
      if (entry.is_object() && entry.contains("content") && entry["content"].is_string()) there.insert(entry["content"].get<std::string>());
    }
    for (const auto &[id, entry] : decoder->items()) {
      if (!entry.is_object() || !entry.contains("content") || !entry["content"].is_string()) continue;
      const auto &content = entry["content"].get_ref<const std::string &>();
      int64_t number = -1;
      std::from_chars(id.data(), id.data() + id.size(), number);
      if (number < 0 || number >= kMostTokens || there.contains(content)) continue;
      Json copy = entry;
      copy["id"] = ids_.contains(content) ? ids_.at(content) : number;
      added.push_back(std::move(copy));
    }
  }
  for (size_t i = 0; i < added.size(); ++i) {
    const Json &entry = added[i];
    if (!entry.is_object() || !entry.contains("content") || !entry["content"].is_string() || !entry.contains("id")) {
      fail(CHORUS_DATA_LOSS, "{}: added_tokens[{}] lacks content or id", file, i);
    }
    ids_[entry["content"].get<std::string>()] = id_from(entry["id"], file);
    added_[entry["content"].get<std::string>()] = i;
  }
}

int64_t TokenizerJson::id_of(const std::string &token) const {
  const auto found = ids_.find(token);
  return found == ids_.end() ? -1 : found->second;
}

std::vector<std::pair<int64_t, std::string>> TokenizerJson::ordered(bool added) const {
  std::vector<std::pair<int64_t, std::string>> out;
  for (const auto &[token, id] : ids_) {
    if (added_.contains(token) == added) out.emplace_back(id, token);
  }
  std::ranges::sort(out);
  return out;
}

int64_t TokenizerJson::end() const {
  int64_t end = 0;
  for (const auto &[token, id] : ids_) end = std::max(end, id + 1);
  return end;
}

void TokenizerJson::strip(int64_t size) {
  std::unordered_set<std::string> gone;
  for (const auto &[token, id] : ids_) {
    if (id >= size) gone.insert(token);
  }
  if (gone.empty()) return;
  changed_ = true;
  Json &model = root_["model"], &added = root_["added_tokens"];
  added.erase(std::remove_if(added.begin(), added.end(), [&](const Json &entry) { return gone.contains(entry["content"].get<std::string>()); }),
              added.end());
  if (model["vocab"].is_object()) {
    for (const std::string &token : gone) model["vocab"].erase(token);
  } else {
    while (static_cast<int64_t>(model["vocab"].size()) > size) model["vocab"].erase(model["vocab"].size() - 1);
  }
  if (model.contains("merges") && model["merges"].is_array()) {
    Json kept = Json::array();
    for (Json &merge : model["merges"]) {
      const auto [left, right] = parts_of(merge);
      if (!gone.contains(left) && !gone.contains(right) && !gone.contains(left + right)) kept.push_back(std::move(merge));
    }
    model["merges"] = std::move(kept);
  }
  if (config_.is_object() && config_.contains("added_tokens_decoder")) {
    for (const std::string &token : gone) config_["added_tokens_decoder"].erase(std::to_string(ids_.at(token)));
  }
  index();
}

const Json *TokenizerJson::entry_of(const std::string &token) const {
  const auto found = added_.find(token);
  return found == added_.end() ? nullptr : &root_["added_tokens"][found->second];
}

void TokenizerJson::add(const std::string &token, const TokenizerJson *like) {
  if (ids_.contains(token)) return;
  changed_ = true;
  const int64_t id = end();
  Json entry = {{"content", token}, {"single_word", false}, {"lstrip", false}, {"rstrip", false}, {"normalized", true}, {"special", false}};
  const Json *model = like != nullptr ? like->entry_of(token) : nullptr;
  if (model != nullptr) entry = *model;
  entry["id"] = id;
  if (config_.is_object() && config_.contains("added_tokens_decoder") && config_["added_tokens_decoder"].is_object()) {
    config_["added_tokens_decoder"][std::to_string(id)] = decoder_entry(entry);
  }
  added_[token] = root_["added_tokens"].size();
  root_["added_tokens"].push_back(std::move(entry));
  ids_[token] = id;
}

std::string TokenizerJson::config_text() const { return config_.is_object() ? config_.dump(2, ' ', false, Json::error_handler_t::replace) + "\n" : ""; }

}  // namespace chorus::merge
