/* SPDX-License-Identifier: Apache-2.0
 *
 * C++11 on top of the C ABI, header only: each opaque object is a move-only class, each failure an exception, each
 * argument what the C function takes. It adds no ABI: what lies below is chorus.h, whose comments are the contract.
 *
 * Rules: a constructor creates, a destructor destroys, get() lends the C object, release() gives it away. `const`
 * functions may be called from many threads at once.
 */
#ifndef CHORUS_CHORUS_HPP_
#define CHORUS_CHORUS_HPP_

#include <cstring>
#include <initializer_list>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "chorus.h"

namespace chorus {
inline namespace api { /* a name of its own in symbols, whatever else is called chorus in a program */

/* ---- Errors ------------------------------------------------------------------------------- */

/** A failed call: what() is the message, text() also tells the causes, code() is the status. */
class Error : public std::runtime_error {
 public:
  /** Takes `error`, which may be NULL. */
  Error(chorus_status code, chorus_error *error)
      : std::runtime_error(error != nullptr ? chorus_error_get_message(error) : chorus_status_get_name(code)),
        code_(code),
        error_(error, chorus_error_destroy) {}
  chorus_status code() const noexcept { return code_; }
  const char *text() const noexcept { return error_ ? chorus_error_get_text(error_.get()) : what(); }
  /** With its causes; NULL when there was no memory for it. Lives as long as this. */
  const chorus_error *get() const noexcept { return error_.get(); }

 private:
  chorus_status code_;
  std::shared_ptr<const chorus_error> error_;
};

/** Runs call(&error), a C function with its last argument open, and throws what it reports. */
template <typename Call>
void check(Call call) {
  chorus_error *error = nullptr;
  const chorus_status status = call(&error);
  if (status != CHORUS_OK) throw Error(status, error);
}

/** Owns a C object; the base of every class below. */
template <typename T, void (*Destroy)(T *)>
class Handle {
 public:
  /** Takes `object`. */
  explicit Handle(T *object = nullptr) noexcept : object_(object) {}
  Handle(Handle &&other) noexcept : object_(other.release()) {}
  Handle &operator=(Handle &&other) noexcept {
    std::swap(object_, other.object_);
    return *this;
  }
  Handle(const Handle &) = delete;
  Handle &operator=(const Handle &) = delete;
  ~Handle() { Destroy(object_); }

  T *get() const noexcept { return object_; }
  T *release() noexcept {
    T *object = object_;
    object_ = nullptr;
    return object;
  }
  explicit operator bool() const noexcept { return object_ != nullptr; }

 protected:
  /** Fills this with what create(&object, &error) gives. */
  template <typename Create>
  void create(Create function) {
    check([&](chorus_error **error) { return function(&object_, error); });
  }

 private:
  T *object_;
};

/* ---- Tensors ------------------------------------------------------------------------------ */

namespace detail {
template <typename T>
struct DtypeOf;
template <> struct DtypeOf<double> { static constexpr chorus_dtype value = CHORUS_F64; };
template <> struct DtypeOf<float> { static constexpr chorus_dtype value = CHORUS_F32; };
template <> struct DtypeOf<int64_t> { static constexpr chorus_dtype value = CHORUS_I64; };
template <> struct DtypeOf<int32_t> { static constexpr chorus_dtype value = CHORUS_I32; };
template <> struct DtypeOf<int16_t> { static constexpr chorus_dtype value = CHORUS_I16; };
template <> struct DtypeOf<int8_t> { static constexpr chorus_dtype value = CHORUS_I8; };
template <> struct DtypeOf<uint64_t> { static constexpr chorus_dtype value = CHORUS_U64; };
template <> struct DtypeOf<uint32_t> { static constexpr chorus_dtype value = CHORUS_U32; };
template <> struct DtypeOf<uint8_t> { static constexpr chorus_dtype value = CHORUS_U8; };
template <> struct DtypeOf<bool> { static constexpr chorus_dtype value = CHORUS_BOOL; };
}  // namespace detail

/** A chorus_tensor with its shape and strides beside it: a view, the memory stays the caller's. Copies view the same. */
class Tensor {
 public:
  /** Compact row-major view of `data`. 16-bit floats: give the dtype, as uint16_t has none. */
  template <typename T>
  Tensor(T *data, std::initializer_list<int64_t> shape) : Tensor(data, detail::DtypeOf<T>::value, shape) {}
  template <typename T>
  Tensor(const T *data, std::initializer_list<int64_t> shape) : Tensor(data, detail::DtypeOf<T>::value, shape) {}
  Tensor(const void *data, chorus_dtype dtype, std::initializer_list<int64_t> shape)
      : Tensor(const_cast<void *>(data), dtype, shape) {
    tensor_.flags = CHORUS_TENSOR_READ_ONLY;
  }
  Tensor(void *data, chorus_dtype dtype, std::initializer_list<int64_t> shape)
      : Tensor(data, dtype, shape.begin(), shape.size()) {}
  /** The same with a shape of `ndim` sizes, for example that of a chorus_tensor_info. */
  Tensor(void *data, chorus_dtype dtype, const int64_t *shape, size_t ndim) : tensor_(), shape_(), strides_() {
    if (ndim > CHORUS_MAX_DIMENSIONS) throw std::length_error("a chorus::Tensor has at most 8 dimensions");
    const chorus_tensor initial = CHORUS_TENSOR_INIT;
    tensor_ = initial;
    tensor_.data = data;
    tensor_.device_type = CHORUS_DEVICE_HOST;
    tensor_.dtype_code = static_cast<uint8_t>(dtype & 0xff);
    tensor_.dtype_bits = static_cast<uint8_t>(dtype >> 8);
    tensor_.dtype_lanes = 1;
    tensor_.size_bytes = dtype >> 11;
    for (size_t i = 0; i < ndim; ++i) {
      shape_[tensor_.ndim++] = shape[i];
      tensor_.size_bytes *= static_cast<uint64_t>(shape[i]);
    }
    tensor_.shape = shape_;
  }
  Tensor(const Tensor &other) : tensor_(), shape_(), strides_() { *this = other; }
  Tensor &operator=(const Tensor &other) {
    tensor_ = other.tensor_;
    std::memcpy(shape_, other.shape_, sizeof(shape_));
    std::memcpy(strides_, other.strides_, sizeof(strides_));
    tensor_.shape = shape_;
    if (tensor_.strides != nullptr) tensor_.strides = strides_;
    return *this;
  }

  /** Other strides, in elements; `size_bytes` is what `data` reaches. */
  Tensor &with_strides(std::initializer_list<int64_t> strides, uint64_t size_bytes) {
    if (strides.size() != static_cast<size_t>(tensor_.ndim)) throw std::length_error("a stride per dimension is needed");
    size_t i = 0;
    for (const int64_t stride : strides) strides_[i++] = stride;
    tensor_.strides = strides_;
    tensor_.size_bytes = size_bytes;
    return *this;
  }
  /** In the memory of another device. */
  Tensor &on(int32_t device_type, int32_t device_id) {
    tensor_.device_type = device_type;
    tensor_.device_id = device_id;
    return *this;
  }

  /** For a call's struct; lives as long as this. */
  const chorus_tensor *get() const noexcept { return &tensor_; }
  chorus_tensor &raw() noexcept { return tensor_; }

 private:
  chorus_tensor tensor_;
  int64_t shape_[CHORUS_MAX_DIMENSIONS], strides_[CHORUS_MAX_DIMENSIONS];
};

/* ---- Context ------------------------------------------------------------------------------ */

class ContextSpec : public Handle<chorus_context_spec, chorus_context_spec_destroy> {
 public:
  ContextSpec() { create(chorus_context_spec_create); }
  ContextSpec &set_option(const std::string &name, const std::string &value) {
    check([&](chorus_error **e) { return chorus_context_spec_set_option(get(), name.c_str(), value.c_str(), e); });
    return *this;
  }
  ContextSpec &set_log(chorus_log_fn log, void *user, chorus_log_level level) {
    check([&](chorus_error **e) { return chorus_context_spec_set_log(get(), log, user, level, e); });
    return *this;
  }
  ContextSpec &set_parallel_for(chorus_parallel_for_fn parallel_for, void *user, int32_t threads) {
    check([&](chorus_error **e) { return chorus_context_spec_set_parallel_for(get(), parallel_for, user, threads, e); });
    return *this;
  }
  ContextSpec &add_plugin(const std::string &path) {
    check([&](chorus_error **e) { return chorus_context_spec_add_plugin(get(), path.c_str(), e); });
    return *this;
  }
};

class Context : public Handle<chorus_context, chorus_context_destroy> {
 public:
  Context() : Context(nullptr) {}
  explicit Context(const ContextSpec &spec) : Context(spec.get()) {}

  /** What was found; text lives as long as the context. */
  std::vector<chorus_plugin_info> plugins() const {
    const chorus_plugin_info empty = CHORUS_PLUGIN_INFO_INIT;
    return list(empty, chorus_context_get_plugin_count(get()), chorus_context_get_plugin);
  }
  std::vector<chorus_device_info> devices() const {
    const chorus_device_info empty = CHORUS_DEVICE_INFO_INIT;
    return list(empty, chorus_context_get_device_count(get()), chorus_context_get_device);
  }
  std::vector<chorus_option_info> options() const {
    const chorus_option_info empty = CHORUS_OPTION_INFO_INIT;
    return list(empty, chorus_context_get_option_count(get()), chorus_context_get_option);
  }
  void check_device(const std::string &device) const {
    check([&](chorus_error **e) { return chorus_device_check(get(), device.c_str(), e); });
  }

 private:
  explicit Context(const chorus_context_spec *spec) {
    create([&](chorus_context **out, chorus_error **e) { return chorus_context_create(spec, out, e); });
  }
  template <typename Info, typename Get>
  std::vector<Info> list(const Info &empty, size_t count, Get get_one) const {
    std::vector<Info> out(count, empty);
    for (size_t i = 0; i < count; ++i) check([&](chorus_error **e) { return get_one(get(), i, &out[i], e); });
    return out;
  }
};

/** Memory of a device. The context must outlive it. */
class Memory {
 public:
  Memory(const Context &context, const std::string &device, uint64_t bytes)
      : context_(context.get()), device_(device), bytes_(bytes), data_(nullptr) {
    check([&](chorus_error **e) { return chorus_memory_allocate(context_, device_.c_str(), bytes_, &data_, e); });
  }
  Memory(Memory &&other) noexcept
      : context_(other.context_), device_(std::move(other.device_)), bytes_(other.bytes_), data_(other.data_) {
    other.data_ = nullptr;
  }
  Memory &operator=(Memory &&other) noexcept {
    std::swap(context_, other.context_);
    std::swap(device_, other.device_);
    std::swap(bytes_, other.bytes_);
    std::swap(data_, other.data_);
    return *this;
  }
  Memory(const Memory &) = delete;
  Memory &operator=(const Memory &) = delete;
  ~Memory() { chorus_memory_free(context_, device_.c_str(), data_, bytes_); }

  void *data() const noexcept { return data_; }
  uint64_t size() const noexcept { return bytes_; }
  /** Copies all of it from or to host memory. */
  void copy_from(const void *from) { copy(data_, from); }
  void copy_to(void *to) const { copy(to, data_); }

 private:
  void copy(void *to, const void *from) const {
    check([&](chorus_error **e) { return chorus_memory_copy(context_, device_.c_str(), to, from, bytes_, e); });
  }
  const chorus_context *context_;
  std::string device_;
  uint64_t bytes_;
  void *data_;
};

/* ---- Combiner ----------------------------------------------------------------------------- */

class CombinerSpec : public Handle<chorus_combiner_spec, chorus_combiner_spec_destroy> {
 public:
  CombinerSpec() { create(chorus_combiner_spec_create); }
  CombinerSpec &set_rule(chorus_combine_rule rule) { return set(chorus_combiner_spec_set_rule, rule); }
  CombinerSpec &set_vocabulary_size(int64_t n) { return set(chorus_combiner_spec_set_vocabulary_size, n); }
  CombinerSpec &set_max_rows(int64_t rows) { return set(chorus_combiner_spec_set_max_rows, rows); }
  CombinerSpec &set_outputs(uint32_t outputs) { return set(chorus_combiner_spec_set_outputs, outputs); }
  CombinerSpec &set_log_probs_dtype(chorus_dtype dtype) { return set(chorus_combiner_spec_set_log_probs_dtype, dtype); }
  CombinerSpec &set_weights_per_row(bool yes) { return set(chorus_combiner_spec_set_weights_per_row, int32_t{yes}); }
  CombinerSpec &add_model(chorus_score_kind kind, chorus_dtype dtype, int64_t n_logits, int64_t n_valid, double weight,
                          double temperature = 1) {
    check([&](chorus_error **e) {
      return chorus_combiner_spec_add_model(get(), kind, dtype, n_logits, n_valid, weight, temperature, nullptr, e);
    });
    return *this;
  }
  /* combine_options.h */
  CombinerSpec &set_order(double order) { return set(chorus_combiner_spec_set_order, order); }
  CombinerSpec &set_trim(int32_t trim) { return set(chorus_combiner_spec_set_trim, trim); }
  CombinerSpec &set_vote_size(int32_t k) { return set(chorus_combiner_spec_set_vote_size, k); }
  CombinerSpec &set_base_model(int32_t model) { return set(chorus_combiner_spec_set_base_model, model); }
  CombinerSpec &set_neighbours(chorus_score_kind kind, double weight) {
    return set(chorus_combiner_spec_set_neighbours, kind, weight);
  }
  CombinerSpec &set_model_filter(int32_t model, int64_t top_k, double top_p, double plausibility = 0) {
    return set(chorus_combiner_spec_set_model_filter, model, top_k, top_p, plausibility);
  }
  CombinerSpec &set_model_bias(int32_t model, bool yes) { return set(chorus_combiner_spec_set_model_bias, model, int32_t{yes}); }
  CombinerSpec &set_model_mask(int32_t model, bool yes) { return set(chorus_combiner_spec_set_model_mask, model, int32_t{yes}); }
  CombinerSpec &set_model_map(int32_t model, const chorus_vocabulary_map *map) {
    return set(chorus_combiner_spec_set_model_map, model, map);
  }
  CombinerSpec &set_model_missing(int32_t model, chorus_combine_missing policy, int32_t unknown_id = 0, double log_prob = 0) {
    return set(chorus_combiner_spec_set_model_missing, model, policy, unknown_id, log_prob);
  }
  CombinerSpec &set_model_fingerprint(int32_t model, uint64_t low, uint64_t high) {
    return set(chorus_combiner_spec_set_model_fingerprint, model, low, high);
  }
  CombinerSpec &set_temperature(double t) { return set(chorus_combiner_spec_set_temperature, t); }
  CombinerSpec &set_top_k(int64_t k) { return set(chorus_combiner_spec_set_top_k, k); }
  CombinerSpec &set_top_p(double p) { return set(chorus_combiner_spec_set_top_p, p); }
  CombinerSpec &set_min_p(double p) { return set(chorus_combiner_spec_set_min_p, p); }
  CombinerSpec &set_typical_p(double p) { return set(chorus_combiner_spec_set_typical_p, p); }
  CombinerSpec &set_penalties(bool yes) { return set(chorus_combiner_spec_set_penalties, int32_t{yes}); }
  CombinerSpec &set_top_size(int32_t n_top) { return set(chorus_combiner_spec_set_top_size, n_top); }
  /* Recipes (recipes.h), with their originals' numbers; after the models. */
  CombinerSpec &use_dexperts(double alpha = 2, double top_p = 0.9) { return set(chorus_combiner_spec_use_dexperts, alpha, top_p); }
  CombinerSpec &use_proxy_tuning(double alpha = 1) { return set(chorus_combiner_spec_use_proxy_tuning, alpha); }
  CombinerSpec &use_contrastive_2022(double beta = 0.5, double alpha = 0.1) {
    return set(chorus_combiner_spec_use_contrastive_2022, beta, alpha);
  }
  CombinerSpec &use_contrastive_2023(double beta = 0.5, double alpha = 0.1) {
    return set(chorus_combiner_spec_use_contrastive_2023, beta, alpha);
  }
  CombinerSpec &use_guidance(double gamma) { return set(chorus_combiner_spec_use_guidance, gamma); }
  CombinerSpec &use_context_aware(double alpha = 1) { return set(chorus_combiner_spec_use_context_aware, alpha); }
  CombinerSpec &use_evidence(double beta) { return set(chorus_combiner_spec_use_evidence, beta); }
  CombinerSpec &use_neighbours(double lambda = 0.25) { return set(chorus_combiner_spec_use_neighbours, lambda); }
  CombinerSpec &use_shallow_fusion(double beta = 1) { return set(chorus_combiner_spec_use_shallow_fusion, beta); }

 private:
  template <typename Function, typename... Values>
  CombinerSpec &set(Function function, Values... values) {
    check([&](chorus_error **e) { return function(get(), values..., e); });
    return *this;
  }
};

class Combiner : public Handle<chorus_combiner, chorus_combiner_destroy> {
 public:
  Combiner(const Context &context, const CombinerSpec &spec, const std::string &device = "auto") {
    create([&](chorus_combiner **out, chorus_error **e) {
      return chorus_combiner_create(context.get(), spec.get(), device.c_str(), out, e);
    });
  }
  void run(const chorus_combine_in &in, const chorus_combine_out &out, const chorus_exec *exec = nullptr) const {
    check([&](chorus_error **e) { return chorus_combiner_run(get(), &in, &out, exec, e); });
  }
  uint64_t workspace_size(int64_t rows) const {
    uint64_t bytes = 0;
    check([&](chorus_error **e) { return chorus_combiner_get_workspace_size(get(), rows, &bytes, e); });
    return bytes;
  }
  const char *kernel() const noexcept { return chorus_combiner_get_kernel(get()); }
};

/* ---- Router and experts ------------------------------------------------------------------- */

class RouterSpec : public Handle<chorus_router_spec, chorus_router_spec_destroy> {
 public:
  RouterSpec(int32_t n_experts, int32_t k) {
    create([&](chorus_router_spec **out, chorus_error **e) { return chorus_router_spec_create(n_experts, k, out, e); });
  }
  RouterSpec &set_max_tokens(int64_t tokens) {
    check([&](chorus_error **e) { return chorus_router_spec_set_max_tokens(get(), tokens, e); });
    return *this;
  }
  RouterSpec &set_dtypes(chorus_dtype logits, chorus_dtype ids, chorus_dtype weights) {
    check([&](chorus_error **e) { return chorus_router_spec_set_dtypes(get(), logits, ids, weights, e); });
    return *this;
  }
  RouterSpec &set_score(chorus_route_score score, chorus_route_order order) {
    check([&](chorus_error **e) { return chorus_router_spec_set_score(get(), score, order, e); });
    return *this;
  }
  RouterSpec &set_bias(bool has_bias) {
    check([&](chorus_error **e) { return chorus_router_spec_set_bias(get(), has_bias, e); });
    return *this;
  }
  RouterSpec &set_weights(chorus_route_renormalise renormalise, double epsilon, double scale) {
    check([&](chorus_error **e) { return chorus_router_spec_set_weights(get(), renormalise, epsilon, scale, e); });
    return *this;
  }
};

class Router : public Handle<chorus_router, chorus_router_destroy> {
 public:
  Router(const Context &context, const RouterSpec &spec, const std::string &device = "auto") {
    create([&](chorus_router **out, chorus_error **e) {
      return chorus_router_create(context.get(), spec.get(), device.c_str(), out, e);
    });
  }
  /** `in` may be NULL. */
  void route(const Tensor &logits, const chorus_route_in *in, const chorus_route_out &out,
             const chorus_exec *exec = nullptr) const {
    check([&](chorus_error **e) { return chorus_router_route(get(), logits.get(), in, &out, exec, e); });
  }
  uint64_t workspace_size(int64_t tokens) const {
    uint64_t bytes = 0;
    check([&](chorus_error **e) { return chorus_router_get_workspace_size(get(), tokens, &bytes, e); });
    return bytes;
  }
  const char *kernel() const noexcept { return chorus_router_get_kernel(get()); }
};

class ExpertsSpec : public Handle<chorus_experts_spec, chorus_experts_spec_destroy> {
 public:
  /** The tensors are borrowed until the Experts are made. */
  ExpertsSpec(const Tensor &gate_up, const Tensor &down, int32_t k) {
    create([&](chorus_experts_spec **out, chorus_error **e) {
      return chorus_experts_spec_create(gate_up.get(), down.get(), k, out, e);
    });
  }
  ExpertsSpec &set_max_tokens(int64_t tokens) {
    check([&](chorus_error **e) { return chorus_experts_spec_set_max_tokens(get(), tokens, e); });
    return *this;
  }
  ExpertsSpec &set_dtypes(chorus_dtype x, chorus_dtype y, chorus_dtype ids) {
    check([&](chorus_error **e) { return chorus_experts_spec_set_dtypes(get(), x, y, ids, e); });
    return *this;
  }
  ExpertsSpec &set_activation(chorus_activation activation, chorus_gate_layout layout) {
    check([&](chorus_error **e) { return chorus_experts_spec_set_activation(get(), activation, layout, e); });
    return *this;
  }
  /** Each may be NULL. */
  ExpertsSpec &set_biases(const Tensor *gate_up, const Tensor *down) {
    check([&](chorus_error **e) {
      return chorus_experts_spec_set_biases(get(), gate_up ? gate_up->get() : nullptr, down ? down->get() : nullptr, e);
    });
    return *this;
  }
  ExpertsSpec &set_expert_map(const Tensor &map) {
    check([&](chorus_error **e) { return chorus_experts_spec_set_expert_map(get(), map.get(), e); });
    return *this;
  }
};

class Experts : public Handle<chorus_experts, chorus_experts_destroy> {
 public:
  Experts(const Context &context, const ExpertsSpec &spec, const std::string &device = "auto") {
    create([&](chorus_experts **out, chorus_error **e) {
      return chorus_experts_create(context.get(), spec.get(), device.c_str(), out, e);
    });
  }
  /** `status` may be NULL. */
  void run(const Tensor &x, const Tensor &ids, const Tensor &weights, const Tensor &y, const Tensor *status = nullptr,
           const chorus_exec *exec = nullptr) const {
    check([&](chorus_error **e) {
      return chorus_experts_run(get(), x.get(), ids.get(), weights.get(), y.get(), status ? status->get() : nullptr, exec, e);
    });
  }
  uint64_t workspace_size(int64_t tokens) const {
    uint64_t bytes = 0;
    check([&](chorus_error **e) { return chorus_experts_get_workspace_size(get(), tokens, &bytes, e); });
    return bytes;
  }
  uint64_t packed_bytes() const noexcept { return chorus_experts_get_packed_bytes(get()); }
  const char *kernel() const noexcept { return chorus_experts_get_kernel(get()); }
};

/* ---- Sparse rows -------------------------------------------------------------------------- */

class SparseSpec : public Handle<chorus_sparse_spec, chorus_sparse_spec_destroy> {
 public:
  /** y = weights x. The tensors are borrowed until the Sparse is made. */
  SparseSpec(const Tensor &weights, chorus_sparse_side side) {
    create([&](chorus_sparse_spec **out, chorus_error **e) {
      return chorus_sparse_spec_create_linear(weights.get(), side, out, e);
    });
  }
  /** A feed-forward block; `gate` may be NULL. */
  SparseSpec(const Tensor *gate, const Tensor &up, const Tensor &down) {
    create([&](chorus_sparse_spec **out, chorus_error **e) {
      return chorus_sparse_spec_create_ffn(gate ? gate->get() : nullptr, up.get(), down.get(), out, e);
    });
  }
  SparseSpec &set_max_rows(int32_t rows) {
    check([&](chorus_error **e) { return chorus_sparse_spec_set_max_rows(get(), rows, e); });
    return *this;
  }
  SparseSpec &set_pick(chorus_sparse_pick pick, double threshold = 0) {
    check([&](chorus_error **e) { return chorus_sparse_spec_set_pick(get(), pick, threshold, e); });
    return *this;
  }
};

class Sparse : public Handle<chorus_sparse, chorus_sparse_destroy> {
 public:
  Sparse(const Context &context, const SparseSpec &spec, const std::string &device = "auto") {
    create([&](chorus_sparse **out, chorus_error **e) {
      return chorus_sparse_create(context.get(), spec.get(), device.c_str(), out, e);
    });
  }
  /** Returns the density; `in` and `out` may be NULL. Host devices. */
  double run(const Tensor &x, const chorus_sparse_in *in, const Tensor &y, const chorus_sparse_out *out = nullptr,
             const chorus_exec *exec = nullptr) const {
    double density = 0;
    check([&](chorus_error **e) { return chorus_sparse_linear(get(), x.get(), in, y.get(), out, &density, exec, e); });
    return density;
  }
  const char *kernel() const noexcept { return chorus_sparse_get_kernel(get()); }
};

/* ---- Checkpoints -------------------------------------------------------------------------- */

class Checkpoint : public Handle<chorus_checkpoint, chorus_checkpoint_destroy> {
 public:
  Checkpoint(const Context &context, const std::string &path) {
    create([&](chorus_checkpoint **out, chorus_error **e) {
      return chorus_checkpoint_open(context.get(), path.c_str(), out, e);
    });
  }
  std::string folder() const { return chorus_checkpoint_get_folder(get()); }
  size_t file_count() const noexcept { return chorus_checkpoint_get_file_count(get()); }
  size_t tensor_count() const noexcept { return chorus_checkpoint_get_tensor_count(get()); }
  chorus_tensor_info tensor(size_t index) const {
    chorus_tensor_info info = CHORUS_TENSOR_INFO_INIT;
    check([&](chorus_error **e) { return chorus_checkpoint_get_tensor(get(), index, &info, e); });
    return info;
  }
  size_t find(const std::string &name) const {
    size_t index = 0;
    check([&](chorus_error **e) { return chorus_checkpoint_find_tensor(get(), name.c_str(), &index, e); });
    return index;
  }
  void read(size_t index, const Tensor &out) const {
    check([&](chorus_error **e) { return chorus_checkpoint_read(get(), index, out.get(), e); });
  }
  void read_bytes(size_t index, uint64_t offset, uint64_t bytes, void *out) const {
    check([&](chorus_error **e) { return chorus_checkpoint_read_bytes(get(), index, offset, bytes, out, e); });
  }
  std::string config() const { return chorus_checkpoint_get_config(get()); }
  double config_number(const std::string &key) const {
    double value = 0;
    check([&](chorus_error **e) { return chorus_checkpoint_get_config_number(get(), key.c_str(), &value, e); });
    return value;
  }
  /** `missing` where there is no such key. */
  double config_number(const std::string &key, double missing) const {
    double value = 0;
    chorus_error *error = nullptr;
    const chorus_status status = chorus_checkpoint_get_config_number(get(), key.c_str(), &value, &error);
    if (status != CHORUS_OK && status != CHORUS_NOT_FOUND) throw Error(status, error);
    chorus_error_destroy(error);
    return status == CHORUS_OK ? value : missing;
  }
  std::string config_string(const std::string &key) const {
    const char *value = nullptr;
    check([&](chorus_error **e) { return chorus_checkpoint_get_config_string(get(), key.c_str(), &value, e); });
    return value;
  }
  std::vector<std::pair<std::string, std::string>> metadata() const {
    std::vector<std::pair<std::string, std::string>> out;
    for (size_t i = 0; i < chorus_checkpoint_get_metadata_count(get()); ++i) {
      const char *key = nullptr, *value = nullptr;
      check([&](chorus_error **e) { return chorus_checkpoint_get_metadata(get(), i, &key, &value, e); });
      out.emplace_back(key, value);
    }
    return out;
  }
};

class CheckpointWriterSpec : public Handle<chorus_checkpoint_writer_spec, chorus_checkpoint_writer_spec_destroy> {
 public:
  CheckpointWriterSpec() { create(chorus_checkpoint_writer_spec_create); }
  /** Returns the number of the tensor. */
  size_t add_tensor(const std::string &name, chorus_dtype dtype, const std::vector<int64_t> &shape) {
    size_t index = 0;
    check([&](chorus_error **e) {
      return chorus_checkpoint_writer_spec_add_tensor(get(), name.c_str(), dtype, static_cast<int32_t>(shape.size()),
                                                      shape.data(), &index, e);
    });
    return index;
  }
  CheckpointWriterSpec &set_max_shard_bytes(uint64_t bytes) {
    check([&](chorus_error **e) { return chorus_checkpoint_writer_spec_set_max_shard_bytes(get(), bytes, e); });
    return *this;
  }
  /** `value` NULL removes the entry. */
  CheckpointWriterSpec &set_metadata(const std::string &key, const char *value) {
    check([&](chorus_error **e) { return chorus_checkpoint_writer_spec_set_metadata(get(), key.c_str(), value, e); });
    return *this;
  }
  CheckpointWriterSpec &add_file(const std::string &name, const std::string &path) {
    check([&](chorus_error **e) { return chorus_checkpoint_writer_spec_add_file(get(), name.c_str(), path.c_str(), e); });
    return *this;
  }
  CheckpointWriterSpec &add_text(const std::string &name, const std::string &text) {
    check([&](chorus_error **e) {
      return chorus_checkpoint_writer_spec_add_text(get(), name.c_str(), text.data(), text.size(), e);
    });
    return *this;
  }
  CheckpointWriterSpec &set_replace(bool yes) {
    check([&](chorus_error **e) { return chorus_checkpoint_writer_spec_set_replace(get(), yes, e); });
    return *this;
  }
};

class CheckpointWriter : public Handle<chorus_checkpoint_writer, chorus_checkpoint_writer_destroy> {
 public:
  CheckpointWriter(const Context &context, const CheckpointWriterSpec &spec, const std::string &folder) {
    create([&](chorus_checkpoint_writer **out, chorus_error **e) {
      return chorus_checkpoint_writer_create(context.get(), spec.get(), folder.c_str(), out, e);
    });
  }
  void write(size_t index, const Tensor &tensor) {
    check([&](chorus_error **e) { return chorus_checkpoint_writer_write(get(), index, tensor.get(), e); });
  }
  void write_bytes(size_t index, uint64_t offset, uint64_t bytes, const void *data) {
    check([&](chorus_error **e) { return chorus_checkpoint_writer_write_bytes(get(), index, offset, bytes, data, e); });
  }
  void finish() {
    check([&](chorus_error **e) { return chorus_checkpoint_writer_finish(get(), e); });
  }
};

/* ---- Merging ------------------------------------------------------------------------------ */

class MergerSpec : public Handle<chorus_merger_spec, chorus_merger_spec_destroy> {
 public:
  MergerSpec() { create(chorus_merger_spec_create); }
  /** `name` stands before line and column in messages. */
  MergerSpec &set_recipe(const std::string &text, const char *name = nullptr) {
    check([&](chorus_error **e) { return chorus_merger_spec_set_recipe(get(), text.data(), text.size(), name, e); });
    return *this;
  }
  MergerSpec &set_recipe_file(const std::string &path) {
    check([&](chorus_error **e) { return chorus_merger_spec_set_recipe_file(get(), path.c_str(), e); });
    return *this;
  }
  MergerSpec &set_output(const std::string &folder) {
    check([&](chorus_error **e) { return chorus_merger_spec_set_output(get(), folder.c_str(), e); });
    return *this;
  }
  MergerSpec &set_memory(uint64_t bytes) {
    check([&](chorus_error **e) { return chorus_merger_spec_set_memory(get(), bytes, e); });
    return *this;
  }
  MergerSpec &set_max_shard_bytes(uint64_t bytes) {
    check([&](chorus_error **e) { return chorus_merger_spec_set_max_shard_bytes(get(), bytes, e); });
    return *this;
  }
  MergerSpec &set_seed(uint64_t seed) {
    check([&](chorus_error **e) { return chorus_merger_spec_set_seed(get(), seed, e); });
    return *this;
  }
  MergerSpec &set_numerics(chorus_merge_numerics numerics) {
    check([&](chorus_error **e) { return chorus_merger_spec_set_numerics(get(), numerics, e); });
    return *this;
  }
  MergerSpec &set_replace(bool yes) {
    check([&](chorus_error **e) { return chorus_merger_spec_set_replace(get(), yes, e); });
    return *this;
  }
  /** Merge in memory by this method, without a recipe. */
  MergerSpec &set_method(const std::string &method) {
    check([&](chorus_error **e) { return chorus_merger_spec_set_method(get(), method.c_str(), e); });
    return *this;
  }
  MergerSpec &set_parameter(const std::string &name, double value) {
    check([&](chorus_error **e) { return chorus_merger_spec_set_parameter(get(), name.c_str(), value, e); });
    return *this;
  }
  MergerSpec &set_model_parameter(size_t model, const std::string &name, double value) {
    check([&](chorus_error **e) { return chorus_merger_spec_set_model_parameter(get(), model, name.c_str(), value, e); });
    return *this;
  }
  MergerSpec &set_resume(bool yes) {
    check([&](chorus_error **e) { return chorus_merger_spec_set_resume(get(), yes, e); });
    return *this;
  }
  MergerSpec &set_command(const std::string &command) {
    check([&](chorus_error **e) { return chorus_merger_spec_set_command(get(), command.c_str(), e); });
    return *this;
  }
};

class Merger : public Handle<chorus_merger, chorus_merger_destroy> {
 public:
  Merger(const Context &context, const MergerSpec &spec, const std::string &device = "auto") {
    create([&](chorus_merger **out, chorus_error **e) {
      return chorus_merger_create(context.get(), spec.get(), device.c_str(), out, e);
    });
  }
  chorus_merge_plan plan() const {
    chorus_merge_plan out = CHORUS_MERGE_PLAN_INIT;
    check([&](chorus_error **e) { return chorus_merger_get_plan(get(), &out, e); });
    return out;
  }
  std::string plan_text() const { return chorus_merger_get_plan_text(get()); }
  std::string plan_json() const { return chorus_merger_get_plan_json(get()); }
  std::vector<std::string> warnings() const {
    std::vector<std::string> out;
    for (size_t i = 0; i < chorus_merger_get_warning_count(get()); ++i) out.push_back(chorus_merger_get_warning(get(), i));
    return out;
  }
  void run(chorus_merge_progress_fn progress = nullptr, void *user = nullptr) const {
    check([&](chorus_error **e) { return chorus_merger_run(get(), progress, user, e); });
  }
  /** In memory; `base` may be NULL. */
  void merge_tensors(const std::string &name, const std::vector<const chorus_tensor *> &models, const chorus_tensor *base,
                     const chorus_tensor &out, const chorus_exec *exec = nullptr) const {
    check([&](chorus_error **e) {
      return chorus_merger_merge_tensors(get(), name.c_str(), models.data(), models.size(), base, &out, exec, e);
    });
  }
  uint64_t workspace_size(const std::vector<const chorus_tensor *> &models, const chorus_tensor *base, const chorus_tensor &out) const {
    uint64_t bytes = 0;
    check([&](chorus_error **e) {
      return chorus_merger_get_workspace_size(get(), models.data(), models.size(), base, &out, &bytes, e);
    });
    return bytes;
  }
};

/* ---- Vocabularies ------------------------------------------------------------------------- */

class Vocabulary : public Handle<chorus_vocabulary, chorus_vocabulary_destroy> {
 public:
  Vocabulary(const Context &context, const std::string &path) {
    create([&](chorus_vocabulary **out, chorus_error **e) {
      return chorus_vocabulary_open(context.get(), path.c_str(), out, e);
    });
  }
  size_t size() const noexcept { return chorus_vocabulary_get_size(get()); }
  chorus_token_info token(size_t id) const {
    chorus_token_info info = CHORUS_TOKEN_INFO_INIT;
    check([&](chorus_error **e) { return chorus_vocabulary_get_token(get(), id, &info, e); });
    return info;
  }
  /** -1 when no token has these bytes. */
  int32_t find(const std::string &bytes) const noexcept { return chorus_vocabulary_find(get(), bytes.data(), bytes.size()); }
  /** Throws where an id means another token in `other`. */
  void check_equal(const Vocabulary &other) const {
    check([&](chorus_error **e) { return chorus_vocabulary_check_equal(get(), other.get(), e); });
  }
  std::pair<uint64_t, uint64_t> fingerprint() const {
    uint64_t words[2] = {0, 0};
    check([&](chorus_error **e) { return chorus_vocabulary_get_fingerprint(get(), words, e); });
    return std::make_pair(words[0], words[1]);
  }
  std::vector<int32_t> encode(const std::string &text, uint32_t flags = 0) const {
    /* A text rarely has more tokens than bytes; when it does, the count of the first call is exact. */
    std::vector<int32_t> ids(text.size() + 8);
    size_t count = 0;
    if (chorus_vocabulary_encode(get(), text.data(), text.size(), flags, ids.data(), ids.size(), &count, nullptr) != CHORUS_OK) {
      ids.resize(count > ids.size() ? count : ids.size());
      check([&](chorus_error **e) {
        return chorus_vocabulary_encode(get(), text.data(), text.size(), flags, ids.data(), ids.size(), &count, e);
      });
    }
    ids.resize(count);
    return ids;
  }
  std::string decode(const std::vector<int32_t> &ids, uint32_t flags = 0) const {
    size_t length = 0;
    check([&](chorus_error **e) {
      return chorus_vocabulary_decode(get(), ids.data(), ids.size(), flags, nullptr, 0, &length, e);
    });
    std::string text(length, '\0');
    check([&](chorus_error **e) {
      return chorus_vocabulary_decode(get(), ids.data(), ids.size(), flags, &text[0], length, &length, e);
    });
    return text;
  }
};

class VocabularyMap : public Handle<chorus_vocabulary_map, chorus_vocabulary_map_destroy> {
 public:
  VocabularyMap(const Vocabulary &from, const Vocabulary &to) {
    create([&](chorus_vocabulary_map **out, chorus_error **e) {
      return chorus_vocabulary_map_create(from.get(), to.get(), out, e);
    });
  }
  /** Takes `map`. */
  explicit VocabularyMap(chorus_vocabulary_map *map) : Handle(map) {}
  /** Maps onto what the vocabularies have in common: CHORUS_VOCABULARY_UNION or _INTERSECTION. */
  static std::vector<VocabularyMap> common(const std::vector<const Vocabulary *> &vocabularies, chorus_vocabulary_common kind) {
    std::vector<const chorus_vocabulary *> list;
    for (const Vocabulary *vocabulary : vocabularies) list.push_back(vocabulary->get());
    std::vector<chorus_vocabulary_map *> maps(list.size());
    check([&](chorus_error **e) {
      return chorus_vocabulary_map_create_common(list.data(), list.size(), kind, maps.data(), e);
    });
    return std::vector<VocabularyMap>(maps.begin(), maps.end());
  }
  chorus_vocabulary_map_info arrays() const {
    chorus_vocabulary_map_info info = CHORUS_VOCABULARY_MAP_INFO_INIT;
    check([&](chorus_error **e) { return chorus_vocabulary_map_get(get(), &info, e); });
    return info;
  }
};

/* ---- Bytes -------------------------------------------------------------------------------- */

class ByteTrie : public Handle<chorus_byte_trie, chorus_byte_trie_destroy> {
 public:
  ByteTrie(const Context &context, const Vocabulary &vocabulary, const std::vector<int32_t> &end_ids) {
    create([&](chorus_byte_trie **out, chorus_error **e) {
      return chorus_byte_trie_create(context.get(), vocabulary.get(), end_ids.data(), end_ids.size(), out, e);
    });
  }
  /** Token i stands for the bytes of tokens[i]; "" for none. */
  ByteTrie(const Context &context, const std::vector<std::string> &tokens, const std::vector<int32_t> &end_ids) {
    std::string text;
    std::vector<uint64_t> offsets(1, 0);
    for (const std::string &token : tokens) {
      text += token;
      offsets.push_back(text.size());
    }
    create([&](chorus_byte_trie **out, chorus_error **e) {
      return chorus_byte_trie_create_from_tokens(context.get(), reinterpret_cast<const uint8_t *>(text.data()),
                                                 offsets.data(), tokens.size(), end_ids.data(), end_ids.size(), out, e);
    });
  }
  void first_bytes(const Tensor &scores, const Tensor &log_probs) const {
    check([&](chorus_error **e) { return chorus_byte_trie_first_bytes(get(), scores.get(), log_probs.get(), e); });
  }
};

class ByteState : public Handle<chorus_byte_state, chorus_byte_state_destroy> {
 public:
  explicit ByteState(const ByteTrie &trie, int64_t max_hypotheses = 0, double min_share = 0) {
    chorus_byte_state_options options = CHORUS_BYTE_STATE_OPTIONS_INIT;
    options.max_hypotheses = max_hypotheses;
    options.min_share = min_share;
    create([&](chorus_byte_state **out, chorus_error **e) { return chorus_byte_state_create(trie.get(), &options, out, e); });
  }
  size_t size() const noexcept { return chorus_byte_state_get_hypothesis_count(get()); }
  chorus_byte_hypothesis hypothesis(size_t index) const {
    chorus_byte_hypothesis out = CHORUS_BYTE_HYPOTHESIS_INIT;
    check([&](chorus_error **e) { return chorus_byte_state_get_hypothesis(get(), index, &out, e); });
    return out;
  }
  void set_scores(size_t index, const Tensor &scores) {
    check([&](chorus_error **e) { return chorus_byte_state_set_scores(get(), index, scores.get(), e); });
  }
  void next(const Tensor &log_probs) const {
    check([&](chorus_error **e) { return chorus_byte_state_next(get(), log_probs.get(), e); });
  }
  void advance(int32_t byte) {
    check([&](chorus_error **e) { return chorus_byte_state_advance(get(), byte, e); });
  }
  double log_prob() const noexcept { return chorus_byte_state_get_log_prob(get()); }
  double kept_share() const noexcept { return chorus_byte_state_get_kept_share(get()); }
};

/* ---- Fits --------------------------------------------------------------------------------- */

class Fit : public Handle<chorus_fit, chorus_fit_destroy> {
 public:
  Fit(const Context &context, const chorus_fit_options &options) {
    create([&](chorus_fit **out, chorus_error **e) { return chorus_fit_create(context.get(), &options, out, e); });
  }
  void add(const chorus_fit_batch &batch) {
    check([&](chorus_error **e) { return chorus_fit_add(get(), &batch, e); });
  }
  /** Ends a pass; true when done. */
  bool step() {
    int32_t done = 0;
    check([&](chorus_error **e) { return chorus_fit_step(get(), &done, e); });
    return done != 0;
  }
  const double *point() const noexcept { return chorus_fit_get_point(get()); }
  /** Its arrays are lent until the next call. */
  chorus_fit_result result() {
    chorus_fit_result out = CHORUS_FIT_RESULT_INIT;
    check([&](chorus_error **e) { return chorus_fit_get_result(get(), &out, e); });
    return out;
  }
};

/* ---- Diagnostics -------------------------------------------------------------------------- */

class Diagnosis : public Handle<chorus_diagnosis, chorus_diagnosis_destroy> {
 public:
  Diagnosis(const Context &context, const chorus_diagnosis_options &options) {
    create([&](chorus_diagnosis **out, chorus_error **e) { return chorus_diagnosis_create(context.get(), &options, out, e); });
  }
  void add(const chorus_diagnosis_batch &batch) {
    check([&](chorus_error **e) { return chorus_diagnosis_add(get(), &batch, e); });
  }
  void merge(const Diagnosis &other) {
    check([&](chorus_error **e) { return chorus_diagnosis_merge(get(), other.get(), e); });
  }
  /** Its arrays are lent until the next call. */
  chorus_diagnosis_info info() {
    chorus_diagnosis_info out = CHORUS_DIAGNOSIS_INFO_INIT;
    check([&](chorus_error **e) { return chorus_diagnosis_get(get(), &out, e); });
    return out;
  }
};

class Passes : public Handle<chorus_passes, chorus_passes_destroy> {
 public:
  Passes(const Context &context, int64_t rows, int64_t n_tokens) {
    create([&](chorus_passes **out, chorus_error **e) { return chorus_passes_create(context.get(), rows, n_tokens, out, e); });
  }
  void add(const Tensor &scores, double weight = 1) {
    check([&](chorus_error **e) { return chorus_passes_add(get(), scores.get(), weight, e); });
  }
  void merge(const Passes &other) {
    check([&](chorus_error **e) { return chorus_passes_merge(get(), other.get(), e); });
  }
  void read(const chorus_passes_out &out) const {
    check([&](chorus_error **e) { return chorus_passes_get(get(), &out, e); });
  }
};

/* ---- Distillation ------------------------------------------------------------------------- */

class Distiller : public Handle<chorus_distiller, chorus_distiller_destroy> {
 public:
  Distiller(const Context &context, const chorus_distill_desc &desc, const std::string &device = "auto") {
    create([&](chorus_distiller **out, chorus_error **e) {
      return chorus_distiller_create(context.get(), &desc, device.c_str(), out, e);
    });
  }
  void run(const chorus_distill_args &args, const chorus_exec *exec = nullptr) const {
    check([&](chorus_error **e) { return chorus_distiller_run(get(), &args, exec, e); });
  }
  uint64_t workspace_size(int64_t rows) const {
    uint64_t bytes = 0;
    check([&](chorus_error **e) { return chorus_distiller_get_workspace_size(get(), rows, &bytes, e); });
    return bytes;
  }
  const char *kernel() const noexcept { return chorus_distiller_get_kernel(get()); }
};

class TargetsWriter : public Handle<chorus_targets_writer, chorus_targets_writer_destroy> {
 public:
  TargetsWriter(const Context &context, const chorus_targets_info &info, const std::string &folder) {
    create([&](chorus_targets_writer **out, chorus_error **e) {
      return chorus_targets_writer_create(context.get(), &info, folder.c_str(), out, e);
    });
  }
  void write_rows(const Tensor &log_probs) {
    check([&](chorus_error **e) { return chorus_targets_writer_write_rows(get(), log_probs.get(), e); });
  }
  void write_top(const Tensor &ids, const Tensor &log_probs, const Tensor &tail) {
    check([&](chorus_error **e) {
      return chorus_targets_writer_write_top(get(), ids.get(), log_probs.get(), tail.get(), e);
    });
  }
  void finish() {
    check([&](chorus_error **e) { return chorus_targets_writer_finish(get(), e); });
  }
};

class Targets : public Handle<chorus_targets, chorus_targets_destroy> {
 public:
  Targets(const Context &context, const std::string &path) {
    create([&](chorus_targets **out, chorus_error **e) { return chorus_targets_open(context.get(), path.c_str(), out, e); });
  }
  chorus_targets_info info() const {
    chorus_targets_info out = CHORUS_TARGETS_INFO_INIT;
    check([&](chorus_error **e) { return chorus_targets_get(get(), &out, e); });
    return out;
  }
  /** Throws unless the ids are those of `vocabulary`. */
  void check_vocabulary(const Vocabulary &vocabulary) const {
    check([&](chorus_error **e) { return chorus_targets_check_vocabulary(get(), vocabulary.get(), e); });
  }
  void read_top(int64_t first, const Tensor &ids, const Tensor &log_probs, const Tensor &tail) const {
    check([&](chorus_error **e) {
      return chorus_targets_read_top(get(), first, ids.get(), log_probs.get(), tail.get(), e);
    });
  }
  void read_rows(int64_t first, const Tensor &log_probs) const {
    check([&](chorus_error **e) { return chorus_targets_read_rows(get(), first, log_probs.get(), e); });
  }
};

}  // namespace api
}  // namespace chorus

#endif /* CHORUS_CHORUS_HPP_ */
