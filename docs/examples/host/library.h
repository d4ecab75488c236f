// SPDX-License-Identifier: Apache-2.0
// libchorus, opened at run time: nothing of it is linked. Its functions become members with their own names, its
// objects handles that free themselves, its errors exceptions, and our memory tensor views.
#pragma once
#include <chorus/chorus.h>

#include <initializer_list>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "matrix.h"

namespace host {

// Every function this program calls; a Library has one pointer for each.
#define HOST_FUNCTIONS(X)                                                                                    \
  X(chorus_version) X(chorus_error_get_text) X(chorus_error_destroy)                                         \
  X(chorus_context_spec_create) X(chorus_context_spec_destroy) X(chorus_context_spec_set_log)                \
  X(chorus_context_create) X(chorus_context_destroy)                                                         \
  X(chorus_context_get_plugin_count) X(chorus_context_get_plugin)                                            \
  X(chorus_checkpoint_open) X(chorus_checkpoint_destroy) X(chorus_checkpoint_find_tensor)                    \
  X(chorus_checkpoint_get_tensor) X(chorus_checkpoint_read) X(chorus_checkpoint_get_config_number)           \
  X(chorus_vocabulary_open) X(chorus_vocabulary_destroy) X(chorus_vocabulary_get_size)                       \
  X(chorus_vocabulary_find) X(chorus_vocabulary_encode) X(chorus_vocabulary_decode)                          \
  X(chorus_combiner_spec_create) X(chorus_combiner_spec_destroy) X(chorus_combiner_spec_set_rule)            \
  X(chorus_combiner_spec_set_max_rows) X(chorus_combiner_spec_add_model) X(chorus_combiner_create)           \
  X(chorus_combiner_destroy) X(chorus_combiner_run) X(chorus_combiner_get_kernel)                            \
  X(chorus_merger_spec_create) X(chorus_merger_spec_destroy) X(chorus_merger_spec_set_recipe)                \
  X(chorus_merger_spec_set_output) X(chorus_merger_create) X(chorus_merger_destroy) X(chorus_merger_run)     \
  X(chorus_merger_get_plan_json)                                                                             \
  X(chorus_router_spec_create) X(chorus_router_spec_destroy) X(chorus_router_spec_set_max_tokens)            \
  X(chorus_router_spec_set_weights) X(chorus_router_create) X(chorus_router_destroy)                         \
  X(chorus_router_route) X(chorus_router_get_kernel)                                                         \
  X(chorus_experts_spec_create) X(chorus_experts_spec_destroy) X(chorus_experts_spec_set_max_tokens)         \
  X(chorus_experts_create) X(chorus_experts_destroy) X(chorus_experts_run) X(chorus_experts_get_kernel)

template <typename T>
struct Destroy {
  void (*function)(T *) = nullptr;
  void operator()(T *object) const { function(object); }
};

// Owns an object of the library.
template <typename T>
using Handle = std::unique_ptr<T, Destroy<T>>;

// A chorus_tensor over memory of ours, for the length of a call.
class View {
 public:
  explicit View(const Matrix &m) : View(m.data.data(), CHORUS_F32, m.data.size() * 4, m.rows, m.columns) {}
  View(const float *data, std::initializer_list<int64_t> shape) : View(data, CHORUS_F32, shape) {}
  View(const int32_t *data, std::initializer_list<int64_t> shape) : View(data, CHORUS_I32, shape) {}
  View(const View &) = delete;
  View &operator=(const View &) = delete;
  operator const chorus_tensor *() const { return &tensor_; }

 private:
  View(const void *data, chorus_dtype dtype, uint64_t bytes, size_t rows, size_t columns)
      : shape_{static_cast<int64_t>(rows), static_cast<int64_t>(columns)} {
    fill(data, dtype, bytes);
  }
  View(const void *data, chorus_dtype dtype, std::initializer_list<int64_t> shape) : shape_(shape) {
    uint64_t bytes = 4;
    for (int64_t size : shape) bytes *= static_cast<uint64_t>(size);
    fill(data, dtype, bytes);
  }
  void fill(const void *data, chorus_dtype dtype, uint64_t bytes) {
    tensor_.data = const_cast<void *>(data);
    tensor_.size_bytes = bytes;
    tensor_.device_type = CHORUS_DEVICE_HOST;
    tensor_.dtype_code = static_cast<uint8_t>(dtype & 0xff);
    tensor_.dtype_bits = static_cast<uint8_t>(dtype >> 8);
    tensor_.dtype_lanes = 1;
    tensor_.ndim = static_cast<int32_t>(shape_.size());
    tensor_.shape = shape_.data();
  }

  std::vector<int64_t> shape_;
  chorus_tensor tensor_ = CHORUS_TENSOR_INIT;
};

class Library {
 public:
  // Opens CHORUS_LIBRARY where set, else ../lib/libchorus.so beside this program, else what the loader finds.
  Library();

#define HOST_MEMBER(name) decltype(&::name) name = nullptr;
  HOST_FUNCTIONS(HOST_MEMBER)
#undef HOST_MEMBER

  const std::string &path() const { return path_; }

  // Runs call(&error) and throws what it reports, causes included.
  template <typename Call>
  void check(Call call) const {
    chorus_error *error = nullptr;
    const chorus_status status = call(&error);
    if (status == CHORUS_OK) return;
    const std::string text = error != nullptr ? chorus_error_get_text(error) : "out of memory";
    chorus_error_destroy(error);
    throw std::runtime_error(text);
  }

  // The object that create(&object, &error) makes.
  template <typename T, typename Create>
  Handle<T> make(void (*destroy)(T *), Create create) const {
    T *object = nullptr;
    check([&](chorus_error **error) { return create(&object, error); });
    return Handle<T>(object, Destroy<T>{destroy});
  }

  // k experts for each row of logits, and how many rows each expert got.
  void route(const Handle<chorus_router> &router, const View &logits, const View &ids, const View &weights,
             const View &counts) const;
  void run_experts(const Handle<chorus_experts> &experts, const View &x, const View &ids, const View &weights,
                   const View &y) const;

 private:
  std::string path_;
};

}  // namespace host
