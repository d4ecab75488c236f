// SPDX-License-Identifier: Apache-2.0
// The edge between C and C++: the only place where exceptions become a status and a chorus_error.
#pragma once
#include "chorus/base.h"
#include "runtime/error.h"
#include "runtime/float_environment.h"

namespace chorus::abi {

// Status and error of the exception in flight; call inside a catch block. Never throws.
chorus_status report_current_exception(chorus_error **error) noexcept;

// Runs `body` in the default floating-point environment and gives the host's back. CHORUS_OK, or what it threw as a status and, when asked for, an error.
template <typename Body>
chorus_status guarded(chorus_error **error, Body &&body) noexcept {
  const DefaultFloatEnvironment environment;
  if (error != nullptr) *error = nullptr;
  try {
    body();
    return CHORUS_OK;
  } catch (...) {
    return report_current_exception(error);
  }
}

// An output pointer, set to NULL before anything can fail.
template <typename T>
T **require_output(T **argument, const char *name) {
  if (argument == nullptr) fail(CHORUS_INVALID_ARGUMENT, "{} is NULL; it is required", name);
  *argument = nullptr;
  return argument;
}

// The argument `name`, which may not be NULL.
template <typename T>
T *require(T *argument, const char *name) {
  if (argument == nullptr) fail(CHORUS_INVALID_ARGUMENT, "{} is NULL; it is required", name);
  return argument;
}

}  // namespace chorus::abi
