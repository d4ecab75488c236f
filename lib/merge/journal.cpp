// SPDX-License-Identifier: Apache-2.0
// Text: a first line with the plan's fingerprint, then "<tensor> <checksum>" in hexadecimal. A last line without its end, as
// a kill leaves it, counts as not written.
#include "merge/journal.h"

#include <fmt/format.h>

#include <charconv>

#include "runtime/error.h"

namespace chorus::merge {
namespace {

constexpr uint64_t kMaxBytes = uint64_t{256} << 20;

bool parse(std::string_view line, Journal::Entry *out) {
  const size_t space = line.find(' ');
  if (space == std::string_view::npos) return false;
  const auto number = [](std::string_view text, uint64_t *value) {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *value, 16);
    return error == std::errc() && end == text.data() + text.size();
  };
  return number(line.substr(0, space), &out->tensor) && number(line.substr(space + 1), &out->checksum);
}

}  // namespace

Journal::Journal(std::string path, std::string fingerprint, bool resume) {
  const std::string head = fmt::format("chorus merge journal 1 {}\n", fingerprint);
  if (resume) read(path, head);
  const std::string fresh = path + ".new";
  remove_quietly(fresh);
  file_ = create_new(fresh);
  write_exactly(file_, head.data(), head.size(), 0);
  end_ = head.size();
  add(entries_);
  rename_over(fresh, path);  // so that a kill here leaves the one or the other
}

void Journal::read(const std::string &path, const std::string &head) {
  std::string text;
  try {
    text = read_text(path, kMaxBytes);
  } catch (const Failure &failure) {
    if (failure.error()->code == CHORUS_NOT_FOUND) return;
    throw;
  }
  of_another_plan_ = !text.starts_with(head);
  if (of_another_plan_) return;
  for (size_t at = head.size(), end; (end = text.find('\n', at)) != std::string::npos; at = end + 1) {
    Entry entry;
    if (!parse(std::string_view(text).substr(at, end - at), &entry)) break;
    entries_.push_back(entry);
  }
}

void Journal::add(const std::vector<Entry> &finished) {
  std::string lines;
  for (const Entry &entry : finished) lines += fmt::format("{:x} {:x}\n", entry.tensor, entry.checksum);
  if (lines.empty()) return;
  write_exactly(file_, lines.data(), lines.size(), end_);
  end_ += lines.size();
}

}  // namespace chorus::merge
