/* SPDX-License-Identifier: Apache-2.0
 *
 * The exp, log, sigmoid and softplus that decide choices (docs/numerics.md, "Exact math"): the same bits on every
 * backend, compiler and SIMD width, because each is IEEE binary32 add, mul, div and compare in written order.
 *
 * C99, C++11 and CUDA. Compile with -ffp-contract=off (GCC, Clang) or -fmad=false (nvcc): a fused multiply-add
 * would round once where the contract rounds twice. Needs round to nearest even and subnormals (no FTZ/DAZ).
 * SIMD backends repeat the same operations lane by lane, from the same constants, and test that the bits agree.
 */
#ifndef CHORUS_EXACT_MATH_H_
#define CHORUS_EXACT_MATH_H_

#include <math.h> /* sqrtf, correctly rounded by IEEE */
#include <stdint.h>
#include <string.h>

#if defined(__CUDACC__)
#define CHORUS_EXACT_FN static __host__ __device__ __forceinline__
#elif defined(__cplusplus)
#define CHORUS_EXACT_FN static inline
#else
#define CHORUS_EXACT_FN static inline
#endif

/* exp(x) = 2^n * exp(r), n = round(x / ln 2), r = x - n ln 2 in two steps (Cody and Waite, 1980): EXP_LN2_HI has
 * 15 significant bits, so n * EXP_LN2_HI is exact for |n| <= 255. exp(r) is the degree-6 Taylor-Horner polynomial
 * with the minimax coefficients of Cephes' expf (Moshier, 1984-1992). Measured over 4.3 million floats: error < 0.94 ulp. */
#define CHORUS_EXP_LOG2E 1.44269504088896341f
#define CHORUS_EXP_ROUND 12582912.0f /* 1.5 * 2^23: adding it rounds a float below 2^22 to the nearest integer */
#define CHORUS_EXP_LN2_HI 0.693359375f
#define CHORUS_EXP_LN2_LO -2.12194440e-4f
#define CHORUS_EXP_P0 1.9875691500e-4f
#define CHORUS_EXP_P1 1.3981999507e-3f
#define CHORUS_EXP_P2 8.3334519073e-3f
#define CHORUS_EXP_P3 4.1665795894e-2f
#define CHORUS_EXP_P4 1.6666665459e-1f
#define CHORUS_EXP_P5 5.0000001201e-1f
#define CHORUS_EXP_MAX 88.7228394f    /* above: +inf */
#define CHORUS_EXP_MIN -103.972084f   /* below: 0 (half the smallest subnormal) */

/* log(x): mantissa in [sqrt(1/2), sqrt(2)), degree-8 polynomial of Cephes' logf. Measured error < 0.76 ulp. */
#define CHORUS_LOG_SQRT_HALF 0.707106781186547524f
#define CHORUS_LOG_P0 7.0376836292e-2f
#define CHORUS_LOG_P1 -1.1514610310e-1f
#define CHORUS_LOG_P2 1.1676998740e-1f
#define CHORUS_LOG_P3 -1.2420140846e-1f
#define CHORUS_LOG_P4 1.4249322787e-1f
#define CHORUS_LOG_P5 -1.6668057665e-1f
#define CHORUS_LOG_P6 2.0000714765e-1f
#define CHORUS_LOG_P7 -2.4999993993e-1f
#define CHORUS_LOG_P8 3.3333331174e-1f

CHORUS_EXACT_FN float chorus_exact_from_bits(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof(value));
  return value;
}

CHORUS_EXACT_FN uint32_t chorus_exact_to_bits(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof(bits));
  return bits;
}

/** 2^n for -126 <= n <= 127. */
CHORUS_EXACT_FN float chorus_exact_pow2(int32_t n) { return chorus_exact_from_bits((uint32_t)(n + 127) << 23); }

