// SPDX-License-Identifier: Apache-2.0
// Reading: infos, conversions between the floats, bytes, config and metadata, wrong arguments, a file that shrinks.
#include <unistd.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "unit/checkpoint/support.h"

using unit::contains;
using unit::Outcome;
using unit::TemporaryFolder;
using unit::write_file;

namespace {

std::string vector_file(const std::string &name) { return std::string(CHORUS_SOURCE_DIR) + "/tests/vectors/checkpoints/" + name; }

template <typename T>
std::string bytes_of(const std::vector<T> &values) {
  return std::string(reinterpret_cast<const char *>(values.data()), values.size() * sizeof(T));
}

// A file whose one tensor "w" holds `data`.
std::string file_of(const std::string &dtype, size_t count, const std::string &data) {
  const std::string header = "{\"w\":{\"dtype\":\"" + dtype + "\",\"shape\":[" + std::to_string(count) + "],\"data_offsets\":[0," +
                             std::to_string(data.size()) + "]}}";
  return unit::little_endian(header.size()) + header + data;
}

// Nearest even, from the definition: the candidate of those around that is nearest to x, ties to the even pattern.
uint16_t oracle_round(double x, double (*value)(uint16_t)) {
  uint16_t best = 0;
  double best_error = std::numeric_limits<double>::infinity();
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const double v = value(static_cast<uint16_t>(bits));
    if (std::isnan(v) || std::isinf(v) || std::signbit(v) != std::signbit(x)) continue;
    const double error = std::fabs(v - x);
    if (error < best_error || (error == best_error && bits % 2 == 0)) {
      best = static_cast<uint16_t>(bits);
      best_error = error;
    }
  }
  return best;
}

double bf16_value(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }
double f16_value(uint16_t bits) {
  const int exponent = bits >> 10 & 31, mantissa = bits & 1023;
  const double sign = (bits & 0x8000) != 0 ? -1 : 1;
  if (exponent == 31) return mantissa != 0 ? std::nan("") : sign * std::numeric_limits<double>::infinity();
  return sign * (exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25));
}

}  // namespace

Test(read, every_type_is_described_and_its_bytes_read) {
  const chorus::Checkpoint checkpoint(unit::context(), vector_file("all_types.safetensors"));
  const struct {
    const char *name, *dtype_name;
    chorus_dtype dtype;
  } types[] = {{"bool", "BOOL", CHORUS_BOOL}, {"uint8", "U8", CHORUS_U8}, {"int8", "I8", CHORUS_I8},
               {"float8_e5m2", "F8_E5M2", CHORUS_F8_E5M2}, {"float8_e4m3fn", "F8_E4M3", CHORUS_F8_E4M3FN},
               {"float8_e8m0fnu", "F8_E8M0", CHORUS_F8_E8M0FNU}, {"int16", "I16", CHORUS_I16}, {"uint16", "U16", CHORUS_U16},
               {"float16", "F16", CHORUS_F16}, {"bfloat16", "BF16", CHORUS_BF16}, {"int32", "I32", CHORUS_I32},
               {"uint32", "U32", CHORUS_U32}, {"float32", "F32", CHORUS_F32}, {"complex64", "C64", 0x4005u},
               {"float64", "F64", CHORUS_F64}, {"int64", "I64", CHORUS_I64}, {"uint64", "U64", CHORUS_U64}};
  cr_assert_eq(checkpoint.tensor_count(), std::size(types));
  uint64_t end = 0;
  for (size_t i = 0; i < checkpoint.tensor_count(); ++i) {
    const chorus_tensor_info info = checkpoint.tensor(i);
    cr_expect(i == 0 || info.file_offset == end, "tensors lie in the order of the disk");
    end = info.file_offset + info.size_bytes;
  }
  for (const auto &type : types) {
    const size_t index = checkpoint.find(type.name);
    const chorus_tensor_info info = checkpoint.tensor(index);
    cr_expect_str_eq(info.dtype_name, type.dtype_name);
    cr_expect_eq(info.dtype, type.dtype, "%s", type.name);
    cr_expect_eq(info.size_bytes, 6u * (type.dtype >> 11));
    cr_expect(info.ndim == 2 && info.shape[0] == 2 && info.shape[1] == 3);
    std::vector<uint8_t> bytes(info.size_bytes), same(info.size_bytes + 8);
    checkpoint.read_bytes(index, 0, bytes.size(), bytes.data());
    for (size_t i = 0; i < bytes.size(); ++i) cr_expect_eq(bytes[i], static_cast<uint8_t>(31 * i + 7), "%s", type.name);
    uint8_t *aligned = same.data() + (8 - reinterpret_cast<uintptr_t>(same.data()) % 8) % 8;
    checkpoint.read(index, chorus::Tensor(aligned, type.dtype, {2, 3}));
    cr_expect_arr_eq(aligned, bytes.data(), bytes.size());
    uint8_t two[2];
    checkpoint.read_bytes(index, 3, 2, two);
    cr_expect_arr_eq(two, bytes.data() + 3, 2);
  }
  cr_expect_eq(checkpoint.metadata().size(), 1u);
  cr_expect(checkpoint.metadata()[0].second == "pt");
  cr_expect(checkpoint.config() == "");
  EXPECT_FAILS(checkpoint.config_number("x"), CHORUS_NOT_FOUND, "has no config.json");
}

