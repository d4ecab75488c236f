// SPDX-License-Identifier: Apache-2.0
// Maps between vocabularies, fingerprints, and tokens as bytes.
#include <map>
#include <set>

#include "unit/vocabulary/support.h"

namespace {

using unit::Json;

std::string bytes_of(const chorus::Vocabulary &vocabulary, size_t id) {
  const chorus_token_info token = vocabulary.token(id);
  return {token.bytes, token.length};
}

bool is_special(const chorus::Vocabulary &vocabulary, size_t id) {
  return (vocabulary.token(id).flags & CHORUS_TOKEN_SPECIAL) != 0;
}

bool is_absent(const chorus::Vocabulary &vocabulary, size_t id) {
  return (vocabulary.token(id).flags & CHORUS_TOKEN_ABSENT) != 0;
}

chorus::Vocabulary from_text(const std::string &text) {
  const unit::TemporaryFolder folder;
  unit::write_file(folder / "tokenizer.json", text);
  return chorus::Vocabulary(unit::context(), folder / "tokenizer.json");
}

// Tokens with these texts and ids 0, 1, …; no merges.
chorus::Vocabulary of_tokens(const std::vector<std::string> &tokens) {
  return from_text(unit::tokenizer_text([&](Json &file) {
    file["model"]["vocab"] = Json::object();
    file["model"]["merges"] = Json::array();
    for (size_t i = 0; i < tokens.size(); ++i) file["model"]["vocab"][tokens[i]] = i;
  }));
}

}  // namespace

Test(vocabulary_maps, onto_itself_is_the_identity) {
  for (const char *name : unit::kNames) {
    const chorus::Vocabulary vocabulary = unit::open_vector(name);
    const chorus::VocabularyMap map(vocabulary, vocabulary);
    const chorus_vocabulary_map_info arrays = map.arrays();
    cr_assert_eq(arrays.from_size, vocabulary.size());
    for (size_t id = 0; id < vocabulary.size(); ++id) {
      const int32_t wanted = is_absent(vocabulary, id) ? -1 : static_cast<int32_t>(id);
      cr_expect_eq(arrays.to_of_from[id], wanted, "%s: %zu", name, id);
    }
  }
}

// Every pair of the vectors' vocabularies, against a map of byte strings.
Test(vocabulary_maps, same_bytes_and_mass_kept) {
  for (const char *from_name : unit::kNames) {
    for (const char *to_name : unit::kNames) {
      const chorus::Vocabulary from = unit::open_vector(from_name), to = unit::open_vector(to_name);
      const chorus::VocabularyMap map(from, to);
      const chorus_vocabulary_map_info arrays = map.arrays();
      cr_assert(arrays.from_size == from.size() && arrays.to_size == to.size());
      std::set<std::pair<bool, std::string>> theirs;
      for (size_t id = 0; id < to.size(); ++id) {
        if (!is_absent(to, id)) theirs.emplace(is_special(to, id), bytes_of(to, id));
      }
      size_t mapped = 0;
      for (size_t id = 0; id < from.size(); ++id) {
        const int32_t row = arrays.to_of_from[id];
        const bool wanted = !is_absent(from, id) && theirs.contains({is_special(from, id), bytes_of(from, id)});
        cr_assert_eq(row >= 0, wanted, "%s to %s: token %zu", from_name, to_name, id);
        if (row < 0) continue;
        ++mapped;
        cr_expect(bytes_of(from, id) == bytes_of(to, static_cast<size_t>(row)));
        cr_expect_eq(is_special(from, id), is_special(to, static_cast<size_t>(row)));
      }
      // The CSR says the same: rows ascend, and no token lies in two.
      cr_expect_eq(arrays.entry_count, mapped);
      cr_expect_eq(arrays.offsets[0], 0);
      cr_expect_eq(static_cast<size_t>(arrays.offsets[to.size()]), mapped);
      for (size_t row = 0; row < to.size(); ++row) {
        for (int64_t at = arrays.offsets[row]; at < arrays.offsets[row + 1]; ++at) {
          cr_expect_eq(arrays.to_of_from[arrays.ids[at]], static_cast<int32_t>(row));
          if (at > arrays.offsets[row]) cr_expect_lt(arrays.ids[at - 1], arrays.ids[at]);
        }
      }
    }
  }
}

