// SPDX-License-Identifier: Apache-2.0
// What the kernels of the built-in backend share: the device, the kernels, the score; the rest is plugin.hpp.
#pragma once
#include "chorus/plugin.hpp"

struct chorus_plugin_device {
  const chorus_host *host;
};

namespace chorus::reference {

using namespace chorus::plugin;

// One per operation.
extern const chorus_kernel kCombineRows;
extern const chorus_kernel kCombineDistill;
extern const chorus_kernel kRouteTopk;
extern const chorus_kernel kMergeReduce;
extern const chorus_kernel kMergeApply;
extern const chorus_kernel kExpertsFfn;
extern const chorus_kernel kSparseGemv;
extern const chorus_kernel kSparseFfn;

inline constexpr int32_t kScore = 1;  // any other backend that can do it wins

}  // namespace chorus::reference
