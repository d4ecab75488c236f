// SPDX-License-Identifier: Apache-2.0
// What happens to rows around the multiplications of experts.ffn: x to operands, activation, weighted sum of the slots.
// Each value is read and written once.
#include "cpu/experts.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/experts_elementwise.cpp"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "hwy/contrib/math/math-inl.h"
#include "cpu/hwy_compat.h"
HWY_BEFORE_NAMESPACE();
namespace chorus::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using D = hn::CappedTag<float, kStrip>;
using V = hn::Vec<D>;
constexpr D d;

// x rounded to `dtype`, still f32.
HWY_INLINE V rounded(chorus_dtype dtype, V x) {
  if (dtype == CHORUS_BF16) return f32_from_bf16_bits(d, bf16_bits_from_f32(d, x));
  return dtype == CHORUS_F16 ? f32_from_f16_bits(d, f16_bits_from_f32(d, x)) : x;
}

// ---- x to operands ----

template <typename T>
void operand_row(const OperandArgs &a) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const V factor = hn::Set(d, a.factor);
  const T *x = static_cast<const T *>(a.x);
  int64_t i = 0;
  for (; i + lanes <= a.n; i += lanes)
    hn::StoreU(rounded(a.operand, hn::Mul(factor, load_f32(d, x + i))), d, a.out + i);
  for (; i < a.n_padded; i += lanes) {
    const int64_t left = HWY_MAX(HWY_MIN(lanes, a.n - i), int64_t{0});
    const V tail = left > 0 ? load_f32(d, x + i, static_cast<size_t>(left)) : hn::Zero(d);
    hn::StoreU(rounded(a.operand, hn::Mul(factor, tail)), d, a.out + i);
  }
}

void operand(const OperandArgs &a) {
  a.x_dtype == CHORUS_BF16 ? operand_row<hwy::bfloat16_t>(a) : operand_row<float>(a);
}

// ---- Activation ----

// 1 / (1 + exp(-x)); exp's argument is kept where it is finite.
HWY_INLINE V sigmoid(V x) {
  const V one = hn::Set(d, 1.0f);
  return hn::Div(one, hn::Add(one, hn::Exp(d, hn::Min(hn::Neg(x), hn::Set(d, 88.0f)))));
}

HWY_INLINE V relu(V x) { return hn::IfThenElse(hn::Lt(x, hn::Zero(d)), hn::Zero(d), x); }  // NaN stays

// What a gate and an up become.
struct SwiGlu {
  static constexpr bool kGated = true;
  static V of(V gate, V up) { return hn::Mul(hn::Mul(gate, sigmoid(gate)), up); }
};
struct GeGlu {  // 0.5 g (1 + tanh(t)) = g sigmoid(2t), t = sqrt(2 / pi) (g + 0.044715 g^3)
  static constexpr bool kGated = true;
  static V of(V gate, V up) {
    const V cube = hn::Mul(hn::Mul(hn::Mul(hn::Set(d, 0.044715f), gate), gate), gate);
    const V twice = hn::Mul(hn::Set(d, 1.5957691216f), hn::Add(gate, cube));
    return hn::Mul(hn::Mul(gate, sigmoid(twice)), up);
  }
};
struct ReGlu {
  static constexpr bool kGated = true;
  static V of(V gate, V up) { return hn::Mul(relu(gate), up); }
};
struct GptOss {
  static constexpr bool kGated = true;
  static V of(V gate, V up) {
    const V glu = hn::Mul(gate, sigmoid(hn::Mul(hn::Set(d, 1.702f), gate)));
    return hn::Mul(hn::Add(up, hn::Set(d, 1.0f)), glu);
  }
};
struct Relu {
  static constexpr bool kGated = false;
  static V of(V, V up) { return relu(up); }
};
struct Relu2 {
  static constexpr bool kGated = false;
  static V of(V, V up) { return hn::Mul(relu(up), relu(up)); }
};

// `most` where x is more, NaN stays.
HWY_INLINE V at_most(V x, V most) { return hn::IfThenElse(hn::Gt(x, most), most, x); }

template <class Rule>
void activate_rows(const ActivationArgs &a) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  constexpr int64_t kIn = Rule::kGated ? 2 * kStrip : kStrip;  // columns that make 16 outputs; ups are the last strip
  const V limit = hn::Set(d, a.limit), least = hn::Neg(limit);
  for (int64_t r = 0; r < a.rows; ++r) {
    const float *in = a.in + r * a.in_stride;
    float *out = a.out + r * a.out_stride;
    for (int64_t i = 0; i < a.n_outputs; i += lanes) {
      const int64_t gate_at = i / kStrip * kIn + i % kStrip, up_at = gate_at + kIn - kStrip;
      V gate = hn::LoadU(d, in + gate_at), up = hn::LoadU(d, in + up_at);
      if (a.bias != nullptr) {
        gate = hn::Add(gate, hn::LoadU(d, a.bias + gate_at));
        up = hn::Add(up, hn::LoadU(d, a.bias + up_at));
      }
      if (a.limit > 0) {
        gate = at_most(gate, limit);
        up = at_most(up, limit);
        up = hn::IfThenElse(hn::Lt(up, least), least, up);
      }
      hn::StoreU(rounded(a.operand, Rule::of(gate, up)), d, out + i);
    }
    for (int64_t i = HWY_MAX(a.n_valid, int64_t{0}); i < a.n_outputs; ++i) out[i] = 0;
  }
}

void activate(const ActivationArgs &a) {
  switch (a.activation) {
    case CHORUS_ACTIVATION_GEGLU: return activate_rows<GeGlu>(a);
    case CHORUS_ACTIVATION_REGLU: return activate_rows<ReGlu>(a);
    case CHORUS_ACTIVATION_RELU: return activate_rows<Relu>(a);
    case CHORUS_ACTIVATION_RELU2: return activate_rows<Relu2>(a);
    case CHORUS_ACTIVATION_GPT_OSS: return activate_rows<GptOss>(a);
    default: return activate_rows<SwiGlu>(a);
  }
}

// ---- Weighted sum of the slots ----

template <typename T>
void combine_rows(const CombineArgs &a) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  T *y = static_cast<T *>(a.y);
  for (int64_t i = 0; i < a.n; i += lanes) {  // rows and biases are padded to whole strips
    V sum = hn::Zero(d);
    for (int64_t j = 0; j < a.n_rows; ++j) {
      V out = hn::LoadU(d, a.rows[j] + i);
      if (a.biases[j] != nullptr) out = hn::Add(out, hn::LoadU(d, a.biases[j] + i));
      sum = hn::Add(sum, hn::Mul(hn::Set(d, a.weights[j]), out));
    }
    if (i + lanes <= a.n) {
      store_f32(d, sum, y + i);
    } else {
      store_f32(d, sum, y + i, static_cast<size_t>(a.n - i));
    }
  }
}

void combine(const CombineArgs &a) {
  a.y_dtype == CHORUS_BF16 ? combine_rows<hwy::bfloat16_t>(a) : combine_rows<float>(a);
}

}  // namespace HWY_NAMESPACE
}  // namespace chorus::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace chorus::cpu {
HWY_EXPORT(operand);
HWY_EXPORT(activate);
HWY_EXPORT(combine);

OperandFn pick_operand(const chorus_plugin_device *device) { return CHORUS_CPU_PICK(device, operand); }
ActivateFn pick_activate(const chorus_plugin_device *device) { return CHORUS_CPU_PICK(device, activate); }
CombineFn pick_combine(const chorus_plugin_device *device) { return CHORUS_CPU_PICK(device, combine); }
}  // namespace chorus::cpu
#endif
