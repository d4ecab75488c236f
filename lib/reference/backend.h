// SPDX-License-Identifier: Apache-2.0
// What the kernels of the built-in backend share: the device, refusals with a reason, errors, prepared state.
#pragma once
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <new>
#include <type_traits>

#include "chorus/plugin.h"

struct chorus_plugin_device {
  const chorus_host *host;
};

namespace chorus::reference {

// One per file of this folder.
extern const chorus_kernel kCombineRows;
extern const chorus_kernel kRouteTopk;
extern const chorus_kernel kMergeReduce;
extern const chorus_kernel kMergeApply;
extern const chorus_kernel kExpertsFfn;

// The answer of `score` for what is not supported: 0, with the field, what was found and what is supported in `why`.
__attribute__((format(printf, 3, 4))) inline int32_t refuse(char *why, size_t why_bytes, const char *format, ...) {
  if (why == nullptr || why_bytes == 0) return 0;
  va_list list;
  va_start(list, format);
  std::vsnprintf(why, why_bytes, format, list);
  va_end(list);
  return 0;
}

inline constexpr int32_t kScore = 1;  // any other backend that can do it wins

// Describes a failure to the host; returns `code`.
__attribute__((format(printf, 4, 5))) inline chorus_status report(const chorus_host *host, chorus_error_slot slot,
                                                                  chorus_status code, const char *format, ...) {
  char text[256];
  va_list list;
  va_start(list, format);
  const int length = std::vsnprintf(text, sizeof text, format, list);
  va_end(list);
  const size_t bytes = length < 0 ? 0 : static_cast<size_t>(length);
  return host->set_error(slot, code, text, bytes < sizeof text ? bytes : sizeof text - 1);
}

inline constexpr uint64_t kAlignment = CHORUS_WORKSPACE_ALIGNMENT_HOST;

inline uint64_t aligned(uint64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

// A prepared state in the host's memory; NULL after an error was described.
template <typename State>
State *make_state(const chorus_host *host, chorus_error_slot slot) {
  static_assert(std::is_trivially_destructible_v<State>, "release only frees");
  void *memory = host->allocate(host->self, sizeof(State), kAlignment);
  if (memory == nullptr) {
    report(host, slot, CHORUS_RESOURCE_EXHAUSTED, "no memory for the %zu bytes of a prepared kernel", sizeof(State));
    return nullptr;
  }
  State *state = new (memory) State{};
  state->host = host;
  return state;
}

template <typename State>
void free_state(void *prepared) {
  if (prepared == nullptr) return;
  const chorus_host *host = static_cast<State *>(prepared)->host;
  host->deallocate(host->self, prepared, sizeof(State), kAlignment);
}

// Calls body(i) for i in [0, count), through the host's pool.
template <typename Body>
void parallel_for(const chorus_host *host, int64_t count, const Body &body) {
  if (count <= 0) return;
  const auto task = [](void *argument, uint64_t index) {
    (*static_cast<const Body *>(argument))(static_cast<int64_t>(index));
  };
  host->parallel_for(host->self, static_cast<uint64_t>(count), task, const_cast<Body *>(&body));
}

}  // namespace chorus::reference
