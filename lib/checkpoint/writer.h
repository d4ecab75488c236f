// SPDX-License-Identifier: Apache-2.0
// Writes a model durably: in a hidden folder beside the target, space reserved, headers first, data at their offsets in any
// order, then all synced and the folder renamed. Destroyed before finish(), nothing remains.
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "checkpoint/layout.h"
#include "checkpoint/staging.h"
#include "runtime/files.h"

namespace chorus::checkpoint {

// A file beside the weights: a copy of `path`, or `text` when `path` is "".
struct SideFile {
  std::string name, path, text;
};

struct WriterSettings {
  std::vector<SideFile> side_files;
  bool replace = false;  // the folder need not be empty
  bool resume = false;   // take over the files of an interrupted run; their data may be there already
  bool keep = false;     // leave the hidden folder when destroyed before finish(), for a later run to take over
};

// A file of the hidden folder in which its user may note what is done; finish() removes it.
constexpr const char *kJournalName = ".journal";

class Writer {
 public:
  Writer(Layout layout, std::string folder, WriterSettings settings);
  ~Writer();
  Writer(const Writer &) = delete;
  Writer &operator=(const Writer &) = delete;

  const Layout &layout() const { return layout_; }
  const std::string &folder() const { return staging_.target(); }
  std::string journal_path() const { return staging_.path_of(kJournalName); }
  const File &shard_file(uint32_t shard) const { return shards_[shard].file; }
  // True when resume found the file of this shard, complete in size and with the same header.
  bool resumed(uint32_t shard) const { return shards_[shard].resumed; }

  // `bytes` of tensor `index` from `offset` of its data on; each byte once. Any thread. Fails OUT_OF_RANGE and as pwrite.
  void write(size_t index, uint64_t offset, uint64_t bytes, const void *from);
  // Counts bytes as written that an interrupted run has left there. Any thread.
  void mark_written(size_t index, uint64_t bytes);
  // Makes what was written to a shard so far durable (before a journal says so).
  void sync(uint32_t shard);
  // One more file beside the weights, known only now.
  void add_side_file(SideFile side) { settings_.side_files.push_back(std::move(side)); }
  // Fails FAILED_PRECONDITION when bytes are missing, naming the tensor.
  void finish();

 private:
  struct OpenShard {
    File file;
    bool resumed = false;
  };
  void open_shard(uint32_t shard);
  bool take_over(uint32_t shard);
  void check_complete() const;
  void write_side_file(const SideFile &side);
  void abandon() noexcept;

  Layout layout_;
  WriterSettings settings_;
  Staging staging_;
  std::vector<OpenShard> shards_;
  std::unique_ptr<std::atomic<uint64_t>[]> written_;  // bytes per tensor
  bool finished_ = false;
};

}  // namespace chorus::checkpoint
