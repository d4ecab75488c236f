// SPDX-License-Identifier: Apache-2.0
// experts.ffn: within twice the error of the plain f32-accumulating computation of the same dtype, measured
// against double precision; skipped slots, maps, layouts, biases; a token does not know its batch; public C
// ABI.
#include <algorithm>
#include <cmath>

#include "chorus/route.h"
#include "conformance/check.h"
#include "conformance/combine_problem.h"
#include "conformance/public_abi.h"

namespace conformance {
namespace {

struct ExpertsProblem {
  int32_t n_experts = 0, k = 0;
  int64_t hidden = 0, intermediate = 0, tokens = 0, row_stride = 0;
  chorus_dtype weights_dtype = CHORUS_F32, x_dtype = CHORUS_F32, y_dtype = CHORUS_F32, ids_dtype = CHORUS_I32;
  chorus_gate_layout layout = CHORUS_GATE_UP_CONCATENATED;
  bool weight_before = false, batch_invariant = false;
  std::vector<double> gate_up, down, gate_up_bias, down_bias,
      map;                              // [E, 2I, H], [E, H, I], [E, 2I], [E, H], [ids]
  std::vector<double> x, ids, weights;  // [T, H], [T, k], [T, k]

  int64_t known_ids() const { return map.empty() ? n_experts : static_cast<int64_t>(map.size()); }
};

struct ExpertsResult {
  std::vector<double> y, status;
  std::vector<uint64_t> bits;
};

// Tensors of the static part lie in host memory: prepare alone reads them.
struct ExpertsStatic {
  explicit ExpertsStatic(const ExpertsProblem &p)
      : gate_up({}, p.weights_dtype, {p.n_experts, 2 * p.intermediate, p.hidden}, p.gate_up),
        down({}, p.weights_dtype, {p.n_experts, p.hidden, p.intermediate}, p.down) {
    if (!p.gate_up_bias.empty())
      gate_up_bias = std::make_unique<Tensor>(
          DeviceMemory{}, CHORUS_F32, std::vector<int64_t>{p.n_experts, 2 * p.intermediate}, p.gate_up_bias);
    if (!p.down_bias.empty())
      down_bias = std::make_unique<Tensor>(DeviceMemory{}, CHORUS_F32,
                                           std::vector<int64_t>{p.n_experts, p.hidden}, p.down_bias);
    if (!p.map.empty())
      map = std::make_unique<Tensor>(DeviceMemory{}, CHORUS_I32, std::vector<int64_t>{p.known_ids()}, p.map);
  }
  Tensor gate_up, down;
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
  desc.weight_before = p.weight_before;
  desc.batch_invariant = p.batch_invariant;
  desc.gate_up = fixed.gate_up.view();
  desc.down = fixed.down.view();
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

struct Deleter {
  void operator()(chorus_experts_spec *spec) const { chorus_experts_spec_destroy(spec); }
  void operator()(chorus_experts *experts) const { chorus_experts_destroy(experts); }
};

ExpertsResult run(const PublicAbi &abi, const ExpertsProblem &p) {
  const ExpertsStatic fixed(p);
  chorus_error *error = nullptr;
  chorus_experts_spec *made = nullptr;
  must(chorus_experts_spec_create(fixed.gate_up.view(), fixed.down.view(), p.k, &made, &error), error,
       "experts spec");
  const std::unique_ptr<chorus_experts_spec, Deleter> spec(made);
  must(chorus_experts_spec_set_max_tokens(made, p.tokens, &error), error, "max tokens");
  must(chorus_experts_spec_set_dtypes(made, p.x_dtype, p.y_dtype, p.ids_dtype, &error), error, "dtypes");
  must(chorus_experts_spec_set_activation(made, CHORUS_ACTIVATION_SWIGLU, p.layout, &error), error,
       "activation");
  must(chorus_experts_spec_set_biases(made, view(fixed.gate_up_bias), view(fixed.down_bias), &error), error,
       "biases");
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

struct Columns {
  int64_t gate, up;
};

Columns rows_of(const ExpertsProblem &p, int64_t i) {
  if (p.layout == CHORUS_GATE_UP_INTERLEAVED) return {2 * i, 2 * i + 1};
  return p.layout == CHORUS_UP_GATE_CONCATENATED ? Columns{p.intermediate + i, i}
                                                 : Columns{i, p.intermediate + i};
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
    const int64_t first = e * 2 * p.intermediate;
    const double gate = dot(p.gate_up, first + at.gate, x) + bias(p.gate_up_bias, first + at.gate);
    const double up = dot(p.gate_up, first + at.up, x) + bias(p.gate_up_bias, first + at.up);
    h.push_back(gate / (1 + std::exp(-gate)) * up);
  }
  for (int64_t i = 0; i < p.hidden; ++i)
    out.push_back(dot(p.down, e * p.hidden + i, h) + bias(p.down_bias, e * p.hidden + i));
  return out;
}

std::vector<double> oracle(const ExpertsProblem &p) {
  std::vector<double> y(static_cast<size_t>(p.tokens * p.hidden), 0);
  for (int64_t t = 0; t < p.tokens; ++t) {
    for (int32_t j = 0; j < p.k; ++j) {
      const auto slot = static_cast<size_t>(t * p.k + j);
      const auto id = static_cast<int64_t>(p.ids[slot]);
      const double w = p.weights[slot];
      if (id < 0 || id >= p.known_ids() || w == 0) continue;
      const int64_t e = p.map.empty() ? id : static_cast<int64_t>(p.map[static_cast<size_t>(id)]);
      if (e < 0) continue;
      std::vector<double> x(p.x.begin() + t * p.hidden, p.x.begin() + (t + 1) * p.hidden);
      for (double &v : x) v *= p.weight_before ? w : 1;
      const auto out = expert(p, e, x);
      for (int64_t i = 0; i < p.hidden; ++i)
        y[static_cast<size_t>(t * p.hidden + i)] += (p.weight_before ? 1 : w) * out[static_cast<size_t>(i)];
    }
  }
  return y;
}

// ---- Problems ----

std::vector<double> normals(Random &random, int64_t count, double spread, chorus_dtype dtype) {
  std::vector<double> out;
  for (int64_t i = 0; i < count; ++i) out.push_back(rounded(dtype, spread * random.normal()));
  return out;
}

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
  p.weights_dtype = random.pick({CHORUS_F32, CHORUS_BF16});
  p.x_dtype = random.pick({CHORUS_F32, CHORUS_BF16});
  p.y_dtype = random.pick({CHORUS_F32, CHORUS_BF16});
  p.ids_dtype = random.pick({CHORUS_I32, CHORUS_I64});
  p.layout =
      random.pick({CHORUS_GATE_UP_CONCATENATED, CHORUS_UP_GATE_CONCATENATED, CHORUS_GATE_UP_INTERLEAVED});
  p.weight_before = random.chance(0.2);
  p.row_stride = random.chance(0.5) ? 0 : p.hidden + random.integer(0, 9);
  const int64_t e = p.n_experts, h = p.hidden, i = p.intermediate;
  p.gate_up = normals(random, e * 2 * i * h, 1 / std::sqrt(static_cast<double>(h)), p.weights_dtype);
  p.down = normals(random, e * h * i, 1 / std::sqrt(static_cast<double>(i)), p.weights_dtype);
  if (random.chance(0.4)) p.gate_up_bias = normals(random, e * 2 * i, 0.3, CHORUS_F32);
  if (random.chance(0.4)) p.down_bias = normals(random, e * h, 0.3, CHORUS_F32);
  if (random.chance(0.3)) {
    for (int64_t id = 0; id < 2 * e; ++id) p.map.push_back(static_cast<double>(random.integer(-1, e - 1)));
  }
  p.x = normals(random, p.tokens * h, 1, p.x_dtype);
  for (int64_t s = 0; s < p.tokens * p.k; ++s) {
    p.ids.push_back(static_cast<double>(random.chance(0.05) ? -1 : random.integer(0, p.known_ids() - 1)));
    p.weights.push_back(random.chance(0.1) ? 0 : rounded(CHORUS_F32, random.uniform(0.05, 1)));
  }
  return p;
}

void on_problems(const Test &test, int cases, const auto &body) {
  Random random = test.random();
  bool ran = false;
  for (int i = 0; i < test.cases(cases); ++i) {
    const ExpertsProblem p = random_experts(random);
    describe("case %d: E %d, k %d, T %lld, H %lld, I %lld, weights 0x%x, x 0x%x, y 0x%x, layout %d", i,
             p.n_experts, p.k, static_cast<long long>(p.tokens), static_cast<long long>(p.hidden),
             static_cast<long long>(p.intermediate), p.weights_dtype, p.x_dtype, p.y_dtype, p.layout);
    ran |= attempt("a problem", [&] { body(p, random); });
  }
  if (!ran) skip("every problem was refused");
}

// Errors relative to the largest output, over all problems of one weights dtype: a single small problem may
// be lucky.
struct Tally {
  double squares = 0, max = 0, count = 0;

