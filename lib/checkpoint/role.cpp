// SPDX-License-Identifier: Apache-2.0
// Names are read as words between dots and underscores: an index after "layers", "h", "blocks" … is the layer, one after
// "experts" the expert; the last telling word says which matrix. Covers Llama, Mistral, Mixtral, Qwen (MoE), DeepSeek, Phi,
// Gemma, GPT-2, GPT-NeoX, OPT, Bloom, Falcon, BERT, T5 and what is named like them.
#include "checkpoint/role.h"

#include <algorithm>
#include <charconv>
#include <iterator>
#include <optional>
#include <vector>

namespace chorus::checkpoint {
namespace {

struct Word {
  std::string_view text;
  chorus_tensor_kind kind;
  chorus_tensor_part part;
};

// A component of a name that tells kind and part whatever stands around it.
constexpr Word kWords[] = {
    {"embed_tokens", CHORUS_TENSOR_KIND_EMBEDDING, CHORUS_TENSOR_PART_NONE},
    {"wte", CHORUS_TENSOR_KIND_EMBEDDING, CHORUS_TENSOR_PART_NONE},
    {"word_embeddings", CHORUS_TENSOR_KIND_EMBEDDING, CHORUS_TENSOR_PART_NONE},
    {"embed_in", CHORUS_TENSOR_KIND_EMBEDDING, CHORUS_TENSOR_PART_NONE},
    {"tok_embeddings", CHORUS_TENSOR_KIND_EMBEDDING, CHORUS_TENSOR_PART_NONE},
    {"lm_head", CHORUS_TENSOR_KIND_HEAD, CHORUS_TENSOR_PART_NONE},
    {"embed_out", CHORUS_TENSOR_KIND_HEAD, CHORUS_TENSOR_PART_NONE},
    {"wpe", CHORUS_TENSOR_KIND_POSITION, CHORUS_TENSOR_PART_NONE},
    {"embed_positions", CHORUS_TENSOR_KIND_POSITION, CHORUS_TENSOR_PART_NONE},
    {"position_embeddings", CHORUS_TENSOR_KIND_POSITION, CHORUS_TENSOR_PART_NONE},
    {"relative_attention_bias", CHORUS_TENSOR_KIND_POSITION, CHORUS_TENSOR_PART_NONE},
    {"inv_freq", CHORUS_TENSOR_KIND_POSITION, CHORUS_TENSOR_PART_NONE},
    {"q_proj", CHORUS_TENSOR_KIND_ATTENTION, CHORUS_TENSOR_PART_QUERY},
    {"k_proj", CHORUS_TENSOR_KIND_ATTENTION, CHORUS_TENSOR_PART_KEY},
    {"v_proj", CHORUS_TENSOR_KIND_ATTENTION, CHORUS_TENSOR_PART_VALUE},
    {"o_proj", CHORUS_TENSOR_KIND_ATTENTION, CHORUS_TENSOR_PART_OUTPUT},
    {"out_proj", CHORUS_TENSOR_KIND_ATTENTION, CHORUS_TENSOR_PART_OUTPUT},
    {"qkv_proj", CHORUS_TENSOR_KIND_ATTENTION, CHORUS_TENSOR_PART_QKV},
    {"query_key_value", CHORUS_TENSOR_KIND_ATTENTION, CHORUS_TENSOR_PART_QKV},
    {"c_attn", CHORUS_TENSOR_KIND_ATTENTION, CHORUS_TENSOR_PART_QKV},
    {"wq", CHORUS_TENSOR_KIND_ATTENTION, CHORUS_TENSOR_PART_QUERY},
    {"wk", CHORUS_TENSOR_KIND_ATTENTION, CHORUS_TENSOR_PART_KEY},
    {"wv", CHORUS_TENSOR_KIND_ATTENTION, CHORUS_TENSOR_PART_VALUE},
    {"wo", CHORUS_TENSOR_KIND_ATTENTION, CHORUS_TENSOR_PART_OUTPUT},
    {"query", CHORUS_TENSOR_KIND_ATTENTION, CHORUS_TENSOR_PART_QUERY},
    {"key", CHORUS_TENSOR_KIND_ATTENTION, CHORUS_TENSOR_PART_KEY},
    {"value", CHORUS_TENSOR_KIND_ATTENTION, CHORUS_TENSOR_PART_VALUE},
    {"q_a_proj", CHORUS_TENSOR_KIND_ATTENTION, CHORUS_TENSOR_PART_QUERY},
    {"q_b_proj", CHORUS_TENSOR_KIND_ATTENTION, CHORUS_TENSOR_PART_QUERY},
    {"gate_proj", CHORUS_TENSOR_KIND_MLP, CHORUS_TENSOR_PART_GATE},
    {"up_proj", CHORUS_TENSOR_KIND_MLP, CHORUS_TENSOR_PART_UP},
    {"down_proj", CHORUS_TENSOR_KIND_MLP, CHORUS_TENSOR_PART_DOWN},
    {"gate_up_proj", CHORUS_TENSOR_KIND_MLP, CHORUS_TENSOR_PART_GATE_UP},
    {"w1", CHORUS_TENSOR_KIND_MLP, CHORUS_TENSOR_PART_GATE},
    {"w3", CHORUS_TENSOR_KIND_MLP, CHORUS_TENSOR_PART_UP},
    {"w2", CHORUS_TENSOR_KIND_MLP, CHORUS_TENSOR_PART_DOWN},
    {"fc1", CHORUS_TENSOR_KIND_MLP, CHORUS_TENSOR_PART_UP},
    {"fc2", CHORUS_TENSOR_KIND_MLP, CHORUS_TENSOR_PART_DOWN},
    {"c_fc", CHORUS_TENSOR_KIND_MLP, CHORUS_TENSOR_PART_UP},
    {"dense_h_to_4h", CHORUS_TENSOR_KIND_MLP, CHORUS_TENSOR_PART_UP},
    {"dense_4h_to_h", CHORUS_TENSOR_KIND_MLP, CHORUS_TENSOR_PART_DOWN},
    {"wi_0", CHORUS_TENSOR_KIND_MLP, CHORUS_TENSOR_PART_GATE},
    {"wi_1", CHORUS_TENSOR_KIND_MLP, CHORUS_TENSOR_PART_UP},
    {"wi", CHORUS_TENSOR_KIND_MLP, CHORUS_TENSOR_PART_UP},
};

// Components after which a number is the index of a layer; "model" and "encoder" alone say nothing.
constexpr std::string_view kLayerWords[] = {"layers", "layer", "h", "blocks", "block", "resblocks"};
constexpr std::string_view kAttentionWords[] = {"self_attn", "attn", "attention", "self_attention", "cross_attn",
                                                "SelfAttention", "EncDecAttention", "self", "encoder_attn", "attention_wo"};
constexpr std::string_view kMlpWords[] = {"mlp", "feed_forward", "ffn", "DenseReluDense", "intermediate", "block_sparse_moe"};
constexpr std::string_view kSharedWords[] = {"shared_expert", "shared_experts", "shared_mlp"};
constexpr std::string_view kRouterWords[] = {"router", "gate", "shared_expert_gate", "gate_weight"};
constexpr std::string_view kQuantWords[] = {"weight_scale", "weight_scale_inv", "input_scale", "scales", "qzeros", "zeros",
                                            "weight_scale_2", "weight_zero_point", "g_idx", "absmax", "_scales"};

template <typename List>
bool contains(const List &list, std::string_view word) {
  return std::ranges::find(list, word) != std::end(list);
}

std::vector<std::string_view> components(std::string_view name) {
  std::vector<std::string_view> out;
  while (!name.empty()) {
    const size_t dot = name.find('.');
    out.push_back(name.substr(0, dot));
    name = dot == std::string_view::npos ? std::string_view() : name.substr(dot + 1);
  }
  return out;
}

std::optional<int32_t> number(std::string_view word) {
  int32_t value = 0;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
  if (error != std::errc() || end != word.data() + word.size() || value < 0) return std::nullopt;
  return value;
}

bool is_norm(std::string_view word) {
  return word.find("norm") != std::string_view::npos || word.starts_with("ln_") || word == "ln" ||
         word.find("LayerNorm") != std::string_view::npos;
}

// "gate_up_proj_bias", "down_proj_blocks", "fc1_weight": the word without what only says how it is stored.
std::string_view strip_storage(std::string_view word, uint32_t *flags) {
  for (const std::string_view end : {"_bias", "_blocks", "_scales", "_weight", "_scale_inv", "_scale"}) {
    if (!word.ends_with(end) || word.size() == end.size()) continue;
    if (end == "_bias") *flags |= CHORUS_TENSOR_ROLE_BIAS;
    if (end.starts_with("_scale")) *flags |= CHORUS_TENSOR_ROLE_QUANT;
    return word.substr(0, word.size() - end.size());
  }
  return word;
}

struct Context {
  bool attention = false, mlp = false, norm = false, experts = false;
  bool widening = false;  // BERT's "intermediate", whose matrix is only called "dense"
};

// What a component adds to what stood before it.
void apply(std::string_view full, Context *context, Role *role) {
  const std::string_view word = strip_storage(full, &role->flags);
  if (word == "bias" || word == "e_score_correction_bias") role->flags |= CHORUS_TENSOR_ROLE_BIAS;
  if (contains(kQuantWords, word)) role->flags |= CHORUS_TENSOR_ROLE_QUANT;
  if (contains(kSharedWords, word)) role->flags |= CHORUS_TENSOR_ROLE_SHARED_EXPERT;
  context->attention |= contains(kAttentionWords, word);
  context->mlp |= contains(kMlpWords, word) || contains(kSharedWords, word);
  context->norm |= is_norm(word);
  context->experts |= word == "experts";
  context->widening |= word == "intermediate";
  if (contains(kRouterWords, word) && (context->mlp || word != "gate" || role->layer >= 0)) {
    role->kind = CHORUS_TENSOR_KIND_ROUTER;
    return;
  }
  const auto known = std::ranges::find(kWords, word, &Word::text);
  if (word == "wo" && context->mlp) {  // T5's feed-forward; elsewhere attention's output
    role->kind = CHORUS_TENSOR_KIND_MLP;
    role->part = CHORUS_TENSOR_PART_DOWN;
  } else if (known != std::end(kWords)) {
    role->kind = known->kind;
    role->part = known->part;
  } else if (word == "dense" && context->widening) {
    role->kind = CHORUS_TENSOR_KIND_MLP;
    role->part = CHORUS_TENSOR_PART_UP;
  } else if (word == "dense" || word == "c_proj" || word == "proj" || word == "o") {
    role->kind = context->attention ? CHORUS_TENSOR_KIND_ATTENTION : CHORUS_TENSOR_KIND_MLP;
    role->part = context->attention ? CHORUS_TENSOR_PART_OUTPUT : CHORUS_TENSOR_PART_DOWN;
  } else if (context->attention && word.size() == 1 && std::string_view("qkv").find(word) != std::string_view::npos) {
    role->kind = CHORUS_TENSOR_KIND_ATTENTION;
    role->part = word == "q" ? CHORUS_TENSOR_PART_QUERY : word == "k" ? CHORUS_TENSOR_PART_KEY : CHORUS_TENSOR_PART_VALUE;
  }
}

}  // namespace

Role role_of(std::string_view name) {
  Role role;
  Context context;
  const std::vector<std::string_view> words = components(name);
  for (size_t i = 0; i < words.size(); ++i) {
    const auto index = number(words[i]);
    if (!index) {
      apply(words[i], &context, &role);
    } else if (i > 0 && role.layer < 0 && contains(kLayerWords, words[i - 1])) {
      role.layer = *index;
    } else if (i > 0 && words[i - 1] == "experts") {
      role.expert = *index;
    }
  }
  if (!words.empty() && words[0] == "output") role.kind = CHORUS_TENSOR_KIND_HEAD;
  if (context.norm) {
    role.kind = CHORUS_TENSOR_KIND_NORM;
    role.part = CHORUS_TENSOR_PART_NONE;
  } else if (role.kind == CHORUS_TENSOR_KIND_OTHER) {
    if (context.attention) role.kind = CHORUS_TENSOR_KIND_ATTENTION;
    else if (context.mlp) role.kind = CHORUS_TENSOR_KIND_MLP;
  }
  if (context.experts && role.expert < 0 && role.kind == CHORUS_TENSOR_KIND_MLP) role.flags |= CHORUS_TENSOR_ROLE_FUSED_EXPERTS;
  return role;
}

}  // namespace chorus::checkpoint
