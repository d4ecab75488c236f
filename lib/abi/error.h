// SPDX-License-Identifier: Apache-2.0
// What the opaque chorus_error holds.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "runtime/error.h"

struct chorus_error {
  std::shared_ptr<const chorus::Error> error;
  std::string text;  // message and causes, indented
  std::vector<std::unique_ptr<chorus_error>> causes;
};
