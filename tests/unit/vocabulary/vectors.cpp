// SPDX-License-Identifier: Apache-2.0
// Ids of texts, and texts of ids, against the Python library `tokenizers` (tests/vectors/vocabularies.py).
#include <algorithm>

#include "unit/vocabulary/support.h"

namespace {

using unit::Json;

// How many cases of a file came out otherwise; the first few are told.
class Differences {
 public:
  Differences(const std::string &name) : name_(name) {}
  template <typename Found>
  void expect(bool same, const char *what, const Json &input, const Found &found, const Json &wanted) {
    if (same) return;
    if (++count_ <= 3) {
      cr_log_error("%s: %s of %s\n  found  %s\n  wanted %s", name_.c_str(), what, input.dump(-1, ' ', true).c_str(),
                   Json(found).dump(-1, ' ', true, Json::error_handler_t::replace).c_str(), wanted.dump(-1, ' ', true).c_str());
    }
  }
  size_t count() const { return count_; }

 private:
  std::string name_;
  size_t count_ = 0;
};

void check(const std::string &name) {
  const chorus::Vocabulary vocabulary = unit::open_vector(name);
  const Json file = Json::parse(unit::read_file(unit::vector_path(name + ".cases.json")));
  cr_assert_gt(file["cases"].size(), 150u);
  Differences differences(name);
  for (const Json &item : file["cases"]) {
    const auto ids = item["ids"].get<std::vector<int32_t>>();
    if (item.contains("text")) {
      const std::string text = item["text"];
      const auto found = vocabulary.encode(text);
      differences.expect(found == ids, "ids", item["text"], found, item["ids"]);
      const Json &wanted = item.value("with_special", item["ids"]);
      const auto special = vocabulary.encode(text, CHORUS_ENCODE_ADD_SPECIAL);
      differences.expect(special == wanted.get<std::vector<int32_t>>(), "ids with special tokens", item["text"], special, wanted);
    }
    const Json decoded = item.contains("decoded") ? item["decoded"] : item["text"];
    const std::string found = vocabulary.decode(ids);
    differences.expect(found == decoded.get<std::string>(), "text", item["ids"], found, decoded);
    const Json skipped = item.value("skipped", decoded);
    const std::string without = vocabulary.decode(ids, CHORUS_DECODE_SKIP_SPECIAL);
    differences.expect(without == skipped.get<std::string>(), "text without special tokens", item["ids"], without, skipped);
  }
  cr_expect_eq(differences.count(), 0u, "%s: %zu differences", name.c_str(), differences.count());
}

}  // namespace

// One test per kind, so that a failure names it.
#define CHORUS_VECTOR_TEST(test, name) \
  Test(vocabulary_vectors, test) { check(name); }
CHORUS_VECTOR_TEST(gpt2, "gpt2")
CHORUS_VECTOR_TEST(gpt2_prefix, "gpt2-prefix")
CHORUS_VECTOR_TEST(llama3, "llama3")
CHORUS_VECTOR_TEST(qwen2, "qwen2")
CHORUS_VECTOR_TEST(o200k, "o200k")
CHORUS_VECTOR_TEST(digits, "digits")
CHORUS_VECTOR_TEST(llama2, "llama2")
CHORUS_VECTOR_TEST(gemma, "gemma")
CHORUS_VECTOR_TEST(metaspace_first, "metaspace-first")
CHORUS_VECTOR_TEST(metaspace_always, "metaspace-always")
CHORUS_VECTOR_TEST(metaspace_never, "metaspace-never")
CHORUS_VECTOR_TEST(added, "added")

// Byte-level tokens decode to exactly the bytes of the text, whatever it holds.
Test(vocabulary_vectors, byte_level_is_lossless) {
  for (const char *name : {"gpt2", "llama3", "qwen2", "o200k", "digits"}) {
    const chorus::Vocabulary vocabulary = unit::open_vector(name);
    std::string text;
    for (char32_t c = 1; c < 0x3000; c += 7) {
      if (c < 0x80) text += static_cast<char>(c);
      else if (c < 0x800) text += {static_cast<char>(0xc0 | c >> 6), static_cast<char>(0x80 | (c & 0x3f))};
      else text += {static_cast<char>(0xe0 | c >> 12), static_cast<char>(0x80 | (c >> 6 & 0x3f)), static_cast<char>(0x80 | (c & 0x3f))};
    }
    cr_expect(vocabulary.decode(vocabulary.encode(text, CHORUS_ENCODE_PLAIN_SPECIAL)) == text, "%s", name);
    for (size_t id = 0; id < vocabulary.size(); ++id) {
      const chorus_token_info token = vocabulary.token(id);
      if ((token.flags & CHORUS_TOKEN_ABSENT) != 0) continue;
      const std::string bytes(token.bytes, token.length);
      cr_expect(vocabulary.decode({static_cast<int32_t>(id)}) == bytes, "%s: token %zu", name, id);
    }
  }
}

Test(vocabulary_vectors, special_names_can_be_plain_text) {
  const chorus::Vocabulary vocabulary = unit::open_vector("llama3");
  const std::string text = "a<|begin|>b";
  const int32_t begin = vocabulary.find("<|begin|>");
  cr_assert_geq(begin, 0);
  const auto special = vocabulary.encode(text), plain = vocabulary.encode(text, CHORUS_ENCODE_PLAIN_SPECIAL);
  cr_expect_eq(std::count(special.begin(), special.end(), begin), 1);
  cr_expect_eq(std::count(plain.begin(), plain.end(), begin), 0);
  cr_expect(vocabulary.decode(plain) == text);
}
