// SPDX-License-Identifier: Apache-2.0
// diagnose.h: calls into combine/diagnosis and combine/passes.
#include "chorus/diagnose.h"

#include "abi/boundary.h"
#include "abi/info.h"
#include "abi/structs.h"
#include "combine/diagnosis.h"
#include "combine/passes.h"

using chorus::abi::guarded;
using chorus::abi::read_struct;
using chorus::abi::require;

struct chorus_diagnosis {
  chorus::combine::Diagnosis diagnosis;
};

struct chorus_passes {
  chorus::combine::Passes passes;
};

extern "C" {

chorus_status chorus_diagnosis_create(const chorus_context *context, const chorus_diagnosis_options *options,
                                      chorus_diagnosis **out_diagnosis, chorus_error **error) {
  return guarded(error, [&] {
    chorus::abi::require_output(out_diagnosis, "out_diagnosis");
    const auto read = read_struct(options, "options", CHORUS_END_OF(chorus_diagnosis_options, weights));
    *out_diagnosis = new chorus_diagnosis{{chorus::context_of(context), read}};
  });
}

void chorus_diagnosis_destroy(chorus_diagnosis *diagnosis) { delete diagnosis; }

chorus_status chorus_diagnosis_add(chorus_diagnosis *diagnosis, const chorus_diagnosis_batch *batch, chorus_error **error) {
  return guarded(error, [&] {
    require(diagnosis, "diagnosis")
        ->diagnosis.add(read_struct(batch, "batch", CHORUS_END_OF(chorus_diagnosis_batch, n_valid)));
  });
}

chorus_status chorus_diagnosis_merge(chorus_diagnosis *diagnosis, const chorus_diagnosis *other, chorus_error **error) {
  return guarded(error, [&] { require(diagnosis, "diagnosis")->diagnosis.merge(require(other, "other")->diagnosis); });
}

chorus_status chorus_diagnosis_get(chorus_diagnosis *diagnosis, chorus_diagnosis_info *out_info, chorus_error **error) {
  return guarded(error, [&] { chorus::abi::fill_info(out_info, require(diagnosis, "diagnosis")->diagnosis.get()); });
}

chorus_status chorus_passes_create(const chorus_context *context, int64_t rows, int64_t n_tokens, chorus_passes **out_passes,
                                   chorus_error **error) {
  return guarded(error, [&] {
    chorus::abi::require_output(out_passes, "out_passes");
    *out_passes = new chorus_passes{{chorus::context_of(context), rows, n_tokens}};
  });
}

void chorus_passes_destroy(chorus_passes *passes) { delete passes; }

chorus_status chorus_passes_add(chorus_passes *passes, const chorus_tensor *scores, double weight, chorus_error **error) {
  return guarded(error, [&] { require(passes, "passes")->passes.add(scores, weight); });
}

chorus_status chorus_passes_merge(chorus_passes *passes, const chorus_passes *other, chorus_error **error) {
  return guarded(error, [&] {
    require(passes, "passes");
    require(other, "other");
    if (passes == other) {  // rows would be read while they change
      const chorus_passes copy = *other;
      passes->passes.merge(copy.passes);
    } else {
      passes->passes.merge(other->passes);
    }
  });
}

chorus_status chorus_passes_get(const chorus_passes *passes, const chorus_passes_out *out, chorus_error **error) {
  return guarded(error, [&] {
    require(passes, "passes")->passes.get(read_struct(out, "out", CHORUS_END_OF(chorus_passes_out, mutual_information)));
  });
}

}  // extern "C"
