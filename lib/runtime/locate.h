// SPDX-License-Identifier: Apache-2.0
// From what a user names to files: model folders, the Hugging Face cache, and the names of shards, which are untrusted.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "runtime/files.h"

namespace chorus {

// `path` itself when it exists; else the snapshot "org/name@revision" has in the Hugging Face cache. Fails NOT_FOUND saying
// what was looked for.
std::string locate(const std::string &path);

// Fails PERMISSION_DENIED, with advice, for a name of a pickle (.bin, .pt, .pth, .ckpt, .pkl).
void refuse_pickle(std::string_view path);

// Folders below which the files of a model may lie, links followed: the model's folder and the real folder of `anchor` (the
// index or the weights themselves: a link into the blobs of a cache).
class Roots {
 public:
  Roots(const std::string &folder, const std::string &anchor);
  // Opens folder/name, `name` from an untrusted index. Fails PERMISSION_DENIED where it leaves the roots.
  File open(const std::string &name) const;

 private:
  std::string folder_;
  std::vector<std::string> roots_;
};

}  // namespace chorus