Test(read, all_16_bit_values_become_f32_and_f64_exactly) {
  const TemporaryFolder folder;
  std::vector<uint16_t> all(0x10000);
  for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<uint16_t>(i);
  for (const bool brain : {false, true}) {
    write_file(folder / "m.safetensors", file_of(brain ? "BF16" : "F16", all.size(), bytes_of(all)));
    const chorus::Checkpoint checkpoint(unit::context(), folder / "m.safetensors");
    std::vector<float> f32(all.size());
    std::vector<double> f64(all.size());
    checkpoint.read(0, chorus::Tensor(f32.data(), {0x10000}));
    checkpoint.read(0, chorus::Tensor(f64.data(), {0x10000}));
    for (size_t i = 0; i < all.size(); ++i) {
      const double wanted = brain ? bf16_value(all[i]) : f16_value(all[i]);
      const bool right = std::isnan(wanted) ? std::isnan(f32[i]) && std::isnan(f64[i])
                                            : f32[i] == wanted && f64[i] == wanted && std::signbit(f32[i]) == std::signbit(wanted);
      cr_expect(right, "%s %zx: %g %g, not %g", brain ? "bf16" : "f16", i, static_cast<double>(f32[i]), f64[i], wanted);
    }
  }
}

Test(read, f32_and_f64_round_once_to_nearest_even) {
  const TemporaryFolder folder;
  // Half-way points, their neighbours in f64 (where rounding twice would go wrong), and ordinary numbers.
  std::vector<double> values = {0.0, -0.0, 1.0, -3.14159, 65504, 65519.99, 1e-8, 0x1p-24, 0x1p-25, 0x1.8p-25, 0x1.004p0, 0};
  values.back() = 0x1.00cp0;
  for (const double middle : {0x1.01p0, 0x1.03p0, 0x1.002p0, 0x1.006p0, 0x1.ff8p5}) {
    values.push_back(middle);
    values.push_back(std::nextafter(middle, 10000));
    values.push_back(std::nextafter(middle, 0));
    values.push_back(-middle);
  }
  write_file(folder / "m.safetensors", file_of("F64", values.size(), bytes_of(values)));
  const chorus::Checkpoint checkpoint(unit::context(), folder / "m.safetensors");
  const auto n = static_cast<int64_t>(values.size());
  std::vector<uint16_t> half(values.size()), brain(values.size());
  std::vector<float> single(values.size());
  checkpoint.read(0, chorus::Tensor(half.data(), CHORUS_F16, {n}));
  checkpoint.read(0, chorus::Tensor(brain.data(), CHORUS_BF16, {n}));
  checkpoint.read(0, chorus::Tensor(single.data(), {n}));
  for (size_t i = 0; i < values.size(); ++i) {
    cr_expect_eq(single[i], static_cast<float>(values[i]), "%a", values[i]);
    cr_expect_eq(half[i], oracle_round(values[i], f16_value), "%a as f16: %x", values[i], half[i]);
    cr_expect_eq(brain[i], oracle_round(values[i], bf16_value), "%a as bf16: %x", values[i], brain[i]);
  }
}

