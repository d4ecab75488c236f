// SPDX-License-Identifier: Apache-2.0
// fit.h: calls into combine/fit.
#include "chorus/fit.h"

#include "abi/boundary.h"
#include "abi/info.h"
#include "abi/structs.h"
#include "combine/fit.h"

using chorus::abi::guarded;
using chorus::abi::require;

struct chorus_fit {
  chorus::combine::Fit fit;
};

extern "C" {

chorus_status chorus_fit_create(const chorus_context *context, const chorus_fit_options *options, chorus_fit **out_fit,
                                chorus_error **error) {
  return guarded(error, [&] {
    chorus::abi::require_output(out_fit, "out_fit");
    const auto read = chorus::abi::read_struct(options, "options", CHORUS_END_OF(chorus_fit_options, initial_weights));
    *out_fit = new chorus_fit{{chorus::context_of(context), read}};
  });
}

void chorus_fit_destroy(chorus_fit *fit) { delete fit; }

chorus_status chorus_fit_add(chorus_fit *fit, const chorus_fit_batch *batch, chorus_error **error) {
  return guarded(error, [&] {
    require(fit, "fit")->fit.add(chorus::abi::read_struct(batch, "batch", CHORUS_END_OF(chorus_fit_batch, reserved)));
  });
}

chorus_status chorus_fit_step(chorus_fit *fit, int32_t *out_done, chorus_error **error) {
  return guarded(error, [&] {
    *require(out_done, "out_done") = 0;
    *out_done = require(fit, "fit")->fit.step() ? 1 : 0;
  });
}

const double *chorus_fit_get_point(const chorus_fit *fit) { return fit != nullptr ? fit->fit.point() : nullptr; }

chorus_status chorus_fit_get_result(chorus_fit *fit, chorus_fit_result *out_result, chorus_error **error) {
  return guarded(error, [&] { chorus::abi::fill_info(out_result, require(fit, "fit")->fit.result()); });
}

}  // extern "C"
