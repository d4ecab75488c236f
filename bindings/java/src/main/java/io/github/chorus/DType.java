// SPDX-License-Identifier: Apache-2.0
package io.github.chorus;

import io.github.chorus.core.Core;

/** Data types of tensors; f16 and bf16 lie in buffers as 16-bit words. */
public enum DType {
  F64(Core.CHORUS_F64), F32(Core.CHORUS_F32), F16(Core.CHORUS_F16), BF16(Core.CHORUS_BF16), I64(Core.CHORUS_I64),
  I32(Core.CHORUS_I32), I8(Core.CHORUS_I8), U8(Core.CHORUS_U8);

  final int code;

  DType(int code) {
    this.code = code;
  }

  /** Of an element. */
  public int bytes() {
    return code >>> 11;
  }
}
