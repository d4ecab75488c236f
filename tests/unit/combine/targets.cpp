// SPDX-License-Identifier: Apache-2.0
// Files of targets: what comes back, how small they are, and that no bytes make reading do anything but fail.
#include <criterion/criterion.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <random>
#include <set>
#include <vector>

#include "chorus/chorus.hpp"
#include "unit/combine/support.h"

namespace {

using namespace unit;

constexpr int64_t kTokens = 128256;
constexpr int32_t kBest = 50;

// Rows like a language model's: a few likely tokens, a long tail.
std::vector<float> rows_of(int64_t rows, int64_t n, unsigned seed) {
  std::mt19937 random(seed);
  std::exponential_distribution<float> exponential(0.6f);
  std::vector<float> out(static_cast<size_t>(rows * n));
  for (float &x : out) x = exponential(random);
  return out;
}

chorus_targets_info info_of(chorus_targets_form form, int64_t rows, int64_t n, int32_t k) {
  chorus_targets_info info = CHORUS_TARGETS_INFO_INIT;
  info.form = form;
  info.rows = rows;
  info.n_tokens = n;
  info.k = k;
  return info;
}

struct Top {
  std::vector<int32_t> ids;
  std::vector<float> log_probs, tail;
};

Top read(const chorus::Targets &targets, int64_t first, int64_t rows) {
  const int64_t k = targets.info().k;
  Top out{std::vector<int32_t>(static_cast<size_t>(rows * k)), std::vector<float>(static_cast<size_t>(rows * k)),
          std::vector<float>(static_cast<size_t>(rows))};
  targets.read_top(first, chorus::Tensor(out.ids.data(), {rows, k}), chorus::Tensor(out.log_probs.data(), {rows, k}),
                   chorus::Tensor(out.tail.data(), {rows}));
  return out;
}

// Log-probs of a row, in long double.
std::vector<long double> log_softmax(const float *z, int64_t n) {
  long double top = -kInfinity, sum = 0;
  for (int64_t v = 0; v < n; ++v) top = std::max<long double>(top, z[v]);
  for (int64_t v = 0; v < n; ++v) sum += std::exp(z[v] - top);
  std::vector<long double> out;
  for (int64_t v = 0; v < n; ++v) out.push_back(z[v] - top - std::log(sum));
  return out;
}

std::vector<int32_t> best_ids(const std::vector<long double> &l, size_t k) {
  std::vector<int32_t> ids(l.size());
  for (size_t v = 0; v < l.size(); ++v) ids[v] = static_cast<int32_t>(v);
  std::stable_sort(ids.begin(), ids.end(), [&](int32_t a, int32_t b) { return l[static_cast<size_t>(a)] > l[static_cast<size_t>(b)]; });
  ids.resize(k);
  return ids;
}

}  // namespace

