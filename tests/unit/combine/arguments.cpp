// SPDX-License-Identifier: Apache-2.0
// NULL where something is required: a status and the argument's name, never a crash; getters of NULL give nothing.
#include <criterion/criterion.h>

#include <cmath>

#include "chorus/chorus.h"
#include "unit/combine/support.h"

namespace {

using namespace unit;

template <typename Call>
void expect_named(Call call, const char *argument) {
  Outcome outcome;
  cr_expect_eq(call(outcome.slot()), CHORUS_INVALID_ARGUMENT, "%s", argument);
  cr_expect(contains(outcome.text(), argument), "'%s' does not name %s", outcome.text().c_str(), argument);
}

}  // namespace

Test(arguments, fits_and_diagnoses) {
  int32_t done = 0;
  expect_named([](auto **e) { return chorus_fit_create(context().get(), nullptr, nullptr, e); }, "out_fit");
  expect_named([](auto **e) { return chorus_fit_add(nullptr, nullptr, e); }, "fit");
  expect_named([&](auto **e) { return chorus_fit_step(nullptr, &done, e); }, "fit");
  expect_named([](auto **e) { return chorus_fit_get_result(nullptr, nullptr, e); }, "fit");
  cr_expect_null(chorus_fit_get_point(nullptr));
  expect_named([](auto **e) { return chorus_diagnosis_create(context().get(), nullptr, nullptr, e); }, "out_diagnosis");
  expect_named([](auto **e) { return chorus_diagnosis_add(nullptr, nullptr, e); }, "diagnosis");
  expect_named([](auto **e) { return chorus_diagnosis_merge(nullptr, nullptr, e); }, "diagnosis");
  expect_named([](auto **e) { return chorus_diagnosis_get(nullptr, nullptr, e); }, "diagnosis");
  expect_named([](auto **e) { return chorus_passes_create(context().get(), 1, 1, nullptr, e); }, "out_passes");
  expect_named([](auto **e) { return chorus_passes_add(nullptr, nullptr, 1, e); }, "passes");
  expect_named([](auto **e) { return chorus_passes_merge(nullptr, nullptr, e); }, "passes");
  expect_named([](auto **e) { return chorus_passes_get(nullptr, nullptr, e); }, "passes");
}

Test(arguments, distillers_and_targets) {
  uint64_t bytes = 0;
  expect_named([](auto **e) { return chorus_distiller_create(context().get(), nullptr, "cpu", nullptr, e); }, "out_distiller");
  expect_named([](auto **e) { return chorus_distiller_run(nullptr, nullptr, nullptr, e); }, "args");
  expect_named([&](auto **e) { return chorus_distiller_get_workspace_size(nullptr, 1, &bytes, e); }, "distiller");
  cr_expect_str_eq(chorus_distiller_get_kernel(nullptr), "");
  expect_named([](auto **e) { return chorus_targets_writer_create(context().get(), nullptr, "f", nullptr, e); }, "out_writer");
  expect_named([](auto **e) { return chorus_targets_writer_write_rows(nullptr, nullptr, e); }, "writer");
  expect_named([](auto **e) { return chorus_targets_writer_write_top(nullptr, nullptr, nullptr, nullptr, e); }, "writer");
  expect_named([](auto **e) { return chorus_targets_writer_finish(nullptr, e); }, "writer");
  expect_named([](auto **e) { return chorus_targets_open(context().get(), "f", nullptr, e); }, "out_targets");
  expect_named([](auto **e) { return chorus_targets_get(nullptr, nullptr, e); }, "targets");
  expect_named([](auto **e) { return chorus_targets_check_vocabulary(nullptr, nullptr, e); }, "targets");
  expect_named([](auto **e) { return chorus_targets_read_top(nullptr, 0, nullptr, nullptr, nullptr, e); }, "targets");
  expect_named([](auto **e) { return chorus_targets_read_rows(nullptr, 0, nullptr, e); }, "targets");
}

Test(arguments, bytes_and_vocabularies) {
  chorus_vocabulary_map *map = nullptr;
  const chorus_vocabulary *none = nullptr;
  expect_named([](auto **e) { return chorus_byte_trie_create(context().get(), nullptr, nullptr, 0, nullptr, e); }, "out_trie");
  expect_named([](auto **e) { return chorus_byte_trie_create_from_tokens(context().get(), nullptr, nullptr, 0, nullptr, 0, nullptr, e); },
               "out_trie");
  expect_named([](auto **e) { return chorus_byte_trie_first_bytes(nullptr, nullptr, nullptr, e); }, "trie");
  expect_named([](auto **e) { return chorus_byte_state_create(nullptr, nullptr, nullptr, e); }, "out_state");
  expect_named([](auto **e) { return chorus_byte_state_get_hypothesis(nullptr, 0, nullptr, e); }, "state");
  expect_named([](auto **e) { return chorus_byte_state_set_scores(nullptr, 0, nullptr, e); }, "state");
  expect_named([](auto **e) { return chorus_byte_state_next(nullptr, nullptr, e); }, "state");
  expect_named([](auto **e) { return chorus_byte_state_advance(nullptr, 0, e); }, "state");
  cr_expect_eq(chorus_byte_state_get_hypothesis_count(nullptr), 0);
  cr_expect(std::isnan(chorus_byte_state_get_log_prob(nullptr)) && std::isnan(chorus_byte_state_get_kept_share(nullptr)));
  expect_named([](auto **e) { return chorus_vocabulary_check_equal(nullptr, nullptr, e); }, "is NULL");
  expect_named([](auto **e) { return chorus_vocabulary_map_create_common(nullptr, 1, 0, nullptr, e); }, "out_maps");
  expect_named([&](auto **e) { return chorus_vocabulary_map_create_common(&none, 1, 0, &map, e); }, "a vocabulary");
  expect_named([&](auto **e) { return chorus_vocabulary_map_create_common(&none, 0, 0, &map, e); }, "count");
  expect_named([&](auto **e) { return chorus_vocabulary_map_create_common(&none, 1, 7, &map, e); }, "common");
}

Test(arguments, destroying_nothing) {
  chorus_fit_destroy(nullptr);
  chorus_diagnosis_destroy(nullptr);
  chorus_passes_destroy(nullptr);
  chorus_distiller_destroy(nullptr);
  chorus_targets_writer_destroy(nullptr);
  chorus_targets_destroy(nullptr);
  chorus_byte_trie_destroy(nullptr);
  chorus_byte_state_destroy(nullptr);
}
