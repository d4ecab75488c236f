// SPDX-License-Identifier: Apache-2.0
// Headers: what is refused, with which byte; what is odd and taken; every prefix and every changed byte of good files.
#include <algorithm>

#include "unit/checkpoint/support.h"

using unit::contains;
using unit::safetensors;
using unit::TemporaryFolder;

namespace {

struct Case {
  const char *header;
  size_t data;
  const char *says;
};

#define W(dtype, shape, offsets) "{\"w\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}}"

constexpr Case kRefused[] = {
    {"", 0, "byte 8: not JSON"},
    {" ", 0, "not JSON"},
    {"[]", 0, "byte 9: found an array where an object is needed"},
    {"null", 0, "found null"},
    {"{", 0, "byte 9: not JSON"},
    {"{}x", 0, "not JSON"},
    {"{}{}", 0, "not JSON"},
    {"{} ", 4, "byte 11: the tensors cover 0 bytes; the file has 4"},
    {"\xef\xbb\xbf{}", 0, "byte 8: a byte order mark"},
    {"{\"\xff\":1}", 0, "not JSON"},
    {"{\"\xed\xa0\x80\":1}", 0, "not JSON"},
    {"{\"a\\ud800\":1}", 0, "not JSON"},
    {"{\"w\":1}", 0, "tensor 'w': found 1 where an object with dtype, shape and data_offsets is needed"},
    {"{\"w\":null}", 0, "found null"},
    {"{\"w\":{}}", 0, "dtype is missing"},
    {"{\"w\":{\"dtype\":\"F32\",\"shape\":[2]}}", 8, "data_offsets is missing"},
    {"{\"w\":{\"dtype\":\"F32\",\"data_offsets\":[0,8]}}", 8, "shape is missing"},
    {W("F33", "[2]", "[0,8]"), 8, "dtype 'F33' is not known"},
    {W("f32", "[2]", "[0,8]"), 8, "dtype 'f32' is not known"},
    {"{\"w\":{\"dtype\":{},\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "dtype is an empty object"},
    {W("F32", "2", "[0,8]"), 8, "found 2 where the array of the shape is needed"},
    {W("F32", "[-2]", "[0,8]"), 8, "found -2 where a whole number of 0 or more is needed"},
    {W("F32", "[2.0]", "[0,8]"), 8, "found the number 2.0"},
    {W("F32", "[2e0]", "[0,8]"), 8, "found the number 2e0"},
    {W("F32", "[-0]", "[0,8]"), 8, "where a whole number"},
    {W("F32", "[\"2\"]", "[0,8]"), 8, "found a string"},
    {W("F32", "[[2]]", "[0,8]"), 8, "found an array"},
    {W("F32", "[18446744073709551616]", "[0,8]"), 8, "where a whole number"},
    {W("F32", "[9223372036854775808,0]", "[0,0]"), 0, "at most 2^63 - 1 is allowed"},
    {W("F32", "[4611686018427387904,4]", "[0,0]"), 0, "overflows"},
    {W("F32", "[4611686018427387904,4,0]", "[0,0]"), 0, "overflows"},
    {W("U8", "[9223372036854775807]", "[0,9223372036854775807]"), 0, "overflows"},
    {W("F32", "[3]", "[0,8]"), 8, "needs 12 bytes; data_offsets [0, 8] give 8"},
    {W("F16", "[2]", "[0,8]"), 8, "needs 4 bytes"},
    {W("F4", "[3]", "[0,1]"), 1, "do not fill bytes"},
    {W("F6_E2M3", "[2]", "[0,1]"), 1, "do not fill bytes"},
    {W("F32", "[2]", "[0]"), 8, "data_offsets have 1 number(s)"},
    {W("F32", "[2]", "[0,8,9]"), 8, "data_offsets have more than two"},
    {W("F32", "[2]", "[8,0]"), 8, "run backwards"},
    {W("F32", "[2]", "[1,9]"), 9, "hole"},
    {W("F32", "[2]", "[0,8]"), 7, "Was it cut short?"},
    {W("F32", "[2]", "[0,8]"), 9, "Bytes that no tensor owns are not allowed"},
    {W("F32", "[2]", "{\"a\":0}"), 8, "found an object"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[3,7]}}", 7,
     "tensor 'b': data_offsets [3, 7] leave a no room"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[5,9]}}", 9, "hole"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}", 4,
     "tensor 'a': the name stands there twice"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},\"\\u0061\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[4,8]}}", 8,
     "the name stands there twice"},
    {"{\"w\":{\"dtype\":\"U8\",\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}", 4, "dtype stands there twice"},
    {"{\"__metadata__\":{},\"__metadata__\":{}}", 0, "__metadata__ stands there twice"},
    {"{\"__metadata__\":{\"a\":1}}", 0, "found 1 where a string of the metadata is needed"},
    {"{\"__metadata__\":[]}", 0, "where the object of the metadata is needed"},
    {"{\"w\":[\"U8\",[4]]}", 4, "too few items"},
    {"{\"w\":[\"U8\",[4],[0,4],1]}", 4, "where the end of the array is needed"},
    {"{\"w\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4],\"x\":1e999}}", 4, "not JSON"},
};