  void add(const ExpertsProblem &p, const std::vector<double> &y, const std::vector<double> &truth) {
    double largest = 0.1;
    for (double t : truth) largest = std::max(largest, std::fabs(t));
    for (size_t i = 0; i < y.size(); ++i) {
      // What the store of y rounds away is nobody's error.
      const double gap = std::max(0.0, std::fabs(y[i] - truth[i]) - ulp(p.y_dtype, truth[i]) / 2) / largest;
      squares += std::isnan(gap) ? kInfinity : gap * gap;
      max = std::max(max, std::isnan(gap) ? kInfinity : gap);
      count += 1;
    }
  }
  double rms() const { return count > 0 ? std::sqrt(squares / count) : 0; }
};

}  // namespace

// DESIGN 3a.6: twice the error of the plain computation, which is the reference. Its own error is that of f32
// sums and of operands rounded to the weights' dtype.
CONFORMANCE_TEST(experts_against_oracle) {
  Tally mine[2], plain[2];
  on_problems(test, 60, [&](const ExpertsProblem &p, Random &) {
    const auto truth = oracle(p);
    const bool half = p.weights_dtype == CHORUS_BF16;
    mine[half].add(p, run(test.backend, p).y, truth);
    if (test.has_peer()) plain[half].add(p, run(test.reference, p).y, truth);
  });
  const char *const names[] = {"f32", "bf16"};
  const double own_rms[] = {0x1p-20, 0x1p-7}, own_max[] = {0x1p-16, 0x1p-4};
  for (int half : {0, 1}) {
    const Tally &t = mine[half], &r = plain[half];
    describe("%s weights, %.0f outputs", names[half], t.count);
    if (test.has_peer()) {
      expect(t.rms() <= 2 * r.rms(), "rms error is %g; the plain computation's %g", t.rms(), r.rms());
      expect(t.max <= 2 * r.max, "largest error is %g; the plain computation's %g", t.max, r.max);
    } else {
      expect(t.rms() <= own_rms[half], "rms error is %g, more than %g", t.rms(), own_rms[half]);
      expect(t.max <= own_max[half], "largest error is %g, more than %g", t.max, own_max[half]);
    }
  }
}

CONFORMANCE_TEST(experts_by_public_abi) {
  const PublicAbi abi(test.backend);
  on_problems(test, 30, [&](ExpertsProblem p, Random &) {
    p.weight_before = false;
    expect(run(abi, p).bits == run(test.backend, p).bits, "bytes differ from the kernel's");
  });
}

// Slots that do not count are not computed: NaN weights of experts nobody chose leave no trace.
CONFORMANCE_TEST(experts_skipped_slots_cost_nothing) {
  on_problems(test, 30, [&](ExpertsProblem p, Random &) {
    p.map.clear();
    for (double &id : p.ids) id = id < 0 ? -1 : static_cast<double>(static_cast<int64_t>(id) % p.n_experts);
    const int64_t unused = p.n_experts - 1;
    for (size_t s = 0; s < p.ids.size(); ++s) {
      if (p.ids[s] == static_cast<double>(unused)) p.weights[s] = 0;
    }
    const auto clean = run(test.backend, p).bits;
    const auto poison = [&](std::vector<double> &w) {
      const size_t per_expert = w.size() / static_cast<size_t>(p.n_experts);
      std::fill(w.begin() + static_cast<int64_t>(static_cast<size_t>(unused) * per_expert), w.end(), kNaN);
    };
    poison(p.gate_up);
    poison(p.down);
    expect(run(test.backend, p).bits == clean, "an expert of weight 0 was multiplied");
  });
}

CONFORMANCE_TEST(experts_ids_out_of_range) {
  on_problems(test, 20, [&](ExpertsProblem p, Random &random) {
    const ExpertsResult clean = run(test.backend, p);
    expect(std::all_of(clean.status.begin(), clean.status.end(), [](double s) { return s == 0; }),
           "a status is not 0");
    const int64_t token = random.integer(0, p.tokens - 1);
    const auto slot = static_cast<size_t>(token * p.k);
    p.ids[slot] = -1;
    const ExpertsResult without = run(test.backend, p);
    p.ids[slot] = static_cast<double>(p.known_ids() + random.pick({0, 1, 1000000}));
    const ExpertsResult bad = run(test.backend, p);
    expect(bad.status[static_cast<size_t>(token)] == CHORUS_ROW_BAD_TOKEN, "an id out of range is not told");
    expect(bad.bits == without.bits, "an id out of range contributes");
  });
}

// A row of NaN or infinities poisons itself alone.
CONFORMANCE_TEST(experts_rows_stand_alone) {
  on_problems(test, 20, [&](ExpertsProblem p, Random &random) {
    if (p.tokens < 2) return;
    p.batch_invariant = true;
    const ExpertsResult clean = run(test.backend, p);
    const int64_t hit = random.integer(0, p.tokens - 1);
    p.x[static_cast<size_t>(hit * p.hidden)] = random.pick({kNaN, kInfinity});
    const ExpertsResult dirty = run(test.backend, p);
    for (int64_t at = 0; at < p.tokens * p.hidden; ++at) {
      if (at / p.hidden != hit)
        expect(clean.bits[static_cast<size_t>(at)] == dirty.bits[static_cast<size_t>(at)],
               "token %lld changed with token %lld", static_cast<long long>(at / p.hidden),
               static_cast<long long>(hit));
    }
  });
}

CONFORMANCE_TEST(experts_batch_invariant) {
  on_problems(test, 20, [&](ExpertsProblem p, Random &) {
    p.batch_invariant = true;
    const ExpertsResult all = run(test.backend, p);
    ExpertsProblem one = p;
    one.tokens = 1;
    for (int64_t t = 0; t < p.tokens; t += 1 + p.tokens / 5) {
      one.x.assign(p.x.begin() + t * p.hidden, p.x.begin() + (t + 1) * p.hidden);
      one.ids.assign(p.ids.begin() + t * p.k, p.ids.begin() + (t + 1) * p.k);
      one.weights.assign(p.weights.begin() + t * p.k, p.weights.begin() + (t + 1) * p.k);
      const ExpertsResult alone = run(test.backend, one);
      expect(std::equal(alone.bits.begin(), alone.bits.end(), all.bits.begin() + t * p.hidden),
             "token %lld depends on its batch", static_cast<long long>(t));
    }
  });
}

CONFORMANCE_TEST(experts_same_bytes_for_any_threads) {
  on_problems(test, 10, [&](const ExpertsProblem &p, Random &) {
    const ExpertsResult serial = run(test.backend, p);
    for (int threads : {0, 2, 5}) {
      test.backend.set_threads(threads);
      const ExpertsResult other = run(test.backend, p);
      test.backend.set_threads(1);
      expect(other.bits == serial.bits, "bytes differ with %d threads", threads);
    }
  });
}

}  // namespace conformance
