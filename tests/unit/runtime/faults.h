// SPDX-License-Identifier: Apache-2.0
// Failing the n-th allocation or system call through the runtime's tables.
#pragma once
#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <functional>

#include "runtime/allocate.h"
#include "runtime/files.h"

namespace unit {

// Which of the calls from now on fails (0: the next; negative: none), whether all after it do too, and how.
struct Fault {
  int countdown = -1;
  bool persistent = false;
  int error = EIO;
  int calls = 0;
  bool kills = false;  // instead of failing, the process dies

  bool hits() {
    ++calls;
    if (countdown < 0) return false;
    if (countdown == 0) {
      if (kills) ::kill(::getpid(), SIGKILL);
      countdown = persistent ? 0 : -1;
      return true;
    }
    --countdown;
    return false;
  }
};

inline Fault fault;

// Every entry of the two tables, with `fault` in front.
class FaultyTables {
 public:
  FaultyTables() : files_(chorus::file_table()), allocations_(chorus::allocation_table()) {
    saved_files() = files_;
    saved_allocations() = allocations_;
    chorus::allocation_table().allocate = [](size_t bytes, size_t alignment) -> void * {
      return fault.hits() ? nullptr : saved_allocations().allocate(bytes, alignment);
    };
    chorus::FileTable &t = chorus::file_table();
    t.open = [](const char *path, int flags, mode_t mode) { return failing() ? -1 : saved_files().open(path, flags, mode); };
    t.fstat = [](int d, struct stat *out) { return failing() ? -1 : saved_files().fstat(d, out); };
    t.pread = [](int d, void *to, size_t n, off_t at) -> ssize_t { return failing() ? -1 : saved_files().pread(d, to, n, at); };
    t.pwrite = [](int d, const void *from, size_t n, off_t at) -> ssize_t {
      return failing() ? -1 : saved_files().pwrite(d, from, n, at);
    };
    t.fallocate = [](int d, off_t n) { return fault.hits() ? fault.error : saved_files().fallocate(d, n); };
    t.fsync = [](int d) { return failing() ? -1 : saved_files().fsync(d); };
    t.rename = [](const char *from, const char *to) { return failing() ? -1 : saved_files().rename(from, to); };
    t.unlink = [](const char *path) { return failing() ? -1 : saved_files().unlink(path); };
    t.mkdir = [](const char *path, mode_t mode) { return failing() ? -1 : saved_files().mkdir(path, mode); };
  }
  ~FaultyTables() {
    chorus::file_table() = files_;
    chorus::allocation_table() = allocations_;
    fault = Fault();
  }
  FaultyTables(const FaultyTables &) = delete;
  FaultyTables &operator=(const FaultyTables &) = delete;

 private:
  static bool failing() {
    if (!fault.hits()) return false;
    errno = fault.error;
    return true;
  }
  static chorus::FileTable &saved_files() {
    static chorus::FileTable table;
    return table;
  }
  static chorus::AllocationTable &saved_allocations() {
    static chorus::AllocationTable table;
    return table;
  }
  chorus::FileTable files_;
  chorus::AllocationTable allocations_;
};

}  // namespace unit
