// SPDX-License-Identifier: Apache-2.0
// One distribution from the logits of several models, by chorus_combiner.
#pragma once
#include <string>
#include <vector>

#include "library.h"
#include "text.h"

namespace host {

// What one model says about one text: logits [tokens, vocabulary] per window.
using Scores = std::vector<Matrix>;

class Mixture {
 public:
  // A model of weight w for each of `weights`; all share a vocabulary of `vocabulary` tokens.
  Mixture(const Library &library, const chorus_context *context, chorus_combine_rule rule,
          const std::vector<double> &weights, size_t vocabulary, size_t max_rows, double temperature = 1.0);

  // -log p of every token of the text, summed, in nats. `members`: the scores of each model.
  double loss(const std::vector<const Scores *> &members, const Text &text) const;

  // A token drawn from the mixture of the last rows of `members`; the same for the same seed and step.
  int32_t sample(const std::vector<Matrix> &members, uint64_t seed, uint64_t step) const;

  std::string kernel() const { return library_.chorus_combiner_get_kernel(combiner_.get()); }

 private:
  const Library &library_;
  size_t vocabulary_;
  Handle<chorus_combiner> combiner_;
};

}  // namespace host
