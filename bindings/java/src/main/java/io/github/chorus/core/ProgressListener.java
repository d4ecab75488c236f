// SPDX-License-Identifier: Apache-2.0
package io.github.chorus.core;

/** Hears a chorus_merge_progress by its address; other than 0 stops the run. */
@FunctionalInterface
public interface ProgressListener {
  int hear(long progress);
}
