/* SPDX-License-Identifier: Apache-2.0
 *
 * The descriptor and arguments of test.probe, the kernel of plugins/probe.c that does what a test asks of it.
 */
#ifndef CHORUS_TESTS_PROBE_H_
#define CHORUS_TESTS_PROBE_H_

#include "chorus/plugin.h"

#define PROBE_OP "test.probe"

typedef struct probe_desc {
  size_t struct_size;
  int32_t score;                /* What the kernel answers; 0 refuses with a reason. */
  chorus_status prepare_status; /* What prepare returns. */
} probe_desc;

typedef struct probe_args {
  size_t struct_size;
  uint64_t workspace;   /* Bytes to ask for. */
  chorus_status status; /* What run returns, */
  const char *message;  /* with these words, or none. */
  uint64_t pieces;      /* Runs task(argument, 0 … pieces - 1) on the host's pool first. */
  chorus_task_fn task;
  void *argument;
  void (*within)(void *argument); /* Called during the run, after the pieces, when not NULL. */
  /* Answers. */
  chorus_exec seen;
  const char *level; /* Value of option probe.level. */
  int32_t threads;
} probe_args;

#endif /* CHORUS_TESTS_PROBE_H_ */
