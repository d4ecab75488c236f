/* SPDX-License-Identifier: Apache-2.0
 *
 * Reads floats from standard input and writes, for each function of exact_math.h, their values. First it checks what needs
 * no oracle: special values, and that no function falls from one float to a later one.
 */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "chorus/exact_math.h"

typedef float (*function)(float);

static const function kFunctions[] = {chorus_exact_exp, chorus_exact_log, chorus_exact_sigmoid, chorus_exact_softplus};
static const char *const kNames[] = {"exp", "log", "sigmoid", "softplus"};

static int failures = 0;

static void expect_same(const char *what, float found, float wanted) {
  if ((isnan(found) && isnan(wanted)) || (found == wanted && signbit(found) == signbit(wanted))) return;
  fprintf(stderr, "%s is %.9g; it must be %.9g\n", what, (double)found, (double)wanted);
  ++failures;
}

static void check_special_values(void) {
  expect_same("exp(-inf)", chorus_exact_exp(-INFINITY), 0.0f);
  expect_same("exp(+inf)", chorus_exact_exp(INFINITY), INFINITY);
  expect_same("exp(89)", chorus_exact_exp(89.0f), INFINITY);
  expect_same("exp(-104)", chorus_exact_exp(-104.0f), 0.0f);
  expect_same("exp(0)", chorus_exact_exp(0.0f), 1.0f);
  expect_same("exp(-0)", chorus_exact_exp(-0.0f), 1.0f);
  expect_same("exp(NaN)", chorus_exact_exp(NAN), NAN);
  expect_same("log(0)", chorus_exact_log(0.0f), -INFINITY);
  expect_same("log(-0)", chorus_exact_log(-0.0f), -INFINITY);
  expect_same("log(-1)", chorus_exact_log(-1.0f), NAN);
  expect_same("log(-inf)", chorus_exact_log(-INFINITY), NAN);
  expect_same("log(1)", chorus_exact_log(1.0f), 0.0f);
  expect_same("log(+inf)", chorus_exact_log(INFINITY), INFINITY);
  expect_same("log(NaN)", chorus_exact_log(NAN), NAN);
  expect_same("sigmoid(-inf)", chorus_exact_sigmoid(-INFINITY), 0.0f);
  expect_same("sigmoid(+inf)", chorus_exact_sigmoid(INFINITY), 1.0f);
  expect_same("sigmoid(0)", chorus_exact_sigmoid(0.0f), 0.5f);
  expect_same("sigmoid(NaN)", chorus_exact_sigmoid(NAN), NAN);
  expect_same("softplus(-inf)", chorus_exact_softplus(-INFINITY), 0.0f);
  expect_same("softplus(+inf)", chorus_exact_softplus(INFINITY), INFINITY);
  expect_same("softplus(NaN)", chorus_exact_softplus(NAN), NAN);
}

/* Every 101st float, from the lowest to the highest; bits of positive floats ascend with their values. Softplus, whose quotient
 * rounds on its own, may fall by an ulp (docs/numerics.md); the others may not at all. */
static void check_monotone(int f) {
  float last = -INFINITY;
  for (int64_t at = -(int64_t)0x7f800000; at <= 0x7f800000; at += 101) {
    const float x = at < 0 ? -chorus_exact_from_bits((uint32_t)-at) : chorus_exact_from_bits((uint32_t)at);
    const float y = kFunctions[f](x);
    if (isnan(y)) continue; /* log of a negative number */
    if (y < last && !(f == 3 && chorus_exact_to_bits(last) - chorus_exact_to_bits(y) <= 1)) {
      if (++failures <= 20) fprintf(stderr, "%s falls to %.9g at %.9g\n", kNames[f], (double)y, (double)x);
    }
    if (y > last) last = y;
  }
}

int main(void) {
  check_special_values();
  for (int f = 0; f < 4; ++f) check_monotone(f);
  float x[1024], y[1024];
  size_t count;
  while ((count = fread(x, sizeof(float), 1024, stdin)) > 0) {
    for (int f = 0; f < 4; ++f) {
      for (size_t i = 0; i < count; ++i) y[i] = kFunctions[f](x[i]);
      if (fwrite(y, sizeof(float), count, stdout) != count) return 2;
    }
  }
  return failures == 0 ? 0 : 1;
}
