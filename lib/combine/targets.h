// SPDX-License-Identifier: Apache-2.0
// Files of distillation targets: safetensors whose metadata say what they are, written durably, read with suspicion.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "checkpoint/model.h"
#include "checkpoint/writer.h"
#include "chorus/distill.h"
#include "combine/packed_target.h"
#include "runtime/context.h"
#include "runtime/device.h"

namespace chorus::combine {

// A description whose weights it owns.
struct TargetsInfo {
  chorus_targets_info info;
  std::vector<double> weights;
};

// Fills in defaults. Fails INVALID_ARGUMENT naming the field.
TargetsInfo checked_targets_info(const chorus_targets_info &info);
checkpoint::Metadata metadata_of(const TargetsInfo &info);
// Fails DATA_LOSS, naming `file` and the key.
TargetsInfo info_of(const checkpoint::Metadata &metadata, const std::string &file);
// The tensors of such a file.
std::vector<checkpoint::DeclaredTensor> tensors_of(const chorus_targets_info &info);
inline bool is_packed(const chorus_targets_info &info) { return info.form == CHORUS_TARGETS_PACKED; }

class TargetsWriter {
 public:
  TargetsWriter(std::shared_ptr<const Context> context, const chorus_targets_info &info, const std::string &folder);

  void write_rows(const chorus_tensor *log_probs);
  void write_top(const chorus_tensor *ids, const chorus_tensor *log_probs, const chorus_tensor *tail);
  void finish();

 private:
  void check_room(int64_t rows) const;
  void write_targets(const std::vector<SparseTarget> &targets);
  void write_dense(const std::vector<double> &log_probs, int64_t rows);

  std::shared_ptr<const Context> context_;
  DevicePtr host_;
  TargetsInfo info_;
  checkpoint::Writer writer_;
  int64_t next_ = 0;
};

class Targets {
 public:
  Targets(std::shared_ptr<const Context> context, const std::string &path);

  const chorus_targets_info &info() const { return info_.info; }
  void check_fingerprint(uint64_t low, uint64_t high) const;
  void read_top(int64_t first, const chorus_tensor *ids, const chorus_tensor *log_probs, const chorus_tensor *tail) const;
  void read_rows(int64_t first, const chorus_tensor *log_probs) const;

 private:
  void check_range(int64_t first, int64_t rows) const;
  std::vector<SparseTarget> read_packed(int64_t first, int64_t rows) const;
  std::vector<SparseTarget> read_plain(int64_t first, int64_t rows) const;

  std::shared_ptr<const Context> context_;
  DevicePtr host_;
  checkpoint::Model model_;
  TargetsInfo info_;
};

}  // namespace chorus::combine
