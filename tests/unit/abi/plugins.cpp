// SPDX-License-Identifier: Apache-2.0
// The loader and its search: deliberately bad plugins, folders that may not be trusted. Nothing of it may kill or hang
// the host, and each failure says path and reason.
#include <criterion/criterion.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

#include "chorus/chorus.hpp"
#include "unit/support.h"

using unit::contains;
using unit::Log;
using unit::TemporaryFolder;
using unit::test_plugin;

namespace {

// Refused on loading: by path it fails the context, in a search it is skipped with the same words.
const struct {
  const char *name, *reason;
  chorus_status status;
} kUnloadable[] = {
    {"bad-wrong-magic", "wrong magic 0x4e4f4e53454e5345", CHORUS_INVALID_ARGUMENT},
    {"bad-other-abi", "built for plugin ABI 1.", CHORUS_FAILED_PRECONDITION},
    {"bad-other-hash", "layout hash", CHORUS_FAILED_PRECONDITION},
    {"bad-short-size", "struct_size is", CHORUS_INVALID_ARGUMENT},
    {"bad-missing-slot", "the required slot 'close_device' is NULL", CHORUS_INVALID_ARGUMENT},
    {"bad-other-sanitizer", "built with MemorySanitizer", CHORUS_FAILED_PRECONDITION},
    {"bad-bad-name", "its name is 'Bad Name'", CHORUS_INVALID_ARGUMENT},
    {"bad-stranger-option", "option 'threads' must start with 'bad-stranger-option.'", CHORUS_INVALID_ARGUMENT},
    {"bad-null-query", "query returned NULL", CHORUS_FAILED_PRECONDITION},
    {"bad-throwing-query", "threw an exception: no table, an exception instead", CHORUS_INTERNAL},
    {"bad-exports-nothing", "exports no chorus_plugin_query", CHORUS_INVALID_ARGUMENT},
    {"bad-unresolved", "chorus_test_symbol_that_nobody_defines", CHORUS_FAILED_PRECONDITION},
    {"bad-architecture", "built for another architecture", CHORUS_INVALID_ARGUMENT},
    {"bad-truncated", "cut short", CHORUS_INVALID_ARGUMENT},
    {"bad-text", "not an ELF file", CHORUS_INVALID_ARGUMENT},
    {"bad-empty", "not an ELF file", CHORUS_INVALID_ARGUMENT},
};

// Loadable, but no good as devices: the context is made, the info tells why.
const struct {
  const char *name, *reason;
  bool has_device;  // listed, and fails when opened
} kUnusable[] = {
    {"bad-open-fails", "the card is on fire", true},
    {"bad-open-fails-silently", "failed (RESOURCE_EXHAUSTED) and gave no reason", true},
    {"bad-open-gives-nothing", "gave no device", true},
    {"bad-no-memory-table", "offers no memory functions", true},
    {"bad-missing-kernel-slot", "kernel 0 has an empty slot", true},
    {"bad-no-device", "offers no device", false},
    {"bad-reserved-device", "called 'auto'", false},
    {"bad-throwing-devices", "no devices, an exception instead", false},
};

void copy_plugin(const std::string &name, const std::string &folder) {
  std::filesystem::copy_file(test_plugin(name), folder + "/chorus-" + name + ".so");
}

// The info of the plugin whose path ends with `file`; an empty struct_size when it was not found.
chorus_plugin_info info_of(const chorus::Context &context, const std::string &file) {
  for (const chorus_plugin_info &info : context.plugins()) {
    if (std::string(info.path).ends_with(file)) return info;
  }
  return {};
}

// A context that searches `path` as its CHORUS_PLUGIN_PATH.
chorus::Context searching(const std::string &path, Log *log = nullptr) {
  setenv("CHORUS_PLUGIN_PATH", path.c_str(), 1);
  chorus::ContextSpec spec;
  if (log != nullptr) spec.set_log(Log::receive, log, CHORUS_LOG_INFO);
  return chorus::Context(spec);
}

}  // namespace

Test(plugins, an_unloadable_one_given_by_path_fails_the_context_with_path_and_reason) {
  for (const auto &bad : kUnloadable) {
    const std::string path = test_plugin(bad.name);
    chorus::ContextSpec spec;
    spec.set_option("plugins", "explicit").add_plugin(path);
    for (int attempt = 0; attempt < 2; ++attempt) {  // a second look finds the same
      try {
        chorus::Context context(spec);
        cr_expect(false, "%s was loaded", bad.name);
      } catch (const chorus::Error &error) {
        cr_expect_eq(error.code(), CHORUS_FAILED_PRECONDITION);
        cr_assert_eq(chorus_error_get_cause_count(error.get()), 1u);
        const chorus_error *cause = chorus_error_get_cause(error.get(), 0);
        cr_expect_eq(chorus_error_get_code(cause), bad.status, "%s", error.text());
        cr_expect(contains(error.text(), path), "%s", error.text());
        cr_expect(contains(error.text(), bad.reason), "%s", error.text());
      }
    }
  }
}

