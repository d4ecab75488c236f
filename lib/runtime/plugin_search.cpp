// SPDX-License-Identifier: Apache-2.0
// The search path and the permission rules (DESIGN, "The plugin ABI"): the choice of file is what is guarded.
#include "runtime/plugin_search.h"

#include <dlfcn.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <set>

#include "chorus/base.h"

namespace chorus {
namespace {

namespace fs = std::filesystem;

bool is_writable_by_others(const struct stat &info) { return (info.st_mode & S_IWOTH) != 0; }

void warn_if_doubtful(const std::string &path, const struct stat &info, const Warn &warn) {
  if ((info.st_mode & S_IWGRP) != 0 && info.st_gid != 0) warn(fmt::format("{} is writable by its group", path));
  if (info.st_uid != 0 && info.st_uid != geteuid()) warn(fmt::format("{} is owned by user {}", path, info.st_uid));
}

// Folders of CHORUS_PLUGIN_PATH; relative ones are refused, since they would depend on the working directory.
void add_environment_folders(std::vector<fs::path> *folders, std::vector<PluginCandidate> *refused) {
  const char *value = secure_getenv("CHORUS_PLUGIN_PATH");
  if (value == nullptr) return;
  const std::string text(value);
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(':', begin), text.size());
    const fs::path folder = text.substr(begin, end - begin);
    if (folder.is_absolute()) {
      folders->push_back(folder);
    } else if (!folder.empty()) {
      refused->push_back({folder.string(), "CHORUS_PLUGIN_PATH holds a relative folder; write it absolute"});
    }
    begin = end + 1;
  }
}

void add_own_folder(std::vector<fs::path> *folders) {
  Dl_info info;
  if (dladdr(reinterpret_cast<const void *>(&chorus_version), &info) == 0 || info.dli_fname == nullptr) return;
  std::error_code error;
  const fs::path library = fs::canonical(info.dli_fname, error);
  if (!error) folders->push_back(library.parent_path() / "chorus-plugins");
}

bool is_plugin_name(const std::string &name) { return name.starts_with("chorus-") && name.ends_with(".so"); }

void add_plugins_of(const fs::path &folder, const Warn &warn, std::set<std::string> *names,
                    std::vector<PluginCandidate> *out) {
  std::error_code error;
  std::vector<fs::path> files;
  for (fs::directory_iterator at(folder, error), end; !error && at != end; at.increment(error)) {
    if (is_plugin_name(at->path().filename())) files.push_back(at->path());
  }
  std::ranges::sort(files);
  for (const fs::path &file : files) {
    if (!names->insert(file.filename()).second) continue;
    const fs::path real = fs::canonical(file, error);
    if (error) {
      out->push_back({file.string(), error.message()});
    } else {
      out->push_back({real.string(), ownership_refusal(real.string(), warn)});
    }
  }
}

}  // namespace

std::string ownership_refusal(const std::string &path, const Warn &warn) {
  const fs::path folder = fs::path(path).parent_path();
  for (fs::path at = path;; at = at.parent_path()) {
    struct stat info;
    if (stat(at.c_str(), &info) != 0) return fmt::format("{} cannot be looked at", at.string());
    const bool is_near = at == path || at == folder;
    if (is_writable_by_others(info) && (is_near || (info.st_mode & S_ISVTX) == 0)) {
      return fmt::format("{} is writable by every user, who could plant code; remove that permission (chmod o-w)",
                         at.string());
    }
    if (is_near) warn_if_doubtful(at.string(), info, warn);
    if (at == at.parent_path()) return "";
  }
}

std::vector<PluginCandidate> search_plugins(const Warn &warn) {
  std::vector<fs::path> folders;
  std::vector<PluginCandidate> out;
  add_environment_folders(&folders, &out);
  add_own_folder(&folders);
  folders.emplace_back(CHORUS_INSTALLED_PLUGIN_DIR);
  std::set<std::string> names;
  for (const fs::path &folder : folders) add_plugins_of(folder, warn, &names, &out);
  return out;
}

}  // namespace chorus
