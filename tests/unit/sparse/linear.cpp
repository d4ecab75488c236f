// SPDX-License-Identifier: Apache-2.0
// Sparse rows on every host device there is, against sums in double over the kept set alone: picks, sides, dtypes, dense fallback,
// NaN weights of what is skipped, batches, threads; and what is refused.
#include <algorithm>
#include <cmath>
#include <memory>

#include "unit/route/support.h"

using unit::Array;

namespace {

const chorus::Context &context() {
  static const chorus::Context kContext;
  return kContext;
}

std::vector<std::string> devices() {
  std::vector<std::string> out = {"reference"};
  const Array<float> probe({1, 1}, {1.0f});
  chorus_sparse_spec *spec = nullptr;
  chorus_sparse *made = nullptr;
  cr_assert_eq(chorus_sparse_spec_create_linear(probe.get(), CHORUS_SPARSE_INPUTS, &spec, nullptr), CHORUS_OK);
  if (chorus_sparse_create(context().get(), spec, "cpu", &made, nullptr) == CHORUS_OK) out.push_back("cpu");
  chorus_sparse_destroy(made);
  chorus_sparse_spec_destroy(spec);
  return out;
}

// A matrix in one of the weight formats: what is stored, and what it means.
struct Weights {
  Weights(int64_t rows, int64_t columns, chorus_dtype format, unsigned seed) : shape{rows, columns}, scales({rows, 1}) {
    const auto values = unit::normals(static_cast<size_t>(rows * columns), seed);
    const uint64_t bytes = (format >> 8) / 8;
    memory.resize(values.size() * bytes);
    for (int64_t r = 0; r < rows; ++r) scales.data[static_cast<size_t>(r)] = 0.01f + 0.001f * static_cast<float>(r);
    for (size_t i = 0; i < values.size(); ++i) {
      const auto f = static_cast<float>(values[i]);
      if (format == CHORUS_F32) {
        std::memcpy(&memory[i * 4], &f, 4);
        real.push_back(f);
      } else if (format == CHORUS_BF16) {
        std::memcpy(&memory[i * 2], reinterpret_cast<const char *>(&f) + 2, 2);  // cut off, which is a bf16 too
        float cut = 0;
        std::memcpy(reinterpret_cast<char *>(&cut) + 2, &memory[i * 2], 2);
        real.push_back(cut);
      } else {
        const auto q = static_cast<int8_t>(std::clamp(std::lround(f * 40), -128L, 127L));
        std::memcpy(&memory[i], &q, 1);
        real.push_back(static_cast<double>(scales.data[i / static_cast<size_t>(columns)]) * q);
      }
    }
    view.data = memory.data();
    view.size_bytes = memory.size();
    view.device_type = CHORUS_DEVICE_HOST;
    view.dtype_code = static_cast<uint8_t>(format & 0xff);
    view.dtype_bits = static_cast<uint8_t>(format >> 8);
    view.dtype_lanes = 1;
    view.ndim = 2;
    view.shape = shape;
    quant.scales = scales.get();
    quant.axis = 1;
    if (format == CHORUS_I8) view.quant = &quant;
  }
  Weights(const Weights &) = delete;
  Weights &operator=(const Weights &) = delete;
  double at(int64_t r, int64_t c) const { return real[static_cast<size_t>(r * shape[1] + c)]; }

