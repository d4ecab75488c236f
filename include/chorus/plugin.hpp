// SPDX-License-Identifier: Apache-2.0
//
// Comfort for backend authors who write C++20: refusals with a reason, errors, prepared states, parallel loops, the
// elements of tensors and formats, and the order of sums. Header-only over plugin.h; a plugin that includes it still
// links nothing of libchorus. The C contract is plugin.h alone: nothing here is part of the ABI.
#ifndef CHORUS_PLUGIN_HPP_
#define CHORUS_PLUGIN_HPP_

#include <bit>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <new>
#include <type_traits>

#include "plugin.h"

namespace chorus::plugin {

// ---- Refusals, errors, states, loops ----

// The answer of `score` for what is not supported: 0, with the field, what was found and what is supported in `why`.
__attribute__((format(printf, 3, 4))) inline int32_t refuse(char *why, size_t why_bytes, const char *format, ...) {
  if (why == nullptr || why_bytes == 0) return 0;
  va_list list;
  va_start(list, format);
  std::vsnprintf(why, why_bytes, format, list);
  va_end(list);
  return 0;
}

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

// ---- Formats: exact widening, and narrowing with one rounding to nearest even ----

inline bool is_nan(float x) { return x != x; }
inline bool is_nan(double x) { return x != x; }

inline uint64_t bytes_of(chorus_dtype dtype) { return (dtype >> 8) / 8; }

// The formats merges compute with.
inline bool is_float(chorus_dtype dtype) {
  return dtype == CHORUS_F64 || dtype == CHORUS_F32 || dtype == CHORUS_F16 || dtype == CHORUS_BF16;
}

inline float f32_from_bf16(uint16_t bits) { return std::bit_cast<float>(uint32_t{bits} << 16); }

inline float f32_from_f16(uint16_t bits) {
  const uint32_t sign = uint32_t{bits & 0x8000u} << 16;
  const uint32_t magnitude = bits & 0x7fffu;
  if (magnitude >= 0x7c00u) return std::bit_cast<float>(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13);
  if (magnitude >= 0x0400u) return std::bit_cast<float>(sign | ((magnitude << 13) + (112u << 23)));
  const float subnormal = static_cast<float>(magnitude) * 0x1p-24f;
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(subnormal));
}

// Nearest even; NaN stays NaN (quiet); beyond the largest bf16 plus half an ulp: infinity.
inline uint16_t bf16_from_f32(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  if (is_nan(x)) return static_cast<uint16_t>(bits >> 16 | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

// Nearest even; NaN stays NaN (quiet); 65520 and above: infinity.
inline uint16_t f16_from_f32(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  const uint32_t sign = bits >> 16 & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u | (magnitude >> 13 & 0x1ffu));
  if (magnitude >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);
  if (magnitude < 0x38800000u) {  // below 2^-14: adding 0.5 leaves the subnormal's bits, rounded by the hardware
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(shifted) - std::bit_cast<uint32_t>(0.5f)));
  }
  const uint32_t rounded = magnitude + 0xfffu + (magnitude >> 13 & 1u);
  return static_cast<uint16_t>(sign | (rounded - (112u << 23)) >> 13);
}

// f64 to f32 rounded to odd: of the two neighbours the one with an odd last bit. Rounding that to nearest even in a
// format with at least two bits less gives the nearest even of x itself (Boldo and Melquiond, 2008).
inline float f32_to_odd(double x) {
  const float nearest = static_cast<float>(x);
  if (is_nan(x) || static_cast<double>(nearest) == x) return nearest;
  uint32_t bits = std::bit_cast<uint32_t>(nearest);
  const double magnitude = x < 0 ? -x : x;
  const double nearest_magnitude = nearest < 0 ? -static_cast<double>(nearest) : static_cast<double>(nearest);
  if (nearest_magnitude > magnitude) --bits;  // toward zero
  return std::bit_cast<float>(bits | 1u);
}

inline float load_f32(chorus_dtype dtype, const void *data, int64_t index) {
  switch (dtype) {
    case CHORUS_F16: return f32_from_f16(static_cast<const uint16_t *>(data)[index]);
    case CHORUS_BF16: return f32_from_bf16(static_cast<const uint16_t *>(data)[index]);
    default: return static_cast<const float *>(data)[index];
  }
}

inline double load_f64(chorus_dtype dtype, const void *data, int64_t index) {
  if (dtype == CHORUS_F64) return static_cast<const double *>(data)[index];
  return static_cast<double>(load_f32(dtype, data, index));
}

// Stores with one rounding to nearest even.
inline void store_f32(chorus_dtype dtype, void *data, int64_t index, float x) {
  switch (dtype) {
    case CHORUS_F16: static_cast<uint16_t *>(data)[index] = f16_from_f32(x); break;
    case CHORUS_BF16: static_cast<uint16_t *>(data)[index] = bf16_from_f32(x); break;
    default: static_cast<float *>(data)[index] = x;
  }
}

