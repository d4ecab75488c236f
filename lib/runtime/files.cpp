// SPDX-License-Identifier: Apache-2.0
// The system calls behind the file table, EINTR retried, errno told in words.
#include "runtime/files.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <system_error>

#include "runtime/error.h"

namespace chorus {
namespace {

int system_open(const char *path, int flags, mode_t mode) { return ::open(path, flags, mode); }
int system_fstat(int descriptor, struct stat *out) { return ::fstat(descriptor, out); }
int system_fallocate(int descriptor, off_t bytes) { return ::posix_fallocate(descriptor, 0, bytes); }

std::string reason_of(int error) { return std::generic_category().message(error); }

chorus_status status_of(int error) {
  switch (error) {
    case ENOENT: case ENOTDIR: return CHORUS_NOT_FOUND;
    case EACCES: case EPERM: case EROFS: return CHORUS_PERMISSION_DENIED;
    case EEXIST: return CHORUS_ALREADY_EXISTS;
    case ENOSPC: case EDQUOT: case EMFILE: case ENFILE: case ENOMEM: case EFBIG: return CHORUS_RESOURCE_EXHAUSTED;
    case ELOOP: case ENAMETOOLONG: return CHORUS_INVALID_ARGUMENT;
    default: return CHORUS_UNAVAILABLE;
  }
}

[[noreturn]] void fail_call(int error, const char *doing, const std::string &path) {
  fail(status_of(error), "{} {}: {}", doing, path, reason_of(error));
}

template <typename CallOnce>
auto retry(CallOnce call) {
  auto result = call();
  while (result < 0 && errno == EINTR) result = call();
  return result;
}

}  // namespace

FileTable &file_table() {
  static FileTable table = {system_open, ::close,  system_fstat, ::pread,  ::pwrite,
                            system_fallocate, ::fsync, std::rename, ::unlink, ::mkdir};
  return table;
}

File::~File() {
  if (descriptor_ >= 0) file_table().close(descriptor_);
}

File open_for_reading(const std::string &path) {
  // O_NONBLOCK: opening a FIFO must not wait for its writer. It has no effect on regular files.
  const int descriptor = retry([&] { return file_table().open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK, 0); });
  if (descriptor < 0) fail_call(errno, "opening", path);
  File file(descriptor, path);
  struct stat info;
  if (file_table().fstat(descriptor, &info) != 0) fail_call(errno, "looking at", path);
  if (!S_ISREG(info.st_mode)) {
    fail(CHORUS_INVALID_ARGUMENT, "{} is {}; a regular file is needed", path,
         S_ISDIR(info.st_mode) ? "a folder" : "a device, socket or FIFO");
  }
  return file;
}

uint64_t size_of(const File &file) {
  struct stat info;
  if (file_table().fstat(file.descriptor(), &info) != 0) fail_call(errno, "looking at", file.path());
  return static_cast<uint64_t>(info.st_size);
}

void read_exactly(const File &file, void *to, uint64_t bytes, uint64_t offset) {
  char *at = static_cast<char *>(to);
  for (uint64_t done = 0; done < bytes;) {
    const size_t part = static_cast<size_t>(std::min<uint64_t>(bytes - done, uint64_t{1} << 30));
    const ssize_t got = retry(
        [&] { return file_table().pread(file.descriptor(), at + done, part, static_cast<off_t>(offset + done)); });
    if (got < 0) fail_call(errno, "reading", file.path());
    if (got == 0) {
      fail(CHORUS_DATA_LOSS, "{} ends at byte {}; {} bytes from byte {} were expected. Was it cut short or changed?",
           file.path(), offset + done, bytes, offset);
    }
    done += static_cast<uint64_t>(got);
  }
}

