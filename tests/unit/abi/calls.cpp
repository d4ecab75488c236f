// SPDX-License-Identifier: Apache-2.0
// What holds around any call: tensors that lie, the host's floating-point environment, pools, forked children.
#include <criterion/criterion.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cfenv>
#include <cmath>
#include <limits>
#include <vector>

#include "chorus/chorus.hpp"
#include "unit/support.h"

using unit::contains;

namespace {

chorus::ContextSpec explicit_spec(const char *threads = "2") {
  chorus::ContextSpec spec;
  spec.set_option("plugins", "explicit").set_option("threads", threads);
  return spec;
}

// Three tokens, four experts, k = 2: a small call whose tensors tests bend.
struct Routing {
  float logits[12] = {1, 4, 2, 3, 0, -1, 5, 5, 9, 8, 7, 6};
  int32_t ids[6] = {};
  float weights[6] = {};
  chorus::Tensor x{logits, {3, 4}}, out_ids{ids, {3, 2}}, out_weights{weights, {3, 2}};
  chorus_route_out out = CHORUS_ROUTE_OUT_INIT;
  Routing() {
    out.ids = out_ids.get();
    out.weights = out_weights.get();
  }
  void expect_result() const {
    const int32_t wanted[6] = {1, 3, 2, 3, 0, 1};
    for (int i = 0; i < 6; ++i) cr_expect_eq(ids[i], wanted[i], "%d", i);
  }
};

chorus::Router router_of(const chorus::Context &context) {
  chorus::RouterSpec spec(4, 2);
  spec.set_max_tokens(3);
  return chorus::Router(context, spec, "reference");
}

}  // namespace

Test(calls, tensors_that_lie_are_refused_by_name) {
  const chorus::Context context(explicit_spec());
  const chorus::Router router = router_of(context);
  const auto expect = [&](const char *part, chorus_status code, auto bend) {
    Routing r;
    static int64_t shape[9], strides[9];
    shape[0] = 3, shape[1] = 4, strides[0] = 4, strides[1] = 1;
    bend(r, shape, strides);
    try {
      router.route(r.x, nullptr, r.out);
      cr_expect(false, "accepted: %s", part);
    } catch (const chorus::Error &error) {
      cr_expect_eq(error.code(), code, "%s", error.what());
      cr_expect(contains(error.what(), part), "wanted '%s': %s", part, error.what());
    }
    cr_expect(r.ids[1] == 0 && r.weights[0] == 0, "outputs are untouched");
  };
  constexpr chorus_status kInvalid = CHORUS_INVALID_ARGUMENT;
  const int64_t huge = std::numeric_limits<int64_t>::max();
  expect("logits: struct_size is 8", kInvalid, [](Routing &r, int64_t *, int64_t *) { r.x.raw().struct_size = 8; });
  expect("logits: ndim is -1", kInvalid, [](Routing &r, int64_t *, int64_t *) { r.x.raw().ndim = -1; });
  expect("logits: ndim is 9", kInvalid, [](Routing &r, int64_t *, int64_t *) { r.x.raw().ndim = 9; });
  expect("logits: shape is NULL", kInvalid, [](Routing &r, int64_t *, int64_t *) { r.x.raw().shape = nullptr; });
  expect("logits: flags are 0x2", kInvalid, [](Routing &r, int64_t *, int64_t *) { r.x.raw().flags = 2; });
  expect("logits: reserved is 7", kInvalid, [](Routing &r, int64_t *, int64_t *) { r.x.raw().reserved = 7; });
  expect("logits: dtype is bf16", CHORUS_UNIMPLEMENTED, [](Routing &r, int64_t *, int64_t *) {
    r.x.raw().dtype_code = CHORUS_DTYPE_CODE_BFLOAT;
    r.x.raw().dtype_bits = 16;
  });
  expect("logits: dtype is f8_e4m3fn", CHORUS_UNIMPLEMENTED, [](Routing &r, int64_t *, int64_t *) {
    r.x.raw().dtype_code = CHORUS_DTYPE_CODE_FLOAT8_E4M3FN;
    r.x.raw().dtype_bits = 8;
  });
  expect("logits: dtype is i32", CHORUS_UNIMPLEMENTED, [](Routing &r, int64_t *, int64_t *) { r.x.raw().dtype_code = 0; });
  expect("an unknown dtype (code 99, 32 bits)", kInvalid, [](Routing &r, int64_t *, int64_t *) { r.x.raw().dtype_code = 99; });
  expect("2 lane(s)", kInvalid, [](Routing &r, int64_t *, int64_t *) { r.x.raw().dtype_lanes = 2; });
  expect("quantised", CHORUS_UNIMPLEMENTED, [](Routing &r, int64_t *, int64_t *) {
    static const chorus_quant quant = CHORUS_QUANT_INIT;
    r.x.raw().quant = &quant;
  });
  expect("logits: data is NULL", kInvalid, [](Routing &r, int64_t *, int64_t *) { r.x.raw().data = nullptr; });
  expect("logits: shape and strides reach 48 bytes; size_bytes is 47", kInvalid,
         [](Routing &r, int64_t *, int64_t *) { r.x.raw().size_bytes = 47; });
  expect("not aligned", kInvalid, [](Routing &r, int64_t *, int64_t *) { r.x.raw().data = reinterpret_cast<char *>(r.logits) + 2; });
  expect("device type 2", kInvalid, [](Routing &r, int64_t *, int64_t *) { r.x.on(CHORUS_DEVICE_CUDA, 0); });
  expect("logits", kInvalid, [&](Routing &r, int64_t *shape, int64_t *) {
    shape[0] = huge;
    r.x.raw().shape = shape;
  });
  expect("logits", kInvalid, [&](Routing &r, int64_t *shape, int64_t *) {
    shape[0] = -3;
    r.x.raw().shape = shape;
  });
  expect("logits: shape", kInvalid, [&](Routing &r, int64_t *, int64_t *strides) {
    strides[0] = huge;
    r.x.raw().strides = strides;
  });
  expect("logits: shape", kInvalid, [&](Routing &r, int64_t *, int64_t *strides) {
    strides[0] = -4;
    r.x.raw().strides = strides;
  });
  expect("the last dimension has stride 2", kInvalid, [&](Routing &r, int64_t *, int64_t *strides) {
    strides[0] = 0;
    strides[1] = 2;
    r.x.raw().strides = strides;
  });
  expect("runs past the end of memory", kInvalid, [](Routing &r, int64_t *, int64_t *) { r.x.raw().size_bytes = UINT64_MAX; });
  expect("weights: is read-only", kInvalid, [](Routing &r, int64_t *, int64_t *) { r.out_weights.raw().flags = 1; });
  expect("weights: stride 0 of dimension 0", kInvalid, [&](Routing &r, int64_t *, int64_t *) {
    r.out_weights.with_strides({0, 1}, 24);
  });
  expect("weights overlaps logits", kInvalid, [](Routing &r, int64_t *, int64_t *) {
    r.out_weights.raw().data = r.logits + 4;
  });
}

