// SPDX-License-Identifier: Apache-2.0
// Writing: bytes equal to the Python library's, shards and their index, files beside them, and what leaves nothing behind.
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "unit/checkpoint/support.h"

using unit::contains;
using unit::read_file;
using unit::TemporaryFolder;
using unit::write_file;

namespace fs = std::filesystem;

namespace {

std::vector<uint8_t> pattern(uint64_t bytes) {
  std::vector<uint8_t> out(bytes);
  for (size_t i = 0; i < bytes; ++i) out[i] = static_cast<uint8_t>(31 * i + 7);
  return out;
}

struct Declared {
  std::string name;
  chorus_dtype dtype;
  std::vector<int64_t> shape;
  uint64_t bytes() const {
    uint64_t bits = dtype >> 8;
    for (const int64_t size : shape) bits *= static_cast<uint64_t>(size);
    return bits / 8;
  }
};

void write_all(chorus::CheckpointWriter *writer, const std::vector<Declared> &tensors) {
  for (size_t i = tensors.size(); i-- > 0;) {  // any order
    const auto bytes = pattern(tensors[i].bytes());
    const uint64_t half = bytes.size() / 2;
    writer->write_bytes(i, half, bytes.size() - half, bytes.data() + half);
    writer->write_bytes(i, 0, half, bytes.data());
  }
}

void write_model(const std::string &folder, const std::vector<Declared> &tensors, chorus::CheckpointWriterSpec *spec) {
  for (const Declared &t : tensors) spec->add_tensor(t.name, t.dtype, t.shape);
  chorus::CheckpointWriter writer(unit::context(), *spec, folder);
  write_all(&writer, tensors);
  writer.finish();
}

std::vector<std::string> names_in(const std::string &folder) {
  std::vector<std::string> out;
  for (const auto &entry : fs::directory_iterator(folder)) out.push_back(entry.path().filename());
  std::ranges::sort(out);
  return out;
}

const std::vector<Declared> kThree = {{"a", CHORUS_F32, {3}}, {"b", CHORUS_BF16, {2, 2}}, {"c", CHORUS_F32, {1}}};

}  // namespace

Test(write, bytes_are_those_of_the_python_library) {
  const TemporaryFolder folder;
  const std::vector<Declared> all = {
      {"bool", CHORUS_BOOL, {2, 3}}, {"uint8", CHORUS_U8, {2, 3}}, {"int8", CHORUS_I8, {2, 3}},
      {"float8_e5m2", CHORUS_F8_E5M2, {2, 3}}, {"float8_e4m3fn", CHORUS_F8_E4M3FN, {2, 3}},
      {"float8_e8m0fnu", CHORUS_F8_E8M0FNU, {2, 3}}, {"int16", CHORUS_I16, {2, 3}}, {"uint16", CHORUS_U16, {2, 3}},
      {"float16", CHORUS_F16, {2, 3}}, {"bfloat16", CHORUS_BF16, {2, 3}}, {"int32", CHORUS_I32, {2, 3}},
      {"uint32", CHORUS_U32, {2, 3}}, {"float32", CHORUS_F32, {2, 3}}, {"complex64", 0x4005u, {2, 3}},
      {"float64", CHORUS_F64, {2, 3}}, {"int64", CHORUS_I64, {2, 3}}, {"uint64", CHORUS_U64, {2, 3}}};
  const std::vector<Declared> odd = {{"a \"quoted\" name\n\t\\ é 日本 \x01\x7f", CHORUS_F32, {}},
                                     {"zero", CHORUS_F32, {4, 0, 2}}, {"one", CHORUS_BF16, std::vector<int64_t>(9, 1)}};
  const std::string vectors = std::string(CHORUS_SOURCE_DIR) + "/tests/vectors/checkpoints/";
  chorus::CheckpointWriterSpec all_spec, odd_spec, empty_spec;
  write_model(folder / "all", all, &all_spec);
  write_model(folder / "odd", odd, &odd_spec.set_metadata("format", nullptr).set_metadata("k", "v\"\n"));
  write_model(folder / "empty", {}, &empty_spec.set_metadata("format", nullptr));
  cr_expect(read_file(folder / "all/model.safetensors") == read_file(vectors + "all_types.safetensors"));
  cr_expect(read_file(folder / "odd/model.safetensors") == read_file(vectors + "odd_names.safetensors"));
  cr_expect(read_file(folder / "empty/model.safetensors") == read_file(vectors + "empty.safetensors"));
}

