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

void Diagnostics::add_error(chorus_status code, Place place, const std::string &message) {
  if (errors_.size() < kMostErrors) errors_.push_back(std::make_shared<Error>(Error{code, at(place, message), {}}));
}

void Diagnostics::error_because(Place place, const std::string &what, const Failure &cause) {
  if (errors_.size() >= kMostErrors) return;
  errors_.push_back(std::make_shared<Error>(Error{cause.error()->code, at(place, what), {cause.error()}}));
}

void Diagnostics::throw_if_any() const {
  if (errors_.empty()) return;
  if (errors_.size() == 1) throw Failure(errors_.front());
  const chorus_status first = errors_.front()->code;
  const bool same = std::ranges::all_of(errors_, [&](const auto &error) { return error->code == first; });
  throw Failure(Error{same ? first : CHORUS_INVALID_ARGUMENT,
                      fmt::format("{} has {}{} errors", file_, errors_.size() == kMostErrors ? "at least " : "", errors_.size()),
                      errors_});
}

}  // namespace chorus::merge
