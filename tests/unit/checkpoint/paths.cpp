// SPDX-License-Identifier: Apache-2.0
// What a path may name: folders, files, indexes, the Hugging Face cache; and shard names that try to leave.
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "unit/checkpoint/support.h"

using unit::contains;
using unit::small_file;
using unit::TemporaryFolder;
using unit::try_open;
using unit::write_file;

namespace fs = std::filesystem;

namespace {

std::string index_of(const std::string &map) { return R"({"metadata":{"total_size":8},"weight_map":{)" + map + "}}"; }

// A model of one shard called `name` in a folder of its own below `folder`.
unit::Opening open_with_shard(const TemporaryFolder &folder, const std::string &json_name) {
  write_file(folder / "m/model.safetensors.index.json", index_of("\"w\":\"" + json_name + "\""));
  return try_open(folder / "m");
}

// org/name in a cache as huggingface_hub lays it out; returns the folder of the snapshot.
std::string make_cache(const std::string &hub, const std::string &repository, const std::string &commit) {
  const std::string base = hub + "/" + repository, snapshot = base + "/snapshots/" + commit;
  fs::create_directories(snapshot);
  fs::create_directories(base + "/blobs");
  fs::create_directories(base + "/refs");
  write_file(base + "/blobs/aaaa", small_file());
  write_file(base + "/blobs/bbbb", R"({"hidden_size": 3})");
  write_file(base + "/refs/main", commit);
  fs::create_symlink("../../blobs/aaaa", snapshot + "/model.safetensors");
  fs::create_symlink("../../blobs/bbbb", snapshot + "/config.json");
  return snapshot;
}

}  // namespace

Test(paths, a_folder_a_file_and_an_index_open) {
  const TemporaryFolder folder;
  fs::create_directories(folder / "single");
  fs::create_directories(folder / "other/sub");
  write_file(folder / "single/model.safetensors", small_file());
  write_file(folder / "other/sub/x.safetensors", small_file());
  write_file(folder / "other/model.safetensors.index.json", index_of(R"("w":"sub/x.safetensors")"));
  write_file(folder / "lone.safetensors", small_file());
  for (const char *path : {"single", "single/", "single/model.safetensors", "other", "other/model.safetensors.index.json",
                           "other/sub", "lone.safetensors", "."}) {
    const chorus::Checkpoint checkpoint(unit::context(), folder / path);
    cr_expect_eq(checkpoint.tensor_count(), 1u, "%s", path);
    cr_expect_eq(checkpoint.file_count(), 1u, "%s", path);
    cr_expect_eq(checkpoint.find("w"), 0u);
  }
}

Test(paths, what_is_not_there_is_said) {
  const TemporaryFolder folder;
  fs::create_directories(folder / "empty");
  fs::create_directories(folder / "two");
  write_file(folder / "two/a.safetensors", small_file());
  write_file(folder / "two/b.safetensors", small_file());
  const struct {
    const char *path;
    chorus_status status;
    const char *says;
  } cases[] = {{"missing", CHORUS_NOT_FOUND, "does not exist"},
               {"empty", CHORUS_NOT_FOUND, "neither model.safetensors nor model.safetensors.index.json"},
               {"two", CHORUS_NOT_FOUND, "nor exactly one other"}};
  for (const auto &c : cases) {
    const unit::Opening opening = try_open(folder / c.path);
    cr_expect_eq(opening.status, c.status, "%s: %s", c.path, opening.text.c_str());
    cr_expect(contains(opening.text, c.says), "%s: %s", c.path, opening.text.c_str());
  }
  cr_expect_eq(try_open("").status, CHORUS_INVALID_ARGUMENT);
}

Test(paths, pickles_are_refused_by_name_with_advice) {
  const TemporaryFolder folder;
  fs::create_directories(folder / "torch");
  write_file(folder / "torch/pytorch_model.bin", "x");
  for (const char *name : {"a.bin", "a.pt", "a.pth", "a.ckpt", "a.pkl"}) {
    write_file(folder / name, "x");
    const unit::Opening opening = try_open(folder / name);
    cr_expect_eq(opening.status, CHORUS_PERMISSION_DENIED, "%s", name);
    cr_expect(contains(opening.text, "Convert it to safetensors"), "%s", opening.text.c_str());
  }
  cr_expect_eq(try_open(folder / "torch").status, CHORUS_PERMISSION_DENIED);
  write_file(folder / "a.gguf", "x");
  cr_expect_eq(try_open(folder / "a.gguf").status, CHORUS_UNIMPLEMENTED);
}

