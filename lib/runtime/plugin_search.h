// SPDX-License-Identifier: Apache-2.0
// Where plugins are looked for, and which files may be trusted.
#pragma once
#include <functional>
#include <string>
#include <vector>

namespace chorus {

// A place that was looked at: a file to load, or the reason why there is none.
struct PluginCandidate {
  std::string path;
  std::string refusal;  // empty: may be loaded
};

using Warn = std::function<void(const std::string &)>;

// Files chorus-*.so of the search folders, in order: CHORUS_PLUGIN_PATH, chorus-plugins/ beside libchorus, the folder
// compiled in. A name found in an earlier folder hides the same name later. Never the working directory.
std::vector<PluginCandidate> search_plugins(const Warn &warn);

// Why `path` (real, absolute) may not be loaded: it, its folder, or an ancestor without sticky bit is writable by others.
// Empty: it may. Group-writable or foreign-owned files and folders are warned about.
std::string ownership_refusal(const std::string &path, const Warn &warn);

}  // namespace chorus
