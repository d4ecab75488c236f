// SPDX-License-Identifier: Apache-2.0
// Looks at a file before it is loaded: is it a whole shared object of this architecture?
#pragma once
#include <string>

namespace chorus {

// Fails INVALID_ARGUMENT unless `path` is an ELF shared object for this machine whose segments lie within the file:
// the loader maps segments blindly, and touching one beyond the end of a cut-off file would kill the process.
void check_shared_object(const std::string &path);

}  // namespace chorus
