// SPDX-License-Identifier: Apache-2.0
// The greedy soup: which models' equal-weight average scores best, found by adding one at a time.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "runtime/context.h"

namespace chorus::merge {

// Higher is better. False cancels.
using ScoreFunction = std::function<bool(const std::string &folder, double *score)>;

struct Soup {
  std::vector<double> scores;  // of each model alone
  std::vector<bool> members;
  double score = 0;            // of the soup, which is written to the output folder
};

// The recipe of the equal-weight average of these models.
std::string average_recipe(const std::vector<std::string> &models);

Soup greedy_soup(const std::shared_ptr<const Context> &context, const std::vector<std::string> &models, const char *device,
                 const std::string &output, const ScoreFunction &score);

}  // namespace chorus::merge
