// SPDX-License-Identifier: Apache-2.0
// The writer's life: claim the folder, reserve and head the shards, take bytes, sync, publish.
#include "checkpoint/writer.h"

#include <fcntl.h>

#include <algorithm>

#include "runtime/error.h"

namespace chorus::checkpoint {
namespace {

constexpr const char *kIndex = "model.safetensors.index.json";
constexpr uint64_t kCopyBlock = uint64_t{1} << 20;

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

Writer::Writer(Layout layout, std::string folder, WriterSettings settings)
    : layout_(std::move(layout)), settings_(std::move(settings)), staging_(std::move(folder), settings_.replace, settings_.resume),
      written_(std::make_unique<std::atomic<uint64_t>[]>(layout_.places.size())) {
  try {
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

void Writer::open_shard(uint32_t shard) {
  const Shard &plan = layout_.shards[shard];
  if (settings_.resume && take_over(shard)) return;
  const std::string path = staging_.path_of(plan.name);
  remove_quietly(path);  // of an interrupted run: the folder is locked, so nobody works on it
  shards_[shard].file = create_new(path);
  reserve(shards_[shard].file, plan.bytes);
  write_exactly(shards_[shard].file, plan.header.data(), plan.header.size(), 0);
}

bool Writer::take_over(uint32_t shard) {
  const Shard &plan = layout_.shards[shard];
  const std::string path = staging_.path_of(plan.name);
  const int descriptor = file_table().open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0);
  if (descriptor < 0) return false;
  File file(descriptor, path);
  struct stat info;
  if (file_table().fstat(descriptor, &info) != 0 || !S_ISREG(info.st_mode)) return false;
  if (static_cast<uint64_t>(info.st_size) != plan.bytes) return false;
  std::string header(plan.header.size(), '\0');
  read_exactly(file, header.data(), header.size(), 0);
  if (header != plan.header) return false;
  shards_[shard].file = std::move(file);
  shards_[shard].resumed = true;
  return true;
}

void Writer::write(size_t index, uint64_t offset, uint64_t bytes, const void *from) {
  if (index >= layout_.places.size()) {
    fail(CHORUS_OUT_OF_RANGE, "index is {}; {} tensors were declared", index, layout_.places.size());
  }
  if (finished_) fail(CHORUS_FAILED_PRECONDITION, "the writer of {} has finished", folder());
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
  if (finished_) fail(CHORUS_FAILED_PRECONDITION, "the writer of {} has finished already", folder());
  for (size_t i = 0; i < layout_.places.size(); ++i) {
    const uint64_t written = written_[i].load(std::memory_order_relaxed);
    if (written == layout_.places[i].bytes) continue;
    fail(CHORUS_FAILED_PRECONDITION, "tensor {} ('{}'): {} of {} bytes were written; each is to be written once", i,
         layout_.names[i], written, layout_.places[i].bytes);
  }
}

void Writer::write_side_file(const SideFile &side) {
  const std::string path = staging_.path_of(side.name);
  remove_quietly(path);
  const File file = create_new(path);
  if (side.path.empty()) {
    write_exactly(file, side.text.data(), side.text.size(), 0);
  } else {
    copy_file(side.path, file);
  }
  sync_file(file);
}

void Writer::finish() {
  check_complete();
  for (OpenShard &shard : shards_) sync_file(shard.file);
  std::vector<std::string> names;  // the one by which a reader finds the model comes last
  for (const SideFile &side : settings_.side_files) {
    write_side_file(side);
    names.push_back(side.name);
  }
  for (const Shard &shard : layout_.shards) names.push_back(shard.name);
  if (!layout_.index.empty()) {
    write_side_file({kIndex, "", layout_.index});
    names.emplace_back(kIndex);
  }
  remove_quietly(journal_path());
  staging_.publish(names);
  finished_ = true;
  shards_.clear();
}

void Writer::abandon() noexcept {
  shards_.clear();
  if (!settings_.keep) staging_.abandon();
}

}  // namespace chorus::checkpoint
