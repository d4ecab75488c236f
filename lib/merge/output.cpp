// SPDX-License-Identifier: Apache-2.0
// The model folder: believes what an interrupted run left only after reading it back, and tells the journal what is whole.
#include "merge/output.h"

#include <fmt/format.h>

#include <utility>

#include "merge/manifest.h"

namespace chorus::merge {
namespace {

checkpoint::WriterSettings settings_of(const Plan &plan) {
  checkpoint::WriterSettings out;
  out.side_files = plan.side_files;
  out.replace = plan.settings.replace;
  out.resume = out.keep = plan.settings.resume;
  return out;
}

}  // namespace

ModelOutput::ModelOutput(const Context &context, const Plan &plan, const std::string &folder)
    : context_(context), plan_(plan), writer_(plan.layout, folder, settings_of(plan)), checksums_(&writer_), has_(plan.jobs.size()) {
  journal_.emplace(writer_.journal_path(), plan_fingerprint(plan), plan.settings.resume);
  take_up();
}

void ModelOutput::take_up() {
  if (!plan_.settings.resume) return;
  if (journal_->is_of_another_plan()) {
    context_.log(CHORUS_LOG_WARNING, fmt::format("{}: the interrupted run had another recipe, seed, version or input; starting again",
                                                 writer_.folder()));
  }
  struct Found {
    Journal::Entry entry;
    bool is_sound;
  };
  std::vector<Found> found;
  for (const Journal::Entry &entry : journal_->entries()) {
    const bool possible = entry.tensor < plan_.jobs.size() && writer_.resumed(plan_.layout.places[entry.tensor].shard);
    if (possible) found.push_back({entry, false});
  }
  struct Call {
    const Checksums *checksums;
    std::vector<Found> *found;
  } call{&checksums_, &found};
  context_.pool().parallel_for(
      found.size(),
      [](void *argument, uint64_t index) {
        const auto &call = *static_cast<const Call *>(argument);
        Found &one = (*call.found)[index];
        one.is_sound = call.checksums->compute(one.entry.tensor) == one.entry.checksum;
      },
      &call);
  size_t taken = 0;
  for (const Found &one : found) {
    if (!one.is_sound || has_[one.entry.tensor]) continue;
    ++taken;
    has_[one.entry.tensor] = true;
    checksums_.set(one.entry.tensor, one.entry.checksum);
    writer_.mark_written(one.entry.tensor, plan_.layout.places[one.entry.tensor].bytes);
  }
  context_.log(CHORUS_LOG_INFO, fmt::format("{}: {} of {} tensors are there already", writer_.folder(), taken, plan_.jobs.size()));
}

void ModelOutput::written(size_t job, uint64_t end) { waiting_.push_back({job, end}); }

size_t ModelOutput::take_work() {
  taken_ = std::exchange(waiting_, {});
  return taken_.size();
}

void ModelOutput::note_work() {
  std::vector<Journal::Entry> finished;
  for (const Range &range : taken_) {
    if (range.end == plan_.layout.places[range.job].bytes) finished.push_back({range.job, checksums_.value(range.job)});
  }
  journal_->add(finished);
}

void ModelOutput::finish() {
  writer_.add_side_file({kManifestName, "", manifest_text(plan_, checksums_)});
  writer_.finish();
}

}  // namespace chorus::merge