Test(targets, packed_targets_of_a_large_vocabulary) {
  const TemporaryFolder folder;
  const int64_t rows = 6;
  const std::vector<float> scores = rows_of(rows, kTokens, 1);
  chorus_targets_info info = info_of(CHORUS_TARGETS_PACKED, rows, kTokens, kBest);
  const double weights[] = {0.25, -0.1, 1e-300};
  info.rule = CHORUS_COMBINE_LOG_LINEAR;
  info.n_models = 3;
  info.weights = weights;
  info.temperature = 2.5;
  info.fingerprint_low = 0x0123456789abcdefu;
  info.fingerprint_high = 0xfedcba9876543210u;
  chorus::TargetsWriter writer(context(), info, folder / "t");
  writer.write_rows(chorus::Tensor(scores.data(), {2, kTokens}));
  writer.write_rows(chorus::Tensor(scores.data() + 2 * kTokens, {4, kTokens}));
  writer.finish();

  const chorus::Targets targets(context(), folder / "t");
  const chorus_targets_info back = targets.info();
  cr_expect(back.bytes_per_row <= 120, "%d bytes per token", (int)back.bytes_per_row);
  cr_expect(std::filesystem::file_size(folder / "t/model.safetensors") <= 120 * rows + 1024);
  cr_expect_eq(back.form, CHORUS_TARGETS_PACKED);
  cr_expect_eq(back.k, kBest);
  cr_expect_eq(back.bits, 5);
  cr_expect_eq(back.rows, rows);
  cr_expect_eq(back.n_tokens, kTokens);
  cr_expect_eq(back.temperature, 2.5);
  cr_expect_eq(back.rule, CHORUS_COMBINE_LOG_LINEAR);
  cr_assert_eq(back.n_models, 3);
  for (int i = 0; i < 3; ++i) cr_expect_eq(back.weights[i], weights[i]);
  cr_expect(back.fingerprint_low == info.fingerprint_low && back.fingerprint_high == info.fingerprint_high);

  const Top top = read(targets, 0, rows), last = read(targets, rows - 1, 1);
  cr_expect(std::equal(last.ids.begin(), last.ids.end(), top.ids.end() - kBest));
  for (int64_t r = 0; r < rows; ++r) {
    const std::vector<long double> l = log_softmax(&scores[static_cast<size_t>(r * kTokens)], kTokens);
    const std::vector<int32_t> expected = best_ids(l, kBest);
    const auto *ids = &top.ids[static_cast<size_t>(r * kBest)];
    cr_expect(std::set<int32_t>(ids, ids + kBest) == std::set<int32_t>(expected.begin(), expected.end()));
    // KL of what was stored against what was meant, over k + 1 buckets.
    long double kl = 0, mass = std::exp((long double)top.tail[static_cast<size_t>(r)]), tail = 1;
    for (int32_t j = 0; j < kBest; ++j) {
      const long double stored = top.log_probs[static_cast<size_t>(r * kBest + j)], meant = l[static_cast<size_t>(ids[j])];
      kl += std::exp(meant) * (meant - stored);
      mass += std::exp(stored);
      tail -= std::exp(meant);
      if (j > 0) cr_expect(stored <= top.log_probs[static_cast<size_t>(r * kBest + j - 1)]);
    }
    kl += tail * (std::log(tail) - top.tail[static_cast<size_t>(r)]);
    cr_expect(std::abs(mass - 1) < 1e-5L, "mass %Lg", mass);
    cr_expect(kl >= -1e-6L && kl < 2e-3L, "KL %Lg", kl);
  }
}

Test(targets, more_bits_come_closer) {
  const int64_t n = 5000;
  const std::vector<float> scores = rows_of(1, n, 2);
  const std::vector<long double> l = log_softmax(scores.data(), n);
  float before = INFINITY;
  for (const int32_t bits : {3, 5, 8, 12, 16}) {
    const TemporaryFolder folder;
    chorus_targets_info info = info_of(CHORUS_TARGETS_PACKED, 1, n, 20);
    info.bits = bits;
    chorus::TargetsWriter writer(context(), info, folder / "t");
    writer.write_rows(chorus::Tensor(scores.data(), {1, n}));
    writer.finish();
    const Top top = read(chorus::Targets(context(), folder / "t"), 0, 1);
    float worst = 0;
    for (size_t j = 0; j < 20; ++j) worst = std::max(worst, std::abs(top.log_probs[j] - (float)l[static_cast<size_t>(top.ids[j])]));
    cr_expect(worst < before, "%d bits: %g, fewer: %g", bits, worst, before);
    before = worst;
  }
  cr_expect(before < 2e-3f);  // what the f16 of the tail allows
}

Test(targets, short_supports_and_sharp_rows) {
  // One token; two tokens far apart, the lower joining the tail; all mass in the tail's neighbourhood of nothing.
  const int64_t n = 10;
  std::vector<float> scores(3 * n, -INFINITY);
  scores[3] = 1;
  scores[n + 2] = 0;
  scores[n + 9] = -100;
  for (int64_t v = 0; v < n; ++v) scores[static_cast<size_t>(2 * n + v)] = 0;
  for (const chorus_targets_form form : {CHORUS_TARGETS_PACKED, CHORUS_TARGETS_PLAIN}) {
    const TemporaryFolder folder;
    chorus::TargetsWriter writer(context(), info_of(form, 3, n, 4), folder / "t");
    writer.write_rows(chorus::Tensor(scores.data(), {3, n}));
    writer.finish();
    const Top top = read(chorus::Targets(context(), folder / "t"), 0, 3);
    cr_expect(std::equal(top.ids.begin(), top.ids.begin() + 4, std::vector<int32_t>{3, -1, -1, -1}.begin()));
    cr_expect_eq(top.log_probs[0], 0);
    cr_expect_eq(top.tail[0], -INFINITY);
    cr_expect_eq(top.ids[4], 2);
    cr_expect_float_eq(top.log_probs[4], 0, 1e-30);
    const float second = form == CHORUS_TARGETS_PACKED ? top.tail[1] : top.log_probs[5];
    cr_expect_float_eq(second, -100, form == CHORUS_TARGETS_PACKED ? 0.1 : 1e-4);
    for (int j = 0; j < 4; ++j) {
      cr_expect_eq(top.ids[static_cast<size_t>(8 + j)], j);  // the lowest ids of equals
      cr_expect_float_eq(top.log_probs[static_cast<size_t>(8 + j)], std::log(0.1), 1e-3);
    }
    cr_expect_float_eq(top.tail[2], std::log(0.6), 1e-3);
  }
}

