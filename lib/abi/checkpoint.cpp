// SPDX-License-Identifier: Apache-2.0
// checkpoint.h, the reading half: calls into checkpoint/model.
#include "chorus/checkpoint.h"

#include "abi/boundary.h"
#include "abi/checkpoint_object.h"
#include "abi/info.h"
#include "checkpoint/transfer.h"
#include "runtime/context.h"

using chorus::fail;
using chorus::abi::guarded;
using chorus::abi::require;

namespace {

using chorus::checkpoint::Model;
using chorus::checkpoint::Tensor;

chorus_tensor_info info_of(const Model &model, const Tensor &tensor) {
  chorus_tensor_info info = CHORUS_TENSOR_INFO_INIT;
  info.name = tensor.name.c_str();
  info.name_length = tensor.name.size();
  info.file = model.files()[tensor.file].path().c_str();
  info.file_offset = tensor.offset;
  info.size_bytes = tensor.bytes;
  info.shape = tensor.shape.data();
  info.ndim = static_cast<int32_t>(tensor.shape.size());
  info.dtype = tensor.type->dtype;
  info.dtype_name = tensor.type->name;
  info.kind = tensor.role.kind;
  info.part = tensor.role.part;
  info.layer = tensor.role.layer;
  info.expert = tensor.role.expert;
  info.role_flags = tensor.role.flags;
  return info;
}

// The value at a path with dots; fails NOT_FOUND.
const nlohmann::json &config_value(const chorus_checkpoint *checkpoint, const char *key) {
  const Model &model = require(checkpoint, "checkpoint")->model;
  const nlohmann::json *at = &model.config();
  for (std::string_view rest = require(key, "key"); at != nullptr;) {
    const std::string_view word = rest.substr(0, rest.find('.'));
    const auto found = at->is_object() ? at->find(word) : at->end();
    at = found == at->end() ? nullptr : &*found;
    if (word.size() == rest.size()) break;
    rest.remove_prefix(word.size() + 1);
  }
  if (at == nullptr || at->is_null()) fail(CHORUS_NOT_FOUND, "config.json of {} has no '{}'", model.folder(), key);
  return *at;
}

}  // namespace

extern "C" {

chorus_status chorus_checkpoint_open(const chorus_context *context, const char *path, chorus_checkpoint **out_checkpoint,
                                     chorus_error **error) {
  return guarded(error, [&] {
    *require(out_checkpoint, "out_checkpoint") = nullptr;
    chorus::context_of(context);
    *out_checkpoint = new chorus_checkpoint{Model::open(require(path, "path"))};
  });
}

void chorus_checkpoint_destroy(chorus_checkpoint *checkpoint) { delete checkpoint; }

const char *chorus_checkpoint_get_folder(const chorus_checkpoint *checkpoint) {
  return checkpoint != nullptr ? checkpoint->model.folder().c_str() : "";
}

size_t chorus_checkpoint_get_file_count(const chorus_checkpoint *checkpoint) {
  return checkpoint != nullptr ? checkpoint->model.files().size() : 0;
}

const char *chorus_checkpoint_get_file(const chorus_checkpoint *checkpoint, size_t index) {
  return index < chorus_checkpoint_get_file_count(checkpoint) ? checkpoint->model.files()[index].path().c_str() : nullptr;
}

size_t chorus_checkpoint_get_tensor_count(const chorus_checkpoint *checkpoint) {
  return checkpoint != nullptr ? checkpoint->model.tensors().size() : 0;
}

chorus_status chorus_checkpoint_get_tensor(const chorus_checkpoint *checkpoint, size_t index, chorus_tensor_info *out_info,
                                           chorus_error **error) {
  return guarded(error, [&] {
    const Model &model = require(checkpoint, "checkpoint")->model;
    chorus::abi::fill_info(out_info, info_of(model, chorus::abi::at(model.tensors(), index, "index")));
  });
}

chorus_status chorus_checkpoint_find_tensor(const chorus_checkpoint *checkpoint, const char *name, size_t *out_index,
                                            chorus_error **error) {
  return guarded(error, [&] {
    *require(out_index, "out_index") = require(checkpoint, "checkpoint")->model.index_of(require(name, "name"));
  });
}

chorus_status chorus_checkpoint_read(const chorus_checkpoint *checkpoint, size_t index, const chorus_tensor *out,
                                     chorus_error **error) {
  return guarded(error, [&] {
    const Model &model = require(checkpoint, "checkpoint")->model;
    chorus::checkpoint::read_tensor(model, chorus::abi::at(model.tensors(), index, "index"), out);
  });
}

chorus_status chorus_checkpoint_read_bytes(const chorus_checkpoint *checkpoint, size_t index, uint64_t offset, uint64_t bytes,
                                           void *out, chorus_error **error) {
  return guarded(error, [&] {
    const Model &model = require(checkpoint, "checkpoint")->model;
    const Tensor &tensor = chorus::abi::at(model.tensors(), index, "index");
    if (bytes > 0) require(out, "out");
    model.read(tensor, offset, bytes, out);
  });
}

const char *chorus_checkpoint_get_config(const chorus_checkpoint *checkpoint) {
  return checkpoint != nullptr ? checkpoint->model.config_text().c_str() : "";
}

chorus_status chorus_checkpoint_get_config_number(const chorus_checkpoint *checkpoint, const char *key, double *out_value,
                                                  chorus_error **error) {
  return guarded(error, [&] {
    const nlohmann::json &value = config_value(checkpoint, key);
    if (value.is_boolean()) *require(out_value, "out_value") = value.get<bool>() ? 1 : 0;
    else if (value.is_number()) *require(out_value, "out_value") = value.get<double>();
    else fail(CHORUS_INVALID_ARGUMENT, "'{}' of config.json is no number but a {}", key, value.type_name());
  });
}

chorus_status chorus_checkpoint_get_config_string(const chorus_checkpoint *checkpoint, const char *key,
                                                  const char **out_value, chorus_error **error) {
  return guarded(error, [&] {
    *require(out_value, "out_value") = nullptr;
    const nlohmann::json &value = config_value(checkpoint, key);
    if (!value.is_string()) fail(CHORUS_INVALID_ARGUMENT, "'{}' of config.json is no string but a {}", key, value.type_name());
    *out_value = value.get_ref<const std::string &>().c_str();
  });
}

size_t chorus_checkpoint_get_metadata_count(const chorus_checkpoint *checkpoint) {
  return checkpoint != nullptr ? checkpoint->model.metadata().size() : 0;
}

chorus_status chorus_checkpoint_get_metadata(const chorus_checkpoint *checkpoint, size_t index, const char **out_key,
                                             const char **out_value, chorus_error **error) {
  return guarded(error, [&] {
    const auto &metadata = require(checkpoint, "checkpoint")->model.metadata();
    require(out_key, "out_key");
    require(out_value, "out_value");
    if (index >= metadata.size()) fail(CHORUS_OUT_OF_RANGE, "index is {}; there are {}", index, metadata.size());
    const auto entry = std::next(metadata.begin(), static_cast<std::ptrdiff_t>(index));
    *out_key = entry->first.c_str();
    *out_value = entry->second.c_str();
  });
}

}  // extern "C"
