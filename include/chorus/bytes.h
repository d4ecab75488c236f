/* SPDX-License-Identifier: Apache-2.0
 *
 * Next-byte distributions from next-token distributions: what models whose tokens end at different places have in common.
 *
 *   P(next byte = b | bytes x) = sum over token sequences t that cover x b of P(t) / the same over covers of x
 *
 * where t covers x when the bytes of t begin with x and those of t without its last token do not yet reach beyond x. A byte state holds
 * these sequences ("hypotheses"): some tokens, then a part of the next one. The caller runs the model: for each hypothesis
 * that needs it, the scores of its next token. Byte distributions of several models, each from its own state, mix like any
 * others: rows of 257 log-probs for a combiner. Method: Phan et al. 2024 (arXiv 2410.09303), Vieira et al. 2024; here without
 * the assumption that text is split canonically.
 */
#ifndef CHORUS_BYTES_H_
#define CHORUS_BYTES_H_

#include "context.h"
#include "vocabulary.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Outcomes of a next-byte distribution: bytes 0 to 255, and the end of the text. */
#define CHORUS_BYTE_OUTCOMES 257
#define CHORUS_BYTE_END 256

/** The tokens of a vocabulary in the order of their bytes. Immutable; any thread. */
typedef struct chorus_byte_trie chorus_byte_trie;

/** From the tokens of `vocabulary`. Special tokens, absent ids and empty tokens stand for no bytes and are left out: their
 * probability counts nowhere. Those listed in `end_ids` are the end of the text.
 * @return CHORUS_OK; CHORUS_OUT_OF_RANGE: an end id that is no token; CHORUS_INVALID_ARGUMENT: no token has bytes. @since 0.1 */
CHORUS_API chorus_status chorus_byte_trie_create(const chorus_context *context, const chorus_vocabulary *vocabulary,
                                                 const int32_t *end_ids, size_t end_count, chorus_byte_trie **out_trie,
                                                 chorus_error **error);

/** The same from any tokenizer: token i is bytes[offsets[i]] to bytes[offsets[i + 1] - 1]; copied.
 * @param offsets  [n_tokens + 1], from 0, not decreasing; an empty token is left out. @since 0.1 */
CHORUS_API chorus_status chorus_byte_trie_create_from_tokens(const chorus_context *context, const uint8_t *bytes,
                                                             const uint64_t *offsets, size_t n_tokens, const int32_t *end_ids,
                                                             size_t end_count, chorus_byte_trie **out_trie,
                                                             chorus_error **error);
CHORUS_API void chorus_byte_trie_destroy(chorus_byte_trie *trie);

/** First bytes: of each row of next-token scores, the distribution of the token's first byte.
 * @param scores     f64, f32, f16 or bf16 [rows, n >= number of ids]: logits or log-probs.
 * @param log_probs  f64 or f32 [rows, 257], normalised over bytes and end; NaN where a row has a NaN, -inf where it has no
 *                   support.
 * @return CHORUS_OK; CHORUS_INVALID_ARGUMENT: names the tensor. Cost: one exponential per token. @since 0.1 */
CHORUS_API chorus_status chorus_byte_trie_first_bytes(const chorus_byte_trie *trie, const chorus_tensor *scores,
                                                      const chorus_tensor *log_probs, chorus_error **error);

/** The hypotheses of one sequence. Not const: the caller serialises. Keeps its trie alive. */
typedef struct chorus_byte_state chorus_byte_state;

typedef struct chorus_byte_state_options {
  size_t struct_size;     /**< CHORUS_BYTE_STATE_OPTIONS_INIT sets it. */
  int64_t max_hypotheses; /**< The most probable ones are kept; 0: all, which is exact and grows with the ways to split the text. */
  double min_share;       /**< Hypotheses with less of the probability are dropped; 0: none. */
} chorus_byte_state_options;

/** At the start of a text, or behind tokens the caller's model has already read: one hypothesis, of no tokens. `options` NULL: exact.
 * @return CHORUS_OK; CHORUS_INVALID_ARGUMENT: names the option. @since 0.1 */
