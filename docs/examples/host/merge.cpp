// SPDX-License-Identifier: Apache-2.0
// Calls of chorus_merger: a recipe becomes a model in a temporary folder.
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "study.h"

namespace host {
namespace {

std::string new_temporary_folder() {
  std::string path = (std::filesystem::temp_directory_path() / "chorus-host-XXXXXX").string();
  if (mkdtemp(path.data()) == nullptr) throw std::runtime_error("cannot make a folder like " + path);
  return path;
}

// Returns the names of the kernels that do it.
std::string merge(const Library &lib, const chorus_context *context, const std::string &recipe,
                  const std::string &output) {
  const auto spec = lib.make(lib.chorus_merger_spec_destroy, lib.chorus_merger_spec_create);
  lib.check([&](auto **error) {
    return lib.chorus_merger_spec_set_recipe(spec.get(), recipe.data(), recipe.size(), nullptr, error);
  });
  lib.check([&](auto **error) { return lib.chorus_merger_spec_set_output(spec.get(), output.c_str(), error); });
  const auto merger = lib.make(lib.chorus_merger_destroy, [&](auto **out, auto **error) {
    return lib.chorus_merger_create(context, spec.get(), "auto", out, error);
  });
  lib.check([&](auto **error) { return lib.chorus_merger_run(merger.get(), nullptr, nullptr, error); });
  std::string kernels;
  const auto plan = nlohmann::json::parse(lib.chorus_merger_get_plan_json(merger.get()));
  for (const auto &kernel : plan.at("kernels")) {
    kernels += (kernels.empty() ? "" : ", ") + kernel.get<std::string>();
  }
  return kernels;
}

}  // namespace

Merged::Merged(const Library &library, const chorus_context *context, const std::string &recipe)
    : folder_(new_temporary_folder()) {
  try {
    kernels_ = merge(library, context, recipe, model());
  } catch (...) {
    remove();
    throw;
  }
}

Merged::~Merged() { remove(); }

void Merged::remove() {
  std::error_code ignored;
  std::filesystem::remove_all(folder_, ignored);
}

}  // namespace host
