// SPDX-License-Identifier: Apache-2.0
// Groups, layers and names.
#include "merge/structure.h"

#include <algorithm>
#include <span>
#include <unordered_set>

namespace chorus::merge {
namespace {

using checkpoint::Tensor;

const InputModel *find_input(const std::vector<InputModel> &inputs, const ModelReference &reference) {
  const auto found = std::ranges::find_if(inputs, [&](const InputModel &input) { return input.reference == reference; });
  return &*found;
}

Group make_group(const Recipe &recipe, const std::vector<Source> &sources, const std::optional<ModelReference> &base, Place place,
                 bool is_slice, const std::vector<InputModel> &inputs, Diagnostics *diagnostics) {
  Group group;
  group.place = place;
  group.is_slice = is_slice;
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
  if (is_slice) {
    diagnostics->error(place, "base_model '{}' is no source of this slice; list it with its layer_range", base->text());
  }
  return group;
}

// Whether a tensor without a layer comes behind the layers: it is of the last slice then.
bool is_post(const Tensor &tensor) {
  if (tensor.role.kind == CHORUS_TENSOR_KIND_HEAD) return true;
  return tensor.role.kind == CHORUS_TENSOR_KIND_NORM && tensor.name.find("embed") == std::string::npos;
}

// Layers below each prefix of a model, of those tensors that the group takes.
std::map<std::string, int64_t> layer_counts(const Group &group, const InputModel &input) {
  std::map<std::string, int64_t> counts;
  for (const Tensor *tensor : input.tensors()) {
    const LayerName name = split_layer(*tensor);
    if (name.layer < 0 || !group.takes(*tensor)) continue;
    int64_t &count = counts[name.prefix];
    count = std::max(count, name.layer + 1);
  }
  return counts;
}

// mergekit's depth: i / (L - 1), and 1 for a single layer.
double depth(int64_t layer, int64_t layers) {
  return layers <= 1 ? 1.0 : static_cast<double>(layer) / static_cast<double>(layers - 1);
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
    out.inputs.push_back(member.input->find(out.input_names.back()));
  }
  if (group.base) {
    out.base_name = name_in(*group.base);
    out.base = group.base->input->find(out.base_name);
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
void place_whole(const Group &group, std::vector<Placement> *out) {
  std::unordered_set<std::string> seen;
  for (const Group::Member *member : all_members(group)) {
    const std::map<std::string, int64_t> counts = layer_counts(group, *member->input);
    for (const Tensor *tensor : member->input->tensors()) {
      if (!group.takes(*tensor) || !seen.insert(tensor->name).second) continue;
      const LayerName parts = split_layer(*tensor);
      const double t = parts.layer < 0 ? 0.0 : depth(parts.layer, counts.at(parts.prefix));
      out->push_back(place(group, tensor->name, {tensor->name, "", -1}, -1, t));
    }
  }
}

// Tensors of a group's models outside the layers, `post` those behind them.
void place_outside(const Group &group, bool post, std::vector<Placement> *out) {
  std::unordered_set<std::string> seen;
  for (const Group::Member *member : all_members(group)) {
    for (const Tensor *tensor : member->input->tensors()) {
      if (!group.takes(*tensor) || split_layer(*tensor).layer >= 0 || is_post(*tensor) != post) continue;
      if (!seen.insert(tensor->name).second) continue;
      out->push_back(place(group, tensor->name, {tensor->name, "", -1}, -1, 0.0));
    }
  }
}

bool has_layers(const Group &group, Diagnostics *diagnostics) {
  bool ok = true;
  const auto check = [&](const Group::Member &member) {
    if (member.input->model == nullptr || !member.layers) return;
    const auto counts = layer_counts(group, *member.input);
    const Place place = member.source != nullptr ? member.source->model.place : group.place;
    if (counts.size() > 1) {
      const std::vector<std::string> modules = modules_in(*member.input->model);
      if (group.module.empty() && modules.size() > 1) {
        diagnostics->error(place, "'{}' has the modules {}; slices stack the layers of one: write them below 'modules'",
                           member.input->reference.text(), fmt::join(modules, ", "));
      } else {
        diagnostics->unimplemented(place, "slices of '{}', which has layers below {} prefixes ('{}', '{}', …), are not implemented yet",
                                   member.input->reference.text(), counts.size(), counts.begin()->first, std::next(counts.begin())->first);
      }
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
  for (const Tensor *tensor : reference.input->tensors()) {
    const LayerName parts = split_layer(*tensor);
    const int64_t local = parts.layer - begin;
    if (!group.takes(*tensor) || parts.layer < 0 || local < 0 || local >= layers) continue;
    by_layer[static_cast<size_t>(local)].push_back({parts, tensor});
  }
  for (int64_t layer = 0; layer < layers; ++layer) {
    for (const auto &[parts, tensor] : by_layer[static_cast<size_t>(layer)]) {
      out->push_back(place(group, parts.prefix + std::to_string(first + layer) + parts.suffix, parts, layer, depth(layer, layers)));
    }
  }
}

int64_t layers_of(const Group &group) {
  if (!group.is_slice || !group.reference().layers) return 0;
  return group.reference().layers->end - group.reference().layers->begin;
}

// Slices of one module (or of the whole), stacked.
void place_slices(std::span<const Group> slices, Diagnostics *diagnostics, std::vector<Placement> *out) {
  place_outside(slices.front(), false, out);
  int64_t first = 0;
  for (const Group &group : slices) {
    if (!has_layers(group, diagnostics)) continue;
    place_layers(group, first, layers_of(group), out);
    first += layers_of(group);
  }
  place_outside(slices.back(), true, out);
}

// The modules of the first model that is there; every one of them needs an entry, and each entry is one of them.
class Modules {
 public:
  Modules(const Recipe &recipe, const std::vector<InputModel> &inputs, Diagnostics *diagnostics)
      : recipe_(recipe), inputs_(inputs), diagnostics_(diagnostics) {
    const auto present = std::ranges::find_if(inputs, [](const InputModel &input) { return input.model != nullptr; });
    if (present != inputs.end()) known_ = modules_in(*present->model);
  }

  void make(std::vector<Group> *out) {
    std::vector<std::string> seen;
    for (const ModuleRecipe &module : recipe_.modules) {
      const std::string name = module_named(module.name, known_);
      if (name.empty()) {
        diagnostics_->error(module.place, "the models have no module '{}'; they have {}", module.name, fmt::join(known_, ", "));
      } else if (std::ranges::find(seen, name) != seen.end()) {
        diagnostics_->error(module.place, "'{}' is module {}, which stands twice", module.name, name);
      }
      seen.push_back(name);
      if (!name.empty()) add(module, name, out);
    }
    for (const std::string &name : known_) {
      if (std::ranges::find(seen, name) != seen.end()) continue;
      diagnostics_->error(recipe_.modules.front().place, "the models have a module {}, and modules has no entry for it; known: {}", name,
                          fmt::join(known_, ", "));
    }
  }

 private:
  void add(const ModuleRecipe &module, const std::string &name, std::vector<Group> *out) {
    const auto finish = [&](Group group, const Parameters *slice) {
      group.parameters = slice;
      group.module_parameters = &module.parameters;
      group.module = name;
      group.modules = known_;
      out->push_back(std::move(group));
    };
    if (module.slices.empty()) finish(make_group(recipe_, module.models, recipe_.base, module.place, false, inputs_, diagnostics_), nullptr);
    for (const Slice &slice : module.slices) {
      finish(make_group(recipe_, slice.sources, slice.base ? slice.base : recipe_.base, slice.place, true, inputs_, diagnostics_),
             &slice.parameters);
    }
  }

  const Recipe &recipe_;
  const std::vector<InputModel> &inputs_;
  Diagnostics *diagnostics_;
  std::vector<std::string> known_;
};

}  // namespace

const Tensor *InputModel::find(std::string_view name) const {
  const auto view = views.find(name);
  if (view != views.end()) return &view->second->tensor();
  return model != nullptr ? model->find(name) : nullptr;
}

std::vector<const Tensor *> InputModel::tensors() const {
  std::vector<const Tensor *> out;
  if (model == nullptr) return out;
  for (const Tensor &tensor : model->tensors()) out.push_back(find(tensor.name));
  for (const auto &[name, view] : views) {
    if (model->find(name) == nullptr) out.push_back(&view->tensor());
  }
  return out;
}

std::shared_ptr<const TensorView> InputModel::view_of(const Tensor &tensor) const {
  const auto view = views.find(tensor.name);
  return view != views.end() && &view->second->tensor() == &tensor ? view->second : nullptr;
}

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
  if (recipe.slices.empty() && recipe.modules.empty()) {
    groups.push_back(make_group(recipe, recipe.models, recipe.base, recipe.method_place, false, inputs, diagnostics));
  }
  for (const Slice &slice : recipe.slices) {
    groups.push_back(make_group(recipe, slice.sources, slice.base ? slice.base : recipe.base, slice.place, true, inputs, diagnostics));
    groups.back().parameters = &slice.parameters;
  }
  if (!recipe.modules.empty()) Modules(recipe, inputs, diagnostics).make(&groups);
  for (const Group &group : groups) {
    if (group.members.empty() || group.reference().input->model == nullptr) {
      diagnostics->error(group.place, "no model with a weight other than 0 is left to merge");
    }
  }
  return groups;
}

std::vector<Placement> place_tensors(const std::vector<Group> &groups, Diagnostics *diagnostics) {
  std::vector<Placement> out;
  for (size_t begin = 0, end = 0; begin < groups.size(); begin = end) {
    for (end = begin + 1; end < groups.size() && groups[end].module == groups[begin].module; ++end) {
    }
    if (groups[begin].is_slice) {
      place_slices(std::span(groups).subspan(begin, end - begin), diagnostics, &out);
    } else {
      place_whole(groups[begin], &out);
    }
  }
  return out;
}

int64_t output_layers(const std::vector<Group> &groups) {
  int64_t layers = 0;
  for (const Group &group : groups) layers += layers_of(group);
  return layers;
}

}  // namespace chorus::merge
