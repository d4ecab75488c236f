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
#include "merge/methods/rounding.h"

namespace chorus::merge {

// ---- Parameters -------------------------------------------------------------------------------------------------

enum class ParameterType { kNumber, kInteger, kBoolean, kWord };

struct Parameter {
  const char *name;
  ParameterType type;
  bool per_model;  // one value for each input; else one for the tensor
  bool required;
  double fallback;          // unless required; kUnset: none
  double minimum, maximum;  // inclusive
  const char *doc;
  std::vector<const char *> words = {};  // kWord: the value is an index into them
};

// Fallback of a parameter that may be left out without any value taking its place.
extern const double kUnset;
bool is_unset(double value);

// "0 to 1", "at least 1", "any number".
std::string range_of(const Parameter &parameter);

// The values of all parameters of a method for one output tensor, per model where the parameter is.
class Settings {
 public:
  Settings(size_t n_inputs, bool has_base, std::vector<int64_t> shape, std::string tensor, uint64_t seed)
      : n_inputs_(n_inputs), has_base_(has_base), shape_(std::move(shape)), tensor_(std::move(tensor)), seed_(seed) {}
  void set(const std::string &name, std::vector<double> values) { values_[name] = std::move(values); }
  // NUMERICS_MERGEKIT: the rounding of every step. Without it, none.
  void set_rounding(Rounding rounding) { rounding_ = rounding; }

  size_t n_inputs() const { return n_inputs_; }
  bool has_base() const { return has_base_; }
  const std::vector<int64_t> &shape() const { return shape_; }
  double number(const std::string &name) const { return values_.at(name)[0]; }
  bool flag(const std::string &name) const { return number(name) != 0; }
  const std::vector<double> &per_model(const std::string &name) const { return values_.at(name); }
  uint64_t elements() const;
  const Rounding &rounding() const { return rounding_; }
  // Keys of the random numbers of each input: of seed, place among the inputs, and the tensor's name.
  std::vector<uint64_t> keys() const;

 private:
  size_t n_inputs_;
  bool has_base_;
  std::vector<int64_t> shape_;
  std::string tensor_;
  uint64_t seed_;
  Rounding rounding_;
  std::map<std::string, std::vector<double>> values_;
};

// ---- Programs ---------------------------------------------------------------------------------------------------

// One pass over the inputs that gives a statistic.
struct Reduction {
  chorus_merge_operand operand = CHORUS_OPERAND_X;
  chorus_merge_statistic statistic = CHORUS_STATISTIC_GRAM;
  chorus_merge_predicate predicate = CHORUS_PREDICATE_ALL;
  chorus_merge_granularity granularity = CHORUS_PER_TENSOR;
  chorus_merge_sparsify sparsify = CHORUS_SPARSIFY_NONE;  // what KEPT asks, and TIE of a statistic
  chorus_merge_cut_statistic cut_statistic = CHORUS_CUT_VARIANCE;
  double epsilon = 0;
  size_t cut = 0;  // PREFIX and TIE: which of Coefficients::selections they serve
};

// The stages of the last pass.
struct Stages {
  chorus_merge_operand operand = CHORUS_OPERAND_X;
  chorus_merge_granularity granularity = CHORUS_PER_TENSOR;
  chorus_merge_sparsify sparsify = CHORUS_SPARSIFY_NONE;
  chorus_merge_cut_statistic cut_statistic = CHORUS_CUT_VARIANCE;
  chorus_merge_rescale rescale = CHORUS_RESCALE_NONE;
  chorus_merge_consensus consensus = CHORUS_CONSENSUS_NONE;
  chorus_merge_combine combine = CHORUS_MERGE_SUM;
  double divisor_floor = 0;
  bool add_base = false;
};

// An exact selection of the largest elements of each input, found pass by pass.
struct Selection {
  std::vector<uint64_t> wanted;                // elements still to be taken at or below what is known of the cut
  std::vector<uint32_t> prefixes;              // upper 16 bits of the cut's key
  std::vector<double> cuts;                    // infinite: nothing is above
  std::vector<std::vector<uint64_t>> ties;     // [piece][input]: of the elements equal to the cut, how many are above it
};

// The numbers the stages run with.
struct Coefficients {
  std::vector<double> weights;  // of the inputs; 0: not read. After a Gram per row: one such vector for each row
  double lambda = 1;
  std::vector<Selection> selections;  // one; of a band the lower and the upper
  std::vector<double> cuts;           // of magnitudes without ties, where there is no selection
  std::vector<double> densities, epsilons, rescales, unique_scales;
  std::vector<uint64_t> keys;
  std::vector<double> scalars;      // of the tensor, for an element function
  std::vector<double> row_softmax;  // of each row, as ROW_SOFTMAX gives it
  std::vector<double> cut_scales;   // of each row: of each input
};

// What a pass gave for the whole tensor (or row).
struct Statistic {
  size_t n = 0;                    // operands
  uint64_t elements = 0;           // of the tensor
  std::vector<double> sums;        // GRAM: upper triangle row by row; SUM: one for each input; ROW_*: of all rows
  std::vector<uint64_t> counts;    // HISTOGRAM: [n][65536]; COUNT: [n][n]
  std::vector<std::vector<uint64_t>> piece_counts;  // COUNT of TIE, piece by piece

  // <a_i, a_j> of a GRAM.
  double gram(size_t i, size_t j) const {
    if (i > j) std::swap(i, j);
    return sums[i * n - i * (i + 1) / 2 + j];
  }
};

// A reduction, and the step on the host that turns what it gave into coefficients for what follows.
struct Pass {
  Reduction reduction;
  std::function<void(const Statistic &, Coefficients *)> then;
};

// Some elements of one row (or tensor), for a function of the elements at one place.
struct ElementBlock {
  std::span<const double *const> inputs;  // NULL where it is not read
  const double *base;                     // NULL without one
  const double *weights;                  // Coefficients::weights of the row at hand
  const Coefficients &coefficients;
  size_t count;
  double *out;
};

struct Program {
  std::vector<Pass> passes;
  Stages stages;
  Coefficients coefficients;
  // What the stages cannot say, instead of them: runs on the host, in scalar code. The plan names it.
  std::function<void(const ElementBlock &)> element;
  // The dimension along which rows run, where granularity is per row; -1: the last.
  int row_axis = -1;
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
// Any method's parameter of that name, this table's or not: inert in a recipe of another method.
bool is_known_parameter(std::string_view name);

}  // namespace chorus::merge
