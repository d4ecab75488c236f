// SPDX-License-Identifier: Apache-2.0
// What unit tests share: folders that clean up, a log that remembers, and the error of a call as text.
#pragma once
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <mutex>
#include <string>
#include <vector>

#include "chorus/chorus.h"

namespace unit {

// A new folder below the system's temporary one, removed with all it holds.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "chorus-unit-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) throw std::runtime_error("no temporary folder");
    path_ = std::filesystem::canonical(name);
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder &) = delete;
  TemporaryFolder &operator=(const TemporaryFolder &) = delete;
  const std::filesystem::path &path() const { return path_; }
  std::string operator/(const std::string &name) const { return (path_ / name).string(); }

 private:
  std::filesystem::path path_;
};

inline void write_file(const std::string &path, const std::string &text) { std::ofstream(path, std::ios::binary) << text; }

inline std::string read_file(const std::string &path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

inline bool contains(const std::string &text, const std::string &part) { return text.find(part) != std::string::npos; }

// Messages of a context; give it to set_log as (Log::receive, &log).
class Log {
 public:
  static void receive(void *self, chorus_log_level level, const char *message, size_t length) {
    auto *log = static_cast<Log *>(self);
    const std::lock_guard lock(log->mutex_);
    log->messages_.push_back(std::to_string(level) + " " + std::string(message, length));
  }
  // Messages that contain `part`.
  size_t count(const std::string &part = "") const {
    const std::lock_guard lock(mutex_);
    size_t found = 0;
    for (const std::string &message : messages_) found += contains(message, part);
    return found;
  }

 private:
  mutable std::mutex mutex_;
  std::vector<std::string> messages_;
};

// Status and text of a failed C call: Outcome o; o = call(..., o.slot()).
class Outcome {
 public:
  ~Outcome() { chorus_error_destroy(error_); }
  chorus_error **slot() {
    chorus_error_destroy(error_);
    error_ = nullptr;
    return &error_;
  }
  Outcome() = default;
  Outcome(const Outcome &) = delete;
  Outcome &operator=(const Outcome &) = delete;
  std::string text() const { return chorus_error_get_text(error_); }
  const chorus_error *error() const { return error_; }

 private:
  chorus_error *error_ = nullptr;
};

inline std::string test_plugin(const std::string &name) {
  return std::string(CHORUS_BINARY_DIR) + "/lib/test-plugins/chorus-" + name + ".so";
}

}  // namespace unit
