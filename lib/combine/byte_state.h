// SPDX-License-Identifier: Apache-2.0
// The token sequences that cover a text so far, with their probabilities.
#pragma once
#include <memory>
#include <vector>

#include "combine/byte_trie.h"

namespace chorus::combine {

class ByteState {
 public:
  ByteState(std::shared_ptr<const ByteTrie> trie, const chorus_byte_state_options &options);

  size_t count() const { return hypotheses_.size(); }
  chorus_byte_hypothesis at(size_t index) const;
  void set_scores(size_t index, const chorus_tensor *scores);
  // Normalised log-probs of the next byte and the end.
  ByteMasses next() const { return log_shares(masses()); }
  void advance(int32_t byte);
  double log_prob() const { return log_prob_; }
  double kept_share() const { return kept_share_; }
  const ByteTrie &trie() const { return *trie_; }

 private:
  struct Hypothesis {
    std::vector<int32_t> tokens;
    double weight;                               // probability of `tokens`, over the largest of all hypotheses
    TrieNode node;                               // what the bytes behind them can still become
    std::shared_ptr<std::vector<double>> next;   // of the next token, in sorted order; empty: not known
    double end = 0;                              // probability of the end as next token
  };
  ByteMasses masses() const;
  double mass_of(const Hypothesis &hypothesis) const;
  void prune(std::vector<Hypothesis> *hypotheses);

  std::shared_ptr<const ByteTrie> trie_;
  size_t max_hypotheses_;
  double min_share_;
  std::vector<Hypothesis> hypotheses_;
  double log_prob_ = 0, kept_share_ = 1;
};

}  // namespace chorus::combine
