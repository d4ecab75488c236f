// SPDX-License-Identifier: Apache-2.0
// merge.apply and merge.reduce: bits by the rules, distance to the truth, every rounding boundary, pieces and
// threads.
#include <algorithm>
#include <bit>
#include <cmath>

#include "conformance/check.h"
#include "conformance/merge_problem.h"

namespace conformance {
namespace {

__extension__ typedef __float128 Quad;

uint64_t random_count(Random &random) {
  return static_cast<uint64_t>(random.chance(0.4)
                                   ? random.pick({1, 31, 32, 33, 4095, 4096, 4097, 8192, 12289, 20480})
                                   : random.size(30000));
}

template <typename Body>
void on_problems(const Test &test, int cases, const Body &body) {
  Random random = test.random();
  bool ran = false;
  for (int i = 0; i < test.cases(cases); ++i) {
    const MergeProblem p = random_merge(random, random_count(random));
    describe("case %d: %zu inputs, operand %d, combine %d, %llu elements, output 0x%x", i, p.inputs.size(),
             p.operand, p.combine, static_cast<unsigned long long>(p.count), p.output_dtype);
    ran |= attempt("a problem", [&] { body(p); });
  }
  if (!ran) skip("every problem was refused");
}

struct Truth {
  long double y, terms;  // the value, and the sum of the magnitudes that made it
};

Truth truth(const MergeProblem &p, uint64_t e) {
  const long double base = p.has_base() ? p.base.values[e] : 0;
  long double y = 0, terms = 0, weights = 0;
  for (size_t i = 0; i < p.inputs.size(); ++i) {
    weights += p.weights[i];
    if (p.weights[i] == 0) continue;
    const long double x = p.inputs[i].values[e], shift = p.operand == CHORUS_OPERAND_DELTA ? base : 0;
    y += p.weights[i] * (x - shift);
    terms += fabsl(p.weights[i]) * (fabsl(x) + fabsl(shift));
  }
  if (p.combine == CHORUS_MERGE_COEFFICIENTS && p.has_base()) {
    y += p.weights.back() * base;
    terms += fabsl(p.weights.back() * base);
  }
  if (p.combine == CHORUS_MERGE_MEAN) y /= weights;
  if (p.combine == CHORUS_MERGE_MEAN) terms /= weights;
  y *= p.lambda;
  terms *= p.lambda;
  return p.add_base ? Truth{base + y, terms + fabsl(base)} : Truth{y, terms};
}

}  // namespace

CONFORMANCE_TEST(merge_apply_by_the_rules) {
  on_problems(test, 60, [&](const MergeProblem &p) {
    const auto got = apply(test.backend, p), want = apply_by_rules(p);
    for (size_t e = 0; e < want.size(); ++e) {
      if (!expect(got[e] == want[e], "element %zu is 0x%llx (%g); the rules give 0x%llx (%g)", e,
                  static_cast<unsigned long long>(got[e]), decode(p.output_dtype, got[e]),
                  static_cast<unsigned long long>(want[e]), decode(p.output_dtype, want[e])))
        break;
    }
  });
}

// Elements whose terms cancel beyond f64 have no such bound; their bits are compared above.
CONFORMANCE_TEST(merge_apply_within_one_ulp) {
  on_problems(test, 40, [&](const MergeProblem &p) {
    const auto got = apply(test.backend, p);
    for (uint64_t e = 0; e < p.count; ++e) {
      const Truth want = truth(p, e);
      if (p.output_dtype == CHORUS_F64 || want.terms > fabsl(want.y) * 0x1p20L) continue;
      const double value = decode(p.output_dtype, got[e]), y = static_cast<double>(want.y);
      const bool overflow = std::isinf(rounded(p.output_dtype, y)) && std::isinf(value);
      expect(overflow || fabsl(value - want.y) <= ulp(p.output_dtype, y),
             "element %llu is %.9g, the truth %.12Lg", static_cast<unsigned long long>(e), value, want.y);
    }
  });
}

CONFORMANCE_TEST(merge_apply_same_bytes_for_any_pieces_and_threads) {
  on_problems(test, 12, [&](const MergeProblem &p) {
    const auto whole = apply(test.backend, p);
    for (uint64_t piece : {uint64_t{4096}, uint64_t{8192}, uint64_t{12288}})
      expect(apply(test.backend, p, piece) == whole, "bytes differ in pieces of %llu",
             static_cast<unsigned long long>(piece));
    for (int threads : {0, 2, 5}) {
      test.backend.set_threads(threads);
      const auto other = apply(test.backend, p);
      test.backend.set_threads(1);
      expect(other == whole, "bytes differ with %d threads", threads);
    }
  });
}

namespace {

// Values around every boundary of `output`: each value, half-way to the next, and the neighbours of both in
// `input`.
void add_boundaries(chorus_dtype output, chorus_dtype input, std::vector<double> &values,
                    std::vector<uint64_t> &want) {
  const uint64_t infinity = encode(output, INFINITY);
  const auto step = [&](double x, double to) {
    return input == CHORUS_F64 ? std::nextafter(x, to)
                               : std::nextafter(static_cast<float>(x), static_cast<float>(to));
  };
  const auto add = [&](double x, uint64_t bits) {
    for (double sign : {1.0, -1.0}) {
      values.push_back(sign * x);
      want.push_back(sign > 0 ? bits : bits | uint64_t{1} << 15);
    }
  };
  for (uint64_t low = 0; low < infinity; ++low) {
    const double a = decode(output, low);
    const double half = a + ulp(output, a) / 2;  // the last one is where infinity begins
    add(a, low);
    add(step(a, INFINITY), low);
    add(step(half, 0), low);
    add(half, low % 2 == 0 ? low : low + 1);
    add(step(half, INFINITY), low + 1);
    add(step(a + ulp(output, a), 0), low + 1);
  }
  add(INFINITY, infinity);
}

void expect_boundaries(Backend &backend, chorus_dtype output, chorus_dtype input) {
  MergeProblem p;
  p.inputs.resize(1);
  p.inputs[0].dtype = input;
  p.weights = {1};
  p.output_dtype = output;
  std::vector<uint64_t> want;
  add_boundaries(output, input, p.inputs[0].values, want);
  p.count = p.inputs[0].values.size();
  const auto got = apply(backend, p);
  for (size_t e = 0; e < want.size(); ++e) {
    expect(got[e] == want[e], "%a is stored as 0x%llx, not 0x%llx", p.inputs[0].values[e],
           static_cast<unsigned long long>(got[e]), static_cast<unsigned long long>(want[e]));
  }
}

}  // namespace

CONFORMANCE_TEST(merge_rounding_boundaries_bf16) {
  for (chorus_dtype input : {CHORUS_F64, CHORUS_F32}) expect_boundaries(test.backend, CHORUS_BF16, input);
}

CONFORMANCE_TEST(merge_rounding_boundaries_f16) {
  for (chorus_dtype input : {CHORUS_F64, CHORUS_F32}) expect_boundaries(test.backend, CHORUS_F16, input);
}

// A single input of weight 1 comes back bit by bit, -0 and infinities too; NaN stays NaN.
CONFORMANCE_TEST(merge_all_half_patterns_come_back) {
  for (chorus_dtype dtype : {CHORUS_F16, CHORUS_BF16}) {
    MergeProblem p;
    p.inputs.resize(1);
    p.inputs[0].dtype = p.output_dtype = dtype;
    p.weights = {1};
    p.count = 65536;
    for (uint64_t bits = 0; bits < p.count; ++bits) p.inputs[0].values.push_back(decode(dtype, bits));
    const auto got = apply(test.backend, p);
    for (uint64_t bits = 0; bits < p.count; ++bits) {
      const bool nan = std::isnan(p.inputs[0].values[bits]);
      expect(nan ? std::isnan(decode(dtype, got[bits])) : got[bits] == bits, "0x%llx came back as 0x%llx",
             static_cast<unsigned long long>(bits), static_cast<unsigned long long>(got[bits]));
    }
  }
}

CONFORMANCE_TEST(merge_gram_by_the_rules) {
  on_problems(test, 30, [&](const MergeProblem &p) {
    const auto got = gram(test.backend, p, 0, p.count), want = gram_by_rules(p, 0, p.count);
    for (size_t i = 0; i < want.size(); ++i)
      expect(std::bit_cast<uint64_t>(got[i]) == std::bit_cast<uint64_t>(want[i]),
             "entry %zu is %a; the rules give %a", i, got[i], want[i]);
  });
}

CONFORMANCE_TEST(merge_gram_against_quad) {
  on_problems(test, 20, [&](const MergeProblem &p) {
    const auto got = gram(test.backend, p, 0, p.count);
    const size_t n = p.inputs.size() + (p.has_base() && p.operand == CHORUS_OPERAND_X);
    const auto operand = [&](size_t i, uint64_t e) -> Quad {
      const MergeInput &input = i < p.inputs.size() ? p.inputs[i] : p.base;
      if (input.values.empty()) return 0;
      return p.operand == CHORUS_OPERAND_DELTA ? Quad{input.values[e]} - p.base.values[e]
                                               : Quad{input.values[e]};
    };
    for (size_t i = 0, at = 0; i < n; ++i) {
      for (size_t j = i; j < n; ++j, ++at) {
        Quad sum = 0, size = 0;
        for (uint64_t e = 0; e < p.count; ++e) {
          const Quad product = operand(i, e) * operand(j, e);
          sum += product;
          size += product < 0 ? -product : product;
        }
        const Quad gap = sum < got[at] ? got[at] - sum : sum - got[at];
        expect(gap <= size * 0x1p-45, "entry %zu, %zu is %.17g, in quadruple %.17g", i, j, got[at],
               static_cast<double>(sum));
      }
    }
  });
}

// The host joins pieces, aligned runs of 2^k blocks, in the same tree: the same bits as one pass.
CONFORMANCE_TEST(merge_gram_same_bits_for_any_pieces_and_threads) {
  on_problems(test, 12, [&](const MergeProblem &p) {
    const auto whole = gram(test.backend, p, 0, p.count);
    for (uint64_t blocks : {1, 2, 4}) {
      std::vector<std::vector<double>> pieces(whole.size());
      for (uint64_t begin = 0; begin < p.count; begin += blocks * CHORUS_BLOCK) {
        const auto piece = gram(test.backend, p, begin, std::min(p.count, begin + blocks * CHORUS_BLOCK));
        for (size_t i = 0; i < whole.size(); ++i) pieces[i].push_back(piece[i]);
      }
      for (size_t i = 0; i < whole.size(); ++i)
        expect(join(pieces[i]) == whole[i], "entry %zu differs in pieces of %llu blocks", i,
               static_cast<unsigned long long>(blocks));
    }
    for (int threads : {0, 2, 5}) {
      test.backend.set_threads(threads);
      const auto other = gram(test.backend, p, 0, p.count);
      test.backend.set_threads(1);
      expect(other == whole, "bits differ with %d threads", threads);
    }
  });
}

}  // namespace conformance
