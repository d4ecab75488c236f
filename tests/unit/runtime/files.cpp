// SPDX-License-Identifier: Apache-2.0
// The file layer: what it refuses to open, short reads, interrupted calls, and a failure at every call of a write.
#include <criterion/criterion.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/error.h"
#include "unit/runtime/faults.h"
#include "unit/support.h"

using namespace chorus;
using unit::contains;
using unit::fault;
using unit::TemporaryFolder;

namespace {

template <typename Call>
std::string failure_of(Call call, chorus_status code) {
  try {
    call();
  } catch (const Failure &failure) {
    cr_expect_eq(failure.error()->code, code, "%s: %s", status_name(failure.error()->code), failure.what());
    return failure.what();
  }
  cr_expect(false, "no failure");
  return "";
}

// The durable way: temporary name, reserve, write, sync, rename, sync of the folder.
void write_durably(const std::string &folder, const std::string &name, const std::string &text) {
  const std::string temporary = folder + "/." + name + ".tmp", path = folder + "/" + name;
  try {
    const File file = create_new(temporary);
    reserve(file, text.size());
    write_exactly(file, text.data(), text.size(), 0);
    sync_file(file);
    rename_over(temporary, path);
    sync_folder(folder);
  } catch (const Failure &) {
    remove_quietly(temporary);
    throw;
  }
}

}  // namespace

Test(files, reading) {
  const TemporaryFolder folder;
  const std::string path = folder / "data", text = "0123456789";
  unit::write_file(path, text);
  const File file = open_for_reading(path);
  cr_expect_eq(size_of(file), 10u);
  char part[4];
  read_exactly(file, part, 4, 3);
  cr_expect(std::string(part, 4) == "3456");
  std::string why = failure_of([&] { read_exactly(file, part, 4, 8); }, CHORUS_DATA_LOSS);
  cr_expect(contains(why, path) && contains(why, "ends at byte 10; 4 bytes from byte 8"), "%s", why.c_str());
  cr_expect(read_text(path, 10) == text);
  failure_of([&] { read_text(path, 9); }, CHORUS_DATA_LOSS);
  unit::write_file(path, "");
  cr_expect(read_text(path, 0).empty());
}

Test(files, what_is_no_regular_file_is_refused_and_never_waited_for, .timeout = 20) {
  const TemporaryFolder folder;
  mkfifo((folder / "fifo").c_str(), 0600);
  std::filesystem::create_symlink("loop", folder / "loop");
  std::filesystem::create_symlink("gone", folder / "dangling");
  const struct {
    std::string path;
    chorus_status status;
    const char *part;
  } rows[] = {
      {folder / "gone", CHORUS_NOT_FOUND, "No such file"},   {folder.path(), CHORUS_INVALID_ARGUMENT, "is a folder"},
      {folder / "fifo", CHORUS_INVALID_ARGUMENT, "FIFO"},    {folder / "loop", CHORUS_INVALID_ARGUMENT, "symbolic links"},
      {folder / "dangling", CHORUS_NOT_FOUND, "No such"},    {"/dev/null", CHORUS_INVALID_ARGUMENT, "a device"},
      {std::string(5000, 'x'), CHORUS_INVALID_ARGUMENT, "name too long"},
  };
  for (const auto &row : rows) {
    const std::string why = failure_of([&] { open_for_reading(row.path); }, row.status);
    cr_expect(contains(why, row.path) && contains(why, row.part), "%s", why.c_str());
  }
}

Test(files, creating_never_follows_or_replaces) {
  const TemporaryFolder folder;
  unit::write_file(folder / "there", "old");
  std::filesystem::create_symlink(folder / "elsewhere", folder / "link");
  failure_of([&] { create_new(folder / "there"); }, CHORUS_ALREADY_EXISTS);
  failure_of([&] { create_new(folder / "link"); }, CHORUS_ALREADY_EXISTS);
  cr_expect(!std::filesystem::exists(folder / "elsewhere"));
  failure_of([&] { create_new(folder / "no/folder"); }, CHORUS_NOT_FOUND);
  make_folder(folder / "a/b/c");
  make_folder(folder / "a/b/c");
  cr_expect(std::filesystem::is_directory(folder / "a/b/c"));
  failure_of([&] { make_folder(folder / "there"); }, CHORUS_INVALID_ARGUMENT);
  failure_of([&] { make_folder(folder / "there/below"); }, CHORUS_INVALID_ARGUMENT);
  remove_quietly(folder / "never was");
}

Test(files, interrupted_and_partial_calls_are_continued) {
  const TemporaryFolder folder;
  const unit::FaultyTables tables;
  static FileTable faulty;
  faulty = file_table();
  file_table().pread = [](int d, void *to, size_t n, off_t at) { return faulty.pread(d, to, n < 3 ? n : 3, at); };
  file_table().pwrite = [](int d, const void *from, size_t n, off_t at) { return faulty.pwrite(d, from, n < 3 ? n : 3, at); };
  fault.error = EINTR;
  const int calls = [&] {
    write_durably(folder.path(), "dry", "0123456789");
    cr_expect(read_text(folder / "dry", 100) == "0123456789");
    return fault.calls;
  }();
  for (int n = 0; n < calls; ++n) {
    fault.countdown = n;
    const std::string name = "file" + std::to_string(n);
    try {
      write_durably(folder.path(), name, "0123456789");
      cr_expect(read_text(folder / name, 100) == "0123456789");
    } catch (const Failure &failure) {
      // fstat and rename are not interruptible calls; told as they are
      cr_expect(contains(failure.what(), "Interrupted"), "%d: %s", n, failure.what());
    }
    fault.countdown = -1;
  }
}

Test(files, a_failure_at_any_call_leaves_nothing_half_written) {
  const TemporaryFolder folder;
  const unit::FaultyTables tables;
  write_durably(folder.path(), "dry", "text");
  const int calls = fault.calls;
  cr_expect_geq(calls, 7, "open, reserve, write, sync, rename, and the folder's open and sync");
  for (const bool persistent : {false, true}) {
    for (const int error : {EIO, ENOSPC, EACCES, EMFILE}) {
      for (int n = 0; n < calls; ++n) {
        const std::string name = fmt::format("file-{}-{}-{}", n, error, persistent);
        fault = {n, persistent, error, 0};
        bool failed = false;
        try {
          write_durably(folder.path(), name, "text");
        } catch (const Failure &failure) {
          failed = true;
          cr_expect(contains(failure.what(), name) || contains(failure.what(), folder.path().string()), "%s", failure.what());
          cr_expect(contains(failure.what(), strerror(error)), "%s", failure.what());
          if (error == ENOSPC) cr_expect_eq(failure.error()->code, CHORUS_RESOURCE_EXHAUSTED);
        }
        fault = unit::Fault();
        cr_expect(failed, "call %d, %s", n, strerror(error));
        const bool is_there = std::filesystem::exists(folder / name);
        cr_expect(!is_there || unit::read_file(folder / name) == "text", "absent or complete");
      }
    }
  }
}
