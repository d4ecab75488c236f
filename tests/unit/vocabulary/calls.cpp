// SPDX-License-Identifier: Apache-2.0
// Arguments of chorus_vocabulary_*: wrong ones are refused by name, counts are told, nothing is written on failure.
#include "unit/vocabulary/support.h"

namespace {

// Status of a call, and whether its message says `says`. By reference: the call that sets it may be evaluated later.
void expect(chorus_status found, chorus_status wanted, chorus_error *const &error, const std::string &says) {
  cr_expect_eq(found, wanted, "%s: %s", chorus_status_get_name(found), chorus_error_get_text(error));
  cr_expect(unit::contains(chorus_error_get_text(error), says), "'%s' does not say '%s'", chorus_error_get_text(error), says.c_str());
  chorus_error_destroy(error);
}

}  // namespace

Test(vocabulary_calls, open) {
  chorus_error *error = nullptr;
  chorus_vocabulary *out = reinterpret_cast<chorus_vocabulary *>(1);
  expect(chorus_vocabulary_open(nullptr, "x", &out, &error), CHORUS_INVALID_ARGUMENT, error, "context");
  cr_expect_null(out);
  expect(chorus_vocabulary_open(unit::context().get(), nullptr, &out, &error), CHORUS_INVALID_ARGUMENT, error, "path");
  expect(chorus_vocabulary_open(unit::context().get(), "x", nullptr, &error), CHORUS_INVALID_ARGUMENT, error, "out_vocabulary");
  chorus_vocabulary_destroy(nullptr);
}

Test(vocabulary_calls, get) {
  const chorus::Vocabulary vocabulary = unit::open_vector("gpt2");
  chorus_error *error = nullptr;
  chorus_token_info info = CHORUS_TOKEN_INFO_INIT;
  expect(chorus_vocabulary_get_token(nullptr, 0, &info, &error), CHORUS_INVALID_ARGUMENT, error, "vocabulary");
  expect(chorus_vocabulary_get_token(vocabulary.get(), 0, nullptr, &error), CHORUS_INVALID_ARGUMENT, error, "out_info");
  expect(chorus_vocabulary_get_token(vocabulary.get(), 420, &info, &error), CHORUS_OUT_OF_RANGE, error, "420");
  info.struct_size = 0;
  expect(chorus_vocabulary_get_token(vocabulary.get(), 0, &info, &error), CHORUS_INVALID_ARGUMENT, error, "struct_size");
  uint64_t words[2];
  expect(chorus_vocabulary_get_fingerprint(nullptr, words, &error), CHORUS_INVALID_ARGUMENT, error, "vocabulary");
  expect(chorus_vocabulary_get_fingerprint(vocabulary.get(), nullptr, &error), CHORUS_INVALID_ARGUMENT, error, "out_words");
  cr_expect_eq(chorus_vocabulary_get_size(nullptr), 0u);
  cr_expect_eq(chorus_vocabulary_find(nullptr, "a", 1), -1);
  cr_expect_eq(chorus_vocabulary_find(vocabulary.get(), nullptr, 1), -1);
}

Test(vocabulary_calls, encode) {
  const chorus::Vocabulary vocabulary = unit::open_vector("gpt2");
  chorus_error *error = nullptr;
  size_t count = 77;
  int32_t ids[2] = {-7, -7};
  const auto encode = [&](const char *text, size_t length, uint32_t flags, int32_t *to, size_t capacity, size_t *out) {
    return chorus_vocabulary_encode(vocabulary.get(), text, length, flags, to, capacity, out, &error);
  };
  expect(encode("ab\xff", 3, 0, ids, 2, &count), CHORUS_INVALID_ARGUMENT, error, "byte 2");
  expect(encode("\xed\xa0\x80", 3, 0, ids, 2, &count), CHORUS_INVALID_ARGUMENT, error, "byte 0");  // a surrogate
  expect(encode("\xc0\x80", 2, 0, ids, 2, &count), CHORUS_INVALID_ARGUMENT, error, "byte 0");      // overlong
  expect(encode("a", 1, 4, ids, 2, &count), CHORUS_INVALID_ARGUMENT, error, "0x4");
  expect(encode(nullptr, 1, 0, ids, 2, &count), CHORUS_INVALID_ARGUMENT, error, "text");
  expect(encode("a", 1, 0, ids, 2, nullptr), CHORUS_INVALID_ARGUMENT, error, "out_count");
  expect(encode("a", 1, 0, nullptr, 2, &count), CHORUS_INVALID_ARGUMENT, error, "ids");
  expect(chorus_vocabulary_encode(nullptr, "a", 1, 0, ids, 2, &count, &error), CHORUS_INVALID_ARGUMENT, error, "vocabulary");
  expect(encode("1234567", 7, 0, ids, 2, &count), CHORUS_RESOURCE_EXHAUSTED, error, "needed");
  cr_expect_gt(count, 2u);
  cr_expect(ids[0] == -7 && ids[1] == -7, "nothing is written");
  size_t asked = 0;
  cr_expect_eq(chorus_vocabulary_encode(vocabulary.get(), "1234567", 7, 0, nullptr, 0, &asked, nullptr), CHORUS_OK);
  cr_expect_eq(asked, count);
  cr_expect_eq(chorus_vocabulary_encode(vocabulary.get(), nullptr, 0, 0, nullptr, 0, &asked, nullptr), CHORUS_OK);
  cr_expect_eq(asked, 0u);
}

