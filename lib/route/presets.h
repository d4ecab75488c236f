// SPDX-License-Identifier: Apache-2.0
// Named routers: the routing of published models, one line each, and their routers as told by a config.json.
#pragma once
#include <cstddef>
#include <nlohmann/json_fwd.hpp>
#include <string_view>

#include "route/router_spec.h"

namespace chorus::route {

// Name of preset `index`, or NULL past the last.
const char *preset_name(size_t index);

// Sets everything but E, k, sizes and dtypes as the preset says. Fails INVALID_ARGUMENT for an unknown name, naming the nearest,
// and for an E or k that the preset is not for; the spec is then as it was. Without groups they are for the caller to set.
void apply_preset(RouterSpec &spec, std::string_view name, bool with_groups = true);

// The router of a model by its config.json: preset by `model_type`, then the fields of the file. Fails UNIMPLEMENTED for a
// model that is not known or a field's value that its preset does not cover, DATA_LOSS for a field that is no number.
RouterSpec spec_of_config(const nlohmann::json &config);

}  // namespace chorus::route
