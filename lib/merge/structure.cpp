// SPDX-License-Identifier: Apache-2.0
// Groups, layers and names.
#include "merge/structure.h"

#include <algorithm>
#include <map>
#include <set>
#include <unordered_set>

namespace chorus::merge {
namespace {

using checkpoint::Tensor;

const InputModel *find_input(const std::vector<InputModel> &inputs, const ModelReference &reference) {
  const auto found = std::ranges::find_if(inputs, [&](const InputModel &input) { return input.reference == reference; });
  return &*found;
}

Group make_group(const Recipe &recipe, const std::vector<Source> &sources, const std::optional<ModelReference> &base, Place place,
                 const std::vector<InputModel> &inputs, Diagnostics *diagnostics) {
  Group group;
  group.place = place;
  const Method &method = *recipe.method;
  const bool deltas = method.base == BaseUse::kRequired || method.base == BaseUse::kOptional;
  for (const Source &source : sources) {
    const Group::Member member{find_input(inputs, source.model), &source, source.layers};
    if (!base || !(source.model == *base) || method.base == BaseUse::kInput) {
      group.members.push_back(member);
    } else if (deltas) {
      group.base = member;
    } else {
      group.members.insert(group.members.begin(), member);
    }
  }
  if (!base) return group;
  const bool listed = std::ranges::any_of(sources, [&](const Source &source) { return source.model == *base; });
  if (listed) return group;
  const Group::Member unlisted{find_input(inputs, *base), nullptr, std::nullopt};
  if (deltas) group.base = unlisted;
  if (method.base == BaseUse::kInput) group.members.push_back(unlisted);
  if (!recipe.slices.empty()) {
    diagnostics->error(place, "base_model '{}' is no source of this slice; list it with its layer_range", base->text());
  }
  return group;
}

// Whether a tensor without a layer comes behind the layers: it is of the last slice then.
bool is_post(const Tensor &tensor) {
  if (tensor.role.kind == CHORUS_TENSOR_KIND_HEAD) return true;
  return tensor.role.kind == CHORUS_TENSOR_KIND_NORM && tensor.name.find("embed") == std::string::npos;
}

// Layers below each prefix of a model.
std::map<std::string, int64_t> layer_counts(const checkpoint::Model &model) {
  std::map<std::string, int64_t> counts;
  for (const Tensor &tensor : model.tensors()) {
    const LayerName name = split_layer(tensor);
    if (name.layer < 0) continue;
    int64_t &count = counts[name.prefix];
    count = std::max(count, name.layer + 1);
  }
  return counts;
}

// mergekit's depth: i / (L - 1), and 1 for a single layer.
double depth(int64_t layer, int64_t layers) {
  return layers <= 1 ? 1.0 : static_cast<double>(layer) / static_cast<double>(layers - 1);
}

const Tensor *find(const Group::Member &member, const std::string &name) {
  return member.input->model != nullptr ? member.input->model->find(name) : nullptr;
}

// The placement of a tensor called `name` in the output, layer `layer` of its slice (-1: none of a layer).
Placement place(const Group &group, std::string name, const LayerName &parts, int64_t layer, double t) {
  Placement out{std::move(name), &group, t, {}, {}, "", nullptr};
  const auto name_in = [&](const Group::Member &member) {
    if (layer < 0) return out.name;
    const int64_t first = member.layers ? member.layers->begin : 0;
    return parts.prefix + std::to_string(first + layer) + parts.suffix;
  };
  for (const Group::Member &member : group.members) {
    out.input_names.push_back(name_in(member));
    out.inputs.push_back(find(member, out.input_names.back()));
  }
  if (group.base) {
    out.base_name = name_in(*group.base);
    out.base = find(*group.base, out.base_name);
  }
  return out;
}

// All models of a group, the reference first.
std::vector<const Group::Member *> all_members(const Group &group) {
  std::vector<const Group::Member *> out = {&group.reference()};
  const auto add = [&](const Group::Member &member) {
    if (member.input->model != nullptr && member.input != out[0]->input) out.push_back(&member);
  };
  if (group.base) add(*group.base);
  for (const Group::Member &member : group.members) add(member);
  return out;
}

// `models`: every tensor under its own name.
std::vector<Placement> place_whole(const Group &group) {
  std::vector<Placement> out;
  std::unordered_set<std::string> seen;
  for (const Group::Member *member : all_members(group)) {
    const std::map<std::string, int64_t> counts = layer_counts(*member->input->model);
    for (const Tensor &tensor : member->input->model->tensors()) {
      if (!seen.insert(tensor.name).second) continue;
      const LayerName parts = split_layer(tensor);
      const double t = parts.layer < 0 ? 0.0 : depth(parts.layer, counts.at(parts.prefix));
      out.push_back(place(group, tensor.name, {tensor.name, "", -1}, -1, t));
    }
  }
  return out;
}

// Tensors of a group's models outside the layers, `post` those behind them.
void place_outside(const Group &group, bool post, std::vector<Placement> *out) {
  std::unordered_set<std::string> seen;
  for (const Group::Member *member : all_members(group)) {
    for (const Tensor &tensor : member->input->model->tensors()) {
      if (split_layer(tensor).layer >= 0 || is_post(tensor) != post || !seen.insert(tensor.name).second) continue;
      out->push_back(place(group, tensor.name, {tensor.name, "", -1}, -1, 0.0));
    }
  }
}

bool has_layers(const Group &group, Diagnostics *diagnostics) {
  bool ok = true;
  const auto check = [&](const Group::Member &member) {
    if (member.input->model == nullptr || !member.layers) return;
    const auto counts = layer_counts(*member.input->model);
    const Place place = member.source != nullptr ? member.source->model.place : group.place;
    if (counts.size() > 1) {
      diagnostics->unimplemented(place, "slices of '{}', which has layers below {} prefixes ('{}', '{}', …), are not implemented yet",
                                 member.input->reference.text(), counts.size(), counts.begin()->first, std::next(counts.begin())->first);
      ok = false;
    } else if (counts.empty() || member.layers->end > counts.begin()->second) {
      diagnostics->error(place, "layer_range is [{}, {}]; '{}' has {} layers", member.layers->begin, member.layers->end,
                         member.input->reference.text(), counts.empty() ? 0 : counts.begin()->second);
      ok = false;
    }
  };
  for (const Group::Member &member : group.members) check(member);
  if (group.base) check(*group.base);
  return ok;
}

// The layers of one slice, which follow `first` layers before it.
void place_layers(const Group &group, int64_t first, int64_t layers, std::vector<Placement> *out) {
  const Group::Member &reference = group.reference();
  const int64_t begin = reference.layers->begin;
  std::vector<std::vector<std::pair<LayerName, const Tensor *>>> by_layer(static_cast<size_t>(layers));
  for (const Tensor &tensor : reference.input->model->tensors()) {
    const LayerName parts = split_layer(tensor);
    const int64_t local = parts.layer - begin;
    if (parts.layer >= 0 && local >= 0 && local < layers) by_layer[static_cast<size_t>(local)].push_back({parts, &tensor});
  }
  for (int64_t layer = 0; layer < layers; ++layer) {
    for (const auto &[parts, tensor] : by_layer[static_cast<size_t>(layer)]) {
      out->push_back(place(group, parts.prefix + std::to_string(first + layer) + parts.suffix, parts, layer, depth(layer, layers)));
    }
  }
}

int64_t layers_of(const Group &group) { return group.reference().layers ? group.reference().layers->end - group.reference().layers->begin : 0; }

}  // namespace

const Group::Member &Group::reference() const {
  if (base && base->input->model != nullptr) return *base;
  const auto present = std::ranges::find_if(members, [](const Member &member) { return member.input->model != nullptr; });
  return present != members.end() ? *present : members.front();
}

LayerName split_layer(const Tensor &tensor) {
  if (tensor.role.layer < 0) return {tensor.name, "", -1};
  const std::string number = std::to_string(tensor.role.layer);
  for (size_t at = tensor.name.find(number); at != std::string::npos; at = tensor.name.find(number, at + 1)) {
    const size_t end = at + number.size();
    const bool begins = at > 0 && (tensor.name[at - 1] == '.' || tensor.name[at - 1] == '_');
    const bool ends = end == tensor.name.size() || tensor.name[end] == '.' || tensor.name[end] == '_';
    if (begins && ends) return {tensor.name.substr(0, at), tensor.name.substr(end), tensor.role.layer};
  }
  return {tensor.name, "", -1};
}

std::vector<Group> make_groups(const Recipe &recipe, const std::vector<InputModel> &inputs, Diagnostics *diagnostics) {
  std::vector<Group> groups;
  if (recipe.slices.empty()) {
    groups.push_back(make_group(recipe, recipe.models, recipe.base, recipe.method_place, inputs, diagnostics));
  }
  for (const Slice &slice : recipe.slices) {
    groups.push_back(make_group(recipe, slice.sources, slice.base ? slice.base : recipe.base, slice.place, inputs, diagnostics));
    groups.back().parameters = &slice.parameters;
  }
  for (const Group &group : groups) {
    if (group.members.empty() || group.reference().input->model == nullptr) {
      diagnostics->error(group.place, "no model with a weight other than 0 is left to merge");
    }
  }
  return groups;
}

std::vector<Placement> place_tensors(const std::vector<Group> &groups, bool has_slices, Diagnostics *diagnostics) {
  if (!has_slices) return place_whole(groups[0]);
  std::vector<Placement> out;
  place_outside(groups.front(), false, &out);
  int64_t first = 0;
  for (const Group &group : groups) {
    if (!has_layers(group, diagnostics)) continue;
    place_layers(group, first, layers_of(group), &out);
    first += layers_of(group);
  }
  place_outside(groups.back(), true, &out);
  return out;
}

int64_t output_layers(const std::vector<Group> &groups) {
  int64_t layers = 0;
  for (const Group &group : groups) layers += layers_of(group);
  return layers;
}

}  // namespace chorus::merge
