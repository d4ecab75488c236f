// SPDX-License-Identifier: Apache-2.0
// Opening a model: find its files, check every header, put the tensors in the order of the disk.
#include "checkpoint/model.h"

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <unordered_set>

#include "checkpoint/shard_index.h"
#include "runtime/json.h"
#include "runtime/locate.h"
#include "runtime/utf8.h"
#include "runtime/nearest.h"

namespace chorus::checkpoint {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxConfigBytes = uint64_t{16} << 20;
constexpr const char *kWeights = "model.safetensors";
constexpr const char *kIndex = "model.safetensors.index.json";
constexpr std::string_view kIndexEnd = ".safetensors.index.json";

// Names in a folder, sorted.
std::vector<std::string> list(const std::string &folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator at(folder, error), end; !error && at != end; at.increment(error)) {
    names.push_back(at->path().filename().string());
  }
  if (error) fail(CHORUS_PERMISSION_DENIED, "listing {}: {}", folder, error.message());
  std::ranges::sort(names);
  return names;
}

Header read_header(const File &file) {
  const uint64_t file_bytes = size_of(file);
  unsigned char first[kLengthBytes] = {};
  read_exactly(file, first, std::min(file_bytes, kLengthBytes), 0);
  std::string json(header_length(first, file_bytes, file.path()), '\0');
  read_exactly(file, json.data(), json.size(), kLengthBytes);
  return parse_header(json, file_bytes, file.path());
}

struct stat status_of(const File &file) {
  struct stat info;
  if (file_table().fstat(file.descriptor(), &info) != 0) fail(CHORUS_UNAVAILABLE, "looking at {} failed", file.path());
  return info;
}

// The one name with that end, "" when there is none or more.
std::string only_with_end(const std::vector<std::string> &names, std::string_view end) {
  std::string found;
  for (const std::string &name : names) {
    if (!name.ends_with(end)) continue;
    if (!found.empty()) return "";
    found = name;
  }
  return found;
}

[[noreturn]] void fail_no_weights(const std::string &folder, const std::vector<std::string> &names) {
  for (const std::string &name : names) refuse_pickle(folder + "/" + name);
  fail(CHORUS_NOT_FOUND, "{}: neither {} nor {} is there, nor exactly one other .safetensors file", folder, kWeights, kIndex);
}

}  // namespace

Model Model::open(const std::string &path) {
  const std::string found = locate(path);
  std::error_code ignored;
  Model model;
  if (fs::is_directory(found, ignored)) {
    model.open_folder(found);
  } else {
    model.open_file(found);
  }
  model.index_names();
  return model;
}

void Model::open_folder(const std::string &folder) {
  const std::vector<std::string> names = list(folder);
  const auto has = [&](const char *name) { return std::ranges::binary_search(names, name); };
  std::string name;
  if (has(kWeights)) name = kWeights;
  else if (has(kIndex)) name = kIndex;
  else if (name = only_with_end(names, kIndexEnd); name.empty()) name = only_with_end(names, ".safetensors");
  if (name.empty()) fail_no_weights(folder, names);
  open_file(folder + "/" + name);
}

void Model::open_file(const std::string &path) {
  refuse_pickle(path);
  if (path.ends_with(".gguf")) fail(CHORUS_UNIMPLEMENTED, "{}: GGUF is not read; safetensors is", path);
  folder_ = fs::path(path).parent_path().string();
  if (folder_.empty()) folder_ = ".";
  if (path.ends_with(kIndexEnd)) {
    add_shards(path);
  } else {
    add_single(open_for_reading(path));
  }
  read_config(path);
}

std::vector<Tensor> Model::add_file(File file) {
  const struct stat info = status_of(file);
  Header header = read_header(file);
  std::vector<Tensor> tensors;
  tensors.reserve(header.tensors.size());
  for (HeaderTensor &t : header.tensors) {
    const Role role = role_of(t.name);
    tensors.push_back({std::move(t.name), t.type, std::move(t.shape), static_cast<uint32_t>(files_.size()),
                       header.data_start + t.begin, t.end - t.begin, role});
  }
  metadata_.merge(header.metadata);
  stamps_.push_back({static_cast<uint64_t>(info.st_size), info.st_mtim.tv_sec, info.st_mtim.tv_nsec});
  files_.push_back(std::move(file));
  return tensors;
}

