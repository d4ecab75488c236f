// SPDX-License-Identifier: Apache-2.0
// bytes.h: calls into combine/byte_trie and combine/byte_state.
#include "chorus/bytes.h"

#include <algorithm>
#include <limits>

#include "abi/boundary.h"
#include "abi/info.h"
#include "abi/structs.h"
#include "abi/vocabulary.h"
#include "chorus/plugin.hpp"
#include "combine/byte_state.h"
#include "combine/parallel.h"
#include "combine/score_row.h"
#include "runtime/tensor.h"

using chorus::fail;
using chorus::abi::guarded;
using chorus::abi::require;

namespace cb = chorus::combine;

struct chorus_byte_trie {
  std::shared_ptr<const cb::ByteTrie> trie;
};

struct chorus_byte_state {
  cb::ByteState state;
};

namespace {

const int32_t *require_ids(const int32_t *end_ids, size_t end_count) {
  return end_count > 0 ? require(end_ids, "end_ids") : end_ids;
}

void check_offsets(const uint64_t *offsets, size_t n_tokens) {
  if (n_tokens > static_cast<size_t>(std::numeric_limits<int32_t>::max())) {
    fail(CHORUS_INVALID_ARGUMENT, "n_tokens is {}; at most 2^31 - 1 are allowed", n_tokens);
  }
  if (offsets[0] != 0) fail(CHORUS_INVALID_ARGUMENT, "offsets[0] is {}; it must be 0", offsets[0]);
  for (size_t i = 0; i < n_tokens; ++i) {
    if (offsets[i + 1] < offsets[i]) {
      fail(CHORUS_INVALID_ARGUMENT, "offsets[{}] is {}, below the one before it ({})", i + 1, offsets[i + 1], offsets[i]);
    }
  }
}

void first_bytes(const cb::ByteTrie &trie, const chorus_tensor &scores, const chorus_tensor &out, int64_t row,
                 std::vector<double> *log_probs, std::vector<double> *sorted) {
  const auto n = static_cast<int64_t>(trie.n_ids());
  cb::ByteMasses shares;
  const cb::RowState state = cb::normalise_row(chorus::plugin::row_of(scores, row), chorus::plugin::dtype_of(scores), n,
                                               log_probs->data(), n);
  if (state == cb::RowState::kNaN) {
    shares.fill(std::numeric_limits<double>::quiet_NaN());
  } else {
    cb::ByteMasses masses{};
    trie.sort_probabilities(log_probs->data(), sorted->data(), &masses[CHORUS_BYTE_END]);
    trie.add_masses(trie.root(), sorted->data(), 1, &masses);
    shares = cb::log_shares(masses);
  }
  for (int64_t b = 0; b < CHORUS_BYTE_OUTCOMES; ++b) {
    chorus::plugin::store_f64(chorus::plugin::dtype_of(out), chorus::plugin::row_of(out, row), b, shares[static_cast<size_t>(b)]);
  }
}

}  // namespace

