// SPDX-License-Identifier: Apache-2.0
// The grammar: every choice is mostly the right one, now and then one of the wrong ones that parsers disagree on.
#include "mutate.h"

#include <algorithm>
#include <array>

namespace diff {
namespace {

struct Type {
  const char *name;
  uint64_t bits;
};
constexpr Type kTypes[] = {{"F32", 32}, {"F16", 16}, {"BF16", 16}, {"F64", 64}, {"I64", 64}, {"I32", 32}, {"U8", 8},
                           {"BOOL", 8}, {"I8", 8}, {"U16", 16}, {"I16", 16}, {"U32", 32}, {"U64", 64}, {"F8_E4M3", 8},
                           {"F8_E5M2", 8}, {"F8_E8M0", 8}, {"F4", 4}, {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"C64", 64},
                           {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}};
constexpr const char *kWrongTypes[] = {"f32", "F", "", "F33", "FLOAT", "F32 ", "F8", "C128", "F\\u0033\\u0032"};
constexpr const char *kValues[] = {"null", "true", "0", "-0", "-1", "1.0", "1e2", "1e999", "0e999", "-", "01", "+1", ".5", "1.",
                                   "\"x\"", "[]", "{}", "[[]]", "{\"a\":{}}", "18446744073709551615", "18446744073709551616",
                                   "9223372036854775807", "9223372036854775808", "1e-999", "NaN", "\"\\ud800\"", "\"\\ud83d\\ude00\"",
                                   "\"\\udc00\"", "\"\\x\"", "\"\x01\"", "[1,2", "{\"dtype\":1}", "{\"a\":1,\"a\":2}", "[null,1.5]",
                                   "\"\\u0000\"", "0.1e309", "123456789012345678901234567890"};
constexpr const char *kNames[] = {"a", "b", "weight", "model.layers.0.w", "", "\\u0061", "x\\\"y", "é", "\\u00e9", "z\\n", "__metadata",
                                  "\xF0\x9F\x98\x80", "_", "a\\u0000b", "dtype", "shape"};
constexpr const char *kSpaces[] = {" ", "\n", "\t", "\r", "  ", "\x0b", "\xc2\xa0", "/**/", "\xef\xbb\xbf"};
constexpr const char *kTokens[] = {"{", "}", "[", "]", ",", ":", "\"", "\\", "null", "0", "1", "9", "-", ".", "e", " ", "\n", "\"dtype\"",
                                   "\"shape\"", "\"data_offsets\"", "\"F32\"", "\"__metadata__\"", "\x80", "\xff", "\xc3", "\xed\xa0\x80",
                                   "\xf4\x90\x80\x80", "\xc0\xaf", "{}", "[]", "[0,0]", "18446744073709551615", "\"a\"", "\x00", "true"};

template <typename T, size_t n>
const T &pick(Random *random, const T (&list)[n]) {
  return list[random->below(n)];
}

std::string space(Random *random) {
  if (!random->chance(12)) return "";
  return random->chance(30) ? pick(random, kSpaces) : std::array{" ", "\n", "\t", "\r"}[random->below(4)];
}

std::string any_value(Random *random, int depth) {
  if (depth > 0 && random->chance(3)) return "[" + any_value(random, depth - 1) + "," + any_value(random, depth - 1) + "]";
  if (depth > 0 && random->chance(3)) return "{\"k\":" + any_value(random, depth - 1) + "}";
  return random->chance(3) ? pick(random, kValues) : std::array{"null", "0", "1.5", "\"s\"", "true", "-3"}[random->below(6)];
}

// Nesting around the limits of parsers.
std::string deep_value(Random *random) {
  const size_t depth = random->chance(2) ? 120 + random->below(12) : random->below(200);
  const bool objects = random->chance(2);
  std::string out;
  for (size_t i = 0; i < depth; ++i) out += objects ? "{\"a\":" : "[";
  out += "1";
  for (size_t i = 0; i < depth; ++i) out += objects ? "}" : "]";
  return out;
}

class Drawing {
 public:
  explicit Drawing(Random *random) : random_(random) {}

  std::string header() {
    std::vector<std::string> entries;
    const size_t count = random_->below(5);
    for (size_t i = 0; i < count; ++i) entries.push_back(entry(i));
    if (random_->chance(2)) entries.push_back(metadata());
    if (random_->chance(40)) entries.push_back(metadata());
    if (random_->chance(60)) entries.push_back("\"odd\":" + any_value(random_, 2));
    for (size_t i = entries.size(); i > 1; --i) std::swap(entries[i - 1], entries[random_->below(i)]);
    std::string out = space(random_) + "{";
    for (size_t i = 0; i < entries.size(); ++i) out += (i > 0 ? "," : "") + space(random_) + entries[i] + space(random_);
    out += "}" + space(random_);
    if (random_->chance(2)) out.append((8 - out.size() % 8) % 8, ' ');
    return out;
  }

  uint64_t data_bytes() const { return data_; }

 private:
  std::string entry(size_t index) {
    std::string name = random_->chance(8) ? pick(random_, kNames) : "t" + std::to_string(index);
    return "\"" + name + "\"" + space(random_) + ":" + space(random_) + tensor();
  }

  std::string metadata() {
    const std::string name = random_->chance(10) ? "\"\\u005f_metadata__\":" : "\"__metadata__\":";
    switch (random_->below(12)) {
      case 0: return name + "null";
      case 1: return name + any_value(random_, 2);
      case 2: return name + "{\"a\":\"1\",\"a\":\"2\"}";
      case 3: return name + "{\"a\":" + any_value(random_, 1) + "}";
      default: return name + "{\"format\":\"pt\",\"k\":\"v\"}";
    }
  }

