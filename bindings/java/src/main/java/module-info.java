// SPDX-License-Identifier: Apache-2.0
/** Chorus: many models act as one. */
module io.github.chorus {
  exports io.github.chorus;
  exports io.github.chorus.core;
}
