// SPDX-License-Identifier: Apache-2.0
// soup.h: calls into merge/soup.
#include "chorus/soup.h"

#include "abi/boundary.h"
#include "merge/soup.h"

using chorus::abi::guarded;
using chorus::abi::require;

namespace mg = chorus::merge;

extern "C" {

chorus_status chorus_soup_greedy(const chorus_context *context, const char *const *models, size_t count, const char *device,
                                 const char *output, chorus_soup_score_fn score, void *user, double *out_scores,
                                 int32_t *out_members, double *out_score, chorus_error **error) {
  return guarded(error, [&] {
    const auto shared = chorus::context_of(context);
    if (count > 0) require(models, "models");
    std::vector<std::string> names;
    for (size_t i = 0; i < count; ++i) names.emplace_back(require(models[i], "models[i]"));
    require(device, "device");
    if (*require(output, "output") == '\0') chorus::fail(CHORUS_INVALID_ARGUMENT, "output is empty");
    require(score, "score");
    const auto ask = [=](const std::string &folder, double *out) { return score(user, folder.c_str(), out) == 0; };
    const mg::Soup soup = mg::greedy_soup(shared, names, device, output, ask);
    for (size_t i = 0; i < count; ++i) {
      if (out_scores != nullptr) out_scores[i] = soup.scores[i];
      if (out_members != nullptr) out_members[i] = soup.members[i] ? 1 : 0;
    }
    if (out_score != nullptr) *out_score = soup.score;
  });
}

}  // extern "C"
