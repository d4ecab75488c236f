// SPDX-License-Identifier: Apache-2.0
package io.github.chorus;

import java.lang.ref.Cleaner;
import java.lang.ref.Reference;
import java.util.function.LongConsumer;
import java.util.function.LongFunction;

/** Owns a C object. Closing waits for nobody: the last call that uses the object destroys it. */
final class Handle implements AutoCloseable {
  private static final Cleaner CLEANER = Cleaner.create();

  /** Knows nothing of its Handle, so that the cleaner can find that unreachable. */
  private static final class State implements Runnable {
    private final LongConsumer destroy;
    private final long object;
    private int users;
    private boolean closed;

    State(long object, LongConsumer destroy) {
      this.object = object;
      this.destroy = destroy;
    }

    synchronized void enter() {
      if (closed) throw new IllegalStateException("the object is closed");
      ++users;
    }

    synchronized void leave() {
      if (--users == 0 && closed) destroy.accept(object);
    }

    @Override
    public synchronized void run() {
      if (closed) return;
      closed = true;
      if (users == 0) destroy.accept(object);
    }
  }

  private final State state;
  private final Cleaner.Cleanable cleanable;

  Handle(long object, LongConsumer destroy) {
    state = new State(object, destroy);
    cleanable = CLEANER.register(this, state);
  }

  /** Calls `use` with the object, which lives at least as long. */
  <T> T with(LongFunction<T> use) {
    state.enter();
    try {
      return use.apply(state.object);
    } finally {
      state.leave();
      Reference.reachabilityFence(this);
    }
  }

  void use(LongConsumer use) {
    with(object -> {
      use.accept(object);
      return null;
    });
  }

  @Override
  public void close() {
    cleanable.clean();
  }
}
