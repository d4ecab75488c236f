// SPDX-License-Identifier: Apache-2.0
// Byte distributions against sums over all token sequences of a small vocabulary, enumerated one by one.
#include <criterion/criterion.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "chorus/chorus.hpp"
#include "unit/combine/support.h"

namespace {

using namespace unit;

// Id 4 is the end, 7 has no bytes; "ab" occurs twice; bytes above 0x7f must sort as unsigned.
const std::vector<std::string> kTokens = {"a", "ab", "b", "aba", "", "\xc3", "\xc3\xa9", "", "ab", "bb"};
const std::vector<int32_t> kEnd = {4};

// A model: next-token logits from a hash of the tokens so far.
std::vector<double> logits_after(const std::vector<int32_t> &tokens, uint64_t model = 1) {
  uint64_t hash = model;
  for (const int32_t token : tokens) hash = splitmix(hash * 31 + static_cast<uint64_t>(token) + 1);
  std::vector<double> out;
  for (uint64_t v = 0; v < kTokens.size(); ++v) out.push_back(v == 7 ? -kInfinity : noise(hash, 1, v, 0) / 2);
  return out;
}

std::vector<long double> probabilities_after(const std::vector<int32_t> &tokens, uint64_t model = 1) {
  const std::vector<double> z = logits_after(tokens, model);
  std::vector<long double> p;
  long double total = 0;
  for (const double x : z) total += std::exp((long double)x);
  for (const double x : z) p.push_back(std::exp((long double)x) / total);
  return p;
}

// Probability of all token sequences behind `tokens` that cover `text`, by recursion over the next token.
long double cover(const std::string &text, std::vector<int32_t> *tokens, uint64_t model = 1) {
  if (text.empty()) return 1;
  const std::vector<long double> p = probabilities_after(*tokens, model);
  long double sum = 0;
  for (size_t v = 0; v < kTokens.size(); ++v) {
    const std::string &bytes = kTokens[v];
    const size_t common = std::min(bytes.size(), text.size());
    if (bytes.empty() || bytes.compare(0, common, text, 0, common) != 0) continue;
    tokens->push_back(static_cast<int32_t>(v));
    sum += p[v] * cover(text.substr(common), tokens, model);
    tokens->pop_back();
  }
  return sum;
}

// Probability of `text` and then the end.
long double finish(const std::string &text, std::vector<int32_t> *tokens) {
  const std::vector<long double> p = probabilities_after(*tokens);
  if (text.empty()) return p[4];
  long double sum = 0;
  for (size_t v = 0; v < kTokens.size(); ++v) {
    if (kTokens[v].empty() || text.compare(0, kTokens[v].size(), kTokens[v]) != 0) continue;
    tokens->push_back(static_cast<int32_t>(v));
    sum += p[v] * finish(text.substr(kTokens[v].size()), tokens);
    tokens->pop_back();
  }
  return sum;
}

void supply(chorus::ByteState &state, uint64_t model = 1) {
  for (size_t i = 0; i < state.size(); ++i) {
    const chorus_byte_hypothesis h = state.hypothesis(i);
    if (h.needs_scores == 0) continue;
    const std::vector<double> z = logits_after({h.tokens, h.tokens + h.token_count}, model);
    state.set_scores(i, chorus::Tensor(z.data(), {static_cast<int64_t>(z.size())}));
  }
}

std::vector<double> next_of(const chorus::ByteState &state) {
  std::vector<double> out(CHORUS_BYTE_OUTCOMES);
  state.next(chorus::Tensor(out.data(), {CHORUS_BYTE_OUTCOMES}));
  return out;
}

}  // namespace

