// SPDX-License-Identifier: Apache-2.0
// What the program says: sections with tables as they are computed, or one JSON object at the end.
#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "study.h"

namespace host {

class Report {
 public:
  explicit Report(bool json) : json_(json) {}

  // Facts about the run, before the sections. They appear under `key` in the JSON.
  void fact(const std::string &key, const std::string &label, const std::string &value);
  // A heading and what the reader should know, with the names of the texts as columns.
  void section(const std::string &heading, const std::string &explanation);
  void columns(const std::vector<Text> &texts);
  void row(const Measure &measure);
  // A line of percentages, only for people.
  void shares(const std::string &label, const std::vector<double> &shares);
  // Prose, only for people; lines longer than the page are broken at spaces.
  void say(const std::string &text);
  // Verbatim lines, only for people.
  void quote(const std::string &text);
  // Anything else for programs.
  nlohmann::ordered_json &data() { return data_; }
  // Prints the JSON, if that was asked for.
  void finish() const;

 private:
  bool json_;
  std::vector<std::string> texts_;
  nlohmann::ordered_json data_;
};

std::string fixed(double value, int digits);

}  // namespace host
