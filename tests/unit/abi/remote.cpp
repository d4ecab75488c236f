// SPDX-License-Identifier: Apache-2.0
// A device whose memory the host may not touch (tests/plugins/remote.c): the core moves bytes by the device's functions
// alone, and checks what it can check without looking.
#include <criterion/criterion.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <cstring>

#include "chorus/chorus.hpp"
#include "unit/support.h"

using unit::contains;

namespace {

chorus::ContextSpec remote_spec() {
  chorus::ContextSpec spec;
  spec.set_option("plugins", "explicit").set_option("threads", "2").add_plugin(unit::test_plugin("remote"));
  return spec;
}

chorus::CombinerSpec two_models() {
  chorus::CombinerSpec spec;
  spec.set_outputs(CHORUS_COMBINE_OUT_LOG_PROBS | CHORUS_COMBINE_OUT_STATUS).set_max_rows(3);
  spec.add_model(CHORUS_SCORES_LOGITS, CHORUS_F32, 5, 5, 0.25);
  spec.add_model(CHORUS_SCORES_LOGITS, CHORUS_F32, 5, 5, 0.75);
  return spec;
}

// Three rows of two models, in remote memory, with all a call needs.
struct Problem {
  explicit Problem(const chorus::Context &context)
      : first_memory(context, "remote:0", sizeof(first)),
        second_memory(context, "remote:0", sizeof(second)),
        out_memory(context, "remote:0", sizeof(first)),
        status_memory(context, "remote:0", 3 * sizeof(int32_t)),
        workspace(context, "remote:0", 4096),
        tensors{remote(first_memory.data(), CHORUS_F32, {3, 5}), remote(second_memory.data(), CHORUS_F32, {3, 5}),
                remote(out_memory.data(), CHORUS_F32, {3, 5}), remote(status_memory.data(), CHORUS_I32, {3})} {
    for (int i = 0; i < 15; ++i) {
      first[i] = static_cast<float>(std::sin(i));
      second[i] = static_cast<float>(std::cos(3 * i));
    }
    first_memory.copy_from(first);
    second_memory.copy_from(second);
    in.rows = 3;
    in.scores = scores;
    out.log_probs = tensors[2].get();
    out.status = tensors[3].get();
    exec.stream = this;  // any handle
    exec.workspace = workspace.data();
    exec.workspace_bytes = workspace.size();
  }
  static chorus::Tensor remote(void *data, chorus_dtype dtype, std::initializer_list<int64_t> shape) {
    return chorus::Tensor(data, dtype, shape).on(CHORUS_DEVICE_EXTENSION, 0);
  }

  float first[15], second[15];
  chorus::Memory first_memory, second_memory, out_memory, status_memory, workspace;
  chorus::Tensor tensors[4];
  const chorus_tensor *scores[2] = {tensors[0].get(), tensors[1].get()};
  chorus_combine_in in = CHORUS_COMBINE_IN_INIT;
  chorus_combine_out out = CHORUS_COMBINE_OUT_INIT;
  chorus_exec exec = CHORUS_EXEC_INIT;
};

template <typename Call>
std::string failure_of(Call call, chorus_status code) {
  try {
    call();
  } catch (const chorus::Error &error) {
    cr_expect_eq(error.code(), code, "%s", error.text());
    return error.text();
  }
  cr_expect(false, "no failure");
  return "";
}

}  // namespace

Test(remote, its_memory_faults_when_touched_and_is_reached_by_copies) {
  const chorus::Context context(remote_spec());
  chorus::Memory memory(context, "remote:0", 1000);
  cr_expect_eq(reinterpret_cast<uintptr_t>(memory.data()) % CHORUS_WORKSPACE_ALIGNMENT_DEVICE, 0u);
  const std::string from(1000, 'y');
  std::string to(1000, '\0');
  memory.copy_from(from.data());
  memory.copy_to(to.data());
  cr_expect(from == to);
  const pid_t child = fork();
  if (child == 0) {
    std::signal(SIGSEGV, SIG_DFL);
    _exit(*static_cast<volatile char *>(memory.data()));
  }
  int status = 0;
  waitpid(child, &status, 0);
  cr_expect(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV, "the wall holds");
  std::string text = failure_of([&] { chorus::Memory huge(context, "remote:0", UINT64_C(1) << 60); }, CHORUS_RESOURCE_EXHAUSTED);
  cr_expect(contains(text, "remote memory ends at 1 TiB"), "%s", text.c_str());
  char byte = 0;
  chorus_error *error = nullptr;
  cr_expect_eq(chorus_memory_copy(context.get(), "remote:0", to.data(), &byte, 1, &error), CHORUS_INVALID_ARGUMENT);
  cr_expect(contains(chorus_error_get_text(error), "neither end of the copy is remote"));
  chorus_error_destroy(error);
}

