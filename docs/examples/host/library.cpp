// SPDX-License-Identifier: Apache-2.0
// Finding libchorus and its functions.
#include "library.h"

#include <dlfcn.h>

#include <cstdlib>
#include <filesystem>

namespace host {
namespace {

std::string find() {
  if (const char *path = std::getenv("CHORUS_LIBRARY"); path != nullptr && *path != 0) return path;
  const auto program = std::filesystem::read_symlink("/proc/self/exe");
  const auto beside = program.parent_path().parent_path() / "lib" / "libchorus.so";
  return std::filesystem::exists(beside) ? beside.string() : "libchorus.so.0.0";
}

// The library is never closed: its objects may live as long as the program.
void *open(const std::string &path) {
  if (void *handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL)) return handle;
  throw std::runtime_error(std::string("cannot open libchorus: ") + dlerror() + "; set CHORUS_LIBRARY to its path");
}

template <typename Function>
void resolve(void *handle, const char *name, Function &function) {
  void *symbol = dlsym(handle, name);
  if (symbol == nullptr) throw std::runtime_error(std::string("libchorus has no function ") + name);
  function = reinterpret_cast<Function>(symbol);
}

}  // namespace

Library::Library() : path_(find()) {
  void *handle = open(path_);
#define HOST_RESOLVE(name) resolve(handle, #name, name);
  HOST_FUNCTIONS(HOST_RESOLVE)
#undef HOST_RESOLVE
}

void Library::route(const Handle<chorus_router> &router, const View &logits, const View &ids, const View &weights,
                    const View &counts) const {
  chorus_route_out out = CHORUS_ROUTE_OUT_INIT;
  out.ids = ids;
  out.weights = weights;
  out.counts = counts;
  check([&](chorus_error **error) { return chorus_router_route(router.get(), logits, nullptr, &out, nullptr, error); });
}

void Library::run_experts(const Handle<chorus_experts> &experts, const View &x, const View &ids, const View &weights,
                          const View &y) const {
  check([&](chorus_error **error) {
    return chorus_experts_run(experts.get(), x, ids, weights, y, nullptr, nullptr, error);
  });
}

}  // namespace host
