// SPDX-License-Identifier: Apache-2.0
package io.github.chorus;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.github.chorus.core.Core;
import java.io.IOException;
import java.lang.reflect.Method;
import java.nio.ByteBuffer;
import java.nio.FloatBuffer;
import java.nio.IntBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** The classes against formulas in double, and what happens when they are misused. */
class ChorusTest {
  private static final Path ROOT = Path.of(System.getProperty("chorus.source.dir"));
  private final Context context = new Context();

  private static float[] numbers(long seed, int n) {
    Random random = new Random(seed);
    float[] out = new float[n];
    for (int i = 0; i < n; ++i) out[i] = (float) random.nextGaussian();
    return out;
  }

  private static double[] softmax(float[] row) {
    double top = Double.NEGATIVE_INFINITY, sum = 0;
    for (float z : row) top = Math.max(top, z);
    double[] out = new double[row.length];
    for (int i = 0; i < row.length; ++i) sum += out[i] = Math.exp(row[i] - top);
    for (int i = 0; i < row.length; ++i) out[i] /= sum;
    return out;
  }

  @Test
  void everyFunctionOfTheHeadersIsReachable() throws IOException {
    Set<String> found = Arrays.stream(Core.class.getMethods()).map(Method::getName).collect(Collectors.toSet());
    Set<String> declared = new TreeSet<>();
    Path include = ROOT.resolve("include/chorus");
    Matcher header = Pattern.compile("#include \"(\\w+\\.h)\"").matcher(Files.readString(include.resolve("chorus.h")));
    while (header.find()) {
      String text = Files.readString(include.resolve(header.group(1))).replaceAll("(?s)/\\*.*?\\*/", " ");
      Matcher name = Pattern.compile("CHORUS_API [^;]*?\\b(chorus_\\w+)\\s*\\(").matcher(text);
      while (name.find()) declared.add(name.group(1));
    }
    assertTrue(declared.size() > 190);
    declared.removeAll(found);
    assertEquals(Set.of(), declared);
  }

  @Test
  void linearAndLogLinear() {
    int n = 41;
    float[] a = numbers(1, n), b = numbers(2, n);
    double[] p = softmax(a), q = softmax(b);
    for (Combiner.Rule rule : Combiner.Rule.values()) {
      double u = rule == Combiner.Rule.LINEAR ? 0.7 : 1.5, v = rule == Combiner.Rule.LINEAR ? 0.3 : -0.5, sum = 0;
      double[] wanted = new double[n];
      for (int i = 0; i < n; ++i) {
        sum += wanted[i] = rule == Combiner.Rule.LINEAR ? u * p[i] + v * q[i] : Math.pow(p[i], u) * Math.pow(q[i], v);
      }
      FloatBuffer mixed = Tensor.floats((long) n);
      IntBuffer best = Tensor.ints(1), status = Tensor.ints(1);
      try (Combiner combiner = Combiner.builder(rule).model(n, u).model(n, v).build(context)) {
        assertTrue(combiner.kernel().contains("combine"));
        combiner.run(new Combiner.Run().logProbs(Tensor.of(mixed, 1, n)).argmax(Tensor.of(best, 1)).status(Tensor.of(status, 1)),
            Tensor.of(Tensor.floats(a), 1, n), Tensor.of(Tensor.floats(b), 1, n));
      }
      for (int i = 0; i < n; ++i) {
        assertEquals(Math.log(wanted[i] / sum), mixed.get(i), 2e-5);
        assertTrue(wanted[i] <= wanted[best.get(0)]);
      }
      assertEquals(0, status.get(0));
    }
  }

