// SPDX-License-Identifier: Apache-2.0
// combine.rows on random problems: against the oracle, against the reference's bits, alone and in a batch, by
// any number of threads, in place.
#include <algorithm>

#include "conformance/check.h"
#include "conformance/combine_oracle.h"

namespace conformance {
namespace {

void describe_problem(const CombineProblem &p, int number) {
  describe("case %d: rule %d, %zu models, V %lld, %lld rows", number, p.rule, p.models.size(),
           static_cast<long long>(p.n_tokens), static_cast<long long>(p.rows));
}

// Runs `body(problem, number)` on random problems, general ones and those of the smallest backend.
template <typename Body>
void on_problems(const Test &test, int count, RandomProblem limits, const Body &body) {
  Random random = test.random();
  bool ran = false;
  std::string reason;
  for (int i = 0; i < test.cases(count); ++i) {
    limits.plain = i % 2 == 1;
    const CombineProblem p = random_problem(random, limits);
    describe_problem(p, i);
    try {
      body(p, i);
      ran = true;
    } catch (const Skipped &refused) {
      reason = refused.what();
    }
  }
  if (!ran) skip(reason);
  if (!reason.empty()) count_skip("some problems", reason);
}

// Rows [begin, end) of a problem as a problem of their own.
CombineProblem rows_of(const CombineProblem &p, int64_t begin, int64_t end) {
  CombineProblem out = p;
  out.rows = end - begin;
  const auto cut = [&](std::vector<double> &list, int64_t per_row) {
    if (!list.empty())
      list = std::vector<double>(list.begin() + begin * per_row, list.begin() + end * per_row);
  };
  for (ModelScores &m : out.models) cut(m.scores, m.n_logits);
  if (p.weight_rows) cut(out.weights, static_cast<int64_t>(p.models.size()));
  cut(out.row_ids, 1);
  cut(out.steps, 1);
  cut(out.tokens, p.tokens_per_row());
  return out;
}

}  // namespace

CONFORMANCE_TEST(combine_random_against_oracle) {
  on_problems(test, 120, {},
              [&](const CombineProblem &p, int) { expect_agrees(p, combine(test.backend, p)); });
}

// What the contract promises bit by bit: tokens and statuses.
CONFORMANCE_TEST(combine_choices_equal_reference) {
  if (!test.has_peer()) skip("the reference itself");
  on_problems(test, 60, {.most_tokens = 30000}, [&](const CombineProblem &p, int) {
    const CombineResult got = combine(test.backend, p), want = combine(test.reference, p);
    expect(got.status == want.status, "row statuses differ from the reference's");
    if (!has_all_outputs(got)) return;
    expect(got.argmax == want.argmax, "argmax differs from the reference's");
    expect(got.sample == want.sample, "samples differ from the reference's");
  });
}

CONFORMANCE_TEST(combine_rows_do_not_know_their_batch) {
  on_problems(test, 60, {.most_tokens = 5000}, [&](const CombineProblem &p, int) {
    const CombineResult all = combine(test.backend, p);
    for (int64_t row = 0; row < p.rows; ++row) {
      const CombineResult one = combine(test.backend, rows_of(p, row, row + 1));
      const auto equal = [&](const std::vector<double> &whole, const std::vector<double> &alone) {
        return std::equal(alone.begin(), alone.end(),
                          whole.begin() + row * static_cast<int64_t>(alone.size()),
                          [](double a, double b) { return a == b || (a != a && b != b); });
      };
      expect(equal(all.log_probs, one.log_probs), "log-probs of row %lld depend on its batch",
             static_cast<long long>(row));
      if (has_all_outputs(all)) {
        expect(equal(all.sample, one.sample), "the sample of row %lld depends on its batch",
               static_cast<long long>(row));
      }
    }
  });
}

CONFORMANCE_TEST(combine_same_bytes_for_any_threads) {
  on_problems(test, 24, {.most_tokens = 50000}, [&](const CombineProblem &p, int) {
    const CombineResult serial = combine(test.backend, p);
    for (int threads : {0, 2, 5}) {  // 0: pieces in reverse order
      test.backend.set_threads(threads);
      const CombineResult other = combine(test.backend, p);
      test.backend.set_threads(1);
      expect(other.bits == serial.bits, "bytes differ with %d threads", threads);
    }
  });
}

CONFORMANCE_TEST(combine_in_place) {
  on_problems(test, 40, {.most_tokens = 9000}, [&](CombineProblem p, int) {
    ModelScores &first = p.models[0];
    if (first.scores.empty() || first.n_logits != p.n_tokens) return;
    first.dtype = p.log_probs_dtype;
    first.row_stride = p.log_probs_stride;
    const CombineResult apart = combine(test.backend, p);
    p.in_place = true;
    expect(combine(test.backend, p).bits == apart.bits,
           "bytes differ when the log-probs replace the scores of model 0");
  });
}

}  // namespace conformance
