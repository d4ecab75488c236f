// SPDX-License-Identifier: Apache-2.0
// The file table: every system call of the core on model files goes through here, so that tests can fail the n-th one.
// Reading is by pread after fstat of the opened descriptor; writing is temporary name -> sync -> rename.
#pragma once
#include <sys/stat.h>
#include <sys/types.h>

#include <cstdint>
#include <string>
#include <utility>

namespace chorus {

// Tests replace the entries (white-box builds only). Each behaves as the system call of its name.
struct FileTable {
  int (*open)(const char *path, int flags, mode_t mode);
  int (*close)(int descriptor);
  int (*fstat)(int descriptor, struct stat *out);
  ssize_t (*pread)(int descriptor, void *to, size_t bytes, off_t offset);
  ssize_t (*pwrite)(int descriptor, const void *from, size_t bytes, off_t offset);
  int (*fallocate)(int descriptor, off_t bytes);
  int (*fsync)(int descriptor);
  int (*rename)(const char *from, const char *to);
  int (*unlink)(const char *path);
  int (*mkdir)(const char *path, mode_t mode);
};
FileTable &file_table();

// An owned descriptor and the path it came from, for messages.
class File {
 public:
  File() = default;
  File(int descriptor, std::string path) : descriptor_(descriptor), path_(std::move(path)) {}
  File(File &&other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)), path_(std::move(other.path_)) {}
  File &operator=(File &&other) noexcept {
    std::swap(descriptor_, other.descriptor_);
    std::swap(path_, other.path_);
    return *this;
  }
  ~File();
  int descriptor() const { return descriptor_; }
  const std::string &path() const { return path_; }

 private:
  int descriptor_ = -1;
  std::string path_;
};

// Opens a regular file for reading; links are followed. Fails NOT_FOUND, PERMISSION_DENIED, INVALID_ARGUMENT (a folder, a
// device, a FIFO: nothing that could block is opened), UNAVAILABLE.
File open_for_reading(const std::string &path);
uint64_t size_of(const File &file);

// Exactly `bytes` from `offset`. Fails DATA_LOSS when the file ends early, naming file and offset.
void read_exactly(const File &file, void *to, uint64_t bytes, uint64_t offset);
// The whole file, at most `limit` bytes; fails DATA_LOSS beyond it.
std::string read_text(const std::string &path, uint64_t limit);

// Creates a new file that nothing else has (O_EXCL, no links followed).
File create_new(const std::string &path);
// Reserves the space at once, so that a full disk is found before the work. Fails RESOURCE_EXHAUSTED with the bytes.
void reserve(const File &file, uint64_t bytes);
void write_exactly(const File &file, const void *from, uint64_t bytes, uint64_t offset);
void sync_file(const File &file);
// Hints to the system, which may ignore them: soon these bytes are read; these bytes are complete, write them behind.
void prefetch(const File &file, uint64_t offset, uint64_t bytes) noexcept;
void start_writing(const File &file, uint64_t offset, uint64_t bytes) noexcept;
void sync_folder(const std::string &path);
void rename_over(const std::string &from, const std::string &to);
// Lets two folders swap their names at once; false where the system cannot.
bool exchange_names(const std::string &a, const std::string &b);
// Removes a file; a missing one is fine. Never throws.
void remove_quietly(const std::string &path) noexcept;
// Creates the folder and its missing parents.
void make_folder(const std::string &path);

}  // namespace chorus