Test(write, shards_split_in_the_declared_order_and_the_index_finds_all) {
  const TemporaryFolder folder;
  std::vector<Declared> tensors;
  for (int i = 0; i < 10; ++i) tensors.push_back({"t" + std::to_string(9 - i), i % 2 != 0 ? CHORUS_U8 : CHORUS_F32, {i, 5}});
  tensors.push_back({"large", CHORUS_F32, {100}});
  tensors.push_back({"last", CHORUS_F32, {1}});
  chorus::CheckpointWriterSpec spec;
  write_model(folder / "m", tensors, &spec.set_max_shard_bytes(300));
  const auto index = nlohmann::json::parse(read_file(folder / "m/model.safetensors.index.json"));
  const chorus::Checkpoint checkpoint(unit::context(), folder / "m");
  cr_assert_eq(checkpoint.tensor_count(), tensors.size());
  cr_expect_eq(index["weight_map"].size(), tensors.size());
  const std::string count = std::to_string(checkpoint.file_count());
  uint64_t total = 0;
  for (const Declared &t : tensors) {
    const chorus_tensor_info info = checkpoint.tensor(checkpoint.find(t.name));
    std::vector<uint8_t> bytes(info.size_bytes);
    checkpoint.read_bytes(checkpoint.find(t.name), 0, bytes.size(), bytes.data());
    cr_expect(bytes == pattern(t.bytes()), "%s", t.name.c_str());
    cr_expect(std::string(info.file).ends_with(index["weight_map"][t.name].get<std::string>()));
    cr_expect(info.file_offset % (t.dtype >> 11) == 0, "%s is aligned", t.name.c_str());
    total += t.bytes();
  }
  cr_expect_eq(index["metadata"]["total_size"].get<uint64_t>(), total);
  for (size_t i = 0; i < checkpoint.file_count(); ++i) {
    const std::string file = chorus_checkpoint_get_file(checkpoint.get(), i);
    cr_expect(contains(file, "-of-0000" + count + ".safetensors"), "%s", file.c_str());
  }
  cr_expect_eq(names_in(folder / "m").size(), checkpoint.file_count() + 1);
}

Test(write, tensors_are_converted_and_files_put_beside_them) {
  const TemporaryFolder folder;
  const std::string big(3'000'001, 'x');
  write_file(folder / "tokenizer.json", big);
  const std::vector<double> values = {1.5, -2.25, 1e300};
  const std::vector<float> same = {1, 2, 3};
  chorus::CheckpointWriterSpec spec;
  spec.add_tensor("converted", CHORUS_BF16, {3});
  spec.add_tensor("same", CHORUS_F32, {3});
  spec.add_file("tokenizer.json", folder / "tokenizer.json").add_text("config.json", "{}").add_text("empty", "");
  chorus::CheckpointWriter writer(unit::context(), spec, folder / "deep/er/m");
  writer.write(0, chorus::Tensor(values.data(), {3}));
  writer.write(1, chorus::Tensor(same.data(), {3}));
  EXPECT_FAILS(writer.write(0, chorus::Tensor(same.data(), {2})), CHORUS_INVALID_ARGUMENT, "that of tensor 'converted': [3]");
  EXPECT_FAILS(writer.write(2, chorus::Tensor(same.data(), {3})), CHORUS_OUT_OF_RANGE, "index");
  cr_expect(names_in(folder / "deep/er") == std::vector<std::string>({".m.partial"}), "until it is whole there is no model");
  writer.finish();
  EXPECT_FAILS(writer.finish(), CHORUS_FAILED_PRECONDITION, "has finished already");
  EXPECT_FAILS(writer.write_bytes(0, 0, 0, nullptr), CHORUS_FAILED_PRECONDITION, "has finished");
  cr_expect(names_in(folder / "deep/er/m") ==
            std::vector<std::string>({"config.json", "empty", "model.safetensors", "tokenizer.json"}));
  cr_expect(read_file(folder / "deep/er/m/tokenizer.json") == big);
  const chorus::Checkpoint checkpoint(unit::context(), folder / "deep/er/m");
  std::vector<float> back(3);
  checkpoint.read(checkpoint.find("converted"), chorus::Tensor(back.data(), {3}));
  cr_expect(back[0] == 1.5f && back[1] == -2.25f && back[2] > 3e38f);
  checkpoint.read(checkpoint.find("same"), chorus::Tensor(back.data(), {3}));
  cr_expect(back == same);
}