/** e^x. exp(-inf) = 0, exp(+inf) = +inf, exp(NaN) = NaN, exp(0) = 1 exactly. */
CHORUS_EXACT_FN float chorus_exact_exp(float x) {
  float shifted, n, r, r2, p;
  int32_t k, half;
  if (!(x == x)) return x;
  if (x > CHORUS_EXP_MAX) return chorus_exact_from_bits(0x7f800000u);
  if (x < CHORUS_EXP_MIN) return 0.0f;
  shifted = x * CHORUS_EXP_LOG2E;
  shifted = shifted + CHORUS_EXP_ROUND;
  n = shifted - CHORUS_EXP_ROUND;
  r = n * CHORUS_EXP_LN2_HI;
  r = x - r;
  p = n * CHORUS_EXP_LN2_LO;
  r = r - p;
  r2 = r * r;
  p = CHORUS_EXP_P0 * r;
  p = p + CHORUS_EXP_P1;
  p = p * r;
  p = p + CHORUS_EXP_P2;
  p = p * r;
  p = p + CHORUS_EXP_P3;
  p = p * r;
  p = p + CHORUS_EXP_P4;
  p = p * r;
  p = p + CHORUS_EXP_P5;
  p = p * r2;
  p = p + r;
  p = p + 1.0f;
  /* n spans [-150, 128], wider than one exponent: scale in two exact steps; only the last may round. */
  k = (int32_t)n;
  half = k / 2;
  p = p * chorus_exact_pow2(half);
  return p * chorus_exact_pow2(k - half);
}

/** Natural logarithm. log(0) = -inf, log(x < 0) = NaN, log(+inf) = +inf, log(1) = 0 exactly. */
CHORUS_EXACT_FN float chorus_exact_log(float x) {
  uint32_t bits;
  int32_t e = 0;
  float m, y, z, n;
  if (!(x == x)) return x;
  if (x < 0.0f) return chorus_exact_from_bits(0x7fc00000u);
  if (x == 0.0f) return chorus_exact_from_bits(0xff800000u);
  bits = chorus_exact_to_bits(x);
  if (bits == 0x7f800000u) return x;
  if (bits < 0x00800000u) { /* subnormal: scale up by 2^23 first */
    x = x * 8388608.0f;
    bits = chorus_exact_to_bits(x);
    e = -23;
  }
  e = e + (int32_t)(bits >> 23) - 126;
  m = chorus_exact_from_bits((bits & 0x007fffffu) | 0x3f000000u); /* [0.5, 1) */
  if (m < CHORUS_LOG_SQRT_HALF) {
    e = e - 1;
    m = m + m;
  }
  m = m - 1.0f;
  n = (float)e;
  z = m * m;
  y = CHORUS_LOG_P0 * m;
  y = y + CHORUS_LOG_P1;
  y = y * m;
  y = y + CHORUS_LOG_P2;
  y = y * m;
  y = y + CHORUS_LOG_P3;
  y = y * m;
  y = y + CHORUS_LOG_P4;
  y = y * m;
  y = y + CHORUS_LOG_P5;
  y = y * m;
  y = y + CHORUS_LOG_P6;
  y = y * m;
  y = y + CHORUS_LOG_P7;
  y = y * m;
  y = y + CHORUS_LOG_P8;
  y = y * m;
  y = y * z;
  m = m + (y + n * CHORUS_EXP_LN2_LO - 0.5f * z);
  return m + n * CHORUS_EXP_LN2_HI;
}

/** 1 / (1 + e^-x), without overflow: e^-|x| is in (0, 1]. sigmoid(-inf) = 0, sigmoid(+inf) = 1. Measured error < 2.2 ulp. */
CHORUS_EXACT_FN float chorus_exact_sigmoid(float x) {
  float e, d;
  if (!(x == x)) return x;
  e = chorus_exact_exp(x < 0.0f ? x : -x);
  d = 1.0f + e;
  return (x < 0.0f ? e : 1.0f) / d;
}

/** log(1 + e^x) = max(x, 0) + log1p(e^-|x|). softplus(-inf) = 0, softplus(+inf) = +inf. Measured error < 2.5 ulp.
 * log1p(y) = log(u) * (y / (u - 1)), u = 1 + y: the quotient repays what rounding u lost (Kahan). */
