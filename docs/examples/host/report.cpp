// SPDX-License-Identifier: Apache-2.0
// Layout of the report.
#include "report.h"

#include <algorithm>
#include <cstdio>
#include <sstream>

namespace host {
namespace {

constexpr size_t kName = 44, kNumber = 10, kPage = 100;

std::string right(const std::string &text, size_t width) {
  return std::string(width > text.size() ? width - text.size() : 0, ' ') + text;
}

std::string left(const std::string &text, size_t width) {
  return text + std::string(width > text.size() ? width - text.size() : 1, ' ');
}

// Prints at once, so that a reader sees each number when it is there.
void print(const std::string &line) {
  std::fwrite(line.data(), 1, line.size(), stdout);
  std::fputc('\n', stdout);
  std::fflush(stdout);
}

}  // namespace

std::string fixed(double value, int digits) {
  char text[64];
  std::snprintf(text, sizeof text, "%.*f", digits, value);
  return text;
}

void Report::fact(const std::string &key, const std::string &label, const std::string &value) {
  data_[key] = value;
  if (!json_) print(left(label, 18) + value);
}

void Report::section(const std::string &heading, const std::string &explanation) {
  if (json_) return;
  print("\n" + heading);
  say(explanation);
}

void Report::columns(const std::vector<Text> &texts) {
  texts_.clear();
  std::string line = left("  perplexity on", kName);
  for (const Text &text : texts) {
    texts_.push_back(text.name);
    line += right(text.name, kNumber);
  }
  if (!json_) print(line + right("all", kNumber) + right("bits/byte", kNumber + 2));
}

void Report::row(const Measure &measure) {
  nlohmann::ordered_json entry;
  std::string line = left("  " + measure.name, kName);
  for (size_t i = 0; i < texts_.size(); ++i) {
    entry[texts_[i]] = measure.perplexity[i];
    line += right(fixed(measure.perplexity[i], 2), kNumber);
  }
  entry["all"] = measure.overall;
  entry["bits_per_byte"] = measure.bits_per_byte;
  data_["measures"][measure.name] = entry;
  line += right(fixed(measure.overall, 2), kNumber) + right(fixed(measure.bits_per_byte, 3), kNumber + 2);
  if (!json_) print(line);
}

void Report::shares(const std::string &label, const std::vector<double> &shares) {
  std::string line = left("  " + label, kName);
  for (double share : shares) line += right(fixed(100 * share, 0) + " %", kNumber);
  if (!json_) print(line);
}

void Report::say(const std::string &text) {
  if (json_) return;
  std::istringstream words(text);
  std::string line = " ", word;
  while (words >> word) {
    if (line.size() + 1 + word.size() > kPage) {
      print(line);
      line = " ";
    }
    line += " " + word;
  }
  print(line);
}

void Report::quote(const std::string &text) {
  if (json_) return;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) print("    | " + line);
}

void Report::finish() const {
  // A sampled token may end within a character; such bytes are replaced.
  if (json_) print(data_.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
}

}  // namespace host