std::string read_text(const std::string &path, uint64_t limit) {
  const File file = open_for_reading(path);
  const uint64_t size = size_of(file);
  if (size > limit) fail(CHORUS_DATA_LOSS, "{} has {} bytes; at most {} are accepted", path, size, limit);
  std::string text(size, '\0');
  read_exactly(file, text.data(), size, 0);
  return text;
}

File create_new(const std::string &path) {
  const int descriptor = retry(
      [&] { return file_table().open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644); });
  if (descriptor < 0) fail_call(errno, "creating", path);
  return File(descriptor, path);
}

void reserve(const File &file, uint64_t bytes) {
  if (bytes == 0) return;
  int error = EINTR;
  while (error == EINTR) error = file_table().fallocate(file.descriptor(), static_cast<off_t>(bytes));
  if (error == 0 || error == EINVAL || error == EOPNOTSUPP) return;  // some file systems cannot; writing will tell
  fail(status_of(error), "reserving {} bytes for {}: {}", bytes, file.path(), reason_of(error));
}

void write_exactly(const File &file, const void *from, uint64_t bytes, uint64_t offset) {
  const char *at = static_cast<const char *>(from);
  for (uint64_t done = 0; done < bytes;) {
    const size_t part = static_cast<size_t>(std::min<uint64_t>(bytes - done, uint64_t{1} << 30));
    const ssize_t put = retry(
        [&] { return file_table().pwrite(file.descriptor(), at + done, part, static_cast<off_t>(offset + done)); });
    if (put < 0) fail_call(errno, "writing", file.path());
    if (put == 0) fail(CHORUS_UNAVAILABLE, "writing {}: the file system takes no more bytes", file.path());
    done += static_cast<uint64_t>(put);
  }
}

void sync_file(const File &file) {
  if (retry([&] { return file_table().fsync(file.descriptor()); }) != 0) fail_call(errno, "syncing", file.path());
}

void prefetch(const File &file, uint64_t offset, uint64_t bytes) noexcept {
  static_cast<void>(::posix_fadvise(file.descriptor(), static_cast<off_t>(offset), static_cast<off_t>(bytes), POSIX_FADV_WILLNEED));
}

void start_writing(const File &file, uint64_t offset, uint64_t bytes) noexcept {
#if defined(__linux__)
  static_cast<void>(::sync_file_range(file.descriptor(), static_cast<off64_t>(offset), static_cast<off64_t>(bytes), SYNC_FILE_RANGE_WRITE));
#else
  static_cast<void>(file), static_cast<void>(offset), static_cast<void>(bytes);
#endif
}

void sync_folder(const std::string &path) {
  const int descriptor = retry([&] { return file_table().open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0); });
  if (descriptor < 0) fail_call(errno, "opening folder", path);
  const File folder(descriptor, path);
  sync_file(folder);
}

void rename_over(const std::string &from, const std::string &to) {
  if (file_table().rename(from.c_str(), to.c_str()) != 0) fail_call(errno, "giving its final name to", to);
}

bool exchange_names(const std::string &a, const std::string &b) {
#if defined(RENAME_EXCHANGE)
  return ::renameat2(AT_FDCWD, a.c_str(), AT_FDCWD, b.c_str(), RENAME_EXCHANGE) == 0;
#else
  return static_cast<void>(a), static_cast<void>(b), false;
#endif
}

void remove_quietly(const std::string &path) noexcept { file_table().unlink(path.c_str()); }

void make_folder(const std::string &path) {
  const std::filesystem::path wanted(path);
  std::error_code ignored;
  if (std::filesystem::is_directory(wanted, ignored)) return;
  if (wanted.has_parent_path() && wanted.parent_path() != wanted) make_folder(wanted.parent_path());
  if (file_table().mkdir(path.c_str(), 0755) != 0 && errno != EEXIST) fail_call(errno, "creating folder", path);
  if (!std::filesystem::is_directory(wanted, ignored)) fail(CHORUS_INVALID_ARGUMENT, "{} is not a folder", path);
}

}  // namespace chorus
