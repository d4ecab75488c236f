// SPDX-License-Identifier: Apache-2.0
// combine.distill: teacher distributions x student logits -> loss and gradient; one task per row, all in f64 log space, so
// that both tails may underflow. docs/numerics.md, "Distilling". Cost per row: 3 exponentials per token and distribution.
//
// The loss is D = sum_b f(p_b, q_b) over buckets b: single tokens, with sparse targets also the tail. With h_b = df/dq_b and
// q = softmax(z / T), the gradient is q_v (h_b(v) - sum_b q_b h_b) / T; q_b h_b is what stays finite where q_b is 0.
#include <algorithm>
#include <cmath>
#include <limits>

#include "reference/backend.h"

namespace chorus::reference {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

struct DistillState {
  const chorus_host *host;
  chorus_distill_loss loss;
  chorus_score_kind teacher_kind;
  int32_t n_sparse;
  int64_t n_tokens;
  double beta, temperature, scale;
};

// ---- Distributions ----

// log softmax(s / T) of a row, element by element. `infinite`: the +inf scores share the mass.
struct LogSoftmax {
  const void *scores;
  chorus_dtype dtype;
  chorus_score_kind kind;
  double temperature, top, log_sum;
  bool infinite;

  double score(int64_t v) const {
    const double x = load_f64(dtype, scores, v);
    return kind != CHORUS_SCORES_PROBS ? x : x < 0 ? kNaN : std::log(x);
  }
  double operator()(int64_t v) const {
    const double x = score(v);
    if (infinite) return x == kInfinity ? -log_sum : -kInfinity;
    return (x - top) / temperature - log_sum;
  }
};

// Row status bits; the distribution is usable when neither NAN nor EMPTY_SUPPORT is among them.
int32_t open_row(const chorus_tensor &t, int64_t row, chorus_score_kind kind, int64_t n, double temperature, LogSoftmax *out) {
  *out = {row_of(t, row), dtype_of(t), kind, temperature, -kInfinity, 0, false};
  int64_t infinite = 0;
  for (int64_t v = 0; v < n; ++v) {
    const double x = out->score(v);
    if (is_nan(x)) return CHORUS_ROW_NAN;
    infinite += x == kInfinity;
    out->top = x > out->top ? x : out->top;
  }
  if (out->top == -kInfinity) return CHORUS_ROW_EMPTY_SUPPORT;
  out->infinite = infinite > 0;
  out->log_sum = std::log(infinite > 0 ? static_cast<double>(infinite) : sum_in_order<double>(n, [&](int64_t v) {
    return std::exp((out->score(v) - out->top) / temperature);
  }));
  return infinite > 0 ? CHORUS_ROW_INFINITE : CHORUS_ROW_OK;
}

double log_add(double a, double b) {
  const double top = a > b ? a : b, low = a > b ? b : a;
  return top == -kInfinity ? top : top + std::log1p(std::exp(low - top));
}

// ---- Losses of one bucket ----

struct Term {
  double loss;   // f(p, q)
  double slope;  // h = df/dq, up to a constant over buckets; forward KL: log p - log q, as h = -p / q may overflow
};

Term forward_kl(double log_p, double log_q) {
  if (log_p == -kInfinity) return {0, -kInfinity};
  return {std::exp(log_p) * (log_p - log_q), log_p - log_q};
}

Term reverse_kl(double log_p, double log_q) {
  if (log_q == -kInfinity) return {0, 0};
  return {std::exp(log_q) * (log_q - log_p), log_q - log_p};
}

Term jensen_shannon(double log_p, double log_q, double beta) {
  const double log_m = log_add(std::log(beta) + log_p, std::log1p(-beta) + log_q);
  if (log_m == -kInfinity) return {0, 0};
  const double p_part = log_p == -kInfinity ? 0 : beta * std::exp(log_p) * (log_p - log_m);
  const double q_part = log_q == -kInfinity ? 0 : (1 - beta) * std::exp(log_q) * (log_q - log_m);
  return {p_part + q_part, log_q == -kInfinity ? 0 : (1 - beta) * (log_q - log_m)};
}

Term total_variation(double log_p, double log_q) {
  const double p = std::exp(log_p), q = std::exp(log_q);
  return {std::abs(p - q) / 2, q > p ? 0.5 : q < p ? -0.5 : 0.0};
}

chorus_distill_loss effective_loss(const DistillState &state) {
  if (state.loss != CHORUS_DISTILL_JS) return state.loss;
  return state.beta == 0 ? CHORUS_DISTILL_FORWARD_KL : state.beta == 1 ? CHORUS_DISTILL_REVERSE_KL : CHORUS_DISTILL_JS;
}

Term term_of(const DistillState &state, double log_p, double log_q) {
  switch (effective_loss(state)) {
    case CHORUS_DISTILL_FORWARD_KL: return forward_kl(log_p, log_q);
    case CHORUS_DISTILL_REVERSE_KL: return reverse_kl(log_p, log_q);
    case CHORUS_DISTILL_JS: return jensen_shannon(log_p, log_q, state.beta);
    default: return total_variation(log_p, log_q);
  }
}

// q_v h_b - q_v G of a token with log-prob log_q in a bucket of that term; G = sum q_b h_b. Forward KL: h = -p/q, G = -1.
double gradient_of(const DistillState &state, double log_q, const Term &term, double mean_slope) {
  const double q = std::exp(log_q);
  if (effective_loss(state) != CHORUS_DISTILL_FORWARD_KL) return q == 0 ? 0 : q * (term.slope - mean_slope);
  return q - std::exp(log_q + term.slope);  // a token of the tail takes its share q_v / q_tail of the tail's p
}

// ---- Sparse targets ----

struct Target {
  int32_t id;
  int32_t slot;
};

// The buckets of a row: targets by id in workspace, their log-probs, the tail.
struct SparseRow {
  Target *targets;
  int64_t count;
  const chorus_tensor *log_probs;
  int64_t row;
  double log_total, tail;  // of the teacher: all buckets; the tail normalised
  double student_tail;     // log of the student's mass outside

