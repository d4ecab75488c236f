// SPDX-License-Identifier: Apache-2.0
// The frame of the conformance program: tests registered by name, expectations that print the seed, skips
// with a reason.
#pragma once
#include <cstdint>
#include <stdexcept>
#include <string>

#include "conformance/random.h"

namespace conformance {

class Backend;

// What a test gets: the backend under test, the reference backend to compare bits with, a seeded source of
// cases.
struct Test {
  Backend &backend;
  Backend &reference;
  uint64_t seed;
  double scale;  // CHORUS_TEST_SCALE

  Random random() const { return Random(seed); }
  // `count` cases at scale 1, at least 1.
  int cases(int count) const;
  // Whether bits can be compared: the backend is not the reference itself.
  bool has_peer() const { return &backend != &reference; }
};

using TestFunction = void (*)(const Test &test);

struct Registration {
  Registration(const char *name, TestFunction function);
};

#define CONFORMANCE_TEST(name)                                                    \
  static void test_##name(const conformance::Test &test);                         \
  static const conformance::Registration registration_##name(#name, test_##name); \
  static void test_##name([[maybe_unused]] const conformance::Test &test)

// The backend does not do this; what() is its reason. Thrown by skip() and by Backend::prepare().
struct Skipped : std::runtime_error {
  using std::runtime_error::runtime_error;
};
[[noreturn]] void skip(const std::string &reason);

// A test cannot go on.
struct Stopped : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Part of a test that may be refused: runs `body`, counts a refusal as one skip, and tells whether it ran.
template <typename Body>
bool attempt(const std::string &what, const Body &body);
void count_skip(const std::string &what, const std::string &reason);

// Counts a failure when `ok` is false, and prints the text and the seed (the first few of a test). Returns
// `ok`.
__attribute__((format(printf, 2, 3))) bool expect(bool ok, const char *format, ...);

// Shown beside failures and in a crash: which case is running.
__attribute__((format(printf, 1, 2))) void describe(const char *format, ...);

template <typename Body>
bool attempt(const std::string &what, const Body &body) {
  try {
    body();
    return true;
  } catch (const Skipped &reason) {
    count_skip(what, reason.what());
    return false;
  }
}

}  // namespace conformance
