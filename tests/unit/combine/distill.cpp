// SPDX-License-Identifier: Apache-2.0
// Distillation losses against sums in long double, and their gradients against central differences of those sums.
#include <criterion/criterion.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <random>
#include <vector>

#include "chorus/chorus.hpp"
#include "unit/combine/support.h"

namespace {

using namespace unit;
using Row = std::vector<long double>;

constexpr int64_t kTokens = 37;

chorus_distill_desc desc_of(chorus_distill_loss loss, double beta = 0.3, double temperature = 1, int32_t n_sparse = 0) {
  chorus_distill_desc desc = CHORUS_DISTILL_DESC_INIT;
  desc.loss = loss;
  desc.student_dtype = desc.teacher_dtype = desc.gradient_dtype = CHORUS_F32;
  desc.n_sparse = n_sparse;
  desc.n_tokens = kTokens;
  desc.max_rows = 8;
  desc.beta = beta;
  desc.temperature = temperature;
  return desc;
}

struct Result {
  std::vector<float> loss, gradient;
  std::vector<int32_t> status;
};

struct Inputs {
  std::vector<float> student, teacher, log_probs, tail, weights;
  std::vector<int32_t> ids;
};

Result run(const chorus_distill_desc &desc, const Inputs &in, int64_t rows, int threads = 2) {
  Result out{std::vector<float>(rows), std::vector<float>(rows * kTokens), std::vector<int32_t>(rows)};
  const chorus::Distiller distiller(context(threads), desc, "reference");
  const chorus::Tensor student(in.student.data(), {rows, kTokens}), loss(out.loss.data(), {rows}),
      gradient(out.gradient.data(), {rows, kTokens}), status(out.status.data(), {rows});
  const chorus::Tensor teacher(in.teacher.data(), {rows, kTokens});
  const chorus::Tensor ids(in.ids.data(), {rows, desc.n_sparse}), log_probs(in.log_probs.data(), {rows, desc.n_sparse}),
      tail(in.tail.data(), {rows}), weights(in.weights.data(), {rows});
  chorus_distill_args args = CHORUS_DISTILL_ARGS_INIT;
  args.rows = rows;
  args.student = student.get();
  if (desc.n_sparse == 0) args.teacher = teacher.get();
  if (desc.n_sparse > 0) {
    args.target_ids = ids.get();
    args.target_log_probs = log_probs.get();
    args.tail_log_probs = tail.get();
  }
  if (!in.weights.empty()) args.row_weights = weights.get();
  args.loss = loss.get();
  args.gradient = gradient.get();
  args.status = status.get();
  distiller.run(args);
  return out;
}

std::vector<float> random_scores(int64_t rows, float spread, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> out(static_cast<size_t>(rows * kTokens));
  for (float &x : out) x = spread * normal(random);
  return out;
}

// log softmax(z / t)
Row log_softmax(const Row &z, long double t) {
  const long double top = *std::max_element(z.begin(), z.end());
  long double sum = 0;
  for (const long double x : z) sum += std::exp((x - top) / t);
  Row out;
  for (const long double x : z) out.push_back((x - top) / t - std::log(sum));
  return out;
}

long double log_add(long double a, long double b) {
  const long double top = std::max(a, b);
  return std::isinf(top) ? top : top + std::log(std::exp(a - top) + std::exp(b - top));
}

// The loss of bucket log-probs, by its definition.
long double loss_of(chorus_distill_loss loss, long double beta, const Row &p, const Row &q) {
  const auto kl = [](const Row &a, const Row &b) {
    long double sum = 0;
    for (size_t v = 0; v < a.size(); ++v) sum += std::isinf(a[v]) ? 0 : std::exp(a[v]) * (a[v] - b[v]);
    return sum;
  };
  if (loss == CHORUS_DISTILL_FORWARD_KL) return kl(p, q);
  if (loss == CHORUS_DISTILL_REVERSE_KL) return kl(q, p);
  long double half = 0;
  Row m;
  for (size_t v = 0; v < p.size(); ++v) {
    half += std::abs(std::exp(p[v]) - std::exp(q[v])) / 2;
    m.push_back(log_add(std::log(beta) + p[v], std::log(1 - beta) + q[v]));
  }
  return loss == CHORUS_DISTILL_TOTAL_VARIATION ? half : beta * kl(p, m) + (1 - beta) * kl(q, m);
}

// Log-probs of single tokens to those of buckets: the ids, then all others.
Row buckets_of(const Row &log_probs, const std::vector<int32_t> &ids) {
  Row out;
  long double tail = -kInfinity;
  for (size_t v = 0; v < log_probs.size(); ++v) {
    if (std::find(ids.begin(), ids.end(), static_cast<int32_t>(v)) == ids.end()) tail = log_add(tail, log_probs[v]);
  }
  for (const int32_t id : ids) out.push_back(log_probs[static_cast<size_t>(id)]);
  out.push_back(tail);
  return out;
}

// Loss and gradient of `student` by `loss`, the gradient by fourth-order central differences.
void expect_row(const float *student, const std::function<long double(const Row &)> &loss, const float *gradient, float found_loss,
                const char *what) {
  const Row z(student, student + kTokens);
  const long double value = loss(z), h = 1e-3L;
  cr_expect(std::abs(found_loss - value) <= 2e-7L * (1 + std::abs(value)), "%s: loss %g, not %Lg", what, found_loss, value);
  for (size_t v = 0; v < z.size(); ++v) {
    const auto at = [&](long double move) {
      Row moved = z;
      moved[v] += move;
      return loss(moved);
    };
    const long double slope = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h);
    cr_expect(std::abs(gradient[v] - slope) <= 1e-9L + 2e-6L * std::abs(slope), "%s: gradient[%zu] %.9g, not %.9Lg", what, v,
              gradient[v], slope);
  }
}

