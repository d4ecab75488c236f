// SPDX-License-Identifier: Apache-2.0
// Kernels through the registry, by the probe plugin: choice, words of failures, workspace, the n-th allocation.
#include <criterion/criterion.h>

#include <thread>

#include "plugins/probe.h"
#include "runtime/context.h"
#include "runtime/device.h"
#include "runtime/kernel.h"
#include "unit/runtime/faults.h"
#include "unit/support.h"

using namespace chorus;
using unit::contains;
using unit::fault;

namespace {

std::shared_ptr<const Context> probe_context(const char *threads = "1") {
  ContextSettings settings;
  settings.options = {{"plugins", "explicit"}, {"threads", threads}, {"probe.level", "high"}};
  settings.plugins = {unit::test_plugin("probe")};
  return Context::create(settings);
}

PreparedKernel probe(const std::shared_ptr<const Context> &context, int32_t score = 7, chorus_status status = CHORUS_OK) {
  const probe_desc desc = {sizeof(probe_desc), score, status};
  return PreparedKernel::prepare(find_device(context, "probe"), PROBE_OP, &desc);
}

probe_args arguments() {
  probe_args args = {};
  args.struct_size = sizeof(args);
  return args;
}

template <typename Call>
std::string failure_of(Call call, chorus_status code) {
  try {
    call();
  } catch (const Failure &failure) {
    cr_expect_eq(failure.error()->code, code, "%s", failure.what());
    std::string text = failure.what();
    for (const auto &cause : failure.error()->causes) text += "\n  " + cause->message;
    return text;
  }
  cr_expect(false, "no failure");
  return "";
}

}  // namespace

Test(kernels, failures_name_kernel_and_operation) {
  const auto context = probe_context();
  const PreparedKernel kernel = probe(context);
  cr_expect_str_eq(kernel.kernel_name(), "probe/probe");
  probe_args args = arguments();
  args.status = CHORUS_UNAVAILABLE;
  args.message = "the moon is in the way";
  const struct {
    chorus_status status;
    const char *message;
    chorus_status code;
    const char *text;
  } rows[] = {
      {CHORUS_UNAVAILABLE, "the moon is in the way", CHORUS_UNAVAILABLE, "probe/probe: running test.probe: the moon is in the way"},
      {CHORUS_ABORTED, nullptr, CHORUS_ABORTED, "probe/probe: running test.probe failed (ABORTED) and gave no reason"},
      {4711, nullptr, CHORUS_INTERNAL, "probe/probe: running test.probe failed with the unknown status 4711"},
      {-1, "odd", CHORUS_INTERNAL, "unknown status -1: odd"},
  };
  for (const auto &row : rows) {
    args.status = row.status;
    args.message = row.message;
    const std::string text = failure_of([&] { kernel.run(&args, nullptr); }, row.code);
    cr_expect(contains(text, row.text), "%s", text.c_str());
  }
  std::string text = failure_of([&] { probe(context, 7, CHORUS_RESOURCE_EXHAUSTED); }, CHORUS_RESOURCE_EXHAUSTED);
  cr_expect(contains(text, "probe/probe: preparing test.probe failed (RESOURCE_EXHAUSTED)"), "%s", text.c_str());
  text = failure_of([&] { probe(context, 0); }, CHORUS_UNIMPLEMENTED);
  cr_expect(contains(text, "no kernel for test.probe on device 'probe'"), "%s", text.c_str());
  cr_expect(contains(text, "\n  probe/probe: score is 0; supported: above 0"), "%s", text.c_str());
}

Test(kernels, see_their_options_threads_and_pool) {
  const auto context = probe_context("3");
  const PreparedKernel kernel = probe(context);
  std::atomic<int> pieces = 0;
  probe_args args = arguments();
  args.pieces = 100;
  args.argument = &pieces;
  args.task = [](void *argument, uint64_t) { ++*static_cast<std::atomic<int> *>(argument); };
  kernel.run(&args, nullptr);
  cr_expect_eq(pieces, 100);
  cr_expect_eq(args.threads, 3);
  cr_expect_str_eq(args.level, "high");
}

