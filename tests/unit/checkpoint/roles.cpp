// SPDX-License-Identifier: Apache-2.0
// Names of published models' tensors, and what they are for.
#include "checkpoint/role.h"

#include <criterion/criterion.h>

using namespace chorus::checkpoint;

namespace {

struct Case {
  const char *name;
  int32_t kind, part, layer, expert;
  uint32_t flags;
};

constexpr int32_t kOther = CHORUS_TENSOR_KIND_OTHER, kEmbedding = CHORUS_TENSOR_KIND_EMBEDDING, kHead = CHORUS_TENSOR_KIND_HEAD,
                  kNorm = CHORUS_TENSOR_KIND_NORM, kAttention = CHORUS_TENSOR_KIND_ATTENTION, kMlp = CHORUS_TENSOR_KIND_MLP,
                  kRouter = CHORUS_TENSOR_KIND_ROUTER, kPosition = CHORUS_TENSOR_KIND_POSITION;
constexpr int32_t kNone = CHORUS_TENSOR_PART_NONE, kQuery = CHORUS_TENSOR_PART_QUERY, kKey = CHORUS_TENSOR_PART_KEY,
                  kValue = CHORUS_TENSOR_PART_VALUE, kOutput = CHORUS_TENSOR_PART_OUTPUT, kQkv = CHORUS_TENSOR_PART_QKV,
                  kGate = CHORUS_TENSOR_PART_GATE, kUp = CHORUS_TENSOR_PART_UP, kDown = CHORUS_TENSOR_PART_DOWN,
                  kGateUp = CHORUS_TENSOR_PART_GATE_UP;
constexpr uint32_t kBias = CHORUS_TENSOR_ROLE_BIAS, kFused = CHORUS_TENSOR_ROLE_FUSED_EXPERTS,
                   kShared = CHORUS_TENSOR_ROLE_SHARED_EXPERT, kQuant = CHORUS_TENSOR_ROLE_QUANT;

constexpr Case kCases[] = {
    // Llama, Mistral, Qwen
    {"model.embed_tokens.weight", kEmbedding, kNone, -1, -1, 0},
    {"lm_head.weight", kHead, kNone, -1, -1, 0},
    {"model.norm.weight", kNorm, kNone, -1, -1, 0},
    {"model.layers.31.input_layernorm.weight", kNorm, kNone, 31, -1, 0},
    {"model.layers.0.post_attention_layernorm.weight", kNorm, kNone, 0, -1, 0},
    {"model.layers.7.self_attn.q_proj.weight", kAttention, kQuery, 7, -1, 0},
    {"model.layers.7.self_attn.k_proj.bias", kAttention, kKey, 7, -1, kBias},
    {"model.layers.7.self_attn.v_proj.weight", kAttention, kValue, 7, -1, 0},
    {"model.layers.7.self_attn.o_proj.weight", kAttention, kOutput, 7, -1, 0},
    {"model.layers.7.self_attn.q_norm.weight", kNorm, kNone, 7, -1, 0},
    {"model.layers.7.self_attn.rotary_emb.inv_freq", kPosition, kNone, 7, -1, 0},
    {"model.layers.12.mlp.gate_proj.weight", kMlp, kGate, 12, -1, 0},
    {"model.layers.12.mlp.up_proj.weight", kMlp, kUp, 12, -1, 0},
    {"model.layers.12.mlp.down_proj.weight", kMlp, kDown, 12, -1, 0},
    {"model.language_model.layers.3.mlp.down_proj.weight", kMlp, kDown, 3, -1, 0},
    // Phi
    {"model.layers.2.self_attn.qkv_proj.weight", kAttention, kQkv, 2, -1, 0},
    {"model.layers.2.mlp.gate_up_proj.weight", kMlp, kGateUp, 2, -1, 0},
    {"model.layers.2.mlp.fc1.bias", kMlp, kUp, 2, -1, kBias},
    {"model.layers.2.self_attn.dense.weight", kAttention, kOutput, 2, -1, 0},
    // Mixtral
    {"model.layers.5.block_sparse_moe.gate.weight", kRouter, kNone, 5, -1, 0},
    {"model.layers.5.block_sparse_moe.experts.3.w1.weight", kMlp, kGate, 5, 3, 0},
    {"model.layers.5.block_sparse_moe.experts.3.w2.weight", kMlp, kDown, 5, 3, 0},
    {"model.layers.5.block_sparse_moe.experts.3.w3.weight", kMlp, kUp, 5, 3, 0},
    // Qwen-MoE, DeepSeek, OLMoE
    {"model.layers.5.mlp.gate.weight", kRouter, kNone, 5, -1, 0},
    {"model.layers.5.mlp.gate.e_score_correction_bias", kRouter, kNone, 5, -1, kBias},
    {"model.layers.5.mlp.experts.127.gate_proj.weight", kMlp, kGate, 5, 127, 0},
    {"model.layers.5.mlp.experts.127.down_proj.weight", kMlp, kDown, 5, 127, 0},
    {"model.layers.5.mlp.experts.127.down_proj.weight_scale_inv", kMlp, kDown, 5, 127, kQuant},
    {"model.layers.5.mlp.shared_expert.up_proj.weight", kMlp, kUp, 5, -1, kShared},
    {"model.layers.5.mlp.shared_experts.up_proj.weight", kMlp, kUp, 5, -1, kShared},
    {"model.layers.5.mlp.shared_expert_gate.weight", kRouter, kNone, 5, -1, 0},
    // Fused experts
    {"model.layers.5.mlp.experts.gate_up_proj", kMlp, kGateUp, 5, -1, kFused},
    {"model.layers.5.mlp.experts.down_proj", kMlp, kDown, 5, -1, kFused},
    {"model.layers.5.mlp.experts.gate_up_proj_bias", kMlp, kGateUp, 5, -1, kFused | kBias},
    {"model.layers.5.mlp.experts.down_proj_blocks", kMlp, kDown, 5, -1, kFused},
    {"model.layers.5.mlp.experts.down_proj_scales", kMlp, kDown, 5, -1, kFused | kQuant},
    {"model.layers.5.mlp.router.weight", kRouter, kNone, 5, -1, 0},
    {"model.layers.5.feed_forward.experts.gate_up_proj", kMlp, kGateUp, 5, -1, kFused},
    {"model.layers.5.feed_forward.router.weight", kRouter, kNone, 5, -1, 0},
    // GPT-2, GPT-NeoX, OPT, Bloom, Falcon
    {"transformer.wte.weight", kEmbedding, kNone, -1, -1, 0},
    {"transformer.wpe.weight", kPosition, kNone, -1, -1, 0},
    {"transformer.h.11.attn.c_attn.weight", kAttention, kQkv, 11, -1, 0},
    {"h.11.attn.c_proj.bias", kAttention, kOutput, 11, -1, kBias},
    {"transformer.h.11.mlp.c_fc.weight", kMlp, kUp, 11, -1, 0},
    {"transformer.h.11.mlp.c_proj.weight", kMlp, kDown, 11, -1, 0},
    {"transformer.h.11.ln_1.bias", kNorm, kNone, 11, -1, kBias},
    {"transformer.ln_f.weight", kNorm, kNone, -1, -1, 0},
    {"gpt_neox.layers.4.attention.query_key_value.weight", kAttention, kQkv, 4, -1, 0},
    {"gpt_neox.layers.4.attention.dense.weight", kAttention, kOutput, 4, -1, 0},
    {"gpt_neox.layers.4.mlp.dense_h_to_4h.weight", kMlp, kUp, 4, -1, 0},
    {"gpt_neox.embed_in.weight", kEmbedding, kNone, -1, -1, 0},
    {"embed_out.weight", kHead, kNone, -1, -1, 0},
    {"model.decoder.layers.1.self_attn.out_proj.weight", kAttention, kOutput, 1, -1, 0},
    {"model.decoder.embed_positions.weight", kPosition, kNone, -1, -1, 0},
    {"transformer.word_embeddings.weight", kEmbedding, kNone, -1, -1, 0},
    // BERT, T5
    {"bert.encoder.layer.9.attention.self.query.weight", kAttention, kQuery, 9, -1, 0},
    {"bert.encoder.layer.9.attention.output.dense.weight", kAttention, kOutput, 9, -1, 0},
    {"bert.encoder.layer.9.attention.output.LayerNorm.weight", kNorm, kNone, 9, -1, 0},
    {"bert.encoder.layer.9.intermediate.dense.weight", kMlp, kUp, 9, -1, 0},
    {"bert.encoder.layer.9.output.dense.weight", kMlp, kDown, 9, -1, 0},
    {"encoder.block.2.layer.0.SelfAttention.q.weight", kAttention, kQuery, 2, -1, 0},
    {"encoder.block.2.layer.1.DenseReluDense.wi_0.weight", kMlp, kGate, 2, -1, 0},
    {"encoder.block.2.layer.1.DenseReluDense.wo.weight", kMlp, kDown, 2, -1, 0},
    {"encoder.block.2.layer.0.layer_norm.weight", kNorm, kNone, 2, -1, 0},
    // The original Llama files, and nonsense
    {"layers.0.attention.wq.weight", kAttention, kQuery, 0, -1, 0},
    {"layers.0.attention.wo.weight", kAttention, kOutput, 0, -1, 0},
    {"tok_embeddings.weight", kEmbedding, kNone, -1, -1, 0},
    {"output.weight", kHead, kNone, -1, -1, 0},
    {"", kOther, kNone, -1, -1, 0},
    {"....", kOther, kNone, -1, -1, 0},
    {"w", kOther, kNone, -1, -1, 0},
    {"layers.99999999999.x", kOther, kNone, -1, -1, 0},
    {"layers.-1.x", kOther, kNone, -1, -1, 0},
};

}  // namespace

Test(roles, names_of_published_models_are_recognised) {
  for (const Case &c : kCases) {
    const Role r = role_of(c.name);
    cr_expect(r.kind == c.kind && r.part == c.part && r.layer == c.layer && r.expert == c.expert && r.flags == c.flags,
              "%s: kind %d part %d layer %d expert %d flags %u", c.name, r.kind, r.part, r.layer, r.expert, r.flags);
  }
}