  std::string number(uint64_t value) {
    if (!random_->chance(60)) return std::to_string(value);
    switch (random_->below(6)) {
      case 0: return std::to_string(value) + ".0";
      case 1: return "0" + std::to_string(value);
      case 2: return "-" + std::to_string(value);
      case 3: return std::to_string(value + 1);
      case 4: return pick(random_, kValues);
      default: return std::to_string(value) + "e0";
    }
  }

  std::string shape_text(std::vector<uint64_t> shape) {
    std::string out = "[";
    for (size_t i = 0; i < shape.size(); ++i) out += (i > 0 ? "," : "") + space(random_) + number(shape[i]);
    return out + "]";
  }

  std::string type_text(const char *name) {
    if (random_->chance(50)) name = pick(random_, kWrongTypes);
    if (!random_->chance(25)) return "\"" + std::string(name) + "\"";
    switch (random_->below(5)) {
      case 0: return "{\"" + std::string(name) + "\":" + any_value(random_, 1) + "}";
      case 1: return "{\"" + std::string(name) + "\":null,\"F16\":null}";
      case 2: return any_value(random_, 1);
      default: return "{\"" + std::string(name) + "\":null}";
    }
  }

  std::string tensor() {
    if (random_->chance(80)) return any_value(random_, 2);
    const Type &type = pick(random_, kTypes);
    std::vector<uint64_t> shape(random_->chance(20) ? random_->below(12) : random_->below(4));
    uint64_t elements = 1;
    for (uint64_t &size : shape) elements *= size = random_->chance(10) ? 0 : 1 + random_->below(4);
    if (random_->chance(30) && !shape.empty()) {  // sizes whose product wraps
      constexpr uint64_t kHuge[] = {uint64_t{1} << 63, uint64_t{1} << 32, uint64_t{1} << 61, ~uint64_t{0}, (uint64_t{1} << 63) - 1};
      for (uint64_t &size : shape) size = random_->chance(2) ? pick(random_, kHuge) : size;
    }
    uint64_t begin = data_, end = data_ + elements * type.bits / 8;
    data_ = end;
    if (random_->chance(40)) begin += random_->below(3);
    if (random_->chance(40)) end -= random_->below(3);
    if (random_->chance(80)) std::swap(begin, end);
    return fields(type_text(type.name), shape_text(shape), "[" + number(begin) + "," + number(end) + offsets_tail() + "]");
  }

  std::string offsets_tail() { return random_->chance(100) ? "," + any_value(random_, 0) : ""; }

  std::string fields(const std::string &type, const std::string &shape, const std::string &offsets) {
    if (random_->chance(15)) {  // serde also takes a struct as an array
      std::string extra = random_->chance(4) ? "," + any_value(random_, 1) : "";
      return "[" + type + "," + shape + "," + offsets + extra + "]";
    }
    std::vector<std::string> all = {"\"dtype\":" + type, "\"shape\":" + shape, "\"data_offsets\":" + offsets};
    if (random_->chance(60)) all.push_back("\"shape\":" + shape);
    if (random_->chance(20)) all.push_back("\"extra\":" + any_value(random_, 3));
    if (random_->chance(60)) all.push_back("\"extra\":" + deep_value(random_));
    if (random_->chance(60)) all.erase(all.begin());
    for (size_t i = all.size(); i > 1; --i) std::swap(all[i - 1], all[random_->below(i)]);
    std::string out = "{";
    for (size_t i = 0; i < all.size(); ++i) out += (i > 0 ? "," : "") + space(random_) + all[i];
    return out + space(random_) + "}";
  }

  Random *random_;
  uint64_t data_ = 0;
};

void mutate_bytes(Random *random, std::string *text) {
  const size_t times = 1 + random->below(3);
  for (size_t i = 0; i < times && !text->empty(); ++i) {
    const size_t at = random->below(text->size());
    const size_t length = std::min<size_t>(text->size() - at, 1 + random->below(8));
    switch (random->below(7)) {
      case 0: (*text)[at] = static_cast<char>(random->below(256)); break;
      case 1: (*text)[at] = static_cast<char>((*text)[at] ^ 1 << random->below(8)); break;
      case 2: text->erase(at, length); break;
      case 3: text->insert(at, text->substr(random->below(text->size()), 1 + random->below(40))); break;
      case 4: {
        const size_t token = random->below(std::size(kTokens));
        text->insert(at, kTokens[token][0] == '\0' ? std::string(1, '\0') : std::string(kTokens[token]));
        break;
      }
      case 5: text->replace(at, length, pick(random, kValues)); break;
      default: {
        const size_t digit = text->find_first_of("0123456789", at);
        if (digit != std::string::npos) (*text)[digit] = static_cast<char>('0' + random->below(10));
      }
    }
  }
}

std::string little_endian(uint64_t value) {
  std::string out;
  for (int i = 0; i < 8; ++i) out += static_cast<char>(value >> 8 * i & 0xff);
  return out;
}

}  // namespace

uint64_t Random::next() {
  uint64_t z = state_ += 0x9e3779b97f4a7c15u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return z ^ z >> 31;
}

std::string draw_file(Random *random) {
  Drawing drawing(random);
  std::string header = drawing.header();
  if (random->chance(3)) mutate_bytes(random, &header);
  uint64_t length = header.size(), data = drawing.data_bytes() % 4096;
  if (random->chance(40)) data += random->below(9) - 4;
  if (random->chance(100)) length = pick<uint64_t>(random, {0, 1, 7, length + 1, length - 1, 100'000'001, uint64_t{1} << 63, ~uint64_t{0}});
  std::string file = little_endian(length) + header + std::string(data % 4096, '\0');
  if (random->chance(40)) mutate_bytes(random, &file);
  if (random->chance(80)) file.resize(random->below(file.size() + 1));
  return file;
}

}  // namespace diff
