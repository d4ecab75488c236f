// SPDX-License-Identifier: Apache-2.0
// Checks a call's tensors and hands it to the kernel.
#include "combine/combiner.h"

#include <array>
#include <vector>

#include "combine/spec.h"
#include "runtime/error.h"
#include "runtime/tensor.h"

namespace chorus::combine {
namespace {

struct Named {
  const char *name;
  const chorus_tensor *tensor;
};

std::array<Named, 14> outputs_of(const chorus_combine_out &out) {
  return {{{"log_probs", out.log_probs},
           {"argmax", out.argmax},
           {"argmax_log_prob", out.argmax_log_prob},
           {"sample", out.sample},
           {"sample_log_prob", out.sample_log_prob},
           {"token_log_probs", out.token_log_probs},
           {"status", out.status},
           {"probs", out.probs},
           {"top_ids", out.top_ids},
           {"top_log_probs", out.top_log_probs},
           {"tail_log_prob", out.tail_log_prob},
           {"diagnostics", out.diagnostics},
           {"gradient_sums", out.gradient_sums},
           {"model_token_log_probs", out.model_token_log_probs}}};
}

std::vector<Named> inputs_of(const chorus_combine_in &in, size_t models) {
  std::vector<Named> list = {{"weights", in.weights},         {"temperatures", in.temperatures},
                             {"row_ids", in.row_ids},         {"steps", in.steps},
                             {"tokens", in.tokens},           {"history_offsets", in.history_offsets},
                             {"history_ids", in.history_ids}, {"penalties", in.penalties},
                             {"neighbours_offsets", in.neighbours_offsets},
                             {"neighbours_ids", in.neighbours_ids},
                             {"neighbours_scores", in.neighbours_scores}};
  for (size_t i = 0; i < models; ++i) {
    if (in.biases != nullptr) list.push_back({"a bias", in.biases[i]});
    if (in.masks != nullptr) list.push_back({"a mask", in.masks[i]});
  }
  return list;
}

// Refuses an output the spec left out: the kernel was chosen without it.
void check_wanted(uint32_t outputs, uint32_t bit, const chorus_tensor *tensor, const char *name) {
  if (tensor != nullptr && (outputs & bit) == 0) {
    fail(CHORUS_INVALID_ARGUMENT, "{} is asked for; the spec's outputs leave it out", name);
  }
}

PreparedKernel prepare(const std::shared_ptr<const Context> &context, const Spec &spec, const char *device) {
  const Descriptor descriptor(spec);
  return PreparedKernel::prepare(find_device(context, device), CHORUS_OP_COMBINE_ROWS, descriptor.get());
}

}  // namespace

Combiner::Combiner(const std::shared_ptr<const Context> &context, const Spec &spec, const char *device)
    : spec_(completed(spec)), kernel_(prepare(context, spec_, device)) {}

void Combiner::check_rows(int64_t rows) const {
  if (rows < 0 || rows > spec_.max_rows) {
    fail(CHORUS_INVALID_ARGUMENT, "rows is {}; 0 to {} (the spec's max_rows) are allowed", rows, spec_.max_rows);
  }
}

void Combiner::check_inputs(const chorus_combine_in &in) const {
  const Device &device = *kernel_.device();
  const auto n = static_cast<int64_t>(spec_.models.size());
  if (in.scores == nullptr) fail(CHORUS_INVALID_ARGUMENT, "scores is NULL; an array of {} tensors is needed", n);
  for (int64_t i = 0; i < n; ++i) {
    const chorus_combine_model &model = spec_.models[i];
    if (in.scores[i] == nullptr && model.weight == 0 && in.weights == nullptr) continue;
    const std::string name = fmt::format("scores[{}]", i);
    check_tensor(in.scores[i], {name.c_str(), {model.dtype}, {in.rows, model.n_logits}}, device);
  }
  if (in.weights != nullptr) {
    const int64_t columns = n + (spec_.has_neighbours ? 1 : 0);
    if (spec_.weights_per_row) {
      check_tensor(in.weights, {"weights", {CHORUS_F32}, {in.rows, columns}}, device);
    } else {
      check_tensor(in.weights, {"weights", {CHORUS_F32}, {columns}}, device);
    }
  }
  if (in.temperatures != nullptr) check_tensor(in.temperatures, {"temperatures", {CHORUS_F32}, {n}}, device);
  if (in.row_ids != nullptr) check_tensor(in.row_ids, {"row_ids", {CHORUS_I64}, {in.rows}}, device);
  if (in.steps != nullptr) check_tensor(in.steps, {"steps", {CHORUS_I64}, {in.rows}}, device);
  if (in.tokens != nullptr) check_tensor(in.tokens, {"tokens", {CHORUS_I32, CHORUS_I64}, {in.rows, kAnySize}}, device);
  check_announced(in);
}

// What the spec announces must come, what it does not must not: it would be ignored.
void Combiner::check_announced(const chorus_combine_in &in) const {
  const Device &device = *kernel_.device();
  const auto check = [&](const chorus_tensor *tensor, bool announced, const TensorRule &rule) {
    if (tensor == nullptr && announced) fail(CHORUS_INVALID_ARGUMENT, "{} is NULL; the spec announces it", rule.name);
    if (tensor != nullptr && !announced) fail(CHORUS_INVALID_ARGUMENT, "{} is given; the spec does not announce it", rule.name);
    if (tensor != nullptr) check_tensor(tensor, rule, device);
  };
  for (size_t i = 0; i < spec_.models.size(); ++i) {
    const chorus_combine_model &model = spec_.models[i];
    const chorus_tensor *bias = in.biases != nullptr ? in.biases[i] : nullptr;
    const chorus_tensor *mask = in.masks != nullptr ? in.masks[i] : nullptr;
    const std::string bias_name = fmt::format("biases[{}]", i), mask_name = fmt::format("masks[{}]", i);
    const bool is_row = bias != nullptr && bias->ndim == 2;
    if (is_row) check(bias, model.has_bias != 0, {bias_name.c_str(), {CHORUS_F32}, {in.rows, model.n_logits}});
    if (!is_row) check(bias, model.has_bias != 0, {bias_name.c_str(), {CHORUS_F32}, {model.n_logits}});
    check(mask, model.has_mask != 0, {mask_name.c_str(), {CHORUS_U32}, {in.rows, (model.n_logits + 31) / 32}});
  }
  const bool penalties = spec_.has_penalties, neighbours = spec_.has_neighbours;
  check(in.penalties, penalties, {"penalties", {CHORUS_F32}, {in.rows, 3}});
  check(in.history_offsets, penalties, {"history_offsets", {CHORUS_I64}, {in.rows + 1}});
  check(in.history_ids, penalties, {"history_ids", {CHORUS_I32}, {kAnySize}});
  check(in.neighbours_offsets, neighbours, {"neighbours_offsets", {CHORUS_I64}, {in.rows + 1}});
  check(in.neighbours_ids, neighbours, {"neighbours_ids", {CHORUS_I32}, {kAnySize}});
  check(in.neighbours_scores, neighbours, {"neighbours_scores", {CHORUS_F32}, {neighbours ? in.neighbours_ids->shape[0] : 0}});
}

void Combiner::check_outputs(const chorus_combine_in &in, const chorus_combine_out &out) const {
  const Device &device = *kernel_.device();
  const auto check = [&](const chorus_tensor *tensor, const char *name, chorus_dtype dtype, uint32_t bit) {
    check_wanted(spec_.outputs, bit, tensor, name);
    if (tensor != nullptr) check_tensor(tensor, {name, {dtype}, {in.rows}, true}, device);
  };
  check(out.argmax, "argmax", CHORUS_I32, CHORUS_COMBINE_OUT_ARGMAX);
  check(out.argmax_log_prob, "argmax_log_prob", CHORUS_F32, CHORUS_COMBINE_OUT_ARGMAX);
  check(out.sample, "sample", CHORUS_I32, CHORUS_COMBINE_OUT_SAMPLE);
  check(out.sample_log_prob, "sample_log_prob", CHORUS_F32, CHORUS_COMBINE_OUT_SAMPLE);
  check(out.status, "status", CHORUS_I32, CHORUS_COMBINE_OUT_STATUS);
  check_wanted(spec_.outputs, CHORUS_COMBINE_OUT_LOG_PROBS, out.log_probs, "log_probs");
  check_wanted(spec_.outputs, CHORUS_COMBINE_OUT_TOKEN_LOG_PROBS, out.token_log_probs, "token_log_probs");
  if (out.log_probs != nullptr) {
    check_tensor(out.log_probs, {"log_probs", {spec_.log_probs_dtype}, {in.rows, spec_.n_tokens}, true}, device);
  }
  if (out.token_log_probs != nullptr) {
    if (in.tokens == nullptr) fail(CHORUS_INVALID_ARGUMENT, "tokens is NULL; token_log_probs needs the tokens to score");
    check_tensor(out.token_log_probs, {"token_log_probs", {CHORUS_F32}, {in.rows, in.tokens->shape[1]}, true}, device);
  }
  const auto n = static_cast<int64_t>(spec_.models.size());
  const auto check_more = [&](const chorus_tensor *tensor, uint32_t bit, const TensorRule &rule) {
    check_wanted(spec_.outputs, bit, tensor, rule.name);
    if (tensor != nullptr) check_tensor(tensor, rule, device);
  };
  check_more(out.probs, CHORUS_COMBINE_OUT_PROBS, {"probs", {spec_.log_probs_dtype}, {in.rows, spec_.n_tokens}, true});
  check_more(out.top_ids, CHORUS_COMBINE_OUT_TOP_K, {"top_ids", {CHORUS_I32}, {in.rows, spec_.n_top}, true});
  check_more(out.top_log_probs, CHORUS_COMBINE_OUT_TOP_K, {"top_log_probs", {CHORUS_F32}, {in.rows, spec_.n_top}, true});
  check_more(out.tail_log_prob, CHORUS_COMBINE_OUT_TOP_K, {"tail_log_prob", {CHORUS_F32}, {in.rows}, true});
  check_more(out.diagnostics, CHORUS_COMBINE_OUT_DIAGNOSTICS, {"diagnostics", {CHORUS_F32}, {in.rows, 3 + 2 * n}, true});
  check_more(out.gradient_sums, CHORUS_COMBINE_OUT_GRADIENT_SUMS, {"gradient_sums", {CHORUS_F64}, {in.rows, n + n * (n + 1) / 2}, true});
  if (out.model_token_log_probs != nullptr && in.tokens == nullptr)
    fail(CHORUS_INVALID_ARGUMENT, "tokens is NULL; model_token_log_probs needs the tokens to score");
  check_more(out.model_token_log_probs, CHORUS_COMBINE_OUT_MODEL_TOKEN_LOG_PROBS,
             {"model_token_log_probs", {CHORUS_F32}, {in.rows, in.tokens != nullptr ? in.tokens->shape[1] : 0, n}, true});
}

void Combiner::check_overlaps(const chorus_combine_in &in, const chorus_combine_out &out) const {
  const auto outputs = outputs_of(out);
  const auto inputs = inputs_of(in, spec_.models.size());
  for (size_t a = 0; a < outputs.size(); ++a) {
    if (outputs[a].tensor == nullptr) continue;
    const chorus_tensor &output = *outputs[a].tensor;
    for (size_t b = a + 1; b < outputs.size(); ++b) {
      if (outputs[b].tensor != nullptr) check_no_overlap(output, outputs[a].name, *outputs[b].tensor, outputs[b].name);
    }
    for (size_t i = 0; i < spec_.models.size(); ++i) {
      const bool in_place = i == 0 && outputs[a].tensor == out.log_probs;
      if (in.scores[i] != nullptr) check_no_overlap(output, outputs[a].name, *in.scores[i], "a model's scores", in_place);
    }
    for (const Named &input : inputs) {
      if (input.tensor != nullptr) check_no_overlap(output, outputs[a].name, *input.tensor, input.name);
    }
  }
}

void Combiner::run(const chorus_combine_in &in, const chorus_combine_out &out, const chorus_exec *exec) const {
  check_rows(in.rows);
  check_inputs(in);
  check_outputs(in, out);
  check_overlaps(in, out);
  chorus_combine_args args = CHORUS_COMBINE_ARGS_INIT;
  args.rows = in.rows;
  args.scores = in.scores;
  args.weights = in.weights;
  args.temperatures = in.temperatures;
  args.row_ids = in.row_ids;
  args.steps = in.steps;
  args.seed = in.seed;
  args.step = in.step;
  args.tokens = in.tokens;
  args.log_probs = out.log_probs;
  args.argmax = out.argmax;
  args.argmax_log_prob = out.argmax_log_prob;
  args.sample = out.sample;
  args.sample_log_prob = out.sample_log_prob;
  args.token_log_probs = out.token_log_probs;
  args.status = out.status;
  args.biases = in.biases;
  args.masks = in.masks;
  args.history_offsets = in.history_offsets;
  args.history_ids = in.history_ids;
  args.penalties = in.penalties;
  args.neighbours_offsets = in.neighbours_offsets;
  args.neighbours_ids = in.neighbours_ids;
  args.neighbours_scores = in.neighbours_scores;
  args.probs = out.probs;
  args.top_ids = out.top_ids;
  args.top_log_probs = out.top_log_probs;
  args.tail_log_prob = out.tail_log_prob;
  args.diagnostics = out.diagnostics;
  args.gradient_sums = out.gradient_sums;
  args.model_token_log_probs = out.model_token_log_probs;
  kernel_.run(&args, exec);
}

uint64_t Combiner::workspace_size(int64_t rows) const {
  check_rows(rows);
  chorus_combine_args args = CHORUS_COMBINE_ARGS_INIT;
  args.rows = rows;
  return kernel_.workspace_size(&args);
}

}  // namespace chorus::combine
