// SPDX-License-Identifier: Apache-2.0
// nearswap and arcee_fusion against plain code, vectors along another dimension, and mergekit's rounding against its chain.
#include <algorithm>

#include "unit/merge/support.h"

using unit::Bench;
using unit::Model;

namespace {

using Vector = std::vector<double>;

// Three dimensions, as experts have them.
const char *const kExperts = "model.layers.0.mlp.experts.up_proj";

void add_experts(Model *model, std::vector<int64_t> shape, unsigned seed, double (*size)(int64_t column)) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal(0, 1);
  unit::Values &tensor = (*model)[kExperts];
  tensor.dtype = CHORUS_F32;
  tensor.shape = shape;
  for (int64_t i = 0; i < unit::product(shape); ++i) tensor.values.push_back(normal(random) * size(i % shape.back()));
}

// Indexes of the vectors along `axis`, one by one.
std::vector<std::vector<size_t>> vectors_along(const std::vector<int64_t> &shape, size_t axis) {
  size_t inner = 1, outer = 1;
  const auto length = static_cast<size_t>(shape[axis]);
  for (size_t i = axis + 1; i < shape.size(); ++i) inner *= static_cast<size_t>(shape[i]);
  for (size_t i = 0; i < axis; ++i) outer *= static_cast<size_t>(shape[i]);
  std::vector<std::vector<size_t>> out;
  for (size_t o = 0; o < outer; ++o) {
    for (size_t i = 0; i < inner; ++i) {
      std::vector<size_t> &one = out.emplace_back();
      for (size_t l = 0; l < length; ++l) one.push_back((o * length + l) * inner + i);
    }
  }
  return out;
}

// Softmax of a row, 1e-8 added to each probability.
Vector probabilities(const double *row, size_t columns) {
  const double most = *std::max_element(row, row + columns);
  double sum = 0;
  Vector out;
  for (size_t i = 0; i < columns; ++i) sum += std::exp(row[i] - most);
  for (size_t i = 0; i < columns; ++i) out.push_back(std::exp(row[i] - most) / sum + 1e-8);
  return out;
}

float bf16(double x) {
  const auto bits = std::bit_cast<uint32_t>(static_cast<float>(x));
  return std::bit_cast<float>((bits + 0x7fffu + (bits >> 16 & 1u)) & 0xffff0000u);
}

}  // namespace

Test(nearswap, takes_what_is_near) {
  for (const chorus_dtype dtype : {CHORUS_BF16, CHORUS_F16, CHORUS_F32}) {
    for (const double t : {0.0, 0.0005, 1.0}) {
      Bench bench(dtype);
      add_fine_tunes(&bench);
      const Model got = bench.merge(R"({merge_method: nearswap, base_model: "@a", models: [{model: "@a"}, {model: "@x"}], parameters: {t: )" +
                                    std::to_string(t) + "}}", 2);
      unit::expect_close(got, [&](const std::string &name) {
        Vector out = bench.model("a").at(name).values;
        const Vector &other = bench.model("x").at(name).values;
        for (size_t i = 0; i < out.size(); ++i) {
          const double w = std::min(1.0, t / std::max(std::abs(out[i] - other[i]), 1e-6));
          out[i] += w * (other[i] - out[i]);
        }
        return out;
      }, 1);
    }
  }
}

Test(nearswap, is_named_in_the_plan) {
  const Bench bench;
  chorus::MergerSpec spec;
  spec.set_recipe(bench.recipe(R"({merge_method: nearswap, base_model: "@a", models: [{model: "@b"}], parameters: {t: 0.1}})"), "r");
  const std::string plan = chorus::Merger(unit::context(), spec).plan_text();
  cr_assert(unit::contains(plan, "host/nearswap"), "%s", plan.c_str());
}