  int64_t shape[2];
  Array<float> scales;
  std::vector<char> memory;
  std::vector<double> real;
  chorus_quant quant = CHORUS_QUANT_INIT;
  chorus_tensor view = CHORUS_TENSOR_INIT;
};

std::vector<float> floats(size_t count, unsigned seed) {
  std::vector<float> out;
  for (const double x : unit::normals(count, seed)) out.push_back(static_cast<float>(x));
  return out;
}

// Which indices a row keeps, by the words of sparse.h.
std::vector<bool> kept_of(chorus_sparse_pick pick, double threshold, double dense_above, const std::vector<double> &values) {
  std::vector<bool> out;
  size_t count = 0;
  for (const double v : values) {
    out.push_back(pick == CHORUS_SPARSE_NONZERO     ? v != 0
                  : pick == CHORUS_SPARSE_MAGNITUDE ? !(std::fabs(v) <= threshold)
                                                    : v >= threshold);
    count += out.back();
  }
  if (dense_above > 0 && dense_above < 1 && static_cast<double>(count) > dense_above * static_cast<double>(values.size())) {
    std::fill(out.begin(), out.end(), true);
  }
  return out;
}

struct Result {
  std::vector<float> y;
  std::vector<int32_t> kept, counts;
  double density = -1;
};

Result run(const chorus_sparse_spec *spec, const std::string &device, const Array<float> &x, const chorus_sparse_in &in,
           int64_t outputs, int64_t indices) {
  chorus_sparse *sparse = nullptr;
  unit::Outcome o;
  cr_assert_eq(chorus_sparse_create(context().get(), spec, device.c_str(), &sparse, o.slot()), CHORUS_OK, "%s", o.text().c_str());
  cr_expect(unit::contains(chorus_sparse_get_kernel(sparse), device), "%s on %s", chorus_sparse_get_kernel(sparse), device.c_str());
  cr_expect_gt(chorus_sparse_get_packed_bytes(sparse), 0);
  const int64_t rows = x.shape[0];
  const Array<float> y({rows, outputs});
  const Array<int32_t> kept({rows, indices}), counts({rows});
  chorus_sparse_out out = CHORUS_SPARSE_OUT_INIT;
  out.kept = kept.get();
  out.counts = counts.get();
  Result result;
  cr_assert_eq(chorus_sparse_linear(sparse, x.get(), &in, y.get(), &out, &result.density, nullptr, o.slot()), CHORUS_OK, "%s",
               o.text().c_str());
  // The same with a workspace of the caller's, exactly as large as asked for.
  uint64_t bytes = 0;
  cr_assert_eq(chorus_sparse_get_workspace_size(sparse, rows, &bytes, nullptr), CHORUS_OK);
  const std::unique_ptr<char, decltype(&std::free)> workspace(
      static_cast<char *>(std::aligned_alloc(64, (bytes + 64) / 64 * 64)), std::free);
  chorus_exec exec = CHORUS_EXEC_INIT;
  exec.workspace = workspace.get();
  exec.workspace_bytes = bytes;
  const Array<float> again({rows, outputs});
  cr_assert_eq(chorus_sparse_linear(sparse, x.get(), &in, again.get(), nullptr, nullptr, &exec, nullptr), CHORUS_OK);
  cr_expect(std::memcmp(again.data.data(), y.data.data(), y.data.size() * 4) == 0, "bytes differ with a workspace");
  chorus_sparse_destroy(sparse);
  result.y = y.data;
  result.kept = kept.data;
  result.counts = counts.data;
  return result;
}

void expect_set(const Result &result, int64_t t, const std::vector<bool> &kept) {
  const auto n = static_cast<int64_t>(kept.size());
  int32_t count = 0;
  for (int64_t i = 0; i < n; ++i) {
    if (!kept[static_cast<size_t>(i)]) continue;
    cr_expect_eq(result.kept[static_cast<size_t>(t * n + count)], i);
    ++count;
  }
  cr_expect_eq(result.counts[static_cast<size_t>(t)], count, "row %ld keeps %d, not %d", static_cast<long>(t),
               result.counts[static_cast<size_t>(t)], count);
  for (int64_t i = count; i < n; ++i) cr_expect_eq(result.kept[static_cast<size_t>(t * n + i)], -1);
}

void expect_near(double found, double truth, double mass, const char *what) {
  cr_expect(std::fabs(found - truth) <= 3e-6 * mass + 1e-30, "%s: %.9g, not %.9g", what, found, truth);
}

// x with zeros, and small values.
std::vector<float> sparse_x(int64_t rows, int64_t n, double density, unsigned seed) {
  auto x = floats(static_cast<size_t>(rows * n), seed);
  std::mt19937 engine(seed);
  std::uniform_real_distribution<double> chance;
  for (float &v : x) v = chance(engine) < density ? v : 0.0f;
  return x;
}

}  // namespace

