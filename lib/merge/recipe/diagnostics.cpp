// SPDX-License-Identifier: Apache-2.0
// One error is itself; several are causes of a summary.
#include "merge/recipe/diagnostics.h"

#include <algorithm>

namespace chorus::merge {
namespace {

constexpr size_t kMostErrors = 100;  // beyond it a person starts anew

}  // namespace

std::string Diagnostics::at(Place place, const std::string &message) const {
  if (place.line == 0) return fmt::format("{}: {}", file_, message);
  return fmt::format("{}:{}:{}: {}", file_, place.line, place.column, message);
}

void Diagnostics::add_error(chorus_status code, Place place, const std::string &message,
                            std::vector<std::shared_ptr<const Error>> causes) {
  if (errors_.size() >= kMostErrors) return;
  errors_.push_back({place, std::make_shared<Error>(Error{code, at(place, message), std::move(causes)})});
}

void Diagnostics::error_because(Place place, const std::string &what, const Failure &cause) {
  add_error(cause.error()->code, place, what, {cause.error()});
}

void Diagnostics::throw_if_any() const {
  if (errors_.empty()) return;
  if (errors_.size() == 1) throw Failure(errors_.front().error);
  std::vector<Found> sorted = errors_;
  std::ranges::stable_sort(sorted, {}, &Found::place);
  const chorus_status first = sorted.front().error->code;
  const bool same = std::ranges::all_of(sorted, [&](const Found &found) { return found.error->code == first; });
  Error all{same ? first : CHORUS_INVALID_ARGUMENT,
            fmt::format("{} has {}{} errors", file_, sorted.size() == kMostErrors ? "at least " : "", sorted.size()), {}};
  for (const Found &found : sorted) all.causes.push_back(found.error);
  throw Failure(std::move(all));
}

}  // namespace chorus::merge
