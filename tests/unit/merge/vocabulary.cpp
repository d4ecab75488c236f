// SPDX-License-Identifier: Apache-2.0
// Tokenizers of the output: which ids, which rows, which files. Every token's row is worked out here by its name.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "unit/merge/support.h"

using nlohmann::json;
using unit::Bench;
using unit::Model;

namespace {

using Tokens = std::vector<std::string>;  // by id; "" for none

Tokens range(const std::string &prefix, int from, int to) {
  Tokens out;
  for (int i = from; i < to; ++i) out.push_back(prefix + std::to_string(i));
  return out;
}

Tokens operator+(Tokens a, const Tokens &b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

// A model with a row for each token and `spare` more, whose tokenizer has the last `added` tokens as added ones.
void add_model(Bench *bench, const std::string &name, unsigned seed, const Tokens &tokens, size_t added, int64_t spare = 0,
               chorus_dtype dtype = CHORUS_BF16, bool with_head = true) {
  const auto rows = static_cast<int64_t>(tokens.size()) + spare;
  Model model = unit::random_model(seed, dtype, 1, 16, rows);
  if (!with_head) model.erase("lm_head.weight");
  bench->add(name, model, json{{"vocab_size", rows}, {"tie_word_embeddings", !with_head}}.dump());
  json vocabulary = json::object(), extra = json::array();
  for (size_t id = 0; id < tokens.size(); ++id) {
    if (id + added < tokens.size()) {
      vocabulary[tokens[id]] = id;
    } else {
      extra.push_back({{"id", id}, {"content", tokens[id]}, {"special", true}, {"lstrip", true}, {"rstrip", false}, {"single_word", false}, {"normalized", false}});
    }
  }
  const json root = {{"model", {{"type", "BPE"}, {"vocab", vocabulary}, {"merges", json::array({"t 0", json::array({"t", "14"})})}}}, {"added_tokens", extra}};
  std::ofstream(*bench / (name + "/tokenizer.json")) << root.dump();
  std::ofstream(*bench / (name + "/tokenizer_config.json")) << R"({"added_tokens_decoder": {}, "tokenizer_class": "X", "chat_template": "from )" << name << "\"}";
  std::ofstream(*bench / (name + "/vocab.json")) << "{}";
}

json output(const Bench &bench, const char *file) { return json::parse(std::ifstream(bench / (std::string("out/") + file))); }

// Tokens of the output by id, from its tokenizer.json.
Tokens tokens_of(const Bench &bench) {
  const json root = output(bench, "tokenizer.json");
  std::map<size_t, std::string> ids;
  for (const auto &[token, id] : root["model"]["vocab"].items()) ids[id] = token;
  for (const json &entry : root["added_tokens"]) ids[entry["id"]] = entry["content"];
  Tokens out(ids.empty() ? 0 : ids.rbegin()->first + 1);
  for (const auto &[id, token] : ids) out[id] = token;
  return out;
}

using Row = std::vector<double>;

Row row(const Model &model, const std::string &tensor, size_t index) {
  const auto &values = model.at(tensor).values;
  const auto begin = values.begin() + static_cast<ptrdiff_t>(index * 16);
  return Row(begin, begin + 16);
}

int find(const Tokens &tokens, const std::string &token) {
  const auto found = std::ranges::find(tokens, token);
  return found == tokens.end() ? -1 : static_cast<int>(found - tokens.begin());
}

Row mix(const std::vector<std::pair<double, Row>> &terms) {
  Row out(16);
  for (const auto &[weight, values] : terms) {
    for (size_t i = 0; i < out.size(); ++i) out[i] += weight * values[i];
  }
  return out;
}

void expect_row(const Model &got, const std::string &tensor, size_t index, const Row &want, const char *what, double ulps = 1) {
  const Row have = row(got, tensor, index);
  for (size_t i = 0; i < want.size(); ++i) {
    cr_assert(std::abs(have[i] - want[i]) <= ulps * unit::ulp(got.at(tensor).dtype, want[i]) + 1e-9, "%s: row %zu of %s is %g, not %g", what, index,
              tensor.c_str(), have[i], want[i]);
  }
}

const char *const kTwo = "{merge_method: linear, models: [{model: '@p', parameters: {weight: 0.75}}, {model: '@q', parameters: {weight: 0.25}}], dtype: float32, ";

struct Fixture {
  Bench bench;
  const Tokens p = range("t", 0, 10) + Tokens{"<pad>"}, q = range("t", 5, 15) + Tokens{"<pad>", "<q>"};
  Fixture() {
    add_model(&bench, "p", 21, p, 1);
    add_model(&bench, "q", 22, q, 2);
  }
  // The row of a token in a model; its rule for those without is given.
  Row of(const char *model, const std::string &token, const std::string &tensor) const {
    const Tokens &tokens = model[0] == 'p' ? p : q;
    return row(bench.model(model), tensor, static_cast<size_t>(find(tokens, token)));
  }
};

}  // namespace