CHORUS_API chorus_status chorus_byte_state_create(const chorus_byte_trie *trie, const chorus_byte_state_options *options,
                                                  chorus_byte_state **out_state, chorus_error **error);
CHORUS_API void chorus_byte_state_destroy(chorus_byte_state *state);

CHORUS_API size_t chorus_byte_state_get_hypothesis_count(const chorus_byte_state *state);

/** A hypothesis; pointers live until the state advances. */
typedef struct chorus_byte_hypothesis {
  size_t struct_size;     /**< CHORUS_BYTE_HYPOTHESIS_INIT sets it. */
  const int32_t *tokens;  /**< Since the state's creation. */
  size_t token_count;
  size_t pending_bytes;   /**< Bytes of the text behind these tokens: the beginning of the next one. */
  double log_share;       /**< Log of its part of the probability of the text so far; NaN before its scores are set. */
  int32_t needs_scores;   /**< 1: chorus_byte_state_set_scores() is needed before the next byte can be told. */
  int32_t reserved;
} chorus_byte_hypothesis;

/** @return CHORUS_OK; CHORUS_OUT_OF_RANGE; CHORUS_INVALID_ARGUMENT. `out_hypothesis->struct_size` must be set. @since 0.1 */
CHORUS_API chorus_status chorus_byte_state_get_hypothesis(const chorus_byte_state *state, size_t index,
                                                          chorus_byte_hypothesis *out_hypothesis, chorus_error **error);

/** The model's next-token scores behind the tokens of hypothesis `index`.
 * @param scores  f64, f32, f16 or bf16 [n >= number of ids]: logits or log-probs; later entries are not read.
 * @return CHORUS_OK; CHORUS_OUT_OF_RANGE; CHORUS_FAILED_PRECONDITION: it has them; CHORUS_INVALID_ARGUMENT: the tensor; a NaN, or
 *         no support. Keeps 8 bytes per token. @since 0.1 */
CHORUS_API chorus_status chorus_byte_state_set_scores(chorus_byte_state *state, size_t index, const chorus_tensor *scores,
                                                      chorus_error **error);

/** Log-probs of the next byte and of the end, f64 or f32 [257], to `log_probs`.
 * @return CHORUS_OK; CHORUS_FAILED_PRECONDITION: a hypothesis has no scores yet, which one; CHORUS_INVALID_ARGUMENT. @since 0.1 */
CHORUS_API chorus_status chorus_byte_state_next(const chorus_byte_state *state, const chorus_tensor *log_probs,
                                                chorus_error **error);

/** The text goes on with `byte` (0 to 255). Hypotheses whose next token ends here come in a second version behind it, which needs scores.
 * @return CHORUS_OK; CHORUS_OUT_OF_RANGE: the byte has probability 0 here, or is none; the state stays;
 *         CHORUS_FAILED_PRECONDITION: as chorus_byte_state_next(). @since 0.1 */
CHORUS_API chorus_status chorus_byte_state_advance(chorus_byte_state *state, int32_t byte, chorus_error **error);

/** Log-prob of the bytes so far, nats: the sum of those of each byte. NaN for NULL. @since 0.1 */
CHORUS_API double chorus_byte_state_get_log_prob(const chorus_byte_state *state);

/** What part of the probability pruning has left: 1 is exact. Bytes' probabilities are wrong by at most a factor of it. NaN for
 * NULL. @since 0.1 */
CHORUS_API double chorus_byte_state_get_kept_share(const chorus_byte_state *state);

/* generated by tests/abi/layout.py: begin */
#define CHORUS_BYTE_STATE_OPTIONS_INIT {CHORUS_END_OF(chorus_byte_state_options, min_share), 0, 0}
#define CHORUS_BYTE_HYPOTHESIS_INIT {CHORUS_END_OF(chorus_byte_hypothesis, reserved), NULL, 0, 0, 0, 0, 0}
/* generated by tests/abi/layout.py: end */

#ifdef __cplusplus
} /* extern "C" */
#endif
#endif /* CHORUS_BYTES_H_ */
