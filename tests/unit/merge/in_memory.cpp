// SPDX-License-Identifier: Apache-2.0
// Merging tensors in memory: every method gives the bytes of the streamed merge of the same tensors.
#include <cstring>

#include "unit/merge/support.h"

using unit::Bench;

namespace {

constexpr int64_t kRows = 70, kColumns = 129;  // no multiple of a block or vector

struct Method {
  std::string name;
  bool needs_base, has_weight = false;
  int32_t min_models = 0;
  std::string recipe_parameters;  // of the whole recipe
  std::vector<std::pair<std::string, double>> parameters;
};

// Values for what a method requires; the defaults for the rest.
Method method_at(size_t index) {
  chorus_merge_method_info info = CHORUS_MERGE_METHOD_INFO_INIT;
  cr_assert_eq(chorus_merge_get_method(index, &info, nullptr), CHORUS_OK);
  Method out{info.name, info.needs_base != 0, false, info.min_models, "", {}};
  for (size_t i = 0; i < info.parameter_count; ++i) {
    chorus_merge_parameter_info parameter = CHORUS_MERGE_PARAMETER_INFO_INIT;
    cr_assert_eq(chorus_merge_get_parameter(index, i, &parameter, nullptr), CHORUS_OK);
    const std::string name = parameter.name;
    if (name == "weight") {
      out.has_weight = true;
      continue;
    }
    const double value = name == "density" ? 0.4 : name == "gamma" ? 0.05 : name == "epsilon" && info.name[0] == 'd' ? 0.1 : 0.3;
    if (parameter.is_required == 0 && name != "density" && name != "gamma") continue;
    out.parameters.emplace_back(name, value);
    out.recipe_parameters += (out.recipe_parameters.empty() ? "" : ", ") + name + ": " + std::to_string(value);
  }
  return out;
}

unit::Model one_tensor(unsigned seed, const unit::Model *base) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal(0, base == nullptr ? 0.02 : 0.002);
  unit::Values values{CHORUS_BF16, {kRows, kColumns}, {}};
  for (int64_t i = 0; i < kRows * kColumns; ++i) {
    values.values.push_back(normal(random) + (base != nullptr ? base->at("w.weight").values[static_cast<size_t>(i)] : 0));
  }
  return {{"w.weight", values}};
}

struct Data {
  std::vector<uint16_t> bits;
  chorus::Tensor tensor;
  explicit Data(const std::string &folder) : bits(kRows * kColumns), tensor(static_cast<void *>(bits.data()), CHORUS_BF16, {kRows, kColumns}) {
    const chorus::Checkpoint checkpoint(unit::context(), folder);
    checkpoint.read_bytes(0, 0, bits.size() * 2, bits.data());
  }
  Data(const Data &) = delete;
};

class Fixture {
 public:
  Fixture() : bench_(CHORUS_F32) {
    const unit::Model base = one_tensor(1, nullptr);
    bench_.add("base", base);
    for (unsigned i = 0; i < 3; ++i) bench_.add("m" + std::to_string(i), one_tensor(i + 2, &base));
  }
  std::vector<uint16_t> streamed(const Method &method, size_t count, bool with_base) const {
    std::string models;
    for (size_t i = 0; i < count; ++i) {
      models += "{model: '@m" + std::to_string(i) + "'" + (method.has_weight ? ", parameters: {weight: " + weight(i) + "}" : "") + "}, ";
    }
    if (method.name == "slerp" || method.name == "nearswap" || method.name == "arcee_fusion") models = "{model: '@base'}, " + models;
    const std::string text = "{merge_method: " + method.name + (with_base ? ", base_model: '@base'" : "") + ", models: [" + models +
                             "], dtype: bfloat16, parameters: {" + method.recipe_parameters + "}}";
    bench_.merge(text, 2);
    return Data(bench_ / "out").bits;
  }
  static std::string weight(size_t i) { return i == 0 ? "0.6" : i == 1 ? "0.5" : "0.4"; }
  std::string operator/(const std::string &name) const { return bench_ / name; }

 private:
  Bench bench_;
};

chorus::Merger merger_of(const Method &method, size_t count, int threads) {
  chorus::MergerSpec spec;
  spec.set_method(method.name);
  for (const auto &[name, value] : method.parameters) spec.set_parameter(name, value);
  for (size_t i = 0; method.has_weight && i < count; ++i) spec.set_model_parameter(i, "weight", std::stod(Fixture::weight(i)));
  return chorus::Merger(unit::context(threads), spec);
}

}  // namespace

Test(in_memory, every_method_gives_the_bytes_of_the_streamed_merge) {
  const Fixture files;
  const Data base(files / "base"), m0(files / "m0"), m1(files / "m1"), m2(files / "m2");
  size_t tried = 0;
  for (size_t i = 0; i < chorus_merge_method_count(); ++i) {
    const Method method = method_at(i);
    if (method.name == "custom") continue;  // its stages are words, which only a recipe can say
    const bool two = method.name == "slerp" || method.name == "nearswap" || method.name == "arcee_fusion" || method.name == "passthrough";
    const size_t count = two ? 1 : method.name == "nuslerp" ? 2 : 3;
    const bool with_base = method.name != "linear" && method.name != "karcher" && method.name != "passthrough" && method.name != "multislerp";
    const std::vector<uint16_t> want = files.streamed(method, count, with_base);
    std::vector<const chorus_tensor *> models = {m0.tensor.get(), m1.tensor.get(), m2.tensor.get()};
    models.resize(count);
    for (const int threads : {1, 3}) {
      Data out(files / "base");
      const chorus::Merger merger = merger_of(method, count, threads);
      merger.merge_tensors("w.weight", models, with_base ? base.tensor.get() : nullptr, *out.tensor.get());
      cr_assert(out.bits == want, "%s, %d threads", method.name.c_str(), threads);
    }
    ++tried;
  }
  cr_assert(tried >= 18, "%zu methods", tried);
}

