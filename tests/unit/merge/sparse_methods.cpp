// SPDX-License-Identifier: Apache-2.0
// Methods that trim, thin, weigh and elect, against plain code that sorts, and those through a Gram against their formulas.
#include <algorithm>
#include <numeric>

#include "unit/merge/support.h"

using unit::Bench;
using unit::Model;

namespace {

using Vector = std::vector<double>;

void add_base_and_fine_tunes(Bench *bench) {
  bench->add("base", bench->model("a"));
  unit::add_fine_tunes(bench);
}

std::vector<Vector> deltas(const Bench &bench, const std::string &name) {
  std::vector<Vector> out;
  const Vector &base = bench.model("base").at(name).values;
  for (const char *model : {"x", "y", "z"}) {
    out.push_back(bench.model(model).at(name).values);
    for (size_t i = 0; i < base.size(); ++i) out.back()[i] -= base[i];
  }
  return out;
}

// The elements in order of magnitude, largest first, equal ones by position.
std::vector<size_t> by_magnitude(const Vector &delta) {
  std::vector<size_t> order(delta.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return std::abs(static_cast<float>(delta[a])) > std::abs(static_cast<float>(delta[b]));
  });
  return order;
}

void keep_band(Vector *delta, size_t skip, size_t count) {
  const std::vector<size_t> order = by_magnitude(*delta);
  for (size_t i = 0; i < order.size(); ++i) {
    if (i < skip || i >= skip + count) (*delta)[order[i]] = 0;
  }
}

double magnitudes(const Vector &values) {
  double out = 0;
  for (const double value : values) out += std::abs(value);
  return out;
}

// base + lambda * (sum, or the mean over the weights, of what agrees with the elected sign).
Vector elect(const Vector &base, const std::vector<Vector> &delta, const Vector &weights, bool mean, double lambda = 1) {
  Vector out = base;
  for (size_t e = 0; e < base.size(); ++e) {
    double vote = 0, sum = 0, divisor = 0;
    for (size_t i = 0; i < delta.size(); ++i) vote += weights[i] * delta[i][e];
    for (size_t i = 0; i < delta.size(); ++i) {
      const double v = weights[i] * delta[i][e];
      if (vote >= 0 ? v <= 0 : v >= 0) continue;
      sum += v;
      divisor += weights[i];
    }
    out[e] += lambda * (mean ? sum / (divisor == 0 ? 1 : divisor) : sum);
  }
  return out;
}

const char *const kWeighted = R"(
base_model: "@base"
models:
  - {model: "@x", parameters: {weight: 0.5}}
  - {model: "@y", parameters: {weight: 0.3}}
  - {model: "@z", parameters: {weight: 0.4}}
)";
const Vector kWeights = {0.5, 0.3, 0.4};

double dot(const Vector &a, const Vector &b) { return std::inner_product(a.begin(), a.end(), b.begin(), 0.0); }

}  // namespace

Test(sparse, ties) {
  for (const bool rescale : {false, true}) {
    for (const bool normalize : {false, true}) {
      Bench bench;
      add_base_and_fine_tunes(&bench);
      const Model got = bench.merge(std::string(kWeighted) + "merge_method: ties\nout_dtype: float32\nparameters: {density: 0.3, lambda: 0.8, rescale: " +
                                    (rescale ? "true" : "false") + ", normalize: " + (normalize ? "true" : "false") + "}\n", 2);
      unit::expect_close(got, [&](const std::string &name) {
        std::vector<Vector> delta = deltas(bench, name);
        for (Vector &one : delta) {
          const double before = magnitudes(one);
          keep_band(&one, 0, std::max<size_t>(1, static_cast<size_t>(0.3 * static_cast<double>(one.size()))));
          const double factor = rescale ? before / magnitudes(one) : 1;
          for (double &value : one) value *= factor;
        }
        return elect(bench.model("base").at(name).values, delta, kWeights, normalize, 0.8);
      }, 1);
    }
  }
}

