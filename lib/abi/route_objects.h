// SPDX-License-Identifier: Apache-2.0
// The objects of route.h, which calls over both need.
#pragma once
#include "route/experts.h"
#include "route/router.h"

struct chorus_router {
  chorus::route::Router router;
};
struct chorus_experts_spec {
  chorus::route::ExpertsSpec spec;
};
struct chorus_experts {
  chorus::route::Experts experts;
};
