// SPDX-License-Identifier: Apache-2.0
// The look at a file before it is loaded: a good plugin with each header byte changed, and cut at any length.
#include <criterion/criterion.h>

#include <fstream>

#include "runtime/elf.h"
#include "runtime/error.h"
#include "unit/support.h"

using namespace chorus;

namespace {

// "" when accepted.
std::string verdict(const std::string &path) {
  try {
    check_shared_object(path);
    return "";
  } catch (const Failure &failure) {
    cr_expect(unit::contains(failure.what(), path), "%s", failure.what());
    return failure.what();
  }
}

}  // namespace

Test(elf, whole_files_are_accepted_and_no_part_of_one_is) {
  const std::string good = unit::test_plugin("probe");
  cr_expect(verdict(good).empty());
  const std::string bytes = unit::read_file(good);
  const unit::TemporaryFolder folder;
  const std::string path = folder / "part.so";
  unit::write_file(path, bytes);
  for (size_t length = bytes.size() / 4; length-- > 0;) {  // further out lie section headers, which loading does not need
    if (length >= 600 && length % 97 != 0) continue;
    std::filesystem::resize_file(path, length);
    cr_expect(!verdict(path).empty(), "cut at %zu of %zu", length, bytes.size());
  }
}

Test(elf, a_changed_header_never_crashes_the_check) {
  const std::string bytes = unit::read_file(unit::test_plugin("probe"));
  const unit::TemporaryFolder folder;
  const std::string path = folder / "changed.so";
  unit::write_file(path, bytes);
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  const auto put = [&](size_t at, char value) {
    file.seekp(static_cast<std::streamoff>(at));
    file.put(value).flush();
  };
  int refused = 0;
  for (size_t i = 0; i < 64 + 56; ++i) {  // ELF header and first program header
    for (const unsigned char value : {0x00, 0x01, 0x7f, 0x80, 0xff}) {
      put(i, static_cast<char>(value));
      refused += !verdict(path).empty();
    }
    put(i, bytes[i]);
  }
  cr_expect(refused > 100, "%d", refused);
  cr_expect(verdict(path).empty(), "as it was");
}