const chorus_distill_loss kLosses[] = {CHORUS_DISTILL_FORWARD_KL, CHORUS_DISTILL_REVERSE_KL, CHORUS_DISTILL_JS,
                                       CHORUS_DISTILL_TOTAL_VARIATION};

}  // namespace

Test(distill, rows_against_their_definition_and_differences) {
  Inputs in{random_scores(3, 2, 1), random_scores(3, 2, 2), {}, {}, {1, 0.5f, 2}, {}};
  for (const chorus_distill_loss loss : kLosses) {
    for (const double temperature : {1.0, 2.5}) {
      const Result out = run(desc_of(loss, 0.3, temperature), in, 3);
      for (int64_t r = 0; r < 3; ++r) {
        const Row teacher(&in.teacher[static_cast<size_t>(r * kTokens)], &in.teacher[static_cast<size_t>(r * kTokens)] + kTokens);
        const Row p = log_softmax(teacher, temperature);
        const auto value = [&](const Row &z) {
          return in.weights[static_cast<size_t>(r)] * loss_of(loss, 0.3L, p, log_softmax(z, temperature));
        };
        expect_row(&in.student[static_cast<size_t>(r * kTokens)], value, &out.gradient[static_cast<size_t>(r * kTokens)],
                   out.loss[static_cast<size_t>(r)], "rows");
        cr_expect_eq(out.status[static_cast<size_t>(r)], 0);
      }
    }
  }
}

Test(distill, sparse_targets_against_their_definition_and_differences) {
  const std::vector<int32_t> ids = {30, 2, 17, 5};
  Inputs in{random_scores(1, 2, 3), random_scores(1, 2, 4), {}, {}, {}, ids};
  const Row teacher(in.teacher.begin(), in.teacher.end());
  const Row p = buckets_of(log_softmax(teacher, 1), ids);
  for (size_t b = 0; b < ids.size(); ++b) in.log_probs.push_back(static_cast<float>(p[b]));
  in.tail.push_back(static_cast<float>(p.back()));
  const Row stored = log_softmax({in.log_probs[0], in.log_probs[1], in.log_probs[2], in.log_probs[3], in.tail[0]}, 1);
  for (const chorus_distill_loss loss : kLosses) {
    const Result out = run(desc_of(loss, 0.3, 2, 4), in, 1);
    const auto value = [&](const Row &z) { return loss_of(loss, 0.3L, stored, buckets_of(log_softmax(z, 2), ids)); };
    expect_row(in.student.data(), value, out.gradient.data(), out.loss[0], "sparse");
  }
  // All tokens as targets: the loss of whole rows.
  std::vector<int32_t> all;
  for (int32_t v = kTokens; v-- > 0;) all.push_back(v);
  Inputs whole{in.student, in.teacher, {}, {-INFINITY}, {}, all};
  const Row log_p = log_softmax(teacher, 1);
  for (const int32_t v : all) whole.log_probs.push_back(static_cast<float>(log_p[static_cast<size_t>(v)]));
  for (const chorus_distill_loss loss : kLosses) {
    const Result sparse = run(desc_of(loss, 0.3, 1, kTokens), whole, 1), dense = run(desc_of(loss), in, 1);
    cr_expect_float_eq(sparse.loss[0], dense.loss[0], 1e-6);
    for (size_t v = 0; v < kTokens; ++v) cr_expect_float_eq(sparse.gradient[v], dense.gradient[v], 1e-6);
  }
}