Test(read, large_tensors_convert_across_blocks) {
  const TemporaryFolder folder;
  const size_t count = 1'000'003;
  std::vector<float> values(count), back(count);
  for (size_t i = 0; i < count; ++i) values[i] = static_cast<float>(i % 256);
  write_file(folder / "m.safetensors", file_of("F32", count, bytes_of(values)));
  const chorus::Checkpoint checkpoint(unit::context(), folder / "m.safetensors");
  std::vector<uint16_t> brain(count);
  checkpoint.read(0, chorus::Tensor(brain.data(), CHORUS_BF16, {static_cast<int64_t>(count)}));
  for (size_t i = 0; i < count; ++i) {
    if (bf16_value(brain[i]) != values[i]) cr_assert_fail("element %zu", i);
  }
}

Test(read, wrong_arguments_are_named) {
  const TemporaryFolder folder;
  write_file(folder / "m.safetensors", unit::small_file());
  const chorus::Checkpoint c(unit::context(), folder / "m.safetensors");
  alignas(8) float room[4] = {};
  int32_t integers[2] = {};
  EXPECT_FAILS(c.tensor(1), CHORUS_OUT_OF_RANGE, "index is 1; there are 1");
  EXPECT_FAILS(c.find("W"), CHORUS_NOT_FOUND, "did you mean 'w'?");
  EXPECT_FAILS(c.read(1, chorus::Tensor(room, {2})), CHORUS_OUT_OF_RANGE, "index");
  EXPECT_FAILS(c.read(0, chorus::Tensor(room, {3})), CHORUS_INVALID_ARGUMENT, "that of tensor 'w': [2]");
  EXPECT_FAILS(c.read(0, chorus::Tensor(room, {1, 2})), CHORUS_INVALID_ARGUMENT, "shape");
  EXPECT_FAILS(c.read(0, chorus::Tensor(integers, {2})), CHORUS_UNIMPLEMENTED, "dtype is i32; tensor 'w' is F32");
  EXPECT_FAILS(c.read(0, chorus::Tensor(room, {2}).with_strides({2}, 16)), CHORUS_INVALID_ARGUMENT, "compact");
  EXPECT_FAILS(c.read(0, chorus::Tensor(room, {2}).with_strides({1}, 4)), CHORUS_INVALID_ARGUMENT, "size_bytes is 4; 8 are needed");
  EXPECT_FAILS(c.read(0, chorus::Tensor(static_cast<const float *>(room), {2})), CHORUS_INVALID_ARGUMENT, "read-only");
  EXPECT_FAILS(c.read(0, chorus::Tensor(static_cast<float *>(nullptr), {2})), CHORUS_INVALID_ARGUMENT, "data is NULL");
  EXPECT_FAILS(c.read(0, chorus::Tensor(reinterpret_cast<char *>(room) + 1, CHORUS_F32, {2})), CHORUS_INVALID_ARGUMENT, "aligned");
  EXPECT_FAILS(c.read_bytes(0, 8, 1, room), CHORUS_OUT_OF_RANGE, "has 8 bytes");
  EXPECT_FAILS(c.read_bytes(0, ~uint64_t{0}, 2, room), CHORUS_OUT_OF_RANGE, "has 8 bytes");
  EXPECT_FAILS(c.read_bytes(0, 0, 8, nullptr), CHORUS_INVALID_ARGUMENT, "out is NULL");
  c.read_bytes(0, 8, 0, nullptr);
  Outcome outcome;
  size_t index = 0;
  cr_expect_eq(chorus_checkpoint_read(c.get(), 0, nullptr, outcome.slot()), CHORUS_INVALID_ARGUMENT);
  cr_expect_eq(chorus_checkpoint_read(nullptr, 0, nullptr, outcome.slot()), CHORUS_INVALID_ARGUMENT);
  cr_expect_eq(chorus_checkpoint_open(unit::context().get(), nullptr, nullptr, outcome.slot()), CHORUS_INVALID_ARGUMENT);
  cr_expect_eq(chorus_checkpoint_find_tensor(c.get(), nullptr, &index, outcome.slot()), CHORUS_INVALID_ARGUMENT);
  cr_expect_null(chorus_checkpoint_get_file(c.get(), 1));
  cr_expect_eq(chorus_checkpoint_get_tensor_count(nullptr), 0u);
  chorus_tensor_info info = {};
  cr_expect_eq(chorus_checkpoint_get_tensor(c.get(), 0, &info, outcome.slot()), CHORUS_INVALID_ARGUMENT);
  chorus_checkpoint_destroy(nullptr);
}

