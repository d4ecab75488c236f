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
#include <system_error>

#include "chorus/base.h"

namespace chorus {
namespace {

namespace fs = std::filesystem;

bool is_writable_by_others(const struct stat &info) { return (info.st_mode & S_IWOTH) != 0; }

void warn_if_doubtful(const std::string &path, const struct stat &info, const Warn &warn) {
  if ((info.st_mode & S_IWGRP) != 0) warn(fmt::format("{} is writable by its group {}", path, info.st_gid));
  if (info.st_uid != 0 && info.st_uid != geteuid()) warn(fmt::format("{} is owned by user {}", path, info.st_uid));
}

struct SearchFolder {
  fs::path path;
  bool is_asked_for;  // by the environment: its absence is worth telling
};

void add_environment_folders(std::vector<SearchFolder> *folders) {
  const char *value = secure_getenv("CHORUS_PLUGIN_PATH");
  if (value == nullptr) return;
  const std::string text(value);
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(':', begin), text.size());
    if (end > begin) folders->push_back({text.substr(begin, end - begin), true});
    begin = end + 1;
  }
}

void add_own_folder(std::vector<SearchFolder> *folders) {
  Dl_info info;
  if (dladdr(reinterpret_cast<const void *>(&chorus_version), &info) == 0 || info.dli_fname == nullptr) return;
  std::error_code error;
  const fs::path library = fs::canonical(info.dli_fname, error);
  if (!error) folders->push_back({library.parent_path() / "chorus-plugins", false});
}

bool is_plugin_name(const std::string &name) { return name.starts_with("chorus-") && name.ends_with(".so"); }

std::vector<fs::path> plugin_files_of(const fs::path &folder, std::error_code *error) {
  std::vector<fs::path> files;
  for (fs::directory_iterator at(folder, *error), end; !*error && at != end; at.increment(*error)) {
    if (is_plugin_name(at->path().filename())) files.push_back(at->path());
  }
  std::ranges::sort(files);
  return files;
}

// A link may lead out of the folder; then the folder of the real file must be trustworthy too.
PluginCandidate candidate_of(const fs::path &file, const fs::path &folder, const Warn &warn) {
  std::error_code error;
  const fs::path real = fs::canonical(file, error);
  if (error) return {file.string(), "", error.message()};
  std::string refusal = ownership_refusal(real.string(), warn);
  if (refusal.empty() && real.parent_path() != folder) refusal = ownership_refusal(real.parent_path().string(), warn);
  return {file.string(), real.string(), refusal};
}

void add_plugins_of(const SearchFolder &where, const Warn &warn, std::vector<PluginCandidate> *out) {
  if (!where.path.is_absolute()) {  // would depend on the working directory
    out->push_back({where.path.string(), "", "CHORUS_PLUGIN_PATH holds a relative folder; write it absolute"});
    return;
  }
  std::error_code error;
  const fs::path folder = fs::canonical(where.path, error);
  const std::vector<fs::path> files = error ? std::vector<fs::path>() : plugin_files_of(folder, &error);
  if (error) {
    if (where.is_asked_for) out->push_back({where.path.string(), "", error.message()});
    return;
  }
  const std::string refusal = ownership_refusal(folder.string(), warn);
  if (!refusal.empty()) {
    out->push_back({where.path.string(), "", refusal});
    return;
  }
  for (const fs::path &file : files) out->push_back(candidate_of(file, folder, warn));
}

}  // namespace

std::string ownership_refusal(const std::string &path, const Warn &warn) {
  for (fs::path at = path;; at = at.parent_path()) {
    struct stat info;
    const bool is_itself = at == path;
    if (stat(at.c_str(), &info) != 0) return fmt::format("{} cannot be looked at", at.string());
    if (is_writable_by_others(info) && (is_itself || (info.st_mode & S_ISVTX) == 0)) {
      return fmt::format("{} is writable by every user, who could plant code; remove that permission (chmod o-w)",
                         at.string());
    }
    if (is_itself) warn_if_doubtful(path, info, warn);
    if (at == at.parent_path()) return "";
  }
}

std::vector<PluginCandidate> search_plugins(const Warn &warn) {
  std::vector<SearchFolder> folders;
  add_environment_folders(&folders);
  add_own_folder(&folders);
  folders.push_back({CHORUS_INSTALLED_PLUGIN_DIR, false});
  std::vector<PluginCandidate> out;
  for (const SearchFolder &folder : folders) add_plugins_of(folder, warn, &out);
  return out;
}

}  // namespace chorus
