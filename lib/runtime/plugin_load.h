// SPDX-License-Identifier: Apache-2.0
// From a file to a checked plugin table. Plugins stay loaded until the process ends.
#pragma once
#include <string>

#include "chorus/plugin.h"

namespace chorus {

// Loads `path` (absolute, real) and returns its table, checked slot by
// slot. Fails with path and reason; nothing a bad file or plugin does here throws further, aborts or hangs, short of
// code in its own constructors. The same path gives the same table again.
const chorus_plugin *load_plugin(const std::string &path);

// The same check for a table already in the process; `origin` for messages.
const chorus_plugin *check_plugin(const chorus_plugin *plugin, const std::string &origin);

}  // namespace chorus
