/* SPDX-License-Identifier: Apache-2.0
 *
 * Mixes the next-token distributions of two models, by OR and by AND, and draws a token.
 */
#include <math.h>

#include "guide.h"

enum { kTokens = 3 };

static void mix(const chorus_context *context, chorus_combine_rule rule, const char *name) {
  static const int64_t row[] = {1, kTokens}, one[] = {1};
  float a[] = {0.7f, 0.2f, 0.1f}, b[] = {0.1f, 0.2f, 0.7f}, log_probs[kTokens];
  int32_t token;
  chorus_tensor scores_a = view(a, CHORUS_F32, 2, row), scores_b = view(b, CHORUS_F32, 2, row);
  chorus_tensor mixed = view(log_probs, CHORUS_F32, 2, row), drawn = view(&token, CHORUS_I32, 1, one);
  const chorus_tensor *scores[2];
  chorus_combiner_spec *spec;
  chorus_combiner *combiner;
  chorus_combine_in in = CHORUS_COMBINE_IN_INIT;
  chorus_combine_out out = CHORUS_COMBINE_OUT_INIT;
  scores[0] = &scores_a;
  scores[1] = &scores_b;

  CHECK(chorus_combiner_spec_create(&spec, &error));
  CHECK(chorus_combiner_spec_set_rule(spec, rule, &error));
  CHECK(chorus_combiner_spec_add_model(spec, CHORUS_SCORES_PROBS, CHORUS_F32, kTokens, kTokens, 0.5, 1, NULL, &error));
  CHECK(chorus_combiner_spec_add_model(spec, CHORUS_SCORES_PROBS, CHORUS_F32, kTokens, kTokens, 0.5, 1, NULL, &error));
  CHECK(chorus_combiner_create(context, spec, "auto", &combiner, &error));
  in.rows = 1;
  in.scores = scores;
  in.seed = 1;
  out.log_probs = &mixed;
  out.sample = &drawn;
  CHECK(chorus_combiner_run(combiner, &in, &out, NULL, &error));

  printf("%s: %.3f %.3f %.3f\n", name, exp(log_probs[0]), exp(log_probs[1]), exp(log_probs[2]));
  if (token < 0 || token >= kTokens) exit(1);
  chorus_combiner_destroy(combiner);
  chorus_combiner_spec_destroy(spec);
}

int main(void) {
  chorus_context *context;
  CHECK(chorus_context_create(NULL, &context, &error));
  mix(context, CHORUS_COMBINE_LINEAR, "linear, OR");
  mix(context, CHORUS_COMBINE_LOG_LINEAR, "log-linear, AND");
  chorus_context_destroy(context);
  return 0;
}
