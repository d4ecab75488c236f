// SPDX-License-Identifier: Apache-2.0
// distill.h: calls into combine/distiller and combine/targets.
#include "chorus/distill.h"

#include "abi/boundary.h"
#include "abi/info.h"
#include "abi/structs.h"
#include "abi/vocabulary.h"
#include "combine/distiller.h"
#include "combine/targets.h"

using chorus::abi::guarded;
using chorus::abi::read_struct;
using chorus::abi::require;

struct chorus_distiller {
  chorus::combine::Distiller distiller;
};

struct chorus_targets_writer {
  chorus::combine::TargetsWriter writer;
};

struct chorus_targets {
  chorus::combine::Targets targets;
};

extern "C" {

chorus_status chorus_distiller_create(const chorus_context *context, const chorus_distill_desc *desc, const char *device,
                                      chorus_distiller **out_distiller, chorus_error **error) {
  return guarded(error, [&] {
    chorus::abi::require_output(out_distiller, "out_distiller");
    const auto read = read_struct(desc, "desc", CHORUS_END_OF(chorus_distill_desc, scale));
    *out_distiller = new chorus_distiller{{chorus::context_of(context), read, require(device, "device")}};
  });
}

void chorus_distiller_destroy(chorus_distiller *distiller) { delete distiller; }

chorus_status chorus_distiller_run(const chorus_distiller *distiller, const chorus_distill_args *args,
                                   const chorus_exec *exec, chorus_error **error) {
  return guarded(error, [&] {
    chorus_distill_args read = read_struct(args, "args", CHORUS_END_OF(chorus_distill_args, status));
    read.struct_size = CHORUS_END_OF(chorus_distill_args, status);
    require(distiller, "distiller")->distiller.run(read, exec);
  });
}

chorus_status chorus_distiller_get_workspace_size(const chorus_distiller *distiller, int64_t rows, uint64_t *out_bytes,
                                                  chorus_error **error) {
  return guarded(error, [&] {
    *require(out_bytes, "out_bytes") = require(distiller, "distiller")->distiller.workspace_size(rows);
  });
}

const char *chorus_distiller_get_kernel(const chorus_distiller *distiller) {
  return distiller != nullptr ? distiller->distiller.kernel_name() : "";
}

chorus_status chorus_targets_writer_create(const chorus_context *context, const chorus_targets_info *info, const char *folder,
                                           chorus_targets_writer **out_writer, chorus_error **error) {
  return guarded(error, [&] {
    chorus::abi::require_output(out_writer, "out_writer");
    const auto read = read_struct(info, "info", CHORUS_END_OF(chorus_targets_info, bytes_per_row));
    *out_writer = new chorus_targets_writer{{chorus::context_of(context), read, require(folder, "folder")}};
  });
}

void chorus_targets_writer_destroy(chorus_targets_writer *writer) { delete writer; }

chorus_status chorus_targets_writer_write_rows(chorus_targets_writer *writer, const chorus_tensor *log_probs,
                                               chorus_error **error) {
  return guarded(error, [&] { require(writer, "writer")->writer.write_rows(log_probs); });
}

chorus_status chorus_targets_writer_write_top(chorus_targets_writer *writer, const chorus_tensor *ids,
                                              const chorus_tensor *log_probs, const chorus_tensor *tail, chorus_error **error) {
  return guarded(error, [&] { require(writer, "writer")->writer.write_top(ids, log_probs, tail); });
}

chorus_status chorus_targets_writer_finish(chorus_targets_writer *writer, chorus_error **error) {
  return guarded(error, [&] { require(writer, "writer")->writer.finish(); });
}

chorus_status chorus_targets_open(const chorus_context *context, const char *path, chorus_targets **out_targets,
                                  chorus_error **error) {
  return guarded(error, [&] {
    chorus::abi::require_output(out_targets, "out_targets");
    *out_targets = new chorus_targets{{chorus::context_of(context), require(path, "path")}};
  });
}

void chorus_targets_destroy(chorus_targets *targets) { delete targets; }

chorus_status chorus_targets_get(const chorus_targets *targets, chorus_targets_info *out_info, chorus_error **error) {
  return guarded(error, [&] { chorus::abi::fill_info(out_info, require(targets, "targets")->targets.info()); });
}

chorus_status chorus_targets_check_vocabulary(const chorus_targets *targets, const chorus_vocabulary *vocabulary,
                                              chorus_error **error) {
  return guarded(error, [&] {
    require(targets, "targets");
    const auto words = require(vocabulary, "vocabulary")->vocabulary.fingerprint();
    targets->targets.check_fingerprint(words[0], words[1]);
  });
}

chorus_status chorus_targets_read_top(const chorus_targets *targets, int64_t first, const chorus_tensor *ids,
                                      const chorus_tensor *log_probs, const chorus_tensor *tail, chorus_error **error) {
  return guarded(error, [&] { require(targets, "targets")->targets.read_top(first, ids, log_probs, tail); });
}

chorus_status chorus_targets_read_rows(const chorus_targets *targets, int64_t first, const chorus_tensor *log_probs,
                                       chorus_error **error) {
  return guarded(error, [&] { require(targets, "targets")->targets.read_rows(first, log_probs); });
}

}  // extern "C"