Test(calls, outputs_with_row_strides_and_empty_calls_are_fine) {
  const chorus::Context context(explicit_spec());
  const chorus::Router router = router_of(context);
  Routing r;
  float wide[3 * 7];
  r.out_weights = chorus::Tensor(wide, {3, 2}).with_strides({7, 1}, sizeof(wide));
  router.route(r.x, nullptr, r.out);
  r.expect_result();
  Routing empty;
  empty.x = chorus::Tensor(static_cast<float *>(nullptr), {0, 4});
  empty.out_ids = chorus::Tensor(static_cast<int32_t *>(nullptr), {0, 2}).with_strides({INT64_MAX, INT64_MAX}, 0);
  empty.out.weights = nullptr;
  try {
    router.route(empty.x, nullptr, empty.out);
  } catch (const chorus::Error &error) {
    cr_expect(contains(error.what(), "ids"), "%s", error.what());
  }
  empty.out_ids = chorus::Tensor(static_cast<int32_t *>(nullptr), {0, 2});
  router.route(empty.x, nullptr, empty.out);
}

Test(calls, the_hosts_floating_point_environment_survives) {
  const chorus::Context context(explicit_spec("1"));
  const chorus::Router router = router_of(context);
  Routing usual, odd;
  router.route(usual.x, nullptr, usual.out);
  std::fesetround(FE_UPWARD);
  std::feraiseexcept(FE_DIVBYZERO);
  router.route(odd.x, nullptr, odd.out);
  const int rounding = std::fegetround();
  const int raised = std::fetestexcept(FE_ALL_EXCEPT);
  std::fesetround(FE_TONEAREST);
  cr_expect_eq(rounding, FE_UPWARD);
  cr_expect_eq(raised, FE_DIVBYZERO);
  for (int i = 0; i < 6; ++i) cr_expect_eq(odd.weights[i], usual.weights[i], "kernels never see it");
}

Test(calls, a_forked_child_computes_instead_of_hanging, .timeout = 60) {
  for (const char *threads : {"1", "2", "5"}) {
    const chorus::Context context(explicit_spec(threads));
    const chorus::Router router = router_of(context);
    Routing before;
    router.route(before.x, nullptr, before.out);
    const pid_t child = fork();
    if (child == 0) {
      alarm(20);  // a hang ends as a signal
      Routing r;
      router.route(r.x, nullptr, r.out);
      bool same = std::equal(r.ids, r.ids + 6, before.ids) && std::equal(r.weights, r.weights + 6, before.weights);
      {
        const chorus::Context own(explicit_spec(threads));  // made in the child
        const chorus::Router another = router_of(own);
        Routing again;
        another.route(again.x, nullptr, again.out);
        same = same && std::equal(again.ids, again.ids + 6, before.ids);
      }
      _exit(same ? 0 : 1);
    }
    int status = 0;
    waitpid(child, &status, 0);
    cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 0, "threads=%s: status %#x", threads, status);
  }
}

Test(calls, workspace_may_be_the_hosts) {
  const chorus::Context context(explicit_spec());
  const chorus::Router router = router_of(context);
  const uint64_t bytes = router.workspace_size(3);
  std::vector<char> memory(bytes + 128);
  const auto address = (reinterpret_cast<uintptr_t>(memory.data()) + 63) / 64 * 64;
  chorus_exec exec = CHORUS_EXEC_INIT;
  exec.workspace = reinterpret_cast<void *>(address);
  exec.workspace_bytes = bytes;
  Routing r;
  router.route(r.x, nullptr, r.out, &exec);
  r.expect_result();
  exec.struct_size = 8;
  try {
    router.route(r.x, nullptr, r.out, &exec);
    cr_expect(false, "accepted");
  } catch (const chorus::Error &error) {
    cr_expect(contains(error.what(), "exec: struct_size is 8"), "%s", error.what());
  }
}
