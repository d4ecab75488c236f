// SPDX-License-Identifier: Apache-2.0
// context.h: options, infos, devices, arguments that are wrong, and objects that outlive their context.
#include <criterion/criterion.h>

#include <cstring>

#include "chorus/chorus.hpp"
#include "unit/support.h"

using unit::Log;
using unit::Outcome;

namespace {

chorus::ContextSpec explicit_spec(std::initializer_list<const char *> plugins = {}) {
  chorus::ContextSpec spec;
  spec.set_option("plugins", "explicit");
  for (const char *name : plugins) spec.add_plugin(unit::test_plugin(name));
  return spec;
}

// Code of what making a context with this option fails with; CHORUS_OK: it does not.
chorus_status status_with(const char *name, const char *value, std::string *text) {
  try {
    chorus::ContextSpec spec = explicit_spec({"probe"});
    spec.set_option(name, value);
    chorus::Context context(spec);
    return CHORUS_OK;
  } catch (const chorus::Error &error) {
    *text = error.text();
    return error.code();
  }
}

}  // namespace

Test(context, option_values_are_checked_and_unknown_names_answered_with_the_nearest) {
  const struct {
    const char *name, *value;
    chorus_status status;
    const char *part;
  } rows[] = {
      {"threads", "2", CHORUS_OK, ""},
      {"threads", "-1", CHORUS_INVALID_ARGUMENT, "integer: 0 to 1024"},
      {"threads", "two", CHORUS_INVALID_ARGUMENT, "'two'"},
      {"threads", "2 ", CHORUS_INVALID_ARGUMENT, "integer"},
      {"threads", "", CHORUS_INVALID_ARGUMENT, "integer"},
      {"threads", "99999999999999999999", CHORUS_INVALID_ARGUMENT, "integer"},
      {"fallback", "eror", CHORUS_INVALID_ARGUMENT, "warn|error"},
      {"fallbak", "error", CHORUS_NOT_FOUND, "did you mean 'fallback'?"},
      {"xyzzy", "1", CHORUS_NOT_FOUND, "there is no option 'xyzzy'"},
      {"plugins", "none", CHORUS_INVALID_ARGUMENT, "plugins=none forbids"},
      {"probe.level", "high", CHORUS_OK, ""},
      {"probe.level", "medium", CHORUS_INVALID_ARGUMENT, "low|high"},
      {"probe.lebel", "high", CHORUS_NOT_FOUND, "did you mean 'probe.level'?"},
      {"probe.count", "10", CHORUS_INVALID_ARGUMENT, "1 to 9"},
      {"probe.ratio", "0.25", CHORUS_OK, ""},
      {"probe.ratio", "nan", CHORUS_INVALID_ARGUMENT, "number"},
      {"probe.ratio", "1.5", CHORUS_INVALID_ARGUMENT, "0 to 1"},
      {"probe.flag", "yes", CHORUS_INVALID_ARGUMENT, "boolean"},
      {"probr.flag", "true", CHORUS_NOT_FOUND, "no plugin 'probr' is loaded; did you mean 'probe'?"},
      {".", "1", CHORUS_NOT_FOUND, "option '.'"},
  };
  for (const auto &row : rows) {
    std::string text;
    cr_expect_eq(status_with(row.name, row.value, &text), row.status, "%s=%s: %s", row.name, row.value, text.c_str());
    cr_expect(unit::contains(text, row.part), "%s=%s: %s", row.name, row.value, text.c_str());
  }
}

Test(context, the_option_table_tells_name_type_default_value_range_and_doc) {
  chorus::ContextSpec spec = explicit_spec({"probe"});
  spec.set_option("threads", "3").set_option("probe.count", "4").set_option("probe.count", "5");
  const chorus::Context context(spec);
  size_t seen = 0;
  for (const chorus_option_info &option : context.options()) {
    cr_expect(option.name[0] != '\0' && option.doc[0] != '\0' && option.range[0] != '\0', "%s", option.name);
    if (std::strcmp(option.name, "threads") == 0) {
      cr_expect_str_eq(option.type, "integer");
      cr_expect_str_eq(option.default_value, "0");
      cr_expect_str_eq(option.value, "3");
      ++seen;
    }
    if (std::strcmp(option.name, "probe.count") == 0) {
      cr_expect_str_eq(option.value, "5", "the last value set counts");
      ++seen;
    }
    if (std::strcmp(option.name, "probe.ratio") == 0) {
      cr_expect_str_eq(option.type, "number");
      cr_expect_str_eq(option.value, "0.5");
      ++seen;
    }
  }
  cr_expect_eq(seen, 3u);
}

