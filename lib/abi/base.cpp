// SPDX-License-Identifier: Apache-2.0
// base.h: version, names, and the getters of errors.
#include "chorus/base.h"

#include "abi/error.h"
#include "runtime/dtype.h"

#define CHORUS_TEXT_OF(x) #x
#define CHORUS_TEXT(x) CHORUS_TEXT_OF(x)

extern "C" {

const char *chorus_version(void) {
  return CHORUS_TEXT(CHORUS_VERSION_MAJOR) "." CHORUS_TEXT(CHORUS_VERSION_MINOR) "." CHORUS_TEXT(CHORUS_VERSION_PATCH);
}

chorus_status chorus_error_get_code(const chorus_error *error) {
  return error != nullptr ? error->error->code : CHORUS_OK;
}

const char *chorus_error_get_message(const chorus_error *error) {
  return error != nullptr ? error->error->message.c_str() : "";
}

const char *chorus_error_get_text(const chorus_error *error) { return error != nullptr ? error->text.c_str() : ""; }

size_t chorus_error_get_cause_count(const chorus_error *error) { return error != nullptr ? error->causes.size() : 0; }

const chorus_error *chorus_error_get_cause(const chorus_error *error, size_t index) {
  return index < chorus_error_get_cause_count(error) ? error->causes[index].get() : nullptr;
}

void chorus_error_destroy(chorus_error *error) { delete error; }

const char *chorus_status_get_name(chorus_status status) { return chorus::status_name(status); }

const char *chorus_dtype_get_name(chorus_dtype dtype) { return chorus::dtype_name(dtype); }

}  // extern "C"