// Both distributions below e^-104 on most tokens, and the tail bucket below e^-745: log space carries it.
Test(distill, underflowing_tails_stay_finite) {
  Inputs in{random_scores(1, 1, 5), random_scores(1, 1, 6), {0}, {-2000}, {}, {0}};
  in.student[0] = 1500;
  in.teacher[0] = 1500;
  const Row p = {-0.0L, -2000}, teacher(in.teacher.begin(), in.teacher.end());
  for (const chorus_distill_loss loss : kLosses) {
    for (const bool sparse : {true, false}) {
      const Result out = run(desc_of(loss, 0.5, 1, sparse ? 1 : 0), in, 1);
      cr_expect_eq(out.status[0], 0);
      cr_expect(std::isfinite(out.loss[0]) && out.loss[0] >= 0 && out.loss[0] < 1e-30f);
      for (const float g : out.gradient) cr_expect(std::isfinite(g) && std::abs(g) < 1e-30f);
    }
  }
  // A teacher that is sure of what the student finds impossible: the gradient is q - p, though p / q overflows.
  in.student[0] = -1500;
  const Result out = run(desc_of(CHORUS_DISTILL_FORWARD_KL), in, 1);
  cr_expect(out.loss[0] > 1400 && std::isfinite(out.loss[0]));
  cr_expect_float_eq(out.gradient[0], -1, 1e-6);
}

Test(distill, equal_distributions_have_no_loss) {
  Inputs in{random_scores(1, 3, 7), {}, {}, {}, {}, {}};
  in.teacher = in.student;
  for (const chorus_distill_loss loss : kLosses) {
    const Result out = run(desc_of(loss), in, 1);
    cr_expect(out.loss[0] >= 0 && out.loss[0] < 1e-6f);
    for (const float g : out.gradient) cr_expect(std::abs(g) < 1e-6f);
  }
}

Test(distill, js_at_its_ends_is_the_two_kl) {
  const Inputs in{random_scores(2, 2, 8), random_scores(2, 2, 9), {}, {}, {}, {}};
  const Result zero = run(desc_of(CHORUS_DISTILL_JS, 0), in, 2), forward = run(desc_of(CHORUS_DISTILL_FORWARD_KL), in, 2);
  cr_expect(zero.loss == forward.loss && zero.gradient == forward.gradient);
  const Result one = run(desc_of(CHORUS_DISTILL_JS, 1), in, 2), reverse = run(desc_of(CHORUS_DISTILL_REVERSE_KL), in, 2);
  cr_expect(one.loss == reverse.loss && one.gradient == reverse.gradient);
}

Test(distill, rows_do_not_disturb_each_other) {
  Inputs in{random_scores(8, 2, 10), random_scores(8, 2, 11), {}, {}, {1, 1, 1, 0, 1, 1, INFINITY, 1}, {}};
  const Result before = run(desc_of(CHORUS_DISTILL_JS), in, 8);
  in.student[0] = NAN;                                                       // row 0
  std::fill_n(&in.teacher[kTokens], kTokens, -INFINITY);                     // row 1
  in.student[2 * kTokens + 4] = INFINITY;                                    // row 2
  in.teacher[3 * kTokens] = NAN;                                             // row 3, of weight 0
  const Result out = run(desc_of(CHORUS_DISTILL_JS), in, 8, 3);
  cr_expect(out.status == std::vector<int32_t>({CHORUS_ROW_NAN, CHORUS_ROW_EMPTY_SUPPORT, CHORUS_ROW_INFINITE, 0, 0, 0, CHORUS_ROW_NAN, 0}));
  cr_expect(std::isnan(out.loss[0]) && std::isnan(out.gradient[kTokens]) && std::isfinite(out.loss[2]));
  cr_expect_eq(out.loss[3], 0);
  cr_expect_eq(out.gradient[3 * kTokens], 0);
  for (const size_t r : {4u, 5u, 7u}) {
    cr_expect_eq(out.loss[r], before.loss[r]);
    cr_expect(std::equal(&out.gradient[r * kTokens], &out.gradient[r * kTokens] + kTokens, &before.gradient[r * kTokens]));
  }
}

