// SPDX-License-Identifier: Apache-2.0
// The parser: JSON events, of which those below model.vocab and model.merges go into tables, the others build a document of
// a bounded number of values.
#include "vocabulary/tokenizer_file.h"

#include <algorithm>
#include <limits>
#include <optional>

#include "runtime/json.h"
#include "runtime/utf8.h"

namespace chorus::vocabulary {
namespace {

using nlohmann::json;

constexpr size_t kMaxValues = size_t{1} << 22;          // of the small document: some 200 MB at worst
constexpr uint64_t kSpareIds = 65536;                   // ids may have holes, but not so many
constexpr size_t kMaxAddedBytes = 4096;                 // looking for added tokens costs the longest per byte of text

struct VocabularyEntry {
  uint64_t begin;
  uint32_t length, id;
};

class Handler : public nlohmann::json_sax<json> {
 public:
  explicit Handler(TokenizerFile *out) : out_(out) {}

  bool null() override { return value(nullptr); }
  bool boolean(bool v) override { return value(v); }
  bool number_integer(number_integer_t v) override { return value(v); }
  bool number_float(number_float_t v, const string_t &) override { return value(v); }
  bool binary(binary_t &) override { return false; }
  bool number_unsigned(number_unsigned_t v) override {
    if (where_ != kVocabulary) return value(v);
    if (v > static_cast<uint64_t>(std::numeric_limits<int32_t>::max())) {
      fail(CHORUS_DATA_LOSS, "{}: token '{}' has id {}; at most 2^31 - 1 is allowed", out_->path, shown(key_), v);
    }
    entries_.push_back({texts_.size(), static_cast<uint32_t>(key_.size()), static_cast<uint32_t>(v)});
    texts_ += key_;
    return true;
  }
  bool string(string_t &text) override {
    if (where_ == kMerges) return add_legacy_merge(text);
    if (where_ == kMergePair) return add_merge_half(text);
    return value(std::move(text));
  }
  bool key(string_t &text) override {
    if (where_ == kDocument) {
      target_ = &(*stack_.back())[text];
      count();
    }
    key_ = std::move(text);
    return true;
  }
  bool start_object(size_t) override {
    if (where_ == kDocument && is_member_of_model("vocab")) return enter(kVocabulary);
    return start(json::object());
  }
  bool start_array(size_t) override {
    if (where_ == kDocument && is_member_of_model("merges")) return enter(kMerges);
    if (where_ == kMerges) {
      halves_ = 0;
      return enter(kMergePair);
    }
    return start(json::array());
  }
  bool end_object() override { return end(); }
  bool end_array() override { return end(); }
  bool parse_error(size_t position, const std::string &, const nlohmann::json::exception &error) override {
    fail_json(out_->path, position > 0 ? position - 1 : 0, error);
  }

  void finish() {
    uint64_t size = 0;
    for (const VocabularyEntry &e : entries_) size = std::max<uint64_t>(size, uint64_t{e.id} + 1);
    check_size(size);
    out_->vocabulary.reserve_ids(size);
    for (const VocabularyEntry &e : entries_) {
      const std::string_view text(texts_.data() + e.begin, e.length);
      if (out_->vocabulary.has(e.id)) {
        fail(CHORUS_DATA_LOSS, "{}: tokens '{}' and '{}' have the same id {}", out_->path, shown(out_->vocabulary.at(e.id)),
             shown(text), e.id);
      }
      out_->vocabulary.put(e.id, text);
    }
    out_->vocabulary.index();
    for (const VocabularyEntry &e : entries_) {
      const std::string_view text(texts_.data() + e.begin, e.length);
      if (out_->vocabulary.find(text) != static_cast<int32_t>(e.id)) {
        fail(CHORUS_DATA_LOSS, "{}: token '{}' stands there twice", out_->path, shown(text));
      }
    }
  }

 private:
  void check_size(uint64_t size) const {
    if (size > 2 * entries_.size() + kSpareIds) {
      fail(CHORUS_DATA_LOSS, "{}: the highest id is {} for {} tokens; that many holes are not accepted", out_->path, size - 1,
           entries_.size());
    }
  }

  enum Where { kDocument, kVocabulary, kMerges, kMergePair };

  bool is_member_of_model(const char *name) const {
    return stack_.size() == 2 && model_ != nullptr && stack_.back() == model_ && key_ == name;
  }

  bool enter(Where where) {
    where_ = where;
    return true;
  }

  void count() {
    if (++values_ > kMaxValues) fail(CHORUS_DATA_LOSS, "{}: more than {} values beside the vocabulary", out_->path, kMaxValues);
  }

  bool value(json v) {
    if (where_ == kVocabulary) fail(CHORUS_DATA_LOSS, "{}: token '{}' has no whole number as id", out_->path, shown(key_));
    if (where_ != kDocument) fail(CHORUS_DATA_LOSS, "{}: merges hold a {}; texts or pairs of texts are needed", out_->path, v.type_name());
    place(std::move(v));
    return true;
  }

  json *place(json v) {
    count();
    if (stack_.empty()) {
      out_->rest = std::move(v);
      return &out_->rest;
    }
    if (stack_.back()->is_array()) {
      stack_.back()->push_back(std::move(v));
      return &stack_.back()->back();
    }
    *target_ = std::move(v);
    return target_;
  }

  bool start(json v) {
    if (where_ != kDocument) value(std::move(v));
    if (stack_.size() >= kMaxJsonDepth) fail(CHORUS_DATA_LOSS, "{}: nested deeper than {} levels", out_->path, kMaxJsonDepth);
    const bool is_model = stack_.size() == 1 && stack_.back()->is_object() && v.is_object() && key_ == "model";
    stack_.push_back(place(std::move(v)));
    if (is_model) model_ = stack_.back();
    return true;
  }

