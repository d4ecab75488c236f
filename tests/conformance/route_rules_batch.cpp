// SPDX-License-Identifier: Apache-2.0
// docs/numerics.md, "Routing", what the tokens of a call decide together: capacity, experts that choose, lists.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "conformance/route_rules.h"

namespace conformance {
namespace {

struct Slot {
  size_t t, j;
  int32_t id;
  float weight;
};

uint64_t integer(int64_t i) { return static_cast<uint64_t>(static_cast<uint32_t>(i)); }

// The limit for the tokens that are no padding; a large number without one.
int64_t limit(const RouteProblem &p) {
  return p.capacity > 0 || p.capacity_factor > 0 ? route_capacity(p, p.valid()) : INT64_MAX;
}

// Slots in the order in which they are served.
std::vector<Slot> served(const RouteProblem &p, const std::vector<RoutedToken> &tokens) {
  std::vector<Slot> slots;
  for (size_t t = 0; t < tokens.size(); ++t) {
    for (size_t j = 0; j < tokens[t].ids.size(); ++j) slots.push_back({t, j, tokens[t].ids[j], tokens[t].weights[j]});
  }
  const auto by = [&](auto key) {
    std::stable_sort(slots.begin(), slots.end(), [&](const Slot &a, const Slot &b) { return key(a) < key(b); });
  };
  switch (p.drop) {
    case CHORUS_ROUTE_DROP_BY_SCORE:
      by([](const Slot &s) { return -s.weight; });
      break;
    case CHORUS_ROUTE_DROP_BY_CHOICE:
      by([](const Slot &s) { return s.j; });
      break;
    case CHORUS_ROUTE_DROP_BY_PRIORITY:
      by([&](const Slot &s) { return -tokens[s.t].priority; });
      by([](const Slot &s) { return s.j; });
      break;
    case CHORUS_ROUTE_DROP_AT_RANDOM:
      by([&](const Slot &s) {
        return -static_cast<int64_t>(random_word(p, static_cast<int64_t>(s.t), 2, static_cast<int64_t>(s.j)));
      });
      break;
    default:
      break;
  }
  return slots;
}

void drop(const RouteProblem &p, std::vector<RoutedToken> &tokens) {
  std::vector<int64_t> taken(static_cast<size_t>(p.n_experts), 0);
  for (const Slot &s : served(p, tokens)) {
    if (s.id < 0 || ++taken[static_cast<size_t>(s.id)] <= limit(p)) continue;
    tokens[s.t].ids[s.j] = -1;
    tokens[s.t].weights[s.j] = 0;
  }
}

using Lists = std::vector<std::vector<std::pair<int64_t, float>>>;  // per expert: token and weight

// Each expert takes its best tokens; a token keeps its k best experts.
Lists experts_choose(const RouteProblem &p, std::vector<RoutedToken> &tokens) {
  Lists lists(static_cast<size_t>(p.n_experts));
  std::vector<std::vector<int32_t>> chosen(tokens.size());
  const auto weight = [&](size_t t, size_t e) {
    return std::isnan(tokens[t].x[e]) || std::isnan(tokens[t].scores[e]) ? 0 : tokens[t].scores[e];
  };
  for (size_t e = 0; e < lists.size(); ++e) {
    Floats column;
    for (const RoutedToken &token : tokens) column.push_back(token.keys[e]);
    std::vector<int32_t> best = ranked(column, range(0, static_cast<int32_t>(tokens.size())));
    if (static_cast<int64_t>(best.size()) > limit(p)) best.resize(static_cast<size_t>(limit(p)));
    for (int32_t t : best) {
      lists[e].emplace_back(t, weight(static_cast<size_t>(t), e));
      chosen[static_cast<size_t>(t)].push_back(static_cast<int32_t>(e));
    }
  }
  for (size_t t = 0; t < tokens.size(); ++t) {
    tokens[t].ids = ranked(tokens[t].keys, chosen[t]);
    tokens[t].ids.resize(static_cast<size_t>(p.k), -1);
    for (int32_t id : tokens[t].ids) tokens[t].weights.push_back(id < 0 ? 0 : weight(t, static_cast<size_t>(id)));
  }
  return lists;
}

Lists lists_of(const RouteProblem &p, const std::vector<RoutedToken> &tokens) {
  Lists lists(static_cast<size_t>(p.n_experts));
  for (size_t t = 0; t < tokens.size(); ++t) {
    for (size_t j = 0; j < tokens[t].ids.size(); ++j) {
      if (tokens[t].ids[j] < 0) continue;
      lists[static_cast<size_t>(tokens[t].ids[j])].emplace_back(static_cast<int64_t>(t), tokens[t].weights[j]);
    }
  }
  for (auto &list : lists) {
    std::stable_sort(list.begin(), list.end(), [](const auto &a, const auto &b) { return a.second > b.second; });
  }
  return lists;
}

void write_expert_lists(const RouteProblem &p, const Lists &lists, RouteResult &r) {
  const auto columns = static_cast<size_t>(route_capacity(p, p.tokens));
  for (const auto &list : lists) {
    for (size_t c = 0; c < columns; ++c) {
      r.expert_tokens.push_back(integer(c < list.size() ? list[c].first : -1));
      r.expert_weights.push_back(encode(CHORUS_F32, c < list.size() ? list[c].second * static_cast<float>(p.scale) : 0));
    }
  }
}

void write_order(const RouteProblem &p, const std::vector<int64_t> &slots, RouteResult &r) {
  std::vector<uint64_t> order, inverse(slots.size(), integer(-1));
  r.offsets.push_back(0);
  for (int32_t e = 0; e < p.n_experts; ++e) {
    for (size_t s = 0; s < slots.size(); ++s) {
      if (slots[s] != e) continue;
      inverse[s] = order.size();
      order.push_back(s);
    }
    r.counts.push_back(order.size() - r.offsets.back());
    r.offsets.push_back(order.size());
  }
  order.resize(slots.size(), integer(-1));
  r.order = order;
  r.inverse = inverse;
}

void write_blocks(const RouteProblem &p, const std::vector<int64_t> &slots, RouteResult &r) {
  const auto block = static_cast<size_t>(p.block);
  for (int32_t e = 0; e < p.n_experts; ++e) {
    for (size_t s = 0; s < slots.size(); ++s) {
      if (slots[s] == e) r.padded_order.push_back(s);
    }
    while (r.padded_order.size() % block != 0) r.padded_order.push_back(integer(-1));
    while (r.block_experts.size() < r.padded_order.size() / block) r.block_experts.push_back(integer(e));
  }
  r.n_blocks.push_back(r.block_experts.size());
  const size_t most = slots.size() + static_cast<size_t>(p.n_experts) * (block - 1);
  r.padded_order.resize(most, integer(-1));
  r.block_experts.resize((most + block - 1) / block, integer(-1));
}

void write_bitmap(const RouteProblem &p, const std::vector<RoutedToken> &tokens, RouteResult &r) {
  const size_t bytes = (static_cast<size_t>(p.n_experts) + 7) / 8;
  r.bitmap.assign(bytes * static_cast<size_t>(p.tokens), 0);
  for (size_t t = 0; t < tokens.size(); ++t) {
    for (int32_t id : tokens[t].ids) {
      if (id >= 0) r.bitmap[t * bytes + static_cast<size_t>(id) / 8] |= uint64_t{1} << id % 8;
    }
  }
}

void write_score_sums(const RouteProblem &p, const std::vector<RoutedToken> &tokens, RouteResult &r) {
  for (size_t e = 0; e < static_cast<size_t>(p.n_experts); ++e) {
    std::vector<double> column;
    for (const RoutedToken &token : tokens) column.push_back(std::isnan(token.scores[e]) ? 0 : static_cast<double>(token.scores[e]));
    r.score_sums.push_back(encode(CHORUS_F64, sum_by_rules(column)));
  }
}

}  // namespace

int64_t route_capacity(const RouteProblem &p, int64_t tokens) {
  if (p.capacity > 0) return p.capacity;
  if (p.capacity_factor == 0) return tokens;
  const double share = p.capacity_factor * static_cast<double>(tokens * p.k) / p.n_experts;
  int64_t slots = std::max<int64_t>({static_cast<int64_t>(std::ceil(share)), p.capacity_minimum, 1});
  while (p.capacity_multiple > 0 && slots % p.capacity_multiple != 0) ++slots;
  return slots;
}

RouteResult route_by_rules(const RouteProblem &p) {
  RouteResult r;
  std::vector<RoutedToken> tokens;
  for (int64_t t = 0; t < p.valid(); ++t) tokens.push_back(route_token(p, t));
  Lists lists;
  if (p.selection == CHORUS_ROUTE_EXPERTS_CHOOSE) {
    lists = experts_choose(p, tokens);
  } else {
    drop(p, tokens);
    lists = lists_of(p, tokens);
  }
  std::vector<int64_t> slots;
  for (size_t t = 0; t < static_cast<size_t>(p.tokens); ++t) {
    if (t < tokens.size() && p.renormalise_last != 0) renormalise_by_rules(p, tokens[t].weights);
    for (size_t j = 0; j < static_cast<size_t>(p.k); ++j) {
      slots.push_back(t < tokens.size() ? tokens[t].ids[j] : -1);
      r.ids.push_back(encode(p.ids_dtype, static_cast<double>(slots.back())));
      r.weights.push_back(
          encode(p.weights_dtype, t < tokens.size() ? tokens[t].weights[j] * static_cast<float>(p.scale) : 0));
    }
  }
  if (p.selection != CHORUS_ROUTE_EXPERTS_CHOOSE) lists = lists_of(p, tokens);
  if (p.lists) write_order(p, slots, r);
  if ((p.outputs & CHORUS_ROUTE_OUT_EXPERT_LISTS) != 0) write_expert_lists(p, lists, r);
  if ((p.outputs & CHORUS_ROUTE_OUT_BLOCKS) != 0) write_blocks(p, slots, r);
  if ((p.outputs & CHORUS_ROUTE_OUT_BITMAP) != 0) write_bitmap(p, tokens, r);
  if ((p.outputs & CHORUS_ROUTE_OUT_SCORE_SUMS) != 0) write_score_sums(p, tokens, r);
  return r;
}

}  // namespace conformance