  double log_p(int64_t at) const {
    return load_f64(CHORUS_F32, row_of(*log_probs, row), targets[at].slot * stride_of(*log_probs, 1)) - log_total;
  }
};

int32_t open_sparse(const DistillState &state, const chorus_distill_args &args, int64_t row, const LogSoftmax &student,
                    Target *memory, SparseRow *out) {
  *out = {memory, 0, args.target_log_probs, row, 0, -kInfinity, -kInfinity};
  const chorus_tensor &ids = *args.target_ids;
  for (int32_t slot = 0; slot < state.n_sparse; ++slot) {
    const int64_t id = integer_at(CHORUS_I32, row_of(ids, row), slot * stride_of(ids, 1));
    if (id == -1) continue;
    if (id < 0 || id >= state.n_tokens) return CHORUS_ROW_BAD_TOKEN;
    memory[out->count++] = {static_cast<int32_t>(id), slot};
  }
  std::sort(memory, memory + out->count, [](const Target &a, const Target &b) { return a.id < b.id; });
  for (int64_t i = 1; i < out->count; ++i) {
    if (memory[i].id == memory[i - 1].id) return CHORUS_ROW_BAD_TOKEN;
  }
  double tail = args.tail_log_probs != nullptr ? f32_at(*args.tail_log_probs, row) : -kInfinity, top = tail;
  if (is_nan(tail) || tail == kInfinity) return CHORUS_ROW_NAN;
  for (int64_t i = 0; i < out->count; ++i) {
    const double l = out->log_p(i);
    if (is_nan(l) || l == kInfinity) return CHORUS_ROW_NAN;
    top = l > top ? l : top;
  }
  if (top == -kInfinity) return CHORUS_ROW_EMPTY_SUPPORT;
  const double rest = std::exp(tail - top);
  out->log_total = top + std::log(sum_in_order<double>(out->count, [&](int64_t i) { return std::exp(out->log_p(i) - top); }) + rest);
  out->tail = tail - out->log_total;
  int64_t next = 0;
  double highest = -kInfinity;  // of the tail, so that it may underflow
  for (int64_t v = 0; v < state.n_tokens; ++v) {
    if (next < out->count && memory[next].id == v) {
      ++next;
      continue;
    }
    const double l = student(v);
    highest = l > highest ? l : highest;
  }
  next = 0;
  if (highest > -kInfinity) {
    out->student_tail = highest + std::log(sum_in_order<double>(state.n_tokens, [&](int64_t v) {
      if (next < out->count && memory[next].id == v) {
        ++next;
        return 0.0;
      }
      return std::exp(student(v) - highest);
    }));
  }
  return CHORUS_ROW_OK;
}

// ---- Rows ----

struct Sums {
  double loss = 0, mean_slope = 0;
};

void add(const DistillState &state, double log_p, double log_q, double *loss, double *slope) {
  const Term term = term_of(state, log_p, log_q);
  const double q = std::exp(log_q);
  *loss = term.loss;
  *slope = q == 0 ? 0 : q * term.slope;
}

template <typename LogP, typename LogQ>
Sums sum_buckets(const DistillState &state, int64_t count, const LogP &log_p, const LogQ &log_q) {
  Sums out;
  out.loss = sum_in_order<double>(count, [&](int64_t b) {
    double loss, slope;
    add(state, log_p(b), log_q(b), &loss, &slope);
    return loss;
  });
  if (effective_loss(state) == CHORUS_DISTILL_FORWARD_KL) return out;
  out.mean_slope = sum_in_order<double>(count, [&](int64_t b) {
    double loss, slope;
    add(state, log_p(b), log_q(b), &loss, &slope);
    return slope;
  });
  return out;
}

void fill(const DistillState &state, const chorus_distill_args &args, int64_t row, double loss, double gradient, int32_t status) {
  put_float(args.loss, row, loss);
  for (int64_t v = 0; args.gradient != nullptr && v < state.n_tokens; ++v) {
    store_f64(dtype_of(*args.gradient), row_of(*args.gradient, row), v, gradient);
  }
  put_integer(args.status, row, status);
}

void finish(const DistillState &state, const chorus_distill_args &args, int64_t row, const Sums &sums, double factor, int32_t status,
            const auto &gradient) {
  if (!(sums.loss < kInfinity) || !std::isfinite(sums.mean_slope)) {
    fill(state, args, row, kInfinity, 0, status | CHORUS_ROW_LOSS_INFINITE);
    return;
  }
  // A divergence: what rounding leaves below 0 is 0.
  put_float(args.loss, row, (sums.loss > 0 ? sums.loss : 0) * factor);
  for (int64_t v = 0; args.gradient != nullptr && v < state.n_tokens; ++v) {
    store_f64(dtype_of(*args.gradient), row_of(*args.gradient, row), v, gradient(v) / state.temperature * factor);
  }
  put_integer(args.status, row, status);
}

void run_dense(const DistillState &state, const chorus_distill_args &args, int64_t row, double factor, const LogSoftmax &student,
               int32_t status) {
  LogSoftmax teacher;
  status |= open_row(*args.teacher, row, state.teacher_kind, state.n_tokens, state.temperature, &teacher);
  if ((status & (CHORUS_ROW_NAN | CHORUS_ROW_EMPTY_SUPPORT)) != 0) return fill(state, args, row, kNaN, kNaN, status);
  const Sums sums = sum_buckets(state, state.n_tokens, teacher, student);
  finish(state, args, row, sums, factor, status, [&](int64_t v) {
    const double log_q = student(v);
    return gradient_of(state, log_q, term_of(state, teacher(v), log_q), sums.mean_slope);
  });
}

void run_sparse(const DistillState &state, const chorus_distill_args &args, int64_t row, double factor, const LogSoftmax &student,
                int32_t status, Target *memory) {
  SparseRow sparse;
  status |= open_sparse(state, args, row, student, memory, &sparse);
  if ((status & (CHORUS_ROW_NAN | CHORUS_ROW_EMPTY_SUPPORT | CHORUS_ROW_BAD_TOKEN)) != 0) {
    return fill(state, args, row, kNaN, kNaN, status);
  }
  const auto log_p = [&](int64_t b) { return b < sparse.count ? sparse.log_p(b) : sparse.tail; };
  const auto log_q = [&](int64_t b) { return b < sparse.count ? student(sparse.targets[b].id) : sparse.student_tail; };
  const Sums sums = sum_buckets(state, sparse.count + 1, log_p, log_q);
  const Term tail = term_of(state, sparse.tail, sparse.student_tail);
  int64_t next = 0;
  finish(state, args, row, sums, factor, status, [&](int64_t v) {
    const double log_q_v = student(v);
    if (next == sparse.count || sparse.targets[next].id != v) return gradient_of(state, log_q_v, tail, sums.mean_slope);
    return gradient_of(state, log_q_v, term_of(state, sparse.log_p(next++), log_q_v), sums.mean_slope);
  });
}

void run_row(const DistillState &state, const chorus_distill_args &args, int64_t row, Target *memory) {
  const double weight = args.row_weights != nullptr ? f32_at(*args.row_weights, row) : 1.0;
  if (weight == 0) return fill(state, args, row, 0, 0, CHORUS_ROW_OK);
  if (!std::isfinite(weight)) return fill(state, args, row, kNaN, kNaN, CHORUS_ROW_NAN);
  LogSoftmax student;
  const int32_t status = open_row(*args.student, row, CHORUS_SCORES_LOGITS, state.n_tokens, state.temperature, &student);
  if ((status & (CHORUS_ROW_NAN | CHORUS_ROW_EMPTY_SUPPORT)) != 0) return fill(state, args, row, kNaN, kNaN, status);
  const double factor = weight * state.scale;
  if (state.n_sparse == 0) {
    run_dense(state, args, row, factor, student, status);
  } else {
    run_sparse(state, args, row, factor, student, status, memory);
  }
}

// ---- The kernel ----

bool is_score_dtype(chorus_dtype dtype) { return dtype == CHORUS_F32 || dtype == CHORUS_F16 || dtype == CHORUS_BF16; }

int32_t distill_score(chorus_plugin_device *, const void *desc, char *why, size_t bytes) {
  const auto &d = *static_cast<const chorus_distill_desc *>(desc);
  if (d.loss < CHORUS_DISTILL_FORWARD_KL || d.loss > CHORUS_DISTILL_TOTAL_VARIATION)
    return refuse(why, bytes, "loss is %d; supported: forward KL, reverse KL, JS, total variation (0 to 3)", d.loss);
  if (!is_score_dtype(d.student_dtype))
    return refuse(why, bytes, "student_dtype is 0x%x; supported: f32, f16, bf16", d.student_dtype);
  if (!is_score_dtype(d.gradient_dtype))
    return refuse(why, bytes, "gradient_dtype is 0x%x; supported: f32, f16, bf16", d.gradient_dtype);
  if (d.n_sparse == 0 && !is_score_dtype(d.teacher_dtype))
    return refuse(why, bytes, "teacher_dtype is 0x%x; supported: f32, f16, bf16", d.teacher_dtype);
  return kScore;
}

chorus_status distill_prepare(chorus_plugin_device *device, const void *desc, void **out, chorus_error_slot slot) {
  const auto &d = *static_cast<const chorus_distill_desc *>(desc);
  auto *state = make_state<DistillState>(device->host, slot);
  if (state == nullptr) return CHORUS_RESOURCE_EXHAUSTED;
  state->loss = d.loss;
  state->teacher_kind = d.teacher_kind;
  state->n_sparse = d.n_sparse;
  state->n_tokens = d.n_tokens;
  state->beta = d.beta;
  state->temperature = d.temperature;
  state->scale = d.scale == 0 ? 1 : d.scale;
  *out = state;
  return CHORUS_OK;
}

uint64_t distill_workspace(const void *prepared, const void *args) {
  const auto &state = *static_cast<const DistillState *>(prepared);
  return aligned(static_cast<uint64_t>(static_cast<const chorus_distill_args *>(args)->rows) *
                 static_cast<uint64_t>(state.n_sparse) * sizeof(Target));
}

chorus_status distill_run(const void *prepared, const void *args_pointer, const chorus_exec *exec, chorus_error_slot) {
  const auto &state = *static_cast<const DistillState *>(prepared);
  const auto &args = *static_cast<const chorus_distill_args *>(args_pointer);
  auto *memory = static_cast<Target *>(exec->workspace);
  parallel_for(state.host, args.rows, [&](int64_t row) {
    run_row(state, args, row, state.n_sparse > 0 ? memory + row * state.n_sparse : nullptr);
  });
  return CHORUS_OK;
}

}  // namespace

const chorus_kernel kCombineDistill = {CHORUS_END_OF(chorus_kernel, prepared_bytes),
                                       CHORUS_OP_COMBINE_DISTILL,
                                       1,
                                       0,
                                       "combine_distill",
                                       distill_score,
                                       distill_prepare,
                                       distill_workspace,
                                       distill_run,
                                       free_state<DistillState>,
                                       nullptr};

}  // namespace chorus::reference
