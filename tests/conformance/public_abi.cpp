// SPDX-License-Identifier: Apache-2.0
// Problems through the public C ABI: see public_abi.h.
#include "conformance/public_abi.h"

#include <cstdlib>

#include "conformance/check.h"

namespace conformance {

void must(chorus_status status, chorus_error *const &error, const char *what) {
  if (status == CHORUS_OK) return;
  const std::string text = std::string(what) + ": " + chorus_error_get_text(error);
  chorus_error_destroy(error);
  if (status == CHORUS_UNIMPLEMENTED) skip(text);
  throw Stopped(text);
}

namespace {

void parallel_for(void *threads, uint64_t count, chorus_task_fn task, void *argument) {
  run_pieces(*static_cast<int *>(threads), count, task, argument);
}

}  // namespace

PublicAbi::PublicAbi(const Backend &backend, int threads)
    : device_(backend.name()), threads_(threads), memory_(backend.memory()) {
  chorus_error *error = nullptr;
  chorus_context_spec *spec = nullptr;
  must(chorus_context_spec_create(&spec, &error), error, "context spec");
  const auto set = [&](const char *name, const std::string &value) {
    must(chorus_context_spec_set_option(spec, name, value.c_str(), &error), error, name);
  };
  set("plugins", "explicit");
  set("fallback", "error");
  set("threads", std::to_string(threads));
  if (CHORUS_SANITIZER_THIS_BUILD == CHORUS_SANITIZER_THREAD)  // it cannot see how the own pool synchronises
    must(chorus_context_spec_set_parallel_for(spec, parallel_for, &threads_, threads, &error), error,
         "parallel_for");
  if (!backend.plugin_path().empty()) {
    must(chorus_context_spec_add_plugin(spec, backend.plugin_path().c_str(), &error), error, "plugin");
    const char *option = std::getenv("CHORUS_TEST_OPTION");  // as the backend's: "name=value"
    const std::string text = option != nullptr ? option : "";
    if (const size_t at = text.find('='); at != std::string::npos) set(text.substr(0, at).c_str(), text.substr(at + 1));
  }
  must(chorus_context_create(spec, &context_, &error), error, "context");
  chorus_context_spec_destroy(spec);
}

namespace {

struct SpecDeleter {
  void operator()(chorus_combiner_spec *spec) const { chorus_combiner_spec_destroy(spec); }
};
struct CombinerDeleter {
  void operator()(chorus_combiner *combiner) const { chorus_combiner_destroy(combiner); }
};
using Combiner = std::unique_ptr<chorus_combiner, CombinerDeleter>;

void set_model_options(chorus_combiner_spec *spec, int32_t i, const ModelScores &m, const CombineProblem &p, chorus_error **error) {
  must(chorus_combiner_spec_set_model_filter(spec, i, m.top_k, m.top_p, m.plausibility, error), *error, "filter");
  must(chorus_combiner_spec_set_model_bias(spec, i, !m.bias.empty(), error), *error, "bias");
  must(chorus_combiner_spec_set_model_mask(spec, i, !m.mask.empty(), error), *error, "mask");
  must(chorus_combiner_spec_set_model_missing(spec, i, m.missing, m.unknown_id, m.missing_log_prob, error), *error, "missing");
  if (!m.map_offsets.empty()) {
    must(chorus_combiner_spec_set_model_map_arrays(spec, i, p.n_tokens, m.map_offsets.data(), m.map_ids.data(),
                                                   m.map_values.empty() ? nullptr : m.map_values.data(), error),
         *error, "map");
  }
}

void set_options(chorus_combiner_spec *spec, const CombineProblem &p, chorus_error **error) {
  const CombineOptions &o = p.options;
  for (size_t i = 0; i < p.models.size(); ++i) set_model_options(spec, static_cast<int32_t>(i), p.models[i], p, error);
  must(chorus_combiner_spec_set_order(spec, o.order, error), *error, "order");
  must(chorus_combiner_spec_set_trim(spec, o.trim, error), *error, "trim");
  must(chorus_combiner_spec_set_vote_size(spec, o.vote_k, error), *error, "vote size");
  must(chorus_combiner_spec_set_base_model(spec, o.base_model, error), *error, "base model");
  if (o.n_top > 0) must(chorus_combiner_spec_set_top_size(spec, o.n_top, error), *error, "top size");
  must(chorus_combiner_spec_set_temperature(spec, o.temperature, error), *error, "temperature");
  must(chorus_combiner_spec_set_top_k(spec, o.top_k, error), *error, "top-k");
  must(chorus_combiner_spec_set_top_p(spec, o.top_p, error), *error, "top-p");
  must(chorus_combiner_spec_set_min_p(spec, o.min_p, error), *error, "min-p");
  must(chorus_combiner_spec_set_typical_p(spec, o.typical_p, error), *error, "typical");
  must(chorus_combiner_spec_set_penalties(spec, !o.penalties.empty(), error), *error, "penalties");
  if (o.has_neighbours)
    must(chorus_combiner_spec_set_neighbours(spec, o.neighbours_kind, o.neighbours_weight, error), *error, "neighbours");
}

Combiner make(const PublicAbi &abi, const CombineProblem &p, uint32_t outputs) {
  chorus_error *error = nullptr;
  chorus_combiner_spec *made = nullptr;
  must(chorus_combiner_spec_create(&made, &error), error, "combiner spec");
  const std::unique_ptr<chorus_combiner_spec, SpecDeleter> spec(made);
  must(chorus_combiner_spec_set_rule(made, p.rule, &error), error, "rule");
  must(chorus_combiner_spec_set_vocabulary_size(made, p.n_tokens, &error), error, "vocabulary size");
  must(chorus_combiner_spec_set_max_rows(made, p.rows, &error), error, "max rows");
  must(chorus_combiner_spec_set_outputs(made, outputs, &error), error, "outputs");
  must(chorus_combiner_spec_set_log_probs_dtype(made, p.log_probs_dtype, &error), error, "log-probs dtype");
  must(chorus_combiner_spec_set_weights_per_row(made, p.weight_rows, &error), error, "weights per row");
  for (const ModelScores &m : p.models) {
    must(chorus_combiner_spec_add_model(made, m.kind, m.dtype, m.n_logits, m.n_valid, m.weight, m.temperature,
                                        nullptr, &error),
         error, "model");
  }
  set_options(made, p, &error);
  chorus_combiner *combiner = nullptr;
  must(chorus_combiner_create(abi.context(), made, abi.device(), &combiner, &error), error, "combiner");
  return Combiner(combiner);
}

}  // namespace

CombineResult combine(const PublicAbi &abi, const CombineProblem &p, uint32_t outputs) {
  const Combiner combiner = make(abi, p, outputs);
  CombineTensors t(abi.memory(), p, outputs);
  chorus_combine_in in = CHORUS_COMBINE_IN_INIT;
  in.rows = p.rows;
  in.scores = t.views.data();
  in.weights = view(t.weights);
  in.temperatures = view(t.temperatures);
  in.row_ids = view(t.row_ids);
  in.steps = view(t.steps);
  in.seed = p.seed;
  in.step = p.step;
  in.tokens = view(t.tokens);
  chorus_combine_out out = CHORUS_COMBINE_OUT_INIT;
  out.log_probs = p.in_place ? view(t.scores[0]) : view(t.log_probs);
  out.argmax = view(t.argmax);
  out.argmax_log_prob = view(t.argmax_log_prob);
  out.sample = view(t.sample);
  out.sample_log_prob = view(t.sample_log_prob);
  out.token_log_probs = view(t.token_log_probs);
  out.status = view(t.status);
  in.biases = t.bias_views.data();
  in.masks = t.mask_views.data();
  in.history_offsets = view(t.history_offsets);
  in.history_ids = view(t.history_ids);
  in.penalties = view(t.penalties);
  in.neighbours_offsets = view(t.neighbours_offsets);
  in.neighbours_ids = view(t.neighbours_ids);
  in.neighbours_scores = view(t.neighbours_scores);
  out.probs = view(t.probs);
  out.top_ids = view(t.top_ids);
  out.top_log_probs = view(t.top_log_probs);
  out.tail_log_prob = view(t.tail_log_prob);
  out.diagnostics = view(t.diagnostics);
  out.gradient_sums = view(t.gradient_sums);
  out.model_token_log_probs = view(t.model_token_log_probs);
  chorus_error *error = nullptr;
  const uint64_t alignment =
      abi.memory().functions == nullptr ? CHORUS_WORKSPACE_ALIGNMENT_HOST : CHORUS_WORKSPACE_ALIGNMENT_DEVICE;
  uint64_t bytes = 0;
  must(chorus_combiner_get_workspace_size(combiner.get(), p.rows, &bytes, &error), error, "workspace size");
  Buffer workspace(abi.memory(), (bytes + alignment - 1) / alignment * alignment);
  chorus_exec exec = CHORUS_EXEC_INIT;
  exec.workspace = workspace.device();
  exec.workspace_bytes = workspace.bytes();
  must(chorus_combiner_run(combiner.get(), &in, &out, &exec, &error), error, "combiner run");
  return t.result(p, outputs);
}

}  // namespace conformance