Test(plugins, an_unloadable_one_found_by_search_is_skipped_with_path_and_reason) {
  const TemporaryFolder folder;
  for (const auto &bad : kUnloadable) copy_plugin(bad.name, folder.path());
  copy_plugin("probe", folder.path());
  Log log;
  const chorus::Context context = searching(folder.path(), &log);
  for (const auto &bad : kUnloadable) {
    const chorus_plugin_info info = info_of(context, std::string(bad.name) + ".so");
    cr_assert_neq(info.struct_size, 0u, "%s was not found", bad.name);
    cr_expect_eq(info.status, bad.status, "%s", bad.name);
    cr_expect(contains(info.reason, bad.reason) && contains(info.reason, info.path), "%s: %s", bad.name, info.reason);
    cr_expect_eq(info.device_count, 0);
    cr_expect_geq(log.count(info.path), 1u, "%s is told in the log", bad.name);
  }
  cr_expect_eq(info_of(context, "chorus-probe.so").status, CHORUS_OK, "a good one beside them is loaded");
}

Test(plugins, a_device_that_cannot_be_used_says_why_and_leaves_the_others_alone) {
  for (const auto &bad : kUnusable) {
    chorus::ContextSpec spec;
    spec.set_option("plugins", "explicit").add_plugin(test_plugin(bad.name)).add_plugin(test_plugin("probe"));
    const chorus::Context context(spec);
    const chorus_plugin_info plugin = info_of(context, std::string(bad.name) + ".so");
    cr_expect_eq(plugin.status, CHORUS_OK);
    cr_expect_eq(plugin.device_count, bad.has_device, "%s", bad.name);
    std::string reason = plugin.reason;
    for (const chorus_device_info &device : context.devices()) {
      if (std::strcmp(device.name, bad.name) == 0) {
        cr_expect_eq(device.kernel_count, -1);
        reason += device.reason;
      }
      if (std::strcmp(device.name, "probe") == 0) cr_expect_eq(device.kernel_count, 1);
    }
    cr_expect(contains(reason, bad.reason), "%s: %s", bad.name, reason.c_str());
    if (bad.has_device) {
      try {
        chorus::Memory memory(context, bad.name, 1);
        cr_expect(false, "%s could be used", bad.name);
      } catch (const chorus::Error &error) {
        cr_expect_eq(error.code(), CHORUS_UNAVAILABLE);
        cr_expect(contains(error.text(), bad.reason), "%s: %s", bad.name, error.text());
      }
    }
    const chorus::Memory memory(context, "auto", 1);  // the context is as good as without it
  }
}

Test(plugins, files_and_folders_that_others_may_write_are_refused) {
  const TemporaryFolder folder;
  struct Case {
    const char *name, *reason;
  };
  const std::string file = folder / "file", open = folder / "open", sticky = folder / "sticky", below = folder / "below",
                    good = folder / "good", linked = folder / "linked";
  for (const std::string &f : {file, open, sticky, below, good, linked}) std::filesystem::create_directories(f + "/in");
  for (const std::string &f : {file + "/in", open + "/in", sticky + "/in", below + "/in", good}) copy_plugin("probe", f);
  chmod((file + "/in/chorus-probe.so").c_str(), 0666);
  chmod((open + "/in").c_str(), 0777);
  chmod((sticky + "/in").c_str(), 01777);
  chmod(below.c_str(), 0777);
  std::filesystem::create_symlink(open + "/in/chorus-probe.so", linked + "/in/chorus-probe.so");
  const struct {
    std::string folder, culprit;
  } refused[] = {
      {file + "/in", file + "/in/chorus-probe.so"}, {open + "/in", open + "/in"}, {sticky + "/in", sticky + "/in"},
      {below + "/in", below},                       {linked + "/in", open + "/in"},
  };
  for (const auto &bad : refused) {
    const chorus::Context context = searching(bad.folder);
    size_t found = 0;
    for (const chorus_plugin_info &info : context.plugins()) {
      cr_expect_str_neq(info.name, "probe", "%s was loaded", bad.folder.c_str());
      if (contains(info.reason, bad.culprit + " is writable by every user")) {
        cr_expect_eq(info.status, CHORUS_PERMISSION_DENIED);
        ++found;
      }
    }
    cr_expect_eq(found, 1u, "%s", bad.folder.c_str());
  }
  // The refused copy does not hide the good one of the same name; a path given by hand is not checked.
  const chorus::Context found_good = searching(open + "/in:" + good);
  cr_expect_str_eq(info_of(found_good, "good/chorus-probe.so").name, "probe");
  chorus::ContextSpec spec;
  spec.set_option("plugins", "explicit").add_plugin(open + "/in/chorus-probe.so");
  const chorus::Context given(spec);
  cr_expect_str_eq(info_of(given, "open/in/chorus-probe.so").name, "probe");
}