Test(bytes, equal_the_sum_over_all_covers) {
  const chorus::ByteTrie trie(context(), kTokens, kEnd);
  for (const std::string text : {"abab", "ababbab", "bbbaab", "a\xc3\xa9\xc3\xc3"
                                                             "b"}) {
    chorus::ByteState state(trie);
    std::string prefix;
    for (const char c : text) {
      supply(state);
      const std::vector<double> next = next_of(state);
      std::vector<int32_t> none;
      const long double mass = cover(prefix, &none);
      double total = 0;
      for (const char b : {'a', 'b', '\xc3', '\xa9', 'c'}) {
        const double expected = (double)std::log(cover(prefix + b, &none) / mass);
        const double found = next[static_cast<unsigned char>(b)];
        cr_expect(found == expected || std::abs(found - expected) < 1e-12, "'%s' then %02x: %g, not %g", prefix.c_str(),
                  static_cast<unsigned char>(b), found, expected);
      }
      cr_expect_float_eq(next[CHORUS_BYTE_END], (double)std::log(finish(prefix, &none) / mass), 1e-12);
      for (const double l : next) total += std::exp(l);
      cr_expect_float_eq(total, 1, 1e-12);
      state.advance(static_cast<unsigned char>(c));
      prefix += c;
      cr_expect_float_eq(state.log_prob(), (double)std::log(cover(prefix, &none)), 1e-11);
    }
    cr_expect_eq(state.kept_share(), 1);
  }
}

Test(bytes, hypotheses_are_the_covers) {
  const chorus::ByteTrie trie(context(), kTokens, kEnd);
  chorus::ByteState state(trie);
  for (const char c : std::string("ab")) {
    supply(state);
    state.advance(c);
  }
  // [a][b], [ab], the other [ab], [a] and a beginning of "bb", a beginning of "aba".
  cr_expect_eq(state.size(), 5);
  std::vector<std::string> found;
  for (size_t i = 0; i < state.size(); ++i) {
    const chorus_byte_hypothesis h = state.hypothesis(i);
    std::string name;
    for (size_t k = 0; k < h.token_count; ++k) name += std::to_string(h.tokens[k]) + " ";
    found.push_back(name + "+" + std::to_string(h.pending_bytes));
    cr_expect_eq(h.needs_scores, h.pending_bytes == 0);
  }
  std::ranges::sort(found);
  const std::vector<std::string> expected = {"+2", "0 +1", "0 2 +0", "1 +0", "8 +0"};
  cr_expect(found == expected);
  supply(state);
  double total = 0;
  for (size_t i = 0; i < state.size(); ++i) total += std::exp(state.hypothesis(i).log_share);
  cr_expect_float_eq(total, 1, 1e-12);
}

Test(bytes, pruning_keeps_the_heaviest_and_says_what_it_lost) {
  const chorus::ByteTrie trie(context(), kTokens, kEnd);
  chorus::ByteState exact(trie), few(trie, 3), sharp(trie, 0, 0.05);
  for (const char c : std::string("abababab")) {
    for (chorus::ByteState *state : {&exact, &few, &sharp}) {
      supply(*state);
      state->advance(c);
    }
    cr_expect(few.size() <= 3);
  }
  cr_expect(exact.size() > 20);
  cr_expect(sharp.size() < exact.size());
  for (const chorus::ByteState *state : {&few, &sharp}) {
    cr_expect(state->kept_share() > 0.1 && state->kept_share() < 1, "%g", state->kept_share());
  }
}

Test(bytes, first_bytes_of_rows) {
  const chorus::ByteTrie trie(context(), kTokens, kEnd);
  std::vector<float> scores;
  for (int row = 0; row < 3; ++row) {
    for (const double z : logits_after({row})) scores.push_back(static_cast<float>(z));
  }
  std::fill(scores.begin() + 10, scores.begin() + 20, -INFINITY);
  scores[25] = NAN;
  std::vector<double> out(3 * CHORUS_BYTE_OUTCOMES);
  trie.first_bytes(chorus::Tensor(scores.data(), {3, 10}), chorus::Tensor(out.data(), {3, CHORUS_BYTE_OUTCOMES}));
  const std::vector<long double> p = probabilities_after({0});
  cr_expect_float_eq(out['a'], (double)std::log(p[0] + p[1] + p[3] + p[8]), 1e-7);
  cr_expect_float_eq(out['b'], (double)std::log(p[2] + p[9]), 1e-7);
  cr_expect_float_eq(out[0xc3], (double)std::log(p[5] + p[6]), 1e-7);
  cr_expect_float_eq(out[CHORUS_BYTE_END], (double)std::log(p[4]), 1e-7);
  cr_expect_eq(out['c'], -INFINITY);
  cr_expect_eq(out[CHORUS_BYTE_OUTCOMES + 'a'], -INFINITY);
  cr_expect(std::isnan(out[2 * CHORUS_BYTE_OUTCOMES + 'a']));
}

