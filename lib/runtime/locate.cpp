// SPDX-License-Identifier: Apache-2.0
// Paths: what exists is taken as it is; else the Hugging Face cache, whose snapshots are folders of links into blobs/.
#include "runtime/locate.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "runtime/error.h"
#include "runtime/utf8.h"

namespace chorus {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxReferenceBytes = 256;

std::string variable(const char *name) {
  const char *value = secure_getenv(name);
  return value != nullptr ? value : "";
}

// Where huggingface_hub keeps models, by its own rules.
std::string hub_cache() {
  if (const std::string cache = variable("HF_HUB_CACHE"); !cache.empty()) return cache;
  if (const std::string home = variable("HF_HOME"); !home.empty()) return home + "/hub";
  if (const std::string cache = variable("XDG_CACHE_HOME"); !cache.empty()) return cache + "/huggingface/hub";
  if (const std::string home = variable("HOME"); !home.empty()) return home + "/.cache/huggingface/hub";
  return "";
}

bool is_hub_word(std::string_view word) {
  return !word.empty() && word.size() <= 96 && word.find("..") == std::string_view::npos &&
         word.find("--") == std::string_view::npos && std::ranges::all_of(word, [](unsigned char c) {
           return std::isalnum(c) != 0 || c == '-' || c == '_' || c == '.';
         });
}

// A revision may hold slashes ("refs/pr/1") but not leave its folder.
bool is_revision(std::string_view revision) {
  while (true) {
    const size_t slash = revision.find('/');
    if (!is_hub_word(revision.substr(0, slash)) || revision.front() == '.') return false;
    if (slash == std::string_view::npos) return true;
    revision.remove_prefix(slash + 1);
  }
}

struct HubName {
  std::string repository;  // models--org--name
  std::string revision;
};

bool parse_hub_name(std::string_view path, HubName *out) {
  const size_t at = path.find('@');
  const std::string_view name = path.substr(0, at);
  const std::string_view revision = at == std::string_view::npos ? "main" : path.substr(at + 1);
  const size_t slash = name.find('/');
  if (!is_hub_word(name.substr(0, slash)) || !is_revision(revision)) return false;
  out->repository = fmt::format("models--{}", name.substr(0, slash));
  if (slash != std::string_view::npos) {
    if (!is_hub_word(name.substr(slash + 1))) return false;
    out->repository += fmt::format("--{}", name.substr(slash + 1));
  }
  out->revision = revision;
  return true;
}

bool exists(const std::string &path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

std::string commit_of(const std::string &repository, const std::string &revision) {
  const std::string reference = repository + "/refs/" + revision;
  if (!exists(reference)) return revision;  // a commit itself
  std::string commit = read_text(reference, kMaxReferenceBytes);
  while (!commit.empty() && std::isspace(static_cast<unsigned char>(commit.back())) != 0) commit.pop_back();
  if (!is_hub_word(commit)) fail(CHORUS_DATA_LOSS, "{} does not hold the name of a commit", reference);
  return commit;
}

bool is_below(const std::string &path, const std::string &root) {
  return root == "/" || (path.size() > root.size() && path.starts_with(root) && path[root.size()] == '/');
}

// Where an open file really lies, links followed; asked of the system after opening, so that nothing changes between.
std::string real_path(const File &file) {
  std::error_code error;
  fs::path real = fs::read_symlink(fmt::format("/proc/self/fd/{}", file.descriptor()), error);
  if (error) real = fs::canonical(file.path(), error);
  if (error) fail(CHORUS_UNAVAILABLE, "resolving {}: {}", file.path(), error.message());
  return real;
}

void check_shard_name(const std::string &name, const std::string &folder) {
  const auto refuse = [&](const char *why) {
    fail(CHORUS_PERMISSION_DENIED, "{}: the index names the file '{}', which {}; plain relative names are allowed", folder,
         shown(name), why);
  };
  if (name.empty()) refuse("is empty");
  if (name.find('\0') != std::string::npos) refuse("holds a 0 byte");
  if (name.front() == '/') refuse("is absolute");
  for (std::string_view rest = name;;) {
    const std::string_view part = rest.substr(0, rest.find('/'));
    if (part == "..") refuse("leaves the folder by '..'");
    if (part.empty() || part == ".") refuse("has an empty part");
    if (part.size() == rest.size()) break;
    rest.remove_prefix(part.size() + 1);
  }
}

}  // namespace

std::string locate(const std::string &path) {
  if (path.empty()) fail(CHORUS_INVALID_ARGUMENT, "path is empty");
  if (exists(path)) return path;
  HubName hub;
  if (!parse_hub_name(path, &hub)) fail(CHORUS_NOT_FOUND, "{} does not exist", path);
  const std::string cache = hub_cache();
  if (cache.empty()) fail(CHORUS_NOT_FOUND, "{} does not exist, and HOME and HF_HOME are not set", path);
  const std::string repository = cache + "/" + hub.repository;
  if (!exists(repository)) {
    fail(CHORUS_NOT_FOUND, "{} does not exist, neither as a path nor in the Hugging Face cache as {}. Nothing is downloaded "
         "here: fetch it with its own program first", path, repository);
  }
  const std::string snapshot = repository + "/snapshots/" + commit_of(repository, hub.revision);
  if (!exists(snapshot)) {
    fail(CHORUS_NOT_FOUND, "{}: {} is in the cache but revision '{}' is not ({} is missing)", path, repository, hub.revision,
         snapshot);
  }
  return snapshot;
}

void refuse_pickle(std::string_view path) {
  for (const std::string_view end : {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".bin.index.json"}) {
    if (!path.ends_with(end)) continue;
    fail(CHORUS_PERMISSION_DENIED, "{} is a pickle by its name: reading one can run any program. Convert it to safetensors first "
         "(load it with weights_only=True and save it with safetensors.torch.save_file)", path);
  }
}

Roots::Roots(const std::string &folder, const std::string &anchor) : folder_(folder) {
  std::error_code error;
  const fs::path real = fs::canonical(folder, error);
  if (error) fail(CHORUS_NOT_FOUND, "resolving {}: {}", folder, error.message());
  roots_.push_back(real);
  const fs::path real_anchor = fs::canonical(anchor, error);
  if (!error && real_anchor.parent_path() != real) roots_.push_back(real_anchor.parent_path());
}

File Roots::open(const std::string &name) const {
  check_shard_name(name, folder_);
  refuse_pickle(name);
  File file = open_for_reading(folder_ + "/" + name);
  const std::string real = real_path(file);
  if (std::ranges::none_of(roots_, [&](const std::string &root) { return is_below(real, root); })) {
    fail(CHORUS_PERMISSION_DENIED, "{} is a link to {}, outside of {}; put the file itself there, or open that folder",
         file.path(), real, fmt::join(roots_, " and "));
  }
  return file;
}

}  // namespace chorus
