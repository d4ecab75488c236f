// SPDX-License-Identifier: Apache-2.0
// The index as JSON events: only weight_map is kept.
#include "checkpoint/shard_index.h"

#include <nlohmann/json.hpp>
#include <unordered_set>

#include "runtime/json.h"
#include "runtime/utf8.h"

namespace chorus::checkpoint {
namespace {

class Handler : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit Handler(const std::string &file) : file_(file) {}

  std::map<std::string, std::vector<std::string>> take() {
    if (!found_) fail(CHORUS_DATA_LOSS, "{}: it has no object weight_map", file_);
    return std::move(files_);
  }

  bool null() override { return other(); }
  bool boolean(bool) override { return other(); }
  bool number_integer(number_integer_t) override { return other(); }
  bool number_unsigned(number_unsigned_t) override { return other(); }
  bool number_float(number_float_t, const string_t &) override { return other(); }
  bool binary(binary_t &) override { return other(); }
  bool string(string_t &text) override {
    if (!in_map_) return other();
    if (!names_.insert(key_).second) fail(CHORUS_DATA_LOSS, "{}: tensor '{}' stands there twice", file_, shown(key_));
    files_[text].push_back(std::move(key_));
    return true;
  }
  bool key(string_t &text) override {
    key_ = std::move(text);
    return true;
  }
  bool start_object(size_t) override {
    const bool is_map = depth_ == 1 && key_ == "weight_map";
    if (in_map_ || (is_map && found_)) other();
    deepen();
    in_map_ = is_map;
    found_ |= is_map;
    return true;
  }
  bool end_object() override {
    --depth_;
    in_map_ = false;
    return true;
  }
  bool start_array(size_t) override {
    other();
    if (depth_ == 0) fail(CHORUS_DATA_LOSS, "{}: an object is needed, not an array", file_);
    deepen();
    return true;
  }
  bool end_array() override {
    --depth_;
    return true;
  }
  bool parse_error(size_t position, const std::string &, const nlohmann::json::exception &error) override {
    fail_json(file_, position > 0 ? position - 1 : 0, error);
  }

 private:
  // Anything but the name of a file is refused in weight_map, and ignored elsewhere.
  bool other() const {
    if (in_map_) fail(CHORUS_DATA_LOSS, "{}: tensor '{}' has no file name", file_, shown(key_));
    if (depth_ == 1 && key_ == "weight_map") fail(CHORUS_DATA_LOSS, "{}: weight_map is no object, or stands there twice", file_);
    return true;
  }
  void deepen() {
    if (++depth_ > kMaxJsonDepth) fail(CHORUS_DATA_LOSS, "{}: nested deeper than {} levels", file_, kMaxJsonDepth);
  }

  const std::string &file_;
  std::map<std::string, std::vector<std::string>> files_;
  std::unordered_set<std::string> names_;
  std::string key_;
  int depth_ = 0;
  bool in_map_ = false, found_ = false;
};

}  // namespace

std::map<std::string, std::vector<std::string>> parse_shard_index(std::string_view text, const std::string &file) {
  Handler handler(file);
  nlohmann::json::sax_parse(text.begin(), text.end(), &handler);
  return handler.take();
}

}  // namespace chorus::checkpoint