Test(arcee_fusion, keeps_changes_of_importance) {
  for (const chorus_dtype dtype : {CHORUS_BF16, CHORUS_F32}) {
    Bench bench(dtype);
    add_fine_tunes(&bench);
    const Model got = bench.merge(R"({merge_method: arcee_fusion, base_model: "@a", models: [{model: "@a"}, {model: "@x"}], out_dtype: float32})", 2);
    for (const auto &[name, tensor] : got) {
      const Vector &base = bench.model("a").at(name).values, &other = bench.model("x").at(name).values;
      const auto columns = static_cast<size_t>(tensor.shape.back());
      std::vector<float> importance;
      for (size_t row = 0; row < base.size(); row += columns) {
        const Vector p = probabilities(other.data() + row, columns), q = probabilities(base.data() + row, columns);
        double kl = 0;
        for (size_t i = 0; i < columns; ++i) kl += p[i] * std::log(p[i] / q[i]);
        for (size_t i = 0; i < columns; ++i) importance.push_back(static_cast<float>(std::abs(other[row + i] - base[row + i]) * kl));
      }
      std::vector<float> sorted = importance;
      std::ranges::sort(sorted);
      const size_t last = sorted.size() - 1;
      const double cut = sorted[last / 2] + 1.5 * (static_cast<double>(sorted[3 * last / 4]) - sorted[last / 4]);
      size_t taken = 0;
      for (size_t i = 0; i < base.size(); ++i) {
        if (std::abs(importance[i] - cut) < 1e-5 * cut) continue;  // sums of another order
        const double want = importance[i] >= cut ? other[i] : base[i];
        taken += importance[i] >= cut;
        cr_assert(std::abs(tensor.values[i] - want) <= unit::ulp(CHORUS_F32, want), "%s[%zu] is %g, not %g", name.c_str(), i, tensor.values[i], want);
      }
      cr_assert(taken > 0 && taken < base.size() / 4, "%s: %zu of %zu", name.c_str(), taken, base.size());
    }
  }
}

Test(nuslerp, vectors_along_each_dimension) {
  for (const bool first : {false, true}) {
    for (const bool with_base : {false, true}) {
      Bench bench(CHORUS_F32);
      for (const char *name : {"base", "x", "y"}) {
        Model model = name[0] == 'b' ? bench.model("a") : unit::fine_tune(bench.model("a"), static_cast<unsigned>(name[0]), 0.01);
        add_experts(&model, {3, 32, 20}, static_cast<unsigned>(name[0]), [](int64_t) { return 0.02; });
        bench.add(name, model);
      }
      const std::string recipe = std::string("{merge_method: nuslerp, models: [{model: '@x', parameters: {weight: 2}}, {model: '@y', parameters: {weight: 3}}]") +
                                 (with_base ? ", base_model: '@base'" : "") + ", parameters: {nuslerp_flatten: false, nuslerp_row_wise: " +
                                 (first ? "true" : "false") + "}}";
      const Model got = bench.merge(recipe, 2), small = bench.merge(recipe, 1, uint64_t{64} << 20);
      unit::expect_close(got, [&](const std::string &name) {
        const unit::Values &x = bench.model("x").at(name);
        cr_assert(got.at(name).values == small.at(name).values, "%s depends on memory or threads", name.c_str());
        Vector base = bench.model("base").at(name).values, a = x.values, b = bench.model("y").at(name).values;
        if (!with_base) std::ranges::fill(base, 0);
        Vector out = base;
        for (const auto &vector : vectors_along(x.shape, first ? 0 : x.shape.size() - 1)) {
          double aa = 0, bb = 0, ab = 0;
          for (const size_t i : vector) {
            aa += (a[i] - base[i]) * (a[i] - base[i]);
            bb += (b[i] - base[i]) * (b[i] - base[i]);
            ab += (a[i] - base[i]) * (b[i] - base[i]);
          }
          const double angle = std::acos(ab / std::sqrt(aa) / std::sqrt(bb)), sine = std::sin(angle);
          for (const size_t i : vector) {
            out[i] += std::sin(0.4 * angle) / sine * (a[i] - base[i]) + std::sin(0.6 * angle) / sine * (b[i] - base[i]);
          }
        }
        return out;
      }, 2, 1e-6);
    }
  }
}

