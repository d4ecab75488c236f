// SPDX-License-Identifier: Apache-2.0
// What a merge method is: parameters, what it takes, and a function from settings to a program of stages. No method
// touches elements; backends run the stages (docs/ops.md, "merge.reduce and merge.apply").
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "chorus/plugin.h"

namespace chorus::merge {

// ---- Parameters -------------------------------------------------------------------------------------------------

enum class ParameterType { kNumber, kInteger, kBoolean };

struct Parameter {
  const char *name;
  ParameterType type;
  bool per_model;  // one value for each input; else one for the tensor
  bool required;
  double fallback;          // unless required; kUnset: none
  double minimum, maximum;  // inclusive
  const char *doc;
};

// Fallback of a parameter that may be left out without any value taking its place.
extern const double kUnset;
bool is_unset(double value);

// "0 to 1", "at least 1", "any number".
std::string range_of(const Parameter &parameter);

// The values of all parameters of a method for one output tensor, per model where the parameter is.
class Settings {
 public:
  Settings(size_t n_inputs, bool has_base, std::vector<int64_t> shape)
      : n_inputs_(n_inputs), has_base_(has_base), shape_(std::move(shape)) {}
  void set(const std::string &name, std::vector<double> values) { values_[name] = std::move(values); }

  size_t n_inputs() const { return n_inputs_; }
  bool has_base() const { return has_base_; }
  const std::vector<int64_t> &shape() const { return shape_; }
  double number(const std::string &name) const { return values_.at(name)[0]; }
  bool flag(const std::string &name) const { return number(name) != 0; }
  const std::vector<double> &per_model(const std::string &name) const { return values_.at(name); }

 private:
  size_t n_inputs_;
  bool has_base_;
  std::vector<int64_t> shape_;
  std::map<std::string, std::vector<double>> values_;
};

// ---- Programs ---------------------------------------------------------------------------------------------------

// One pass over the inputs that gives a statistic.
struct Reduction {
  chorus_merge_operand operand = CHORUS_OPERAND_X;
  chorus_merge_statistic statistic = CHORUS_STATISTIC_GRAM;
  chorus_merge_predicate predicate = CHORUS_PREDICATE_ALL;
  chorus_merge_granularity granularity = CHORUS_PER_TENSOR;
};

// The stages of the last pass.
struct Stages {
  chorus_merge_operand operand = CHORUS_OPERAND_X;
  chorus_merge_granularity granularity = CHORUS_PER_TENSOR;
  chorus_merge_combine combine = CHORUS_MERGE_SUM;
  bool add_base = false;
};

// The numbers the stages run with.
struct Coefficients {
  std::vector<double> weights;  // of the inputs
  double lambda = 1;
};

// A Gram matrix in f64: <a_i, a_j> of the operands.
class Gram {
 public:
  Gram(size_t n, std::span<const double> upper) : n_(n), upper_(upper) {}
  size_t size() const { return n_; }
  double operator()(size_t i, size_t j) const {
    if (i > j) std::swap(i, j);
    return upper_[i * n_ - i * (i + 1) / 2 + j];
  }

 private:
  size_t n_;
  std::span<const double> upper_;
};

// A reduction, and the step on the host that turns what it gave into coefficients for what follows.
struct Pass {
  Reduction reduction;
  std::function<void(const Gram &, Coefficients *)> then;
};

struct Program {
  std::vector<Pass> passes;
  Stages stages;
  Coefficients coefficients;
};

// ---- Methods ----------------------------------------------------------------------------------------------------

// What becomes of `base_model`.
enum class BaseUse {
  kInput,       // one more input, added after the models unless it is among them
  kFirstInput,  // required, one of the models: it becomes input 0
  kRequired,    // the base of deltas; when it is among the models it is no input
  kOptional,    // the same where one is given
};

struct Method {
  const char *name;
  const char *summary;  // one line for `chorus merge --methods`
  BaseUse base;
  size_t min_inputs, max_inputs;  // a base of deltas not counted
  std::vector<Parameter> parameters;
  // Fails INVALID_ARGUMENT for settings that have no result (weights that sum to 0).
  Program (*program)(const Settings &settings);
};

// All methods, by name. Adding one: CONTRIBUTING.md.
std::span<const Method> methods();
// NULL when there is none of that name.
const Method *find_method(std::string_view name);
// A method of mergekit that this table lacks yet.
bool is_planned_method(std::string_view name);
// Any method's parameter of that name, this table's or not: inert in a recipe of another method.
bool is_known_parameter(std::string_view name);

}  // namespace chorus::merge