Test(sparse, breadcrumbs) {
  Bench bench;
  add_base_and_fine_tunes(&bench);
  const std::string settings = "out_dtype: float32\nparameters: {density: 0.6, gamma: 0.1}\n";
  const auto trimmed = [&](const std::string &name) {
    std::vector<Vector> delta = deltas(bench, name);
    for (Vector &one : delta) {
      const auto n = static_cast<double>(one.size());
      keep_band(&one, static_cast<size_t>(0.1 * n), static_cast<size_t>(0.6 * n));
    }
    return delta;
  };
  unit::expect_close(bench.merge(std::string(kWeighted) + "merge_method: breadcrumbs\n" + settings), [&](const std::string &name) {
    Vector out = bench.model("base").at(name).values;
    const std::vector<Vector> delta = trimmed(name);
    for (size_t i = 0; i < 3; ++i) {
      for (size_t e = 0; e < out.size(); ++e) out[e] += kWeights[i] * delta[i][e];
    }
    return out;
  }, 1);
  unit::expect_close(bench.merge(std::string(kWeighted) + "merge_method: breadcrumbs_ties\n" + settings), [&](const std::string &name) {
    return elect(bench.model("base").at(name).values, trimmed(name), kWeights, false);
  }, 1);
}

Test(sparse, ram) {
  Bench bench;
  add_base_and_fine_tunes(&bench);
  const double epsilon = 0.0008;
  unit::expect_close(
      bench.merge(R"({merge_method: ram, base_model: "@base", models: [{model: "@x"}, {model: "@y"}, {model: "@z"}], out_dtype: float32, parameters: {epsilon: 0.0008}})"),
      [&](const std::string &name) {
        Vector out = bench.model("base").at(name).values;
        const std::vector<Vector> delta = deltas(bench, name);
        for (size_t e = 0; e < out.size(); ++e) {
          double sum = 0;
          int count = 0;
          for (const Vector &one : delta) {
            if (static_cast<float>(std::abs(one[e])) <= static_cast<float>(epsilon)) continue;
            sum += one[e];
            ++count;
          }
          out[e] += count == 0 ? 0 : sum / count;
        }
        return out;
      }, 1);
}

Test(sparse, sce) {
  Bench bench;
  add_base_and_fine_tunes(&bench);
  const Model got = bench.merge(R"({merge_method: sce, base_model: "@base", models: [{model: "@x"}, {model: "@y"}, {model: "@z"}], out_dtype: float32, parameters: {select_topk: 0.5}})");
  unit::expect_close(got, [&](const std::string &name) {
    std::vector<Vector> delta = deltas(bench, name);
    Vector variance(delta[0].size());
    size_t varying = 0;
    for (size_t e = 0; e < variance.size(); ++e) {
      const double mean = (delta[0][e] + delta[1][e] + delta[2][e]) / 3;
      for (const Vector &one : delta) variance[e] += (one[e] - mean) * (one[e] - mean) / 3;
      varying += variance[e] > 0;
    }
    const std::vector<size_t> order = by_magnitude(variance);
    Vector weights;
    for (size_t i = varying / 2; i < order.size(); ++i) {
      for (Vector &one : delta) one[order[i]] = 0;
    }
    double total = 0;
    for (const Vector &one : delta) total += dot(one, one) / static_cast<double>(one.size());
    Vector out = bench.model("base").at(name).values;
    for (size_t e = 0; e < out.size(); ++e) {
      double vote = 0, sum = 0, divisor = 0;
      for (const Vector &one : delta) vote += one[e];
      for (const Vector &one : delta) {
        if (vote >= 0 ? one[e] <= 0 : one[e] >= 0) continue;
        const double w = total < 1e-6 ? 1.0 / 3 : dot(one, one) / static_cast<double>(one.size()) / total;
        sum += w * one[e];
        divisor += w;
      }
      out[e] += sum / std::max(divisor, 1e-6);
    }
    return out;
  }, 1, 1e-7);
}

// Every kept element is the rescaled delta, every other the base; about the share asked for is kept.
Test(sparse, dare_and_della_keep_the_share_and_repeat) {
  for (const char *method : {"dare_linear", "della_linear"}) {
    Bench bench;
    add_base_and_fine_tunes(&bench);
    const std::string recipe = std::string("{merge_method: ") + method +
                               R"(, base_model: "@base", models: [{model: "@x"}], out_dtype: float32, parameters: {weight: 1, density: 0.4}})";
    const Model got = bench.merge(recipe), again = bench.merge(recipe, 2, uint64_t{64} << 20);
    for (const auto &[name, tensor] : got) {
      cr_assert(tensor.values == again.at(name).values, "%s: %s differs between runs", method, name.c_str());
      if (tensor.values.size() < 4096) continue;
      const Vector delta = deltas(bench, name)[0], &base = bench.model("base").at(name).values;
      double kept = 0, changed = 0, sum = 0;
      for (size_t e = 0; e < delta.size(); ++e) {
        if (delta[e] == 0) continue;
        ++changed;
        if (std::abs(tensor.values[e] - base[e]) <= 1e-9) continue;
        ++kept;
        sum += std::abs(delta[e]);
      }
      const double factor = magnitudes(delta) / sum;
      for (size_t e = 0; e < delta.size(); ++e) {
        const double is = tensor.values[e] - base[e];
        cr_assert(std::abs(is) <= 1e-9 || std::abs(is - factor * delta[e]) <= 1e-6 * std::abs(base[e]) + 1e-8, "%s: %s[%zu]", method, name.c_str(), e);
      }
      cr_assert(std::abs(kept / changed - 0.4) < 0.06, "%s: %s keeps %g", method, name.c_str(), kept / changed);
    }
  }
}

