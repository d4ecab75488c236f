// SPDX-License-Identifier: Apache-2.0
// ELF64 header and program headers (System V ABI, "Object files"), read with pread and checked arithmetic.
#include "runtime/elf.h"

#include <elf.h>

#include <cstring>
#include <vector>

#include "runtime/checked.h"
#include "runtime/error.h"
#include "runtime/files.h"

namespace chorus {
namespace {

#if defined(__x86_64__)
constexpr uint16_t kMachine = EM_X86_64;
#elif defined(__aarch64__)
constexpr uint16_t kMachine = EM_AARCH64;
#elif defined(__riscv)
constexpr uint16_t kMachine = EM_RISCV;
#elif defined(__powerpc64__)
constexpr uint16_t kMachine = EM_PPC64;
#else
#error "add this architecture's EM_ number"
#endif

}  // namespace

void check_shared_object(const std::string &path) {
  const File file = open_for_reading(path);
  const uint64_t size = size_of(file);
  Elf64_Ehdr header;
  if (size < sizeof(header)) fail(CHORUS_INVALID_ARGUMENT, "{}: not an ELF file ({} bytes)", path, size);
  read_exactly(file, &header, sizeof(header), 0);
  if (std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0) fail(CHORUS_INVALID_ARGUMENT, "{}: not an ELF file", path);
  if (header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_ident[EI_DATA] != ELFDATA2LSB || header.e_machine != kMachine) {
    fail(CHORUS_INVALID_ARGUMENT, "{}: built for another architecture (ELF machine {}, this one is {})", path,
         header.e_machine, kMachine);
  }
  if (header.e_type != ET_DYN) fail(CHORUS_INVALID_ARGUMENT, "{}: an ELF file but no shared object", path);
  const auto table_end = checked_add(header.e_phoff, uint64_t{header.e_phnum} * sizeof(Elf64_Phdr));
  if (header.e_phentsize != sizeof(Elf64_Phdr) || !table_end || *table_end > size) {
    fail(CHORUS_INVALID_ARGUMENT, "{}: cut short or damaged: its program headers lie beyond its {} bytes", path, size);
  }
  std::vector<Elf64_Phdr> segments(header.e_phnum);
  read_exactly(file, segments.data(), segments.size() * sizeof(Elf64_Phdr), header.e_phoff);
  for (const Elf64_Phdr &segment : segments) {
    const auto end = checked_add(segment.p_offset, segment.p_filesz);
    if (segment.p_type == PT_LOAD && (!end || *end > size)) {
      fail(CHORUS_INVALID_ARGUMENT, "{}: cut short: a segment ends beyond its {} bytes", path, size);
    }
  }
}

}  // namespace chorus
