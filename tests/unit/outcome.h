// SPDX-License-Identifier: Apache-2.0
// What a call through chorus.hpp came to: its status and its text. Apart from support.h, since chorus::Error there and the
// core's own of that name do not meet in one file.
#pragma once
#include <string>

#include "chorus/chorus.hpp"

namespace unit {

// Status and text of what was tried; CHORUS_OK: it worked.
struct Opening {
  chorus_status status = CHORUS_OK;
  std::string text;
};

// Status of what `call` throws.
template <typename Call>
Opening outcome_of(Call call) {
  try {
    call();
    return {};
  } catch (const chorus::Error &error) {
    return {error.code(), error.text()};
  }
}

}  // namespace unit