Test(write, abandoned_it_leaves_nothing) {
  const TemporaryFolder folder;
  {
    chorus::CheckpointWriterSpec spec;
    spec.add_text("config.json", "{}").set_max_shard_bytes(1);
    for (const Declared &t : kThree) spec.add_tensor(t.name, t.dtype, t.shape);
    chorus::CheckpointWriter writer(unit::context(), spec, folder / "x/y/m");
    cr_expect_eq(names_in(folder / "x/y/.m.partial").size(), 3u);
    EXPECT_FAILS(writer.finish(), CHORUS_FAILED_PRECONDITION, "tensor 0 ('a'): 0 of 12 bytes were written");
  }
  cr_expect(names_in(folder.path().string()).empty());
}

Test(write, a_folder_that_is_not_empty_is_refused_unless_it_may_be_replaced) {
  const TemporaryFolder folder;
  chorus::CheckpointWriterSpec one, sharded, refused, single;
  write_model(folder / "m", kThree, &one);
  write_file(folder / "m/notes.txt", "mine");
  EXPECT_FAILS(write_model(folder / "m", kThree, &refused), CHORUS_ALREADY_EXISTS, "is not empty");
  write_model(folder / "m", kThree, &sharded.set_replace(true).set_max_shard_bytes(1));
  cr_expect(names_in(folder / "m") ==
            std::vector<std::string>({"model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors",
                                      "model-00003-of-00003.safetensors", "model.safetensors.index.json", "notes.txt"}));
  cr_expect_eq(chorus::Checkpoint(unit::context(), folder / "m").tensor_count(), 3u);
  write_model(folder / "m", kThree, &single.set_replace(true));
  cr_expect(names_in(folder / "m") == std::vector<std::string>({"model.safetensors", "notes.txt"}));
  // With a folder in it, files move one by one.
  fs::create_directory(folder / "m/logs");
  chorus::CheckpointWriterSpec again;
  write_model(folder / "m", kThree, &again.set_replace(true).set_max_shard_bytes(1));
  cr_expect_eq(names_in(folder / "m").size(), 6u);
  cr_expect(!fs::exists(folder / "m/model.safetensors") && fs::exists(folder / "m/logs"));
  cr_expect_eq(chorus::Checkpoint(unit::context(), folder / "m").tensor_count(), 3u);
  cr_expect(names_in(folder.path().string()) == std::vector<std::string>({"m"}));
}

Test(write, the_working_directory_and_links_are_written_to) {
  const TemporaryFolder folder;
  fs::create_directory(folder / "here");
  fs::create_directory_symlink(folder / "here", folder / "link");
  fs::create_symlink(folder / "nowhere", folder / "broken");
  chorus::CheckpointWriterSpec first, second, third;
  fs::current_path(folder / "here");
  write_model(".", kThree, &first);
  fs::current_path("/");
  cr_expect(names_in(folder / "here") == std::vector<std::string>({"model.safetensors"}));
  write_model(folder / "link/", kThree, &second.set_replace(true));
  cr_expect(fs::is_symlink(folder / "link") && fs::exists(folder / "here/model.safetensors"));
  EXPECT_FAILS(write_model(folder / "broken", kThree, &third), CHORUS_INVALID_ARGUMENT, "a link to what is not there");
}

Test(write, partial_files_of_a_killed_run_do_not_stand_in_the_way) {
  const TemporaryFolder folder;
  fs::create_directory(folder / ".m.partial");
  write_file(folder / ".m.partial/model-00001-of-00009.safetensors", "old");
  write_file(folder / ".m.partial/.journal", "old");
  chorus::CheckpointWriterSpec spec;
  write_model(folder / "m", kThree, &spec);
  cr_expect(names_in(folder.path().string()) == std::vector<std::string>({"m"}));
  cr_expect(names_in(folder / "m") == std::vector<std::string>({"model.safetensors"}));
}

