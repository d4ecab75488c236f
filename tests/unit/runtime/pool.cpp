// SPDX-License-Identifier: Apache-2.0
// Parallel loops: every piece once, nesting, exceptions, the host's own pool, floating-point environment, fork.
#include <criterion/criterion.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cfenv>
#include <stdexcept>
#include <thread>
#include <vector>

#include "runtime/pool.h"

using namespace chorus;

namespace {

using Counts = std::vector<std::atomic<int>>;

void count_piece(void *argument, uint64_t index) { ++(*static_cast<Counts *>(argument))[index]; }

bool each_once(const Pool &pool, uint64_t pieces) {
  Counts counts(pieces + 1);
  pool.parallel_for(pieces, count_piece, &counts);
  for (uint64_t i = 0; i < pieces; ++i) {
    if (counts[i] != 1) return false;
  }
  return counts[pieces] == 0;
}

// A host's pool of a thread per piece, in C: an exception through it would end the process.
extern "C" void threads_of_host(void *user, uint64_t count, void (*task)(void *, uint64_t), void *argument) {
  ++*static_cast<std::atomic<int> *>(user);
  std::vector<std::thread> threads;
  for (uint64_t i = 0; i < count; ++i) threads.emplace_back([=]() noexcept { task(argument, i); });
  for (std::thread &thread : threads) thread.join();
}

}  // namespace

Test(pool, every_piece_runs_once) {
  for (const int threads : {1, 2, 5, 40}) {
    const Pool pool(threads, {});
    cr_expect_eq(pool.threads(), threads);
    for (const uint64_t pieces : {0, 1, 2, 3, 1000}) cr_expect(each_once(pool, pieces), "%d threads, %lu", threads, pieces);
  }
  cr_expect_geq(Pool(0, {}).threads(), 1);
}

Test(pool, nested_loops_run_serially) {
  const Pool pool(4, {});
  struct Shared {
    const Pool *pool;
    std::atomic<int> pieces = 0, strays = 0;
  } shared{&pool};
  pool.parallel_for(
      8,
      [](void *argument, uint64_t) {
        auto *s = static_cast<Shared *>(argument);
        std::pair<Shared *, std::thread::id> inner = {s, std::this_thread::get_id()};
        s->pool->parallel_for(
            16,
            [](void *a, uint64_t) {
              auto *in = static_cast<std::pair<Shared *, std::thread::id> *>(a);
              ++in->first->pieces;
              in->first->strays += in->second != std::this_thread::get_id();
            },
            &inner);
      },
      &shared);
  cr_expect_eq(shared.pieces, 8 * 16);
  cr_expect_eq(shared.strays, 0);
}

Test(pool, exceptions_reach_the_caller_on_every_kind_of_pool) {
  std::atomic<int> uses = 0;
  const Pool own(3, {}), serial(1, {}), host(3, {threads_of_host, &uses, 3});
  for (const Pool *pool : {&own, &serial, &host}) {
    bool caught = false;
    try {
      pool->parallel_for(
          100, [](void *, uint64_t i) { if (i == 42) throw std::runtime_error("piece 42"); }, nullptr);
    } catch (const std::runtime_error &error) {
      caught = std::string(error.what()) == "piece 42";
    }
    cr_expect(caught);
    cr_expect(each_once(*pool, 10), "usable afterwards");
  }
  cr_expect_eq(uses, 2);
  cr_expect_eq(host.threads(), 3);
}

// By arithmetic: what the control word says is not what counts.
Test(pool, pieces_run_in_the_default_environment_and_the_callers_survives) {
  static volatile float one = 1, three = 3;
  const float nearest = one / three;
  std::atomic<int> uses = 0;
  const Pool own(3, {}), serial(1, {}), host(3, {threads_of_host, &uses, 3});
  for (const Pool *pool : {&own, &serial, &host}) {
    std::pair<float, std::atomic<int>> seen = {nearest, 0};
    std::fesetround(FE_DOWNWARD);
    pool->parallel_for(
        50,
        [](void *argument, uint64_t) {
          auto *s = static_cast<std::pair<float, std::atomic<int>> *>(argument);
          s->second += one / three != s->first;
        },
        &seen);
    const float after = one / three;
    std::fesetround(FE_TONEAREST);
    cr_expect_eq(seen.second, 0);
    cr_expect_lt(after, nearest);
  }
}

Test(pool, many_callers_at_once) {
  const Pool pool(2, {});
  std::atomic<int> wrong = 0;
  std::vector<std::thread> callers;
  for (int i = 0; i < 8; ++i) {
    callers.emplace_back([&] {
      for (int n = 0; n < 50; ++n) wrong += !each_once(pool, 37);
    });
  }
  for (std::thread &caller : callers) caller.join();
  cr_expect_eq(wrong, 0);
}

Test(pool, a_forked_child_runs_serially, .timeout = 60) {
  auto pool = std::make_unique<Pool>(4, HostPool());
  cr_assert(each_once(*pool, 100));
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);
    const bool fine = each_once(*pool, 100);
    pool.reset();
    const Pool own(4, {});  // made in the child: its threads were never started here
    _exit(fine && each_once(own, 100) ? 0 : 1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%#x", status);
  cr_expect(each_once(*pool, 100), "the parent goes on");
}