Test(sparse, inputs_skipped) {
  constexpr int64_t kInputs = 301, kOutputs = 77;
  for (const std::string &device : devices()) {
    for (const chorus_dtype format : {CHORUS_F32, CHORUS_BF16, CHORUS_I8}) {
      for (const int64_t rows : {1, 3, 8}) {
        for (const double dense_above : {0.0, 0.25}) {
          const Weights w(kOutputs, kInputs, format, 1);
          const Array<float> x({rows, kInputs}, sparse_x(rows, kInputs, 0.3, 2)), bias({kOutputs}, floats(kOutputs, 3)),
              scores({rows, kInputs}, floats(static_cast<size_t>(rows * kInputs), 4));
          for (const chorus_sparse_pick pick : {CHORUS_SPARSE_NONZERO, CHORUS_SPARSE_MAGNITUDE, CHORUS_SPARSE_SCORES}) {
            const double threshold = pick == CHORUS_SPARSE_NONZERO ? 0 : 0.75;
            chorus_sparse_spec *spec = nullptr;
            cr_assert_eq(chorus_sparse_spec_create_linear(&w.view, CHORUS_SPARSE_INPUTS, &spec, nullptr), CHORUS_OK);
            cr_assert_eq(chorus_sparse_spec_set_max_rows(spec, 8, nullptr), CHORUS_OK);
            cr_assert_eq(chorus_sparse_spec_set_pick(spec, pick, threshold, nullptr), CHORUS_OK);
            cr_assert_eq(chorus_sparse_spec_set_dense_above(spec, dense_above, nullptr), CHORUS_OK);
            cr_assert_eq(chorus_sparse_spec_set_biases(spec, nullptr, nullptr, bias.get(), nullptr), CHORUS_OK);
            chorus_sparse_in in = CHORUS_SPARSE_IN_INIT;
            if (pick == CHORUS_SPARSE_SCORES) in.scores = scores.get();
            const Result result = run(spec, device, x, in, kOutputs, kInputs);
            double all = 0;
            for (int64_t t = 0; t < rows; ++t) {
              const auto &from = pick == CHORUS_SPARSE_SCORES ? scores.data : x.data;
              const auto kept = kept_of(pick, threshold, dense_above, {from.begin() + t * kInputs, from.begin() + (t + 1) * kInputs});
              expect_set(result, t, kept);
              all += result.counts[static_cast<size_t>(t)];
              for (int64_t o = 0; o < kOutputs; ++o) {
                double sum = bias.data[static_cast<size_t>(o)], mass = std::fabs(sum);
                for (int64_t i = 0; i < kInputs; ++i) {
                  if (!kept[static_cast<size_t>(i)]) continue;
                  const double term = x.data[static_cast<size_t>(t * kInputs + i)] * w.at(o, i);
                  sum += term;
                  mass += std::fabs(term);
                }
                expect_near(result.y[static_cast<size_t>(t * kOutputs + o)], sum, mass, device.c_str());
              }
            }
            cr_expect_float_eq(result.density, all / static_cast<double>(rows * kInputs), 1e-12);
            chorus_sparse_spec_destroy(spec);
          }
        }
      }
    }
  }
}

