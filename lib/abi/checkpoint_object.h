// SPDX-License-Identifier: Apache-2.0
// The object of checkpoint.h, which calls of other headers take too.
#pragma once
#include "checkpoint/model.h"

struct chorus_checkpoint {
  chorus::checkpoint::Model model;
};
