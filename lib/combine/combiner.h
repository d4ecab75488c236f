// SPDX-License-Identifier: Apache-2.0
// The combiner: a spec of models and rule, and the object that runs combine.rows on a device.
#pragma once
#include <memory>
#include <vector>

#include "chorus/combine.h"
#include "runtime/context.h"
#include "runtime/kernel.h"

namespace chorus::combine {

// CSR from output tokens to a model's.
struct ModelMap {
  std::vector<int64_t> offsets;
  std::vector<int32_t> ids;
  std::vector<float> values;  // empty: 1

  int64_t rows() const { return static_cast<int64_t>(offsets.size()) - 1; }
};

// What a model has beyond its descriptor.
struct ModelExtra {
  std::shared_ptr<const ModelMap> map;
  bool has_fingerprint = false;
  uint64_t fingerprint_low = 0, fingerprint_high = 0;
};

// What the setters collect; they check what can be checked alone, completed() checks the rest.
struct Spec {
  chorus_combine_rule rule = CHORUS_COMBINE_LINEAR;
  int64_t n_tokens = 0;  // 0: the largest n_valid
  int64_t max_rows = 1;
  uint32_t outputs = CHORUS_COMBINE_OUT_LOG_PROBS | CHORUS_COMBINE_OUT_ARGMAX | CHORUS_COMBINE_OUT_SAMPLE |
                     CHORUS_COMBINE_OUT_TOKEN_LOG_PROBS | CHORUS_COMBINE_OUT_STATUS;
  chorus_dtype log_probs_dtype = CHORUS_F32;
  bool weights_per_row = false;
  std::vector<chorus_combine_model> models;
  std::vector<ModelExtra> extras;  // one per model
  // Rules.
  double order = 1;
  int32_t trim = 0, vote_k = 10, base_model = -1, n_top = 1;
  bool has_neighbours = false;
  chorus_score_kind neighbours_kind = CHORUS_SCORES_LOGITS;
  double neighbours_weight = 0;
  // After combining.
  double temperature = 1, top_p = 0, min_p = 0, typical_p = 0;
  int64_t top_k = 0;
  bool has_penalties = false;

  void add_model(const chorus_combine_model &model);
  // Fails INVALID_ARGUMENT where there is no such model.
  chorus_combine_model &model(int32_t index);
  void set_map(int32_t index, ModelMap map);
};

class Combiner {
 public:
  Combiner(const std::shared_ptr<const Context> &context, const Spec &spec, const char *device);

  void run(const chorus_combine_in &in, const chorus_combine_out &out, const chorus_exec *exec) const;
  uint64_t workspace_size(int64_t rows) const;
  const char *kernel_name() const { return kernel_.kernel_name(); }

 private:
  void check_rows(int64_t rows) const;
  void check_inputs(const chorus_combine_in &in) const;
  void check_announced(const chorus_combine_in &in) const;
  void check_outputs(const chorus_combine_in &in, const chorus_combine_out &out) const;
  void check_overlaps(const chorus_combine_in &in, const chorus_combine_out &out) const;

  Spec spec_;
  PreparedKernel kernel_;
};

}  // namespace chorus::combine