Test(targets, every_number_of_tokens_and_words) {
  for (const int64_t n : {1, 2, 3, 7, 64, 1000}) {
    for (const int32_t k : {1, 2, 3, 7, 50}) {
      if (k > n) continue;
      for (const int32_t bits : {2, 16}) {
        const TemporaryFolder folder;
        const std::vector<float> scores = rows_of(3, n, static_cast<unsigned>(n * 100 + k));
        chorus_targets_info info = info_of(CHORUS_TARGETS_PACKED, 3, n, k);
        info.bits = bits;
        chorus::TargetsWriter writer(context(), info, folder / "t");
        writer.write_rows(chorus::Tensor(scores.data(), {3, n}));
        writer.finish();
        const Top top = read(chorus::Targets(context(), folder / "t"), 0, 3);
        for (int64_t r = 0; r < 3; ++r) {
          const std::vector<int32_t> expected = best_ids(log_softmax(&scores[static_cast<size_t>(r * n)], n), static_cast<size_t>(k));
          const auto *ids = &top.ids[static_cast<size_t>(r * k)];
          cr_expect(std::set<int32_t>(ids, ids + k) == std::set<int32_t>(expected.begin(), expected.end()));
          cr_expect(k < n || top.tail[static_cast<size_t>(r)] == -INFINITY);
        }
      }
    }
  }
}

Test(targets, given_tokens_and_whole_rows) {
  const TemporaryFolder folder;
  const std::vector<int32_t> ids = {7, 0, 3, -1, 2, 1};
  const std::vector<float> log_probs = {-0.5f, -2, -3, 0, -1, -1}, tail = {-1.5f, -INFINITY};
  chorus_targets_info info = info_of(CHORUS_TARGETS_PLAIN, 2, 8, 3);
  info.dtype = CHORUS_F32;
  chorus::TargetsWriter writer(context(), info, folder / "t");
  writer.write_top(chorus::Tensor(ids.data(), {2, 3}), chorus::Tensor(log_probs.data(), {2, 3}), chorus::Tensor(tail.data(), {2}));
  writer.finish();
  const Top top = read(chorus::Targets(context(), folder / "t"), 0, 2);
  cr_expect(top.ids == std::vector<int32_t>({7, 0, 3, 2, 1, -1}));
  cr_expect(top.log_probs == std::vector<float>({-0.5f, -2, -3, -1, -1, -INFINITY}));
  cr_expect(top.tail == tail);

  const std::vector<float> scores = rows_of(2, 8, 5);
  for (const chorus_dtype dtype : {CHORUS_F32, CHORUS_BF16, CHORUS_F16}) {
    chorus_targets_info rows = info_of(CHORUS_TARGETS_ROWS, 2, 8, 0);
    rows.dtype = dtype;
    const std::string path = folder / ("rows" + std::to_string(dtype));
    chorus::TargetsWriter dense(context(), rows, path);
    dense.write_rows(chorus::Tensor(scores.data(), {2, 8}));
    dense.finish();
    std::vector<float> back(16);
    const chorus::Targets targets(context(), path);
    targets.read_rows(0, chorus::Tensor(back.data(), {2, 8}));
    for (size_t r = 0; r < 2; ++r) {
      const std::vector<long double> l = log_softmax(&scores[r * 8], 8);
      const double tolerance = dtype == CHORUS_F32 ? 1e-7 : dtype == CHORUS_F16 ? 0x1p-11 : 0x1p-8;
      for (size_t v = 0; v < 8; ++v) cr_expect(std::abs(back[r * 8 + v] - l[v]) <= tolerance * std::abs(l[v]) + 1e-7);
    }
    Outcome outcome;
    std::vector<int32_t> none(2);
    cr_expect_eq(chorus_targets_read_top(targets.get(), 0, nullptr, nullptr, nullptr, outcome.slot()), CHORUS_FAILED_PRECONDITION);
    cr_expect(contains(outcome.text(), "whole rows"));
  }
}