// Models that split text differently agree on bytes: their linear mixture by a combiner is the mixture of their texts.
Test(bytes, of_two_vocabularies_mix) {
  const std::vector<std::string> other = {"b", "ba", "a", "\xc3", "\xa9", ""};
  const chorus::ByteTrie one(context(), kTokens, kEnd), two(context(), other, {5});
  chorus::ByteState first(one), second(two);
  const std::vector<double> flat(6, 0.0);
  for (const char c : std::string("ab")) {
    supply(first);
    for (size_t i = 0; i < second.size(); ++i) {
      if (second.hypothesis(i).needs_scores) second.set_scores(i, chorus::Tensor(flat.data(), {6}));
    }
    first.advance(c);
    second.advance(c);
  }
  // [a][b] 1/36, [a] + start of [ba] 1/36.
  cr_expect_float_eq(second.log_prob(), std::log(2.0 / 36), 1e-12);
}

Test(bytes, refuse) {
  const chorus::ByteTrie trie(context(), kTokens, kEnd);
  chorus::ByteState state(trie);
  std::vector<double> out(CHORUS_BYTE_OUTCOMES);
  cr_expect_eq(chorus_byte_state_next(state.get(), chorus::Tensor(out.data(), {257}).get(), nullptr), CHORUS_FAILED_PRECONDITION);
  cr_expect_eq(chorus_byte_state_advance(state.get(), 'a', nullptr), CHORUS_FAILED_PRECONDITION);
  cr_expect(std::isnan(state.hypothesis(0).log_share));
  std::vector<double> bad(10, NAN);
  cr_expect_eq(chorus_byte_state_set_scores(state.get(), 0, chorus::Tensor(bad.data(), {10}).get(), nullptr), CHORUS_INVALID_ARGUMENT);
  cr_expect_eq(chorus_byte_state_set_scores(state.get(), 0, chorus::Tensor(bad.data(), {9}).get(), nullptr), CHORUS_INVALID_ARGUMENT);
  cr_expect_eq(chorus_byte_state_set_scores(state.get(), 1, chorus::Tensor(bad.data(), {10}).get(), nullptr), CHORUS_OUT_OF_RANGE);
  supply(state);
  cr_expect_eq(chorus_byte_state_advance(state.get(), 'z', nullptr), CHORUS_OUT_OF_RANGE);
  cr_expect_eq(chorus_byte_state_advance(state.get(), 256, nullptr), CHORUS_OUT_OF_RANGE);
  cr_expect_eq(state.size(), 1);
  cr_expect_eq(state.log_prob(), 0);
  chorus_byte_trie *none = nullptr;
  const uint64_t falling[] = {0, 2, 1}, empty[] = {0, 0};
  const uint8_t text[] = "ab";
  const int32_t end = 3;
  cr_expect_eq(chorus_byte_trie_create_from_tokens(context().get(), text, falling, 2, nullptr, 0, &none, nullptr), CHORUS_INVALID_ARGUMENT);
  cr_expect_eq(chorus_byte_trie_create_from_tokens(context().get(), text, empty, 1, nullptr, 0, &none, nullptr), CHORUS_INVALID_ARGUMENT);
  cr_expect_eq(chorus_byte_trie_create_from_tokens(context().get(), text, falling, 1, &end, 1, &none, nullptr), CHORUS_OUT_OF_RANGE);
  cr_expect_null(none);
}

// ---- Vocabularies in common ----

