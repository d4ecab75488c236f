// SPDX-License-Identifier: Apache-2.0
// The merger: a plan with its text, and the context it runs in.
#pragma once
#include <memory>
#include <string>

#include "merge/execute.h"

namespace chorus::merge {

class Merger {
 public:
  Merger(std::shared_ptr<const Context> context, const MergeSettings &settings, const char *device)
      : context_(std::move(context)), plan_(make_plan(context_, settings, device)), text_(plan_text(plan_)), json_(plan_json(plan_)) {}

  const Plan &plan() const { return plan_; }
  const std::string &text() const { return text_; }
  const std::string &json() const { return json_; }

  void run(const ProgressFunction &progress) const {
    if (plan_.settings.output.empty()) {
      fail(CHORUS_FAILED_PRECONDITION, "the merger has no output folder; chorus_merger_spec_set_output() sets one");
    }
    execute(*context_, plan_, plan_.settings.output, progress);
  }

 private:
  std::shared_ptr<const Context> context_;
  Plan plan_;
  std::string text_, json_;
};

}  // namespace chorus::merge
