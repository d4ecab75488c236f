// SPDX-License-Identifier: Apache-2.0
// A combine.rows call as plain data: made by the tests, run through a kernel table or the public C ABI, and
// answered by the oracle.
#pragma once
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <vector>

#include "conformance/backend.h"
#include "conformance/random.h"
#include "conformance/tensors.h"

namespace conformance {

inline constexpr double kInfinity = std::numeric_limits<double>::infinity();
inline constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

struct ModelScores {
  std::vector<double> scores;  // [rows, n_logits]; empty: the tensor is NULL
  double weight = 1, temperature = 1;
  chorus_score_kind kind = CHORUS_SCORES_LOGITS;
  chorus_dtype dtype = CHORUS_F32;
  int64_t n_logits = 0, n_valid = 0;  // 0: as many as fit the scores
  int64_t row_stride = 0;
  // Beyond the plain mixture.
  int64_t top_k = 0;
  double top_p = 0, plausibility = 0;
  std::vector<double> bias;  // [n_logits] or [rows, n_logits]
  std::vector<double> mask;  // [rows, words]
  std::vector<int64_t> map_offsets;
  std::vector<int32_t> map_ids;
  std::vector<float> map_values;
  chorus_combine_missing missing = CHORUS_MISSING_BY_RULE;
  int32_t unknown_id = 0;
  double missing_log_prob = 0;
};

// What follows the rule, and parameters of rules.
struct CombineOptions {
  double order = 1;
  int32_t trim = 0, vote_k = 3, base_model = -1, n_top = 0;
  double temperature = 1, top_p = 0, min_p = 0, typical_p = 0;
  int64_t top_k = 0;
  std::vector<double> penalties, history_offsets, history_ids;  // [rows, 3], [rows + 1], [any]
  bool has_neighbours = false;
  chorus_score_kind neighbours_kind = CHORUS_SCORES_LOGITS;
  double neighbours_weight = 0;
  std::vector<double> neighbours_offsets, neighbours_ids, neighbours_scores;
};

struct CombineProblem {
  chorus_combine_rule rule = CHORUS_COMBINE_LINEAR;
  int64_t n_tokens = 0, rows = 1;
  std::vector<ModelScores> models;
  std::vector<double> weights;  // empty: the models'; [N] or [rows, N]
  bool weight_rows = false;
  std::vector<double> temperatures;            // empty: the models'
  std::vector<double> row_ids, steps, tokens;  // empty: defaults, none
  chorus_dtype tokens_dtype = CHORUS_I32, log_probs_dtype = CHORUS_F32;
  uint64_t seed = 0, step = 0;
  int64_t log_probs_stride = 0;
  Buffer::Edge edge = Buffer::Edge::kEnd;  // where the guard page touches
  bool in_place = false;                   // the log-prob row is the score row of model 0
  CombineOptions options;

  int64_t tokens_per_row() const { return rows > 0 ? static_cast<int64_t>(tokens.size()) / rows : 0; }
};

// Fills in n_logits, n_valid and n_tokens where 0.
void complete(CombineProblem &p);

inline constexpr uint32_t kBasicOutputs = CHORUS_COMBINE_OUT_LOG_PROBS | CHORUS_COMBINE_OUT_STATUS;
inline constexpr uint32_t kAllOutputs = kBasicOutputs | CHORUS_COMBINE_OUT_ARGMAX |
                                        CHORUS_COMBINE_OUT_SAMPLE | CHORUS_COMBINE_OUT_TOKEN_LOG_PROBS;

struct CombineResult {
  uint32_t outputs = 0;
  std::vector<double> log_probs;  // [rows, V]
  std::vector<double> argmax, argmax_log_prob, sample, sample_log_prob, token_log_probs, status;
  std::vector<double> probs, top_ids, top_log_probs, tail_log_prob, diagnostics, gradient_sums, model_token_log_probs;
  std::vector<uint64_t> bits;  // of everything above, to compare bytes

  uint32_t status_of(int64_t row) const { return static_cast<uint32_t>(status[static_cast<size_t>(row)]); }
};

inline constexpr uint32_t kEveryOutput = 2 * CHORUS_COMBINE_OUT_MODEL_TOKEN_LOG_PROBS - 1;

// The tensors of a problem, in a backend's memory.
struct CombineTensors {
  CombineTensors(const DeviceMemory &memory, const CombineProblem &p, uint32_t outputs);
  CombineResult result(const CombineProblem &p, uint32_t outputs);
  void protect_inputs(bool read_only);

  std::vector<std::unique_ptr<Tensor>> scores;
  std::vector<const chorus_tensor *> views;
  std::unique_ptr<Tensor> weights, temperatures, row_ids, steps, tokens;
  std::vector<std::unique_ptr<Tensor>> biases, masks;
  std::vector<const chorus_tensor *> bias_views, mask_views;
  std::unique_ptr<Tensor> penalties, history_offsets, history_ids, neighbours_offsets, neighbours_ids, neighbours_scores;
  std::unique_ptr<Tensor> probs, top_ids, top_log_probs, tail_log_prob, diagnostics, gradient_sums, model_token_log_probs;
  std::unique_ptr<Tensor> log_probs, argmax, argmax_log_prob, sample, sample_log_prob, token_log_probs,
      status;
};
inline const chorus_tensor *view(const std::unique_ptr<Tensor> &t) {
  return t != nullptr ? t->view() : nullptr;
}

// A problem's kernel, prepared once.
class Combine {
 public:
  Combine(Backend &backend, const CombineProblem &p, uint32_t outputs);
  CombineResult run(const CombineProblem &p) const;

 private:
  uint32_t outputs_;
  std::vector<chorus_combine_model> models_;
  std::vector<const chorus_combine_model *> pointers_;
  std::vector<std::unique_ptr<Tensor>> maps_;
  chorus_combine_desc desc_;
  std::unique_ptr<Prepared> kernel_;
};

// Runs with all outputs, or with log-probs and status where the backend refuses the others (counted as a skip
// once).
CombineResult combine(Backend &backend, const CombineProblem &p);
bool has_all_outputs(const CombineResult &r);

// Random problems of the rules, kinds, dtypes and shapes of the first backends.
struct RandomProblem {
  int64_t most_tokens = 200000;
  int most_models = 6;
  bool plain = false;  // f32 logits, linear, no padding: what the smallest backend takes
};
CombineProblem random_problem(Random &random, const RandomProblem &limits);

}  // namespace conformance
