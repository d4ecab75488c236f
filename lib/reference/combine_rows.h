// SPDX-License-Identifier: Apache-2.0
// The two halves of the kernel combine.rows: what it supports, and how it runs.
#pragma once
#include "reference/backend.h"

namespace chorus::reference {

int32_t combine_score(chorus_plugin_device *device, const void *desc, char *why, size_t why_bytes);

}  // namespace chorus::reference
