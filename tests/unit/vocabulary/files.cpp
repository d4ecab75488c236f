// SPDX-License-Identifier: Apache-2.0
// Tokenizer files that are broken or hostile: each is refused by name, none crashes, and what is only unknown still opens.
#include "unit/vocabulary/support.h"

namespace {

using unit::Json;
using unit::tokenizer_text;

void refused(const std::string &text, chorus_status status, const std::string &says) {
  const unit::Opening opening = unit::try_open(text);
  cr_expect_eq(opening.status, status, "%s: %s", chorus_status_get_name(opening.status), opening.text.c_str());
  cr_expect(unit::contains(opening.text, says), "'%s' does not say '%s'", opening.text.c_str(), says.c_str());
  cr_expect(unit::contains(opening.text, "tokenizer.json"), "%s", opening.text.c_str());
}

// A vocabulary of what `change` makes of the small tokenizer; it must open.
template <typename Change>
chorus::Vocabulary opened(const unit::TemporaryFolder &folder, Change change) {
  unit::write_file(folder / "tokenizer.json", tokenizer_text(change));
  return chorus::Vocabulary(unit::context(), folder / "tokenizer.json");
}

chorus_status encode_status(const chorus::Vocabulary &vocabulary, const std::string &text, std::string *says) {
  size_t count = 0;
  chorus_error *error = nullptr;
  const chorus_status status =
      chorus_vocabulary_encode(vocabulary.get(), text.data(), text.size(), CHORUS_ENCODE_ADD_SPECIAL, nullptr, 0, &count, &error);
  *says = chorus_error_get_text(error);
  chorus_error_destroy(error);
  return status;
}

Json added(const char *content, int64_t id) { return {{"content", content}, {"id", id}}; }

}  // namespace

Test(vocabulary_files, the_small_one_opens) {
  const unit::TemporaryFolder folder;
  const chorus::Vocabulary vocabulary = opened(folder, [](Json &) {});
  cr_expect_eq(vocabulary.size(), 3u);
  cr_expect(vocabulary.encode("abba") == (std::vector<int32_t>{2, 1, 0}));
}

Test(vocabulary_files, not_json) {
  refused("", CHORUS_DATA_LOSS, "byte 0");
  refused("{", CHORUS_DATA_LOSS, "byte 1");
  refused("[]", CHORUS_DATA_LOSS, "object");
  refused("null", CHORUS_DATA_LOSS, "object");
  refused("{}", CHORUS_DATA_LOSS, "model");
  refused("{\"model\":[]}", CHORUS_DATA_LOSS, "model");
  refused("{\"a\":1} x", CHORUS_DATA_LOSS, "byte");
  refused("{\"a\":\"\xff\"}", CHORUS_DATA_LOSS, "byte");
  refused(std::string("{\"a\":\"\0\"}", 9), CHORUS_DATA_LOSS, "byte");
  const std::string good = tokenizer_text([](Json &) {});
  for (size_t length = 0; length < good.size(); ++length) {
    cr_expect_eq(unit::try_open(good.substr(0, length)).status, CHORUS_DATA_LOSS, "cut at %zu", length);
  }
}

Test(vocabulary_files, deep_nesting_ends_in_an_error) {
  for (const std::string open : {"[", "{\"a\":"}) {
    std::string deep;
    for (int i = 0; i < 100000; ++i) deep += open;
    refused(deep, CHORUS_DATA_LOSS, "nested");
    refused("{\"model\":{\"vocab\":{},\"merges\":" + deep, CHORUS_DATA_LOSS, "");
    refused("{\"model\":{\"vocab\":{\"x\":" + deep, CHORUS_DATA_LOSS, "");
  }
}

Test(vocabulary_files, ids) {
  const auto with_vocab = [](const char *vocab) { return std::string("{\"model\":{\"type\":\"BPE\",\"merges\":[],\"vocab\":") + vocab + "}}"; };
  refused(with_vocab("{\"a\":0,\"b\":0}"), CHORUS_DATA_LOSS, "same id 0");
  refused(with_vocab("{\"a\":0,\"a\":1}"), CHORUS_DATA_LOSS, "twice");
  refused(with_vocab("{\"a\":2147483648}"), CHORUS_DATA_LOSS, "2147483648");
  refused(with_vocab("{\"a\":18446744073709551616}"), CHORUS_DATA_LOSS, "'a'");
  refused(with_vocab("{\"a\":2147483647}"), CHORUS_DATA_LOSS, "holes");
  refused(with_vocab("{\"a\":-1}"), CHORUS_DATA_LOSS, "whole number");
  refused(with_vocab("{\"a\":1.5}"), CHORUS_DATA_LOSS, "whole number");
  refused(with_vocab("{\"a\":\"0\"}"), CHORUS_DATA_LOSS, "whole number");
  refused(with_vocab("{\"a\":null}"), CHORUS_DATA_LOSS, "whole number");
  refused(with_vocab("{\"a\":{}}"), CHORUS_DATA_LOSS, "whole number");
}

