// SPDX-License-Identifier: Apache-2.0
// Parsing a header: a state machine over JSON events, so that nothing is kept but the tensors themselves, whatever else a
// hostile header holds. It takes exactly what serde takes for the crate's types: also a tensor as the array
// [dtype, shape, offsets], a dtype as {"F32": null}, and unknown fields, which it ignores.
#include <algorithm>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <unordered_set>

#include "checkpoint/header.h"
#include "runtime/checked.h"
#include "runtime/error.h"
#include "runtime/utf8.h"

namespace chorus::checkpoint {
namespace {

constexpr int kMaxDepth = 127;  // of serde_json

// Walks the text and says how far it got, so that messages can name the byte.
struct Walker {
  using iterator_category = std::forward_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char *;
  using reference = const char &;
  const char *at = nullptr;
  const char **reached = nullptr;
  reference operator*() const { return *at; }
  Walker &operator++() {
    *reached = ++at;
    return *this;
  }
  Walker operator++(int) {
    Walker before = *this;
    ++*this;
    return before;
  }
  bool operator==(const Walker &other) const { return at == other.at; }
};

// Where in the document the next event stands.
enum class At {
  kDocument, kTop, kMetadataValue, kMetadata, kMetadataText, kTensor, kTensorFields, kTensorItems,
  kType, kTypeVariant, kTypeVariantValue, kShape, kShapeItems, kOffsets, kOffsetItems, kIgnored, kEnd
};

enum Field { kDtypeField = 1, kShapeField = 2, kOffsetsField = 4, kAllFields = 7 };

class Handler {
 public:
  using number_integer_t = int64_t;
  using number_unsigned_t = uint64_t;
  using number_float_t = double;
  using string_t = std::string;
  using binary_t = std::vector<uint8_t>;

  Handler(const std::string &file, const char *begin, Header *out) : file_(file), begin_(begin), reached_(begin), out_(out) {}

  const char **reached() { return &reached_; }

  bool null() {
    if (at_ == At::kTypeVariantValue) return set_type(variant_);
    if (at_ == At::kMetadataValue) return leave(At::kTop);  // as when it is absent
    return ignore_or("null");
  }
  bool boolean(bool) { return ignore_or("a boolean"); }
  bool number_integer(int64_t value) { return ignore_or(fmt::format("{}", value)); }
  bool number_float(double, const std::string &text) { return ignore_or("the number " + shown(text)); }
  bool binary(binary_t &) { return false; }

  bool number_unsigned(uint64_t value) {
    if (at_ == At::kShapeItems) {
      if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
        refuse("the shape has size {}; at most 2^63 - 1 is allowed", value);
      }
      tensor_.shape.push_back(static_cast<int64_t>(value));
      return true;
    }
    if (at_ == At::kOffsetItems) {
      if (offsets_ == 2) refuse("data_offsets have more than two numbers");
      (offsets_++ == 0 ? tensor_.begin : tensor_.end) = value;
      return true;
    }
    return ignore_or(fmt::format("{}", value));
  }

  bool string(std::string &text) {
    switch (at_) {
      case At::kMetadataText:
        out_->metadata.insert_or_assign(key_, std::move(text));
        at_ = At::kMetadata;
        return true;
      case At::kType: return set_type(text);
      default: return ignore_or("a string");
    }
  }

  bool key(std::string &text) {
    switch (at_) {
      case At::kTop: begin_entry(text); break;
      case At::kMetadata:
        key_ = std::move(text);
        at_ = At::kMetadataText;
        break;
      case At::kTensorFields: begin_field(text); break;
      case At::kTypeVariant:
        if (!variant_.empty()) refuse("dtype is an object of more than one key");
        variant_ = std::move(text);
        at_ = At::kTypeVariantValue;
        break;
      default: break;  // kIgnored
    }
    return true;
  }

  bool start_object(size_t) {
    deepen();
    switch (at_) {
      case At::kDocument: at_ = At::kTop; break;
      case At::kMetadataValue: at_ = At::kMetadata; break;
      case At::kTensor: at_ = At::kTensorFields; break;
      case At::kType:
        variant_.clear();
        at_ = At::kTypeVariant;
        break;
      default: return ignore_nested("an object");
    }
    return true;
  }

  bool start_array(size_t) {
    deepen();
    switch (at_) {
      case At::kTensor:
        is_array_ = true;
        at_ = At::kType;
        break;
      case At::kShape: at_ = At::kShapeItems; break;
      case At::kOffsets: at_ = At::kOffsetItems; break;
      default: return ignore_nested("an array");
    }
    return true;
  }

  bool end_object() {
    --depth_;
    switch (at_) {
      case At::kTop: at_ = At::kEnd; break;
      case At::kMetadata: at_ = At::kTop; break;
      case At::kTensorFields: end_tensor(); break;
      case At::kTypeVariant: return end_variant();
      default: end_ignored();
    }
    return true;
  }

