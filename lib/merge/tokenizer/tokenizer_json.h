// SPDX-License-Identifier: Apache-2.0
// A tokenizer.json with what tokenizer_config.json adds to it: tokens to ids, tokens taken away and added, the texts of both files again.
#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <unordered_map>
#include <vector>

namespace chorus::merge {

class TokenizerJson {
 public:
  // Fails NOT_FOUND without tokenizer.json, DATA_LOSS for what is none.
  static TokenizerJson load(const std::string &folder);

  const std::string &folder() const { return folder_; }
  const std::unordered_map<std::string, int64_t> &ids() const { return ids_; }
  // Nothing's id is -1.
  int64_t id_of(const std::string &token) const;
  // Tokens with their ids, in their order; added ones (special, user-defined) apart from those of the model.
  std::vector<std::pair<int64_t, std::string>> ordered(bool added) const;
  // One past the highest id.
  int64_t end() const;

  // Takes away tokens with ids of `size` and above, and merges that make them.
  void strip(int64_t size);
  // Adds `token` at the end, as `like` has it among its added tokens (flags), or as a plain one. Nothing when it is there.
  void add(const std::string &token, const TokenizerJson *like);

  bool changed() const { return changed_; }
  std::string json_text() const { return root_.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n"; }
  // "" when there is no tokenizer_config.json.
  std::string config_text() const;

 private:
  void index();
  const nlohmann::json *entry_of(const std::string &token) const;

  std::string folder_;
  nlohmann::json root_, config_;  // config_ null: none
  std::unordered_map<std::string, int64_t> ids_;
  std::unordered_map<std::string, size_t> added_;  // token -> index in added_tokens
  bool changed_ = false;
};

}  // namespace chorus::merge
