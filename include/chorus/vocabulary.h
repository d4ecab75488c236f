/* SPDX-License-Identifier: Apache-2.0
 *
 * Vocabularies: the tokens of a tokenizer.json as bytes, their fingerprint, text to ids and back, and maps between the
 * ids of two vocabularies. Tokenizer files are untrusted.
 */
#ifndef CHORUS_VOCABULARY_H_
#define CHORUS_VOCABULARY_H_

#include "context.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Tokens, merges and rules of a tokenizer. Immutable; any thread. */
typedef struct chorus_vocabulary chorus_vocabulary;

#define CHORUS_TOKEN_ABSENT 1u  /**< No token has this id; its length is 0. */
#define CHORUS_TOKEN_ADDED 2u   /**< Recognised in text before the model splits it. */
#define CHORUS_TOKEN_SPECIAL 4u /**< Marks structure, not text (<s>, <|endoftext|>). */
#define CHORUS_TOKEN_BYTE 8u    /**< A single byte of byte fallback (<0x0A>). */

/** A token. Pointers live as long as the vocabulary. */
typedef struct chorus_token_info {
  size_t struct_size;
  const char *bytes; /**< The bytes of text it stands for; ends with 0, may contain 0. A special token: its name. */
  uint64_t length;   /**< Number of bytes. */
  const char *text;  /**< As spelled in tokenizer.json ("Ġthe", "▁the", "<0x0A>"). */
  uint32_t flags;    /**< CHORUS_TOKEN_* bits. */
  uint32_t reserved;
} chorus_token_info;

/** Open `path`: a tokenizer.json, or a folder or "org/name@revision" (see chorus_checkpoint_open()) that holds one.
 *
 * Taken: models of type BPE, byte-level (GPT-2, Llama 3, Qwen) or SentencePiece-style (Llama 2, Mistral), with or without
 * byte fallback. What the file asks for beyond the rules known here (another model type, an unknown split pattern) still
 * opens when the bytes of its tokens can be told; encoding then fails with CHORUS_UNIMPLEMENTED, naming it.
 * @return CHORUS_OK; CHORUS_NOT_FOUND; CHORUS_DATA_LOSS: malformed, with file and byte; CHORUS_UNIMPLEMENTED: a model type
 *         other than BPE; CHORUS_INVALID_ARGUMENT; CHORUS_RESOURCE_EXHAUSTED. @since 0.1 */
CHORUS_API chorus_status chorus_vocabulary_open(const chorus_context *context, const char *path,
                                                chorus_vocabulary **out_vocabulary, chorus_error **error);
CHORUS_API void chorus_vocabulary_destroy(chorus_vocabulary *vocabulary);

/** The highest id plus one. @since 0.1 */
CHORUS_API size_t chorus_vocabulary_get_size(const chorus_vocabulary *vocabulary);
/** Token `id`. `out_info->struct_size` must be set.
 * @return CHORUS_OK, also for an id that no token has (CHORUS_TOKEN_ABSENT); CHORUS_OUT_OF_RANGE. @since 0.1 */
CHORUS_API chorus_status chorus_vocabulary_get_token(const chorus_vocabulary *vocabulary, size_t id,
                                                     chorus_token_info *out_info, chorus_error **error);
/** The lowest id whose bytes are `bytes`, ordinary tokens before special ones, or -1. @since 0.1 */
CHORUS_API int32_t chorus_vocabulary_find(const chorus_vocabulary *vocabulary, const void *bytes, size_t length);

/** Fingerprint of the ids and their bytes, as two words (low, high): XXH3-128, seed 0, over for each id from 0 on: flags
 * (u32: ABSENT and SPECIAL bits alone), length (u32), the bytes; little endian. Equal fingerprints: the same id means the
 * same token in both. It does not cover merges. @since 0.1 */
CHORUS_API chorus_status chorus_vocabulary_get_fingerprint(const chorus_vocabulary *vocabulary, uint64_t out_words[2],
                                                           chorus_error **error);

/** That the ids of both mean the same tokens, so that their models may be mixed without a map.
 * @return CHORUS_OK; CHORUS_FAILED_PRECONDITION: names the first id that differs, and what it stands for in each;
 *         CHORUS_INVALID_ARGUMENT. @since 0.1 */
CHORUS_API chorus_status chorus_vocabulary_check_equal(const chorus_vocabulary *vocabulary, const chorus_vocabulary *other,
                                                       chorus_error **error);

#define CHORUS_ENCODE_ADD_SPECIAL 1u   /**< Add what the tokenizer adds around a text (<s> … ). */
#define CHORUS_ENCODE_PLAIN_SPECIAL 2u /**< Treat the names of special tokens inside `text` as plain text. */

/** Ids of `text` (UTF-8, `length` bytes), as the Python library `tokenizers` gives them.
 *
 * `out_count` receives how many ids there are, also when `ids` is NULL (to ask) or too small. Takes O(n log n) time
 * and O(n) memory for any text.
 * @param flags  CHORUS_ENCODE_* bits.
 * @param ids    Room for `capacity` ids; may be NULL when `capacity` is 0.
 * @return CHORUS_OK; CHORUS_INVALID_ARGUMENT: not UTF-8, stating the byte; unknown flags; CHORUS_UNIMPLEMENTED: a rule
 *         of this tokenizer, naming it; CHORUS_RESOURCE_EXHAUSTED: `capacity` is too small and not 0, stating the count;
 *         nothing is written. @since 0.1 */