Test(sparse, outputs_skipped) {
  constexpr int64_t kInputs = 130, kOutputs = 203, kRows = 4;
  for (const std::string &device : devices()) {
    for (const chorus_dtype format : {CHORUS_F32, CHORUS_BF16, CHORUS_I8}) {
      const Weights w(kOutputs, kInputs, format, 5);
      const Array<float> x({kRows, kInputs}, floats(kRows * kInputs, 6)), bias({kOutputs}, floats(kOutputs, 7));
      // In any order, with repeats, padding and indices that are none.
      const Array<int32_t> given({kRows, 6}, {5, 5, 200, -1, 7, 1000, 0, 1, 2, 3, 4, 5, -1, -1, -1, -1, -1, -1, 202, 0, 202, 9, 8, -7});
      chorus_sparse_spec *spec = nullptr;
      cr_assert_eq(chorus_sparse_spec_create_linear(&w.view, CHORUS_SPARSE_OUTPUTS, &spec, nullptr), CHORUS_OK);
      cr_assert_eq(chorus_sparse_spec_set_max_rows(spec, kRows, nullptr), CHORUS_OK);
      cr_assert_eq(chorus_sparse_spec_set_biases(spec, nullptr, nullptr, bias.get(), nullptr), CHORUS_OK);
      chorus_sparse_in in = CHORUS_SPARSE_IN_INIT;
      in.given = given.get();
      const Result result = run(spec, device, x, in, kOutputs, kOutputs);
      for (int64_t t = 0; t < kRows; ++t) {
        std::vector<bool> kept(kOutputs);
        for (int64_t j = 0; j < 6; ++j) {
          const int32_t i = given.data[static_cast<size_t>(t * 6 + j)];
          if (i >= 0 && i < kOutputs) kept[static_cast<size_t>(i)] = true;
        }
        expect_set(result, t, kept);
        for (int64_t o = 0; o < kOutputs; ++o) {
          double sum = bias.data[static_cast<size_t>(o)], mass = std::fabs(sum);
          for (int64_t i = 0; i < kInputs; ++i) {
            const double term = x.data[static_cast<size_t>(t * kInputs + i)] * w.at(o, i);
            sum += term;
            mass += std::fabs(term);
          }
          const double y = result.y[static_cast<size_t>(t * kOutputs + o)];
          if (kept[static_cast<size_t>(o)]) {
            expect_near(y, sum, mass, device.c_str());
          } else {
            cr_expect_eq(y, 0);
          }
        }
      }
      chorus_sparse_spec_destroy(spec);
    }
  }
}

namespace {

double activated(chorus_activation activation, double g) {
  switch (activation) {
    case CHORUS_ACTIVATION_SWIGLU: return g / (1 + std::exp(-g));
    case CHORUS_ACTIVATION_GEGLU: return 0.5 * g * (1 + std::tanh(std::sqrt(2 / M_PI) * (g + 0.044715 * g * g * g)));
    case CHORUS_ACTIVATION_RELU2: return g > 0 ? g * g : 0;
    default: return g > 0 ? g : 0;
  }
}

}  // namespace

