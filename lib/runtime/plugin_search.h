// SPDX-License-Identifier: Apache-2.0
// Where plugins are looked for, and which files may be trusted.
#pragma once
#include <functional>
#include <string>
#include <vector>

namespace chorus {

// A file to load, or a place with the reason why nothing of it may be.
struct PluginCandidate {
  std::string path;       // as found: folder and file name
  std::string real_path;  // absolute, links resolved
  std::string refusal;    // empty: may be loaded
};

using Warn = std::function<void(const std::string &)>;

// Files chorus-*.so of the search folders, in order: CHORUS_PLUGIN_PATH, chorus-plugins/ beside libchorus, the folder
// compiled in. Never the working directory. `warn` hears of group-writable and foreign-owned files and folders.
std::vector<PluginCandidate> search_plugins(const Warn &warn);

// Why a file or folder (real, absolute) may not be trusted: it, or an ancestor without sticky bit, is writable by others.
// Empty: it may.
std::string ownership_refusal(const std::string &path, const Warn &warn);

}  // namespace chorus
