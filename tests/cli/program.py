# SPDX-License-Identifier: Apache-2.0
"""What the tests of the program share: running it, and writing safetensors files, good and bad, byte by byte."""
import json
import os
import struct
import subprocess
import sys
import tempfile
import unittest

try:
    import numpy as np
except ImportError:  # built without ./dev: no test environment
    print("SKIPPED: needs numpy (./dev setup installs it into .venv)")
    sys.exit(0)

CHORUS = os.environ["CHORUS"]
DTYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "I64": np.int64, "I32": np.int32, "U8": np.uint8}


def bf16_bits(array):
    """Round to nearest even, as 16-bit integers."""
    bits = np.asarray(array, np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def safetensors(tensors):
    """Bytes of a file; tensors: {name: array or (dtype name, shape, bytes)}."""
    header, data = {}, b""
    for name, value in tensors.items():
        if isinstance(value, tuple):
            dtype, shape, raw = value
        else:
            dtype = next(key for key, kind in DTYPES.items() if value.dtype == kind)
            shape, raw = list(value.shape), np.ascontiguousarray(value).tobytes()
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


class Case(unittest.TestCase):
    def setUp(self):
        self._folder = tempfile.TemporaryDirectory(prefix="chorus-cli-")
        self.folder = self._folder.name

    def tearDown(self):
        self._folder.cleanup()

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, tensors):
        """A safetensors file (or, from bytes, any file); returns its path."""
        path = self.path(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(tensors if isinstance(tensors, bytes) else safetensors(tensors))
        return path

    def run_chorus(self, *arguments, code=0):
        """Runs the program; fails unless it exits with `code`."""
        done = subprocess.run([CHORUS, *arguments], cwd=self.folder, capture_output=True, text=True, timeout=120,
                              errors="replace")
        self.assertEqual(done.returncode, code, f"{arguments}\n{done.stdout}\n{done.stderr}")
        self.assertNotIn("Sanitizer", done.stderr)
        return done

    def json_of(self, *arguments, code=0):
        return json.loads(self.run_chorus(*arguments, "--json", code=code).stdout)

    def refused(self, *arguments, code=3, says=()):
        """The program refuses with this exit code; its message holds every text of `says` and it prints no result."""
        done = self.run_chorus(*arguments, code=code)
        for text in says:
            self.assertIn(text, done.stderr)
        self.assertEqual(done.stdout, "")
        self.assertTrue(done.stderr.startswith("chorus: "), done.stderr)