// A feed-forward block by every pick and activation. The oracle keeps what the call says that it kept, and checks that set
// where no rounding can decide it.
Test(sparse, feed_forward) {
  constexpr int64_t kHidden = 70, kNeurons = 150;
  for (const std::string &device : devices()) {
    for (const chorus_dtype format : {CHORUS_F32, CHORUS_BF16, CHORUS_I8}) {
      for (const chorus_activation activation : {CHORUS_ACTIVATION_SWIGLU, CHORUS_ACTIVATION_GEGLU, CHORUS_ACTIVATION_REGLU,
                                                 CHORUS_ACTIVATION_RELU, CHORUS_ACTIVATION_RELU2}) {
        const bool gated = activation <= CHORUS_ACTIVATION_REGLU;
        for (const int64_t rows : {1, 5}) {
          const Weights gate(kNeurons, kHidden, format, 8), up(kNeurons, kHidden, format, 9), down(kHidden, kNeurons, format, 10);
          const Array<float> x({rows, kHidden}, floats(static_cast<size_t>(rows * kHidden), 11)),
              scores({rows, kNeurons}, floats(static_cast<size_t>(rows * kNeurons), 12)), bias({kNeurons}, floats(kNeurons, 13));
          for (const chorus_sparse_pick pick : {CHORUS_SPARSE_NONZERO, CHORUS_SPARSE_MAGNITUDE, CHORUS_SPARSE_SCORES}) {
            const double threshold = pick == CHORUS_SPARSE_NONZERO ? 0 : pick == CHORUS_SPARSE_SCORES ? 1.2 : 0.5;
            chorus_sparse_spec *spec = nullptr;
            cr_assert_eq(chorus_sparse_spec_create_ffn(gated ? &gate.view : nullptr, &up.view, &down.view, &spec, nullptr), CHORUS_OK);
            cr_assert_eq(chorus_sparse_spec_set_max_rows(spec, 8, nullptr), CHORUS_OK);
            cr_assert_eq(chorus_sparse_spec_set_activation(spec, activation, nullptr), CHORUS_OK);
            cr_assert_eq(chorus_sparse_spec_set_pick(spec, pick, threshold, nullptr), CHORUS_OK);
            cr_assert_eq(chorus_sparse_spec_set_biases(spec, gated ? bias.get() : nullptr, bias.get(), nullptr, nullptr), CHORUS_OK);
            chorus_sparse_in in = CHORUS_SPARSE_IN_INIT;
            if (pick == CHORUS_SPARSE_SCORES) in.scores = scores.get();
            const Result result = run(spec, device, x, in, kHidden, kNeurons);
            for (int64_t t = 0; t < rows; ++t) {
              std::vector<double> h(kNeurons), values(kNeurons);
              for (int64_t i = 0; i < kNeurons; ++i) {
                double g = bias.data[static_cast<size_t>(i)], u = g;
                for (int64_t j = 0; j < kHidden; ++j) {
                  g += gate.at(i, j) * x.data[static_cast<size_t>(t * kHidden + j)];
                  u += up.at(i, j) * x.data[static_cast<size_t>(t * kHidden + j)];
                }
                const auto at = static_cast<size_t>(i);
                values[at] = activated(activation, gated ? g : u);
                h[at] = gated ? values[at] * u : values[at];
              }
              std::vector<bool> told(kNeurons);
              for (int32_t j = 0; j < result.counts[static_cast<size_t>(t)]; ++j) {
                told[static_cast<size_t>(result.kept[static_cast<size_t>(t * kNeurons + j)])] = true;
              }
              const auto expected = kept_of(pick, threshold, 0, pick != CHORUS_SPARSE_SCORES ? values
                  : std::vector<double>(scores.data.begin() + t * kNeurons, scores.data.begin() + (t + 1) * kNeurons));
              for (size_t i = 0; i < static_cast<size_t>(kNeurons); ++i) {
                if (std::fabs(std::fabs(values[i]) - threshold) > 1e-4) {
                  cr_expect_eq(told[i], expected[i], "neuron %zu of activated gate %g", i, values[i]);
                }
              }
              for (int64_t o = 0; o < kHidden; ++o) {
                double sum = 0, mass = 0;
                for (int64_t i = 0; i < kNeurons; ++i) {
                  const double term = told[static_cast<size_t>(i)] ? h[static_cast<size_t>(i)] * down.at(o, i) : 0;
                  sum += term;
                  mass += std::fabs(term);
                }
                expect_near(result.y[static_cast<size_t>(t * kHidden + o)], sum, 4 * mass + 1e-3, device.c_str());
              }
            }
            chorus_sparse_spec_destroy(spec);
          }
        }
      }
    }
  }
}

