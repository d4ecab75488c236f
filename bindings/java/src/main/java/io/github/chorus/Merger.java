// SPDX-License-Identifier: Apache-2.0
package io.github.chorus;

import io.github.chorus.core.Core;
import io.github.chorus.core.Layout;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.function.Predicate;

/** A planned merge by a recipe in mergekit's language: every mistake has been found, nothing is written yet. */
public final class Merger implements AutoCloseable {
  /** How far a run is. */
  public record Progress(String phase, String tensor, long bytesDone, long bytesTotal) {}

  private final Handle handle;

  /** From the text of a recipe, YAML. `output` null: it only plans. */
  public Merger(Context context, String recipe, Path output) {
    try (Memory memory = new Memory();
        Handle spec = memory.create(Core::chorus_merger_spec_destroy, Core::chorus_merger_spec_create)) {
      handle = spec.with(s -> {
        int length = recipe.getBytes(StandardCharsets.UTF_8).length;
        memory.check(e -> Core.chorus_merger_spec_set_recipe(s, memory.text(recipe), length, 0, e));
        if (output != null) memory.check(e -> Core.chorus_merger_spec_set_output(s, memory.text(output.toString()), e));
        return context.handle.with(c -> memory.create(Core::chorus_merger_destroy,
            (out, e) -> Core.chorus_merger_create(c, s, memory.text("auto"), out, e)));
      });
    }
  }

  /** What it will do, for a person. */
  public String plan() {
    return handle.with(m -> Memory.text(Core.chorus_merger_get_plan_text(m)));
  }

  /** The same as JSON, with every tensor. */
  public String planJson() {
    return handle.with(m -> Memory.text(Core.chorus_merger_get_plan_json(m)));
  }

  /** Writes the model. */
  public void run() {
    run(null);
  }

  /** The same; `goOn` hears of it about every 64 MiB on this thread, and stops it by false or an exception. Nothing remains then. */
  public void run(Predicate<Progress> goOn) {
    try (Memory memory = new Memory()) {
      handle.use(m -> memory.check(e -> Core.merger_run(m, goOn == null ? null : told -> goOn.test(progress(told)) ? 0 : 1, e)));
    }
  }

  private static Progress progress(long told) {
    ByteBuffer p = Core.view_memory(told, Layout.MergeProgress.SIZE).order(java.nio.ByteOrder.nativeOrder());
    return new Progress(Memory.text(p.getLong(Layout.MergeProgress.PHASE)), Memory.text(p.getLong(Layout.MergeProgress.TENSOR)),
        p.getLong(Layout.MergeProgress.BYTES_DONE), p.getLong(Layout.MergeProgress.BYTES_TOTAL));
  }

  @Override
  public void close() {
    handle.close();
  }
}
