// SPDX-License-Identifier: Apache-2.0
// Where a model is put together before it is there: a hidden folder beside the target, which takes the target's name in one
// step at the end. Killed at any moment, the target is absent (or what it was) or complete.
#pragma once
#include <string>
#include <vector>

#include "runtime/files.h"

namespace chorus::checkpoint {

class Staging {
 public:
  // Claims `.NAME.partial` beside `target` (inside of it as `.partial` where that is another file system's root or the parent
  // takes no new folder). Files of an interrupted run in it stay when `take_over`. Fails ALREADY_EXISTS when the target
  // holds files and `replace` is false, ABORTED when another writer has the place, INVALID_ARGUMENT, PERMISSION_DENIED.
  Staging(std::string target, bool replace, bool take_over);
  Staging(const Staging &) = delete;
  Staging &operator=(const Staging &) = delete;

  const std::string &target() const { return target_; }
  const std::string &folder() const { return folder_; }  // files go here, under their final names
  std::string path_of(const std::string &name) const { return folder_ + "/" + name; }

  // Makes the synced files of folder() the target. `names` are all of them, the last is the one by which readers find the
  // model: where files must be moved one by one it comes last. Files of the target that belong to no model stay.
  void publish(const std::vector<std::string> &names);
  // Removes folder() and the parents that were made for it.
  void abandon() noexcept;

 private:
  void claim(bool take_over);
  bool lock();
  bool is_empty_target() const;
  bool exchange(const std::vector<std::string> &names);
  void move_files(const std::vector<std::string> &names);

  std::string target_, parent_, folder_;
  std::vector<std::string> made_folders_;  // outermost first
  File lock_;                              // of folder_, so that two writers do not mix their files
};

}  // namespace chorus::checkpoint
