// SPDX-License-Identifier: Apache-2.0
// Which tensor of which input becomes which tensor of the output: architectures are inferred from names, layers renumbered
// where slices stack them. Headers alone are read.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "checkpoint/model.h"
#include "merge/recipe/recipe.h"

namespace chorus::merge {

// A model of the recipe, opened.
struct InputModel {
  ModelReference reference;
  std::shared_ptr<const checkpoint::Model> model;  // NULL: absent, which only a weight of 0 allows
};

// Models merged with one another: all models of the recipe, or the sources of one slice.
struct Group {
  struct Member {
    const InputModel *input;
    const Source *source;  // NULL: a base that is not listed
    std::optional<LayerRange> layers;
  };
  std::vector<Member> members;   // the inputs of the method, in its order
  std::optional<Member> base;    // of deltas
  const Parameters *parameters = nullptr;  // of the slice
  Place place;

  // The model whose tensors and order the output takes.
  const Member &reference() const;
};

// One tensor of the output.
struct Placement {
  std::string name;
  const Group *group;
  double t;                                         // depth in [0, 1] within the layers of its group
  std::vector<std::string> input_names;             // what it is called in each member
  std::vector<const checkpoint::Tensor *> inputs;   // of each member; NULL: not there
  std::string base_name;
  const checkpoint::Tensor *base = nullptr;
};

// The name of a tensor around the number of its layer.
struct LayerName {
  std::string prefix, suffix;  // prefix + number + suffix is the name
  int64_t layer = -1;          // -1: no layer; the name is `prefix`
};
LayerName split_layer(const checkpoint::Tensor &tensor);

// Groups of a recipe. `inputs` holds one entry for each model the recipe names.
std::vector<Group> make_groups(const Recipe &recipe, const std::vector<InputModel> &inputs, Diagnostics *diagnostics);

// All tensors of the output in the order in which they are read and written. Layers that a slice asks for and a model lacks are errors.
std::vector<Placement> place_tensors(const std::vector<Group> &groups, bool has_slices, Diagnostics *diagnostics);

// Layers of the output: of the slices, or 0 for `models`.
int64_t output_layers(const std::vector<Group> &groups);

}  // namespace chorus::merge