Test(paths, devices_fifos_folders_and_loops_are_refused_at_once) {
  const TemporaryFolder folder;
  cr_assert_eq(mkfifo((folder / "fifo.safetensors").c_str(), 0600), 0);
  fs::create_symlink("loop.safetensors", folder / "loop.safetensors");
  fs::create_symlink("/dev/zero", folder / "zero.safetensors");
  fs::create_directories(folder / "folder.safetensors.d");
  cr_expect_eq(try_open(folder / "fifo.safetensors").status, CHORUS_INVALID_ARGUMENT);
  cr_expect_eq(try_open(folder / "zero.safetensors").status, CHORUS_INVALID_ARGUMENT);
  cr_expect_eq(try_open("/dev/zero").status, CHORUS_INVALID_ARGUMENT);
  cr_expect_neq(try_open(folder / "loop.safetensors").status, CHORUS_OK);
}

Test(paths, shard_names_that_leave_the_folder_are_refused) {
  const TemporaryFolder folder;
  fs::create_directories(folder / "m/sub");
  fs::create_directories(folder / "m.evil");
  write_file(folder / "out.safetensors", small_file());
  write_file(folder / "m.evil/x.safetensors", small_file());
  write_file(folder / "m/in.safetensors", small_file());
  fs::create_symlink("../out.safetensors", folder / "m/link.safetensors");
  fs::create_symlink("..", folder / "m/up");
  fs::create_symlink("../m.evil", folder / "m/sibling");
  fs::create_symlink("self.safetensors", folder / "m/self.safetensors");
  fs::create_symlink("in.safetensors", folder / "m/inner.safetensors");
  fs::create_symlink("/dev/zero", folder / "m/zero.safetensors");
  cr_assert_eq(mkfifo((folder / "m/fifo.safetensors").c_str(), 0600), 0);
  for (const char *name : {"../out.safetensors", "sub/../../out.safetensors", "..", ".", "", "sub/", "/etc/passwd", "//etc/passwd",
                           "./in.safetensors", "sub//x", "sub/./x", "up/out.safetensors", "link.safetensors",
                           "sibling/x.safetensors", "in.safetensors\\u0000", "\\u0000", "x.bin", "in.pt", "../m/in.safetensors",
                           "sub/..", "up", "\\u002e\\u002e/out.safetensors"}) {
    const unit::Opening opening = open_with_shard(folder, name);
    cr_expect(opening.status == CHORUS_PERMISSION_DENIED || (std::string(name) == "up" && opening.status != CHORUS_OK), "%s: %s",
              name, opening.text.c_str());
  }
  const std::string absolute = folder / "out.safetensors";
  cr_expect_eq(open_with_shard(folder, absolute).status, CHORUS_PERMISSION_DENIED);
  for (const char *name : {"self.safetensors", "zero.safetensors", "fifo.safetensors", "sub", "missing.safetensors", "IN.safetensors"}) {
    cr_expect_neq(open_with_shard(folder, name).status, CHORUS_OK, "%s", name);
  }
  for (const char *name : {"in.safetensors", "inner.safetensors"}) {
    cr_expect_eq(open_with_shard(folder, name).status, CHORUS_OK, "%s: %s", name, open_with_shard(folder, name).text.c_str());
  }
  fs::create_hard_link(folder / "out.safetensors", folder / "m/hard.safetensors");  // a file like any other
  cr_expect_eq(open_with_shard(folder, "hard.safetensors").status, CHORUS_OK);
}

Test(paths, a_config_that_leaves_the_folder_is_refused) {
  const TemporaryFolder folder;
  fs::create_directories(folder / "m");
  write_file(folder / "m/model.safetensors", small_file());
  write_file(folder / "secret", "{}");
  fs::create_symlink("../secret", folder / "m/config.json");
  cr_expect_eq(try_open(folder / "m").status, CHORUS_PERMISSION_DENIED);
}

Test(paths, hostile_indexes_are_refused_with_the_file) {
  const TemporaryFolder folder;
  fs::create_directories(folder / "m");
  write_file(folder / "m/a.safetensors", small_file());
  const std::string deep = R"({"x":)" + std::string(100000, '[') + std::string(100000, ']') + "}";
  const struct {
    std::string text;
    const char *says;
  } cases[] = {
      {"", "not JSON"},
      {"{", "not JSON"},
      {"[]", "an object is needed"},
      {"{}", "no object weight_map"},
      {R"({"weight_map":[]})", "weight_map is no object"},
      {R"({"weight_map":{"w":1}})", "tensor 'w' has no file name"},
      {R"({"weight_map":{"w":{}}})", "tensor 'w' has no file name"},
      {R"({"weight_map":{"w":"a.safetensors","w":"a.safetensors"}})", "tensor 'w' stands there twice"},
      {R"({"weight_map":{"w":"a.safetensors"},"weight_map":{}})", "stands there twice"},
      {R"({"weight_map":{"v":"a.safetensors"}})", "tensor 'v' should be in"},
      {deep, "nested deeper than 64"},
      {"{\"weight_map\":{\"\xff\":\"a\"}}", "not JSON"},
  };
  for (const auto &c : cases) {
    write_file(folder / "m/model.safetensors.index.json", c.text);
    const unit::Opening opening = try_open(folder / "m");
    cr_expect_eq(opening.status, CHORUS_DATA_LOSS, "%.60s: %s", c.text.c_str(), opening.text.c_str());
    cr_expect(contains(opening.text, c.says), "%.60s: %s", c.text.c_str(), opening.text.c_str());
    cr_expect(contains(opening.text, "model.safetensors.index.json"), "%s", opening.text.c_str());
  }
}

