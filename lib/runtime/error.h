// SPDX-License-Identifier: Apache-2.0
// Errors inside the library: code, message, causes, thrown as Failure and turned into a status once, in lib/abi.
#pragma once
#include <fmt/format.h>

#include <exception>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "chorus/types.h"

namespace chorus {

// "INVALID_ARGUMENT"; "UNKNOWN_STATUS" for what is no status.
constexpr const char *status_name(chorus_status status) {
  constexpr const char *kNames[] = {"OK",
                                    "CANCELLED",
                                    "UNKNOWN",
                                    "INVALID_ARGUMENT",
                                    "DEADLINE_EXCEEDED",
                                    "NOT_FOUND",
                                    "ALREADY_EXISTS",
                                    "PERMISSION_DENIED",
                                    "RESOURCE_EXHAUSTED",
                                    "FAILED_PRECONDITION",
                                    "ABORTED",
                                    "OUT_OF_RANGE",
                                    "UNIMPLEMENTED",
                                    "INTERNAL",
                                    "UNAVAILABLE",
                                    "DATA_LOSS",
                                    "UNAUTHENTICATED"};
  return status >= CHORUS_OK && status <= CHORUS_UNAUTHENTICATED ? kNames[status] : "UNKNOWN_STATUS";
}

// What went wrong. Immutable once thrown, shared between the exception and the chorus_error of the caller.
struct Error {
  chorus_status code = CHORUS_UNKNOWN;
  std::string message;
  std::vector<std::shared_ptr<const Error>> causes;
};

class Failure : public std::exception {
 public:
  explicit Failure(Error error) : error_(std::make_shared<const Error>(std::move(error))) {}
  explicit Failure(std::shared_ptr<const Error> error) : error_(std::move(error)) {}
  const char *what() const noexcept override { return error_->message.c_str(); }
  const std::shared_ptr<const Error> &error() const { return error_; }

 private:
  std::shared_ptr<const Error> error_;
};

// Throws a Failure with a formatted message: which argument, what was found, what is allowed, what to do.
template <typename... Args>
[[noreturn]] void fail(chorus_status code, fmt::format_string<Args...> format, Args &&...args) {
  throw Failure(Error{code, fmt::format(format, std::forward<Args>(args)...), {}});
}

// The same with `cause` below it.
template <typename... Args>
[[noreturn]] void fail_because(const Failure &cause, chorus_status code, fmt::format_string<Args...> format,
                               Args &&...args) {
  throw Failure(Error{code, fmt::format(format, std::forward<Args>(args)...), {cause.error()}});
}

}  // namespace chorus
