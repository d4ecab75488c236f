// SPDX-License-Identifier: Apache-2.0
// Which tensor of which input becomes which tensor of the output: architectures are inferred from names, layers renumbered
// where slices stack them. Headers alone are read.
#pragma once
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "checkpoint/model.h"
#include "merge/module.h"
#include "merge/recipe/recipe.h"
#include "merge/tensor_view.h"

namespace chorus::merge {

// A model of the recipe, opened.
struct InputModel {
  ModelReference reference;
  std::shared_ptr<const checkpoint::Model> model;  // NULL: absent, which only a weight of 0 allows
  std::shared_ptr<const checkpoint::Model> adapter;  // of a reference with one
  // Tensors that are not as the file has them, by name: they stand in its place, or beside the others.
  std::map<std::string, std::shared_ptr<const TensorView>, std::less<>> views;

  // NULL when there is none of that name.
  const checkpoint::Tensor *find(std::string_view name) const;
  // All of them, views in the place of what they replace, those that are new at the end.
  std::vector<const checkpoint::Tensor *> tensors() const;
  // The view that `tensor` is of; NULL for what files hold.
  std::shared_ptr<const TensorView> view_of(const checkpoint::Tensor &tensor) const;
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
  const Parameters *parameters = nullptr;         // of the slice
  const Parameters *module_parameters = nullptr;  // of the module around it
  std::string module;                             // "": all tensors
  std::vector<std::string> modules;               // that the models have
  bool is_slice = false;
  Place place;

  // The model whose tensors and order the output takes.
  const Member &reference() const;
  bool takes(const checkpoint::Tensor &tensor) const { return is_in_module(tensor.name, module, modules); }
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
std::vector<Placement> place_tensors(const std::vector<Group> &groups, Diagnostics *diagnostics);

// Layers that the slices among `groups` give together.
int64_t output_layers(const std::vector<Group> &groups);

}  // namespace chorus::merge
