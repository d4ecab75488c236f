// SPDX-License-Identifier: Apache-2.0
// Checked tensor views against a 128-bit oracle: random ranks, shapes, strides and sizes.
#include <criterion/criterion.h>

#include <optional>

#include "chorus/exact_math.h"
#include "runtime/context.h"
#include "runtime/tensor.h"

using namespace chorus;

namespace {

__extension__ typedef unsigned __int128 Wide;  // no part of ISO C++

class Random {
 public:
  uint64_t word() {
    const uint32_t counter[4] = {n_++, 0, 0, 0}, key[2] = {99, 3};
    uint32_t out[4];
    chorus_philox4x32(counter, key, out);
    return uint64_t{out[0]} << 32 | out[1];
  }
  uint64_t below(uint64_t limit) { return word() % limit; }

 private:
  uint32_t n_ = 0;
};

// Bytes that shape and strides reach; nothing when a size or a used stride is negative, or the sum is beyond 64 bits.
std::optional<uint64_t> reach_by_definition(const chorus_tensor &t) {
  Wide elements = 1;
  bool empty = false;
  for (int32_t i = 0; i < t.ndim; ++i) {
    if (t.shape[i] < 0) return std::nullopt;
    empty = empty || t.shape[i] == 0;
    elements = t.shape[i] == 0 ? elements : elements * static_cast<Wide>(t.shape[i]);
    if (elements > UINT64_MAX) return std::nullopt;
  }
  if (empty) return 0;
  Wide last = 0;
  for (int32_t i = 0; i < t.ndim; ++i) {
    if (t.strides != nullptr && t.strides[i] < 0) return std::nullopt;
    if (t.strides != nullptr) last += static_cast<Wide>(t.shape[i] - 1) * static_cast<Wide>(t.strides[i]);
    if (last > UINT64_MAX) return std::nullopt;
  }
  const Wide bytes = (t.strides != nullptr ? last + 1 : elements) * (t.dtype_bits / 8);
  return bytes > UINT64_MAX ? std::nullopt : std::optional(static_cast<uint64_t>(bytes));
}

bool is_accepted(const chorus_tensor &t, std::initializer_list<int64_t> shape, const Device &device) {
  TensorRule rule = {"t", {CHORUS_F32, CHORUS_F64, CHORUS_BF16, CHORUS_U8}, shape};
  rule.rows_contiguous = false;
  try {
    check_tensor(&t, rule, device);
    return true;
  } catch (const Failure &) {
    return false;
  }
}

std::shared_ptr<const Context> plain_context() {
  ContextSettings settings;
  settings.options = {{"plugins", "none"}};
  return Context::create(settings);
}

constexpr int kCases = 200000;

}  // namespace

Test(tensors, accepted_exactly_when_every_element_lies_within) {
  const DevicePtr device = find_device(plain_context(), "reference");
  Random random;
  int wrong = 0, accepted = 0;
  alignas(64) static char memory[64];
  for (int n = 0; n < kCases; ++n) {
    int64_t shape[4], strides[4];
    chorus_tensor t = CHORUS_TENSOR_INIT;
    const chorus_dtype dtypes[] = {CHORUS_F32, CHORUS_F64, CHORUS_BF16, CHORUS_U8};
    const chorus_dtype dtype = dtypes[random.below(4)];
    t.dtype_code = dtype & 0xff;
    t.dtype_bits = static_cast<uint8_t>(dtype >> 8);
    t.dtype_lanes = 1;
    t.device_type = CHORUS_DEVICE_HOST;
    t.ndim = static_cast<int32_t>(random.below(5));
    for (int i = 0; i < 4; ++i) {
      shape[i] = random.below(40) == 0 ? static_cast<int64_t>(random.word() >> random.below(64)) : static_cast<int64_t>(random.below(6));
      strides[i] = random.below(40) == 0 ? static_cast<int64_t>(random.word() >> random.below(64)) : static_cast<int64_t>(random.below(30));
    }
    t.shape = shape;
    t.strides = random.below(2) == 0 ? nullptr : strides;
    t.data = memory;
    const auto reach = reach_by_definition(t);
    // Near the truth, so that one byte decides.
    t.size_bytes = random.below(4) == 0 ? random.below(4000) : reach.value_or(1000) - 1 + random.below(3);
    if (t.size_bytes > UINT64_MAX / 2) t.size_bytes = 1000;
    const bool wanted = reach && (*reach == 0 || *reach <= t.size_bytes);
    const auto any = kAnySize;
    const std::initializer_list<int64_t> ranks[] = {{}, {any}, {any, any}, {any, any, any}, {any, any, any, any}};
    const bool got = is_accepted(t, ranks[t.ndim], *device);
    wrong += got != wanted;
    accepted += got;
  }
  cr_expect_eq(wrong, 0);
  cr_expect(accepted > kCases / 4 && accepted < kCases * 9 / 10, "both sides are seen: %d", accepted);
}

Test(tensors, overlap_is_by_bytes_reached) {
  float memory[20] = {};
  const int64_t four[] = {4}, two_by_two[] = {2, 2}, wide[] = {8, 1};
  const auto view = [&](float *data, const int64_t *shape, int32_t ndim, const int64_t *strides) {
    chorus_tensor t = CHORUS_TENSOR_INIT;
    t.data = data;
    t.dtype_code = CHORUS_DTYPE_CODE_FLOAT;
    t.dtype_bits = 32;
    t.shape = shape;
    t.ndim = ndim;
    t.strides = strides;
    return t;
  };
  const chorus_tensor rows = view(memory, two_by_two, 2, wide);  // 0, 1, 8, 9: reaches 10 floats
  const auto overlaps = [&](const chorus_tensor &other, bool same_allowed = false) {
    try {
      check_no_overlap(rows, "rows", other, "other", same_allowed);
      return false;
    } catch (const Failure &) {
      return true;
    }
  };
  cr_expect(overlaps(view(memory + 9, four, 1, nullptr)));
  cr_expect(!overlaps(view(memory + 10, four, 1, nullptr)));
  cr_expect(overlaps(view(memory, two_by_two, 2, wide)));
  cr_expect(!overlaps(view(memory, two_by_two, 2, wide), true), "the same view, where rows may be in place");
  cr_expect(overlaps(view(memory, two_by_two, 2, nullptr), true), "another view of the same start");
  const int64_t none[] = {0};
  cr_expect(!overlaps(view(memory, none, 1, nullptr)));
}
