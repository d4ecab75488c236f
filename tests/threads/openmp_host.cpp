// SPDX-License-Identifier: Apache-2.0
// openmp-host PLUGIN: a host that uses OpenMP itself. Its number of threads is what it was, before, between and after calls,
// on every thread; and parallel regions of its own may call the library.
#include <omp.h>

#include <cstdio>

#include "problems.h"

namespace {

int failures = 0;

void expect_threads(int wanted, const char *when) {
  if (omp_get_max_threads() == wanted && omp_get_dynamic() == 0) return;
  std::fprintf(stderr, "FAILED: omp_get_max_threads() is %d %s; it was %d\n", omp_get_max_threads(), when, wanted);
  ++failures;
}

}  // namespace

int main(int argc, char **argv) {
  if (argc != 2) return 2;
  try {
    omp_set_dynamic(0);
    for (const int threads : {3, 1, 7}) {
      omp_set_num_threads(threads);
      chorus::ContextSpec spec;
      spec.set_option("plugins", "explicit").set_option("threads", "2").add_plugin(argv[1]);
      const chorus::Context context(spec);
      expect_threads(threads, "after a context was made");
      const threads::Objects objects(context, "cpu");
      expect_threads(threads, "after objects were made");
      const std::string wanted = objects.run();
      expect_threads(threads, "after calls");
      int ran = 0, different = 0;
#pragma omp parallel reduction(+ : ran, different)
      {
        ran += 1;
        different += objects.run() != wanted;
      }
      expect_threads(threads, "after calls inside a parallel region");
      if (ran != threads || different != 0) {
        std::fprintf(stderr, "FAILED: %d threads ran, %d with other bytes; %d were set\n", ran, different, threads);
        ++failures;
      }
    }
  } catch (const chorus::Error &error) {
    std::fprintf(stderr, "%s\n", error.text());
    return 1;
  }
  return failures == 0 ? 0 : 1;
}