// A row's bytes do not depend on the other rows; what is skipped is not read: NaN there leaves no trace.
Test(sparse, rows_stand_alone) {
  constexpr int64_t kInputs = 500, kOutputs = 600, kRows = 8;
  for (const std::string &device : devices()) {
    Weights w(kOutputs, kInputs, CHORUS_F32, 14);
    auto values = sparse_x(kRows, kInputs, 0.4, 15);
    for (int64_t t = 0; t < kRows; ++t) values[static_cast<size_t>(t * kInputs + 17)] = 0;
    for (int64_t o = 0; o < kOutputs; ++o) {
      const float nan = NAN;
      std::memcpy(&w.memory[static_cast<size_t>(4 * (o * kInputs + 17))], &nan, 4);
    }
    chorus_sparse_spec *spec = nullptr;
    cr_assert_eq(chorus_sparse_spec_create_linear(&w.view, CHORUS_SPARSE_INPUTS, &spec, nullptr), CHORUS_OK);
    cr_assert_eq(chorus_sparse_spec_set_max_rows(spec, 8, nullptr), CHORUS_OK);
    const chorus_sparse_in none = CHORUS_SPARSE_IN_INIT;
    const Array<float> x({kRows, kInputs}, values);
    const Result all = run(spec, device, x, none, kOutputs, kInputs);
    for (int64_t t = 0; t < kRows; ++t) {
      const Array<float> row({1, kInputs}, {values.begin() + t * kInputs, values.begin() + (t + 1) * kInputs});
      const Result alone = run(spec, device, row, none, kOutputs, kInputs);
      cr_expect(std::memcmp(alone.y.data(), &all.y[static_cast<size_t>(t * kOutputs)], kOutputs * 4) == 0, "row %ld", static_cast<long>(t));
      cr_expect(std::isfinite(alone.y[0]), "a skipped column was multiplied");
    }
    chorus_sparse_spec_destroy(spec);
  }
}

Test(sparse, nothing_kept_and_no_rows) {
  for (const std::string &device : devices()) {
    const Weights w(5, 9, CHORUS_BF16, 16);
    const Array<float> zeros({2, 9}), empty({0, 9}), bias({5}, {1, 2, 3, 4, 5});
    chorus_sparse_spec *spec = nullptr;
    cr_assert_eq(chorus_sparse_spec_create_linear(&w.view, CHORUS_SPARSE_INPUTS, &spec, nullptr), CHORUS_OK);
    cr_assert_eq(chorus_sparse_spec_set_max_rows(spec, 2, nullptr), CHORUS_OK);
    cr_assert_eq(chorus_sparse_spec_set_biases(spec, nullptr, nullptr, bias.get(), nullptr), CHORUS_OK);
    const chorus_sparse_in none = CHORUS_SPARSE_IN_INIT;
    const Result result = run(spec, device, zeros, none, 5, 9);
    cr_expect_eq(result.density, 0);
    for (size_t i = 0; i < 10; ++i) cr_expect_eq(result.y[i], bias.data[i % 5]);
    cr_expect_eq(run(spec, device, empty, none, 5, 9).density, 0);
    chorus_sparse_spec_destroy(spec);
  }
}