Test(targets, unfinished_files_leave_nothing) {
  const TemporaryFolder folder;
  const std::vector<float> scores = rows_of(2, 8, 6);
  {
    chorus::TargetsWriter writer(context(), info_of(CHORUS_TARGETS_PACKED, 3, 8, 2), folder / "t");
    writer.write_rows(chorus::Tensor(scores.data(), {2, 8}));
    cr_expect_eq(chorus_targets_writer_finish(writer.get(), nullptr), CHORUS_FAILED_PRECONDITION);
    cr_expect_eq(chorus_targets_writer_write_rows(writer.get(), chorus::Tensor(scores.data(), {2, 8}).get(), nullptr), CHORUS_OUT_OF_RANGE);
    std::vector<float> bad(8, NAN);
    cr_expect_eq(chorus_targets_writer_write_rows(writer.get(), chorus::Tensor(bad.data(), {1, 8}).get(), nullptr), CHORUS_INVALID_ARGUMENT);
  }
  cr_expect_not(std::filesystem::exists(folder / "t"));
}

Test(targets, vocabularies_are_compared) {
  const TemporaryFolder folder;
  const std::vector<float> scores = rows_of(1, 8, 7);
  chorus_targets_info info = info_of(CHORUS_TARGETS_PACKED, 1, 8, 2);
  for (const bool told : {false, true}) {
    info.fingerprint_low = told;
    const std::string path = folder / (told ? "told" : "silent");
    chorus::TargetsWriter writer(context(), info, path);
    writer.write_rows(chorus::Tensor(scores.data(), {1, 8}));
    writer.finish();
    write_file(folder / "tokenizer.json",
               R"({"version":"1.0","added_tokens":[],"normalizer":null,"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,)"
               R"("trim_offsets":true,"use_regex":true},"post_processor":null,"decoder":{"type":"ByteLevel","add_prefix_space":true,)"
               R"("trim_offsets":true,"use_regex":true},"model":{"type":"BPE","vocab":{"a":0},"merges":[]}})");
    const chorus::Vocabulary vocabulary(context(), folder / "tokenizer.json");
    const chorus::Targets targets(context(), path);
    Outcome outcome;
    cr_expect_eq(chorus_targets_check_vocabulary(targets.get(), vocabulary.get(), outcome.slot()), CHORUS_FAILED_PRECONDITION);
    cr_expect(contains(outcome.text(), told ? "may mean another token" : "does not tell"), "%s", outcome.text().c_str());
    std::filesystem::remove_all(path);
    const auto [low, high] = vocabulary.fingerprint();
    info.fingerprint_high = told ? high : 0;
    info.fingerprint_low = told ? low : 0;
    chorus::TargetsWriter again(context(), info, path);
    again.write_rows(chorus::Tensor(scores.data(), {1, 8}));
    again.finish();
    cr_expect_eq(chorus_targets_check_vocabulary(chorus::Targets(context(), path).get(), vocabulary.get(), nullptr),
                 told ? CHORUS_OK : CHORUS_FAILED_PRECONDITION);
    info.fingerprint_high = 0;
  }
}

// A bit of every byte of a small file changed in turn, and many random changes of its data: targets within bounds, or an error.
Test(targets, hostile_files) {
  const TemporaryFolder folder;
  const std::vector<float> scores = rows_of(4, 300, 8);
  for (const chorus_targets_form form : {CHORUS_TARGETS_PACKED, CHORUS_TARGETS_PLAIN}) {
    const std::string path = folder / std::to_string(form);
    chorus::TargetsWriter writer(context(), info_of(form, 4, 300, 7), path);
    writer.write_rows(chorus::Tensor(scores.data(), {4, 300}));
    writer.finish();
    const std::string good = read_file(path + "/model.safetensors"), hostile = folder / "hostile.safetensors";
    std::mt19937 random(9);
    size_t opened = 0, read_well = 0;
    uint64_t header = 0;
    std::memcpy(&header, good.data(), 8);
    const size_t data = 8 + header;
    for (size_t round = 0; round < good.size() + 800; ++round) {
      std::string bad = good;
      const size_t changes = round < good.size() ? 1 : 1 + random() % 8;
      for (size_t c = 0; c < changes; ++c) {
        bad[round < good.size() ? round : data + random() % (bad.size() - data)] ^= static_cast<char>(1 << random() % 8);
      }
      write_file(hostile, bad);
      chorus_targets *targets = nullptr;
      if (chorus_targets_open(context().get(), hostile.c_str(), &targets, nullptr) != CHORUS_OK) continue;
      ++opened;
      chorus_targets_info info = CHORUS_TARGETS_INFO_INIT;
      cr_assert_eq(chorus_targets_get(targets, &info, nullptr), CHORUS_OK);
      const int64_t k = info.k;
      if (info.form == form && info.rows == 4 && k <= 64) {
        std::vector<int32_t> ids(static_cast<size_t>(4 * k));
        std::vector<float> log_probs(static_cast<size_t>(4 * k)), tail(4);
        const chorus::Tensor a(ids.data(), {4, k}), b(log_probs.data(), {4, k}), c(tail.data(), {4});
        const chorus_status status = chorus_targets_read_top(targets, 0, a.get(), b.get(), c.get(), nullptr);
        cr_expect(status == CHORUS_OK || status == CHORUS_DATA_LOSS);
        read_well += status == CHORUS_OK;
        for (size_t i = 0; status == CHORUS_OK && i < ids.size(); ++i) {
          cr_expect(ids[i] >= -1 && ids[i] < info.n_tokens && !std::isnan(log_probs[i]));
        }
      }
      chorus_targets_destroy(targets);
    }
    cr_expect(opened > 800 && read_well > 100 && read_well < opened, "%zu opened, %zu read", opened, read_well);
  }
}