Test(paths, tensors_are_those_of_the_index_in_the_order_of_the_disk) {
  const TemporaryFolder folder;
  const std::string two = R"({"b":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"a":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}})";
  write_file(folder / "1.safetensors", unit::safetensors(two, 3));
  write_file(folder / "2.safetensors", unit::safetensors(two, 3));
  write_file(folder / "model.safetensors.index.json", index_of(R"("a":"2.safetensors","b":"1.safetensors")"));
  const chorus::Checkpoint checkpoint(unit::context(), folder.path().string());
  cr_assert_eq(checkpoint.tensor_count(), 2u);
  cr_expect_str_eq(checkpoint.tensor(0).name, "b");
  cr_expect(checkpoint.tensor(0).file == folder / "1.safetensors");
  cr_expect_str_eq(checkpoint.tensor(1).name, "a");
  cr_expect(checkpoint.tensor(1).file == folder / "2.safetensors");
}

Test(paths, the_hugging_face_cache_is_found_by_each_of_its_variables) {
  const TemporaryFolder folder;
  const std::string commit = "0123456789abcdef0123456789abcdef01234567";
  const struct {
    const char *variable, *value, *hub;
  } cases[] = {{"HF_HUB_CACHE", "hub1", "hub1"}, {"HF_HOME", "home", "home/hub"}, {"XDG_CACHE_HOME", "xdg", "xdg/huggingface/hub"},
               {"HOME", "user", "user/.cache/huggingface/hub"}};
  for (const auto &c : cases) {
    for (const char *name : {"HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "HOME"}) unsetenv(name);
    const std::string snapshot = make_cache(folder / c.hub, "models--org--name", commit);
    setenv(c.variable, (folder / c.value).c_str(), 1);
    for (const std::string &path : {std::string("org/name"), std::string("org/name@main"), "org/name@" + commit}) {
      const unit::Opening opening = try_open(path);
      cr_expect_eq(opening.status, CHORUS_OK, "%s by %s: %s", path.c_str(), c.variable, opening.text.c_str());
    }
    const chorus::Checkpoint checkpoint(unit::context(), "org/name");
    cr_expect(checkpoint.folder() == snapshot);
    cr_expect_eq(checkpoint.config_number("hidden_size"), 3);
  }
  for (const char *name : {"HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "HOME"}) unsetenv(name);
  cr_expect_eq(try_open("org/name").status, CHORUS_NOT_FOUND);
}

Test(paths, sharded_snapshots_of_links_open_and_other_revisions_are_told_apart) {
  const TemporaryFolder folder;
  setenv("HF_HUB_CACHE", (folder / "hub").c_str(), 1);
  const std::string snapshot = make_cache(folder / "hub", "models--org--name", "c0ffee");
  const std::string base = folder / "hub/models--org--name";
  fs::create_directories(base + "/refs/refs/pr");
  write_file(base + "/refs/refs/pr/1", "c0ffee\n");
  write_file(base + "/refs/gone", "deadbeef");
  write_file(base + "/refs/evil", "../../..");
  fs::remove(snapshot + "/model.safetensors");
  write_file(base + "/blobs/cccc", index_of(R"("w":"model-00001-of-00001.safetensors")"));
  fs::create_symlink("../../blobs/cccc", snapshot + "/model.safetensors.index.json");
  fs::create_symlink("../../blobs/aaaa", snapshot + "/model-00001-of-00001.safetensors");
  cr_expect_eq(try_open("org/name").status, CHORUS_OK, "%s", try_open("org/name").text.c_str());
  cr_expect_eq(try_open("org/name@refs/pr/1").status, CHORUS_OK);
  cr_expect_eq(try_open(snapshot).status, CHORUS_OK);
  cr_expect(contains(try_open("org/name@gone").text, "revision 'gone' is not"));
  cr_expect_eq(try_open("org/name@evil").status, CHORUS_DATA_LOSS);
  cr_expect(contains(try_open("org/other").text, "models--org--other"));
  for (const char *path : {"org/name@../x", "org/../name", "org/na--me", "a/b/c", "org/name@", "org/name@a//b", "@main", "org/na me"}) {
    cr_expect_eq(try_open(path).status, CHORUS_NOT_FOUND, "%s", path);
  }
}