Test(vocabulary_files, merges) {
  const auto with_merges = [](const Json &merges) { return tokenizer_text([&](Json &file) { file["model"]["merges"] = merges; }); };
  refused(with_merges(Json::object()), CHORUS_DATA_LOSS, "array");
  refused(with_merges("a b"), CHORUS_DATA_LOSS, "array");
  refused(tokenizer_text([](Json &file) { file["model"].erase("merges"); }), CHORUS_DATA_LOSS, "merges");
  refused(tokenizer_text([](Json &file) { file["model"].erase("vocab"); }), CHORUS_DATA_LOSS, "vocab");
  refused(tokenizer_text([](Json &file) { file["model"]["vocab"] = Json::array({"a"}); }), CHORUS_DATA_LOSS, "object");
  refused(with_merges(Json::array({1})), CHORUS_DATA_LOSS, "merges");
  refused(with_merges(Json::array({Json::array({"a"})})), CHORUS_DATA_LOSS, "1 parts");
  refused(with_merges(Json::array({Json::array({"a", "b", "c"})})), CHORUS_DATA_LOSS, "merge");
  refused(with_merges(Json::array({Json::array({"a", 1})})), CHORUS_DATA_LOSS, "merges");
  refused(with_merges(Json::array({"ab"})), CHORUS_DATA_LOSS, "merge");
  refused(with_merges(Json::array({"a x"})), CHORUS_DATA_LOSS, "x");
  refused(with_merges(Json::array({"b a"})), CHORUS_DATA_LOSS, "ba");
}

Test(vocabulary_files, models_of_other_types) {
  for (const char *type : {"WordPiece", "Unigram", "WordLevel", "\x1b[31m"}) {
    refused(tokenizer_text([&](Json &file) { file["model"]["type"] = type; }), CHORUS_UNIMPLEMENTED, "BPE");
  }
  cr_expect(!unit::contains(unit::try_open(tokenizer_text([](Json &file) { file["model"]["type"] = "\x1b[31m"; })).text, "\x1b"));
  refused(tokenizer_text([](Json &file) { file["model"]["type"] = 7; }), CHORUS_DATA_LOSS, "'type'");
}

Test(vocabulary_files, added_tokens) {
  const auto with = [](const Json &list) { return tokenizer_text([&](Json &file) { file["added_tokens"] = list; }); };
  refused(with(7), CHORUS_DATA_LOSS, "added_tokens");
  refused(with({{{"id", 3}}}), CHORUS_DATA_LOSS, "content");
  refused(with({7}), CHORUS_DATA_LOSS, "content");
  refused(with({{{"content", "x"}}}), CHORUS_DATA_LOSS, "no id");
  refused(with(Json::array({added("x", -1)})), CHORUS_DATA_LOSS, "no id");
  refused(with(Json::array({added("x", int64_t{1} << 40)})), CHORUS_DATA_LOSS, "no id");
  refused(with(Json::array({added("x", 2000000000)})), CHORUS_DATA_LOSS, "far beyond");
  refused(with(Json::array({added("x", 0)})), CHORUS_DATA_LOSS, "same id 0");
  refused(with(Json::array({added("x", 5), added("y", 5)})), CHORUS_DATA_LOSS, "same id 5");
  refused(with(Json::array({{{"content", "x"}, {"id", 3}, {"lstrip", "yes"}}})), CHORUS_DATA_LOSS, "lstrip");
  refused(with(Json::array({added(std::string(5000, 'x').c_str(), 3)})), CHORUS_DATA_LOSS, "5000 bytes");
}

