// SPDX-License-Identifier: Apache-2.0
// oneDNN's part in experts.ffn: primitives made once for any number of rows, executed on one thread with the caller's OpenMP
// setting put back. Its gemm packs both operands into buffers of its own, so rows and weights are plain matrices.
#include "cpu/experts_gemm.h"

#include <omp.h>
#include <oneapi/dnnl/dnnl.h>

#include <algorithm>
#include <cstring>

namespace chorus::cpu {
namespace {

constexpr int64_t kBandBytes = 1 << 20;  // unpacked weights of a band: they stay in L2 while they are multiplied
constexpr int64_t kLeastStrips = 4, kMostStrips = 16;

// oneDNN's OpenMP runtime sees one thread as long as this lives.
class OneThread {
 public:
  OneThread() : before_(omp_get_max_threads()) { omp_set_num_threads(1); }
  ~OneThread() { omp_set_num_threads(before_); }
  OneThread(const OneThread &) = delete;
  OneThread &operator=(const OneThread &) = delete;

 private:
  int before_;
};

dnnl_data_type_t dnnl_type(chorus_dtype type) { return type == CHORUS_BF16 ? dnnl_bf16 : dnnl_f32; }

// A row-major matrix; rows, columns and stride may be DNNL_RUNTIME_DIM_VAL.
class MatrixDesc {
 public:
  MatrixDesc(dnnl_data_type_t type, int64_t rows, int64_t columns, int64_t stride) {
    const dnnl_dims_t dims = {rows, columns}, strides = {stride, 1};
    if (dnnl_memory_desc_create_with_strides(&desc_, 2, dims, type, strides) != dnnl_success) desc_ = nullptr;
  }
  ~MatrixDesc() { dnnl_memory_desc_destroy(desc_); }
  MatrixDesc(const MatrixDesc &) = delete;
  MatrixDesc &operator=(const MatrixDesc &) = delete;
  dnnl_memory_desc_t get() const { return desc_; }

 private:
  dnnl_memory_desc_t desc_ = nullptr;
};

class Memory {
 public:
  Memory(const MatrixDesc &desc, dnnl_engine_t engine, const void *data) {
    dnnl_memory_create(&memory_, desc.get(), engine, const_cast<void *>(data));
  }
  ~Memory() { dnnl_memory_destroy(memory_); }
  Memory(const Memory &) = delete;
  Memory &operator=(const Memory &) = delete;
  dnnl_memory_t get() const { return memory_; }