// In SentencePiece files "<0x41>" and "A" are the same byte.
Test(vocabulary_maps, several_tokens_of_the_same_bytes) {
  const chorus::Vocabulary from = unit::open_vector("llama2"), to = unit::open_vector("gpt2");
  const int32_t letter = to.find("A");
  const chorus::VocabularyMap map(from, to);
  const chorus_vocabulary_map_info arrays = map.arrays();
  size_t found = 0;
  for (size_t id = 0; id < from.size(); ++id) found += bytes_of(from, id) == "A" && arrays.to_of_from[id] == letter;
  cr_expect_eq(found, 2u);
  cr_expect_eq(arrays.offsets[letter + 1] - arrays.offsets[letter], 2);
  const chorus::VocabularyMap back(to, from);
  cr_expect_eq(back.arrays().to_of_from[letter], from.find("A"));
}

Test(vocabulary_maps, fingerprints) {
  std::map<std::pair<uint64_t, uint64_t>, std::string> seen;
  for (const char *name : {"gpt2", "llama3", "qwen2", "llama2", "gpt2-prefix", "added"}) {
    const auto words = unit::open_vector(name).fingerprint();
    cr_expect(words == unit::open_vector(name).fingerprint());
    cr_expect(seen.emplace(words, name).second, "%s and %s", name, seen[words].c_str());
  }
  const auto print = [](const std::vector<std::string> &tokens) { return of_tokens(tokens).fingerprint(); };
  cr_expect(print({"a", "b"}) != print({"b", "a"}));
  cr_expect(print({"a", "b"}) != print({"a", "b", "c"}));
  cr_expect(print({"ab", "c"}) != print({"a", "bc"}));
  // Merges are not covered; names of rules neither.
  const auto small = from_text(unit::tokenizer_text([](Json &) {})).fingerprint();
  cr_expect(small == from_text(unit::tokenizer_text([](Json &file) { file["model"]["merges"] = Json::array(); })).fingerprint());
  cr_expect(small != from_text(unit::tokenizer_text([](Json &file) {
              file["added_tokens"] = Json::array({{{"content", "ab"}, {"id", 2}, {"special", true}}});
            })).fingerprint());
}

Test(vocabulary_maps, fingerprint_of_the_documented_bytes) {
  // XXH3-128 of nothing, seed 0 (xxHash's own test vector).
  const auto empty = from_text("{\"model\":{\"vocab\":{},\"merges\":[]}}");
  cr_expect_eq(empty.size(), 0u);
  const auto words = empty.fingerprint();
  cr_expect_eq(words.first, 0x6001c324468d497fu);
  cr_expect_eq(words.second, 0x99aa06d3014798d8u);
}

Test(vocabulary_maps, tokens) {
  const chorus::Vocabulary gpt2 = unit::open_vector("gpt2");
  const int32_t the = gpt2.find(" the");
  cr_assert_geq(the, 0);
  cr_expect_str_eq(gpt2.token(static_cast<size_t>(the)).text, "\u0120the");
  cr_expect_eq(gpt2.find("no token is this long"), -1);
  for (int byte = 0; byte < 256; ++byte) cr_expect_geq(gpt2.find(std::string(1, static_cast<char>(byte))), 0, "byte %d", byte);

  const chorus::Vocabulary llama = unit::open_vector("llama2");
  const chorus_token_info line = llama.token(3 + '\n');
  cr_expect_str_eq(line.text, "<0x0A>");
  cr_expect_eq(line.length, 1u);
  cr_expect_eq(line.bytes[0], '\n');
  cr_expect_eq(line.flags, CHORUS_TOKEN_BYTE);
  const chorus_token_info zero = llama.token(3);
  cr_expect(zero.length == 1 && zero.bytes[0] == '\0');
  cr_expect_eq(llama.token(1).flags & (CHORUS_TOKEN_SPECIAL | CHORUS_TOKEN_ADDED), CHORUS_TOKEN_SPECIAL | CHORUS_TOKEN_ADDED);
  // An ordinary token goes before the byte of byte fallback only by its id: the lowest one is found.
  cr_expect_eq(llama.find("A"), 3 + 'A');
}

Test(vocabulary_maps, holes_are_absent) {
  const chorus::Vocabulary vocabulary = from_text("{\"model\":{\"vocab\":{\"a\":0,\"b\":5},\"merges\":[]}}");
  cr_expect_eq(vocabulary.size(), 6u);
  cr_expect_eq(vocabulary.token(3).flags, CHORUS_TOKEN_ABSENT);
  cr_expect_eq(vocabulary.token(3).length, 0u);
  cr_expect_eq(unit::outcome_of([&] { vocabulary.decode({0, 3}); }).status, CHORUS_OUT_OF_RANGE);
  cr_expect_eq(vocabulary.find(""), -1);
}
