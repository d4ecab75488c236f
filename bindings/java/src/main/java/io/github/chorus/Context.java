// SPDX-License-Identifier: Apache-2.0
package io.github.chorus;

import io.github.chorus.core.Core;
import io.github.chorus.core.Layout;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;

/** Plugins, devices and the thread pool, from which everything else is made. Objects outlive it. */
public final class Context implements AutoCloseable {
  final Handle handle;

  /** With default options. */
  public Context() {
    this(Map.of());
  }

  /** With options by name, for example {@code Map.of("threads", "2")}. */
  public Context(Map<String, String> options) {
    Native.load();
    try (Memory memory = new Memory();
        Handle spec = memory.create(Core::chorus_context_spec_destroy, Core::chorus_context_spec_create)) {
      options.forEach((name, value) -> spec.use(s ->
          memory.check(e -> Core.chorus_context_spec_set_option(s, memory.text(name), memory.text(value), e))));
      handle = spec.with(s -> memory.create(Core::chorus_context_destroy, (out, e) -> Core.chorus_context_create(s, out, e)));
    }
  }

  /** Names of the devices: "reference", "cpu", … */
  public List<String> devices() {
    return handle.with(context -> {
      List<String> out = new ArrayList<>();
      long count = Core.chorus_context_get_device_count(context);
      try (Memory memory = new Memory()) {
        ByteBuffer info = memory.struct(Layout.DeviceInfo.SIZE, Layout.DeviceInfo.STRUCT_SIZE);
        for (long i = 0; i < count; ++i) {
          long index = i;
          memory.check(e -> Core.chorus_context_get_device(context, index, memory.address(info), e));
          out.add(Memory.text(info.getLong(Layout.DeviceInfo.NAME)));
        }
      }
      return out;
    });
  }

  /** Version of the library. */
  public static String version() {
    Native.load();
    return Memory.text(Core.chorus_version());
  }

  @Override
  public void close() {
    handle.close();
  }
}