void Model::add_single(File file) { tensors_ = add_file(std::move(file)); }

void Model::add_shards(const std::string &index_path) {
  const auto wanted = parse_shard_index(read_text(index_path, kMaxIndexBytes), index_path);
  const Roots roots(folder_, index_path);
  for (const auto &[name, names] : wanted) {
    const std::unordered_set<std::string_view> listed(names.begin(), names.end());
    std::vector<Tensor> tensors = add_file(roots.open(name));
    // A tensor that the index puts elsewhere, or nowhere, is not part of the model.
    std::erase_if(tensors, [&](const Tensor &t) { return !listed.contains(t.name); });
    if (tensors.size() != names.size()) {
      std::unordered_set<std::string_view> found;
      for (const Tensor &t : tensors) found.insert(t.name);
      const auto missing = std::ranges::find_if(names, [&](const std::string &n) { return !found.contains(n); });
      fail(CHORUS_DATA_LOSS, "{}: tensor '{}' should be in {}, and is not", index_path, shown(*missing), files_.back().path());
    }
    std::ranges::move(tensors, std::back_inserter(tensors_));
  }
}

void Model::read_config(const std::string &anchor) {
  std::error_code ignored;
  if (!fs::exists(folder_ + "/config.json", ignored)) return;
  const File file = Roots(folder_, anchor).open("config.json");
  const uint64_t bytes = size_of(file);
  if (bytes > kMaxConfigBytes) {
    fail(CHORUS_DATA_LOSS, "{} has {} bytes; at most {} are accepted", file.path(), bytes, kMaxConfigBytes);
  }
  config_text_.resize(bytes);
  read_exactly(file, config_text_.data(), bytes, 0);
  try {
    config_ = parse_json(config_text_, file.path());
  } catch (const Failure &failure) {
    config_error_ = failure.error();
  }
}

const nlohmann::json &Model::config() const {
  if (config_error_ != nullptr) throw Failure(config_error_);
  if (config_text_.empty()) fail(CHORUS_NOT_FOUND, "{} has no config.json", folder_);
  return config_;
}

void Model::index_names() {
  by_name_.reserve(tensors_.size());
  for (size_t i = 0; i < tensors_.size(); ++i) by_name_.emplace(tensors_[i].name, i);
}

const Tensor *Model::find(std::string_view name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : &tensors_[found->second];
}

size_t Model::index_of(std::string_view name) const {
  if (const Tensor *tensor = find(name)) return static_cast<size_t>(tensor - tensors_.data());
  std::vector<std::string> known;
  for (const Tensor &tensor : tensors_) known.push_back(tensor.name);
  fail(CHORUS_NOT_FOUND, "{} has no tensor '{}'{}", folder_, name, did_you_mean(name, known));
}

void Model::read(const Tensor &tensor, uint64_t offset, uint64_t bytes, void *to) const {
  if (offset > tensor.bytes || bytes > tensor.bytes - offset) {
    fail(CHORUS_OUT_OF_RANGE, "tensor '{}' has {} bytes; {} from byte {} on were asked for", tensor.name, tensor.bytes, bytes,
         offset);
  }
  read_exactly(files_[tensor.file], to, bytes, tensor.offset + offset);
}

void Model::check_unchanged() const {
  for (size_t i = 0; i < files_.size(); ++i) {
    const struct stat info = status_of(files_[i]);
    const Stamp &stamp = stamps_[i];
    if (static_cast<uint64_t>(info.st_size) != stamp.bytes || info.st_mtim.tv_sec != stamp.seconds ||
        info.st_mtim.tv_nsec != stamp.nanoseconds) {
      fail(CHORUS_FAILED_PRECONDITION, "{} was changed while it was read; start again", files_[i].path());
    }
  }
}

}  // namespace chorus::checkpoint
