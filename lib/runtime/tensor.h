// SPDX-License-Identifier: Apache-2.0
// Checked tensor views: every tensor that enters the library passes through here once, before anything reads it.
#pragma once
#include <cstdint>
#include <initializer_list>
#include <string>

#include "chorus/types.h"
#include "runtime/kernel.h"

namespace chorus {

constexpr int64_t kAnySize = -1;

// What a function wants of one tensor argument.
struct TensorRule {
  const char *name;                             // for messages: "logits"
  std::initializer_list<chorus_dtype> dtypes;   // allowed
  std::initializer_list<int64_t> shape;         // kAnySize where any size >= 0 is
  bool output = false;                          // refuses CHORUS_TENSOR_READ_ONLY
  bool rows_contiguous = true;                  // the last dimension has stride 1
  bool may_be_quantised = false;                // may carry `quant`, which the caller checks
};

// First byte and one past the last byte reachable.
struct Extent {
  const char *begin, *end;
};

// Checks struct_size, rank, sizes, product overflow, extent within size_bytes, alignment, dtype (naming fp8 and
// integers where unsupported), quant, flags, and that the memory belongs to `device`; tells the extent. Costs some ten
// nanoseconds, allocates only to fail. Fails INVALID_ARGUMENT naming the tensor; UNIMPLEMENTED for a known dtype that
// nothing computes with.
Extent check_tensor(const chorus_tensor *tensor, const TensorRule &rule, const Device &device);

inline chorus_dtype dtype_of(const chorus_tensor &t) { return t.dtype_code | uint32_t{t.dtype_bits} << 8; }

// Of a tensor that passed check_tensor.
Extent extent_of(const chorus_tensor &tensor);

inline bool overlap(const Extent &a, const Extent &b) {
  return a.begin != a.end && b.begin != b.end && a.begin < b.end && b.begin < a.end;
}
[[noreturn]] void fail_overlap(const char *output_name, const char *other_name, bool same_allowed = false);

// Fails INVALID_ARGUMENT when the two share a byte. `same_allowed`: the exact same view is fine (in-place rows).
void check_no_overlap(const chorus_tensor &output, const char *output_name, const chorus_tensor &other,
                      const char *other_name, bool same_allowed = false);

}  // namespace chorus
