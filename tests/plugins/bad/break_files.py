#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes files that are no good plugins as files: break_files.py GOOD.so FOLDER."""
import sys
from pathlib import Path

good = Path(sys.argv[1]).read_bytes()
folder = Path(sys.argv[2])
E_MACHINE = 18  # offset of the 16-bit machine number in an ELF header
EM_S390 = 22

foreign = bytearray(good)
foreign[E_MACHINE:E_MACHINE + 2] = EM_S390.to_bytes(2, "little")
(folder / "chorus-bad-architecture.so").write_bytes(foreign)
(folder / "chorus-bad-truncated.so").write_bytes(good[:len(good) // 4])
(folder / "chorus-bad-text.so").write_text("#!/bin/sh\necho this is a script, and no shared object at all, though its name says so\n")
(folder / "chorus-bad-empty.so").write_bytes(b"")