 private:
  dnnl_memory_t memory_ = nullptr;
};

constexpr int64_t kAny = DNNL_RUNTIME_DIM_VAL;

// rows [M, depth] x weights [depth, N] -> f32 [M, N] for any M and N; NULL where oneDNN has but its reference code.
dnnl_primitive_t make_primitive(dnnl_engine_t engine, chorus_dtype type, int64_t depth) {
  const MatrixDesc rows(dnnl_type(type), kAny, depth, depth), weights(dnnl_type(type), depth, kAny, kAny),
      out(dnnl_f32, kAny, kAny, kAny);
  dnnl_primitive_attr_t attributes = nullptr;
  dnnl_primitive_attr_create(&attributes);
  dnnl_primitive_desc_t desc = nullptr;
  const dnnl_status_t status =
      dnnl_matmul_primitive_desc_create(&desc, engine, rows.get(), weights.get(), nullptr, out.get(), attributes);
  dnnl_primitive_attr_destroy(attributes);
  if (status != dnnl_success) return nullptr;
  const char *name = "";
  dnnl_primitive_desc_query(desc, dnnl_query_impl_info_str, 0, &name);
  dnnl_primitive_t primitive = nullptr;
  if (std::strncmp(name, "ref", 3) != 0) dnnl_primitive_create(&primitive, desc);
  dnnl_primitive_desc_destroy(desc);
  return primitive;
}

int64_t band_strips(const PackedMatrix &m, int64_t element_bytes) {
  const int64_t fits = kBandBytes / (m.depth_padded * kStrip * element_bytes) / 2 * 2;  // even: gates beside their ups
  return std::min(std::clamp(fits, kLeastStrips, kMostStrips), m.columns / kStrip);
}

bool make_all(ExpertsState *state, chorus_dtype type, int64_t least_rows) {
  ExpertsGemm &gemm = state->gemm;
  dnnl_engine_t engine = nullptr;
  if (dnnl_engine_create(&engine, dnnl_cpu, 0) != dnnl_success) return false;
  gemm.engine = engine;
  gemm.type = type;
  gemm.least_rows = least_rows;
  gemm.gate_up_strips = band_strips(state->gate_up, gemm.element_bytes());
  gemm.down_strips = band_strips(state->down, gemm.element_bytes());
  gemm.gate_up = make_primitive(engine, type, state->gate_up.depth_padded);
  gemm.down = make_primitive(engine, type, state->down.depth_padded);
  if (gemm.gate_up != nullptr && gemm.down != nullptr) return true;
  release_gemm(state);
  return false;
}

}  // namespace

bool parse_gemm_use(const char *word, GemmUse *out) {
  constexpr struct {
    const char *word;
    GemmUse use;
  } kWords[] = {{"auto", GemmUse::kAuto}, {"never", GemmUse::kNever}, {"always", GemmUse::kAlways}};
  for (const auto &w : kWords) {
    if (std::strcmp(w.word, word) != 0) continue;
    *out = w.use;
    return true;
  }
  return false;
}

void prepare_gemm(const chorus_plugin_device *device, ExpertsState *state) {
  const GemmUse use = device->experts_gemm;
  const bool always = use == GemmUse::kAlways, bf16 = state->weights_dtype == CHORUS_BF16;
  if (use == GemmUse::kNever || state->batch_invariant || is_quantised(state->weights_dtype) || !(always || bf16)) return;
  const OneThread one;
  const int64_t least_rows = always ? 1 : kGemmRows;
  if (bf16 && make_all(state, CHORUS_BF16, least_rows)) return;
  if (always) make_all(state, CHORUS_F32, least_rows);
}

void release_gemm(ExpertsState *state) {
  ExpertsGemm &gemm = state->gemm;
  for (void *p : {gemm.gate_up, gemm.down}) {
    if (p != nullptr) dnnl_primitive_destroy(static_cast<dnnl_primitive_t>(p));
  }
  if (gemm.engine != nullptr) dnnl_engine_destroy(static_cast<dnnl_engine_t>(gemm.engine));
  gemm = {};
}

void gemm_multiply(const ExpertsGemm &gemm, void *primitive, const PackedMatrix &m, int64_t columns, const void *rows,
                   int64_t n_rows, const void *weights, float *out, int64_t out_stride) {
  const OneThread one;
  const auto engine = static_cast<dnnl_engine_t>(gemm.engine);
  const MatrixDesc rows_desc(dnnl_type(gemm.type), n_rows, m.depth_padded, m.depth_padded),
      weights_desc(dnnl_type(gemm.type), m.depth_padded, columns, columns), out_desc(dnnl_f32, n_rows, columns, out_stride);
  const Memory rows_memory(rows_desc, engine, rows), weights_memory(weights_desc, engine, weights),
      out_memory(out_desc, engine, out);
  dnnl_stream_t stream = nullptr;
  dnnl_stream_create(&stream, engine, dnnl_stream_default_flags);
  const dnnl_exec_arg_t args[] = {{DNNL_ARG_SRC, rows_memory.get()},
                                  {DNNL_ARG_WEIGHTS, weights_memory.get()},
                                  {DNNL_ARG_DST, out_memory.get()}};
  dnnl_primitive_execute(static_cast<dnnl_primitive_t>(primitive), stream, 3, args);
  dnnl_stream_wait(stream);
  dnnl_stream_destroy(stream);
}

}  // namespace chorus::cpu