Test(kernels, workspace_is_cached_per_thread_grown_and_given_back) {
  static const PreparedKernel *inner;
  auto context = probe_context();
  auto kernel = std::make_unique<PreparedKernel>(probe(context));
  inner = kernel.get();
  probe_args args = arguments();
  kernel->run(&args, nullptr);
  cr_expect_null(args.seen.workspace, "0 bytes need no memory");
  args.workspace = 100000;
  kernel->run(&args, nullptr);
  void *const first = args.seen.workspace;
  cr_expect_not_null(first);
  cr_expect_eq(reinterpret_cast<uintptr_t>(first) % CHORUS_WORKSPACE_ALIGNMENT_HOST, 0u);
  cr_expect_geq(args.seen.workspace_bytes, 100000u);
  args.workspace = 10;
  kernel->run(&args, nullptr);
  cr_expect_eq(args.seen.workspace, first, "kept for the next call");

  static void *nested;
  args.within = [](void *) {
    probe_args more = arguments();
    more.workspace = 50;
    inner->run(&more, nullptr);
    nested = more.seen.workspace;
  };
  kernel->run(&args, nullptr);
  cr_expect(nested != nullptr && nested != args.seen.workspace, "a call within a call has its own");
  args.within = nullptr;

  void *other = nullptr;
  std::thread([&] {
    probe_args mine = arguments();
    mine.workspace = 10;
    kernel->run(&mine, nullptr);
    other = mine.seen.workspace;
  }).join();
  cr_expect_neq(other, first, "another thread has its own");

  // All buffers go with the context: every allocation is paired.
  const unit::FaultyTables tables;
  static int live;
  live = 0;
  static AllocationTable plain;
  plain = allocation_table();
  allocation_table() = {[](size_t bytes, size_t alignment) { return ++live, plain.allocate(bytes, alignment); },
                        [](void *memory) { --live, plain.deallocate(memory); }};
  {
    const auto second = probe_context();
    const PreparedKernel k = probe(second);
    std::thread([&] {
      probe_args mine = arguments();
      mine.workspace = 4096;
      k.run(&mine, nullptr);
    }).join();
    probe_args mine = arguments();
    mine.workspace = 4096;
    k.run(&mine, nullptr);
    cr_expect_gt(live, 0);
  }
  cr_expect_eq(live, 0);
}

Test(kernels, a_callers_workspace_is_checked) {
  const auto context = probe_context();
  const PreparedKernel kernel = probe(context);
  alignas(64) char memory[256];
  probe_args args = arguments();
  args.workspace = 128;
  chorus_exec exec = CHORUS_EXEC_INIT;
  exec.workspace = memory;
  exec.workspace_bytes = 128;
  kernel.run(&args, &exec);
  cr_expect_eq(args.seen.workspace, memory);
  exec.workspace_bytes = 127;
  std::string text = failure_of([&] { kernel.run(&args, &exec); }, CHORUS_FAILED_PRECONDITION);
  cr_expect(contains(text, "has 127 bytes; this call needs 128"), "%s", text.c_str());
  exec.workspace = nullptr;
  exec.workspace_bytes = 128;
  failure_of([&] { kernel.run(&args, &exec); }, CHORUS_FAILED_PRECONDITION);
  exec.workspace = memory + 8;
  text = failure_of([&] { kernel.run(&args, &exec); }, CHORUS_INVALID_ARGUMENT);
  cr_expect(contains(text, "aligned to 64 bytes"), "%s", text.c_str());
}

// From loading the plugin to the run, the n-th allocation or system call fails, once or from there on, until none is left
// to fail.
Test(kernels, any_allocation_or_system_call_may_fail) {
  const unit::FaultyTables tables;
  const auto job = [] {
    const auto context = probe_context();
    const PreparedKernel kernel = probe(context);
    probe_args args = arguments();
    args.workspace = 5000;
    kernel.run(&args, nullptr);
    void *memory = device_allocate(*find_device(context, "probe"), 100);
    device_free(*find_device(context, "probe"), memory);
  };
  int failures = 0;
  for (const bool persistent : {true, true, false}) {  // the first round ends once the plugin is loaded, for good
    for (int n = 0;; ++n) {
      fault = {n, persistent, EIO, 0};
      bool failed = false;
      try {
        job();
      } catch (const Failure &failure) {
        failed = true;
        cr_expect_neq(failure.error()->code, CHORUS_INTERNAL, "%s", failure.what());
      }
      const bool was_hit = fault.calls > n;
      fault = unit::Fault();
      cr_expect_eq(failed, was_hit, "call %d", n);
      failures += failed;
      if (!was_hit) break;
    }
  }
  cr_expect_geq(failures, 5 + 3 + 3, "reading the plugin's headers, then device, workspace, memory: %d", failures);
}
