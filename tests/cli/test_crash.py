# SPDX-License-Identifier: Apache-2.0
"""Killed at any moment the output is absent or complete, and --resume ends with the same bytes. What else goes wrong on disk
is one clear error, and nothing is left."""
import os
import random
import shutil
import signal
import subprocess
import time
import unittest

from models import LINEAR, TIES, MergeCase, random_tensors
from program import CHORUS

KILLS = 200


class Killed(MergeCase):
    def start(self, *arguments):
        return subprocess.Popen([CHORUS, "merge", "recipe.yml", "out", "--progress", "none", *arguments], cwd=self.folder,
                                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def clean(self):
        shutil.rmtree(self.path("out"), ignore_errors=True)
        shutil.rmtree(self.path(".out.partial"), ignore_errors=True)

    def whole(self):
        # The command is in the manifest and the card: with and without --resume they differ by that word.
        return {name: data.replace(b" --resume", b"") for name, data in self.files("out").items()}

    def test_at_random_moments(self):
        self.recipe(TIES)
        durations = []
        for _ in range(3):
            self.clean()
            begin = time.monotonic()
            self.assertEqual(self.start("--shard-size", "20KB").wait(), 0)
            durations.append(time.monotonic() - begin)
        want, longest = self.whole(), max(durations)
        self.assertIn("model.safetensors.index.json", want)
        rng, absent, taken_up = random.Random(5), 0, 0
        for kill in range(KILLS):
            self.clean()
            process = self.start("--shard-size", "20KB")
            time.sleep(rng.random() * longest)
            process.send_signal(signal.SIGKILL)
            process.communicate()
            if os.path.exists(self.path("out")):
                self.assertEqual(self.whole(), want, f"kill {kill} left a part")
                continue
            absent += 1
            taken_up += os.path.exists(self.path(".out.partial/.journal"))
            if kill % 4 == 0 or os.path.exists(self.path(".out.partial/.journal")):
                process = self.start("--shard-size", "20KB", "--resume")
                said = process.communicate()[1]
                self.assertEqual(process.returncode, 0, said)
                self.assertEqual(self.whole(), want, f"resumed after kill {kill}")
                self.assertEqual(self.hidden(), [])
        self.assertGreater(absent, 20)
        print(f"{KILLS} kills: {absent} before the end, {taken_up} of them with a journal")

    def test_resumes_what_the_journal_proves_and_nothing_else(self):
        self.recipe(TIES)
        self.run_chorus("merge", "recipe.yml", "out")
        want = self.whole()
        self.clean()
        # A cancelled run that may be resumed keeps its hidden folder: a limit on file size stops it at the manifest.
        process = subprocess.run(["bash", "-c", f"ulimit -f 40; exec {CHORUS} merge recipe.yml out --resume"], cwd=self.folder,
                                 capture_output=True, text=True)
        self.assertNotEqual(process.returncode, 0, process.stdout)
        self.assertIsNone(self.files("out"))
        self.assertEqual(self.hidden(), [".out.partial"])
        # A journal that claims what is not true: the bytes were never written.
        self.clean()
        done = self.run_chorus("merge", "recipe.yml", "out", "--resume")
        self.assertEqual(self.whole(), want)
        self.assertNotIn("starting again", done.stderr)

    def test_a_lying_journal_is_not_believed(self):
        self.recipe(TIES)
        self.run_chorus("merge", "recipe.yml", "out")
        want = self.whole()
        for lie in ("0 0\n1 2\nffffff 1\n", "0 zz\n", "garbage"):
            self.clean()
            self.run_chorus("merge", "recipe.yml", "out", "--resume")
            head = b"chorus merge journal 1 0\n"
            self.clean()
            os.makedirs(self.path(".out.partial"))
            shutil.copy(self.path("a/model.safetensors"), self.path(".out.partial/model.safetensors"))
            self.write(".out.partial/.journal", head + lie.encode())
            done = self.run_chorus("merge", "recipe.yml", "out", "--resume")
            self.assertIn("starting again", done.stderr)
            self.assertEqual(self.whole(), want)


class Broken(MergeCase):
    def nothing_left(self):
        self.assertIsNone(self.files("out"))
        self.assertEqual(self.hidden(), [])

    def test_file_size_limit(self):
        self.recipe(LINEAR)
        done = subprocess.run(["bash", "-c", f"ulimit -f 8; exec {CHORUS} merge recipe.yml out"], cwd=self.folder,
                              capture_output=True, text=True)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertRegex(done.stderr, r"reserving \d+ bytes for .*model.safetensors: File too large")
        self.nothing_left()

    def test_full_disk(self):
        small = self.path("small")
        os.mkdir(small)
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", small], capture_output=True).returncode != 0:
            self.skipTest("mounting a tmpfs is not allowed here")
        try:
            self.recipe(LINEAR)
            done = self.run_chorus("merge", "recipe.yml", "small/out", code=1)
            self.assertRegex(done.stderr, r"reserving \d+ bytes for .*: No space left on device")
            self.assertRegex(done.stderr, r"warning: the output has \d+ bytes; \d+ are free")
            self.assertEqual(os.listdir(small), [])
            # Onto the mount itself: there is no folder beside it on that disk.
            self.run_chorus("merge", "recipe.yml", "small", code=1)
            self.assertEqual(os.listdir(small), [])
        finally:
            subprocess.run(["umount", small], check=True)

    def test_onto_a_mounted_folder(self):
        place = self.path("place")
        os.mkdir(place)
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", place], capture_output=True).returncode != 0:
            self.skipTest("mounting a tmpfs is not allowed here")
        try:
            self.recipe(LINEAR)
            self.run_chorus("merge", "recipe.yml", "place")
            self.run_chorus("inspect", "place")
            self.assertEqual([name for name in os.listdir(place) if name.startswith(".")], [])
        finally:
            subprocess.run(["umount", place], check=True)

    def test_unreadable_truncated_and_missing(self):
        self.recipe(LINEAR)
        os.truncate(self.path("b/model.safetensors"), 4000)
        self.refused("merge", "recipe.yml", "out", says=("b/model.safetensors",))
        self.nothing_left()
        tensors = random_tensors(3)
        del tensors["model.norm.weight"]
        self.model("b", tensors)
        self.refused("merge", "recipe.yml", "out", says=("tensor 'model.norm.weight' is missing in 'b'", "recipe.yml:4"))
        self.nothing_left()
        os.remove(self.path("b/model.safetensors"))
        os.mkdir(self.path("b/model.safetensors"))
        self.refused("merge", "recipe.yml", "out", says=("b/model.safetensors", "a regular file is needed"))
        self.nothing_left()

    def test_a_shard_cut_short_during_the_run(self):
        """The reader stops at the first progress line and is cut short meanwhile: an error that names file and byte."""
        shapes = {f"model.layers.{i}.mlp.up_proj.weight": (2048, 1024) for i in range(8)}
        for seed, name in enumerate("ab"):
            self.model(name, random_tensors(seed, shapes))
        self.recipe(LINEAR)
        process = subprocess.Popen([CHORUS, "merge", "recipe.yml", "out", "--progress", "json", "--threads", "1"], cwd=self.folder,
                                   stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        process.stderr.readline()
        process.send_signal(signal.SIGSTOP)
        os.truncate(self.path("b/model.safetensors"), 50_000_000)
        process.send_signal(signal.SIGCONT)
        said = process.communicate(timeout=60)[1]
        self.assertNotEqual(process.returncode, 0)
        self.assertRegex(said, r"b/model.safetensors ends at byte 50000000; .* were expected")
        self.nothing_left()

    def test_a_tensor_larger_than_the_memory(self):
        shapes = {"model.embed_tokens.weight": (9000, 4096), "model.norm.weight": (4096,)}  # 147 MB of f32, twice
        for seed, name in enumerate("ab"):
            self.model(name, random_tensors(seed, shapes))
        self.recipe(LINEAR)
        self.run_chorus("merge", "recipe.yml", "out", "--memory", "64MiB")
        self.run_chorus("merge", "recipe.yml", "wide", "--memory", "1GiB", "--threads", "1")
        self.assertEqual(self.files("out")["model.safetensors"], self.files("wide")["model.safetensors"])
        plan = self.json_of("merge", "recipe.yml", "out", "--plan", "--memory", "64MiB")
        self.assertLess(plan["peak_memory"], 64 << 20)


if __name__ == "__main__":
    unittest.main()
