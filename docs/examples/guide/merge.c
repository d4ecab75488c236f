/* SPDX-License-Identifier: Apache-2.0
 *
 * merge RECIPE OUT: makes one model by a recipe in mergekit's language, after saying what will be done.
 */
#include "guide.h"

int main(int argc, char **argv) {
  chorus_context *context;
  chorus_merger_spec *spec;
  chorus_merger *merger;
  chorus_checkpoint *merged;
  if (argc != 3) return fprintf(stderr, "merge RECIPE OUT\n"), 2;

  CHECK(chorus_context_create(NULL, &context, &error));
  CHECK(chorus_merger_spec_create(&spec, &error));
  CHECK(chorus_merger_spec_set_recipe_file(spec, argv[1], &error));
  CHECK(chorus_merger_spec_set_output(spec, argv[2], &error));
  CHECK(chorus_merger_spec_set_replace(spec, 1, &error));
  CHECK(chorus_merger_create(context, spec, "auto", &merger, &error)); /* finds every mistake, writes nothing */
  fputs(chorus_merger_get_plan_text(merger), stdout);
  CHECK(chorus_merger_run(merger, NULL, NULL, &error));

  CHECK(chorus_checkpoint_open(context, argv[2], &merged, &error));
  printf("wrote %zu tensors\n", chorus_checkpoint_get_tensor_count(merged));
  chorus_checkpoint_destroy(merged);
  chorus_merger_destroy(merger);
  chorus_merger_spec_destroy(spec);
  chorus_context_destroy(context);
  return 0;
}