  @Test
  void buffersKeepTheirPositionAndHeapIsRefused() {
    FloatBuffer buffer = Tensor.floats(9f, 9f, 0f, 1f);
    buffer.position(2);
    FloatBuffer out = Tensor.floats(2L);
    try (Combiner combiner = Combiner.builder(Combiner.Rule.LINEAR).model(2, 1).build(context)) {
      combiner.run(new Combiner.Run().logProbs(Tensor.of(out, 1, 2)), Tensor.of(buffer, 1, 2));
      assertEquals(1 / (1 + Math.exp(-1)), Math.exp(out.get(1)), 1e-6);
      Tensor readOnly = Tensor.of(Tensor.floats(0f, 0f).asReadOnlyBuffer(), 1, 2);
      assertThrows(ChorusException.class, () -> combiner.run(new Combiner.Run().logProbs(readOnly), Tensor.of(buffer, 1, 2)));
      assertThrows(IllegalArgumentException.class, () -> combiner.run(new Combiner.Run()));
    }
    assertThrows(IllegalArgumentException.class, () -> Tensor.of(FloatBuffer.allocate(2), 1, 2));
    assertThrows(IllegalArgumentException.class, () -> Tensor.of(ByteBuffer.allocateDirect(8).asFloatBuffer(), 1, 2)); // big endian
    assertThrows(IllegalArgumentException.class, () -> Tensor.of(Tensor.floats(0f, 0f), 3));
    assertThrows(ArithmeticException.class, () -> Tensor.of(Tensor.floats(0f, 0f), Long.MAX_VALUE, 8));
  }

  @Test
  void routingAndExperts() {
    int tokens = 5, experts = 4, k = 2, hidden = 6, inner = 3;
    float[] logits = numbers(3, tokens * experts), gateUp = numbers(4, experts * 2 * inner * hidden);
    float[] down = numbers(5, experts * hidden * inner), x = numbers(6, tokens * hidden);
    IntBuffer ids = Tensor.ints(tokens * k), counts = Tensor.ints(experts);
    FloatBuffer weights = Tensor.floats((long) tokens * k), y = Tensor.floats((long) tokens * hidden);
    try (Router router = new Router(context, experts, k, "mixtral", 64);
        Experts layer = new Experts(context, Tensor.of(Tensor.floats(gateUp), experts, 2 * inner, hidden),
            Tensor.of(Tensor.floats(down), experts, hidden, inner), k, 64)) {
      router.route(Tensor.of(Tensor.floats(logits), tokens, experts), Tensor.of(ids, tokens, k), Tensor.of(weights, tokens, k),
          Tensor.of(counts, experts));
      layer.run(Tensor.of(Tensor.floats(x), tokens, hidden), Tensor.of(ids, tokens, k), Tensor.of(weights, tokens, k),
          Tensor.of(y, tokens, hidden));
    }
    int total = 0;
    for (int e = 0; e < experts; ++e) total += counts.get(e);
    assertEquals(tokens * k, total);
    for (int t = 0; t < tokens; ++t) {
      float[] row = Arrays.copyOfRange(logits, t * experts, (t + 1) * experts);
      List<Integer> order = IntStream.range(0, experts).boxed().sorted((i, j) -> Float.compare(row[j], row[i])).toList();
      double[] w = softmax(new float[] {row[order.get(0)], row[order.get(1)]});
      double[] wanted = new double[hidden];
      for (int j = 0; j < k; ++j) {
        int e = order.get(j);
        assertEquals(e, ids.get(t * k + j));
        assertEquals(w[j], weights.get(t * k + j), 1e-6);
        for (int i = 0; i < inner; ++i) {
          double gate = 0, up = 0;
          for (int h = 0; h < hidden; ++h) {
            gate += (double) gateUp[(e * 2 * inner + i) * hidden + h] * x[t * hidden + h];
            up += (double) gateUp[(e * 2 * inner + inner + i) * hidden + h] * x[t * hidden + h];
          }
          for (int o = 0; o < hidden; ++o) {
            wanted[o] += w[j] * down[(e * hidden + o) * inner + i] * gate / (1 + Math.exp(-gate)) * up;
          }
        }
      }
      for (int o = 0; o < hidden; ++o) assertEquals(wanted[o], y.get(t * hidden + o), 1e-4 * (1 + Math.abs(wanted[o])));
    }
  }

  private static String recipe() {
    String model = "  - {model: " + ROOT.resolve("docs/examples/family") + "/%s, parameters: {weight: 0.5}}\n";
    return "merge_method: linear\nmodels:\n" + model.formatted("legal") + model.formatted("technical");
  }

