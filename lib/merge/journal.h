// SPDX-License-Identifier: Apache-2.0
// What an interrupted merge had done: a line for each finished tensor with the checksum of its bytes. A later run believes a
// line only when the bytes on disk still have that checksum, so nothing needs to be synced before it is written down.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "runtime/files.h"

namespace chorus::merge {

class Journal {
 public:
  // Opens the journal at `path` for a plan of this fingerprint. With `resume` the lines of a journal of the same fingerprint
  // become entries(); else, or where there is none, it begins empty.
  Journal(std::string path, std::string fingerprint, bool resume);

  struct Entry {
    uint64_t tensor, checksum;
  };
  const std::vector<Entry> &entries() const { return entries_; }
  // A journal of another plan was there.
  bool is_of_another_plan() const { return of_another_plan_; }

  void add(const std::vector<Entry> &finished);

 private:
  void read(const std::string &path, const std::string &head);

  File file_;
  uint64_t end_ = 0;
  std::vector<Entry> entries_;
  bool of_another_plan_ = false;
};

}  // namespace chorus::merge
