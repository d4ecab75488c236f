// SPDX-License-Identifier: Apache-2.0
// sparse.h: setters of the spec, and calls into sparse/sparse.
#include "chorus/sparse.h"

#include "abi/boundary.h"
#include "abi/route_checks.h"
#include "abi/structs.h"
#include "sparse/sparse.h"

using chorus::fail;
using chorus::abi::check_dtype;
using chorus::abi::guarded;
using chorus::abi::require;
using chorus::abi::StructView;

struct chorus_sparse_spec {
  chorus::sparse::SparseSpec spec;
};
struct chorus_sparse {
  chorus::sparse::Sparse sparse;
};

extern "C" {

chorus_status chorus_sparse_spec_create_linear(const chorus_tensor *weights, chorus_sparse_side side,
                                               chorus_sparse_spec **out_spec, chorus_error **error) {
  return guarded(error, [&] {
    *require(out_spec, "out_spec") = nullptr;
    *out_spec = new chorus_sparse_spec{{weights, side}};
  });
}

chorus_status chorus_sparse_spec_create_ffn(const chorus_tensor *gate, const chorus_tensor *up, const chorus_tensor *down,
                                            chorus_sparse_spec **out_spec, chorus_error **error) {
  return guarded(error, [&] {
    *require(out_spec, "out_spec") = nullptr;
    *out_spec = new chorus_sparse_spec{{gate, up, down}};
  });
}

void chorus_sparse_spec_destroy(chorus_sparse_spec *spec) { delete spec; }

chorus_status chorus_sparse_spec_set_max_rows(chorus_sparse_spec *spec, int32_t max_rows, chorus_error **error) {
  return guarded(error, [&] {
    require(spec, "spec");
    if (max_rows < 1 || max_rows > 8) fail(CHORUS_INVALID_ARGUMENT, "max_rows is {}; 1 to 8 are allowed", max_rows);
    spec->spec.max_rows = max_rows;
  });
}

chorus_status chorus_sparse_spec_set_dtypes(chorus_sparse_spec *spec, chorus_dtype x, chorus_dtype y, chorus_error **error) {
  return guarded(error, [&] {
    require(spec, "spec");
    check_dtype("x", x, {CHORUS_F32, CHORUS_BF16});
    check_dtype("y", y, {CHORUS_F32, CHORUS_BF16});
    spec->spec.x_dtype = x;
    spec->spec.y_dtype = y;
  });
}

chorus_status chorus_sparse_spec_set_pick(chorus_sparse_spec *spec, chorus_sparse_pick pick, double threshold,
                                          chorus_error **error) {
  return guarded(error, [&] { require(spec, "spec")->spec.set_pick(pick, threshold); });
}

chorus_status chorus_sparse_spec_set_dense_above(chorus_sparse_spec *spec, double part, chorus_error **error) {
  return guarded(error, [&] {
    require(spec, "spec");
    if (!(part >= 0 && part <= 1)) fail(CHORUS_INVALID_ARGUMENT, "part is {}; 0 to 1 are allowed", part);
    spec->spec.dense_above = part;
  });
}

chorus_status chorus_sparse_spec_set_activation(chorus_sparse_spec *spec, chorus_activation activation, chorus_error **error) {
  return guarded(error, [&] { require(spec, "spec")->spec.set_activation(activation); });
}

chorus_status chorus_sparse_spec_set_biases(chorus_sparse_spec *spec, const chorus_tensor *gate, const chorus_tensor *up,
                                            const chorus_tensor *output, chorus_error **error) {
  return guarded(error, [&] { require(spec, "spec")->spec.set_biases(gate, up, output); });
}

chorus_status chorus_sparse_create(const chorus_context *context, const chorus_sparse_spec *spec, const char *device,
                                   chorus_sparse **out_sparse, chorus_error **error) {
  return guarded(error, [&] {
    *require(out_sparse, "out_sparse") = nullptr;
    *out_sparse = new chorus_sparse{{chorus::context_of(context), require(spec, "spec")->spec, require(device, "device")}};
  });
}

void chorus_sparse_destroy(chorus_sparse *sparse) { delete sparse; }

chorus_status chorus_sparse_linear(const chorus_sparse *sparse, const chorus_tensor *x, const chorus_sparse_in *in,
                                   const chorus_tensor *y, const chorus_sparse_out *out, double *out_density,
                                   const chorus_exec *exec, chorus_error **error) {
  return guarded(error, [&] {
    static constexpr chorus_sparse_in kNone = CHORUS_SPARSE_IN_INIT;
    static constexpr chorus_sparse_out kNothing = CHORUS_SPARSE_OUT_INIT;
    require(sparse, "sparse");
    const StructView beside(in != nullptr ? in : &kNone, "in", CHORUS_END_OF(chorus_sparse_in, given),
                            CHORUS_END_OF(chorus_sparse_in, given));
    const StructView wanted(out != nullptr ? out : &kNothing, "out", CHORUS_END_OF(chorus_sparse_out, counts),
                            CHORUS_END_OF(chorus_sparse_out, counts));
    sparse->sparse.run(x, *beside, y, *wanted, out_density, exec);
  });
}

chorus_status chorus_sparse_get_workspace_size(const chorus_sparse *sparse, int64_t rows, uint64_t *out_bytes,
                                               chorus_error **error) {
  return guarded(error, [&] {
    *require(out_bytes, "out_bytes") = require(sparse, "sparse")->sparse.workspace_size(rows);
  });
}

uint64_t chorus_sparse_get_packed_bytes(const chorus_sparse *sparse) {
  return sparse != nullptr ? sparse->sparse.packed_bytes() : 0;
}

const char *chorus_sparse_get_kernel(const chorus_sparse *sparse) {
  return sparse != nullptr ? sparse->sparse.kernel_name() : "";
}

}  // extern "C"