Test(remote, a_combiner_on_it_gives_what_the_reference_gives) {
  const chorus::Context context(remote_spec());
  const chorus::Combiner combiner(context, two_models(), "remote:0");
  cr_expect_str_eq(combiner.kernel(), "remote/combine_rows_behind_the_wall");
  Problem problem(context);
  combiner.run(problem.in, problem.out, &problem.exec);
  float got[15], wanted[15];
  int32_t status[3] = {-1, -1, -1};
  problem.out_memory.copy_to(got);
  problem.status_memory.copy_to(status);

  const chorus::Combiner reference(context, two_models(), "reference");
  const chorus::Tensor first(problem.first, {3, 5}), second(problem.second, {3, 5}), out_tensor(wanted, {3, 5});
  const chorus_tensor *scores[2] = {first.get(), second.get()};
  chorus_combine_in in = CHORUS_COMBINE_IN_INIT;
  in.rows = 3;
  in.scores = scores;
  chorus_combine_out out = CHORUS_COMBINE_OUT_INIT;
  out.log_probs = out_tensor.get();
  reference.run(in, out);
  for (int i = 0; i < 15; ++i) {
    cr_expect(std::fabs(got[i] - wanted[i]) <= 2e-6 * (1 + std::fabs(wanted[i])), "%d: %g, %g", i, got[i], wanted[i]);
  }
  for (const int32_t s : status) cr_expect_eq(s, CHORUS_ROW_OK);
}

Test(remote, calls_are_checked_without_touching_its_memory) {
  const chorus::Context context(remote_spec());
  const chorus::Combiner combiner(context, two_models(), "remote:0");
  std::string text;
  {
    Problem p(context);
    text = failure_of([&] { combiner.run(p.in, p.out, nullptr); }, CHORUS_INVALID_ARGUMENT);
    cr_expect(contains(text, "exec is NULL; device 'remote:0' has its own memory"), "%s", text.c_str());
  }
  {
    Problem p(context);
    p.exec.workspace_bytes = 299;
    text = failure_of([&] { combiner.run(p.in, p.out, &p.exec); }, CHORUS_FAILED_PRECONDITION);
    cr_expect(contains(text, "has 299 bytes; this call needs 300"), "%s", text.c_str());
  }
  {
    Problem p(context);
    p.exec.workspace = static_cast<char *>(p.exec.workspace) + 64;
    text = failure_of([&] { combiner.run(p.in, p.out, &p.exec); }, CHORUS_INVALID_ARGUMENT);
    cr_expect(contains(text, "aligned to 256 bytes"), "%s", text.c_str());
  }
  {
    Problem p(context);
    float local[15];
    p.tensors[0] = chorus::Tensor(local, {3, 5});
    text = failure_of([&] { combiner.run(p.in, p.out, &p.exec); }, CHORUS_INVALID_ARGUMENT);
    cr_expect(contains(text, "scores[0]: lives on device type 1"), "%s", text.c_str());
  }
  {
    Problem p(context);
    p.out.log_probs = p.tensors[1].get();
    text = failure_of([&] { combiner.run(p.in, p.out, &p.exec); }, CHORUS_INVALID_ARGUMENT);
    cr_expect(contains(text, "log_probs overlaps"), "%s", text.c_str());
  }
  {  // a kernel's own error arrives with its name
    Problem p(context);
    p.exec.workspace = reinterpret_cast<void *>(0x100000);
    text = failure_of([&] { combiner.run(p.in, p.out, &p.exec); }, CHORUS_INVALID_ARGUMENT);
    cr_expect(contains(text, "remote/combine_rows_behind_the_wall: running combine.rows: the workspace"), "%s", text.c_str());
  }
}

Test(remote, it_is_never_auto_and_never_falls_back) {
  const chorus::Context context(remote_spec());
  cr_expect(contains(chorus::Combiner(context, two_models(), "auto").kernel(), "reference/"));
  chorus::CombinerSpec spec = two_models();
  spec.set_rule(CHORUS_COMBINE_LOG_LINEAR);
  const std::string text =
      failure_of([&] { chorus::Combiner combiner(context, spec, "remote:0"); }, CHORUS_UNIMPLEMENTED);
  cr_expect(contains(text, "no kernel for combine.rows on device 'remote:0'"), "%s", text.c_str());
  cr_expect(contains(text, "remote/combine_rows_behind_the_wall: rule is 1; supported: linear (0)"), "%s", text.c_str());
}

Test(remote, asynchronous_faults_are_asked_for) {
  chorus::ContextSpec spec = remote_spec();
  spec.set_option("remote.fault", "true");
  const chorus::Context context(spec);
  context.check_device("remote:0");
  context.check_device("reference");
  const chorus::Combiner combiner(context, two_models(), "remote:0");
  Problem problem(context);
  combiner.run(problem.in, problem.out, &problem.exec);
  const std::string text = failure_of([&] { context.check_device("remote:0"); }, CHORUS_UNAVAILABLE);
  cr_expect(contains(text, "device 'remote:0': simulated fault; last kernel"), "%s", text.c_str());
}
