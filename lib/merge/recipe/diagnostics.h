// SPDX-License-Identifier: Apache-2.0
// What is wrong with a recipe, collected: every error with line:column, all reported at once, and the warnings.
#pragma once
#include <compare>
#include <cstddef>
#include <string>
#include <vector>

#include "runtime/error.h"

namespace chorus::merge {

// Of a character in a recipe, counted from 1. Line 0: nowhere.
struct Place {
  size_t line = 0, column = 0;
  auto operator<=>(const Place &) const = default;
};

class Diagnostics {
 public:
  explicit Diagnostics(std::string file) : file_(std::move(file)) {}

  template <typename... Args>
  void error(Place place, fmt::format_string<Args...> format, Args &&...args) {
    add_error(CHORUS_INVALID_ARGUMENT, place, fmt::format(format, std::forward<Args>(args)...));
  }
  // Something mergekit has and this version does not.
  template <typename... Args>
  void unimplemented(Place place, fmt::format_string<Args...> format, Args &&...args) {
    add_error(CHORUS_UNIMPLEMENTED, place, fmt::format(format, std::forward<Args>(args)...));
  }
  template <typename... Args>
  void warning(Place place, fmt::format_string<Args...> format, Args &&...args) {
    warnings_.push_back(at(place, fmt::format(format, std::forward<Args>(args)...)));
  }
  // An error that was thrown, found below `place`.
  void error_because(Place place, const std::string &what, const Failure &cause);

  // Throws what was found, if anything: the one error, or a summary with one cause each.
  void throw_if_any() const;
  bool has_errors() const { return !errors_.empty(); }
  const std::vector<std::string> &warnings() const { return warnings_; }
  const std::string &file() const { return file_; }

 private:
  void add_error(chorus_status code, Place place, const std::string &message, std::vector<std::shared_ptr<const Error>> causes = {});
  std::string at(Place place, const std::string &message) const;

  std::string file_;
  struct Found {
    Place place;
    std::shared_ptr<const Error> error;
  };
  std::vector<Found> errors_;
  std::vector<std::string> warnings_;
};

}  // namespace chorus::merge
