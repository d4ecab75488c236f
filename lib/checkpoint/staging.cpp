// SPDX-License-Identifier: Apache-2.0
// Claiming, locking and publishing the hidden folder. A missing or empty target is replaced by one rename; one with files by
// an exchange of the two folders; where neither is possible (the target is mounted, holds folders, or is the working
// directory) files move one by one, the old way to find the model removed first.
#include "checkpoint/staging.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>

#include "runtime/error.h"

namespace chorus::checkpoint {
namespace {

namespace fs = std::filesystem;

constexpr const char *kInside = ".partial";
constexpr const char *kSingle = "model.safetensors", *kIndex = "model.safetensors.index.json";

// Names that interrupted runs leave; they do not make a folder occupied.
bool is_partial(std::string_view name) { return name.starts_with('.') && name.ends_with(".partial"); }

// A name the writer gives to weights: model.safetensors, model-00001-of-00002.safetensors, and their index.
bool is_weights(std::string_view name) {
  if (name == kIndex) return true;
  if (!name.starts_with("model") || !name.ends_with(".safetensors")) return false;
  const std::string_view middle = name.substr(5, name.size() - 5 - std::string_view(".safetensors").size());
  return middle.empty() || (middle.starts_with('-') && middle.find("-of-") != std::string_view::npos);
}

std::vector<fs::directory_entry> list(const std::string &folder) {
  std::vector<fs::directory_entry> entries;
  std::error_code error;
  for (fs::directory_iterator at(folder, error), end; !error && at != end; at.increment(error)) entries.push_back(*at);
  if (error) fail(CHORUS_PERMISSION_DENIED, "listing {}: {}", folder, error.message());
  return entries;
}

std::string name_of(const fs::directory_entry &entry) { return entry.path().filename().string(); }

// Missing parents first.
void make_folders(const fs::path &folder, std::vector<std::string> *made) {
  std::error_code ignored;
  if (folder.empty() || fs::is_directory(folder, ignored)) return;
  make_folders(folder.parent_path(), made);
  make_folder(folder.string());
  made->push_back(folder.string());
}

// Absolute, links resolved, without a slash at the end.
std::string resolved(const std::string &target) {
  if (target.empty()) fail(CHORUS_INVALID_ARGUMENT, "folder is empty");
  std::error_code error;
  fs::path path = fs::weakly_canonical(fs::absolute(target), error);
  if (error) fail(CHORUS_INVALID_ARGUMENT, "folder {}: {}", target, error.message());
  if (!path.has_filename()) path = path.parent_path();
  if (fs::is_symlink(path, error)) fail(CHORUS_INVALID_ARGUMENT, "{} is a link to what is not there", target);
  if (fs::exists(path, error) && !fs::is_directory(path, error)) fail(CHORUS_INVALID_ARGUMENT, "{} is not a folder", target);
  return path.string();
}

dev_t device_of(const std::string &path) {
  struct stat info;
  return ::stat(path.c_str(), &info) == 0 ? info.st_dev : 0;
}

bool is_working_directory(const std::string &folder) {
  struct stat here, there;
  return ::stat(".", &here) == 0 && ::stat(folder.c_str(), &there) == 0 && here.st_dev == there.st_dev && here.st_ino == there.st_ino;
}

// The descriptor refers to what is at the path now: not to a folder that was renamed away before the lock was ours.
bool is_at(const File &folder) {
  struct stat held, named;
  return ::fstat(folder.descriptor(), &held) == 0 && ::lstat(folder.path().c_str(), &named) == 0 && held.st_dev == named.st_dev &&
         held.st_ino == named.st_ino;
}

// All files of the folder but those named `kept`.
void remove_files(const std::string &folder, const std::vector<std::string> &kept = {}) {
  for (const fs::directory_entry &entry : list(folder)) {
    if (std::ranges::find(kept, name_of(entry)) == kept.end()) remove_quietly(entry.path().string());
  }
}

}  // namespace

Staging::Staging(std::string target, bool replace, bool take_over) : target_(resolved(target)) {
  const fs::path path(target_);
  parent_ = path.parent_path().string();
  std::error_code ignored;
  if (fs::is_directory(path, ignored)) {
    for (const fs::directory_entry &entry : list(target_)) {
      if (replace || is_partial(name_of(entry))) continue;
      fail(CHORUS_ALREADY_EXISTS, "{} is not empty (it holds {}); choose a new folder, or ask to replace", target_, name_of(entry));
    }
    const bool beside = parent_ != target_ && device_of(parent_) == device_of(target_) && ::access(parent_.c_str(), W_OK | X_OK) == 0;
    folder_ = beside ? parent_ + "/." + path.filename().string() + ".partial" : target_ + "/" + kInside;
  } else {
    folder_ = parent_ + "/." + path.filename().string() + ".partial";
  }
  try {
    make_folders(parent_, &made_folders_);
    claim(take_over);
  } catch (...) {
    lock_ = File();
    for (auto folder = made_folders_.rbegin(); folder != made_folders_.rend(); ++folder) ::rmdir(folder->c_str());
    throw;
  }
}

void Staging::claim(bool take_over) {
  for (int attempt = 0; !lock(); ++attempt) {
    if (attempt == 100) fail(CHORUS_ABORTED, "another writer works on {}; wait for it, or choose another folder", target_);
  }
  if (!take_over) remove_files(folder_);
}

// False when the folder was gone again before the lock was ours.
bool Staging::lock() {
  if (file_table().mkdir(folder_.c_str(), 0755) != 0 && errno != EEXIST) make_folder(folder_);  // fails with words
  const int descriptor = file_table().open(folder_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW, 0);
  if (descriptor < 0 && errno == ENOENT) return false;
  if (descriptor < 0) fail(CHORUS_INVALID_ARGUMENT, "{} is needed for unfinished files, and is not a folder that can be opened", folder_);
  lock_ = File(descriptor, folder_);
  // File systems without locks answer otherwise; there the name alone must do.
  if (::flock(descriptor, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
    fail(CHORUS_ABORTED, "another writer works on {}; wait for it, or choose another folder", target_);
  }
  return is_at(lock_);
}

bool Staging::is_empty_target() const {
  std::error_code ignored;
  return !fs::exists(target_, ignored) || (!is_working_directory(target_) && list(target_).empty());
}

void Staging::publish(const std::vector<std::string> &names) {
  remove_files(folder_, names);  // of an interrupted run with another plan
  sync_folder(folder_);
  if (folder_ != target_ + "/" + kInside && is_empty_target()) {
    struct stat old;
    if (::stat(target_.c_str(), &old) == 0) static_cast<void>(::chmod(folder_.c_str(), old.st_mode & 07777));
    rename_over(folder_, target_);
    sync_folder(parent_);
  } else if (!exchange(names)) {
    move_files(names);
  }
  lock_ = File();
}

// The two folders swap names at once. What is in the target and belongs to no model goes along, as a second link.
bool Staging::exchange(const std::vector<std::string> &names) {
  if (folder_ == target_ + "/" + kInside || is_working_directory(target_)) return false;
  const std::vector<fs::directory_entry> old = list(target_);
  std::error_code error;
  if (std::ranges::any_of(old, [&](const auto &entry) { return entry.is_directory(error) && !entry.is_symlink(error); })) return false;
  for (const fs::directory_entry &entry : old) {
    const std::string name = name_of(entry);
    if (is_weights(name) || is_partial(name) || std::ranges::find(names, name) != names.end()) continue;
    if (::linkat(AT_FDCWD, entry.path().c_str(), AT_FDCWD, path_of(name).c_str(), 0) != 0 && errno != EEXIST) return false;
  }
  struct stat info;
  if (::stat(target_.c_str(), &info) == 0) static_cast<void>(::chmod(folder_.c_str(), info.st_mode & 07777));
  sync_folder(folder_);
  if (!exchange_names(folder_, target_)) return false;
  sync_folder(parent_);
  remove_files(folder_);  // the old model's
  ::rmdir(folder_.c_str());
  return true;
}

void Staging::move_files(const std::vector<std::string> &names) {
  // A reader must not find the old index with new shards, nor old weights with a new config.
  remove_quietly(target_ + "/" + kIndex);
  remove_quietly(target_ + "/" + kSingle);
  sync_folder(target_);
  size_t moved = 0;
  try {
    for (; moved < names.size(); ++moved) {
      if (moved + 1 == names.size()) sync_folder(target_);
      rename_over(path_of(names[moved]), target_ + "/" + names[moved]);
    }
  } catch (...) {
    for (size_t i = 0; i < moved; ++i) remove_quietly(target_ + "/" + names[i]);
    throw;
  }
  sync_folder(target_);
  for (const fs::directory_entry &entry : list(target_)) {
    const bool ours = std::ranges::find(names, name_of(entry)) != names.end();
    if (is_weights(name_of(entry)) && !ours) remove_quietly(entry.path().string());
  }
  remove_files(folder_);
  ::rmdir(folder_.c_str());
}

void Staging::abandon() noexcept {
  try {
    remove_files(folder_);
  } catch (...) {  // what cannot be listed stays, hidden
  }
  ::rmdir(folder_.c_str());
  lock_ = File();
  for (auto folder = made_folders_.rbegin(); folder != made_folders_.rend(); ++folder) ::rmdir(folder->c_str());
}

}  // namespace chorus::checkpoint
