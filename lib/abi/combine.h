// SPDX-License-Identifier: Apache-2.0
// What the opaque spec of a combiner holds.
#pragma once
#include "chorus/combine.h"
#include "combine/combiner.h"

struct chorus_combiner_spec {
  chorus::combine::Spec spec;
};
