// SPDX-License-Identifier: Apache-2.0
// Every system call and allocation of reading and writing fails once: an error, nothing half-written, nothing leaked; and a run
// that was interrupted is taken up again.
#include <criterion/criterion.h>

#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>

#include "checkpoint/model.h"
#include "checkpoint/writer.h"
#include "runtime/error.h"
#include "unit/runtime/faults.h"
#include "unit/support.h"

using namespace chorus;
using namespace chorus::checkpoint;
using unit::fault;
using unit::TemporaryFolder;

namespace fs = std::filesystem;

namespace {

Layout small_layout() {
  const StorageType *f32 = storage_type(CHORUS_F32);
  return plan_layout({{"a", f32, {4}}, {"b", f32, {4}}, {"c", f32, {2}}}, {{"format", "pt"}}, 32);
}

const float kValues[4] = {1, 2, 3, 4};

void write_small(const std::string &folder) {
  Writer writer(small_layout(), folder, {{{"config.json", "", "{}"}}});
  writer.write(0, 0, 16, kValues);
  writer.write(1, 0, 16, kValues);
  writer.write(2, 0, 8, kValues);
  writer.finish();
}

bool is_complete(const std::string &folder) {
  const Model model = Model::open(folder);
  float back[4];
  model.read(*model.find("b"), 0, 16, back);
  return model.tensors().size() == 3 && back[3] == 4 && model.config_text() == "{}";
}

}  // namespace

Test(faults, a_write_that_fails_anywhere_leaves_nothing_or_the_whole) {
  unit::FaultyTables tables;
  size_t points = 0, whole = 0;
  for (const int error : {EIO, ENOSPC, EINTR, EACCES}) {
    for (const bool persistent : {false, true}) {
      if (error == EINTR && persistent) continue;  // a call that is interrupted for ever never returns
      for (int n = 0;; ++n) {
        const TemporaryFolder folder;
        fault = {n, persistent, error, 0};
        bool failed = false;
        try {
          write_small(folder / "m");
        } catch (const Failure &) {
          failed = true;
        }
        const bool reached = fault.calls > n;
        fault = unit::Fault();
        if (!reached) break;
        ++points;
        const bool there = fs::exists(folder / "m/model.safetensors.index.json");
        whole += there;
        if (there) cr_expect(is_complete(folder / "m"), "call %d, error %d", n, error);
        if (!failed) cr_expect(there, "call %d, error %d: success without a model", n, error);
        // Removing may be what failed; otherwise not even the folder remains.
        if (failed && !persistent) cr_expect(!there || is_complete(folder / "m"), "call %d", n);
      }
    }
  }
  cr_expect_gt(points, 150u);
  cr_log_info("%zu points, %zu of them with a whole model", points, whole);
}

Test(faults, a_failed_write_removes_its_files) {
  unit::FaultyTables tables;
  for (int n = 0; n < 60; ++n) {
    const TemporaryFolder folder;
    fault = {n, false, EIO, 0};
    try {
      write_small(folder / "m");
      fault = unit::Fault();
      continue;
    } catch (const Failure &) {
    }
    fault = unit::Fault();
    size_t left = 0;
    for (const auto &entry : fs::recursive_directory_iterator(folder.path())) left += entry.is_regular_file();
    // Syncing the parent is all that can fail once the folder has its name; then the whole model is there.
    if (fs::exists(folder / "m")) {
      cr_expect(is_complete(folder / "m"), "call %d", n);
    } else {
      cr_expect_eq(left, 0u, "call %d", n);
    }
  }
}

// A child is killed at the n-th system call of writing, for every n: the folder is absent or whole, and the next run works.
Test(faults, killed_at_any_call_the_folder_is_absent_or_whole) {
  unit::FaultyTables tables;
  size_t absent = 0, whole = 0;
  for (int n = 0;; ++n) {
    const TemporaryFolder folder;
    const pid_t child = fork();
    if (child == 0) {
      fault = {n, false, EIO, 0, true};
      write_small(folder / "m");
      _exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    const bool killed = WIFSIGNALED(status);
    const bool there = fs::exists(folder / "m");
    ++(there ? whole : absent);
    if (there) cr_expect(is_complete(folder / "m"), "call %d left a part", n);
    if (!there) write_small(folder / "m");
    cr_expect(is_complete(folder / "m") && !fs::exists(folder / ".m.partial"), "after call %d", n);
    if (!killed) break;
  }
  cr_expect(absent > 20 && whole > 1, "%zu absent, %zu whole", absent, whole);
}

Test(faults, a_read_that_fails_anywhere_is_an_error) {
  const TemporaryFolder folder;
  write_small(folder / "m");
  unit::FaultyTables tables;
  int points = 0;
  for (int n = 0;; ++n) {
    fault = {n, false, EIO, 0};
    bool failed = false;
    try {
      is_complete(folder / "m");
    } catch (const Failure &) {
      failed = true;
    }
    const bool reached = fault.calls > n;
    fault = unit::Fault();
    if (!reached) break;
    cr_expect(failed, "call %d", n);
    ++points;
  }
  cr_expect_gt(points, 10);
}

Test(faults, an_interrupted_run_is_taken_up_again) {
  const TemporaryFolder folder;
  {
    WriterSettings settings;
    settings.keep = true;
    Writer writer(small_layout(), folder / "m", std::move(settings));
    writer.write(0, 0, 16, kValues);
    writer.write(1, 0, 16, kValues);
    writer.sync(0);
  }
  WriterSettings settings;
  settings.resume = true;
  settings.side_files = {{"config.json", "", "{}"}};
  {
    Writer writer(small_layout(), folder / "m", std::move(settings));
    cr_expect(writer.resumed(0) && writer.resumed(1));
    writer.mark_written(0, 16);
    writer.mark_written(1, 16);
    writer.write(2, 0, 8, kValues);
    writer.finish();
  }
  cr_expect(is_complete(folder / "m"));
}

Test(faults, a_partial_file_of_another_plan_is_not_taken_up) {
  const TemporaryFolder folder;
  fs::create_directory(folder / ".m.partial");
  unit::write_file(folder / ".m.partial/model-00001-of-00002.safetensors", std::string(small_layout().shards[0].bytes, 'x'));
  unit::write_file(folder / ".m.partial/model-00002-of-00002.safetensors", "short");
  WriterSettings settings;
  settings.resume = true;
  const Writer writer(small_layout(), folder / "m", std::move(settings));
  cr_expect_eq(small_layout().shards.size(), 2u);
  cr_expect(!writer.resumed(0) && !writer.resumed(1));
}

Test(faults, a_file_that_changed_is_noticed) {
  const TemporaryFolder folder;
  write_small(folder / "m");
  const Model model = Model::open(folder / "m");
  model.check_unchanged();
  fs::resize_file(model.files()[0].path(), 10);
  bool noticed = false;
  try {
    model.check_unchanged();
  } catch (const Failure &failure) {
    noticed = failure.error()->code == CHORUS_FAILED_PRECONDITION && unit::contains(failure.what(), model.files()[0].path());
  }
  cr_expect(noticed);
}
