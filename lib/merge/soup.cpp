// SPDX-License-Identifier: Apache-2.0
// Wortsman et al. 2022, recipe 1, but a model must improve the average to join (there: not make it worse). Costs 2n - 1 scores and
// at most n merges, the k-th reading as many models as the soup then has.
#include "merge/soup.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <numeric>

#include "merge/merger.h"
#include "runtime/locate.h"

namespace chorus::merge {
namespace {

namespace fs = std::filesystem;

double scored(const ScoreFunction &score, const std::string &folder) {
  double out = 0;
  if (!score(folder, &out)) fail(CHORUS_CANCELLED, "score: ended the search at {}", folder);
  if (std::isnan(out)) fail(CHORUS_INVALID_ARGUMENT, "score: NaN for {}; a number is needed to compare", folder);
  return out;
}

// A candidate's folder, hidden beside the output; gone with the object.
class Candidate {
 public:
  explicit Candidate(const std::string &output) {
    fs::path target = fs::absolute(output).lexically_normal();
    if (!target.has_filename()) target = target.parent_path();
    folder_ = (target.parent_path() / ("." + target.filename().string() + ".candidate")).string();
    remove();
  }
  ~Candidate() { remove(); }
  Candidate(const Candidate &) = delete;
  Candidate &operator=(const Candidate &) = delete;
  const std::string &folder() const { return folder_; }

 private:
  void remove() {
    std::error_code ignored;
    fs::remove_all(folder_, ignored);
  }
  std::string folder_;
};

void average(const std::shared_ptr<const Context> &context, const std::vector<std::string> &models, const std::vector<bool> &members,
             const char *device, const std::string &output, bool replace) {
  std::vector<std::string> chosen;
  for (size_t i = 0; i < models.size(); ++i) {
    if (members[i]) chosen.push_back(models[i]);
  }
  MergeSettings settings;
  settings.recipe = average_recipe(chosen);
  settings.recipe_name = "soup";
  settings.output = output;
  settings.replace = replace;
  Merger(context, settings, device).run({});
}

}  // namespace

std::string average_recipe(const std::vector<std::string> &models) {
  std::string out = "merge_method: linear\nmodels:\n";
  for (const std::string &model : models) out += "  - model: " + nlohmann::json(model).dump() + "\n";
  return out + "parameters:\n  weight: 1\n";
}

Soup greedy_soup(const std::shared_ptr<const Context> &context, const std::vector<std::string> &models, const char *device,
                 const std::string &output, const ScoreFunction &score) {
  if (models.empty()) fail(CHORUS_INVALID_ARGUMENT, "count is 0; at least one model is needed");
  std::error_code ignored;
  if (fs::exists(output, ignored) && !fs::is_empty(output, ignored)) {
    fail(CHORUS_ALREADY_EXISTS, "{} is not empty; choose a new folder for the soup", output);
  }
  Soup soup;
  soup.members.assign(models.size(), true);
  {  // all must be there and fit together before hours of scoring
    MergeSettings settings;
    settings.recipe = average_recipe(models);
    settings.recipe_name = "soup";
    make_plan(context, settings, device);
  }
  for (const std::string &model : models) soup.scores.push_back(scored(score, locate(model)));
  std::vector<size_t> order(models.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::stable_sort(order, [&](size_t a, size_t b) { return soup.scores[a] > soup.scores[b]; });
  soup.members.assign(models.size(), false);
  soup.members[order[0]] = true;
  soup.score = soup.scores[order[0]];
  const Candidate candidate(output);
  for (size_t i = 1; i < order.size(); ++i) {
    soup.members[order[i]] = true;
    average(context, models, soup.members, device, candidate.folder(), true);
    const double with = scored(score, candidate.folder());
    if (with > soup.score) {
      soup.score = with;
    } else {
      soup.members[order[i]] = false;
    }
  }
  average(context, models, soup.members, device, output, false);
  return soup;
}

}  // namespace chorus::merge