CHORUS_API chorus_status chorus_vocabulary_encode(const chorus_vocabulary *vocabulary, const char *text, size_t length,
                                                  uint32_t flags, int32_t *ids, size_t capacity, size_t *out_count,
                                                  chorus_error **error);

#define CHORUS_DECODE_SKIP_SPECIAL 1u /**< Leave out special tokens. */

/** Bytes of `ids`, joined as the tokenizer joins them (a leading space that encoding added is taken away).
 *
 * Bytes, not text: a sequence that ends within a character gives its first bytes. `out_length` receives their number,
 * also when `text` is NULL (to ask) or too small. No 0 is appended.
 * @return CHORUS_OK; CHORUS_OUT_OF_RANGE: an id that no token has, stating its position; CHORUS_INVALID_ARGUMENT: flags;
 *         CHORUS_UNIMPLEMENTED: a decoder of this tokenizer, naming it; CHORUS_RESOURCE_EXHAUSTED: `capacity` is too
 *         small and not 0; nothing is written. @since 0.1 */
CHORUS_API chorus_status chorus_vocabulary_decode(const chorus_vocabulary *vocabulary, const int32_t *ids, size_t count,
                                                  uint32_t flags, char *text, size_t capacity, size_t *out_length,
                                                  chorus_error **error);

/* ---- Maps --------------------------------------------------------------------------------- */

/** The tokens of one vocabulary in another: CSR from each token of `to` to the tokens of `from` that have the same bytes
 * (and are special, or not, alike). Immutable; any thread. */
typedef struct chorus_vocabulary_map chorus_vocabulary_map;

/** Map the ids of `from` (a model's) onto those of `to` (the output's). Each token of `from` lies under at most one token
 * of `to`, so mass is kept. Where several tokens of `to` have the same bytes, the first of `from` goes to the first, and
 * so on: a vocabulary maps onto itself as the identity. Needs neither vocabulary later.
 * @return CHORUS_OK; CHORUS_RESOURCE_EXHAUSTED. @since 0.1 */
CHORUS_API chorus_status chorus_vocabulary_map_create(const chorus_vocabulary *from, const chorus_vocabulary *to,
                                                      chorus_vocabulary_map **out_map, chorus_error **error);
/** Which tokens a common vocabulary has. */
typedef int32_t chorus_vocabulary_common;
#define CHORUS_VOCABULARY_UNION 0        /**< Those of any. */
#define CHORUS_VOCABULARY_INTERSECTION 1 /**< Those of all. */

/** Maps of `count` vocabularies onto the one they have in common, to `out_maps` [count]. Its ids are given in the order of the first
 * vocabulary's ids, then those that only later ones have, in theirs; tokens are the same when their bytes and being special
 * are; of several such in one vocabulary the k-th is the same as the k-th of another. The bytes of a common id: those of any
 * vocabulary's token that its map lists under it.
 * @return CHORUS_OK; CHORUS_INVALID_ARGUMENT; CHORUS_RESOURCE_EXHAUSTED: more than 2^31 - 1 tokens. @since 0.1 */
CHORUS_API chorus_status chorus_vocabulary_map_create_common(const chorus_vocabulary *const *vocabularies, size_t count,
                                                             chorus_vocabulary_common common,
                                                             chorus_vocabulary_map **out_maps, chorus_error **error);
CHORUS_API void chorus_vocabulary_map_destroy(chorus_vocabulary_map *map);

/** The arrays of a map, lent as long as it lives. */
typedef struct chorus_vocabulary_map_info {
  size_t struct_size;
  size_t from_size;         /**< Ids of `from`. */
  size_t to_size;           /**< Ids of `to`: rows of the CSR. */
  size_t entry_count;       /**< Tokens of `from` that have a place in `to`. */
  const int64_t *offsets;   /**< [to_size + 1] */
  const int32_t *ids;       /**< [entry_count] ids of `from`, ascending within a row. */
  const int32_t *to_of_from; /**< [from_size] the id in `to`, or -1. */
} chorus_vocabulary_map_info;

/** @return CHORUS_OK; CHORUS_INVALID_ARGUMENT. `out_info->struct_size` must be set. @since 0.1 */
CHORUS_API chorus_status chorus_vocabulary_map_get(const chorus_vocabulary_map *map, chorus_vocabulary_map_info *out_info,
                                                   chorus_error **error);

/* generated by tests/abi/layout.py: begin */
#define CHORUS_TOKEN_INFO_INIT {CHORUS_END_OF(chorus_token_info, reserved), NULL, 0, NULL, 0, 0}
#define CHORUS_VOCABULARY_MAP_INFO_INIT {CHORUS_END_OF(chorus_vocabulary_map_info, to_of_from), 0, 0, 0, NULL, NULL, NULL}
/* generated by tests/abi/layout.py: end */

#ifdef __cplusplus
} /* extern "C" */
#endif
#endif /* CHORUS_VOCABULARY_H_ */