Test(distill, what_one_lacks) {
  Inputs in{random_scores(1, 1, 12), random_scores(1, 1, 13), {}, {}, {}, {}};
  in.teacher[5] = -INFINITY;
  const Result reverse = run(desc_of(CHORUS_DISTILL_REVERSE_KL), in, 1);
  cr_expect_eq(reverse.status[0], CHORUS_ROW_LOSS_INFINITE);
  cr_expect_eq(reverse.loss[0], INFINITY);
  for (const float g : reverse.gradient) cr_expect_eq(g, 0);
  in.student[5] = -INFINITY;  // masked in both: fine everywhere
  for (const chorus_distill_loss loss : kLosses) {
    const Result out = run(desc_of(loss), in, 1);
    cr_expect_eq(out.status[0], 0);
    cr_expect(std::isfinite(out.loss[0]));
    cr_expect_eq(out.gradient[5], 0);
  }
  in.teacher[5] = 0;
  cr_expect_eq(run(desc_of(CHORUS_DISTILL_FORWARD_KL), in, 1).status[0], CHORUS_ROW_LOSS_INFINITE);
  cr_expect_eq(run(desc_of(CHORUS_DISTILL_JS), in, 1).status[0], 0);
}

Test(distill, bad_targets_and_bad_calls) {
  Inputs in{random_scores(4, 1, 14), {}, std::vector<float>(8, -1), {-1, -1, NAN, -1}, {}, {0, kTokens, 3, 3, 1, 2, -1, 4}};
  const Result out = run(desc_of(CHORUS_DISTILL_FORWARD_KL, 0, 1, 2), in, 4);
  cr_expect(out.status == std::vector<int32_t>({CHORUS_ROW_BAD_TOKEN, CHORUS_ROW_BAD_TOKEN, CHORUS_ROW_NAN, 0}));
  const auto status = [](auto change) {
    chorus_distill_desc desc = desc_of(CHORUS_DISTILL_JS);
    change(desc);
    chorus_distiller *made = nullptr;
    const chorus_status result = chorus_distiller_create(context().get(), &desc, "reference", &made, nullptr);
    chorus_distiller_destroy(made);
    return result;
  };
  cr_expect_eq(status([](auto &) {}), CHORUS_OK);
  cr_expect_eq(status([](auto &d) { d.loss = 9; }), CHORUS_INVALID_ARGUMENT);
  cr_expect_eq(status([](auto &d) { d.beta = 1.5; }), CHORUS_INVALID_ARGUMENT);
  cr_expect_eq(status([](auto &d) { d.temperature = 0; }), CHORUS_INVALID_ARGUMENT);
  cr_expect_eq(status([](auto &d) { d.n_sparse = kTokens + 1; }), CHORUS_INVALID_ARGUMENT);
  cr_expect_eq(status([](auto &d) { d.student_dtype = CHORUS_I8; }), CHORUS_UNIMPLEMENTED);
  const chorus::Distiller distiller(context(), desc_of(CHORUS_DISTILL_JS), "reference");
  cr_expect_str_eq(distiller.kernel(), "reference/combine_distill");
  chorus_distill_args args = CHORUS_DISTILL_ARGS_INIT;
  const chorus::Tensor student(in.student.data(), {1, kTokens}), same(in.student.data(), {1, kTokens});
  std::vector<float> teacher(kTokens);
  const chorus::Tensor teacher_tensor(teacher.data(), {1, kTokens});
  args.rows = 1;
  args.student = student.get();
  cr_expect_eq(chorus_distiller_run(distiller.get(), &args, nullptr, nullptr), CHORUS_INVALID_ARGUMENT);
  args.teacher = teacher_tensor.get();
  cr_expect_eq(chorus_distiller_run(distiller.get(), &args, nullptr, nullptr), CHORUS_OK);
  args.gradient = chorus::Tensor(in.student.data(), {1, kTokens}).get();
  chorus::Tensor overlapping(in.student.data(), {1, kTokens});
  args.gradient = overlapping.get();
  cr_expect_eq(chorus_distiller_run(distiller.get(), &args, nullptr, nullptr), CHORUS_INVALID_ARGUMENT);
}