// A file that tests/vectors/targets.py made from the documentation.
Test(targets, the_documented_bits) {
  const chorus::Targets targets(context(), CHORUS_SOURCE_DIR "/tests/vectors/targets/packed.safetensors");
  const chorus_targets_info info = targets.info();
  cr_expect(info.temperature == 1.5 && info.n_models == 2 && info.weights[0] == 0.75 && info.weights[1] == 0.25);
  cr_expect(info.fingerprint_low == 1 && info.fingerprint_high == 2);
  const Top top = read(targets, 0, 3);
  cr_expect(top.ids == std::vector<int32_t>({5, 999, 700, 0, 256, -1, -1, -1, -1}));
  const double depth = 8.0 * 10 * 10 / (31 * 31), tail = 1 / (1 + std::exp(2.0));
  const double best = std::log(1 - tail) - std::log(1 + std::exp(-depth) + std::exp(-8.0));
  cr_expect_float_eq(top.tail[0], std::log(tail), 1e-6);
  cr_expect_float_eq(top.log_probs[0], best, 1e-6);
  cr_expect_float_eq(top.log_probs[1], best - depth, 1e-6);
  cr_expect_float_eq(top.log_probs[2], best - 8, 1e-6);
  cr_expect_float_eq(top.log_probs[3], -std::log(1 + std::exp(-1.0)), 1e-6);
  cr_expect_float_eq(top.log_probs[4], -1 - std::log(1 + std::exp(-1.0)), 1e-6);
  cr_expect_eq(top.tail[1], -INFINITY);
  cr_expect_eq(top.tail[2], 0);
}

Test(targets, refuses) {
  const TemporaryFolder folder;
  const auto status = [&](auto change) {
    chorus_targets_info info = info_of(CHORUS_TARGETS_PACKED, 1, 8, 2);
    change(info);
    chorus_targets_writer *writer = nullptr;
    const chorus_status out = chorus_targets_writer_create(context().get(), &info, (folder / "t").c_str(), &writer, nullptr);
    chorus_targets_writer_destroy(writer);
    return out;
  };
  cr_expect_eq(status([](auto &) {}), CHORUS_OK);
  cr_expect_eq(status([](auto &i) { i.k = 9; }), CHORUS_INVALID_ARGUMENT);
  cr_expect_eq(status([](auto &i) { i.k = 0; }), CHORUS_INVALID_ARGUMENT);
  cr_expect_eq(status([](auto &i) { i.bits = 17; }), CHORUS_INVALID_ARGUMENT);
  cr_expect_eq(status([](auto &i) { i.dtype = CHORUS_F32; }), CHORUS_INVALID_ARGUMENT);
  cr_expect_eq(status([](auto &i) { i.form = 5; }), CHORUS_INVALID_ARGUMENT);
  cr_expect_eq(status([](auto &i) { i.n_models = 2; }), CHORUS_INVALID_ARGUMENT);
  cr_expect_eq(status([](auto &i) { i.temperature = -1; }), CHORUS_INVALID_ARGUMENT);
  cr_expect_eq(status([](auto &i) { i.n_tokens = 0; }), CHORUS_INVALID_ARGUMENT);
}