Test(vocabulary, a_union_keeps_the_ids_of_the_base) {
  const Fixture f;
  const Model got = f.bench.merge(std::string(kTwo) + "tokenizer_source: union}");
  const Tokens want = f.p + range("t", 10, 15) + Tokens{"<q>"};
  cr_assert(tokens_of(f.bench) == want);
  for (const char *tensor : {"model.embed_tokens.weight", "lm_head.weight"}) {
    cr_assert_eq(got.at(tensor).shape[0], static_cast<int64_t>(want.size()));
    for (size_t id = 0; id < want.size(); ++id) {
      const bool in_p = find(f.p, want[id]) >= 0, in_q = find(f.q, want[id]) >= 0;
      const Row from_p = f.of(in_p ? "p" : "q", want[id], tensor), from_q = f.of(in_q ? "q" : "p", want[id], tensor);
      expect_row(got, tensor, id, mix({{0.75, from_p}, {0.25, from_q}}), want[id].c_str());
    }
  }
  cr_assert_eq(output(f.bench, "config.json")["vocab_size"].get<size_t>(), want.size());
  const json tokenizer = output(f.bench, "tokenizer.json");
  const json &last = tokenizer["added_tokens"].back();
  cr_assert(last["content"] == "<q>" && last["special"] == true && last["lstrip"] == true, "%s", last.dump().c_str());
  cr_assert(output(f.bench, "tokenizer_config.json")["added_tokens_decoder"]["16"]["content"] == "<q>");
  cr_assert(!std::filesystem::exists(f.bench / "out/vocab.json"), "vocab.json contradicts the union");
}

Test(vocabulary, of_the_base_or_of_a_model) {
  const Fixture f;
  const Model base = f.bench.merge(std::string(kTwo) + "tokenizer_source: base}");
  cr_assert(tokens_of(f.bench) == f.p);
  expect_row(base, "lm_head.weight", 0, f.of("p", "t0", "lm_head.weight"), "t0");
  expect_row(base, "lm_head.weight", 7, mix({{0.75, f.of("p", "t7", "lm_head.weight")}, {0.25, f.of("q", "t7", "lm_head.weight")}}), "t7");
  const Model other = f.bench.merge(std::string(kTwo) + "tokenizer_source: '@q'}");
  cr_assert(tokens_of(f.bench) == f.q);
  expect_row(other, "lm_head.weight", 11, f.of("q", "<q>", "lm_head.weight"), "<q>");
  expect_row(other, "lm_head.weight", 2, mix({{0.75, f.of("p", "t7", "lm_head.weight")}, {0.25, f.of("q", "t7", "lm_head.weight")}}), "t7");
}

Test(vocabulary, with_a_base_model_its_row_stands_in_else_the_mean) {
  Fixture f;
  const Tokens third = range("t", 0, 7);
  add_model(&f.bench, "third", 23, third, 0);
  const std::string rest = ", dtype: float32, parameters: {weight: 1, normalize: true}, tokenizer_source: union, models: [{model: '@q'}, {model: '@third'}, {model: '@p'}]}";
  const std::string tensor = "model.embed_tokens.weight";
  const auto of = [&](const Tokens &tokens, const char *model, const std::string &token) {
    return row(f.bench.model(model), tensor, static_cast<size_t>(find(tokens, token)));
  };
  const Model mean = f.bench.merge("{merge_method: linear" + rest);  // q is first: t8 is in q and p, third gets their mean
  const Tokens tokens = tokens_of(f.bench);
  const Row both = mix({{0.5, of(f.q, "q", "t8")}, {0.5, of(f.p, "p", "t8")}});
  expect_row(mean, tensor, static_cast<size_t>(find(tokens, "t8")),
             mix({{1.0 / 3, of(f.q, "q", "t8")}, {1.0 / 3, of(f.p, "p", "t8")}, {1.0 / 3, both}}), "mean", 2 * 65536);
  const Model based = f.bench.merge("{merge_method: task_arithmetic, base_model: '@p'" + rest);
  const Tokens ids = tokens_of(f.bench);
  cr_assert(ids == f.p + range("t", 10, 15) + Tokens{"<q>"});
  expect_row(based, tensor, static_cast<size_t>(find(ids, "t8")), mix({{0.5, of(f.q, "q", "t8")}, {0.5, of(f.p, "p", "t8")}}), "base", 8);
}

