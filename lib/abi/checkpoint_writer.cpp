// SPDX-License-Identifier: Apache-2.0
// checkpoint.h, the writing half: setters of the spec, and calls into checkpoint/writer.
#include <algorithm>
#include <unordered_set>

#include "abi/boundary.h"
#include "abi/info.h"
#include "checkpoint/transfer.h"
#include "chorus/checkpoint.h"
#include "runtime/context.h"
#include "runtime/utf8.h"

using chorus::fail;
using chorus::abi::guarded;
using chorus::abi::require;

namespace ck = chorus::checkpoint;

struct chorus_checkpoint_writer_spec {
  std::vector<ck::DeclaredTensor> tensors;
  std::unordered_set<std::string> names;
  ck::Metadata metadata = {{"format", "pt"}};
  uint64_t max_shard_bytes = ck::kDefaultShardBytes;
  ck::WriterSettings settings;
};

struct chorus_checkpoint_writer {
  std::vector<ck::DeclaredTensor> tensors;
  ck::Writer writer;
};

namespace {

// A plain name for a file beside the weights, which the writer does not give itself and nothing else was given.
void check_side_name(const chorus_checkpoint_writer_spec &spec, std::string_view name) {
  if (name.empty() || name.find('/') != std::string_view::npos || name.front() == '.') {
    fail(CHORUS_INVALID_ARGUMENT, "name is '{}'; a plain file name is needed, without '/' and not beginning with '.'", name);
  }
  if (name.ends_with(".safetensors") || name.ends_with(".safetensors.index.json")) {
    fail(CHORUS_INVALID_ARGUMENT, "name is '{}'; the writer itself writes such files", name);
  }
  if (std::ranges::any_of(spec.settings.side_files, [&](const ck::SideFile &side) { return side.name == name; })) {
    fail(CHORUS_ALREADY_EXISTS, "a file '{}' was added already", name);
  }
}

const char *require_text(const char *text, const char *name) {
  if (const auto bad = chorus::invalid_utf8(require(text, name))) {
    fail(CHORUS_INVALID_ARGUMENT, "{} is not UTF-8 from its byte {} on", name, *bad);
  }
  return text;
}

}  // namespace

extern "C" {

chorus_status chorus_checkpoint_writer_spec_create(chorus_checkpoint_writer_spec **out_spec, chorus_error **error) {
  return guarded(error, [&] {
    *require(out_spec, "out_spec") = nullptr;
    *out_spec = new chorus_checkpoint_writer_spec;
  });
}

void chorus_checkpoint_writer_spec_destroy(chorus_checkpoint_writer_spec *spec) { delete spec; }

chorus_status chorus_checkpoint_writer_spec_add_tensor(chorus_checkpoint_writer_spec *spec, const char *name,
                                                       chorus_dtype dtype, int32_t ndim, const int64_t *shape,
                                                       size_t *out_index, chorus_error **error) {
  return guarded(error, [&] {
    require(spec, "spec");
    const ck::StorageType *type = ck::storage_type(dtype);
    if (type == nullptr) {
      fail(CHORUS_UNIMPLEMENTED, "dtype is {:#x} (code {}, {} bits); safetensors cannot store it", dtype, dtype & 0xff,
           dtype >> 8);
    }
    if (ndim < 0) fail(CHORUS_INVALID_ARGUMENT, "ndim is {}; 0 or more is allowed", ndim);
    if (ndim > 0) require(shape, "shape");
    ck::DeclaredTensor tensor{require(name, "name"), type, std::vector<int64_t>(shape, shape + ndim)};
    ck::check_declared(tensor);
    if (!spec->names.insert(tensor.name).second) fail(CHORUS_ALREADY_EXISTS, "tensor '{}' is declared already", name);
    spec->tensors.push_back(std::move(tensor));
    if (out_index != nullptr) *out_index = spec->tensors.size() - 1;
  });
}

chorus_status chorus_checkpoint_writer_spec_set_max_shard_bytes(chorus_checkpoint_writer_spec *spec, uint64_t bytes,
                                                                chorus_error **error) {
  return guarded(error, [&] { require(spec, "spec")->max_shard_bytes = bytes; });
}

chorus_status chorus_checkpoint_writer_spec_set_metadata(chorus_checkpoint_writer_spec *spec, const char *key,
                                                         const char *value, chorus_error **error) {
  return guarded(error, [&] {
    require(spec, "spec");
    require_text(key, "key");
    if (value == nullptr) {
      spec->metadata.erase(key);
    } else {
      spec->metadata.insert_or_assign(key, require_text(value, "value"));
    }
  });
}

chorus_status chorus_checkpoint_writer_spec_add_file(chorus_checkpoint_writer_spec *spec, const char *name, const char *path,
                                                     chorus_error **error) {
  return guarded(error, [&] {
    check_side_name(*require(spec, "spec"), require(name, "name"));
    if (*require(path, "path") == '\0') fail(CHORUS_INVALID_ARGUMENT, "path is empty");
    spec->settings.side_files.push_back({name, path, ""});
  });
}

chorus_status chorus_checkpoint_writer_spec_add_text(chorus_checkpoint_writer_spec *spec, const char *name, const char *text,
                                                     uint64_t length, chorus_error **error) {
  return guarded(error, [&] {
    check_side_name(*require(spec, "spec"), require(name, "name"));
    if (length > 0) require(text, "text");
    spec->settings.side_files.push_back({name, "", std::string(length > 0 ? text : "", length)});
  });
}

chorus_status chorus_checkpoint_writer_spec_set_replace(chorus_checkpoint_writer_spec *spec, int32_t replace,
                                                        chorus_error **error) {
  return guarded(error, [&] { require(spec, "spec")->settings.replace = replace != 0; });
}

chorus_status chorus_checkpoint_writer_create(const chorus_context *context, const chorus_checkpoint_writer_spec *spec,
                                              const char *folder, chorus_checkpoint_writer **out_writer,
                                              chorus_error **error) {
  return guarded(error, [&] {
    *require(out_writer, "out_writer") = nullptr;
    chorus::context_of(context);
    require(spec, "spec");
    *out_writer = new chorus_checkpoint_writer{
        spec->tensors,
        {ck::plan_layout(spec->tensors, spec->metadata, spec->max_shard_bytes), require(folder, "folder"), spec->settings}};
  });
}

void chorus_checkpoint_writer_destroy(chorus_checkpoint_writer *writer) { delete writer; }

chorus_status chorus_checkpoint_writer_write(chorus_checkpoint_writer *writer, size_t index, const chorus_tensor *tensor,
                                             chorus_error **error) {
  return guarded(error, [&] {
    const ck::DeclaredTensor &declared = chorus::abi::at(require(writer, "writer")->tensors, index, "index");
    ck::write_tensor(&writer->writer, index, declared, tensor);
  });
}

chorus_status chorus_checkpoint_writer_write_bytes(chorus_checkpoint_writer *writer, size_t index, uint64_t offset,
                                                   uint64_t bytes, const void *data, chorus_error **error) {
  return guarded(error, [&] {
    require(writer, "writer");
    if (bytes > 0) require(data, "data");
    writer->writer.write(index, offset, bytes, data);
  });
}

chorus_status chorus_checkpoint_writer_finish(chorus_checkpoint_writer *writer, chorus_error **error) {
  return guarded(error, [&] { require(writer, "writer")->writer.finish(); });
}

}  // extern "C"
