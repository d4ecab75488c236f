// SPDX-License-Identifier: Apache-2.0
// Runs: the same bytes whatever threads and memory; cancelled, killed and out of disk, nothing is there.
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "unit/merge/support.h"

namespace fs = std::filesystem;
using unit::Bench;

namespace {

const char *const kSlerp = R"({merge_method: slerp, base_model: "@a", models: [{model: "@a"}, {model: "@b"}], parameters: {t: 0.3}})";
const char *const kLinear = R"({merge_method: linear, models: [{model: "@a"}, {model: "@b"}, {model: "@c"}], parameters: {weight: [0.3, 0.7]}})";

std::string weights(const std::string &folder) { return unit::read_file(folder + "/model.safetensors"); }

// Larger tensors, so that pieces and their tree matter.
void enlarge(Bench *bench) {
  for (const char *name : {"a", "b", "c"}) {
    fs::remove_all(*bench / name);
    bench->add(name, unit::random_model(static_cast<unsigned>(name[0]), CHORUS_F32, 2, 128, 7001));
  }
}

chorus::MergerSpec spec_of(const Bench &bench, const char *recipe, const std::string &output) {
  chorus::MergerSpec spec;
  spec.set_recipe(bench.recipe(recipe), "r").set_output(bench / output);
  return spec;
}

int32_t cancel_at_second(void *calls, const chorus_merge_progress *) { return ++*static_cast<int *>(calls) >= 2 ? 1 : 0; }

struct Seen {
  uint64_t done = 0, total = 0;
  int calls = 0;
  bool grows = true, finished = false;
};
int32_t watch(void *user, const chorus_merge_progress *progress) {
  auto *seen = static_cast<Seen *>(user);
  seen->grows &= progress->bytes_done >= seen->done && progress->bytes_done <= progress->bytes_total;
  seen->done = progress->bytes_done;
  seen->total = progress->bytes_total;
  seen->finished = std::string(progress->phase) == "finish";
  ++seen->calls;
  return 0;
}

}  // namespace

Test(run, same_bytes_for_any_threads_and_memory) {
  Bench bench;
  enlarge(&bench);
  for (const char *recipe : {kSlerp, kLinear}) {
    bench.merge(recipe, 1);
    const std::string want = weights(bench / "out");
    for (const int threads : {1, 2, 5}) {
      for (const uint64_t memory : {uint64_t{64} << 20, uint64_t{1} << 30}) {
        bench.merge(recipe, threads, memory);
        cr_assert(weights(bench / "out") == want, "%d threads, %llu bytes change the result", threads, static_cast<unsigned long long>(memory));
      }
    }
  }
}

Test(run, progress_counts_every_byte) {
  const Bench bench;
  Seen seen;
  const chorus::MergerSpec spec = spec_of(bench, kSlerp, "new");
  const chorus::Merger merger(unit::context(), spec);
  merger.run(watch, &seen);
  cr_assert(seen.grows && seen.finished && seen.calls >= 3);
  cr_assert_eq(seen.done, seen.total);
  cr_assert(fs::exists(bench / "new/model.safetensors"));
}

Test(run, cancelled_leaves_nothing) {
  const Bench bench;
  int calls = 0;
  const chorus::MergerSpec spec = spec_of(bench, kSlerp, "below/new");
  const chorus::Merger merger(unit::context(), spec);
  try {
    merger.run(cancel_at_second, &calls);
    cr_assert(false, "the run was not cancelled");
  } catch (const chorus::Error &error) {
    cr_assert_eq(error.code(), CHORUS_CANCELLED);
  }
  cr_assert(!fs::exists(bench / "below"));
}

Test(run, a_folder_in_use_is_refused) {
  const Bench bench;
  const chorus::MergerSpec spec = spec_of(bench, kLinear, "a");
  const std::string before = weights(bench / "a");
  try {
    chorus::Merger(unit::context(), spec).run();
    cr_assert(false, "a model was overwritten");
  } catch (const chorus::Error &error) {
    cr_assert_eq(error.code(), CHORUS_ALREADY_EXISTS, "%s", error.text());
  }
  cr_assert(weights(bench / "a") == before);
}

// Into the folder of an input, which stays readable until the end.
Test(run, replaces_one_of_its_inputs) {
  const Bench bench;
  bench.merge(kLinear);
  const std::string want = weights(bench / "out");
  bench.merge(kLinear, 1, uint64_t{1} << 30, "b");
  cr_assert(weights(bench / "b") == want);
}