  bool end_array() {
    --depth_;
    switch (at_) {
      case At::kShapeItems: return end_field(kShapeField);
      case At::kOffsetItems:
        if (offsets_ != 2) refuse("data_offsets have {} number(s); two are needed", offsets_);
        return end_field(kOffsetsField);
      case At::kTensorItems: end_tensor(); break;
      case At::kType: case At::kShape: case At::kOffsets: refuse("the array has too few items: [dtype, shape, data_offsets]");
      default: end_ignored();
    }
    return true;
  }

  bool parse_error(size_t position, const std::string &, const nlohmann::json::exception &error) {
    reached_ = begin_ + (position > 0 ? position - 1 : 0);
    const std::string text = error.what();
    const size_t end_of_id = text.find("] ");
    refuse("not JSON: {}", end_of_id == std::string::npos ? text : text.substr(end_of_id + 2));
  }

 private:
  template <typename... Args>
  [[noreturn]] void refuse(fmt::format_string<Args...> format, Args &&...args) const {
    const std::string what = fmt::format(format, std::forward<Args>(args)...);
    const std::string whose = tensor_.name.empty() ? "" : fmt::format("tensor '{}': ", shown(tensor_.name));
    fail(CHORUS_DATA_LOSS, "{}: byte {}: {}{}", file_, position(), whose, what);
  }

  uint64_t position() const { return kLengthBytes + static_cast<uint64_t>(reached_ - begin_); }

  void deepen() {
    if (++depth_ > kMaxDepth) refuse("nested deeper than {} levels", kMaxDepth);
  }

  bool leave(At to) {
    at_ = to;
    return true;
  }

  // A value where none of the known places wants it.
  bool ignore_or(const std::string &found) {
    if (at_ != At::kIgnored) refuse("found {} where {} is needed", found, wanted());
    end_ignored_value();
    return true;
  }

  bool ignore_nested(const char *found) {
    if (at_ != At::kIgnored) refuse("found {} where {} is needed", found, wanted());
    ++ignored_depth_;
    return true;
  }

  void end_ignored() {
    --ignored_depth_;
    end_ignored_value();
  }

  void end_ignored_value() {
    if (ignored_depth_ == 0) at_ = At::kTensorFields;
  }

  const char *wanted() const {
    switch (at_) {
      case At::kDocument: return "an object";
      case At::kMetadataValue: return "the object of the metadata";
      case At::kMetadataText: return "a string of the metadata";
      case At::kTensor: return "an object with dtype, shape and data_offsets";
      case At::kType: return "a dtype";
      case At::kTypeVariantValue: return "null";
      case At::kShape: return "the array of the shape";
      case At::kShapeItems: case At::kOffsetItems: return "a whole number of 0 or more";
      case At::kOffsets: return "the array [begin, end]";
      default: return "the end of the array";
    }
  }

  void begin_entry(const std::string &name) {
    if (name == "__metadata__") {
      if (has_metadata_) refuse("__metadata__ stands there twice");
      has_metadata_ = true;
      at_ = At::kMetadataValue;
      return;
    }
    tensor_ = HeaderTensor();
    tensor_.name = name;
    tensor_.position = position();
    fields_ = 0;
    is_array_ = false;
    if (!names_.insert(name).second) refuse("the name stands there twice");
    at_ = At::kTensor;
  }

  void begin_field(const std::string &name) {
    int field = 0;
    if (name == "dtype") field = kDtypeField;
    if (name == "shape") field = kShapeField;
    if (name == "data_offsets") field = kOffsetsField;
    if ((fields_ & field) != 0) refuse("{} stands there twice", name);
    offsets_ = field == kOffsetsField ? 0 : offsets_;
    at_ = field == kDtypeField ? At::kType : field == kShapeField ? At::kShape : field == kOffsetsField ? At::kOffsets : At::kIgnored;
  }

  bool end_field(int field) {
    fields_ |= field;
    if (!is_array_) return leave(At::kTensorFields);
    offsets_ = field == kShapeField ? 0 : offsets_;
    return leave(field == kDtypeField ? At::kShape : field == kShapeField ? At::kOffsets : At::kTensorItems);
  }

  bool set_type(const std::string &name) {
    tensor_.type = storage_type(std::string_view(name));
    if (tensor_.type == nullptr) refuse("dtype '{}' is not known", shown(name));
    if (at_ == At::kTypeVariantValue) return leave(At::kTypeVariant);
    return end_field(kDtypeField);
  }

  bool end_variant() {
    if (variant_.empty()) refuse("dtype is an empty object");
    return end_field(kDtypeField);
  }

  void end_tensor() {
    if (fields_ != kAllFields) {
      refuse("{} is missing", (fields_ & kDtypeField) == 0 ? "dtype" : (fields_ & kShapeField) == 0 ? "shape" : "data_offsets");
    }
    out_->tensors.push_back(std::move(tensor_));
    tensor_ = HeaderTensor();
    at_ = At::kTop;
  }

