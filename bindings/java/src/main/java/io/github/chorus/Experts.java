// SPDX-License-Identifier: Apache-2.0
package io.github.chorus;

import io.github.chorus.core.Core;

/** Packed expert weights, of which only the chosen ones are computed. */
public final class Experts implements AutoCloseable {
  private final Handle handle;

  /** SwiGLU experts: gateUp [E, 2I, H], down [E, H, I], f32, f16 or bf16; copied and packed. */
  public Experts(Context context, Tensor gateUp, Tensor down, int k, long maxTokens) {
    try (Memory memory = new Memory();
        Handle spec = memory.create(Core::chorus_experts_spec_destroy,
            (out, e) -> Core.chorus_experts_spec_create(memory.tensor(gateUp), memory.tensor(down), k, out, e))) {
      handle = spec.with(s -> {
        memory.check(e -> Core.chorus_experts_spec_set_max_tokens(s, maxTokens, e));
        return context.handle.with(c -> memory.create(Core::chorus_experts_destroy,
            (out, e) -> Core.chorus_experts_create(c, s, memory.text("auto"), out, e)));
      });
    }
  }

  /** f32 y [tokens, H] of x [tokens, H] and what the router gave. */
  public void run(Tensor x, Tensor ids, Tensor weights, Tensor y) {
    try (Memory memory = new Memory()) {
      handle.use(x_ -> memory.check(e -> Core.chorus_experts_run(x_, memory.tensor(x), memory.tensor(ids), memory.tensor(weights),
          memory.tensor(y), 0, 0, e)));
    }
  }

  /** The kernel in use, "cpu/experts_ffn". */
  public String kernel() {
    return handle.with(x -> Memory.text(Core.chorus_experts_get_kernel(x)));
  }

  @Override
  public void close() {
    handle.close();
  }
}
