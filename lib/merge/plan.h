// SPDX-License-Identifier: Apache-2.0
// The plan of a merge, made from headers alone: every tensor of the output with what it is made of, which kernels make
// it, what is read, written and needed. All that can be wrong is found here, before a byte is written.
#pragma once
#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/layout.h"
#include "checkpoint/writer.h"
#include "merge/kernels.h"
#include "merge/structure.h"
#include "merge/tokenizer/output_vocabulary.h"

namespace chorus::merge {

constexpr uint64_t kDefaultMemory = uint64_t{1} << 30;
constexpr uint64_t kHistogramBins = 65536;    // of a histogram of keys
constexpr uint64_t kScratchAlignment = 64;    // of what kernels get
constexpr uint64_t kLeastMemory = uint64_t{64} << 20;

struct MergeSettings {
  std::string recipe, recipe_name = "recipe";
  std::string output;
  uint64_t memory = kDefaultMemory;
  uint64_t max_shard_bytes = checkpoint::kDefaultShardBytes;
  uint64_t seed = 0;
  chorus_merge_numerics numerics = CHORUS_NUMERICS_ACCURATE;
  bool replace = false;
  bool resume = false;   // take up what an interrupted run left, and leave it when interrupted again
  std::string command;   // for the manifest and the model card; "": not known
};

// A tensor of an input; `tensor` NULL: its weight is 0, it is not read.
struct Operand {
  const checkpoint::Model *model = nullptr;
  const checkpoint::Tensor *tensor = nullptr;
  std::shared_ptr<const TensorView> view = nullptr;  // what reads it, where no file holds it as it is
  const void *data = nullptr;  // in memory, instead of a model
  bool is_zero = false;        // all zeros, instead of these
};

enum class JobKind {
  kCopy,     // the bytes of inputs[0]
  kCompare,  // the same, of a type without arithmetic: all inputs must be equal
  kMerge,
};

// One tensor of the output.
struct Job {
  JobKind kind = JobKind::kMerge;
  std::string name;
  const checkpoint::StorageType *type = nullptr;
  chorus_dtype work = 0;  // NUMERICS_MERGEKIT: the format of its arithmetic
  std::vector<int64_t> shape;
  uint64_t elements = 0;
  std::vector<Operand> inputs;
  Operand base;
  Program program;
  std::vector<size_t> reduce_kernels;  // of each pass, in Plan::kernels
  size_t apply_kernel = 0;
  uint64_t piece = 0;  // elements of a piece: 4096 times a power of two, or whole rows

  uint64_t bytes() const { return elements * type->bits() / 8; }
  // Bytes of all operands: what one pass reads.
  uint64_t operand_bytes() const;
  size_t operand_count() const;
  // Elements of a row: along the program's axis, by default the last.
  uint64_t columns() const;
  // Rows run along another dimension than the last: pieces are of the tensor with that dimension moved last.
  bool is_transposed() const;
  // Some stage works row by row.
  bool is_by_row() const;
  // Bytes of the largest statistic a pass gives for a piece of `elements`.
  uint64_t statistic_bytes(uint64_t elements) const;
};

struct Plan {
  MergeSettings settings;
  Recipe recipe;
  std::vector<InputModel> inputs;
  std::optional<OutputVocabulary> vocabulary;  // where the recipe asks for one
  std::vector<Job> jobs;
  checkpoint::Layout layout;
  std::vector<checkpoint::SideFile> side_files;
  std::vector<std::string> warnings;
  Kernels kernels;
  uint64_t scratch_bytes = 0;  // what one thread needs for its largest piece

  uint64_t bytes_to_read = 0, bytes_to_write = 0, elements = 0;
  uint64_t peak_memory = 0;  // buffers; besides them the process itself and the headers
  uint64_t free_disk = 0;    // where the output goes; 0 with `output` empty
  double seconds = 0;        // estimate
};

// Opens the models. Fails with all that is wrong.
Plan make_plan(const std::shared_ptr<const Context> &context, MergeSettings settings, const char *device);

// Chooses kernels and pieces of plan->jobs for `threads` of `device`. Fails UNIMPLEMENTED.
void prepare_jobs(Plan *plan, const DevicePtr &device, uint64_t threads);

// The plan for a person, and as JSON.
std::string plan_text(const Plan &plan);
std::string plan_json(const Plan &plan);

// config.json, tokenizer, recipe and model card of the output.
std::vector<checkpoint::SideFile> plan_side_files(const Plan &plan, const std::vector<Group> &groups, Diagnostics *diagnostics);

}  // namespace chorus::merge
