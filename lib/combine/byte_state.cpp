// SPDX-License-Identifier: Apache-2.0
// Advancing hypotheses byte by byte; after each byte, weights are scaled so that the heaviest is 1.
#include "combine/byte_state.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "chorus/plugin.hpp"
#include "combine/score_row.h"
#include "runtime/error.h"
#include "runtime/tensor.h"

namespace chorus::combine {

ByteState::ByteState(std::shared_ptr<const ByteTrie> trie, const chorus_byte_state_options &options)
    : trie_(std::move(trie)), max_hypotheses_(static_cast<size_t>(options.max_hypotheses)), min_share_(options.min_share) {
  if (options.max_hypotheses < 0) {
    fail(CHORUS_INVALID_ARGUMENT, "max_hypotheses is {}; at least 1, or 0 for all, is needed", options.max_hypotheses);
  }
  if (!(min_share_ >= 0 && min_share_ < 1)) {
    fail(CHORUS_INVALID_ARGUMENT, "min_share is {}; 0 (none) or more, below 1, is needed", min_share_);
  }
  hypotheses_.push_back({{}, 1, trie_->root(), nullptr, 0});
}

chorus_byte_hypothesis ByteState::at(size_t index) const {
  if (index >= count()) fail(CHORUS_OUT_OF_RANGE, "index is {}; there are {} hypotheses", index, count());
  const Hypothesis &h = hypotheses_[index];
  chorus_byte_hypothesis out = CHORUS_BYTE_HYPOTHESIS_INIT;
  out.tokens = h.tokens.data();
  out.token_count = h.tokens.size();
  out.pending_bytes = h.node.depth;
  out.needs_scores = h.next == nullptr;
  double total = 0;
  bool known = true;
  for (const Hypothesis &other : hypotheses_) {
    known &= other.next != nullptr;
    total += mass_of(other);
  }
  out.log_share = known ? std::log(mass_of(h)) - std::log(total) : std::numeric_limits<double>::quiet_NaN();
  return out;
}

void ByteState::set_scores(size_t index, const chorus_tensor *scores) {
  if (index >= count()) fail(CHORUS_OUT_OF_RANGE, "index is {}; there are {} hypotheses", index, count());
  Hypothesis &h = hypotheses_[index];
  if (h.next != nullptr) fail(CHORUS_FAILED_PRECONDITION, "hypothesis {} has its scores already", index);
  check_tensor(scores, {"scores", {CHORUS_F64, CHORUS_F32, CHORUS_F16, CHORUS_BF16}, {kAnySize}}, trie_->host());
  const auto n = static_cast<int64_t>(trie_->n_ids());
  if (scores->shape[0] < n) {
    fail(CHORUS_INVALID_ARGUMENT, "scores has {} entries; the vocabulary has {} ids", scores->shape[0], n);
  }
  std::vector<double> log_probs(trie_->n_ids());
  const RowState state = normalise_row(scores->data, plugin::dtype_of(*scores), n, log_probs.data(), n);
  if (state == RowState::kNaN || state == RowState::kEmpty) {
    fail(CHORUS_INVALID_ARGUMENT, "scores of hypothesis {} {}", index,
         state == RowState::kNaN ? "hold a NaN" : "are all -inf; a distribution is needed");
  }
  auto next = std::make_shared<std::vector<double>>(trie_->root().end);
  trie_->sort_probabilities(log_probs.data(), next->data(), &h.end);
  h.next = std::move(next);
}

// Probability of the hypothesis and of what its pending bytes can become. One without scores can become anything.
double ByteState::mass_of(const Hypothesis &h) const {
  if (h.next == nullptr) return h.weight;
  ByteMasses masses{};
  trie_->add_masses(h.node, h.next->data(), h.weight, &masses);
  double total = h.node.depth == 0 ? h.weight * h.end : 0;
  for (const double mass : masses) total += mass;
  return total;
}

ByteMasses ByteState::masses() const {
  ByteMasses out{};
  for (size_t i = 0; i < count(); ++i) {
    const Hypothesis &h = hypotheses_[i];
    if (h.next == nullptr) {
      fail(CHORUS_FAILED_PRECONDITION, "hypothesis {} of {} has no scores yet; chorus_byte_state_set_scores() brings them", i,
           count());
    }
    trie_->add_masses(h.node, h.next->data(), h.weight, &out);
    if (h.node.depth == 0) out[CHORUS_BYTE_END] += h.weight * h.end;
  }
  return out;
}

void ByteState::advance(int32_t byte) {
  if (byte < 0 || byte > 255) fail(CHORUS_OUT_OF_RANGE, "byte is {}; 0 to 255 are allowed", byte);
  const ByteMasses shares = next();
  if (!(shares[static_cast<size_t>(byte)] > -std::numeric_limits<double>::infinity())) {
    fail(CHORUS_OUT_OF_RANGE, "byte {:#04x} has probability 0 after this text", byte);
  }
  std::vector<Hypothesis> advanced;
  for (const Hypothesis &h : hypotheses_) {
    TrieNode ending;
    const TrieNode longer = trie_->child(h.node, static_cast<uint8_t>(byte), &ending);
    for (size_t place = ending.begin; place < ending.end; ++place) {
      const double weight = h.weight * (*h.next)[place];
      if (!(weight > 0)) continue;
      advanced.push_back({h.tokens, weight, trie_->root(), nullptr, 0});
      advanced.back().tokens.push_back(trie_->id(place));
    }
    if (longer.begin == longer.end) continue;
    Hypothesis on = h;
    on.node = longer;
    if (mass_of(on) > 0) advanced.push_back(std::move(on));
  }
  prune(&advanced);
  log_prob_ += shares[static_cast<size_t>(byte)];
  hypotheses_ = std::move(advanced);
  double top = 0;
  for (const Hypothesis &h : hypotheses_) top = std::max(top, h.weight);
  for (Hypothesis &h : hypotheses_) h.weight /= top;
}

// Heaviest first, equal ones by their tokens; drops by share, then by number.
void ByteState::prune(std::vector<Hypothesis> *hypotheses) {
  if (max_hypotheses_ == 0 && min_share_ == 0) return;
  std::vector<std::pair<double, size_t>> order;
  double total = 0;
  for (size_t i = 0; i < hypotheses->size(); ++i) {
    order.emplace_back(mass_of((*hypotheses)[i]), i);
    total += order.back().first;
  }
  std::ranges::sort(order, [&](const auto &a, const auto &b) {
    return a.first != b.first ? a.first > b.first : (*hypotheses)[a.second].tokens < (*hypotheses)[b.second].tokens;
  });
  std::vector<Hypothesis> kept;
  double kept_mass = 0;
  for (const auto &[mass, index] : order) {
    const bool full = max_hypotheses_ > 0 && kept.size() == max_hypotheses_;
    if (!kept.empty() && (full || mass < min_share_ * total)) break;
    kept_mass += mass;
    kept.push_back(std::move((*hypotheses)[index]));
  }
  if (kept.size() < hypotheses->size()) kept_share_ *= kept_mass / total;
  *hypotheses = std::move(kept);
}

}  // namespace chorus::combine