namespace {

chorus::Vocabulary vocabulary_of(const std::vector<std::string> &tokens, const std::string &special = "") {
  const TemporaryFolder folder;
  std::string vocab, added;
  for (size_t id = 0; id < tokens.size(); ++id) {
    if (tokens[id] == special) {
      added = R"({"id":)" + std::to_string(id) + R"(,"content":")" + special +
              R"(","special":true,"single_word":false,"lstrip":false,"rstrip":false,"normalized":false})";
    }
    vocab += (id > 0 ? ",\"" : "\"") + tokens[id] + "\":" + std::to_string(id);
  }
  write_file(folder / "tokenizer.json",
             R"({"version":"1.0","added_tokens":[)" + added +
                 R"(],"normalizer":null,"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,)"
                 R"("use_regex":true},"post_processor":null,"decoder":{"type":"ByteLevel","add_prefix_space":true,)"
                 R"("trim_offsets":true,"use_regex":true},"model":{"type":"BPE","vocab":{)" +
                 vocab + R"(},"merges":[]}})");
  return chorus::Vocabulary(context(), folder / "tokenizer.json");
}

std::vector<int32_t> places(const chorus::VocabularyMap &map) {
  const chorus_vocabulary_map_info info = map.arrays();
  return {info.to_of_from, info.to_of_from + info.from_size};
}

}  // namespace

Test(vocabularies, union_and_intersection) {
  const chorus::Vocabulary a = vocabulary_of({"x", "y", "<s>", "z"}, "<s>"), b = vocabulary_of({"z", "<s>", "w", "x"});
  const auto all = chorus::VocabularyMap::common({&a, &b}, CHORUS_VOCABULARY_UNION);
  // "<s>" is special in one and text in the other: two tokens.
  cr_expect(places(all[0]) == std::vector<int32_t>({0, 1, 2, 3}));
  cr_expect(places(all[1]) == std::vector<int32_t>({3, 4, 5, 0}));
  cr_expect_eq(all[0].arrays().to_size, 6);
  const auto both = chorus::VocabularyMap::common({&a, &b}, CHORUS_VOCABULARY_INTERSECTION);
  cr_expect(places(both[0]) == std::vector<int32_t>({0, -1, -1, 1}));
  cr_expect(places(both[1]) == std::vector<int32_t>({1, -1, -1, 0}));
  for (const auto &map : both) {
    const chorus_vocabulary_map_info info = map.arrays();
    cr_expect_eq(info.to_size, 2);
    cr_expect_eq(info.entry_count, 2);
    for (size_t row = 0; row < 2; ++row) {
      cr_expect_eq(info.offsets[row + 1] - info.offsets[row], 1);
      cr_expect_eq(info.to_of_from[info.ids[info.offsets[row]]], static_cast<int32_t>(row));
    }
  }
}

Test(vocabularies, equality_names_the_first_difference) {
  const chorus::Vocabulary a = vocabulary_of({"x", "y", "z"}), b = vocabulary_of({"x", "z", "y"}), longer = vocabulary_of({"x", "y", "z", "w"});
  cr_expect_eq(chorus_vocabulary_check_equal(a.get(), a.get(), nullptr), CHORUS_OK);
  Outcome outcome;
  cr_expect_eq(chorus_vocabulary_check_equal(a.get(), b.get(), outcome.slot()), CHORUS_FAILED_PRECONDITION);
  cr_expect(contains(outcome.text(), "id 1 is 'y' in one vocabulary and 'z' in the other"), "%s", outcome.text().c_str());
  cr_expect_eq(chorus_vocabulary_check_equal(a.get(), longer.get(), outcome.slot()), CHORUS_FAILED_PRECONDITION);
  cr_expect(contains(outcome.text(), "id 3 is no token in one vocabulary and 'w'"), "%s", outcome.text().c_str());
}

Test(vocabularies, a_trie_of_a_vocabulary) {
  const chorus::Vocabulary v = vocabulary_of({"x", "Ġy", "<s>"}, "<s>");
  const chorus::ByteTrie trie(context(), v, {2});
  const std::vector<float> scores = {0, 0, 0};
  std::vector<double> out(CHORUS_BYTE_OUTCOMES);
  trie.first_bytes(chorus::Tensor(scores.data(), {1, 3}), chorus::Tensor(out.data(), {1, CHORUS_BYTE_OUTCOMES}));
  for (const int b : {int{'x'}, int{' '}, CHORUS_BYTE_END}) cr_expect_float_eq(out[static_cast<size_t>(b)], -std::log(3), 1e-12);
}
