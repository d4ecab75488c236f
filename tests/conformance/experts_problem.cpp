// SPDX-License-Identifier: Apache-2.0
// Experts as tests see them: see experts_problem.h.
#include "conformance/experts_problem.h"

#include <algorithm>
#include <cmath>

#include "chorus/route.h"
#include "conformance/check.h"

namespace conformance {
namespace {

bool is_integer(chorus_dtype weights) { return weights == CHORUS_I8 || weights == CHORUS_I4; }

// A weight tensor in host memory: prepare alone reads it.
struct WeightTensor {
  WeightTensor(const ExpertsProblem &p, const ExpertWeights &w) : view(CHORUS_TENSOR_INIT), quant(CHORUS_QUANT_INIT) {
    const int64_t experts = p.n_experts;
    const std::vector<int64_t> shape = {experts, w.rows, w.columns};
    if (!is_integer(p.weights_dtype)) {
      values = std::make_unique<Tensor>(DeviceMemory{}, p.weights_dtype, shape, w.real);
      view = *values->view();
      return;
    }
    if (p.weights_dtype == CHORUS_I8) {
      values = std::make_unique<Tensor>(DeviceMemory{}, CHORUS_I8, shape, w.stored);
    } else {
      std::vector<double> bytes;
      for (int64_t row = 0; row < experts * w.rows; ++row) {
        for (int64_t c = 0; c < w.columns; c += 2) {
          const auto nibble = [&](int64_t at) {
            return at < w.columns ? static_cast<int>(w.stored[static_cast<size_t>(row * w.columns + at)]) & 15 : 0;
          };
          bytes.push_back(nibble(c) + 16 * nibble(c + 1));
        }
      }
      values = std::make_unique<Tensor>(DeviceMemory{}, CHORUS_U8, std::vector<int64_t>{experts, w.rows, (w.columns + 1) / 2},
                                        bytes);
    }
    const int64_t groups = w.group > 0 ? (w.columns - 1) / w.group + 1 : 1;
    scales = std::make_unique<Tensor>(DeviceMemory{}, p.scales_dtype, std::vector<int64_t>{experts, w.rows, groups}, w.scales);
    quant.scales = scales->view();
    quant.group_size = w.group;
    quant.axis = 2;
    quant.packing = p.weights_dtype == CHORUS_I4 ? CHORUS_PACKING_INT4 : CHORUS_PACKING_NONE;
    view = *values->view();
    view.quant = &quant;
  }
  WeightTensor(const WeightTensor &) = delete;
  std::unique_ptr<Tensor> values, scales;
  chorus_tensor view;
  chorus_quant quant;
};

struct ExpertsStatic {
  explicit ExpertsStatic(const ExpertsProblem &p) : gate_up(p, p.gate_up), down(p, p.down) {
    if (!p.gate_up_bias.empty())
      gate_up_bias = std::make_unique<Tensor>(DeviceMemory{}, CHORUS_F32, std::vector<int64_t>{p.n_experts, p.wide()},
                                              p.gate_up_bias);
    if (!p.down_bias.empty())
      down_bias = std::make_unique<Tensor>(DeviceMemory{}, CHORUS_F32,
                                           std::vector<int64_t>{p.n_experts, p.hidden}, p.down_bias);
    if (!p.map.empty())
      map = std::make_unique<Tensor>(DeviceMemory{}, CHORUS_I32, std::vector<int64_t>{p.known_ids()}, p.map);
  }
  WeightTensor gate_up, down;
  std::unique_ptr<Tensor> gate_up_bias, down_bias, map;
};

struct ExpertsTensors {
  ExpertsTensors(const DeviceMemory &memory, const ExpertsProblem &p)
      : x(memory, p.x_dtype, {p.tokens, p.hidden}, p.x, p.row_stride),
        ids(memory, p.ids_dtype, {p.tokens, p.k}, p.ids),
        weights(memory, CHORUS_F32, {p.tokens, p.k}, p.weights),
        y(memory, p.y_dtype, {p.tokens, p.hidden}, p.row_stride),
        status(memory, CHORUS_I32, {p.tokens}) {
    x.buffer().protect(true);
  }
  ExpertsResult result() {
    expect(y.gaps_are_untouched(), "bytes between the rows of y were written");
    return {y.values(), status.values(), y.bits()};
  }
  Tensor x, ids, weights, y, status;
};

}  // namespace

ExpertsResult run(Backend &backend, const ExpertsProblem &p) {
  const ExpertsStatic fixed(p);
  chorus_experts_desc desc = CHORUS_EXPERTS_DESC_INIT;
  desc.n_experts = p.n_experts;
  desc.k = p.k;
  desc.hidden = p.hidden;
  desc.intermediate = p.intermediate;
  desc.max_tokens = p.tokens;
  desc.weights_dtype = p.weights_dtype;
  desc.x_dtype = p.x_dtype;
  desc.y_dtype = p.y_dtype;
  desc.ids_dtype = p.ids_dtype;
  desc.layout = p.layout;
  desc.activation = p.activation;
  desc.limit = p.limit;
  desc.n_shared = p.n_shared;
  desc.weight_before = p.weight_before;
  desc.batch_invariant = p.batch_invariant;
  desc.gate_up = &fixed.gate_up.view;
  desc.down = &fixed.down.view;
  desc.gate_up_bias = view(fixed.gate_up_bias);
  desc.down_bias = view(fixed.down_bias);
  desc.expert_map = view(fixed.map);
  const Prepared kernel(backend, CHORUS_OP_EXPERTS_FFN, &desc);
  ExpertsTensors t(backend.memory(), p);
  chorus_experts_args args = CHORUS_EXPERTS_ARGS_INIT;
  args.tokens = p.tokens;
  args.x = t.x.view();
  args.ids = t.ids.view();
  args.weights = t.weights.view();
  args.y = t.y.view();
  args.status = t.status.view();
  kernel.run(&args);
  return t.result();
}

namespace {

struct Deleter {
  void operator()(chorus_experts_spec *spec) const { chorus_experts_spec_destroy(spec); }
  void operator()(chorus_experts *experts) const { chorus_experts_destroy(experts); }
};

}  // namespace

ExpertsResult run(const PublicAbi &abi, const ExpertsProblem &p) {
  const ExpertsStatic fixed(p);
  chorus_error *error = nullptr;
  chorus_experts_spec *made = nullptr;
  must(chorus_experts_spec_create(&fixed.gate_up.view, &fixed.down.view, p.k, &made, &error), error,
       "experts spec");
  const std::unique_ptr<chorus_experts_spec, Deleter> spec(made);
  must(chorus_experts_spec_set_max_tokens(made, p.tokens, &error), error, "max tokens");
  must(chorus_experts_spec_set_dtypes(made, p.x_dtype, p.y_dtype, p.ids_dtype, &error), error, "dtypes");
  must(chorus_experts_spec_set_activation(made, p.activation, p.layout, &error), error,
       "activation");
  must(chorus_experts_spec_set_biases(made, view(fixed.gate_up_bias), view(fixed.down_bias), &error), error,
       "biases");
  must(chorus_experts_spec_set_limit(made, p.limit, &error), error, "limit");
  must(chorus_experts_spec_set_weight_before(made, p.weight_before, &error), error, "weight before");
  must(chorus_experts_spec_set_batch_invariant(made, p.batch_invariant, &error), error, "batch invariant");
  must(chorus_experts_spec_set_shared(made, p.n_shared, &error), error, "shared");
  if (fixed.map != nullptr)
    must(chorus_experts_spec_set_expert_map(made, view(fixed.map), &error), error, "map");
  chorus_experts *experts = nullptr;
  must(chorus_experts_create(abi.context(), made, abi.device(), &experts, &error), error, "experts");
  const std::unique_ptr<chorus_experts, Deleter> owner(experts);
  ExpertsTensors t(abi.memory(), p);
  uint64_t bytes = 0;
  must(chorus_experts_get_workspace_size(experts, p.tokens, &bytes, &error), error, "workspace size");
  Buffer workspace(abi.memory(), (bytes + 255) / 256 * 256);
  chorus_exec exec = CHORUS_EXEC_INIT;
  exec.workspace = workspace.device();
  exec.workspace_bytes = workspace.bytes();
  must(chorus_experts_run(experts, t.x.view(), t.ids.view(), t.weights.view(), t.y.view(), t.status.view(),
                          &exec, &error),
       error, "experts run");
  return t.result();
}

// ---- Oracle ----

namespace {

struct Columns {
  int64_t gate, up;
};

// Gate -1: none.
Columns rows_of(const ExpertsProblem &p, int64_t i) {
  if (!p.is_gated()) return {-1, i};
  if (p.layout == CHORUS_GATE_UP_INTERLEAVED) return {2 * i, 2 * i + 1};
  return p.layout == CHORUS_UP_GATE_CONCATENATED ? Columns{p.intermediate + i, i}
                                                 : Columns{i, p.intermediate + i};
}

double activate(const ExpertsProblem &p, double gate, double up) {
  if (p.limit > 0) {
    gate = std::fmin(gate, p.limit);
    up = std::fmax(-p.limit, std::fmin(up, p.limit));
  }
  const auto silu = [](double g, double alpha) { return g / (1 + std::exp(-alpha * g)); };
  switch (p.activation) {
    case CHORUS_ACTIVATION_GEGLU:
      return 0.5 * gate * (1 + std::tanh(std::sqrt(2 / std::acos(-1.0)) * (gate + 0.044715 * gate * gate * gate))) * up;
    case CHORUS_ACTIVATION_REGLU:
      return std::fmax(gate, 0) * up;
    case CHORUS_ACTIVATION_RELU:
      return std::fmax(up, 0);
    case CHORUS_ACTIVATION_RELU2:
      return std::fmax(up, 0) * std::fmax(up, 0);
    case CHORUS_ACTIVATION_GPT_OSS:
      return (up + 1) * silu(gate, 1.702);
    default:
      return silu(gate, 1) * up;
  }
}

double dot(const std::vector<double> &w, int64_t row, const std::vector<double> &x) {
  double sum = 0;
  const auto n = static_cast<int64_t>(x.size());
  for (int64_t i = 0; i < n; ++i) sum += w[static_cast<size_t>(row * n + i)] * x[static_cast<size_t>(i)];
  return sum;
}

double bias(const std::vector<double> &b, int64_t at) {
  return b.empty() ? 0 : b[static_cast<size_t>(at)];
}

// One expert on one token: double precision throughout, no rounding of operands.
std::vector<double> expert(const ExpertsProblem &p, int64_t e, const std::vector<double> &x) {
  std::vector<double> h, out;
  for (int64_t i = 0; i < p.intermediate; ++i) {
    const Columns at = rows_of(p, i);
    const int64_t first = e * p.wide();
    const auto product = [&](int64_t row) {
      return row < 0 ? 0 : dot(p.gate_up.real, first + row, x) + bias(p.gate_up_bias, first + row);
    };
    h.push_back(activate(p, product(at.gate), product(at.up)));
  }
  for (int64_t i = 0; i < p.hidden; ++i)
    out.push_back(dot(p.down.real, e * p.hidden + i, h) + bias(p.down_bias, e * p.hidden + i));
  return out;
}

}  // namespace

std::vector<double> oracle(const ExpertsProblem &p) {
  std::vector<double> y(static_cast<size_t>(p.tokens * p.hidden), 0);
  for (int64_t t = 0; t < p.tokens; ++t) {
    const auto add = [&](int64_t e, double w) {
      std::vector<double> x(p.x.begin() + t * p.hidden, p.x.begin() + (t + 1) * p.hidden);
      for (double &v : x) v *= p.weight_before ? w : 1;
      const auto out = expert(p, e, x);
      for (int64_t i = 0; i < p.hidden; ++i)
        y[static_cast<size_t>(t * p.hidden + i)] += (p.weight_before ? 1 : w) * out[static_cast<size_t>(i)];
    };
    for (int32_t j = 0; j < p.k; ++j) {
      const auto slot = static_cast<size_t>(t * p.k + j);
      const auto id = static_cast<int64_t>(p.ids[slot]);
      if (id < 0 || id >= p.known_ids() || p.weights[slot] == 0) continue;
      const int64_t e = p.map.empty() ? id : static_cast<int64_t>(p.map[static_cast<size_t>(id)]);
      if (e >= 0) add(e, p.weights[slot]);
    }
    for (int64_t e = p.routed(); e < p.n_experts; ++e) add(e, 1);
  }
  return y;
}

// ---- Problems ----

namespace {

std::vector<double> normals(Random &random, int64_t count, double spread, chorus_dtype dtype) {
  std::vector<double> out;
  for (int64_t i = 0; i < count; ++i) out.push_back(rounded(dtype, spread * random.normal()));
  return out;
}

// Normal weights that `p` can store; integers with scales of their own.
ExpertWeights random_weights(Random &random, const ExpertsProblem &p, int64_t rows, int64_t columns) {
  ExpertWeights w{rows, columns, 0, {}, {}, {}};
  const double spread = 1 / std::sqrt(static_cast<double>(columns));
  if (!is_integer(p.weights_dtype)) {
    w.real = normals(random, p.n_experts * rows * columns, spread, p.weights_dtype);
    return w;
  }
  w.group = random.pick({0, 8, 32, 64, 128, 256});
  const double most = p.weights_dtype == CHORUS_I8 ? 127 : 7;
  for (int64_t row = 0; row < p.n_experts * rows; ++row) {
    for (int64_t c = 0; c < columns; ++c) {
      if (c == 0 || (w.group > 0 && c % w.group == 0))
        w.scales.push_back(rounded(p.scales_dtype, spread * random.uniform(1.5, 3) / most));
      w.stored.push_back(random.integer(-static_cast<int64_t>(most) - 1, static_cast<int64_t>(most)));
      w.real.push_back(w.stored.back() * w.scales.back());
    }
  }
  return w;
}

}  // namespace

ExpertsProblem random_experts(Random &random) {
  ExpertsProblem p;
  p.n_experts = static_cast<int32_t>(random.integer(1, 9));
  p.k = static_cast<int32_t>(random.integer(1, std::min(4, p.n_experts)));
  p.hidden = random.pick({1, 7, 16, 33, 64, 100});
  p.intermediate = random.pick({1, 5, 16, 31, 64, 96});
  p.tokens = random.pick({1, 2, 5, 17, 40});
  if (random.chance(0.06)) {  // several tiles in every direction
    p.hidden = random.integer(150, 260);
    p.intermediate = random.integer(200, 400);
    p.tokens = 70;
  }
  p.weights_dtype = random.pick({CHORUS_F32, CHORUS_BF16, CHORUS_F16, CHORUS_I8, CHORUS_I4});
  p.scales_dtype = random.pick({CHORUS_F32, CHORUS_F16, CHORUS_BF16});
  if (random.chance(0.6)) p.activation = static_cast<chorus_activation>(random.integer(0, CHORUS_ACTIVATION_GPT_OSS));
  if (random.chance(0.3)) p.limit = random.uniform(0.3, 2);
  if (random.chance(0.3)) p.n_shared = static_cast<int32_t>(random.integer(0, p.n_experts - 1));
  p.x_dtype = random.pick({CHORUS_F32, CHORUS_BF16});
  p.y_dtype = random.pick({CHORUS_F32, CHORUS_BF16});
  p.ids_dtype = random.pick({CHORUS_I32, CHORUS_I64});
  p.layout =
      random.pick({CHORUS_GATE_UP_CONCATENATED, CHORUS_UP_GATE_CONCATENATED, CHORUS_GATE_UP_INTERLEAVED});
  p.weight_before = random.chance(0.2);
  p.row_stride = random.chance(0.5) ? 0 : p.hidden + random.integer(0, 9);
  const int64_t e = p.n_experts, h = p.hidden, i = p.intermediate;
  p.gate_up = random_weights(random, p, p.wide(), h);
  p.down = random_weights(random, p, h, i);
  if (random.chance(0.4)) p.gate_up_bias = normals(random, e * p.wide(), 0.3, CHORUS_F32);
  if (random.chance(0.4)) p.down_bias = normals(random, e * h, 0.3, CHORUS_F32);
  if (random.chance(0.3)) {
    for (int64_t id = 0; id < 2 * e; ++id) p.map.push_back(static_cast<double>(random.integer(-1, p.routed() - 1)));
  }
  p.x = normals(random, p.tokens * h, 1, p.x_dtype);
  for (int64_t s = 0; s < p.tokens * p.k; ++s) {
    p.ids.push_back(static_cast<double>(random.chance(0.05) ? -1 : random.integer(0, p.known_ids() - 1)));
    p.weights.push_back(random.chance(0.1) ? 0 : rounded(CHORUS_F32, random.uniform(0.05, 1)));
  }
  return p;
}

void poison(ExpertsProblem &p, int64_t e) {
  for (ExpertWeights *w : {&p.gate_up, &p.down}) {
    std::vector<double> &values = is_integer(p.weights_dtype) ? w->scales : w->real;
    const auto each = static_cast<int64_t>(values.size()) / p.n_experts;
    std::fill(values.begin() + e * each, values.begin() + (e + 1) * each, kNaN);
  }
}

}  // namespace conformance
