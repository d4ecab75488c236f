// SPDX-License-Identifier: Apache-2.0
// Running a combine problem on a kernel table, and making random ones: see combine_problem.h.
#include "conformance/combine_problem.h"

#include <algorithm>
#include <set>

#include "conformance/check.h"

namespace conformance {
namespace {

std::unique_ptr<Tensor> input(const DeviceMemory &memory, chorus_dtype dtype, std::vector<int64_t> shape,
                              const std::vector<double> &values, Buffer::Edge edge, int64_t stride = 0) {
  if (values.empty()) return nullptr;
  return std::make_unique<Tensor>(memory, dtype, std::move(shape), values, stride, edge);
}

std::unique_ptr<Tensor> output(const DeviceMemory &memory, bool wanted, chorus_dtype dtype,
                               std::vector<int64_t> shape, Buffer::Edge edge, int64_t stride = 0) {
  return wanted ? std::make_unique<Tensor>(memory, dtype, std::move(shape), stride, edge) : nullptr;
}

void read(const std::unique_ptr<Tensor> &t, std::vector<double> &out, std::vector<uint64_t> &bits) {
  if (t == nullptr) return;
  out = t->values();
  const auto more = t->bits();
  bits.insert(bits.end(), more.begin(), more.end());
  expect(t->gaps_are_untouched(), "bytes between the rows of an output were written");
}

}  // namespace

void complete(CombineProblem &p) {
  for (ModelScores &m : p.models) {
    if (m.n_logits == 0)
      m.n_logits = m.scores.empty() ? p.n_tokens : static_cast<int64_t>(m.scores.size()) / p.rows;
    if (m.n_valid == 0) m.n_valid = m.n_logits;
  }
  if (p.n_tokens == 0) {
    for (const ModelScores &m : p.models) p.n_tokens = std::max(p.n_tokens, m.n_valid);
  }
}

CombineTensors::CombineTensors(const DeviceMemory &memory, const CombineProblem &p, uint32_t outputs) {
  const auto n = static_cast<int64_t>(p.models.size());
  const CombineOptions &o = p.options;
  for (const ModelScores &m : p.models) {
    const bool per_row = static_cast<int64_t>(m.bias.size()) == p.rows * m.n_logits && p.rows > 1;
    biases.push_back(input(memory, CHORUS_F32, per_row ? std::vector<int64_t>{p.rows, m.n_logits} : std::vector<int64_t>{m.n_logits},
                           m.bias, p.edge));
    bias_views.push_back(view(biases.back()));
    masks.push_back(input(memory, CHORUS_U32, {p.rows, (m.n_logits + 31) / 32}, m.mask, p.edge));
    mask_views.push_back(view(masks.back()));
  }
  penalties = input(memory, CHORUS_F32, {p.rows, 3}, o.penalties, p.edge);
  history_offsets = input(memory, CHORUS_I64, {p.rows + 1}, o.history_offsets, p.edge);
  neighbours_offsets = input(memory, CHORUS_I64, {p.rows + 1}, o.neighbours_offsets, p.edge);
  const auto list = [&](chorus_dtype dtype, const std::vector<double> &values, bool wanted) {
    return wanted ? std::make_unique<Tensor>(memory, dtype, std::vector<int64_t>{static_cast<int64_t>(values.size())}, values, 0, p.edge)
                  : nullptr;
  };
  history_ids = list(CHORUS_I32, o.history_ids, !o.penalties.empty());
  neighbours_ids = list(CHORUS_I32, o.neighbours_ids, o.has_neighbours);
  neighbours_scores = list(CHORUS_F32, o.neighbours_scores, o.has_neighbours);
  for (const ModelScores &m : p.models) {
    scores.push_back(input(memory, m.dtype, {p.rows, m.n_logits}, m.scores, p.edge, m.row_stride));
    views.push_back(view(scores.back()));
  }
  weights =
      input(memory, CHORUS_F32, p.weight_rows ? std::vector<int64_t>{p.rows, n + o.has_neighbours} : std::vector<int64_t>{n + o.has_neighbours},
            p.weights, p.edge);
  temperatures = input(memory, CHORUS_F32, {n}, p.temperatures, p.edge);
  row_ids = input(memory, CHORUS_I64, {p.rows}, p.row_ids, p.edge);
  steps = input(memory, CHORUS_I64, {p.rows}, p.steps, p.edge);
  const bool scored = (outputs & CHORUS_COMBINE_OUT_TOKEN_LOG_PROBS) != 0 && !p.tokens.empty();
  if (scored) tokens = input(memory, p.tokens_dtype, {p.rows, p.tokens_per_row()}, p.tokens, p.edge);
  const bool best = (outputs & CHORUS_COMBINE_OUT_ARGMAX) != 0,
             drawn = (outputs & CHORUS_COMBINE_OUT_SAMPLE) != 0;
  const bool row = (outputs & CHORUS_COMBINE_OUT_LOG_PROBS) != 0 && !p.in_place;
  log_probs = output(memory, row, p.log_probs_dtype, {p.rows, p.n_tokens}, p.edge, p.log_probs_stride);
  argmax = output(memory, best, CHORUS_I32, {p.rows}, p.edge);
  argmax_log_prob = output(memory, best, CHORUS_F32, {p.rows}, p.edge);
  sample = output(memory, drawn, CHORUS_I32, {p.rows}, p.edge);
  sample_log_prob = output(memory, drawn, CHORUS_F32, {p.rows}, p.edge);
  token_log_probs = output(memory, scored, CHORUS_F32, {p.rows, p.tokens_per_row()}, p.edge);
  status = output(memory, (outputs & CHORUS_COMBINE_OUT_STATUS) != 0, CHORUS_I32, {p.rows}, p.edge);
  const auto wants = [&](uint32_t bit) { return (outputs & bit) != 0; };
  probs = output(memory, wants(CHORUS_COMBINE_OUT_PROBS), p.log_probs_dtype, {p.rows, p.n_tokens}, p.edge);
  const bool top = wants(CHORUS_COMBINE_OUT_TOP_K) && o.n_top > 0;
  top_ids = output(memory, top, CHORUS_I32, {p.rows, o.n_top}, p.edge);
  top_log_probs = output(memory, top, CHORUS_F32, {p.rows, o.n_top}, p.edge);
  tail_log_prob = output(memory, top, CHORUS_F32, {p.rows}, p.edge);
  diagnostics = output(memory, wants(CHORUS_COMBINE_OUT_DIAGNOSTICS), CHORUS_F32, {p.rows, 3 + 2 * n}, p.edge);
  gradient_sums = output(memory, wants(CHORUS_COMBINE_OUT_GRADIENT_SUMS), CHORUS_F64, {p.rows, n + n * (n + 1) / 2}, p.edge);
  model_token_log_probs = output(memory, wants(CHORUS_COMBINE_OUT_MODEL_TOKEN_LOG_PROBS) && scored, CHORUS_F32,
                                 {p.rows, p.tokens_per_row(), n}, p.edge);
}

void CombineTensors::protect_inputs(bool read_only) {
  for (const auto *list : {&weights, &temperatures, &row_ids, &steps, &tokens}) {
    if (*list != nullptr) (*list)->buffer().protect(read_only);
  }
  for (const auto *list : {&scores, &biases, &masks}) {
    for (const auto &t : *list) {
      if (t != nullptr) t->buffer().protect(read_only);
    }
  }
}

CombineResult CombineTensors::result(const CombineProblem &p, uint32_t outputs) {
  CombineResult r;
  r.outputs = outputs;
  read(p.in_place ? scores[0] : log_probs, r.log_probs, r.bits);
  read(argmax, r.argmax, r.bits);
  read(argmax_log_prob, r.argmax_log_prob, r.bits);
  read(sample, r.sample, r.bits);
  read(sample_log_prob, r.sample_log_prob, r.bits);
  read(token_log_probs, r.token_log_probs, r.bits);
  read(status, r.status, r.bits);
  read(probs, r.probs, r.bits);
  read(top_ids, r.top_ids, r.bits);
  read(top_log_probs, r.top_log_probs, r.bits);
  read(tail_log_prob, r.tail_log_prob, r.bits);
  read(diagnostics, r.diagnostics, r.bits);
  read(gradient_sums, r.gradient_sums, r.bits);
  read(model_token_log_probs, r.model_token_log_probs, r.bits);
  return r;
}

Combine::Combine(Backend &backend, const CombineProblem &p, uint32_t outputs) : outputs_(outputs) {
  for (const ModelScores &m : p.models) {
    chorus_combine_model model = CHORUS_COMBINE_MODEL_INIT;
    model.kind = m.kind;
    model.dtype = m.dtype;
    model.n_logits = m.n_logits;
    model.n_valid = m.n_valid;
    model.weight = m.weight;
    model.temperature = m.temperature;
    model.top_k = m.top_k;
    model.top_p = m.top_p;
    model.plausibility = m.plausibility;
    model.has_bias = !m.bias.empty();
    model.has_mask = !m.mask.empty();
    model.missing = m.missing;
    model.unknown_id = m.unknown_id;
    model.missing_log_prob = m.missing_log_prob;
    if (!m.map_offsets.empty()) {
      const auto add = [&](chorus_dtype dtype, const auto &values) {
        maps_.push_back(std::make_unique<Tensor>(DeviceMemory{}, dtype, std::vector<int64_t>{static_cast<int64_t>(values.size())},
                                                 std::vector<double>(values.begin(), values.end())));
        return maps_.back()->view();
      };
      model.map_offsets = add(CHORUS_I64, m.map_offsets);
      model.map_ids = add(CHORUS_I32, m.map_ids);
      if (!m.map_values.empty()) model.map_values = add(CHORUS_F32, m.map_values);
    }
    models_.push_back(model);
  }
  for (const auto &model : models_) pointers_.push_back(&model);
  desc_ = CHORUS_COMBINE_DESC_INIT;
  desc_.rule = p.rule;
  desc_.n_models = static_cast<int32_t>(models_.size());
  desc_.models = pointers_.data();
  desc_.n_tokens = p.n_tokens;
  desc_.max_rows = p.rows;
  desc_.outputs = outputs;
  desc_.log_probs_dtype = p.log_probs_dtype;
  desc_.weight_rows = p.weight_rows;
  const CombineOptions &o = p.options;
  desc_.order = o.order;
  desc_.trim = o.trim;
  desc_.vote_k = o.vote_k;
  desc_.base_model = static_cast<uint32_t>(o.base_model + 1);
  desc_.n_top = o.n_top;
  desc_.temperature = o.temperature;
  desc_.top_p = o.top_p;
  desc_.min_p = o.min_p;
  desc_.typical_p = o.typical_p;
  desc_.top_k = o.top_k;
  desc_.has_penalties = !o.penalties.empty();
  desc_.has_neighbours = o.has_neighbours;
  desc_.neighbours_kind = o.neighbours_kind;
  desc_.neighbours_weight = o.neighbours_weight;
  kernel_ = std::make_unique<Prepared>(backend, CHORUS_OP_COMBINE_ROWS, &desc_);
}

CombineResult Combine::run(const CombineProblem &p) const {
  CombineTensors t(kernel_->backend().memory(), p, outputs_);
  chorus_combine_args args = CHORUS_COMBINE_ARGS_INIT;
  args.rows = p.rows;
  args.scores = t.views.data();
  args.weights = view(t.weights);
  args.temperatures = view(t.temperatures);
  args.row_ids = view(t.row_ids);
  args.steps = view(t.steps);
  args.seed = p.seed;
  args.step = p.step;
  args.tokens = view(t.tokens);
  args.log_probs = p.in_place ? view(t.scores[0]) : view(t.log_probs);
  args.argmax = view(t.argmax);
  args.argmax_log_prob = view(t.argmax_log_prob);
  args.sample = view(t.sample);
  args.sample_log_prob = view(t.sample_log_prob);
  args.token_log_probs = view(t.token_log_probs);
  args.status = view(t.status);
  args.biases = t.bias_views.data();
  args.masks = t.mask_views.data();
  args.history_offsets = view(t.history_offsets);
  args.history_ids = view(t.history_ids);
  args.penalties = view(t.penalties);
  args.neighbours_offsets = view(t.neighbours_offsets);
  args.neighbours_ids = view(t.neighbours_ids);
  args.neighbours_scores = view(t.neighbours_scores);
  args.probs = view(t.probs);
  args.top_ids = view(t.top_ids);
  args.top_log_probs = view(t.top_log_probs);
  args.tail_log_prob = view(t.tail_log_prob);
  args.diagnostics = view(t.diagnostics);
  args.gradient_sums = view(t.gradient_sums);
  args.model_token_log_probs = view(t.model_token_log_probs);
  if (!p.in_place) t.protect_inputs(true);
  kernel_->run(&args);
  t.protect_inputs(false);
  return t.result(p, outputs_);
}

CombineResult combine(Backend &backend, const CombineProblem &p) {
  try {
    return Combine(backend, p, kAllOutputs).run(p);
  } catch (const Skipped &reason) {
    CombineResult r = Combine(backend, p, kBasicOutputs).run(p);  // a second refusal skips
    static std::set<std::string> said;
    if (said.insert(reason.what()).second) count_skip("argmax, sample, token log-probs", reason.what());
    return r;
  }
}

bool has_all_outputs(const CombineResult &r) {
  return r.outputs == kAllOutputs;
}

// ---- Random problems ----

namespace {

int64_t random_tokens(Random &random, int64_t most) {
  static const int64_t kEdges[] = {1,    2,    3,    7,     8,     15,     16,     17,    31,
                                   32,   33,   63,   64,    65,    127,    129,    4095,  4096,
                                   4097, 8191, 8193, 12289, 65537, 131071, 151643, 200000};
  const int64_t size = random.chance(0.5) ? random.pick(kEdges) : random.size(most);
  return std::min(size, most);
}

double random_score(Random &random, chorus_score_kind kind, double spread) {
  const double z = spread * random.normal();
  if (kind == CHORUS_SCORES_PROBS) return random.chance(0.05) ? 0 : std::exp(z);
  return random.chance(0.03) ? -kInfinity : z;
}

ModelScores random_model(Random &random, const CombineProblem &p, bool plain) {
  ModelScores m;
  if (!plain) {
    m.kind = random.pick(
        {CHORUS_SCORES_LOGITS, CHORUS_SCORES_LOGITS, CHORUS_SCORES_LOG_PROBS, CHORUS_SCORES_PROBS});
    m.dtype = random.pick({CHORUS_F32, CHORUS_F16, CHORUS_BF16});
    m.temperature = random.pick({1.0, 1.0, 0.7, 1.3, 0.25, 5.0, 0.0});
  }
  m.n_valid = random.chance(0.7) ? p.n_tokens : random.integer(1, p.n_tokens);
  m.n_logits = m.n_valid + (random.chance(0.7) ? 0 : random.integer(1, 70));
  m.row_stride = random.chance(0.5) ? 0 : m.n_logits + random.integer(0, 40);
  m.weight = p.rule == CHORUS_COMBINE_LINEAR ? random.uniform() : random.uniform(-0.7, 1.5);
  const double spread = random.pick({0.5, 2.0, 4.0, m.kind == CHORUS_SCORES_PROBS ? 2.0 : 30.0});
  for (int64_t i = 0; i < p.rows * m.n_logits; ++i) m.scores.push_back(random_score(random, m.kind, spread));
  for (int64_t row = 0; row < p.rows; ++row) {  // padding may hold anything: it is never read
    for (int64_t v = m.n_valid; v < m.n_logits; ++v)
      m.scores[static_cast<size_t>(row * m.n_logits + v)] = random.pick({kNaN, kInfinity, 3.0});
  }
  if (random.chance(0.1)) {
    m.weight = 0;
    if (random.chance(0.5)) m.scores.clear();
  }
  return m;
}

}  // namespace

CombineProblem random_problem(Random &random, const RandomProblem &limits) {
  CombineProblem p;
  p.rule =
      limits.plain ? CHORUS_COMBINE_LINEAR : random.pick({CHORUS_COMBINE_LINEAR, CHORUS_COMBINE_LOG_LINEAR});
  p.n_tokens = random_tokens(random, limits.most_tokens);
  p.rows = p.n_tokens > 5000 ? 1 : random.integer(1, 5);
  const auto n = random.integer(1, p.n_tokens > 20000 ? 3 : limits.most_models);
  for (int64_t i = 0; i < n; ++i) p.models.push_back(random_model(random, p, limits.plain));
  if (p.rule == CHORUS_COMBINE_LINEAR && p.models[0].weight == 0)
    p.models[0] = random_model(random, p, limits.plain);
  if (p.models[0].weight == 0) p.models[0].weight = 1;
  if (p.models[0].scores.empty())
    p.models[0].scores.assign(static_cast<size_t>(p.rows * p.models[0].n_logits), 0.5);
  if (random.chance(0.4)) {
    p.weight_rows = random.chance(0.5);
    for (int64_t i = 0; i < (p.weight_rows ? p.rows : 1) * n; ++i) {
      const ModelScores &m = p.models[static_cast<size_t>(i % n)];
      p.weights.push_back(m.scores.empty() ? 0 : rounded(CHORUS_F32, m.weight * random.uniform(0.5, 2)));
    }
  }
  for (int64_t i = 0; i < p.rows * 3; ++i)
    p.tokens.push_back(static_cast<double>(random.integer(0, p.n_tokens - 1)));
  p.tokens_dtype = random.pick({CHORUS_I32, CHORUS_I64});
  for (int64_t row = 0; row < p.rows; ++row) {
    p.row_ids.push_back(static_cast<double>(random.integer(0, int64_t{1} << 40)));
    p.steps.push_back(static_cast<double>(random.integer(0, 1000)));
  }
  p.seed = random.bits();
  p.edge = random.pick({Buffer::Edge::kEnd, Buffer::Edge::kBegin});
  p.log_probs_dtype =
      limits.plain ? CHORUS_F32 : random.pick({CHORUS_F32, CHORUS_F32, CHORUS_F16, CHORUS_BF16});
  p.log_probs_stride = random.chance(0.5) ? 0 : p.n_tokens + random.integer(1, 33);
  return p;
}

}  // namespace conformance
