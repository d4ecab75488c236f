// SPDX-License-Identifier: Apache-2.0
// What a merged model came from, in a file of its folder: recipe, command, versions, inputs, and a checksum of every tensor.
#pragma once
#include <string>

#include "merge/checksums.h"
#include "merge/plan.h"

namespace chorus::merge {

constexpr const char *kManifestName = "chorus_manifest.json";

// Of all that decides the output's bytes: version, kernels, recipe, seed, layout, and the inputs' files (path, size, time of
// change, fingerprint). Two plans with the same one may share unfinished work.
std::string plan_fingerprint(const Plan &plan);

// The text of the manifest. Without times, so that equal merges give equal files.
std::string manifest_text(const Plan &plan, const Checksums &checksums);

}  // namespace chorus::merge