Test(vocabulary_calls, decode) {
  const chorus::Vocabulary vocabulary = unit::open_vector("gpt2");
  chorus_error *error = nullptr;
  size_t length = 0;
  char text[2] = {'x', 'x'};
  const int32_t the = vocabulary.find(" the"), bad[] = {0, 420}, negative[] = {-1};
  const auto decode = [&](const int32_t *ids, size_t count, uint32_t flags, char *to, size_t capacity, size_t *out) {
    return chorus_vocabulary_decode(vocabulary.get(), ids, count, flags, to, capacity, out, &error);
  };
  expect(decode(bad, 2, 0, text, 2, &length), CHORUS_OUT_OF_RANGE, error, "ids[1] is 420");
  expect(decode(negative, 1, 0, text, 2, &length), CHORUS_OUT_OF_RANGE, error, "ids[0] is -1");
  expect(decode(&the, 1, 2, text, 2, &length), CHORUS_INVALID_ARGUMENT, error, "0x2");
  expect(decode(nullptr, 1, 0, text, 2, &length), CHORUS_INVALID_ARGUMENT, error, "ids");
  expect(decode(&the, 1, 0, nullptr, 2, &length), CHORUS_INVALID_ARGUMENT, error, "text");
  expect(decode(&the, 1, 0, text, 2, nullptr), CHORUS_INVALID_ARGUMENT, error, "out_length");
  expect(chorus_vocabulary_decode(nullptr, &the, 1, 0, text, 2, &length, &error), CHORUS_INVALID_ARGUMENT, error, "vocabulary");
  expect(decode(&the, 1, 0, text, 2, &length), CHORUS_RESOURCE_EXHAUSTED, error, "4 are needed");
  cr_expect_eq(length, 4u);
  cr_expect(text[0] == 'x' && text[1] == 'x', "nothing is written");
}

Test(vocabulary_calls, map) {
  const chorus::Vocabulary vocabulary = unit::open_vector("gpt2");
  chorus_error *error = nullptr;
  chorus_vocabulary_map *map = reinterpret_cast<chorus_vocabulary_map *>(1);
  expect(chorus_vocabulary_map_create(nullptr, vocabulary.get(), &map, &error), CHORUS_INVALID_ARGUMENT, error, "from");
  cr_expect_null(map);
  expect(chorus_vocabulary_map_create(vocabulary.get(), nullptr, &map, &error), CHORUS_INVALID_ARGUMENT, error, "to");
  expect(chorus_vocabulary_map_create(vocabulary.get(), vocabulary.get(), nullptr, &error), CHORUS_INVALID_ARGUMENT, error, "out_map");
  chorus_vocabulary_map_info info = CHORUS_VOCABULARY_MAP_INFO_INIT;
  expect(chorus_vocabulary_map_get(nullptr, &info, &error), CHORUS_INVALID_ARGUMENT, error, "map");
  chorus_vocabulary_map_destroy(nullptr);
}

// Time: each would take minutes if a step were quadratic. (No clock: the test's timeout judges.)
Test(vocabulary_calls, long_texts_take_no_quadratic_time) {
  for (const char *name : {"gpt2", "llama2", "gemma", "metaspace-first", "o200k", "added"}) {
    const chorus::Vocabulary vocabulary = unit::open_vector(name);
    for (const char *part : {"a", " ", "the ", "\n", "\u00e9", "\U0001f600", "<", "word"}) {
      std::string text;
      while (text.size() < 200000) text += part;
      cr_expect_gt(vocabulary.encode(text).size(), 100u, "%s", name);
    }
  }
}