Test(read, tensors_of_nine_dimensions_and_of_none_are_read) {
  const chorus::Checkpoint c(unit::context(), vector_file("odd_names.safetensors"));
  const size_t nine = c.find("one");
  cr_expect_eq(c.tensor(nine).ndim, 9);
  uint16_t value = 0;
  c.read_bytes(nine, 0, 2, &value);
  cr_expect_eq(value, 0x2607);
  EXPECT_FAILS(c.read(nine, chorus::Tensor(&value, CHORUS_BF16, {1})), CHORUS_UNIMPLEMENTED, "9 dimensions");
  c.read(c.find("zero"), chorus::Tensor(static_cast<float *>(nullptr), {4, 0, 2}));
  float scalar = 0;
  c.read(c.find("a \"quoted\" name\n\t\\ é 日本 \x01\x7f"), chorus::Tensor(&scalar, {}));
  cr_expect_eq(std::bit_cast<uint32_t>(scalar), 0x64452607u);
}

Test(read, a_file_that_shrinks_is_data_loss_and_names_it) {
  const TemporaryFolder folder;
  write_file(folder / "m.safetensors", unit::small_file());
  const chorus::Checkpoint c(unit::context(), folder / "m.safetensors");
  cr_assert_eq(truncate((folder / "m.safetensors").c_str(), static_cast<off_t>(unit::small_file().size() - 3)), 0);
  float room[2];
  EXPECT_FAILS(c.read(0, chorus::Tensor(room, {2})), CHORUS_DATA_LOSS, "m.safetensors ends at byte");
}

Test(read, config_is_lent_and_asked_by_path) {
  const TemporaryFolder folder;
  write_file(folder / "model.safetensors", unit::small_file());
  const std::string config = R"({"hidden_size":64,"tie":true,"off":null,"rope":{"theta":1e4,"type":"default"},"list":[1]})";
  write_file(folder / "config.json", config);
  const chorus::Checkpoint c(unit::context(), folder.path().string());
  cr_expect(c.config() == config);
  cr_expect_eq(c.config_number("hidden_size"), 64);
  cr_expect_eq(c.config_number("tie"), 1);
  cr_expect_eq(c.config_number("rope.theta"), 10000);
  cr_expect_eq(c.config_number("off", 7), 7);
  cr_expect(c.config_string("rope.type") == "default");
  EXPECT_FAILS(c.config_number("rope.beta"), CHORUS_NOT_FOUND, "has no 'rope.beta'");
  EXPECT_FAILS(c.config_number("hidden_size.x"), CHORUS_NOT_FOUND, "has no");
  EXPECT_FAILS(c.config_number("rope"), CHORUS_INVALID_ARGUMENT, "is no number but a object");
  EXPECT_FAILS(c.config_string("tie"), CHORUS_INVALID_ARGUMENT, "is no string");
  // Weights open beside a config that is no JSON (NaN is Python's); asking it says why not.
  write_file(folder / "config.json", R"({"a":NaN})");
  const chorus::Checkpoint odd(unit::context(), folder.path().string());
  EXPECT_FAILS(odd.config_number("a"), CHORUS_DATA_LOSS, "config.json: byte 5: not JSON");
  write_file(folder / "config.json", "{\"a\":" + std::string(70, '[') + std::string(70, ']') + "}");
  const chorus::Checkpoint deep(unit::context(), folder.path().string());
  EXPECT_FAILS(deep.config_number("a"), CHORUS_DATA_LOSS, "nested deeper than 64");
}
