// SPDX-License-Identifier: Apache-2.0
// The writer's life: claim the folder, reserve and head the shards, take bytes, publish. What has its final name is synced.
#include "checkpoint/writer.h"

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

constexpr const char *kIndex = "model.safetensors.index.json";
constexpr uint64_t kCopyBlock = uint64_t{1} << 20;

bool is_partial(std::string_view name) { return name.starts_with('.') && name.ends_with(".partial"); }

// A name this writer gives to weights: model.safetensors, model-00001-of-00002.safetensors.
bool is_weights(std::string_view name) {
  if (!name.starts_with("model") || !name.ends_with(".safetensors")) return false;
  const std::string_view middle = name.substr(5, name.size() - 5 - std::string_view(".safetensors").size());
  return middle.empty() || (middle.starts_with('-') && middle.find("-of-") != std::string_view::npos);
}

std::vector<std::string> list(const std::string &folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator at(folder, error), end; !error && at != end; at.increment(error)) {
    names.push_back(at->path().filename().string());
  }
  if (error) fail(CHORUS_PERMISSION_DENIED, "listing {}: {}", folder, error.message());
  return names;
}

// Missing parents first.
void make_folders(const fs::path &folder, std::vector<std::string> *made) {
  std::error_code ignored;
  if (folder.empty() || fs::is_directory(folder, ignored)) return;
  make_folders(folder.parent_path(), made);
  make_folder(folder.string());
  made->push_back(folder.string());
}

File lock_folder(const std::string &folder) {
  const int descriptor = file_table().open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
  if (descriptor < 0) fail(CHORUS_INVALID_ARGUMENT, "{} is not a folder that can be opened", folder);
  File lock(descriptor, folder);
  // File systems without locks answer otherwise; there the names alone must do.
  if (::flock(descriptor, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
    fail(CHORUS_ABORTED, "another writer works in {}; wait for it, or choose another folder", folder);
  }
  return lock;
}

void copy_file(const std::string &from_path, const File &to) {
  const File from = open_for_reading(from_path);
  const uint64_t bytes = size_of(from);
  std::vector<char> block(std::min(bytes, kCopyBlock));
  for (uint64_t at = 0; at < bytes; at += block.size()) {
    const uint64_t part = std::min<uint64_t>(block.size(), bytes - at);
    read_exactly(from, block.data(), part, at);
    write_exactly(to, block.data(), part, at);
  }
}

}  // namespace

std::string Writer::path_of(const std::string &name) const { return folder_ + "/" + name; }
std::string Writer::partial_of(const std::string &name) const { return folder_ + "/." + name + ".partial"; }

Writer::Writer(Layout layout, std::string folder, WriterSettings settings)
    : layout_(std::move(layout)), folder_(std::move(folder)), settings_(std::move(settings)),
      written_(std::make_unique<std::atomic<uint64_t>[]>(layout_.places.size())) {
  try {
    claim_folder();
    shards_.resize(layout_.shards.size());
    for (uint32_t s = 0; s < shards_.size(); ++s) open_shard(s);
  } catch (...) {
    abandon();
    throw;
  }
}

Writer::~Writer() {
  if (!finished_) abandon();
}

void Writer::claim_folder() {
  if (folder_.empty()) fail(CHORUS_INVALID_ARGUMENT, "folder is empty");
  while (folder_.size() > 1 && folder_.back() == '/') folder_.pop_back();
  make_folders(folder_, &made_folders_);
  lock_ = lock_folder(folder_);
  for (const std::string &name : list(folder_)) {
    if (!settings_.replace && !is_partial(name)) {
      fail(CHORUS_ALREADY_EXISTS, "{} is not empty (it holds {}); choose a new folder, or ask to replace", folder_, name);
    }
  }
}

void Writer::open_shard(uint32_t shard) {
  const Shard &plan = layout_.shards[shard];
  if (settings_.resume && take_over(shard)) return;
  const std::string partial = partial_of(plan.name);
  remove_quietly(partial);  // of an interrupted run: the folder is locked, so nobody works on it
  shards_[shard].file = create_new(partial);
  pending_.push_back(partial);
  reserve(shards_[shard].file, plan.bytes);
  write_exactly(shards_[shard].file, plan.header.data(), plan.header.size(), 0);
}