// Ranks run along dimension 1: columns of very different sizes are thinned alike.
Test(della, ranks_of_experts_run_down_the_columns) {
  Bench bench(CHORUS_F32);
  Model base = bench.model("a"), tuned = unit::fine_tune(base, 7);
  add_experts(&base, {2, 600, 16}, 1, [](int64_t) { return 0.0; });
  add_experts(&tuned, {2, 600, 16}, 2, [](int64_t column) { return std::ldexp(1.0, static_cast<int>(column)); });
  bench.add("base", base);
  bench.add("x", tuned);
  const std::string recipe = R"({merge_method: della_linear, base_model: "@base", models: [{model: "@x"}], parameters: {weight: 1, density: 0.5, epsilon: 0.4, rescale: false}})";
  const Model got = bench.merge(recipe, 2), small = bench.merge(recipe, 1, uint64_t{64} << 20);
  const Vector &values = got.at(kExperts).values, &delta = bench.model("x").at(kExperts).values;
  cr_assert(values == small.at(kExperts).values, "depends on memory or threads");
  for (size_t column = 0; column < 16; ++column) {
    double large = 0, little = 0;
    for (size_t expert = 0; expert < 2; ++expert) {
      Vector sizes;
      for (size_t row = 0; row < 600; ++row) sizes.push_back(std::abs(delta[(expert * 600 + row) * 16 + column]));
      Vector sorted = sizes;
      std::ranges::sort(sorted);
      for (size_t row = 0; row < 600; ++row) {
        const size_t i = (expert * 600 + row) * 16 + column;
        cr_assert(values[i] == 0 || values[i] == delta[i]);
        (sizes[row] >= sorted[300] ? large : little) += values[i] != 0;
      }
    }
    cr_assert(std::abs(large / 600 - 0.7) < 0.1 && std::abs(little / 600 - 0.3) < 0.1, "column %zu keeps %g and %g", column, large / 600, little / 600);
  }
}

// Every step rounded to bf16, sums in f32, lambda as f32.
Test(mergekit_numerics, task_arithmetic_rounds_every_step) {
  Bench bench;
  add_fine_tunes(&bench);
  chorus::MergerSpec spec;
  spec.set_recipe(bench.recipe(R"({merge_method: task_arithmetic, base_model: "@a", models: [{model: "@x", parameters: {weight: 0.6}}, {model: "@y", parameters: {weight: 0.4}}], parameters: {lambda: 0.7}})"), "r");
  spec.set_output(bench / "out").set_numerics(CHORUS_NUMERICS_MERGEKIT);
  chorus::Merger(unit::context(2), spec).run();
  const Model got = unit::load(bench / "out");
  size_t off_by_accurate = 0;
  for (const auto &[name, tensor] : got) {
    const Vector &base = bench.model("a").at(name).values, &x = bench.model("x").at(name).values, &y = bench.model("y").at(name).values;
    for (size_t i = 0; i < base.size(); ++i) {
      const auto part = [&](double other, double weight) { return bf16(double{bf16(other - base[i])} * double{bf16(weight)}); };
      const float sum = bf16(part(x[i], 0.6) + part(y[i], 0.4));
      const float want = bf16(base[i] + double{bf16(sum * 0.7f)});
      cr_assert_eq(tensor.values[i], want, "%s[%zu] is %.9g, the chain gives %.9g", name.c_str(), i, tensor.values[i], double{want});
      off_by_accurate += want != bf16(base[i] + 0.7 * (0.6 * (x[i] - base[i]) + 0.4 * (y[i] - base[i])));
    }
  }
  cr_assert_gt(off_by_accurate, 0, "the chain is no other than accurate numerics here: the test says nothing");
}
