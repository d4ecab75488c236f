// SPDX-License-Identifier: Apache-2.0
// How far a merge is, on standard error: a bar on a terminal, plain lines otherwise, JSON lines on request.
#pragma once
#include <chrono>
#include <string>

#include "chorus/merge.h"

namespace chorus_cli {

enum class ProgressStyle { kNone, kBar, kLines, kJson };

// "auto", "bar", "lines", "json", "none"; auto is a bar on a terminal, else lines.
ProgressStyle progress_style(const std::string &name);

class ProgressPrinter {
 public:
  explicit ProgressPrinter(ProgressStyle style) : style_(style), start_(Clock::now()) {}
  void show(const chorus_merge_progress &progress);
  // Ends the line of a bar.
  void finish();
  double seconds() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }

 private:
  using Clock = std::chrono::steady_clock;
  bool is_due(const chorus_merge_progress &progress);

  ProgressStyle style_;
  Clock::time_point start_, last_{};
  int last_tenth_ = -1;
  bool has_bar_ = false;
};

}  // namespace chorus_cli