Test(run, without_output_it_is_a_plan_only) {
  const Bench bench;
  chorus::MergerSpec spec;
  spec.set_recipe(bench.recipe(kLinear), "r");
  const chorus::Merger merger(unit::context(), spec);
  cr_assert_eq(merger.plan().merged_count, merger.plan().tensor_count);
  cr_assert(unit::contains(merger.plan_json(), "\"bytes_to_read\""));
  try {
    merger.run();
    cr_assert(false, "there is nowhere to write");
  } catch (const chorus::Error &error) {
    cr_assert_eq(error.code(), CHORUS_FAILED_PRECONDITION);
  }
}

Test(run, integers_are_copied_when_equal) {
  Bench bench;
  for (const int different : {0, 1}) {
    for (const char *name : {"x", "y"}) {
      unit::Model model = unit::random_model(3);
      model["model.position_ids"] = {CHORUS_I64, {1, 4}, {0, 1, 2, name[0] == 'y' ? 3.0 + different : 3.0}};
      bench.add(std::string(name) + std::to_string(different), model);
    }
  }
  const unit::Model got = bench.merge("{merge_method: linear, models: [{model: '@x0'}, {model: '@y0'}], parameters: {weight: 1}}");
  cr_assert(got.at("model.position_ids").values == std::vector<double>({0, 1, 2, 3}));
  try {
    bench.merge("{merge_method: linear, models: [{model: '@x1'}, {model: '@y1'}], parameters: {weight: 1}}", 1, uint64_t{1} << 30, "int");
    cr_assert(false, "different integers were merged");
  } catch (const chorus::Error &error) {
    cr_assert(unit::contains(error.text(), "model.position_ids"), "%s", error.text());
  }
  cr_assert(!fs::exists(bench / "int"));
}

Test(run, a_full_disk_leaves_nothing) {
  const Bench bench;
  const chorus::MergerSpec spec = spec_of(bench, kLinear, "new");
  const chorus::Merger merger(unit::context(), spec);
  signal(SIGXFSZ, SIG_IGN);
  rlimit limit;
  getrlimit(RLIMIT_FSIZE, &limit);
  const rlimit small = {40000, limit.rlim_max};
  setrlimit(RLIMIT_FSIZE, &small);
  unit::Outcome outcome;
  const chorus_status status = chorus_merger_run(merger.get(), nullptr, nullptr, outcome.slot());
  setrlimit(RLIMIT_FSIZE, &limit);
  cr_assert_neq(status, CHORUS_OK);
  cr_assert(!fs::exists(bench / "new"), "%s", outcome.text().c_str());
}

Test(run, an_input_cut_short_after_planning_fails) {
  const Bench bench;
  const chorus::MergerSpec spec = spec_of(bench, kLinear, "new");
  const chorus::Merger merger(unit::context(), spec);
  fs::resize_file(bench / "b/model.safetensors", 20000);
  unit::Outcome outcome;
  cr_assert_eq(chorus_merger_run(merger.get(), nullptr, nullptr, outcome.slot()), CHORUS_DATA_LOSS, "%s", outcome.text().c_str());
  cr_assert(unit::contains(outcome.text(), "b/model.safetensors"), "%s", outcome.text().c_str());
  cr_assert(!fs::exists(bench / "new"));
}

// Killed at any moment: either no reader finds a model, or it is whole.
Test(run, killed_at_any_moment_the_model_is_absent_or_complete) {
  const Bench bench;
  bench.merge(kSlerp);
  const std::string want = weights(bench / "out");
  std::mt19937 random(11);
  int absent = 0;
  for (int i = 0; i < 200; ++i) {
    const std::string output = "killed" + std::to_string(i);
    const pid_t child = fork();
    if (child == 0) {
      const chorus::MergerSpec spec = spec_of(bench, kSlerp, output);
      chorus::Merger(unit::context(), spec).run();
      _exit(0);
    }
    usleep(static_cast<useconds_t>(random() % 40000));
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    unit::Outcome outcome;
    chorus_checkpoint *checkpoint = nullptr;
    const chorus::Context context = unit::context();
    if (chorus_checkpoint_open(context.get(), (bench / output).c_str(), &checkpoint, outcome.slot()) == CHORUS_OK) {
      cr_assert(weights(bench / output) == want, "run %d left another model", i);
      cr_assert(fs::exists(bench / (output + "/config.json")));
    } else {
      cr_assert(!fs::exists(bench / output), "run %d left a folder without a model", i);
      ++absent;
    }
    chorus_checkpoint_destroy(checkpoint);
    fs::remove_all(bench / output);
    fs::remove_all(bench / ("." + output + ".partial"));
  }
  cr_assert(absent > 0, "no run was killed before its end");
}