Test(sparse, refuses) {
  const Weights w(6, 4, CHORUS_F32, 17), down(4, 6, CHORUS_F32, 18), bytes(6, 4, CHORUS_I8, 19);
  const Array<float> x({1, 4}), y({1, 6}), cube({1, 2, 3});
  const Array<int32_t> given({1, 2});
  unit::Outcome o;
  chorus_sparse_spec *spec = nullptr;
  const auto bad = [&](chorus_status status, const char *words, chorus_status expected = CHORUS_INVALID_ARGUMENT) {
    cr_expect_eq(status, expected, "%d: %s", status, o.text().c_str());
    cr_expect(unit::contains(o.text(), words), "%s", o.text().c_str());
  };
  bad(chorus_sparse_spec_create_linear(nullptr, CHORUS_SPARSE_INPUTS, &spec, o.slot()), "weights is NULL");
  bad(chorus_sparse_spec_create_linear(cube.get(), CHORUS_SPARSE_INPUTS, &spec, o.slot()), "3 dimensions");
  bad(chorus_sparse_spec_create_linear(&w.view, 2, &spec, o.slot()), "side is 2");
  bad(chorus_sparse_spec_create_ffn(nullptr, &w.view, nullptr, &spec, o.slot()), "down is NULL");
  cr_assert_eq(chorus_sparse_spec_create_ffn(nullptr, &w.view, &down.view, &spec, nullptr), CHORUS_OK);
  bad(chorus_sparse_spec_set_activation(spec, CHORUS_ACTIVATION_SWIGLU, o.slot()), "has a gate");
  bad(chorus_sparse_spec_set_activation(spec, CHORUS_ACTIVATION_GPT_OSS, o.slot()), "activation is 5");
  bad(chorus_sparse_spec_set_biases(spec, x.get(), nullptr, nullptr, o.slot()), "no gate");
  bad(chorus_sparse_spec_set_max_rows(spec, 9, o.slot()), "max_rows is 9");
  bad(chorus_sparse_spec_set_dense_above(spec, 1.5, o.slot()), "part is 1.5");
  bad(chorus_sparse_spec_set_pick(spec, 7, 0, o.slot()), "pick is 7");
  bad(chorus_sparse_spec_set_pick(spec, CHORUS_SPARSE_MAGNITUDE, -1, o.slot()), "threshold is -1");
  bad(chorus_sparse_spec_set_pick(spec, CHORUS_SPARSE_GIVEN, 1, o.slot()), "threshold is 1");
  bad(chorus_sparse_spec_set_dtypes(spec, CHORUS_F16, CHORUS_F32, o.slot()), "x is", CHORUS_UNIMPLEMENTED);
  chorus_sparse_spec_destroy(spec);
  cr_assert_eq(chorus_sparse_spec_create_ffn(nullptr, &w.view, &w.view, &spec, nullptr), CHORUS_OK);
  chorus_sparse *sparse = nullptr;
  bad(chorus_sparse_create(context().get(), spec, "reference", &sparse, o.slot()), "down: shape is [6, 4]");
  chorus_sparse_spec_destroy(spec);
  cr_assert_eq(chorus_sparse_spec_create_linear(&bytes.view, CHORUS_SPARSE_OUTPUTS, &spec, nullptr), CHORUS_OK);
  bad(chorus_sparse_spec_set_pick(spec, CHORUS_SPARSE_NONZERO, 0, o.slot()), "by scores or a list");
  cr_assert_eq(chorus_sparse_create(context().get(), spec, "reference", &sparse, nullptr), CHORUS_OK);
  const chorus_sparse_in none = CHORUS_SPARSE_IN_INIT;
  bad(chorus_sparse_linear(sparse, x.get(), &none, y.get(), nullptr, nullptr, nullptr, o.slot()), "given is NULL");
  chorus_sparse_in in = CHORUS_SPARSE_IN_INIT;
  in.given = given.get();
  bad(chorus_sparse_linear(sparse, y.get(), &in, y.get(), nullptr, nullptr, nullptr, o.slot()), "x: shape");
  bad(chorus_sparse_linear(sparse, x.get(), &in, x.get(), nullptr, nullptr, nullptr, o.slot()), "y: shape");
  in.scores = x.get();
  bad(chorus_sparse_linear(sparse, x.get(), &in, y.get(), nullptr, nullptr, nullptr, o.slot()), "scores is given");
  bad(chorus_sparse_linear(nullptr, x.get(), &in, y.get(), nullptr, nullptr, nullptr, o.slot()), "sparse is NULL");
  uint64_t size = 0;
  bad(chorus_sparse_get_workspace_size(sparse, 2, &size, o.slot()), "x has 2 rows");
  chorus_sparse_destroy(sparse);
  chorus_sparse_spec_destroy(spec);
  cr_expect_str_eq(chorus_sparse_get_kernel(nullptr), "");
  cr_expect_eq(chorus_sparse_get_packed_bytes(nullptr), 0);
}