Test(vocabulary, rules_for_tokens) {
  const Fixture f;
  const std::string tensor = "model.embed_tokens.weight";
  const Model got = f.bench.merge(std::string(kTwo) + R"(tokenizer: {source: union, pad_to_multiple_of: 8, tokens: {
    t6: {source: '@q'}, t7: {source: '@q', force: true}, t0: {source: {kind: zero}}, t1: {source: {kind: zero}, force: true},
    t12: {source: {kind: model_token, model: '@p', token: t3}}, '<new>': {source: {kind: model_token, model: '@q', token_id: 4}}}}})");
  const Tokens ids = tokens_of(f.bench);
  cr_assert_eq(find(ids, "<new>"), 17);
  const auto id = [&](const char *token) { return static_cast<size_t>(find(ids, token)); };
  const auto mean = [&](const Row &a, const Row &b) { return mix({{0.75, a}, {0.25, b}}); };
  const auto of = [&](const char *model, const char *token) { return f.of(model, token, tensor); };
  expect_row(got, tensor, id("t6"), mean(of("p", "t6"), of("q", "t6")), "own rows win");
  expect_row(got, tensor, id("t7"), of("q", "t7"), "force");
  expect_row(got, tensor, id("t0"), mean(of("p", "t0"), Row(16)), "zero where it lacks");
  expect_row(got, tensor, id("t1"), Row(16), "forced zero");
  expect_row(got, tensor, id("t12"), mean(of("p", "t3"), of("q", "t12")), "another token's row");
  expect_row(got, tensor, 17, of("q", "t9"), "a token by id");
  cr_assert_eq(got.at(tensor).shape[0], 24);
  cr_assert_eq(output(f.bench, "config.json")["vocab_size"].get<int>(), 24);
  Row sum(16);  // padding: the mean of all rows
  for (size_t token = 0; token < 18; ++token) sum = mix({{1, sum}, {1, row(got, tensor, token)}});
  expect_row(got, tensor, 20, mix({{1.0 / 18, sum}}), "padding", 65536);
}

Test(vocabulary, tokens_without_rows_and_rows_without_tokens) {
  Fixture f;
  add_model(&f.bench, "wide", 24, range("t", 0, 10), 0, 6);  // six rows that no token has
  const Model got = f.bench.merge("{merge_method: linear, models: [{model: '@wide', parameters: {weight: 1}}], tokenizer_source: base}");
  cr_assert_eq(got.at("lm_head.weight").shape[0], 10);
  add_model(&f.bench, "long", 25, range("t", 0, 15), 0);
  std::ofstream(f.bench / "long/config.json") << R"({"vocab_size": 12})";
  const Model cut = f.bench.merge("{merge_method: linear, models: [{model: '@long', parameters: {weight: 1}}], tokenizer_source: base}");
  cr_assert_eq(cut.at("lm_head.weight").shape[0], 12);
  cr_assert(tokens_of(f.bench) == range("t", 0, 12));
  cr_assert_eq(output(f.bench, "tokenizer.json")["model"]["merges"].size(), 1u);  // "t" + "14" makes a token that is gone
}

Test(vocabulary, equal_vocabularies_are_copied) {
  Bench bench;
  add_model(&bench, "one", 1, range("t", 0, 9), 1);
  add_model(&bench, "two", 2, range("t", 0, 9), 1, 0, CHORUS_BF16, false);  // its head is its embedding
  const std::string models = "{merge_method: linear, models: [{model: '@one', parameters: {weight: 0.5}}, {model: '@two', parameters: {weight: 0.5}}]";
  const Model with = bench.merge(models + ", tokenizer_source: union}"), without = bench.merge(models + "}");
  for (const auto &[name, tensor] : without) cr_assert(with.at(name).values == tensor.values, "%s", name.c_str());
}

Test(vocabulary, same_rows_for_any_threads_and_memory) {
  Bench bench;
  add_model(&bench, "p", 31, range("t", 0, 20000), 0);
  add_model(&bench, "q", 32, range("t", 9000, 40000), 0);
  const std::string recipe = std::string(kTwo) + "tokenizer: {source: union, pad_to_multiple_of: 64}}";
  const Model one = bench.merge(recipe, 1), two = bench.merge(recipe, 2, uint64_t{64} << 20);
  for (const auto &[name, tensor] : one) cr_assert(two.at(name).values == tensor.values, "%s", name.c_str());
}