  @Test
  void merging(@TempDir Path folder) {
    AtomicInteger heard = new AtomicInteger();
    try (Merger merger = new Merger(context, recipe(), folder.resolve("out"))) {
      assertTrue(merger.plan().contains("linear") && merger.planJson().startsWith("{"));
      merger.run(told -> heard.incrementAndGet() > 0 && told.bytesDone() <= told.bytesTotal() && !told.phase().isEmpty());
    }
    assertTrue(heard.get() > 0 && Files.exists(folder.resolve("out/model.safetensors")));
  }

  @Test
  void cancellingAndExceptionsLeaveNothing(@TempDir Path folder) {
    try (Merger merger = new Merger(context, recipe(), folder.resolve("out"))) {
      ChorusException stopped = assertThrows(ChorusException.class, () -> merger.run(told -> false));
      assertEquals(Core.CHORUS_CANCELLED, stopped.status());
      assertEquals("mine", assertThrows(ArithmeticException.class, () -> merger.run(told -> {
        throw new ArithmeticException("mine");
      })).getMessage());
      assertFalse(Files.exists(folder.resolve("out/model.safetensors")));
      merger.run();
    }
  }

  @Test
  void errorsSayWhatIsWrong() {
    ChorusException error = assertThrows(ChorusException.class, () -> new Router(context, 8, 2, "mixtrl", 1));
    assertEquals("INVALID_ARGUMENT", error.statusName());
    assertTrue(error.getMessage().contains("mixtral"));
    assertTrue(assertThrows(ChorusException.class, () -> new Context(Map.of("thraeds", "1"))).getMessage().contains("threads"));
    ChorusException recipe = assertThrows(ChorusException.class, () -> new Merger(context, "merge_method: lineer\nmodels: []\n", null));
    assertTrue((recipe.getMessage() + recipe.causes()).contains("linear"));
    assertThrows(IllegalArgumentException.class, () -> new Router(context, 8, 2, "mix\0tral", 1));
  }

  @Test
  void useAfterCloseThrowsAndObjectsOutliveTheirContext() {
    Context own = new Context();
    Router router = new Router(own, 8, 2, null, 4);
    own.close();
    own.close();
    assertTrue(router.kernel().contains("route"));
    assertThrows(IllegalStateException.class, own::devices);
    router.close();
    assertThrows(IllegalStateException.class, router::kernel);
  }

  @Test
  void nothingLeaksAndManyThreadsShare() throws Exception {
    assertTrue(context.devices().contains("reference"));
    assertFalse(Context.version().isEmpty());
    for (int i = 0; i < 100_000; ++i) {
      try (Memory memory = new Memory(); Handle spec = memory.create(Core::chorus_combiner_spec_destroy, Core::chorus_combiner_spec_create)) {
        spec.use(s -> memory.check(e -> Core.chorus_combiner_spec_set_max_rows(s, 3, e)));
      }
    }
    float[] a = numbers(9, 200);
    try (Combiner combiner = Combiner.builder(Combiner.Rule.LINEAR).model(200, 1).build(context)) {
      FloatBuffer first = Tensor.floats(200L);
      combiner.run(new Combiner.Run().logProbs(Tensor.of(first, 1, 200)), Tensor.of(Tensor.floats(a), 1, 200));
      List<Throwable> failures = java.util.Collections.synchronizedList(new java.util.ArrayList<>());
      Thread[] threads = IntStream.range(0, 8).mapToObj(t -> new Thread(() -> {
        FloatBuffer mine = Tensor.floats(200L);
        for (int i = 0; i < 200; ++i) {
          combiner.run(new Combiner.Run().logProbs(Tensor.of(mine, 1, 200)), Tensor.of(Tensor.floats(a), 1, 200));
          if (!mine.equals(first)) failures.add(new AssertionError("other numbers"));
        }
      })).toArray(Thread[]::new);
      for (Thread thread : threads) {
        thread.setUncaughtExceptionHandler((t, e) -> failures.add(e));
        thread.start();
      }
      for (Thread thread : threads) thread.join();
      assertArrayEquals(new Object[0], failures.toArray());
    }
  }
}
