// SPDX-License-Identifier: Apache-2.0
// Differential test: chorus_checkpoint_open() against the Rust crate safetensors on mutated files, verdict by verdict, and
// tensor by tensor where both accept.   safetensors_diff JUDGE.so COUNT [SEED]
// Intended differences, counted and printed: Chorus also refuses a name that stands twice (the crate lets the last win) and a
// size above 2^63 - 1 (which only a shape with a zero can hold).
#include <dlfcn.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "chorus/checkpoint.h"
#include "mutate.h"

namespace {

using Judge = int32_t (*)(const uint8_t *, size_t, uint8_t *, size_t, size_t *);

struct Verdict {
  bool accepted = false;
  std::string text;  // listing, or why not
};

Judge load_judge(const char *path) {
  void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    std::fprintf(stderr, "%s\n", dlerror());
    std::exit(2);
  }
  reinterpret_cast<void (*)()>(dlsym(library, "judge_quietly"))();
  return reinterpret_cast<Judge>(dlsym(library, "judge"));
}

Verdict ask_crate(Judge judge, const std::string &file) {
  std::string text(size_t{1} << 16, '\0');
  size_t length = 0;
  const bool accepted = judge(reinterpret_cast<const uint8_t *>(file.data()), file.size(),
                              reinterpret_cast<uint8_t *>(text.data()), text.size(), &length) == 1;
  text.resize(std::min(length, text.size()));
  return {accepted, text};
}

std::string listing(const chorus_checkpoint *checkpoint, uint64_t data_start) {
  std::vector<std::string> lines;
  for (size_t i = 0; i < chorus_checkpoint_get_tensor_count(checkpoint); ++i) {
    chorus_tensor_info info = CHORUS_TENSOR_INFO_INIT;
    chorus_checkpoint_get_tensor(checkpoint, i, &info, nullptr);
    std::string line(info.name, info.name_length);
    line += std::string(" ") + info.dtype_name + " [";
    for (int32_t d = 0; d < info.ndim; ++d) line += (d > 0 ? ", " : "") + std::to_string(info.shape[d]);
    const uint64_t begin = info.file_offset - data_start;
    lines.push_back(line + "] " + std::to_string(begin) + " " + std::to_string(begin + info.size_bytes));
  }
  for (size_t i = 0; i < chorus_checkpoint_get_metadata_count(checkpoint); ++i) {
    const char *key = nullptr, *value = nullptr;
    chorus_checkpoint_get_metadata(checkpoint, i, &key, &value, nullptr);
    lines.push_back(std::string("meta ") + key + "=" + value);
  }
  std::sort(lines.begin(), lines.end());
  std::string out;
  for (size_t i = 0; i < lines.size(); ++i) out += (i > 0 ? "\n" : "") + lines[i];
  return out;
}

// The library under test, on a file that lives in memory.
class Chorus {
 public:
  Chorus() : descriptor_(memfd_create("mutant", 0)), path_("/proc/self/fd/" + std::to_string(descriptor_)) {
    chorus_context_spec *spec = nullptr;
    chorus_context_spec_create(&spec, nullptr);
    chorus_context_spec_set_option(spec, "plugins", "none", nullptr);
    chorus_context_create(spec, &context_, nullptr);
    chorus_context_spec_destroy(spec);
  }
  ~Chorus() {
    chorus_context_destroy(context_);
    close(descriptor_);
  }

  Verdict ask(const std::string &file) const {
    if (ftruncate(descriptor_, 0) != 0 || pwrite(descriptor_, file.data(), file.size(), 0) != static_cast<ssize_t>(file.size())) {
      std::abort();
    }
    chorus_checkpoint *checkpoint = nullptr;
    chorus_error *error = nullptr;
    Verdict verdict;
    if (chorus_checkpoint_open(context_, path_.c_str(), &checkpoint, &error) == CHORUS_OK) {
      uint64_t length = 0;
      std::memcpy(&length, file.data(), 8);
      verdict = {true, listing(checkpoint, 8 + length)};
    } else {
      verdict = {false, chorus_error_get_message(error)};
      // A refusal says where.
      if (verdict.text.find(": byte ") == std::string::npos) std::printf("no byte offset in: %s\n", verdict.text.c_str());
    }
    chorus_error_destroy(error);
    chorus_checkpoint_destroy(checkpoint);
    return verdict;
  }

 private:
  int descriptor_;
  std::string path_;
  chorus_context *context_ = nullptr;
};

bool has(const std::string &text, const char *part) { return text.find(part) != std::string::npos; }

bool without_zero(const std::string &text) { return text.find('\0') == std::string::npos; }

struct Counts {
  uint64_t accepted = 0, refused = 0, duplicates = 0, sizes = 0, different = 0;
};

void report(const std::string &file, const Verdict &crate, const Verdict &chorus, Counts *counts) {
  if (++counts->different > 20) return;
  std::printf("DIFFERENT\n  crate:  %s: %s\n  chorus: %s: %s\n  file: ", crate.accepted ? "accepts" : "refuses", crate.text.c_str(),
              chorus.accepted ? "accepts" : "refuses", chorus.text.c_str());
  for (const unsigned char byte : file.substr(0, 600)) std::printf(byte >= 32 && byte < 127 && byte != '\\' ? "%c" : "\\x%02x", byte);
  std::printf("\n");
}

void compare(const std::string &file, const Verdict &crate, const Verdict &chorus, Counts *counts) {
  ++(chorus.accepted ? counts->accepted : counts->refused);
  if (crate.accepted == chorus.accepted) {
    // C strings end at the first 0, so texts with one are compared by verdict alone.
    if (crate.accepted && crate.text != chorus.text && without_zero(crate.text)) report(file, crate, chorus, counts);
  } else if (crate.accepted && has(chorus.text, "the name stands there twice")) {
    ++counts->duplicates;
  } else if (crate.accepted && has(chorus.text, "at most 2^63 - 1")) {
    ++counts->sizes;
  } else {
    report(file, crate, chorus, counts);
  }
}

}  // namespace

int main(int argc, char **argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: safetensors_diff JUDGE.so COUNT [SEED]\n");
    return 2;
  }
  const Judge judge = load_judge(argv[1]);
  const uint64_t count = std::strtoull(argv[2], nullptr, 10), seed = argc > 3 ? std::strtoull(argv[3], nullptr, 10) : 1;
  const Chorus chorus;
  diff::Random random(seed);
  Counts counts;
  for (uint64_t i = 0; i < count; ++i) {
    const std::string file = diff::draw_file(&random);
    compare(file, ask_crate(judge, file), chorus.ask(file), &counts);
  }
  std::printf("%llu files, seed %llu: %llu accepted, %llu refused, %llu different; refused by Chorus alone: %llu names twice, %llu "
              "sizes above 2^63 - 1\n",
              static_cast<unsigned long long>(count), static_cast<unsigned long long>(seed),
              static_cast<unsigned long long>(counts.accepted), static_cast<unsigned long long>(counts.refused),
              static_cast<unsigned long long>(counts.different), static_cast<unsigned long long>(counts.duplicates),
              static_cast<unsigned long long>(counts.sizes));
  return counts.different == 0 ? 0 : 1;
}