Test(context, with_no_plugins_the_reference_backend_remains) {
  chorus::ContextSpec spec;
  spec.set_option("plugins", "none");
  const chorus::Context context(spec);
  const auto plugins = context.plugins();
  cr_assert_eq(plugins.size(), 1u);
  cr_expect_str_eq(plugins[0].name, "reference");
  cr_expect_str_eq(plugins[0].path, "");
  cr_expect_eq(plugins[0].status, CHORUS_OK);
  cr_expect_eq(plugins[0].device_count, 1);
  const auto devices = context.devices();
  cr_assert_eq(devices.size(), 1u);
  cr_expect_str_eq(devices[0].name, "reference");
  cr_expect_eq(devices[0].device_type, CHORUS_DEVICE_HOST);
  cr_expect_geq(devices[0].kernel_count, 5);
}

Test(context, info_structs_of_any_size_are_filled_as_far_as_they_reach) {
  const chorus::Context context(explicit_spec());
  alignas(8) unsigned char bytes[sizeof(chorus_plugin_info) + 64];
  for (size_t size = 0; size <= sizeof(bytes); ++size) {
    std::memset(bytes, 0xee, sizeof(bytes));
    auto *info = reinterpret_cast<chorus_plugin_info *>(bytes);
    std::memcpy(bytes, &size, sizeof(size));
    const chorus_status status = chorus_context_get_plugin(context.get(), 0, info, nullptr);
    cr_expect_eq(status, size > sizeof(size_t) ? CHORUS_OK : CHORUS_INVALID_ARGUMENT, "struct_size %zu", size);
    for (size_t i = std::max(size, sizeof(size_t)); i < sizeof(bytes); ++i) {
      if (bytes[i] != 0xee) cr_expect(false, "byte %zu written with struct_size %zu", i, size);
    }
    size_t kept;
    std::memcpy(&kept, bytes, sizeof(kept));
    cr_expect_eq(kept, size);
  }
}