CHORUS_EXACT_FN float chorus_exact_softplus(float x) {
  float y, u, d, tail;
  if (!(x == x)) return x;
  y = chorus_exact_exp(x < 0.0f ? x : -x);
  u = 1.0f + y;
  d = u - 1.0f;
  if (d == 0.0f) {
    tail = y;
  } else {
    tail = y / d;
    tail = chorus_exact_log(u) * tail;
  }
  return x > 0.0f ? x + tail : tail;
}

/** Philox4x32-10 (Salmon et al., SC 2011): the counter-based generator behind every draw. Same counter and key, same
 * words, on every backend. Known answer: counter 0, key 0 -> 6627e8d5 e169c58d bc57ac4c 9b00dbd8. */
CHORUS_EXACT_FN void chorus_philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]) {
  uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
  uint32_t k0 = key[0], k1 = key[1];
  uint64_t a, b;
  int round;
  for (round = 0; round < 10; ++round) {
    a = (uint64_t)0xD2511F53u * c0;
    b = (uint64_t)0xCD9E8D57u * c2;
    c0 = (uint32_t)(b >> 32) ^ c1 ^ k0;
    c2 = (uint32_t)(a >> 32) ^ c3 ^ k1;
    c1 = (uint32_t)b;
    c3 = (uint32_t)a;
    k0 = k0 + 0x9E3779B9u;
    k1 = k1 + 0xBB67AE85u;
  }
  out[0] = c0;
  out[1] = c1;
  out[2] = c2;
  out[3] = c3;
}

/** floor(a * b / 2^64): maps a 64-bit random number `a` onto [0, b) without a division. */
CHORUS_EXACT_FN uint64_t chorus_multiply_high(uint64_t a, uint64_t b) {
  uint64_t a0 = (uint32_t)a, a1 = a >> 32, b0 = (uint32_t)b, b1 = b >> 32;
  uint64_t middle = a1 * b0 + ((a0 * b0) >> 32);
  uint64_t low = a0 * b1 + (uint32_t)middle;
  return a1 * b1 + (middle >> 32) + (low >> 32);
}

/** The 23 upper bits of a random word as a number of (0, 1): (n + 1/2) 2^-23, exact. */
CHORUS_EXACT_FN float chorus_exact_uniform(uint32_t word) { return ((float)(word >> 9) + 0.5f) * 1.1920928955078125e-7f; }

/** A standard normal number from a random word: the inverse distribution of chorus_exact_uniform(word) by algorithm AS 241,
 * PPND7 (Wichura, 1988), within |x| < 5.3. Measured relative error < 1.5e-6. */
CHORUS_EXACT_FN float chorus_exact_normal(uint32_t word) {
  const float u = chorus_exact_uniform(word), q = u - 0.5f;
  float r, p, d;
  if (q >= -0.425f && q <= 0.425f) {
    r = 0.180625f - q * q;
    p = 59.109374720f * r;
    p = p + 159.29113202f;
    p = p * r;
    p = p + 50.434271938f;
    p = p * r;
    p = p + 3.3871327179f;
    d = 67.187563600f * r;
    d = d + 78.757757664f;
    d = d * r;
    d = d + 17.895169469f;
    d = d * r;
    d = d + 1.0f;
    p = q * p;
    return p / d;
  }
  r = sqrtf(-chorus_exact_log(q < 0.0f ? u : 1.0f - u)) - 1.6f;
  p = 0.17023821103f * r;
  p = p + 1.3067284816f;
  p = p * r;
  p = p + 2.7568153900f;
  p = p * r;
  p = p + 1.4234372777f;
  d = 0.12021132975f * r;
  d = d + 0.73700164250f;
  d = d * r;
  d = d + 1.0f;
  r = p / d;
  return q < 0.0f ? -r : r;
}

#endif /* CHORUS_EXACT_MATH_H_ */