  bool end() {
    if (where_ == kMergePair) {
      if (halves_ != 2) fail(CHORUS_DATA_LOSS, "{}: merge {} has {} parts; two are needed", out_->path, out_->merges.size(), halves_);
      out_->merges.add(left_, right_);
      return enter(kMerges);
    }
    if (where_ != kDocument) return enter(kDocument);
    stack_.pop_back();
    return true;
  }

  bool add_merge_half(string_t &text) {
    if (halves_ < 2) (halves_ == 0 ? left_ : right_) = std::move(text);
    ++halves_;
    return true;
  }

  bool add_legacy_merge(const string_t &text) {
    if (text.starts_with("#version")) return true;
    const size_t space = text.find(' ');
    if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos) {
      fail(CHORUS_DATA_LOSS, "{}: merge {} is '{}'; two tokens with a space between are needed", out_->path, out_->merges.size(),
           shown(text));
    }
    out_->merges.add(std::string_view(text).substr(0, space), std::string_view(text).substr(space + 1));
    return true;
  }

  TokenizerFile *out_;
  Where where_ = kDocument;
  std::vector<json *> stack_;  // the open objects and arrays; their parents do not grow meanwhile
  json *target_ = nullptr, *model_ = nullptr;
  std::string key_, left_, right_;
  int halves_ = 0;
  size_t values_ = 0;
  std::string texts_;
  std::vector<VocabularyEntry> entries_;
};

template <typename T>
T field(const json &object, const char *name, T missing, const std::string &path) {
  const auto found = object.find(name);
  if (found == object.end() || found->is_null()) return missing;
  try {
    return found->get<T>();
  } catch (const json::exception &) {
    fail(CHORUS_DATA_LOSS, "{}: '{}' is a {}", path, name, found->type_name());
  }
}

AddedToken read_added(const json &entry, const std::string &path) {
  if (!entry.is_object() || !entry.contains("content")) fail(CHORUS_DATA_LOSS, "{}: an added token has no content", path);
  AddedToken token;
  token.content = field<std::string>(entry, "content", "", path);
  const auto id = entry.find("id");
  if (id == entry.end() || !id->is_number_unsigned() || id->get<uint64_t>() > std::numeric_limits<int32_t>::max()) {
    fail(CHORUS_DATA_LOSS, "{}: added token '{}' has no id from 0 to 2^31 - 1", path, shown(token.content));
  }
  token.id = id->get<uint32_t>();
  token.single_word = field(entry, "single_word", false, path);
  token.left_strip = field(entry, "lstrip", false, path);
  token.right_strip = field(entry, "rstrip", false, path);
  token.normalized = field(entry, "normalized", true, path);
  token.special = field(entry, "special", false, path);
  if (token.content.size() > kMaxAddedBytes) {
    fail(CHORUS_DATA_LOSS, "{}: added token {} has {} bytes; at most {} are accepted", path, token.id, token.content.size(),
         kMaxAddedBytes);
  }
  return token;
}

void read_all_added(TokenizerFile *file) {
  const auto list = file->rest.find("added_tokens");
  if (list == file->rest.end() || list->is_null()) return;
  if (!list->is_array()) fail(CHORUS_DATA_LOSS, "{}: added_tokens is no array", file->path);
  for (const json &entry : *list) {
    AddedToken token = read_added(entry, file->path);
    if (token.content.empty()) continue;
    // A text that the model knows keeps its id there.
    if (const int32_t known = file->vocabulary.find(token.content); known >= 0) token.id = static_cast<uint32_t>(known);
    if (token.id > 2 * (file->vocabulary.size() + list->size()) + kSpareIds) {
      fail(CHORUS_DATA_LOSS, "{}: added token '{}' has id {}, far beyond the number of tokens", file->path, shown(token.content),
           token.id);
    }
    file->added.push_back(std::move(token));
  }
}

}  // namespace

void MergeTexts::add(std::string_view left, std::string_view right) {
  spans_.push_back({text_.size(), static_cast<uint32_t>(left.size()), static_cast<uint32_t>(right.size())});
  text_ += left;
  text_ += right;
}

std::pair<std::string_view, std::string_view> MergeTexts::at(size_t rank) const {
  const Span &span = spans_[rank];
  const std::string_view both(text_.data() + span.begin, size_t{span.left} + span.right);
  return {both.substr(0, span.left), both.substr(span.left)};
}

TokenizerFile parse_tokenizer(const std::string &text, const std::string &path) {
  TokenizerFile file;
  file.path = path;
  Handler handler(&file);
  json::sax_parse(text, &handler);
  if (!file.rest.is_object()) fail(CHORUS_DATA_LOSS, "{}: byte 0: an object is needed", path);
  const auto model = file.rest.find("model");
  if (model == file.rest.end() || !model->is_object()) fail(CHORUS_DATA_LOSS, "{}: it has no object 'model'", path);
  const std::string type = field<std::string>(*model, "type", "BPE", path);
  if (type != "BPE") fail(CHORUS_UNIMPLEMENTED, "{}: the model is of type '{}'; BPE is read", path, shown(type));
  // Both went into tables if they had the type they need; then their keys stand in the document with null.
  for (const auto &[name, needed] : {std::pair("vocab", "object"), std::pair("merges", "array")}) {
    const auto member = model->find(name);
    if (member == model->end()) fail(CHORUS_DATA_LOSS, "{}: the model has no {} '{}'", path, needed, name);
    if (!member->is_null()) fail(CHORUS_DATA_LOSS, "{}: model.{} is a {}; an {} is needed", path, name, member->type_name(), needed);
  }
  handler.finish();
  read_all_added(&file);
  return file;
}

}  // namespace chorus::vocabulary