Test(vocabulary, chat_templates) {
  Fixture f;
  const auto chat = [&](const std::string &value) {
    f.bench.merge(std::string(kTwo) + "tokenizer_source: union, chat_template: " + value + "}");
    std::ostringstream text;
    text << std::ifstream(f.bench / "out/chat_template.jinja").rdbuf();
    cr_assert(output(f.bench, "tokenizer_config.json")["chat_template"] == text.str());
    return text.str();
  };
  for (const auto &[name, word] : std::map<std::string, std::string>{{"chatml", "<|im_start|>"}, {"llama3", "<|eot_id|>"}, {"mistral", "[INST]"},
                                                                     {"exaone", "[|endofturn|]"}, {"alpaca", "### "}}) {
    cr_assert(chat(name).find(word) != std::string::npos, "%s", name.c_str());
  }
  cr_assert_eq(chat("'{{ messages[0] }} and more than twenty'"), std::string("{{ messages[0] }} and more than twenty"));
  cr_assert_eq(chat("auto"), std::string("from p"));  // one each: the first
  add_model(&f.bench, "q2", 22, f.q, 2);
  std::ofstream(f.bench / "q2/chat_template.jinja") << "from q\n";
  f.bench.merge("{merge_method: linear, parameters: {weight: 1}, models: [{model: '@p'}, {model: '@q'}, {model: '@q2'}], tokenizer_source: union, chat_template: auto}");
  cr_assert(output(f.bench, "tokenizer_config.json")["chat_template"] == "from q");
}

Test(vocabulary, wrong_tokenizers_are_named) {
  const Fixture f;
  const struct {
    const char *rest, *want;
  } kWrong[] = {
      {"tokenizer_source: '@nowhere'}", "'@nowhere' cannot be opened"},
      {"tokenizer_source: base, tokenizer: {source: base}}", "tokenizer and tokenizer_source both stand"},
      {"tokenizer: {sauce: base}}", "unknown key 'sauce' in tokenizer; did you mean 'source'?"},
      {"tokenizer: {source: base, pad_to_multiple_of: 0}}", "pad_to_multiple_of is 0; a whole number of at least 1"},
      {"tokenizer: {source: base, tokens: [a]}}", "tokens is a list; a map"},
      {"tokenizer: {source: base, tokens: {t1: {}}}}", "this token lacks 'source'"},
      {"tokenizer: {source: base, tokens: {t1: {source: {kind: nought}}}}}", "kind is 'nought'; zero and model_token are allowed"},
      {"tokenizer: {source: base, tokens: {t1: {source: {kind: model_token, model: '@p'}}}}}", "takes one of 'token' and 'token_id'"},
      {"tokenizer: {source: base, tokens: {t1: {source: {kind: model_token, model: '@p', token: t99}}}}}", "token 't99' is not in '@p'"},
      {"tokenizer: {source: base, tokens: {t1: {source: {kind: model_token, model: '@p', token_id: 11}}}}}", "token_id is 11; '@p' has the tokens 0 to 10"},
      {"tokenizer: {source: base, tokens: {t1: {source: '@a'}}}}", "'@a' is none of the models that are merged"},
      {"tokenizer: {source: base, tokens: {t1: {source: '@p', force: 3}}}}", "force is"},
      {"chat_template: chatmll}", "did you mean 'chatml'?"},
  };
  for (const auto &wrong : kWrong) {
    const std::string text = f.bench.error(std::string(kTwo) + wrong.rest);
    cr_assert(text.find(wrong.want) != std::string::npos, "%s: %s", wrong.rest, text.c_str());
  }
  for (const char *broken : {"", "{", "{\"model\": 3}", R"({"model": {"vocab": {"a": -1}}})", R"({"model": {"vocab": [3]}})",
                             R"({"model": {"vocab": {}}, "added_tokens": [{"id": 1}]})", R"({"model": {"vocab": {"a": 1e300}}})"}) {
    std::ofstream(f.bench / "q/tokenizer.json") << broken;
    const std::string text = f.bench.error(std::string(kTwo) + "tokenizer_source: union}");
    cr_assert(text.find("the tokenizer of '@q' cannot be read") != std::string::npos, "%s: %s", broken, text.c_str());
  }
}
