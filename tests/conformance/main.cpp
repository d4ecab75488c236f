// SPDX-License-Identifier: Apache-2.0
// Runs the conformance tests on one backend:
//   conformance [--device NAME] [--plugin FILE] [--reason TEXT] [TEST…]
// Without --plugin the built-in backend. CHORUS_TEST_PLUGIN and CHORUS_TEST_DEVICE are the same as the
// options; CHORUS_TEST_OPTION=name=value sets an option of the plugin. CHORUS_TEST_SCALE multiplies the number
// of random cases, CHORUS_TEST_SEED repeats a run.
#include <unistd.h>
#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "conformance/backend.h"
#include "conformance/check.h"

namespace conformance {
namespace {

struct Entry {
  const char *name;
  TestFunction function;
};

std::vector<Entry> &entries() {
  static std::vector<Entry> all;
  return all;
}

constexpr int kMostPrinted = 5;
int failures = 0, skips = 0;
uint64_t current_seed = 0;
char current_case[512] = "";
char crash_text[1024] = "";

// A fault in a kernel is a read or write outside its buffers: say where, then die.
void on_fault(int signal) {
  const char text[] = "\nFAULT (memory outside a buffer?) in ";
  [[maybe_unused]] auto written = write(2, text, sizeof text - 1);
  written = write(2, crash_text, std::strlen(crash_text));
  written = write(2, current_case, std::strlen(current_case));
  written = write(2, "\n", 1);
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

const char *option(int argc, char **argv, const char *name, const char *variable) {
  for (int i = 1; i + 1 < argc; ++i) {
    if (std::strcmp(argv[i], name) == 0) return argv[i + 1];
  }
  const char *value = std::getenv(variable);
  return value != nullptr && *value != '\0' ? value : nullptr;
}

bool is_wanted(int argc, char **argv, const char *name) {
  bool any = false;
  for (int i = 1; i < argc; ++i) {
    if (argv[i][0] == '-') {
      ++i;
      continue;
    }
    any = true;
    if (std::strstr(name, argv[i]) != nullptr) return true;
  }
  return !any;
}

// Name and base seed give each test a stream of its own, whatever tests run with it.
uint64_t seed_of(const char *name, uint64_t base) {
  for (; *name != '\0'; ++name) base = Random(base ^ static_cast<unsigned char>(*name)).bits();
  return base;
}

struct Totals {
  int passed = 0, failed = 0, skipped = 0, parts_skipped = 0;
};

void run_test(const Entry &entry, Backend &backend, Backend &reference, uint64_t base, double scale,
              Totals &totals) {
  failures = skips = 0;
  current_case[0] = '\0';
  current_seed = base;
  std::snprintf(crash_text, sizeof crash_text, "%s on %s, CHORUS_TEST_SEED=%llu: ", entry.name,
                backend.name().c_str(), static_cast<unsigned long long>(base));
  const auto begin = std::chrono::steady_clock::now();
  std::string reason;
  try {
    entry.function({backend, reference, seed_of(entry.name, base), scale});
  } catch (const Skipped &skipped) {
    reason = skipped.what();
  } catch (const std::exception &error) {
    expect(false, "%s", error.what());
  }
  backend.check_clean();
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  const char *verdict = failures > 0 ? "FAILED" : !reason.empty() ? "SKIPPED" : "ok";
  std::printf("%-8s%-40s%6.2f s  %s\n", verdict, entry.name, seconds, reason.c_str());
  std::fflush(stdout);
  totals.parts_skipped += skips;
  (failures > 0 ? totals.failed : !reason.empty() ? totals.skipped : totals.passed) += 1;
}

int run(int argc, char **argv) {
  const char *plugin = option(argc, argv, "--plugin", "CHORUS_TEST_PLUGIN");
  const char *device = option(argc, argv, "--device", "CHORUS_TEST_DEVICE");
  const char *seed = std::getenv("CHORUS_TEST_SEED"), *scale = std::getenv("CHORUS_TEST_SCALE");
  const uint64_t base = seed != nullptr ? std::strtoull(seed, nullptr, 10) : 1;
  const auto reference = Backend::open("", "reference");
  const auto other = plugin != nullptr ? Backend::open(plugin, device != nullptr ? device : "") : nullptr;
  Backend &backend = other != nullptr ? *other : *reference;
  std::printf("conformance of %s, seed %llu\n", backend.name().c_str(),
              static_cast<unsigned long long>(base));
  auto tests = entries();
  std::sort(tests.begin(), tests.end(),
            [](const Entry &a, const Entry &b) { return std::strcmp(a.name, b.name) < 0; });
  Totals totals;
  // With --seconds, round after round with another seed until the time is over: a fuzz target.
  const char *seconds = option(argc, argv, "--seconds", "CHORUS_TEST_SECONDS");
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds != nullptr ? std::atof(seconds) : 0);
  uint64_t round = 0;
  do {
    for (const Entry &entry : tests) {
      if (is_wanted(argc, argv, entry.name))
        run_test(entry, backend, *reference, base + round, scale != nullptr ? std::atof(scale) : 1.0, totals);
    }
    ++round;
  } while (totals.failed == 0 && std::chrono::steady_clock::now() < end);
  std::printf("passed %d, failed %d, skipped %d and %d parts\n", totals.passed, totals.failed, totals.skipped,
              totals.parts_skipped);
  return totals.failed > 0 || totals.passed + totals.skipped == 0 ? 1 : 0;
}

}  // namespace

Registration::Registration(const char *name, TestFunction function) {
  entries().push_back({name, function});
}

int Test::cases(int count) const {
  return std::max(1, static_cast<int>(count * scale));
}

namespace {

std::string one_line(std::string text) {
  std::replace(text.begin(), text.end(), '\n', ';');
  return text;
}

}  // namespace

void skip(const std::string &reason) {
  throw Skipped(one_line(reason));
}

// Every skip counts; a reason is printed once in a run.
void count_skip(const std::string &what, const std::string &reason) {
  ++skips;
  const std::string line = one_line(reason);
  static std::set<std::string> said;
  if (said.insert(line).second) std::printf("  skipped %s: %s\n", what.c_str(), line.c_str());
}

bool expect(bool ok, const char *format, ...) {
  if (ok) return true;
  if (++failures <= kMostPrinted) {
    char text[2048];
    va_list list;
    va_start(list, format);
    std::vsnprintf(text, sizeof text, format, list);
    va_end(list);
    std::printf("  FAILURE: %s\n    case: %s (CHORUS_TEST_SEED=%llu)\n", text, current_case,
                static_cast<unsigned long long>(current_seed));
  }
  return false;
}

void describe(const char *format, ...) {
  va_list list;
  va_start(list, format);
  std::vsnprintf(current_case, sizeof current_case, format, list);
  va_end(list);
}

}  // namespace conformance

int main(int argc, char **argv) {
  if (CHORUS_SANITIZER_THIS_BUILD == CHORUS_SANITIZER_NONE) {  // a sanitizer reports faults better
    for (int signal : {SIGSEGV, SIGBUS}) std::signal(signal, conformance::on_fault);
  }
  try {
    return conformance::run(argc, argv);
  } catch (const conformance::Skipped &reason) {
    std::printf("SKIPPED all: %s\n", reason.what());
    return 77;
  } catch (const std::exception &error) {
    std::fprintf(stderr, "conformance: %s\n", error.what());
    return 1;
  }
}
