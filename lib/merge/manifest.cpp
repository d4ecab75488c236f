// SPDX-License-Identifier: Apache-2.0
// Fingerprints of files are XXH3-64 of their size, their first 64 KiB and 16 blocks of 64 KiB spread evenly: they tell files
// apart without reading all of them, and prove nothing against somebody who wants to deceive.
#include "merge/manifest.h"

#include <filesystem>
#include <nlohmann/json.hpp>

#include "chorus/base.h"

namespace chorus::merge {
namespace {

using Json = nlohmann::ordered_json;

constexpr uint64_t kSample = uint64_t{64} << 10, kSamples = 16;

uint64_t fingerprint(const File &file) {
  const uint64_t bytes = size_of(file);
  std::string seen = std::to_string(bytes);
  std::string block;
  const auto look = [&](uint64_t from) {
    block.resize(std::min(kSample, bytes - from));
    read_exactly(file, block.data(), block.size(), from);
    seen += block;
  };
  look(0);
  for (uint64_t i = 0; i < kSamples && bytes > kSample; ++i) look((bytes - kSample) / kSamples * (i + 1));
  return XXH3_64bits(seen.data(), seen.size());
}

std::string file_name(const File &file) { return std::filesystem::path(file.path()).filename().string(); }

Json input_of(const InputModel &input) {
  Json out = {{"name", input.reference.text()}};
  if (input.model == nullptr) {
    out["absent"] = true;
    return out;
  }
  out["folder"] = input.model->folder();
  out["files"] = Json::array();
  for (const File &file : input.model->files()) {
    out["files"].push_back({{"name", file_name(file)}, {"bytes", size_of(file)}, {"fingerprint", hash_text(fingerprint(file))}});
  }
  return out;
}

}  // namespace

std::string plan_fingerprint(const Plan &plan) {
  std::string all = fmt::format("{}\n{}\n{}\n{}\n{}\n", chorus_version(), fmt::join(plan.kernels.names(), " "), plan.settings.numerics,
                                plan.settings.seed, plan.recipe.text);
  for (const checkpoint::Shard &shard : plan.layout.shards) all += shard.name + shard.header;
  for (const InputModel &input : plan.inputs) {
    all += input.reference.text() + "\n";
    if (input.model == nullptr) continue;
    for (const File &file : input.model->files()) {
      struct stat info = {};
      if (file_table().fstat(file.descriptor(), &info) != 0) fail(CHORUS_UNAVAILABLE, "looking at {} failed", file.path());
      all += fmt::format("{} {} {}.{} {:x}\n", file.path(), info.st_size, info.st_mtim.tv_sec, info.st_mtim.tv_nsec, fingerprint(file));
    }
  }
  const XXH128_hash_t hash = XXH3_128bits(all.data(), all.size());
  return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
}

std::string manifest_text(const Plan &plan, const Checksums &checksums) {
  Json out;
  out["format"] = "chorus-manifest-1";
  out["chorus"] = chorus_version();
  out["command"] = plan.settings.command.empty() ? Json() : Json(plan.settings.command);
  out["method"] = plan.recipe.method->name;
  out["seed"] = plan.settings.seed;
  out["numerics"] = plan.settings.numerics == CHORUS_NUMERICS_MERGEKIT ? "mergekit" : "accurate";
  out["kernels"] = plan.kernels.names();
  out["recipe"] = plan.recipe.text;
  out["inputs"] = Json::array();
  for (const InputModel &input : plan.inputs) out["inputs"].push_back(input_of(input));
  out["files"] = Json::array();
  for (const checkpoint::Shard &shard : plan.layout.shards) out["files"].push_back({{"name", shard.name}, {"bytes", shard.bytes}});
  out["checksum"] = "xxh3-64";
  out["tensors"] = Json::object();
  for (size_t j = 0; j < plan.jobs.size(); ++j) {
    const Job &job = plan.jobs[j];
    out["tensors"][job.name] = {{"dtype", job.type->name},
                                {"shape", job.shape},
                                {"file", plan.layout.shards[plan.layout.places[j].shard].name},
                                {"bytes", job.bytes()},
                                {"xxh3", hash_text(checksums.value(j))}};
  }
  return out.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace chorus::merge