extern "C" {

chorus_status chorus_byte_trie_create(const chorus_context *context, const chorus_vocabulary *vocabulary,
                                      const int32_t *end_ids, size_t end_count, chorus_byte_trie **out_trie,
                                      chorus_error **error) {
  return guarded(error, [&] {
    chorus::abi::require_output(out_trie, "out_trie");
    const auto &v = require(vocabulary, "vocabulary")->vocabulary;
    const auto bytes_of = [&](size_t id) {
      return v.is_special(id) || v.is_absent(id) ? std::string_view() : v.bytes(id);
    };
    *out_trie = new chorus_byte_trie{std::make_shared<const cb::ByteTrie>(
        chorus::context_of(context), v.size(), bytes_of, require_ids(end_ids, end_count), end_count)};
  });
}

chorus_status chorus_byte_trie_create_from_tokens(const chorus_context *context, const uint8_t *bytes,
                                                  const uint64_t *offsets, size_t n_tokens, const int32_t *end_ids,
                                                  size_t end_count, chorus_byte_trie **out_trie, chorus_error **error) {
  return guarded(error, [&] {
    chorus::abi::require_output(out_trie, "out_trie");
    check_offsets(require(offsets, "offsets"), n_tokens);
    if (offsets[n_tokens] > 0) require(bytes, "bytes");
    const auto bytes_of = [&](size_t id) {
      return std::string_view(reinterpret_cast<const char *>(bytes) + offsets[id], offsets[id + 1] - offsets[id]);
    };
    *out_trie = new chorus_byte_trie{std::make_shared<const cb::ByteTrie>(
        chorus::context_of(context), n_tokens, bytes_of, require_ids(end_ids, end_count), end_count)};
  });
}

void chorus_byte_trie_destroy(chorus_byte_trie *trie) { delete trie; }

chorus_status chorus_byte_trie_first_bytes(const chorus_byte_trie *trie, const chorus_tensor *scores,
                                           const chorus_tensor *log_probs, chorus_error **error) {
  return guarded(error, [&] {
    const cb::ByteTrie &t = *require(trie, "trie")->trie;
    chorus::check_tensor(scores, {"scores", {CHORUS_F64, CHORUS_F32, CHORUS_F16, CHORUS_BF16}, {chorus::kAnySize, chorus::kAnySize}},
                         t.host());
    const int64_t rows = scores->shape[0];
    if (scores->shape[1] < static_cast<int64_t>(t.n_ids())) {
      fail(CHORUS_INVALID_ARGUMENT, "scores has rows of {}; the vocabulary has {} ids", scores->shape[1], t.n_ids());
    }
    chorus::check_tensor(log_probs, {"log_probs", {CHORUS_F64, CHORUS_F32}, {rows, CHORUS_BYTE_OUTCOMES}, true}, t.host());
    chorus::check_no_overlap(*log_probs, "log_probs", *scores, "scores");
    cb::parallel_runs(t.context().pool(), rows, [&](int64_t first, int64_t end) {
      std::vector<double> row_log_probs(t.n_ids()), sorted(t.root().end);
      for (int64_t row = first; row < end; ++row) first_bytes(t, *scores, *log_probs, row, &row_log_probs, &sorted);
    });
  });
}

chorus_status chorus_byte_state_create(const chorus_byte_trie *trie, const chorus_byte_state_options *options,
                                       chorus_byte_state **out_state, chorus_error **error) {
  return guarded(error, [&] {
    chorus::abi::require_output(out_state, "out_state");
    require(trie, "trie");
    chorus_byte_state_options read = CHORUS_BYTE_STATE_OPTIONS_INIT;
    if (options != nullptr) {
      read = chorus::abi::read_struct(options, "options", CHORUS_END_OF(chorus_byte_state_options, min_share));
    }
    *out_state = new chorus_byte_state{{trie->trie, read}};
  });
}

void chorus_byte_state_destroy(chorus_byte_state *state) { delete state; }

size_t chorus_byte_state_get_hypothesis_count(const chorus_byte_state *state) {
  return state != nullptr ? state->state.count() : 0;
}

chorus_status chorus_byte_state_get_hypothesis(const chorus_byte_state *state, size_t index,
                                               chorus_byte_hypothesis *out_hypothesis, chorus_error **error) {
  return guarded(error, [&] { chorus::abi::fill_info(out_hypothesis, require(state, "state")->state.at(index)); });
}

chorus_status chorus_byte_state_set_scores(chorus_byte_state *state, size_t index, const chorus_tensor *scores,
                                           chorus_error **error) {
  return guarded(error, [&] { require(state, "state")->state.set_scores(index, scores); });
}

chorus_status chorus_byte_state_next(const chorus_byte_state *state, const chorus_tensor *log_probs, chorus_error **error) {
  return guarded(error, [&] {
    const cb::ByteState &s = require(state, "state")->state;
    chorus::check_tensor(log_probs, {"log_probs", {CHORUS_F64, CHORUS_F32}, {CHORUS_BYTE_OUTCOMES}, true}, s.trie().host());
    const cb::ByteMasses shares = s.next();
    for (int64_t b = 0; b < CHORUS_BYTE_OUTCOMES; ++b) {
      chorus::plugin::store_f64(chorus::plugin::dtype_of(*log_probs), log_probs->data, b, shares[static_cast<size_t>(b)]);
    }
  });
}

chorus_status chorus_byte_state_advance(chorus_byte_state *state, int32_t byte, chorus_error **error) {
  return guarded(error, [&] { require(state, "state")->state.advance(byte); });
}

double chorus_byte_state_get_log_prob(const chorus_byte_state *state) {
  return state != nullptr ? state->state.log_prob() : std::numeric_limits<double>::quiet_NaN();
}

double chorus_byte_state_get_kept_share(const chorus_byte_state *state) {
  return state != nullptr ? state->state.kept_share() : std::numeric_limits<double>::quiet_NaN();
}

}  // extern "C"