// What is not known is named when it is needed, not before: the bytes of tokens can be told.
Test(vocabulary_files, unknown_rules_open_and_refuse_to_encode) {
  const std::pair<const char *, Json> kCases[] = {
      {"normalizer", {{"type", "Nmt"}}},
      {"normalizer", {{"type", "Sequence"}, {"normalizers", {{{"type", "Odd"}}}}}},
      {"normalizer", {{"type", "Replace"}, {"pattern", {{"Regex", "a+"}}}, {"content", "b"}}},
      {"pre_tokenizer", {{"type", "Magic"}}},
      {"pre_tokenizer", {{"type", "Split"}, {"pattern", {{"Regex", "(a|b)+"}}}, {"behavior", "Isolated"}}},
      {"pre_tokenizer", {{"type", "Split"}, {"pattern", {{"String", " "}}}, {"behavior", "Sideways"}}},
      {"post_processor", {{"type", "BertProcessing"}}},
      {"post_processor", {{"type", "TemplateProcessing"}, {"single", Json::array()}}},
      {"post_processor", {{"type", "TemplateProcessing"}, {"single", {{{"SpecialToken", {{"id", "x"}}}}, {{"Sequence", {}}}}},
                          {"special_tokens", {{"x", {{"ids", {99}}}}}}}}};
  for (const auto &[member, rule] : kCases) {
    const unit::TemporaryFolder folder;
    const auto vocabulary = opened(folder, [&, name = member](Json &file) { file[name] = rule; });
    std::string says;
    cr_expect_eq(encode_status(vocabulary, "ab", &says), CHORUS_UNIMPLEMENTED, "%s", rule.dump().c_str());
    cr_expect(unit::contains(says, "not implemented"), "%s", says.c_str());
    cr_expect_eq(vocabulary.find("ab"), 2);
  }
  const unit::TemporaryFolder folder;
  const auto vocabulary = opened(folder, [](Json &file) { file["decoder"] = {{"type", "CTC"}}; });
  cr_expect(unit::outcome_of([&] { vocabulary.decode({0}); }).status == CHORUS_UNIMPLEMENTED);
}

// Wrong types inside rules: refused or ignored, never a crash.
Test(vocabulary_files, rules_of_wrong_type) {
  for (const char *member : {"normalizer", "pre_tokenizer", "post_processor", "decoder"}) {
    for (const Json &rule : {Json(1), Json("x"), Json::array({1, 2}), Json::object(), Json({{"type", 5}}), Json({{"type", Json::array()}}),
                             Json({{"type", "Sequence"}}), Json({{"type", "Sequence"}, {"normalizers", 1}}),
                             Json({{"type", "Replace"}, {"pattern", 7}}), Json({{"type", "Split"}, {"pattern", Json::object()}}),
                             Json({{"type", "Strip"}, {"start", -1}}), Json({{"type", "ByteLevel"}, {"use_regex", "no"}}),
                             Json({{"type", "TemplateProcessing"}, {"single", 3}, {"special_tokens", 4}})}) {
      const unit::TemporaryFolder folder;
      unit::write_file(folder / "tokenizer.json", tokenizer_text([&](Json &file) { file[member] = rule; }));
      chorus_vocabulary *vocabulary = nullptr;
      if (chorus_vocabulary_open(unit::context().get(), (folder / "tokenizer.json").c_str(), &vocabulary, nullptr) != CHORUS_OK) continue;
      int32_t ids[16];
      char text[16];
      size_t count = 0;
      chorus_vocabulary_encode(vocabulary, "ab", 2, CHORUS_ENCODE_ADD_SPECIAL, ids, 16, &count, nullptr);
      chorus_vocabulary_decode(vocabulary, ids, 0, 0, text, 16, &count, nullptr);
      chorus_vocabulary_destroy(vocabulary);
    }
  }
}

Test(vocabulary_files, every_byte_changed) {
  const std::string good = tokenizer_text([](Json &file) {
    file["added_tokens"] = Json::array({added("<s>", 3)});
    file["post_processor"] = {{"type", "TemplateProcessing"},
                              {"single", {{{"SpecialToken", {{"id", "<s>"}}}}, {{"Sequence", {{"id", "A"}}}}}},
                              {"special_tokens", {{"<s>", {{"ids", {3}}}}}}};
  });
  cr_assert_eq(unit::try_open(good).status, CHORUS_OK);
  for (size_t at = 0; at < good.size(); ++at) {
    for (const char byte : {'\0', '"', '{', '9', '\xff'}) {
      std::string bad = good;
      bad[at] = byte;
      unit::try_open(bad);
    }
  }
}

Test(vocabulary_files, paths) {
  const unit::TemporaryFolder folder;
  const auto status_of = [](const std::string &path) {
    return unit::outcome_of([&] { chorus::Vocabulary(unit::context(), path); });
  };
  cr_expect_eq(status_of(folder / "absent").status, CHORUS_NOT_FOUND);
  cr_expect_eq(status_of(folder.path().string()).status, CHORUS_NOT_FOUND);
  cr_expect(unit::contains(status_of(folder.path().string()).text, "tokenizer.json"));
  unit::write_file(folder / "tokenizer.json", tokenizer_text([](Json &) {}));
  cr_expect_eq(status_of(folder.path().string()).status, CHORUS_OK);
  std::filesystem::create_directory(folder.path() / "folder");
  std::filesystem::create_directory(folder.path() / "folder/tokenizer.json");
  cr_expect_neq(status_of(folder / "folder").status, CHORUS_OK);
}
