// SPDX-License-Identifier: Apache-2.0
package io.github.chorus;

import io.github.chorus.core.Core;
import io.github.chorus.core.Layout;
import java.nio.ByteBuffer;

/** Keeps the best k of several experts per token. */
public final class Router implements AutoCloseable {
  private final Handle handle;

  /** As the published model `preset` does ("mixtral", "gpt-oss", …); null: softmax of all, then the k best. */
  public Router(Context context, int experts, int k, String preset, long maxTokens) {
    try (Memory memory = new Memory();
        Handle spec = memory.create(Core::chorus_router_spec_destroy, (out, e) -> Core.chorus_router_spec_create(experts, k, out, e))) {
      handle = spec.with(s -> {
        if (preset != null) memory.check(e -> Core.chorus_router_spec_set_preset(s, memory.text(preset), e));
        memory.check(e -> Core.chorus_router_spec_set_max_tokens(s, maxTokens, e));
        return context.handle.with(c -> memory.create(Core::chorus_router_destroy,
            (out, e) -> Core.chorus_router_create(c, s, memory.text("auto"), out, e)));
      });
    }
  }

  /** f32 logits [tokens, experts] to i32 ids and f32 weights [tokens, k]; counts i32 [experts] or null. */
  public void route(Tensor logits, Tensor ids, Tensor weights, Tensor counts) {
    try (Memory memory = new Memory()) {
      ByteBuffer out = memory.struct(Layout.RouteOut.SIZE, Layout.RouteOut.STRUCT_SIZE);
      out.putLong(Layout.RouteOut.IDS, memory.tensor(ids));
      out.putLong(Layout.RouteOut.WEIGHTS, memory.tensor(weights));
      out.putLong(Layout.RouteOut.COUNTS, memory.tensor(counts));
      handle.use(r -> memory.check(e -> Core.chorus_router_route(r, memory.tensor(logits), 0, memory.address(out), 0, e)));
    }
  }

  /** The kernel in use, "cpu/route_topk". */
  public String kernel() {
    return handle.with(r -> Memory.text(Core.chorus_router_get_kernel(r)));
  }

  @Override
  public void close() {
    handle.close();
  }
}
