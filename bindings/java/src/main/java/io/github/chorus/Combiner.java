// SPDX-License-Identifier: Apache-2.0
package io.github.chorus;

import io.github.chorus.core.Core;
import io.github.chorus.core.Layout;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;

/** Mixes the next-token distributions of several models. */
public final class Combiner implements AutoCloseable {
  /** LINEAR: sum of w p, OR. LOG_LINEAR: product of p^w, AND. */
  public enum Rule { LINEAR, LOG_LINEAR }

  /** What rows of scores hold. */
  public enum Kind { LOGITS, LOG_PROBS, PROBS }

  /** Makes a combiner. */
  public static final class Builder {
    private record Model(Kind kind, DType dtype, long logits, long valid, double weight, double temperature) {}

    private final Rule rule;
    private final List<Model> models = new ArrayList<>();
    private long maxRows = 1024;
    private long vocabularySize;

    private Builder(Rule rule) {
      this.rule = rule;
    }

    /** Rows of `n` f32 logits. Weight 0: never read. */
    public Builder model(long n, double weight) {
      return model(Kind.LOGITS, DType.F32, n, n, weight, 1);
    }

    /** As chorus_combiner_spec_add_model(). */
    public Builder model(Kind kind, DType dtype, long logits, long valid, double weight, double temperature) {
      models.add(new Model(kind, dtype, logits, valid, weight, temperature));
      return this;
    }

    /** Most rows a call may bring; 1024 by default. */
    public Builder maxRows(long rows) {
      maxRows = rows;
      return this;
    }

    /** Size of the output vocabulary; by default the largest of the models. */
    public Builder vocabularySize(long tokens) {
      vocabularySize = tokens;
      return this;
    }

    /** On the best device. */
    public Combiner build(Context context) {
      return build(context, "auto");
    }

    /** On `device`: "auto", "cpu", "reference". */
    public Combiner build(Context context, String device) {
      try (Memory memory = new Memory();
          Handle spec = memory.create(Core::chorus_combiner_spec_destroy, Core::chorus_combiner_spec_create)) {
        return new Combiner(models.size(), spec.with(s -> {
          int word = rule == Rule.LINEAR ? Core.CHORUS_COMBINE_LINEAR : Core.CHORUS_COMBINE_LOG_LINEAR;
          memory.check(e -> Core.chorus_combiner_spec_set_rule(s, word, e));
          memory.check(e -> Core.chorus_combiner_spec_set_max_rows(s, maxRows, e));
          if (vocabularySize != 0) memory.check(e -> Core.chorus_combiner_spec_set_vocabulary_size(s, vocabularySize, e));
          for (Model m : models) {
            memory.check(e -> Core.chorus_combiner_spec_add_model(s, m.kind.ordinal(), m.dtype.code, m.logits, m.valid, m.weight,
                m.temperature, 0, e));
          }
          return context.handle.with(c -> memory.create(Core::chorus_combiner_destroy,
              (out, e) -> Core.chorus_combiner_create(c, s, memory.text(device), out, e)));
        }));
      }
    }
  }

  /** A call: what it brings and where results go; what is not set is not read or computed. */
  public static final class Run {
    private Tensor weights, temperatures, rowIds, tokens, logProbs, argmax, sample, sampleLogProb, tokenLogProbs, status;
    private long seed, step;

    /** f32 [models]. */
    public Run weights(Tensor t) { weights = t; return this; }
    /** f32 [models]. */
    public Run temperatures(Tensor t) { temperatures = t; return this; }
    /** i64 [rows]: keys of the draws. */
    public Run rowIds(Tensor t) { rowIds = t; return this; }
    /** i32 or i64 [rows, n] to score, and f32 [rows, n] for their log-probs. */
    public Run tokens(Tensor t, Tensor out) { tokens = t; tokenLogProbs = out; return this; }
    /** Output f32 [rows, tokens]. */
    public Run logProbs(Tensor out) { logProbs = out; return this; }
    /** Output i32 [rows]. */
    public Run argmax(Tensor out) { argmax = out; return this; }
    /** Outputs i32 and f32 [rows], drawn by seed, row id and step. */
    public Run sample(Tensor out, Tensor logProb, long seed, long step) {
      sample = out; sampleLogProb = logProb; this.seed = seed; this.step = step; return this;
    }
    /** Output i32 [rows]. */
    public Run status(Tensor out) { status = out; return this; }
  }

  private final int models;
  private final Handle handle;

  private Combiner(int models, Handle handle) {
    this.models = models;
    this.handle = handle;
  }

  /** No models yet. */
  public static Builder builder(Rule rule) {
    Native.load();
    return new Builder(rule);
  }

  /** The kernel in use, "cpu/combine_rows". */
  public String kernel() {
    return handle.with(c -> Memory.text(Core.chorus_combiner_get_kernel(c)));
  }

  /** Combines one [rows, n] per model, null where the weight is 0. */
  public void run(Run run, Tensor... scores) {
    if (scores.length != models) throw new IllegalArgumentException("scores: " + scores.length + " tensors; there are " + models + " models");
    try (Memory memory = new Memory()) {
      ByteBuffer list = memory.bytes(8 * scores.length);
      ByteBuffer in = memory.struct(Layout.CombineIn.SIZE, Layout.CombineIn.STRUCT_SIZE);
      for (int i = 0; i < scores.length; ++i) {
        list.putLong(8 * i, memory.tensor(scores[i]));
        if (scores[i] != null) in.putLong(Layout.CombineIn.ROWS, scores[i].rows());
      }
      in.putLong(Layout.CombineIn.SCORES, memory.address(list));
      in.putLong(Layout.CombineIn.WEIGHTS, memory.tensor(run.weights));
      in.putLong(Layout.CombineIn.TEMPERATURES, memory.tensor(run.temperatures));
      in.putLong(Layout.CombineIn.ROW_IDS, memory.tensor(run.rowIds));
      in.putLong(Layout.CombineIn.TOKENS, memory.tensor(run.tokens));
      in.putLong(Layout.CombineIn.SEED, run.seed);
      in.putLong(Layout.CombineIn.STEP, run.step);
      ByteBuffer out = memory.struct(Layout.CombineOut.SIZE, Layout.CombineOut.STRUCT_SIZE);
      out.putLong(Layout.CombineOut.LOG_PROBS, memory.tensor(run.logProbs));
      out.putLong(Layout.CombineOut.ARGMAX, memory.tensor(run.argmax));
      out.putLong(Layout.CombineOut.SAMPLE, memory.tensor(run.sample));
      out.putLong(Layout.CombineOut.SAMPLE_LOG_PROB, memory.tensor(run.sampleLogProb));
      out.putLong(Layout.CombineOut.TOKEN_LOG_PROBS, memory.tensor(run.tokenLogProbs));
      out.putLong(Layout.CombineOut.STATUS, memory.tensor(run.status));
      handle.use(c -> memory.check(e -> Core.chorus_combiner_run(c, memory.address(in), memory.address(out), 0, e)));
    }
  }

  @Override
  public void close() {
    handle.close();
  }
}