Test(write, two_writers_do_not_share_a_folder) {
  const TemporaryFolder folder;
  chorus::CheckpointWriterSpec spec;
  spec.add_tensor("a", CHORUS_F32, {0});
  chorus::CheckpointWriter first(unit::context(), spec, folder / "m");
  EXPECT_FAILS(chorus::CheckpointWriter(unit::context(), spec, folder / "m"), CHORUS_ABORTED, "another writer works on");
  first.finish();
  cr_expect_eq(chorus::Checkpoint(unit::context(), folder / "m").tensor_count(), 1u);
}

Test(write, wrong_declarations_are_named) {
  const TemporaryFolder folder;
  chorus::CheckpointWriterSpec spec;
  spec.add_tensor("w", CHORUS_F32, {2});
  EXPECT_FAILS(spec.add_tensor("w", CHORUS_F32, {2}), CHORUS_ALREADY_EXISTS, "'w' is declared already");
  EXPECT_FAILS(spec.add_tensor("", CHORUS_F32, {2}), CHORUS_INVALID_ARGUMENT, "name is ''");
  EXPECT_FAILS(spec.add_tensor("__metadata__", CHORUS_F32, {2}), CHORUS_INVALID_ARGUMENT, "neither empty nor");
  EXPECT_FAILS(spec.add_tensor("\xff", CHORUS_F32, {2}), CHORUS_INVALID_ARGUMENT, "not UTF-8 from its byte 0");
  EXPECT_FAILS(spec.add_tensor("x", CHORUS_F32, {-1}), CHORUS_INVALID_ARGUMENT, "sizes are 0 or more");
  EXPECT_FAILS(spec.add_tensor("x", CHORUS_F32, {int64_t{1} << 62, 4}), CHORUS_INVALID_ARGUMENT, "overflows");
  EXPECT_FAILS(spec.add_tensor("x", 0x0411u, {3}), CHORUS_INVALID_ARGUMENT, "do not fill bytes");
  EXPECT_FAILS(spec.add_tensor("x", 0x8002u, {3}), CHORUS_UNIMPLEMENTED, "safetensors cannot store it");
  EXPECT_FAILS(spec.add_text("a/b", ""), CHORUS_INVALID_ARGUMENT, "plain file name");
  EXPECT_FAILS(spec.add_text("..", ""), CHORUS_INVALID_ARGUMENT, "plain file name");
  EXPECT_FAILS(spec.add_text(".hidden", ""), CHORUS_INVALID_ARGUMENT, "plain file name");
  EXPECT_FAILS(spec.add_text("model.safetensors", ""), CHORUS_INVALID_ARGUMENT, "the writer itself");
  EXPECT_FAILS(spec.set_metadata("\xff", "x"), CHORUS_INVALID_ARGUMENT, "key is not UTF-8");
  spec.add_text("config.json", "{}");
  EXPECT_FAILS(spec.add_file("config.json", "x"), CHORUS_ALREADY_EXISTS, "config.json");
  spec.add_file("tokenizer.json", folder / "missing");
  write_file(folder / "file", "");
  EXPECT_FAILS(chorus::CheckpointWriter(unit::context(), spec, folder / "file"), CHORUS_INVALID_ARGUMENT, "not a folder");
  EXPECT_FAILS(chorus::CheckpointWriter(unit::context(), spec, ""), CHORUS_INVALID_ARGUMENT, "folder is empty");
  {
    const float two[2] = {};
    chorus::CheckpointWriter writer(unit::context(), spec, folder / "m");
    writer.write(0, chorus::Tensor(two, {2}));
    EXPECT_FAILS(writer.finish(), CHORUS_NOT_FOUND, "missing");
  }
  cr_expect(names_in(folder.path().string()) == std::vector<std::string>({"file"}));
  chorus_checkpoint_writer_destroy(nullptr);
  chorus_checkpoint_writer_spec_destroy(nullptr);
}
