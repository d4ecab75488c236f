# SPDX-License-Identifier: Apache-2.0
"""docs/cli.md shows what the program prints: every block ```console is run and compared, numbers within their rounding.

`CHORUS=build/release/bin/chorus CHORUS_SOURCE_DIR=. test_documented.py --write` puts the present output into the page.
"""
import os
import re
import shlex
import subprocess
import sys
import unittest
from pathlib import Path

from example_files import main as make_files
from program import CHORUS, Case

ROOT = Path(os.environ["CHORUS_SOURCE_DIR"])
PAGE = ROOT / "docs" / "cli.md"
README = ROOT / "README.md"
BLOCK = re.compile(r"```console\n\$ (.*?)\n(.*?)```", re.S)
NUMBER = re.compile(r"-?\d+\.\d+(?:e-?\d+)?")


def run(command, folder):
    words = shlex.split(command)
    done = subprocess.run([CHORUS, *words[1:]], cwd=folder, capture_output=True, text=True, timeout=120)
    if done.returncode == 0:  # which kernels there are, and so warnings on standard error, depends on the machine
        return done.stdout
    return done.stdout + done.stderr + f"(exit code {done.returncode})\n"


def prepare(folder):
    make_files(Path(folder))
    os.symlink(ROOT / "docs" / "examples" / "family", Path(folder) / "family")


class Documented(Case):
    def test_output(self):
        prepare(self.folder)
        blocks = BLOCK.findall(PAGE.read_text())
        self.assertGreater(len(blocks), 5)
        for command, shown in blocks:
            found = run(command, self.folder)
            self.assertEqual(NUMBER.sub("#", found), NUMBER.sub("#", shown), command)
            for a, b in zip(NUMBER.findall(found), NUMBER.findall(shown)):
                # Backends may differ by their tolerance, or by a unit of what is printed.
                allowed = max(1.01 * 10.0 ** -len(b.split("e")[0].split(".")[1]), 4e-6 * abs(float(b)))
                self.assertLessEqual(abs(float(a) - float(b)), allowed, f"{command}: {a} and {b}")

    def test_readme(self):
        """The README's commands, in its order: they end with exit code 0 and leave the model they promise."""
        commands = re.findall(r"^    build/release/bin/(chorus .*)$", README.read_text(), re.M)
        self.assertGreaterEqual(len(commands), 3)
        os.symlink(ROOT / "docs", Path(self.folder) / "docs")
        for command in commands:
            found = run(command, self.folder)
            self.assertNotIn("(exit code", found, command)
        self.assertTrue((Path(self.folder) / "merged" / "model.safetensors").is_file())


def write():
    import tempfile
    with tempfile.TemporaryDirectory() as folder:
        prepare(folder)
        PAGE.write_text(BLOCK.sub(lambda match: f"```console\n$ {match[1]}\n{run(match[1], folder)}```", PAGE.read_text()))


if __name__ == "__main__":
    write() if sys.argv[1:] == ["--write"] else unittest.main()
