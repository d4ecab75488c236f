// SPDX-License-Identifier: Apache-2.0
// Parameters by the method's table, references to models, and what a method asks of a recipe's structure.
#include <algorithm>

#include "merge/recipe/fields.h"
#include "merge/recipe/parse.h"
#include "runtime/nearest.h"
#include "runtime/utf8.h"

namespace chorus::merge {
namespace {

std::vector<std::string> names_of(const Method &method) {
  std::vector<std::string> out;
  for (const Parameter &parameter : method.parameters) out.emplace_back(parameter.name);
  return out;
}

const Parameter *find_parameter(const Method &method, const std::string &name) {
  const auto found = std::ranges::find_if(method.parameters, [&](const Parameter &p) { return name == p.name; });
  return found == method.parameters.end() ? nullptr : &*found;
}

void unknown_parameter(const Entry &entry, const Method *method, Diagnostics *diagnostics) {
  const std::string &name = entry.key->text;
  if (is_known_parameter(name)) {
    if (method != nullptr) diagnostics->warning(entry.key->place, "parameter '{}' has no effect in {}", name, method->name);
    return;
  }
  if (method == nullptr) return;  // an error already, and nothing to compare with
  const std::vector<std::string> known = names_of(*method);
  const std::string guess = did_you_mean(name, known);
  diagnostics->error(entry.key->place, "unknown parameter '{}' of {}{}", shown(name), method->name,
                     guess.empty() ? fmt::format("; known: {}", fmt::join(known, ", ")) : guess);
}

// Models of one merge or slice, and the base that counts there.
struct Group {
  const std::vector<Source> &sources;
  const std::optional<ModelReference> &base;
  std::vector<const Parameters *> outer;  // of the slice, the module
  Place place;
  const char *what;
};

bool is_base(const Group &group, const Source &source) { return group.base && source.model == *group.base; }

void check_counts(const Recipe &recipe, const Group &group, Diagnostics *diagnostics) {
  const Method &method = *recipe.method;
  size_t inputs = 0;
  bool has_base = false;
  for (const Source &source : group.sources) {
    has_base |= is_base(group, source);
    const bool counts = !is_base(group, source) || method.base == BaseUse::kInput || method.base == BaseUse::kFirstInput;
    inputs += counts ? 1 : 0;
  }
  if (method.base == BaseUse::kInput && group.base && !has_base) ++inputs;
  if ((method.base == BaseUse::kRequired || method.base == BaseUse::kFirstInput) && !group.base) {
    diagnostics->error(group.place, "{} needs base_model", method.name);
  } else if (method.base == BaseUse::kFirstInput && !has_base) {
    diagnostics->error(group.place, "base_model '{}' is none of the models {} merges; it must be one of them", group.base->text(), method.name);
  }
  if (inputs < method.min_inputs || inputs > method.max_inputs) {
    const std::string allowed = method.min_inputs == method.max_inputs ? fmt::format("exactly {}", method.min_inputs)
                                : inputs < method.min_inputs          ? fmt::format("at least {}", method.min_inputs)
                                                                      : fmt::format("at most {}", method.max_inputs);
    diagnostics->error(group.place, "{} takes {} model{}{}; {} has {}", method.name, allowed, method.min_inputs == 1 && method.max_inputs == 1 ? "" : "s",
                       method.base == BaseUse::kRequired || method.base == BaseUse::kOptional ? " besides base_model" : "", group.what, inputs);
  }
}

void check_duplicates(const Group &group, Diagnostics *diagnostics) {
  for (size_t i = 0; i < group.sources.size(); ++i) {
    for (size_t k = 0; k < i; ++k) {
      if (!(group.sources[i].model == group.sources[k].model)) continue;
      diagnostics->error(group.sources[i].model.place, "model '{}' stands twice in {}", group.sources[i].model.text(), group.what);
      break;
    }
  }
}

// Required parameters that no level gives. Values that no filter reaches are found in the plan, tensor by tensor.
void check_required(const Recipe &recipe, const Group &group, Diagnostics *diagnostics) {
  const Method &method = *recipe.method;
  for (const Parameter &parameter : method.parameters) {
    if (!parameter.required || recipe.parameters.contains(parameter.name)) continue;
    const auto gives = [&](const Parameters *outer) { return outer != nullptr && outer->contains(parameter.name); };
    if (std::ranges::any_of(group.outer, gives)) continue;
    if (!parameter.per_model) {
      diagnostics->error(group.place, "{} needs parameter '{}': {}", method.name, parameter.name, parameter.doc);
      continue;
    }
    for (const Source &source : group.sources) {
      const bool is_input = !is_base(group, source) || method.base == BaseUse::kInput;
      if (!is_input || source.parameters.contains(parameter.name)) continue;
      diagnostics->error(source.model.place, "model '{}' lacks parameter '{}', which {} needs of each: {}", source.model.text(),
                         parameter.name, method.name, parameter.doc);
    }
    const bool base_listed = std::ranges::any_of(group.sources, [&](const Source &source) { return is_base(group, source); });
    if (method.base == BaseUse::kInput && group.base && !base_listed) {
      diagnostics->error(group.base->place, "base_model '{}' is merged as one more model by {}, and lacks parameter '{}'; list it among the models with one",
                         group.base->text(), method.name, parameter.name);
    }
  }
}

}  // namespace

void parse_parameters(const Node &node, const Method *method, Level level, Parameters *out, Diagnostics *diagnostics) {
  if (node.kind != Node::Kind::kMap) {
    diagnostics->error(node.place, "parameters is {}; a map from parameters to values is needed", kind_name(node.kind));
    return;
  }
  for (const Entry &entry : node.entries) {
    const Parameter *parameter = method != nullptr ? find_parameter(*method, entry.key->text) : nullptr;
    if (parameter == nullptr) {
      unknown_parameter(entry, method, diagnostics);
    } else if (entry.value->kind == Node::Kind::kNull) {
      continue;  // as if it were not there
    } else if (level == Level::kModel && !parameter->per_model) {
      diagnostics->warning(entry.key->place, "parameter '{}' of {} is not per model and has no effect here; write it at the top level",
                           parameter->name, method->name);
    } else if (std::optional<Value> value = parse_value(*entry.value, *parameter, diagnostics)) {
      out->insert_or_assign(parameter->name, std::move(*value));
    }
  }
}

ModelReference read_reference(const Node &node, Diagnostics *diagnostics) {
  ModelReference out;
  out.place = node.place;
  if (node.is_scalar() && node.kind != Node::Kind::kNull) {
    const size_t plus = node.text.find('+');
    out.path = node.text.substr(0, plus);
    if (plus != std::string::npos) out.lora = node.text.substr(plus + 1);
    if (out.path.empty()) diagnostics->error(node.place, "the name of a model is empty");
    return out;
  }
  if (node.kind != Node::Kind::kMap) {
    diagnostics->error(node.place, "a model is {}; a folder or org/name is needed", kind_name(node.kind));
    return out;
  }
  const Fields fields(node, "a model", {"model", "path", "revision", "lora"}, {"override_architecture"}, diagnostics);
  if (const Node *inner = fields.find("model")) {
    out = read_reference(*inner, diagnostics);
  } else {
    out.path = fields.text("path");
    if (out.path.empty()) diagnostics->error(node.place, "this model lacks 'path'");
    if (const std::string revision = fields.text("revision"); !revision.empty()) out.path += "@" + revision;
  }
  if (const Node *lora = fields.find("lora")) out.lora = read_reference(*lora, diagnostics).path;
  out.place = node.place;
  return out;
}

void check_structure(const Recipe &recipe, Diagnostics *diagnostics) {
  const auto check = [&](const Group &group) {
    check_counts(recipe, group, diagnostics);
    check_duplicates(group, diagnostics);
    check_required(recipe, group, diagnostics);
  };
  const auto check_slices = [&](const std::vector<Slice> &slices, const Parameters *outer) {
    for (const Slice &slice : slices) {
      check({slice.sources, slice.base ? slice.base : recipe.base, {&slice.parameters, outer}, slice.place, "this slice"});
    }
  };
  if (recipe.slices.empty() && recipe.modules.empty()) check({recipe.models, recipe.base, {}, recipe.method_place, "the recipe"});
  check_slices(recipe.slices, nullptr);
  for (const ModuleRecipe &module : recipe.modules) {
    if (module.slices.empty()) check({module.models, recipe.base, {&module.parameters}, module.place, "this module"});
    check_slices(module.slices, &module.parameters);
  }
}

}  // namespace chorus::merge
