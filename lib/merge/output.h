// SPDX-License-Identifier: Apache-2.0
// Where a merge's tensors go: what the execution calls, and a model folder as one.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "merge/checksums.h"
#include "merge/journal.h"
#include "merge/plan.h"
#include "runtime/context.h"

namespace chorus::merge {

// Pieces come from many threads; the other calls from the one that runs the merge, between rounds of pieces.
class Output {
 public:
  virtual ~Output() = default;
  // Made already, by a run that was interrupted.
  virtual bool has(size_t) const { return false; }
  virtual void write(size_t job, uint64_t offset, uint64_t bytes, const void *from) = 0;
  // After a round: all bytes of `job` up to `end` are written.
  virtual void written(size_t, uint64_t) {}
  // Work on what is written that may run beside the next round: taken, run piece by piece on any thread, noted.
  virtual size_t take_work() { return 0; }
  virtual void run_work(size_t) {}
  virtual void note_work() {}
};

// A folder, by checkpoint::Writer; with checksums, a journal and at the end the manifest.
class ModelOutput : public Output {
 public:
  ModelOutput(const Context &context, const Plan &plan, const std::string &folder);

  bool has(size_t job) const override { return has_[job]; }
  void write(size_t job, uint64_t offset, uint64_t bytes, const void *from) override { writer_.write(job, offset, bytes, from); }
  void written(size_t job, uint64_t end) override;
  size_t take_work() override;
  void run_work(size_t index) override { checksums_.advance(taken_[index].job, taken_[index].end); }
  void note_work() override;

  // Publishes the model.
  void finish();

 private:
  struct Range {
    size_t job;
    uint64_t end;
  };
  void take_up();

  const Context &context_;
  const Plan &plan_;
  checkpoint::Writer writer_;
  Checksums checksums_;
  std::optional<Journal> journal_;
  std::vector<bool> has_;
  std::vector<Range> waiting_, taken_;  // to be hashed
};

}  // namespace chorus::merge