constexpr Case kTaken[] = {
    {"{}", 0, ""},
    {" \n\t\r{} \n", 0, ""},
    {"{\"__metadata__\":null}", 0, ""},
    {"{\"__metadata__\":{\"a\":\"1\",\"a\":\"2\"}}", 0, ""},
    {W("F32", "[]", "[0,4]"), 4, ""},
    {W("F32", "[0]", "[0,0]"), 0, ""},
    {W("F32", "[0,9223372036854775807]", "[0,0]"), 0, ""},
    {W("F32", "[1,1,1,1,1,1,1,1,1,1]", "[0,4]"), 4, ""},
    {W("F4", "[2]", "[0,1]"), 1, ""},
    {W("F6_E3M2", "[4]", "[0,3]"), 3, ""},
    {W("C64", "[1]", "[0,8]"), 8, ""},
    {W("F8_E4M3FNUZ", "[1]", "[0,1]"), 1, ""},
    {"{\"w\":[\"U8\",[4],[0,4]]}", 4, ""},
    {"{\"w\":{\"dtype\":{\"U8\":null},\"shape\":[4],\"data_offsets\":[0,4],\"x\":[{\"y\":[1.5,null]}]}}", 4, ""},
    {"{\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[4,8]},\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}", 8, ""},
    {"{\"\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]},\"a\\u0000b\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1]}}", 1, ""},
};

unit::Opening open_bytes(const TemporaryFolder &folder, const std::string &bytes) {
  unit::write_file(folder / "m.safetensors", bytes);
  return unit::try_open(folder / "m.safetensors");
}

std::string nested(size_t depth) {
  return "{\"w\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4],\"x\":" + std::string(depth, '[') + std::string(depth, ']') + "}}";
}

}  // namespace

Test(headers, hostile_ones_are_refused_with_file_and_byte) {
  const TemporaryFolder folder;
  for (const Case &c : kRefused) {
    const unit::Opening opening = open_bytes(folder, safetensors(c.header, c.data));
    cr_expect_eq(opening.status, CHORUS_DATA_LOSS, "%s: %s", c.header, opening.text.c_str());
    cr_expect(contains(opening.text, c.says), "%s: '%s' lacks '%s'", c.header, opening.text.c_str(), c.says);
    cr_expect(contains(opening.text, folder / "m.safetensors: byte "), "%s", opening.text.c_str());
  }
}

Test(headers, odd_ones_that_the_rust_crate_takes_are_taken) {
  const TemporaryFolder folder;
  for (const Case &c : kTaken) {
    const unit::Opening opening = open_bytes(folder, safetensors(c.header, c.data));
    cr_expect_eq(opening.status, CHORUS_OK, "%s: %s", c.header, opening.text.c_str());
  }
}

Test(headers, lengths_beyond_the_file_and_beyond_the_limit_are_refused) {
  const TemporaryFolder folder;
  for (const uint64_t length : {uint64_t{1}, uint64_t{100'000'000}, uint64_t{100'000'001}, uint64_t{1} << 63, ~uint64_t{0}}) {
    const unit::Opening opening = open_bytes(folder, unit::little_endian(length));
    cr_expect_eq(opening.status, CHORUS_DATA_LOSS);
    cr_expect(contains(opening.text, "byte 0: header length is " + std::to_string(length)), "%s", opening.text.c_str());
  }
  cr_expect(contains(open_bytes(folder, "").text, "byte 0: the file has 0 bytes"));
  cr_expect(contains(open_bytes(folder, "1234567").text, "byte 0: the file has 7 bytes"));
}

Test(headers, nesting_is_bounded_as_in_the_crate) {
  const TemporaryFolder folder;
  cr_expect_eq(open_bytes(folder, safetensors(nested(125), 4)).status, CHORUS_OK);
  cr_expect(contains(open_bytes(folder, safetensors(nested(126), 4)).text, "nested deeper than 127 levels"));
  cr_expect(contains(open_bytes(folder, safetensors(nested(1'000'000), 4)).text, "nested deeper than 127 levels"));
}

Test(headers, a_zero_byte_within_or_after_the_json_is_refused) {
  const TemporaryFolder folder;
  cr_expect(contains(open_bytes(folder, safetensors(std::string("{}\0\0", 4), 0)).text, "byte 10: a 0 byte"));
}

Test(headers, names_in_messages_are_printable) {
  const TemporaryFolder folder;
  const std::string text = open_bytes(folder, safetensors("{\"a\\n\\u0000\\u001b[31m\":1}", 0)).text;
  cr_expect(contains(text, "tensor 'a\\x0a\\x00\\x1b[31m'"), "%s", text.c_str());
}

Test(headers, every_prefix_of_a_good_file_is_refused) {
  const TemporaryFolder folder;
  const std::string good = unit::read_file(std::string(CHORUS_SOURCE_DIR) + "/tests/vectors/checkpoints/odd_names.safetensors");
  cr_assert_eq(open_bytes(folder, good).status, CHORUS_OK);
  for (size_t length = 0; length < good.size(); ++length) {
    cr_expect_eq(open_bytes(folder, good.substr(0, length)).status, CHORUS_DATA_LOSS, "prefix of %zu bytes", length);
  }
}

Test(headers, every_byte_of_a_good_file_may_change) {
  const TemporaryFolder folder;
  const std::string good = unit::read_file(std::string(CHORUS_SOURCE_DIR) + "/tests/vectors/checkpoints/odd_names.safetensors");
  for (size_t at = 0; at < good.size(); ++at) {
    for (const int with : {0x00, 0xff, 0x01, 0x22}) {
      std::string changed = good;
      changed[at] = static_cast<char>(with == 0x01 ? changed[at] ^ 1 : with);
      const unit::Opening opening = open_bytes(folder, changed);
      cr_expect(opening.status == CHORUS_OK || (opening.status == CHORUS_DATA_LOSS && contains(opening.text, ": byte ")),
                "byte %zu as %d: %s", at, with, opening.text.c_str());
    }
  }
}
