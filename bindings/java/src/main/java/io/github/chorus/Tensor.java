// SPDX-License-Identifier: Apache-2.0
package io.github.chorus;

import io.github.chorus.core.Core;
import io.github.chorus.core.Layout;
import java.nio.Buffer;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.DoubleBuffer;
import java.nio.FloatBuffer;
import java.nio.IntBuffer;
import java.nio.LongBuffer;
import java.util.Arrays;

/** A view of a direct buffer, or of memory at an address, with a shape; row-major. The memory stays its owner's. */
public final class Tensor {
  private static final int SIZE = (Layout.Tensor.SIZE + 7) & ~7;
  private final ByteBuffer struct;
  private final Object data; // keeps the buffer alive
  private final long[] shape;

  private Tensor(Object data, long address, long bytes, DType dtype, boolean readOnly, long... shape) {
    this.data = data;
    this.shape = shape.clone();
    long count = 1;
    for (long n : shape) count = n < 0 ? -1 : Math.multiplyExact(count, n);
    if (count < 0 || Math.multiplyExact(count, dtype.bytes()) > bytes) {
      throw new IllegalArgumentException("shape " + Arrays.toString(shape) + " of " + dtype + " needs more than the " + bytes + " bytes there are");
    }
    struct = ByteBuffer.allocateDirect(SIZE + 8 * shape.length).order(ByteOrder.nativeOrder());
    for (int i = 0; i < shape.length; ++i) struct.putLong(SIZE + 8 * i, shape[i]);
    struct.putLong(0, Layout.Tensor.STRUCT_SIZE);
    struct.putLong(Layout.Tensor.DATA, address);
    struct.putLong(Layout.Tensor.SIZE_BYTES, count * dtype.bytes());
    struct.putInt(Layout.Tensor.DEVICE_TYPE, Core.CHORUS_DEVICE_HOST);
    struct.put(Layout.Tensor.DTYPE_CODE, (byte) dtype.code);
    struct.put(Layout.Tensor.DTYPE_BITS, (byte) (dtype.code >>> 8));
    struct.putShort(Layout.Tensor.DTYPE_LANES, (short) 1);
    struct.putInt(Layout.Tensor.NDIM, shape.length);
    struct.putInt(Layout.Tensor.FLAGS, readOnly ? Core.CHORUS_TENSOR_READ_ONLY : 0);
    struct.putLong(Layout.Tensor.SHAPE, Core.address_of(struct) + SIZE);
  }

  private static Tensor of(Buffer buffer, ByteOrder order, int width, DType dtype, long... shape) {
    if (!buffer.isDirect()) throw new IllegalArgumentException("the buffer is on the heap; a direct one is needed");
    if (order != ByteOrder.nativeOrder()) throw new IllegalArgumentException("the buffer's order is " + order + "; the native one is needed");
    Native.load();
    long from = Core.address_of(buffer) + (long) buffer.position() * width;
    return new Tensor(buffer, from, (long) buffer.remaining() * width, dtype, buffer.isReadOnly(), shape);
  }

  /** From the buffer's position on. */
  public static Tensor of(FloatBuffer buffer, long... shape) {
    return of(buffer, buffer.order(), 4, DType.F32, shape);
  }

  /** From the buffer's position on. */
  public static Tensor of(DoubleBuffer buffer, long... shape) {
    return of(buffer, buffer.order(), 8, DType.F64, shape);
  }

  /** From the buffer's position on. */
  public static Tensor of(IntBuffer buffer, long... shape) {
    return of(buffer, buffer.order(), 4, DType.I32, shape);
  }

  /** From the buffer's position on. */
  public static Tensor of(LongBuffer buffer, long... shape) {
    return of(buffer, buffer.order(), 8, DType.I64, shape);
  }

  /** From the buffer's position on; any data type. */
  public static Tensor of(ByteBuffer buffer, DType dtype, long... shape) {
    return of(buffer, buffer.order(), 1, dtype, shape);
  }

  /** Memory of `bytes` bytes at an address, for example a MemorySegment's; it must live as long as this is used. */
  public static Tensor at(long address, long bytes, DType dtype, long... shape) {
    Native.load();
    return new Tensor(null, address, bytes, dtype, false, shape);
  }

  /** A new direct buffer for `count` floats. */
  public static FloatBuffer floats(long count) {
    return ByteBuffer.allocateDirect(Math.toIntExact(4 * count)).order(ByteOrder.nativeOrder()).asFloatBuffer();
  }

  /** A new direct buffer for `count` ints. */
  public static IntBuffer ints(long count) {
    return ByteBuffer.allocateDirect(Math.toIntExact(4 * count)).order(ByteOrder.nativeOrder()).asIntBuffer();
  }

  /** A new direct buffer with these numbers. */
  public static FloatBuffer floats(float... values) {
    return floats((long) values.length).put(0, values);
  }

  long address() {
    return Core.address_of(struct);
  }

  /** First size of the shape; 1 without one. */
  long rows() {
    return shape.length == 0 ? 1 : shape[0];
  }

  @Override
  public String toString() {
    return "Tensor" + Arrays.toString(shape) + (data == null ? " at an address" : "");
  }
}