Test(plugins, group_writable_and_foreign_owned_files_are_loaded_with_a_warning) {
  const TemporaryFolder folder;
  copy_plugin("probe", folder.path());
  const std::string file = folder / "chorus-probe.so";
  chmod(file.c_str(), 0664);
  Log log;
  const chorus::Context group_writable = searching(folder.path(), &log);
  cr_expect_str_eq(info_of(group_writable, "chorus-probe.so").name, "probe");
  cr_expect_eq(log.count(file + " is writable by its group"), 1u);
  if (geteuid() == 0) {
    cr_assert_eq(chown(file.c_str(), 12345, 0), 0);
    const chorus::Context foreign = searching(folder.path(), &log);
    cr_expect_str_eq(info_of(foreign, "chorus-probe.so").name, "probe");
    cr_expect_eq(log.count(file + " is owned by user 12345"), 1u);
  }
}

Test(plugins, the_search_takes_absolute_folders_and_chorus_files_alone) {
  const TemporaryFolder folder;
  copy_plugin("probe", folder.path());
  std::filesystem::copy_file(test_plugin("remote"), folder / "libremote.so");
  std::filesystem::current_path(folder.path());
  for (const char *relative : {".", "./", "", ":", "nowhere"}) {
    const chorus::Context context = searching(relative);
    const std::string wanted = std::string(relative) == "" || std::string(relative) == ":" ? "" : "write it absolute";
    bool told = wanted.empty();
    for (const chorus_plugin_info &info : context.plugins()) {
      cr_expect_str_neq(info.name, "probe", "the working directory is never searched");
      told = told || contains(info.reason, wanted);
    }
    cr_expect(told, "'%s'", relative);
  }
  const chorus::Context missing = searching("/nowhere/at/all");
  cr_expect(contains(info_of(missing, "/nowhere/at/all").reason, "No such file"));
  const chorus::Context context = searching("/nowhere/at/all:" + folder.path().string() + "::" + folder.path().string());
  size_t probes = 0;
  for (const chorus_plugin_info &info : context.plugins()) {
    cr_expect_str_neq(info.name, "remote", "only chorus-*.so are plugins");
    probes += std::strcmp(info.name, "probe") == 0;
  }
  cr_expect_eq(probes, 1u);
}

Test(plugins, a_file_is_loaded_once_and_names_are_unique) {
  const TemporaryFolder folder;
  copy_plugin("probe", folder.path());
  std::filesystem::create_symlink(folder / "chorus-probe.so", folder / "link.so");
  chorus::ContextSpec spec;
  spec.set_option("plugins", "explicit").add_plugin(folder / "chorus-probe.so").add_plugin(folder / "link.so");
  cr_expect_eq(chorus::Context(spec).plugins().size(), 2u, "reference and one probe");
  cr_expect_eq(chorus::Context(spec).plugins().size(), 2u, "again");
  spec.add_plugin(test_plugin("probe"));
  try {
    chorus::Context context(spec);
    cr_expect(false, "two plugins of one name");
  } catch (const chorus::Error &error) {
    cr_expect(contains(error.text(), "a plugin named 'probe' is already loaded"), "%s", error.text());
  }
  // A search after an explicit path: the explicit one keeps the name.
  setenv("CHORUS_PLUGIN_PATH", folder.path().c_str(), 1);
  chorus::ContextSpec both;
  both.add_plugin(test_plugin("probe"));
  const chorus::Context context(both);
  cr_expect_eq(info_of(context, folder / "chorus-probe.so").status, CHORUS_ALREADY_EXISTS);
}

Test(plugins, an_earlier_folder_hides_the_same_file_of_a_later_one) {
  const TemporaryFolder first, second;
  copy_plugin("probe", first.path());
  copy_plugin("probe", second.path());
  const chorus::Context context = searching(first.path().string() + ":" + second.path().string());
  cr_expect_eq(info_of(context, first / "chorus-probe.so").status, CHORUS_OK);
  const chorus_plugin_info hidden = info_of(context, second / "chorus-probe.so");
  cr_expect_eq(hidden.status, CHORUS_ALREADY_EXISTS);
  cr_expect(contains(hidden.reason, "hidden by " + (first / "chorus-probe.so")), "%s", hidden.reason);
}
