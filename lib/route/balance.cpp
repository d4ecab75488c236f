// SPDX-License-Identifier: Apache-2.0
// Balanced assignment by successive shortest paths. Tokens come one by one; a token enters where the gain is highest, which may
// push a chain of others on: a token of a full expert moves to the next, until one with room takes the last. Between experts
// the length of an edge is the least loss among the tokens of the first; paths are found by Bellman and Ford (losses may be
// negative, cycles of negative loss cannot be, as every state before was optimal). Exact for the sums as computed.
#include <algorithm>
#include <limits>

#include "route/assign.h"

namespace chorus::route {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

class Balance {
 public:
  Balance(const Matrix &scores, int64_t capacity)
      : scores_(scores), capacity_(capacity), experts_(static_cast<size_t>(scores.columns)),
        expert_of_(static_cast<size_t>(scores.rows), -1), tokens_of_(experts_), loss_(experts_ * experts_, kInfinity),
        mover_(experts_ * experts_, -1) {}

  std::vector<int32_t> run() {
    for (int64_t t = 0; t < scores_.rows; ++t) enter(t);
    return expert_of_;
  }

 private:
  void enter(int64_t t) {
    // Distance: what is lost (minus what is gained) when t enters and expert e has one token more.
    std::vector<double> distance(experts_);
    std::vector<int32_t> before(experts_, -1);
    for (size_t e = 0; e < experts_; ++e) distance[e] = -scores_.row(t)[e];
    bool changed = true;
    for (size_t round = 0; changed && round < experts_; ++round) {
      changed = false;
      for (size_t from = 0; from < experts_; ++from) {
        if (static_cast<int64_t>(tokens_of_[from].size()) < capacity_) continue;  // it has room: nobody need move on
        for (size_t to = 0; to < experts_; ++to) {
          const double through = distance[from] + loss_[from * experts_ + to];
          if (through < distance[to] - kSlack) {
            distance[to] = through;
            before[to] = static_cast<int32_t>(from);
            changed = true;
          }
        }
      }
    }
    size_t end = experts_;
    for (size_t e = 0; e < experts_; ++e) {
      if (static_cast<int64_t>(tokens_of_[e].size()) < capacity_ && (end == experts_ || distance[e] < distance[end])) end = e;
    }
    // Walk back: each expert on the path gives its mover to the next.
    std::vector<size_t> touched = {end};
    size_t steps = 0;
    for (; before[end] >= 0 && steps < experts_; ++steps) {
      const auto from = static_cast<size_t>(before[end]);
      move(mover_[from * experts_ + end], from, end);
      end = from;
      touched.push_back(end);
    }
    tokens_of_[end].push_back(static_cast<int32_t>(t));
    expert_of_[static_cast<size_t>(t)] = static_cast<int32_t>(end);
    for (const size_t e : touched) measure(e);
  }

  void move(int32_t token, size_t from, size_t to) {
    std::erase(tokens_of_[from], token);
    tokens_of_[to].push_back(token);
    expert_of_[static_cast<size_t>(token)] = static_cast<int32_t>(to);
  }

  // The cheapest token of `from` for each other expert.
  void measure(size_t from) {
    for (size_t to = 0; to < experts_; ++to) {
      double least = kInfinity;
      int32_t mover = -1;
      for (const int32_t token : tokens_of_[from]) {
        const double loss = scores_.row(token)[from] - scores_.row(token)[to];
        if (to != from && (loss < least || (loss == least && token < mover))) {
          least = loss;
          mover = token;
        }
      }
      loss_[from * experts_ + to] = least;
      mover_[from * experts_ + to] = mover;
    }
  }

  static constexpr double kSlack = 1e-12;  // rounding must not make a cycle look like a gain
  const Matrix &scores_;
  int64_t capacity_;
  size_t experts_;
  std::vector<int32_t> expert_of_;
  std::vector<std::vector<int32_t>> tokens_of_;
  std::vector<double> loss_;
  std::vector<int32_t> mover_;
};

}  // namespace

std::vector<int32_t> balanced_assignment(const Matrix &scores, int64_t capacity) { return Balance(scores, capacity).run(); }

}  // namespace chorus::route