Test(sparse, full_density_is_task_arithmetic) {
  Bench bench;
  add_base_and_fine_tunes(&bench);
  const Model want = bench.merge(std::string(kWeighted) + "merge_method: task_arithmetic\n");
  for (const char *method : {"dare_linear", "della_linear", "breadcrumbs"}) {
    const Model got = bench.merge(std::string(kWeighted) + "merge_method: " + method + "\n");
    for (const auto &[name, tensor] : got) cr_assert(tensor.values == want.at(name).values, "%s: %s", method, name.c_str());
  }
}

Test(gram, model_stock) {
  for (const bool by_row : {false, true}) {
    Bench bench;
    add_base_and_fine_tunes(&bench);
    const Model got = bench.merge(std::string(R"({merge_method: model_stock, base_model: "@base", models: [{model: "@x"}, {model: "@y"}, {model: "@z"}], out_dtype: float32, parameters: {filter_wise: )") +
                                  (by_row ? "true}}" : "false}}"), 2);
    unit::expect_close(got, [&](const std::string &name) {
      const std::vector<Vector> delta = deltas(bench, name);
      Vector out = bench.model("base").at(name).values;
      const size_t columns = by_row ? static_cast<size_t>(got.at(name).shape.back()) : out.size();
      for (size_t row = 0; row < out.size(); row += columns) {
        std::vector<Vector> part;
        for (const Vector &one : delta) part.emplace_back(one.begin() + static_cast<ptrdiff_t>(row), one.begin() + static_cast<ptrdiff_t>(row + columns));
        double cosine = 0;
        for (const auto &[i, j] : {std::pair(0, 1), std::pair(0, 2), std::pair(1, 2)}) {
          cosine += dot(part[i], part[j]) / std::max(std::sqrt(dot(part[i], part[i]) * dot(part[j], part[j])), 1e-6) / 3;
        }
        const double t = 3 * cosine / (1 + 2 * cosine);
        for (size_t e = 0; e < columns; ++e) out[row + e] += t * (part[0][e] + part[1][e] + part[2][e]) / 3;
      }
      return out;
    }, 2, 1e-6);
  }
}

// Two models of weights 1, 1: all means on the sphere are slerp at 1/2, up to what they do with the norms.
Test(gram, means_of_two_directions_agree) {
  const Bench bench;
  const std::string models = R"(models: [{model: "@a"}, {model: "@b"}], out_dtype: float32)";
  const Model nuslerp = bench.merge("{merge_method: nuslerp, " + models + ", parameters: {weight: 1}}");
  const Model slerp = bench.merge(R"({merge_method: slerp, base_model: "@a", )" + models + ", parameters: {t: 0.5}}");
  const Model karcher = bench.merge("{merge_method: karcher, " + models + "}");
  const Model multislerp = bench.merge("{merge_method: multislerp, " + models + ", parameters: {weight: 1}}");
  for (const auto &[name, tensor] : slerp) {
    const Vector &a = bench.model("a").at(name).values, &b = bench.model("b").at(name).values;
    const double na = std::sqrt(dot(a, a)), nb = std::sqrt(dot(b, b));
    Vector mean;
    for (size_t i = 0; i < a.size(); ++i) mean.push_back(a[i] / na + b[i] / nb);
    const double scale = (na + nb) / 2 / std::sqrt(dot(mean, mean));
    for (size_t i = 0; i < a.size(); ++i) {
      cr_assert(std::abs(nuslerp.at(name).values[i] - tensor.values[i]) <= 1e-8, "nuslerp: %s[%zu]", name.c_str(), i);
      cr_assert(std::abs(karcher.at(name).values[i] - scale * mean[i]) <= 1e-8, "karcher: %s[%zu]", name.c_str(), i);
      cr_assert(std::abs(multislerp.at(name).values[i] - scale * mean[i]) <= 1e-8, "multislerp: %s[%zu]", name.c_str(), i);
    }
  }
}
