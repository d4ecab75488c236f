// SPDX-License-Identifier: Apache-2.0
// What a distiller refuses before its kernel runs.
#include "combine/distiller.h"

#include <cmath>
#include <limits>

#include "runtime/error.h"
#include "runtime/tensor.h"

namespace chorus::combine {
namespace {

chorus_distill_desc checked(chorus_distill_desc d) {
  if (d.loss < CHORUS_DISTILL_FORWARD_KL || d.loss > CHORUS_DISTILL_TOTAL_VARIATION) {
    fail(CHORUS_INVALID_ARGUMENT, "loss is {}; forward KL (0), reverse KL (1), JS (2), total variation (3) are known", d.loss);
  }
  if (d.teacher_kind < CHORUS_SCORES_LOGITS || d.teacher_kind > CHORUS_SCORES_PROBS) {
    fail(CHORUS_INVALID_ARGUMENT, "teacher_kind is {}; logits (0), log-probs (1) and probs (2) are known", d.teacher_kind);
  }
  if (d.n_tokens < 1 || d.n_tokens > std::numeric_limits<int32_t>::max()) {
    fail(CHORUS_INVALID_ARGUMENT, "n_tokens is {}; 1 to 2^31 - 1 are allowed", d.n_tokens);
  }
  if (d.max_rows < 1) fail(CHORUS_INVALID_ARGUMENT, "max_rows is {}; at least 1 is needed", d.max_rows);
  if (d.n_sparse < 0 || d.n_sparse > CHORUS_DISTILL_MAX_SPARSE || d.n_sparse > d.n_tokens) {
    fail(CHORUS_INVALID_ARGUMENT, "n_sparse is {}; 0 (rows) to {} and n_tokens ({}) are allowed", d.n_sparse,
         CHORUS_DISTILL_MAX_SPARSE, d.n_tokens);
  }
  if (!(d.beta >= 0 && d.beta <= 1)) fail(CHORUS_INVALID_ARGUMENT, "beta is {}; 0 to 1 is allowed", d.beta);
  if (!std::isfinite(d.temperature) || !(d.temperature > 0)) {
    fail(CHORUS_INVALID_ARGUMENT, "temperature is {}; finite and > 0 is needed", d.temperature);
  }
  if (!std::isfinite(d.scale)) fail(CHORUS_INVALID_ARGUMENT, "scale is {}; it must be finite", d.scale);
  d.struct_size = CHORUS_END_OF(chorus_distill_desc, scale);
  return d;
}

}  // namespace

Distiller::Distiller(const std::shared_ptr<const Context> &context, const chorus_distill_desc &desc, const char *device)
    : desc_(checked(desc)),
      kernel_(PreparedKernel::prepare(find_device(context, device), CHORUS_OP_COMBINE_DISTILL, &desc_)) {}

void Distiller::check_rows(int64_t rows) const {
  if (rows < 0 || rows > desc_.max_rows) {
    fail(CHORUS_INVALID_ARGUMENT, "rows is {}; 0 to {} (max_rows) are allowed", rows, desc_.max_rows);
  }
}

void Distiller::check_inputs(const chorus_distill_args &args) const {
  const Device &device = *kernel_.device();
  const auto check_scores = [&](const chorus_tensor *tensor, const char *name, chorus_dtype dtype) {
    check_tensor(tensor, {name, {dtype}, {args.rows, kAnySize}}, device);
    if (tensor->shape[1] < desc_.n_tokens) {
      fail(CHORUS_INVALID_ARGUMENT, "{}: rows have {} entries; n_tokens is {}", name, tensor->shape[1], desc_.n_tokens);
    }
  };
  check_scores(args.student, "student", desc_.student_dtype);
  if (desc_.n_sparse == 0) {
    check_scores(args.teacher, "teacher", desc_.teacher_dtype);
  } else {
    check_tensor(args.target_ids, {"target_ids", {CHORUS_I32}, {args.rows, desc_.n_sparse}}, device);
    check_tensor(args.target_log_probs, {"target_log_probs", {CHORUS_F32}, {args.rows, desc_.n_sparse}}, device);
    if (args.tail_log_probs != nullptr) {
      check_tensor(args.tail_log_probs, {"tail_log_probs", {CHORUS_F32}, {args.rows}}, device);
    }
  }
  if (args.row_weights != nullptr) check_tensor(args.row_weights, {"row_weights", {CHORUS_F32}, {args.rows}}, device);
}

void Distiller::check_outputs(const chorus_distill_args &args) const {
  const Device &device = *kernel_.device();
  if (args.loss != nullptr) check_tensor(args.loss, {"loss", {CHORUS_F32}, {args.rows}, true}, device);
  if (args.gradient != nullptr) {
    check_tensor(args.gradient, {"gradient", {desc_.gradient_dtype}, {args.rows, desc_.n_tokens}, true}, device);
  }
  if (args.status != nullptr) check_tensor(args.status, {"status", {CHORUS_I32}, {args.rows}, true}, device);
  struct Named {
    const char *name;
    const chorus_tensor *tensor;
  };
  const Named all[] = {{"loss", args.loss},
                       {"gradient", args.gradient},
                       {"status", args.status},
                       {"student", args.student},
                       {"teacher", desc_.n_sparse == 0 ? args.teacher : nullptr},
                       {"target_ids", desc_.n_sparse == 0 ? nullptr : args.target_ids},
                       {"target_log_probs", desc_.n_sparse == 0 ? nullptr : args.target_log_probs},
                       {"tail_log_probs", desc_.n_sparse == 0 ? nullptr : args.tail_log_probs},
                       {"row_weights", args.row_weights}};
  for (size_t a = 0; a < 3; ++a) {  // the outputs
    for (size_t b = a + 1; b < std::size(all); ++b) {
      if (all[a].tensor != nullptr && all[b].tensor != nullptr) {
        check_no_overlap(*all[a].tensor, all[a].name, *all[b].tensor, all[b].name);
      }
    }
  }
}

void Distiller::run(const chorus_distill_args &args, const chorus_exec *exec) const {
  check_rows(args.rows);
  check_inputs(args);
  check_outputs(args);
  kernel_.run(&args, exec);
}

uint64_t Distiller::workspace_size(int64_t rows) const {
  check_rows(rows);
  chorus_distill_args args = CHORUS_DISTILL_ARGS_INIT;
  args.rows = rows;
  return kernel_.workspace_size(&args);
}

}  // namespace chorus::combine
