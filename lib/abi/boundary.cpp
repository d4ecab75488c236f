// SPDX-License-Identifier: Apache-2.0
// Exceptions to chorus_error, and what a chorus_error tells.
#include "abi/boundary.h"

#include <new>

#include "abi/error.h"

namespace chorus::abi {
namespace {

// A code and words for whatever is in flight.
std::shared_ptr<const Error> describe_current_exception() {
  try {
    throw;
  } catch (const Failure &failure) {
    return failure.error();
  } catch (const std::bad_alloc &) {
    return std::make_shared<Error>(Error{CHORUS_RESOURCE_EXHAUSTED, "out of memory", {}});
  } catch (const std::exception &error) {
    return std::make_shared<Error>(Error{CHORUS_INTERNAL, fmt::format("unexpected: {}", error.what()), {}});
  } catch (...) {
    return std::make_shared<Error>(Error{CHORUS_INTERNAL, "unexpected exception of unknown type", {}});
  }
}

void append_text(const Error &error, size_t depth, std::string *out) {
  out->append(2 * depth, ' ').append(error.message);
  for (const auto &cause : error.causes) {
    out->push_back('\n');
    append_text(*cause, depth + 1, out);
  }
}

std::unique_ptr<chorus_error> make_error(const std::shared_ptr<const Error> &error) {
  auto out = std::make_unique<chorus_error>();
  out->error = error;
  append_text(*error, 0, &out->text);
  for (const auto &cause : error->causes) out->causes.push_back(make_error(cause));
  return out;
}

}  // namespace

chorus_status report_current_exception(chorus_error **error) noexcept {
  try {
    const std::shared_ptr<const Error> described = describe_current_exception();
    if (error != nullptr) *error = make_error(described).release();
    return described->code;
  } catch (...) {
    return CHORUS_RESOURCE_EXHAUSTED;  // no memory even for the words
  }
}

}  // namespace chorus::abi
