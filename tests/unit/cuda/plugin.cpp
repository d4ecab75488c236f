// SPDX-License-Identifier: Apache-2.0
// The cuda backend where there may be no GPU: it loads, shows its option, and says why it offers no device. With a GPU the
// same tests see its devices. What its kernels compute is tests/conformance.
#include <criterion/criterion.h>

#include <cstring>

#include "chorus/chorus.hpp"
#include "unit/support.h"

using unit::contains;

namespace {

chorus::ContextSpec cuda_spec() {
  chorus::ContextSpec spec;
  spec.set_option("plugins", "explicit").add_plugin(std::string(CHORUS_BINARY_DIR) + "/lib/chorus-plugins/chorus-cuda.so");
  return spec;
}

chorus_plugin_info cuda_info(const chorus::Context &context) {
  for (const chorus_plugin_info &info : context.plugins()) {
    if (std::strcmp(info.name, "cuda") == 0) return info;
  }
  return {};
}

}  // namespace

Test(cuda_plugin, loads_with_or_without_a_driver) {
  const chorus::ContextSpec spec = cuda_spec();
  const chorus::Context context(spec);
  const chorus_plugin_info info = cuda_info(context);
  cr_assert_neq(info.struct_size, 0u, "the plugin was not loaded");
  cr_expect_eq(info.status, CHORUS_OK);
  if (info.device_count > 0) {
    cr_expect_str_eq(info.reason, "");
    return;
  }
  const std::string reason = info.reason;
  cr_expect(contains(reason, "no CUDA driver") || contains(reason, "the CUDA driver") || contains(reason, "compute capability"), "%s",
            reason.c_str());
}

Test(cuda_plugin, refuses_a_device_that_is_not_there_by_name) {
  const chorus::ContextSpec spec = cuda_spec();
  const chorus::Context context(spec);
  chorus::CombinerSpec combiner;
  combiner.add_model(CHORUS_SCORES_LOGITS, CHORUS_F32, 4, 4, 1.0);
  try {
    const chorus::Combiner made(context, combiner, "cuda:63");
    cr_expect(false, "a combiner was made on cuda:63");
  } catch (const chorus::Error &error) {
    cr_expect_eq(error.code(), CHORUS_NOT_FOUND);
    cr_expect(contains(error.text(), "cuda:63"), "%s", error.text());
  }
}

Test(cuda_plugin, has_one_option_with_type_range_and_default) {
  const chorus::ContextSpec spec = cuda_spec();
  const chorus::Context context(spec);
  int found = 0;
  for (const chorus_option_info &option : context.options()) {
    if (std::strncmp(option.name, "cuda.", 5) != 0) continue;
    ++found;
    cr_expect_str_eq(option.name, "cuda.sync");
    cr_expect_str_eq(option.default_value, "false");
    cr_expect_str_eq(option.range, "true or false");
  }
  cr_expect_eq(found, 1);
}

Test(cuda_plugin, checks_the_value_of_its_option) {
  chorus::ContextSpec spec = cuda_spec();
  spec.set_option("cuda.sync", "sometimes");
  try {
    const chorus::Context context(spec);
    cr_expect(false, "cuda.sync=sometimes was taken");
  } catch (const chorus::Error &error) {
    cr_expect_eq(error.code(), CHORUS_INVALID_ARGUMENT);
    cr_expect(contains(error.text(), "cuda.sync"), "%s", error.text());
  }
}
