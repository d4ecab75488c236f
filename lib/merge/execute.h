// SPDX-License-Identifier: Apache-2.0
// Runs a plan: streams pieces of tensors from the inputs through the kernels to their places in the output.
#pragma once
#include <functional>
#include <memory>
#include <string>

#include "merge/output.h"
#include "merge/plan.h"
#include "merge/scratch.h"
#include "runtime/context.h"

namespace chorus::merge {

// How far a run is. `tensor` is the one being worked on, "" while files are synced.
struct Progress {
  const char *phase;  // "reduce", "apply", "finish"
  const std::string &tensor;
  uint64_t bytes_done, bytes_total;      // read and written
  uint64_t tensors_done, tensors_total;
};

// Called on the thread that runs the merge; false cancels.
using ProgressFunction = std::function<bool(const Progress &)>;

// Writes the model into `folder`. Fails CANCELLED, and as reading, writing and kernels do; nothing remains then.
void execute(const Context &context, const Plan &plan, const std::string &folder, const ProgressFunction &progress);

// The same for a plan of jobs that write elsewhere; buffers come from `scratch` as far as it goes.
void run_jobs(const Context &context, const Plan &plan, Output *output, const ScratchPool::Lent &scratch, const ProgressFunction &progress);

}  // namespace chorus::merge
