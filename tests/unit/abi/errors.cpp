// SPDX-License-Identifier: Apache-2.0
// base.h: version, names, and errors as their owner sees them.
#include <criterion/criterion.h>

#include <string>

#include "chorus/chorus.hpp"
#include "unit/support.h"

using unit::Outcome;

Test(errors, names_and_version) {
  cr_expect_str_eq(chorus_version(), "0.1.0");
  cr_expect_str_eq(chorus_status_get_name(CHORUS_OK), "OK");
  cr_expect_str_eq(chorus_status_get_name(CHORUS_DATA_LOSS), "DATA_LOSS");
  cr_expect_str_eq(chorus_status_get_name(CHORUS_UNAUTHENTICATED), "UNAUTHENTICATED");
  for (const chorus_status unknown : {-1, 17, INT32_MAX, INT32_MIN}) {
    cr_expect_str_eq(chorus_status_get_name(unknown), "UNKNOWN_STATUS");
  }
  cr_expect_str_eq(chorus_dtype_get_name(CHORUS_BF16), "bf16");
  cr_expect_str_eq(chorus_dtype_get_name(CHORUS_F8_E4M3FN), "f8_e4m3fn");
  cr_expect_str_eq(chorus_dtype_get_name(0xffffffffu), "unknown");
}

Test(errors, null_is_no_error) {
  cr_expect_eq(chorus_error_get_code(nullptr), CHORUS_OK);
  cr_expect_str_eq(chorus_error_get_message(nullptr), "");
  cr_expect_str_eq(chorus_error_get_text(nullptr), "");
  cr_expect_eq(chorus_error_get_cause_count(nullptr), 0u);
  cr_expect_null(chorus_error_get_cause(nullptr, 0));
  chorus_error_destroy(nullptr);
}

Test(errors, causes_are_lent_and_told_in_the_text) {
  chorus_context_spec *spec = nullptr;
  cr_assert_eq(chorus_context_spec_create(&spec, nullptr), CHORUS_OK);
  chorus_context_spec_add_plugin(spec, "/nowhere/one.so", nullptr);
  chorus_context_spec_add_plugin(spec, "/nowhere/two.so", nullptr);
  chorus_context *context = nullptr;
  Outcome outcome;
  cr_expect_eq(chorus_context_create(spec, &context, outcome.slot()), CHORUS_FAILED_PRECONDITION);
  cr_expect_null(context);
  const chorus_error *error = outcome.error();
  cr_expect_eq(chorus_error_get_code(error), CHORUS_FAILED_PRECONDITION);
  cr_assert_eq(chorus_error_get_cause_count(error), 2u);
  const chorus_error *second = chorus_error_get_cause(error, 1);
  cr_expect_eq(chorus_error_get_code(second), CHORUS_NOT_FOUND);
  cr_expect(unit::contains(chorus_error_get_message(second), "/nowhere/two.so"));
  cr_expect_null(chorus_error_get_cause(error, 2));
  cr_expect_null(chorus_error_get_cause(error, SIZE_MAX));
  const std::string text = outcome.text();
  cr_expect(unit::contains(text, "\n  /nowhere/one.so"), "%s", text.c_str());
  cr_expect(text.find("one.so") < text.find("two.so"));
  chorus_context_spec_destroy(spec);
}

Test(errors, the_slot_may_be_null_and_success_clears_it) {
  cr_expect_eq(chorus_context_spec_create(nullptr, nullptr), CHORUS_INVALID_ARGUMENT);
  auto *garbage = reinterpret_cast<chorus_error *>(0x10);
  chorus_context_spec *spec = nullptr;
  cr_expect_eq(chorus_context_spec_create(&spec, &garbage), CHORUS_OK);
  cr_expect_null(garbage);
  chorus_context_spec_destroy(spec);
}

Test(errors, become_exceptions_in_cpp) {
  try {
    chorus::ContextSpec().set_option("thread", "2");
    cr_expect(false, "no exception");
  } catch (const chorus::Error &error) {
    const chorus::Error copy = error;  // outlives the original
    cr_expect_eq(copy.code(), CHORUS_NOT_FOUND);
    cr_expect(unit::contains(copy.what(), "did you mean 'threads'?"), "%s", copy.what());
    cr_expect_str_eq(copy.text(), copy.what());
  }
}
