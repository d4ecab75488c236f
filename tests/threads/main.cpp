// SPDX-License-Identifier: Apache-2.0
// thread-tests DEVICE [PLUGIN]: threads that share contexts, combiners, routers, experts, checkpoints, vocabularies and errors.
// Every result must have the bytes of the same call alone. Built with ThreadSanitizer by `./dev test`; that does not see into
// oneTBB, so there the pool is the host's, of std::thread.
#include <atomic>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <mutex>
#include <thread>

#include "problems.h"

namespace {

#if defined(__SANITIZE_THREAD__)
constexpr bool kWatched = true;
#else
constexpr bool kWatched = false;
#endif

std::atomic<int> failures{0};

void expect(bool condition, const char *what) {
  if (condition) return;
  if (++failures <= 20) std::fprintf(stderr, "FAILED: %s\n", what);
}

// Runs `body(t)` on `count` threads at once.
void on_threads(int count, const std::function<void(int)> &body) {
  std::vector<std::thread> threads;
  for (int t = 0; t < count; ++t) {
    threads.emplace_back([&body, t] {
      try {
        body(t);
      } catch (const std::exception &error) {
        expect(false, error.what());
      }
    });
  }
  for (std::thread &thread : threads) thread.join();
}

// A pool as a host may bring: new threads for each loop, indices taken one by one.
void host_parallel_for(void *user, uint64_t count, void (*task)(void *, uint64_t), void *argument) {
  std::atomic<uint64_t> next{0};
  const auto work = [&] {
    for (uint64_t i = next++; i < count; i = next++) task(argument, i);
  };
  std::vector<std::thread> threads;
  for (int t = 1; t < *static_cast<int *>(user); ++t) threads.emplace_back(work);
  work();
  for (std::thread &thread : threads) thread.join();
}

struct Setup {
  std::string device, plugin;

  chorus::ContextSpec spec(int *threads, bool own_pool) const {
    chorus::ContextSpec spec;
    spec.set_option("plugins", "explicit");
    if (!plugin.empty()) spec.add_plugin(plugin);
    if (own_pool) spec.set_option("threads", std::to_string(*threads));
    else spec.set_parallel_for(host_parallel_for, threads, *threads);
    return spec;
  }
  chorus::Context context(int *threads, bool own_pool) const { return chorus::Context(spec(threads, own_pool)); }
};

// Bytes do not depend on how many threads a pool has, nor on whose it is.
std::string same_bytes_for_any_pool(const Setup &setup) {
  std::string first;
  for (const bool own : {false, true}) {
    if (own && kWatched) continue;
    for (int threads : {1, 2, 5}) {
      const chorus::Context context = setup.context(&threads, own);
      const std::string bytes = threads::Objects(context, setup.device).run();
      if (first.empty()) first = bytes;
      expect(bytes == first, own ? "other bytes on an own pool" : "other bytes on a host's pool");
    }
  }
  return first;
}

void objects_are_shared(const Setup &setup, const std::string &wanted) {
  int pool = 2;
  const chorus::Context context = setup.context(&pool, !kWatched);
  const threads::Objects objects(context, setup.device);
  on_threads(6, [&](int) {
    for (int i = 0; i < 4; ++i) expect(objects.run() == wanted, "other bytes when objects are shared");
  });
}

// Contexts are made and destroyed at once, while objects made from them live on.
void contexts_come_and_go(const Setup &setup, const std::string &wanted) {
  on_threads(4, [&](int) {
    for (int i = 0; i < 2; ++i) {
      int pool = 2;
      auto context = std::make_unique<chorus::Context>(setup.context(&pool, !kWatched));
      const threads::Objects objects(*context, setup.device);
      expect(!context->devices().empty() && !context->options().empty(), "a context without devices or options");
      context.reset();
      expect(objects.run() == wanted, "other bytes after the context was given back");
    }
  });
}

void files_are_shared(const Setup &setup) {
  const std::string root = CHORUS_SOURCE_DIR;
  int pool = 2;
  const chorus::Context context = setup.context(&pool, !kWatched);
  const chorus::Checkpoint checkpoint(context, root + "/tests/vectors/checkpoints/all_types.safetensors");
  const chorus::Vocabulary vocabulary(context, root + "/tests/vectors/vocabularies/llama2.json");
  const std::string text = "Every thread encodes the same text, again and again.";
  const auto ids = vocabulary.encode(text);
  const auto print = vocabulary.fingerprint();
  on_threads(6, [&](int) {
    for (int i = 0; i < 10; ++i) {
      for (size_t t = 0; t < checkpoint.tensor_count(); ++t) {
        const chorus_tensor_info info = checkpoint.tensor(t);
        std::string bytes(info.size_bytes, '\0');
        checkpoint.read_bytes(t, 0, bytes.size(), bytes.data());
        for (size_t at = 0; at < bytes.size(); ++at) {
          expect(bytes[at] == static_cast<char>(31 * at + 7), "other bytes of a tensor");
        }
      }
      expect(vocabulary.encode(text) == ids && vocabulary.decode(ids) == text, "other ids of a text");
      expect(vocabulary.fingerprint() == print, "another fingerprint");
    }
  });
}

// Failures are told on the thread that failed; an error may be read and freed on another.
void failures_are_per_call(const Setup &setup) {
  int pool = 2;
  const chorus::Context context = setup.context(&pool, !kWatched);
  std::mutex mutex;
  std::vector<chorus_error *> errors;
  on_threads(4, [&](int t) {
    for (int i = 0; i < 20; ++i) {
      chorus_router *router = nullptr;
      chorus_error *error = nullptr;
      const std::string device = "no-device-" + std::to_string(t) + "-" + std::to_string(i);
      const chorus::RouterSpec spec(4, 2);
      expect(chorus_router_create(context.get(), spec.get(), device.c_str(), &router, &error) == CHORUS_NOT_FOUND, "no failure");
      expect(std::string(chorus_error_get_text(error)).find(device) != std::string::npos, "another call's message");
      const std::lock_guard lock(mutex);
      errors.push_back(error);
    }
  });
  for (chorus_error *error : errors) chorus_error_destroy(error);
}

// The log is called from any thread.
void logs_arrive_from_all_threads(const Setup &setup) {
  static std::atomic<int> messages;
  messages = 0;
  int pool = 2;
  on_threads(4, [&](int) {
    chorus::ContextSpec spec = setup.spec(&pool, !kWatched);
    spec.set_log([](void *, chorus_log_level, const char *message, size_t length) { messages += message != nullptr && length > 0; }, nullptr,
                 CHORUS_LOG_DEBUG);
    const chorus::Context context(spec);
    const threads::Objects objects(context, setup.device);
    expect(!objects.run().empty(), "no result");
  });
  if (!setup.plugin.empty()) expect(messages > 0, "loading a plugin left no message at level debug");
}

}  // namespace

int main(int argc, char **argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: thread-tests DEVICE [PLUGIN]\n");
    return 2;
  }
  const Setup setup{argv[1], argc > 2 ? argv[2] : ""};
  try {
    const std::string wanted = same_bytes_for_any_pool(setup);
    objects_are_shared(setup, wanted);
    contexts_come_and_go(setup, wanted);
    files_are_shared(setup);
    failures_are_per_call(setup);
    logs_arrive_from_all_threads(setup);
  } catch (const chorus::Error &error) {
    std::fprintf(stderr, "%s\n", error.text());
    return 1;
  }
  std::printf("%s: %d failures\n", argv[1], failures.load());
  return failures == 0 ? 0 : 1;
}
