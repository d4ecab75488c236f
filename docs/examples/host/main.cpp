// SPDX-License-Identifier: Apache-2.0
// chorus-host FOLDER [--json]: opens libchorus, reads the family of models in FOLDER, and shows what each object of
// Chorus does with them on text none of them was trained on.
#include <csignal>
#include <cstdio>
#include <cstring>
#include <exception>
#include <mutex>
#include <set>

#include "sections.h"

namespace {

volatile int interrupted = 0;
void interrupt(int) { interrupted = 1; }

// Each object that has to fall back to a slower kernel says so; once is enough here.
void log(void *, chorus_log_level, const char *message, size_t length) {
  static std::mutex mutex;
  static std::set<std::string> said;
  const std::lock_guard lock(mutex);
  if (!said.emplace(message, length).second) return;
  std::fprintf(stderr, "chorus: %.*s\n", static_cast<int>(length), message);
}

const char kUsage[] =
    "chorus-host FOLDER [--json]\n"
    "  FOLDER   the family of example models: docs/examples/family\n"
    "  --json   one JSON object instead of tables\n"
    "libchorus is found beside this program (../lib), or where CHORUS_LIBRARY says.\n";

// Which plugins were loaded, so that it is plain who does the work.
std::string plugins(const host::Library &library, const chorus_context *context) {
  std::string names;
  for (size_t i = 0; i < library.chorus_context_get_plugin_count(context); ++i) {
    chorus_plugin_info info = CHORUS_PLUGIN_INFO_INIT;
    library.check([&](auto **error) { return library.chorus_context_get_plugin(context, i, &info, error); });
    if (info.status == CHORUS_OK) names += (names.empty() ? "" : ", ") + std::string(info.name);
  }
  return names;
}

void run(const std::string &folder, bool json) {
  const host::Library library;
  const auto spec = library.make(library.chorus_context_spec_destroy, library.chorus_context_spec_create);
  library.check([&](auto **error) {
    return library.chorus_context_spec_set_log(spec.get(), log, nullptr, CHORUS_LOG_WARNING, error);
  });
  const auto context = library.make(library.chorus_context_destroy, [&](auto **out, auto **error) {
    return library.chorus_context_create(spec.get(), out, error);
  });

  host::Report report(json);
  report.fact("version", "libchorus", library.chorus_version());
  report.fact("plugins", "plugins loaded", plugins(library, context.get()));
  host::Study study(library, context.get(), folder, &interrupted);
  host::each_model_alone(study, report);
  host::mix_predictions(study, report);
  host::merge_weights(study, report);
  host::route_to_experts(library, context.get(), study, report);
  host::generate_text(study, report);
  std::string kernels;
  for (const auto &[op, kernel] : report.data()["kernels"].items()) {
    kernels += (kernels.empty() ? "" : ", ") + op + " by " + kernel.get<std::string>();
  }
  report.section("Who did the work", kernels + ".");
  report.finish();
}

}  // namespace

int main(int argc, char **argv) {
  const char *folder = nullptr;
  bool json = false, bad = false;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--help") == 0) return std::fputs(kUsage, stdout) < 0;
    if (std::strcmp(argv[i], "--json") == 0) {
      json = true;
    } else if (argv[i][0] != '-' && folder == nullptr) {
      folder = argv[i];
    } else {
      bad = true;
    }
  }
  if (bad || folder == nullptr) return std::fputs(kUsage, stderr), 2;
  std::signal(SIGINT, interrupt);
  std::signal(SIGTERM, interrupt);
  try {
    run(folder, json);
  } catch (const std::exception &failure) {
    std::fprintf(stderr, "chorus-host: %s\n", failure.what());
    return interrupted != 0 ? 130 : 1;
  }
  return 0;
}
