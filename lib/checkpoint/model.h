// SPDX-License-Identifier: Apache-2.0
// A model on disk, opened: its files stay open, every header is checked, tensors are found by name and read by pread.
#pragma once
#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <unordered_map>
#include <vector>

#include "checkpoint/header.h"
#include "checkpoint/role.h"
#include "runtime/error.h"
#include "runtime/files.h"

namespace chorus::checkpoint {

struct Tensor {
  std::string name;
  const StorageType *type;
  std::vector<int64_t> shape;
  uint32_t file;    // index into files()
  uint64_t offset;  // first byte of its data in that file
  uint64_t bytes;
  Role role;
};

// Immutable after open(); any thread.
class Model {
 public:
  // A folder, a .safetensors file, an index, or "org/name@revision" (chorus_checkpoint_open).
  static Model open(const std::string &path);

  const std::string &folder() const { return folder_; }
  const std::vector<File> &files() const { return files_; }
  const std::vector<Tensor> &tensors() const { return tensors_; }  // by file, then offset
  const Metadata &metadata() const { return metadata_; }
  const std::string &config_text() const { return config_text_; }  // "" without config.json
  // config.json parsed. Fails NOT_FOUND without one, DATA_LOSS where it is no JSON (weights without it still open).
  const nlohmann::json &config() const;

  // NULL when there is none of that name.
  const Tensor *find(std::string_view name) const;
  // Fails NOT_FOUND naming the nearest.
  size_t index_of(std::string_view name) const;

  // `bytes` of the tensor's data from `offset` of it on. Fails OUT_OF_RANGE, DATA_LOSS.
  void read(const Tensor &tensor, uint64_t offset, uint64_t bytes, void *to) const;

  // Fails FAILED_PRECONDITION naming a file whose size or time of change is not what it was at open().
  void check_unchanged() const;

 private:
  struct Stamp {
    uint64_t bytes;
    int64_t seconds, nanoseconds;
  };
  void open_folder(const std::string &folder);
  void open_file(const std::string &path);
  void add_single(File file);
  void add_shards(const std::string &index_path);
  // All tensors of a file, in the order of their data.
  std::vector<Tensor> add_file(File file);
  void read_config(const std::string &anchor);
  void index_names();

  std::string folder_;
  std::vector<File> files_;
  std::vector<Stamp> stamps_;
  std::vector<Tensor> tensors_;
  std::unordered_map<std::string_view, size_t> by_name_;
  Metadata metadata_;
  std::string config_text_;
  nlohmann::json config_;
  std::shared_ptr<const Error> config_error_;
};

}  // namespace chorus::checkpoint