bool Writer::take_over(uint32_t shard) {
  const Shard &plan = layout_.shards[shard];
  const std::string partial = partial_of(plan.name);
  const int descriptor = file_table().open(partial.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0);
  if (descriptor < 0) return false;
  File file(descriptor, partial);
  struct stat info;
  if (file_table().fstat(descriptor, &info) != 0 || !S_ISREG(info.st_mode)) return false;
  if (static_cast<uint64_t>(info.st_size) != plan.bytes) return false;
  std::string header(plan.header.size(), '\0');
  read_exactly(file, header.data(), header.size(), 0);
  if (header != plan.header) return false;
  pending_.push_back(partial);
  shards_[shard].file = std::move(file);
  shards_[shard].resumed = true;
  return true;
}

void Writer::write(size_t index, uint64_t offset, uint64_t bytes, const void *from) {
  if (index >= layout_.places.size()) {
    fail(CHORUS_OUT_OF_RANGE, "index is {}; {} tensors were declared", index, layout_.places.size());
  }
  if (finished_) fail(CHORUS_FAILED_PRECONDITION, "the writer of {} has finished", folder_);
  const Place &place = layout_.places[index];
  if (offset > place.bytes || bytes > place.bytes - offset) {
    fail(CHORUS_OUT_OF_RANGE, "tensor {} has {} bytes; {} from byte {} on were given", index, place.bytes, bytes, offset);
  }
  write_exactly(shards_[place.shard].file, from, bytes, place.offset + offset);
  start_writing(shards_[place.shard].file, place.offset + offset, bytes);  // so that finish() has little left to wait for
  mark_written(index, bytes);
}

void Writer::mark_written(size_t index, uint64_t bytes) { written_[index].fetch_add(bytes, std::memory_order_relaxed); }

void Writer::sync(uint32_t shard) { sync_file(shards_[shard].file); }

void Writer::check_complete() const {
  if (finished_) fail(CHORUS_FAILED_PRECONDITION, "the writer of {} has finished already", folder_);
  for (size_t i = 0; i < layout_.places.size(); ++i) {
    const uint64_t written = written_[i].load(std::memory_order_relaxed);
    if (written == layout_.places[i].bytes) continue;
    fail(CHORUS_FAILED_PRECONDITION, "tensor {} ('{}'): {} of {} bytes were written; each is to be written once", i,
         layout_.names[i], written, layout_.places[i].bytes);
  }
}

void Writer::write_side_file(const SideFile &side) {
  const std::string partial = partial_of(side.name);
  remove_quietly(partial);
  const File file = create_new(partial);
  pending_.push_back(partial);
  if (side.path.empty()) {
    write_exactly(file, side.text.data(), side.text.size(), 0);
  } else {
    copy_file(side.path, file);
  }
  sync_file(file);
}

void Writer::publish(const std::string &name) {
  rename_over(partial_of(name), path_of(name));
  pending_.push_back(path_of(name));
}

void Writer::finish() {
  check_complete();
  for (OpenShard &shard : shards_) sync_file(shard.file);
  std::vector<SideFile> sides = settings_.side_files;
  if (!layout_.index.empty()) sides.push_back({kIndex, "", layout_.index});
  for (const SideFile &side : sides) write_side_file(side);
  // A reader must not find the old index with new shards under the same names.
  if (!layout_.index.empty()) remove_quietly(path_of(kIndex));
  sync_folder(folder_);
  for (const Shard &shard : layout_.shards) {
    if (!layout_.index.empty()) publish(shard.name);
  }
  for (const SideFile &side : sides) {
    if (side.name != kIndex) publish(side.name);
  }
  sync_folder(folder_);
  publish(layout_.index.empty() ? layout_.shards[0].name : kIndex);  // from here on the model is there
  sync_folder(folder_);
  finished_ = true;
  shards_.clear();
  remove_stale();
  lock_ = File();
}

// Weights of a model that was replaced, and partial files of interrupted runs.
void Writer::remove_stale() noexcept {
  try {
    for (const std::string &name : list(folder_)) {
      const bool ours = std::ranges::any_of(layout_.shards, [&](const Shard &shard) { return shard.name == name; });
      const bool old_index = name == kIndex && layout_.index.empty();
      if ((is_weights(name) && !ours) || old_index || (is_partial(name) && is_weights(name.substr(1, name.size() - 9)))) {
        remove_quietly(path_of(name));
      }
    }
  } catch (...) {  // the new model is complete; what could not be listed stays
  }
}

void Writer::abandon() noexcept {
  shards_.clear();
  if (settings_.keep) return;
  for (const std::string &path : pending_) remove_quietly(path);
  for (auto folder = made_folders_.rbegin(); folder != made_folders_.rend(); ++folder) ::rmdir(folder->c_str());
}

}  // namespace chorus::checkpoint