Test(context, wrong_arguments_are_named) {
  const chorus::Context context(explicit_spec());
  Outcome o;
  void *memory = nullptr;
  char byte = 0;
  chorus_plugin_info info = CHORUS_PLUGIN_INFO_INIT;
  chorus_context_spec *spec = nullptr;
  cr_assert_eq(chorus_context_spec_create(&spec, nullptr), CHORUS_OK);
#define EXPECT_FAILURE(call, code, part)                   \
  cr_expect_eq((call), code);                              \
  cr_expect(unit::contains(o.text(), part), "%s: %s", #call, o.text().c_str())
  EXPECT_FAILURE(chorus_context_spec_set_option(nullptr, "a", "b", o.slot()), CHORUS_INVALID_ARGUMENT, "spec is NULL");
  EXPECT_FAILURE(chorus_context_spec_set_option(spec, nullptr, "b", o.slot()), CHORUS_INVALID_ARGUMENT, "name is NULL");
  EXPECT_FAILURE(chorus_context_spec_set_option(spec, "threads", nullptr, o.slot()), CHORUS_INVALID_ARGUMENT, "value is NULL");
  EXPECT_FAILURE(chorus_context_spec_set_log(spec, Log::receive, nullptr, 9, o.slot()), CHORUS_INVALID_ARGUMENT, "level is 9");
  EXPECT_FAILURE(chorus_context_spec_set_parallel_for(spec, nullptr, nullptr, 1, o.slot()), CHORUS_INVALID_ARGUMENT,
                 "parallel_for is NULL");
  EXPECT_FAILURE(chorus_context_spec_set_parallel_for(
                     spec, [](void *, uint64_t, void (*)(void *, uint64_t), void *) {}, nullptr, 0, o.slot()),
                 CHORUS_INVALID_ARGUMENT, "threads is 0");
  EXPECT_FAILURE(chorus_context_spec_add_plugin(spec, nullptr, o.slot()), CHORUS_INVALID_ARGUMENT, "path is NULL");
  EXPECT_FAILURE(chorus_context_create(spec, nullptr, o.slot()), CHORUS_INVALID_ARGUMENT, "out_context is NULL");
  EXPECT_FAILURE(chorus_context_get_plugin(nullptr, 0, &info, o.slot()), CHORUS_INVALID_ARGUMENT, "context is NULL");
  EXPECT_FAILURE(chorus_context_get_plugin(context.get(), 99, &info, o.slot()), CHORUS_OUT_OF_RANGE, "index is 99");
  EXPECT_FAILURE(chorus_context_get_plugin(context.get(), 0, nullptr, o.slot()), CHORUS_INVALID_ARGUMENT, "out_info is NULL");
  EXPECT_FAILURE(chorus_device_check(context.get(), "refrence", o.slot()), CHORUS_NOT_FOUND, "did you mean 'reference'?");
  EXPECT_FAILURE(chorus_device_check(context.get(), nullptr, o.slot()), CHORUS_INVALID_ARGUMENT, "device is NULL");
  EXPECT_FAILURE(chorus_memory_allocate(context.get(), "cuda:7", 1, &memory, o.slot()), CHORUS_NOT_FOUND, "cuda:7");
  EXPECT_FAILURE(chorus_memory_allocate(context.get(), "reference", UINT64_MAX - 7, &memory, o.slot()),
                 CHORUS_RESOURCE_EXHAUSTED, "no memory");
  EXPECT_FAILURE(chorus_memory_copy(context.get(), "reference", nullptr, &byte, 1, o.slot()), CHORUS_INVALID_ARGUMENT, "to");
#undef EXPECT_FAILURE
  cr_expect_eq(chorus_context_get_plugin_count(nullptr), 0u);
  cr_expect_eq(chorus_context_get_device_count(nullptr), 0u);
  cr_expect_eq(chorus_context_get_option_count(nullptr), 0u);
  chorus_context_destroy(nullptr);
  chorus_context_spec_destroy(nullptr);
  chorus_context_spec_destroy(spec);
}

Test(context, host_memory_is_aligned_and_copied) {
  const chorus::Context context(explicit_spec());
  for (const uint64_t bytes : {0u, 1u, 63u, 64u, 4097u}) {
    chorus::Memory memory(context, "reference", bytes);
    cr_expect_eq(reinterpret_cast<uintptr_t>(memory.data()) % CHORUS_WORKSPACE_ALIGNMENT_HOST, 0u);
    const std::string from(bytes, 'x');
    std::string to(bytes, '\0');
    memory.copy_from(from.data());
    memory.copy_to(to.data());
    cr_expect(from == to);
  }
}

Test(context, objects_outlive_it) {
  chorus::RouterSpec spec(4, 2);
  std::unique_ptr<chorus::Router> router;
  {
    const chorus::Context context(explicit_spec());
    router = std::make_unique<chorus::Router>(context, spec);
  }
  const float logits[4] = {1, 4, 2, 3};
  int32_t ids[2] = {};
  const chorus::Tensor x(logits, {1, 4}), out_ids(ids, {1, 2});
  chorus_route_out out = CHORUS_ROUTE_OUT_INIT;
  out.ids = out_ids.get();
  router->route(x, nullptr, out);
  cr_expect_eq(ids[0], 1);
  cr_expect_eq(ids[1], 3);
}

Test(context, falling_back_to_reference_is_told_once_per_object_or_forbidden) {
  chorus::RouterSpec routing(4, 2);
  for (const char *device : {"auto", "probe"}) {
    Log log;
    chorus::ContextSpec spec = explicit_spec({"probe"});
    spec.set_log(Log::receive, &log, CHORUS_LOG_WARNING);
    const chorus::Context context(spec);
    const chorus::Router router(context, routing, device);
    cr_expect(unit::contains(router.kernel(), "reference/"), "%s", router.kernel());
    cr_expect_eq(log.count("falling back to the slow reference backend"), 1u, "%s", device);
    const chorus::Router second(context, routing, device);
    cr_expect_eq(log.count("falling back"), 2u);
    const chorus::Router asked_for(context, routing, "reference");
    cr_expect_eq(log.count(), 2u, "asked for by name, it is no fallback");

    spec.set_option("fallback", "error");
    const chorus::Context strict(spec);
    try {
      chorus::Router refused(strict, routing, device);
      cr_expect(false, "no exception");
    } catch (const chorus::Error &error) {
      cr_expect_eq(error.code(), CHORUS_UNIMPLEMENTED);
      cr_expect(unit::contains(error.what(), "fallback=error forbids"), "%s", error.what());
    }
    const chorus::Router allowed(strict, routing, "reference");
  }
}