Test(in_memory, task_vectors_need_no_base) {
  const float a[4] = {1, -2, 3, 0}, b[4] = {2, 2, -1, 4};
  float out[4] = {};
  const chorus::Tensor ta(a, {4}), tb(b, {4}), to(out, {4});
  chorus::MergerSpec spec;
  spec.set_method("task_arithmetic").set_parameter("weight", 0.5).set_model_parameter(1, "weight", 0.25);
  const chorus::Merger merger(unit::context(), spec);
  merger.merge_tensors("w", {ta.get(), tb.get()}, nullptr, *to.get());
  cr_assert(out[0] == 1 && out[1] == -0.5f && out[2] == 1.25f && out[3] == 1);
}

Test(in_memory, in_place_and_with_a_workspace) {
  std::vector<float> a(5000, 1.0f), b(5000, 3.0f);
  const chorus::Tensor ta(a.data(), {5000}), tb(b.data(), {5000});
  chorus::MergerSpec spec;
  spec.set_method("linear").set_parameter("weight", 1);
  const chorus::Merger merger(unit::context(2), spec);
  const uint64_t bytes = merger.workspace_size({ta.get(), tb.get()}, nullptr, *ta.get());
  void *memory = aligned_alloc(64, (bytes + 63) / 64 * 64);
  chorus_exec exec = CHORUS_EXEC_INIT;
  exec.workspace = memory;
  exec.workspace_bytes = bytes;
  merger.merge_tensors("w", {ta.get(), tb.get()}, nullptr, *ta.get(), &exec);
  cr_assert(a == std::vector<float>(5000, 2.0f));
  exec.workspace_bytes = bytes - 1;
  unit::Outcome outcome;
  const chorus_tensor *const models[2] = {ta.get(), tb.get()};
  cr_assert_eq(chorus_merger_merge_tensors(merger.get(), "w", models, 2, nullptr, ta.get(), &exec, outcome.slot()), CHORUS_FAILED_PRECONDITION);
  cr_assert(unit::contains(outcome.text(), std::to_string(bytes)), "%s", outcome.text().c_str());
  free(memory);
}

Test(in_memory, wrong_arguments_are_named) {
  float a[8] = {}, out[4] = {};
  const chorus::Tensor ta(a, {4}), shifted(a + 1, {4}), shorter(a, {3}), to(out, {4});
  const auto made = [](const chorus::MergerSpec &spec) {
    try {
      chorus::Merger(unit::context(), spec);
    } catch (const chorus::Error &error) {
      return std::string(error.text());
    }
    return std::string();
  };
  chorus::MergerSpec unknown, parameter, range, both, alone, good;
  cr_expect(unit::contains(made(unknown.set_method("tiess")), "'ties'"), "%s", made(unknown).c_str());
  cr_expect(unit::contains(made(parameter.set_method("ties").set_parameter("densty", 1)), "'density'"));
  cr_expect(unit::contains(made(range.set_method("ties").set_parameter("density", 2)), "density is 2"));
  cr_expect(unit::contains(made(both.set_method("ties").set_recipe("x")), "both a recipe and a method"));
  cr_expect(unit::contains(made(alone.set_parameter("t", 1)), "without a method"));
  const chorus::Merger merger(unit::context(), good.set_method("linear"));
  const auto merged = [&](const std::vector<const chorus_tensor *> &models, const chorus_tensor &to_where) {
    try {
      merger.merge_tensors("w", models, nullptr, to_where);
    } catch (const chorus::Error &error) {
      return std::string(error.text());
    }
    return std::string();
  };
  cr_expect(unit::contains(merged({ta.get()}, *to.get()), "needs 'weight' of model 0"), "%s", merged({ta.get()}, *to.get()).c_str());
  cr_expect(unit::contains(merged({}, *to.get()), "count is 0"));
  chorus::MergerSpec weighted;
  const chorus::Merger linear(unit::context(), weighted.set_method("linear").set_parameter("weight", 1));
  unit::Outcome shape_error, overlap_error, plan_error;
  const chorus_tensor *const wrong[2] = {ta.get(), shorter.get()}, *const right[1] = {ta.get()};
  cr_expect_eq(chorus_merger_merge_tensors(linear.get(), "w", wrong, 2, nullptr, to.get(), nullptr, shape_error.slot()), CHORUS_INVALID_ARGUMENT);
  cr_expect(unit::contains(shape_error.text(), "models[1]"), "%s", shape_error.text().c_str());
  cr_expect_eq(chorus_merger_merge_tensors(linear.get(), "w", right, 1, nullptr, shifted.get(), nullptr, overlap_error.slot()), CHORUS_INVALID_ARGUMENT);
  cr_expect(unit::contains(overlap_error.text(), "overlap"), "%s", overlap_error.text().c_str());
  cr_expect_eq(chorus_merger_run(linear.get(), nullptr, nullptr, plan_error.slot()), CHORUS_FAILED_PRECONDITION);
  cr_expect_str_eq(chorus_merger_get_plan_text(linear.get()), "");
}