  const std::string &file_;
  const char *begin_;
  const char *reached_;
  Header *out_;
  At at_ = At::kDocument;
  int depth_ = 0;
  int ignored_depth_ = 0;
  bool has_metadata_ = false;
  bool is_array_ = false;
  int fields_ = 0;
  int offsets_ = 0;
  HeaderTensor tensor_;
  std::string key_, variant_;
  std::unordered_set<std::string> names_;
};

// What the JSON library lets pass and serde does not: a byte order mark, and a 0 byte, which it takes for the end.
void refuse_foreign_bytes(std::string_view json, const std::string &file) {
  if (json.starts_with("\xEF\xBB\xBF")) fail(CHORUS_DATA_LOSS, "{}: byte 8: a byte order mark before the JSON", file);
  const size_t zero = json.find('\0');
  if (zero != std::string_view::npos) {
    fail(CHORUS_DATA_LOSS, "{}: byte {}: a 0 byte within the JSON", file, kLengthBytes + zero);
  }
}

void check_tensor_data(const HeaderTensor &tensor, uint64_t expected_begin, const std::string &file) {
  const auto refuse = [&]<typename... Args>(fmt::format_string<Args...> format, Args &&...args) {
    fail(CHORUS_DATA_LOSS, "{}: byte {}: tensor '{}': {}", file, tensor.position, shown(tensor.name),
         fmt::format(format, std::forward<Args>(args)...));
  };
  if (tensor.end < tensor.begin) refuse("data_offsets [{}, {}] run backwards", tensor.begin, tensor.end);
  if (tensor.begin != expected_begin) {
    refuse("data_offsets [{}, {}] leave a {} the data before end at {}", tensor.begin, tensor.end,
           tensor.begin < expected_begin ? "no room:" : "hole:", expected_begin);
  }
  uint64_t bytes = 0;
  if (!data_bytes(*tensor.type, tensor.shape, &bytes)) {
    refuse("shape [{}] of {} overflows, or its bits do not fill bytes", fmt::join(tensor.shape, ", "), tensor.type->name);
  }
  if (bytes != tensor.end - tensor.begin) {
    refuse("shape [{}] of {} needs {} bytes; data_offsets [{}, {}] give {}", fmt::join(tensor.shape, ", "), tensor.type->name,
           bytes, tensor.begin, tensor.end, tensor.end - tensor.begin);
  }
}

}  // namespace

bool data_bytes(const StorageType &type, const std::vector<int64_t> &shape, uint64_t *out) {
  // In the order of the shape, as the crate: [2^63, 2, 0] overflows, [0, 2^63, 2] does not.
  std::optional<uint64_t> bits = 1;
  for (const int64_t size : shape) {
    bits = checked_multiply(*bits, static_cast<uint64_t>(size));
    if (!bits) return false;
  }
  bits = checked_multiply(*bits, type.bits());
  if (!bits || *bits % 8 != 0) return false;
  *out = *bits / 8;
  return true;
}

uint64_t header_length(const unsigned char *first_bytes, uint64_t file_bytes, const std::string &file) {
  if (file_bytes < kLengthBytes) {
    fail(CHORUS_DATA_LOSS, "{}: byte 0: the file has {} bytes; a safetensors file begins with 8 bytes of header length", file,
         file_bytes);
  }
  uint64_t length = 0;
  for (int i = 7; i >= 0; --i) length = length << 8 | first_bytes[i];
  if (length > kMaxHeaderBytes) {
    fail(CHORUS_DATA_LOSS, "{}: byte 0: header length is {}; at most {} is allowed. Is it a safetensors file?", file, length,
         kMaxHeaderBytes);
  }
  if (length > file_bytes - kLengthBytes) {
    fail(CHORUS_DATA_LOSS, "{}: byte 0: header length is {}; the file has {} bytes after it. Was it cut short?", file, length,
         file_bytes - kLengthBytes);
  }
  return length;
}

Header parse_header(std::string_view json, uint64_t file_bytes, const std::string &file) {
  refuse_foreign_bytes(json, file);
  Header header;
  Handler handler(file, json.data(), &header);
  const Walker begin{json.data(), handler.reached()}, end{json.data() + json.size(), handler.reached()};
  nlohmann::json::sax_parse(begin, end, &handler);  // throws what the handler throws
  std::ranges::stable_sort(header.tensors, {}, [](const HeaderTensor &t) { return std::pair(t.begin, t.end); });
  uint64_t reached = 0;
  for (const HeaderTensor &tensor : header.tensors) {
    check_tensor_data(tensor, reached, file);
    reached = tensor.end;
  }
  header.data_start = kLengthBytes + json.size();
  if (reached != file_bytes - header.data_start) {
    fail(CHORUS_DATA_LOSS, "{}: byte {}: the tensors cover {} bytes; the file has {} after its header. {}", file,
         header.data_start, reached, file_bytes - header.data_start,
         reached > file_bytes - header.data_start ? "Was it cut short?" : "Bytes that no tensor owns are not allowed");
  }
  return header;
}

}  // namespace chorus::checkpoint