inline void store_f64(chorus_dtype dtype, void *data, int64_t index, double x) {
  switch (dtype) {
    case CHORUS_F64: static_cast<double *>(data)[index] = x; break;
    case CHORUS_F32: static_cast<float *>(data)[index] = static_cast<float>(x); break;
    default: store_f32(dtype, data, index, f32_to_odd(x));
  }
}

// ---- Tensors of args, which the host has already checked: strides and dtypes only ----

inline chorus_dtype dtype_of(const chorus_tensor &t) {
  return static_cast<chorus_dtype>(t.dtype_code | uint32_t{t.dtype_bits} << 8);
}

// Elements between neighbours along `axis`.
inline int64_t stride_of(const chorus_tensor &t, int axis) {
  if (t.strides != nullptr) return t.strides[axis];
  int64_t stride = 1;
  for (int i = t.ndim - 1; i > axis; --i) stride *= t.shape[i];
  return stride;
}

// First element of row `row` of a matrix.
inline void *row_of(const chorus_tensor &t, int64_t row) {
  const int64_t elements = row * stride_of(t, 0);
  return static_cast<char *>(t.data) + elements * static_cast<int64_t>(bytes_of(dtype_of(t)));
}

inline float f32_at(const chorus_tensor &t, int64_t i) { return static_cast<const float *>(t.data)[i * stride_of(t, 0)]; }

inline int64_t integer_at(chorus_dtype dtype, const void *data, int64_t index) {
  if (dtype == CHORUS_I64) return static_cast<const int64_t *>(data)[index];
  return static_cast<const int32_t *>(data)[index];
}

inline int64_t integer_at(const chorus_tensor &t, int64_t i) { return integer_at(dtype_of(t), t.data, i * stride_of(t, 0)); }

inline void put_integer(chorus_dtype dtype, void *data, int64_t index, int64_t value) {
  if (dtype == CHORUS_I64) {
    static_cast<int64_t *>(data)[index] = value;
  } else {
    static_cast<int32_t *>(data)[index] = static_cast<int32_t>(value);
  }
}

// Element i of a vector output; NULL outputs are not wanted.
inline void put_integer(const chorus_tensor *t, int64_t i, int64_t value) {
  if (t != nullptr) put_integer(dtype_of(*t), t->data, i * stride_of(*t, 0), value);
}
inline void put_float(const chorus_tensor *t, int64_t i, double value) {
  if (t != nullptr) store_f64(dtype_of(*t), t->data, i * stride_of(*t, 0), value);
}

// ---- The order of every reduction (docs/numerics.md, "Reductions"): blocks of 4096 elements, 32 virtual lanes that
// accumulate element by element, lanes and then blocks joined in the pairwise tree over their index ----

// Joins count values in the tree ((0+1)+(2+3))+…: neighbours pairwise, level by level; an odd last one moves up as it is.
template <typename T>
T join_pairwise(T *values, int64_t count) {
  if (count == 0) return T{};
  for (; count > 1; count = (count + 1) / 2) {
    for (int64_t i = 0; 2 * i < count; ++i) {
      values[i] = 2 * i + 1 < count ? values[2 * i] + values[2 * i + 1] : values[2 * i];
    }
  }
  return values[0];
}

// Joins a stream of values in the same tree, with one slot per level: slot i holds a finished run of 2^i values.
template <typename T>
struct PairwiseStream {
  static constexpr int kLevels = 52;  // 2^52 blocks of 4096 elements
  T runs[kLevels];
  uint64_t count = 0;

  void add(T value) {
    int level = 0;
    for (uint64_t c = count; c & 1; c >>= 1) value = runs[level++] + value;
    runs[level] = value;
    ++count;
  }
  T join() const {
    T total{};
    bool first = true;
    for (int level = 0; count >> level != 0; ++level) {
      if ((count >> level & 1) == 0) continue;
      total = first ? runs[level] : runs[level] + total;
      first = false;
    }
    return total;
  }
};

// Sum of term(i), i in [0, count), count counted from the row's first element.
template <typename T, typename Term>
T sum_in_order(int64_t count, const Term &term) {
  PairwiseStream<T> blocks;
  for (int64_t begin = 0; begin < count; begin += CHORUS_BLOCK) {
    const int64_t end = begin + CHORUS_BLOCK < count ? begin + CHORUS_BLOCK : count;
    T lanes[CHORUS_LANES] = {};
    for (int64_t i = begin; i < end; ++i) lanes[i % CHORUS_LANES] += term(i);
    blocks.add(join_pairwise(lanes, CHORUS_LANES));
  }
  return blocks.join();
}

}  // namespace chorus::plugin
#endif  // CHORUS_PLUGIN_HPP_
