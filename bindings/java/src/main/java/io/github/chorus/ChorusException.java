// SPDX-License-Identifier: Apache-2.0
package io.github.chorus;

import io.github.chorus.core.Core;
import java.util.ArrayList;
import java.util.List;

/** A failed call: the library's message, its status, and the causes as suppressed exceptions. */
public final class ChorusException extends RuntimeException {
  private static final long serialVersionUID = 1;
  private final int status;

  private ChorusException(int status, String message) {
    super(message);
    this.status = status;
  }

  /** A constant of Core: {@code CHORUS_INVALID_ARGUMENT}, … */
  public int status() {
    return status;
  }

  /** Its name, "INVALID_ARGUMENT". */
  public String statusName() {
    return Memory.text(Core.chorus_status_get_name(status));
  }

  /** Messages of the direct causes, for example one per mistake of a recipe. */
  public List<String> causes() {
    List<String> out = new ArrayList<>();
    for (Throwable cause : getSuppressed()) out.add(cause.getMessage());
    return out;
  }

  static ChorusException of(long error) {
    ChorusException out = new ChorusException(Core.chorus_error_get_code(error), Memory.text(Core.chorus_error_get_message(error)));
    long count = Core.chorus_error_get_cause_count(error);
    for (long i = 0; i < count; ++i) out.addSuppressed(of(Core.chorus_error_get_cause(error, i)));
    return out;
  }

  static ChorusException of(int status) {
    return new ChorusException(status, Memory.text(Core.chorus_status_get_name(status)));
  }
}
