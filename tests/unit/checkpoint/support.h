// SPDX-License-Identifier: Apache-2.0
// Safetensors files made by hand, and what opening them says.
#pragma once
#include <criterion/criterion.h>

#include <string>

#include "chorus/chorus.hpp"
#include "unit/outcome.h"
#include "unit/support.h"

namespace unit {

inline std::string little_endian(uint64_t value) {
  std::string out;
  for (int i = 0; i < 8; ++i) out += static_cast<char>(value >> 8 * i & 0xff);
  return out;
}

// A file of that header and `bytes` bytes of data, byte i being 31 i + 7.
inline std::string safetensors(const std::string &header, size_t bytes) {
  std::string out = little_endian(header.size()) + header;
  for (size_t i = 0; i < bytes; ++i) out += static_cast<char>(31 * i + 7);
  return out;
}

// One f32 tensor "w" of two elements.
inline std::string small_file() { return safetensors(R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 8); }

inline const chorus::Context &context() {
  static const chorus::Context kContext = [] {
    chorus::ContextSpec spec;
    spec.set_option("plugins", "none");
    return chorus::Context(spec);
  }();
  return kContext;
}

// Code and text of opening `path`; CHORUS_OK: it opens.
inline Opening try_open(const std::string &path) {
  Outcome outcome;
  chorus_checkpoint *checkpoint = nullptr;
  Opening out;
  out.status = chorus_checkpoint_open(context().get(), path.c_str(), &checkpoint, outcome.slot());
  if (out.status != CHORUS_OK) {
    out.text = outcome.text();
    cr_expect_null(checkpoint);
  }
  chorus_checkpoint_destroy(checkpoint);
  return out;
}

// Expects `code` and a message that contains `part`.
#define EXPECT_FAILS(call, wanted, part)                                                                             \
  do {                                                                                                               \
    const unit::Opening opening = unit::outcome_of([&] { call; });                                                   \
    cr_expect_eq(opening.status, wanted, "%s: %s: %s", #call, chorus_status_get_name(opening.status), opening.text.c_str()); \
    cr_expect(unit::contains(opening.text, part), "%s: '%s' lacks '%s'", #call, opening.text.c_str(), part);         \
  } while (false)

}  // namespace unit
