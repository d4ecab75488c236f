// SPDX-License-Identifier: Apache-2.0
package io.github.chorus;

import io.github.chorus.core.Core;
import java.lang.ref.Reference;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.function.LongConsumer;

/** Native memory for one call: structs, texts, and slots for what C gives back. Lives until close(). */
final class Memory implements AutoCloseable {
  /** A C function with its last argument, the error, open. */
  @FunctionalInterface
  interface Call {
    int run(long error);
  }

  private static final int CHUNK = 4096;
  private static final ThreadLocal<List<ByteBuffer>> FREE = ThreadLocal.withInitial(ArrayList::new);
  private final List<Object> held = new ArrayList<>();
  private final ByteBuffer chunk;
  private final long chunkAddress;
  private int used;

  Memory() {
    List<ByteBuffer> free = FREE.get();
    chunk = free.isEmpty() ? ByteBuffer.allocateDirect(CHUNK).order(ByteOrder.nativeOrder()) : free.remove(free.size() - 1);
    chunkAddress = Core.address_of(chunk);
  }

  /** Zeroed bytes, aligned to 8. */
  ByteBuffer bytes(int size) {
    int rounded = (size + 7) & ~7;
    ByteBuffer out;
    if (rounded <= CHUNK - used) {
      out = chunk.slice(used, rounded).order(ByteOrder.nativeOrder());
      used += rounded;
      for (int i = 0; i < rounded; i += 8) out.putLong(i, 0);
    } else {
      out = ByteBuffer.allocateDirect(Math.max(8, rounded)).order(ByteOrder.nativeOrder());
    }
    held.add(out);
    return out;
  }

  /** A zeroed struct that knows its size. */
  ByteBuffer struct(int size, long structSize) {
    ByteBuffer out = bytes(size);
    out.putLong(0, structSize);
    return out;
  }

  long address(ByteBuffer buffer) {
    return Core.address_of(buffer);
  }

  /** Text for C; 0 for null. */
  long text(String text) {
    if (text == null) return 0;
    if (text.indexOf('\0') >= 0) throw new IllegalArgumentException("text with a character 0 inside: " + text.replace("\0", "\\0"));
    byte[] utf8 = text.getBytes(StandardCharsets.UTF_8);
    ByteBuffer out = bytes(utf8.length + 1);
    out.put(0, utf8);
    return address(out);
  }

  /** Address of a tensor's struct; 0 for null. Keeps its data alive for the call. */
  long tensor(Tensor tensor) {
    if (tensor == null) return 0;
    held.add(tensor);
    return tensor.address();
  }

  /** Runs a call and throws what it reports. */
  void check(Call call) {
    ByteBuffer slot = bytes(8);
    int status = call.run(address(slot));
    if (status == Core.CHORUS_OK) return;
    long error = slot.getLong(0);
    if (error == 0) throw ChorusException.of(status);
    try {
      throw ChorusException.of(error);
    } finally {
      Core.chorus_error_destroy(error);
    }
  }

  /** Runs a `_create` and owns what it gives. */
  Handle create(LongConsumer destroy, Creation creation) {
    ByteBuffer out = bytes(8);
    check(error -> creation.run(address(out), error));
    return new Handle(out.getLong(0), destroy);
  }

  @FunctionalInterface
  interface Creation {
    int run(long out, long error);
  }

  @Override
  public void close() {
    Reference.reachabilityFence(held);
    FREE.get().add(chunk);
  }

  /** Text that C lends; "" for NULL. */
  static String text(long address) {
    if (address == 0) return "";
    return StandardCharsets.UTF_8.decode(Core.view_memory(address, Core.text_length(address))).toString();
  }
}
