// SPDX-License-Identifier: Apache-2.0
// Drawing progress. A bar is redrawn ten times a second, lines come with each tenth of the work or every five seconds.
#include "progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "command.h"

namespace chorus_cli {
namespace {

size_t terminal_width() {
  winsize size = {};
  return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

std::string clock_text(double seconds) {
  const auto whole = static_cast<int64_t>(seconds + 0.5);
  if (whole >= 3600) return fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60);
  return fmt::format("{}:{:02}", whole / 60, whole % 60);
}

double share(const chorus_merge_progress &at) {
  return at.bytes_total == 0 ? 1.0 : std::min(1.0, static_cast<double>(at.bytes_done) / static_cast<double>(at.bytes_total));
}

// Time left at the rate so far.
double seconds_left(const chorus_merge_progress &at, double seconds) {
  const double done = share(at);
  return done > 0 ? seconds / done * (1 - done) : 0;
}

std::string figures(const chorus_merge_progress &at, double seconds) {
  const uint64_t rate = seconds > 0 ? static_cast<uint64_t>(static_cast<double>(at.bytes_done) / seconds) : 0;
  return fmt::format("{:3.0f} %  {} of {}  {}/s  {} left", 100 * share(at), human_bytes(at.bytes_done), human_bytes(at.bytes_total),
                     human_bytes(rate), clock_text(seconds_left(at, seconds)));
}

void draw_bar(const chorus_merge_progress &at, double seconds) {
  const std::string what = at.tensor[0] != '\0' ? at.tensor : "syncing";
  const std::string text = figures(at, seconds);
  const size_t width = terminal_width(), used = text.size() + 5;
  const size_t cells = std::clamp<size_t>(width > used ? (width - used) / 3 : 0, 10, 30);
  const auto full = static_cast<size_t>(share(at) * static_cast<double>(cells));
  std::string line = fmt::format("[{}{}] {}  {}", std::string(full, '#'), std::string(cells - full, ' '), text, what);
  if (line.size() > width - 1) line.resize(width - 1);
  fmt::print(stderr, "\r\033[K{}", line);
  std::fflush(stderr);
}

void print_json_line(const chorus_merge_progress &at, double seconds) {
  const Json json = {{"phase", at.phase},
                     {"tensor", at.tensor},
                     {"bytes_done", at.bytes_done},
                     {"bytes_total", at.bytes_total},
                     {"tensors_done", at.tensors_done},
                     {"tensors_total", at.tensors_total},
                     {"seconds", seconds},
                     {"seconds_left", seconds_left(at, seconds)}};
  fmt::print(stderr, "{}\n", json.dump(-1, ' ', false, Json::error_handler_t::replace));
  std::fflush(stderr);
}

}  // namespace

ProgressStyle progress_style(const std::string &name) {
  if (name == "none") return ProgressStyle::kNone;
  if (name == "bar") return ProgressStyle::kBar;
  if (name == "lines") return ProgressStyle::kLines;
  if (name == "json") return ProgressStyle::kJson;
  return isatty(STDERR_FILENO) != 0 ? ProgressStyle::kBar : ProgressStyle::kLines;
}

bool ProgressPrinter::is_due(const chorus_merge_progress &progress) {
  const auto now = Clock::now();
  const double since = std::chrono::duration<double>(now - last_).count();
  const int tenth = static_cast<int>(10 * share(progress));
  const bool ends = progress.tensor[0] == '\0';
  const bool due = style_ == ProgressStyle::kLines ? tenth != last_tenth_ || since >= 5 || ends : since >= 0.1 || ends;
  if (due) {
    last_ = now;
    last_tenth_ = tenth;
  }
  return due;
}

void ProgressPrinter::show(const chorus_merge_progress &progress) {
  if (style_ == ProgressStyle::kNone || !is_due(progress)) return;
  switch (style_) {
    case ProgressStyle::kBar:
      draw_bar(progress, seconds());
      has_bar_ = true;
      break;
    case ProgressStyle::kJson:
      print_json_line(progress, seconds());
      break;
    default:
      fmt::print(stderr, "{}  {}\n", figures(progress, seconds()), progress.tensor[0] != '\0' ? progress.tensor : "syncing");
  }
}

void ProgressPrinter::finish() {
  if (has_bar_) fmt::print(stderr, "\r\033[K");
  has_bar_ = false;
}

}  // namespace chorus_cli
