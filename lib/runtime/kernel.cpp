// SPDX-License-Identifier: Apache-2.0
// Choosing the best kernel, the fallback to reference, and running with checked or cached workspace.
#include "runtime/kernel.h"

#include <algorithm>

#include "runtime/allocate.h"
#include "runtime/device.h"
#include "runtime/workspace.h"

namespace chorus {
namespace {

struct Choice {
  const chorus_kernel *kernel = nullptr;
  Backend *backend = nullptr;
  int32_t score = 0;
};

// Asks every kernel of `backends` for `op`; a refusal becomes a cause.
Choice best_of(const std::vector<Backend *> &backends, const std::string &op, const void *desc,
               std::vector<std::shared_ptr<const Error>> *refusals) {
  Choice best;
  for (Backend *backend : backends) {
    for (const chorus_kernel *kernel : backend->kernels()) {
      if (op != kernel->op || kernel->op_version != 1) continue;
      char why[512] = "";
      const int32_t score = kernel->score(backend->device(), desc, why, sizeof(why));
      why[sizeof(why) - 1] = '\0';
      if (score > best.score) best = {kernel, backend, score};
      if (score <= 0) {
        refusals->push_back(std::make_shared<Error>(Error{
            CHORUS_UNIMPLEMENTED, fmt::format("{}/{}: {}", backend->plugin->name, kernel->name, why), {}}));
      }
    }
  }
  return best;
}

// Asked for by its name, the built-in backend is the choice; else the fallback.
bool is_reference_wanted(const Device &device) { return device.name() == "reference"; }

std::vector<Backend *> first_choices(const Device &device) {
  std::vector<Backend *> out = device.backends();
  if (!is_reference_wanted(device)) std::erase_if(out, [](const Backend *backend) { return backend->is_reference(); });
  return out;
}

std::vector<Backend *> reference_of(const Context &context) {
  std::vector<Backend *> out;
  for (const auto &backend : context.backends()) {
    if (!backend->is_reference()) continue;
    backend->open();
    out.push_back(backend.get());
  }
  return out;
}

std::string joined_messages(const std::vector<std::shared_ptr<const Error>> &causes) {
  std::string out;
  for (const auto &cause : causes) out += (out.empty() ? "" : "; ") + cause->message;
  return out;
}

// The best kernel of the device; on a host device the reference backend is the fallback, told once per object.
Choice choose(const Device &device, const char *op, const void *desc) {
  Error none{CHORUS_UNIMPLEMENTED, fmt::format("no kernel for {} on device '{}'", op, device.name()), {}};
  Choice choice = best_of(first_choices(device), op, desc, &none.causes);
  if (choice.kernel != nullptr) return choice;
  if (is_reference_wanted(device) || !is_host_memory(device)) throw Failure(std::move(none));
  if (device.context().options().get("fallback") == "error") {
    none.message += "; option fallback=error forbids the reference backend";
    throw Failure(std::move(none));
  }
  const std::string refusals = joined_messages(none.causes);
  choice = best_of(reference_of(device.context()), op, desc, &none.causes);
  if (choice.kernel == nullptr) throw Failure(std::move(none));
  device.context().log(CHORUS_LOG_WARNING, fmt::format("{}; falling back to the slow reference backend{}{}", none.message,
                                                       refusals.empty() ? "" : ": ", refusals));
  return choice;
}

void check_workspace(const chorus_exec &exec, uint64_t needed, const Device &device) {
  if (exec.struct_size < CHORUS_END_OF(chorus_exec, workspace_bytes)) {
    fail(CHORUS_INVALID_ARGUMENT, "exec: struct_size is {}; initialise it with CHORUS_EXEC_INIT", exec.struct_size);
  }
  if (exec.workspace_bytes < needed || (needed > 0 && exec.workspace == nullptr)) {
    fail(CHORUS_FAILED_PRECONDITION, "exec: the workspace has {} bytes; this call needs {}",
         exec.workspace == nullptr ? 0 : exec.workspace_bytes, needed);
  }
  const uint64_t alignment =
      is_host_memory(device) ? CHORUS_WORKSPACE_ALIGNMENT_HOST : CHORUS_WORKSPACE_ALIGNMENT_DEVICE;
  if (reinterpret_cast<uintptr_t>(exec.workspace) % alignment != 0) {
    fail(CHORUS_INVALID_ARGUMENT, "exec: the workspace must be aligned to {} bytes", alignment);
  }
}

}  // namespace

PreparedKernel PreparedKernel::prepare(DevicePtr device, const char *op, const void *desc) {
  const Choice choice = choose(*device, op, desc);
  ErrorSlot slot;
  void *prepared = nullptr;
  const chorus_status status = choice.kernel->prepare(choice.backend->device(), desc, &prepared, &slot);
  const std::string name = fmt::format("{}/{}", choice.backend->plugin->name, choice.kernel->name);
  if (status != CHORUS_OK) throw_plugin_error(status, slot, fmt::format("{}: preparing {}", name, op));
  PreparedKernel kernel(std::move(device), choice.kernel, prepared);
  kernel.name_ = name;
  return kernel;
}

PreparedKernel::PreparedKernel(DevicePtr device, const chorus_kernel *kernel, void *prepared)
    : device_(std::move(device)), kernel_(kernel), prepared_(prepared) {}

PreparedKernel::PreparedKernel(PreparedKernel &&other) noexcept
    : device_(std::move(other.device_)),
      kernel_(std::exchange(other.kernel_, nullptr)),
      prepared_(std::exchange(other.prepared_, nullptr)),
      name_(std::move(other.name_)) {}

PreparedKernel &PreparedKernel::operator=(PreparedKernel &&other) noexcept {
  std::swap(device_, other.device_);
  std::swap(kernel_, other.kernel_);
  std::swap(prepared_, other.prepared_);
  std::swap(name_, other.name_);
  return *this;
}

PreparedKernel::~PreparedKernel() {
  if (kernel_ != nullptr) kernel_->release(prepared_);
}

uint64_t PreparedKernel::workspace_size(const void *args) const { return kernel_->workspace_size(prepared_, args); }

void PreparedKernel::run(const void *args, const chorus_exec *exec) const {
  const uint64_t needed = workspace_size(args);
  ErrorSlot slot;
  chorus_status status;
  if (exec != nullptr) {
    check_workspace(*exec, needed, *device_);
    status = kernel_->run(prepared_, args, exec, &slot);
  } else {
    if (!is_host_memory(*device_)) {
      fail(CHORUS_INVALID_ARGUMENT, "exec is NULL; device '{}' has its own memory and needs a stream and a workspace",
           device_->name());
    }
    const Workspace workspace(device_->context().workspaces(), needed);
    const chorus_exec own = {CHORUS_END_OF(chorus_exec, workspace_bytes), nullptr, workspace.data(), needed};
    status = kernel_->run(prepared_, args, &own, &slot);
  }
  if (status != CHORUS_OK) throw_plugin_error(status, slot, fmt::format("{}: running {}", name_, kernel_->op));
}

const char *PreparedKernel::kernel_name() const { return name_.c_str(); }

uint64_t PreparedKernel::prepared_bytes() const {
  return kernel_->prepared_bytes != nullptr ? kernel_->prepared_bytes(prepared_) : 0;
}

}  // namespace chorus
