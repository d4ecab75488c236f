#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Every public function is named in a test, and every object of the public headers is a class of chorus.hpp.

A function counts where a test calls it by its name; the classes of chorus.hpp call many, so that a test of wrong arguments,
which needs the C name, is what this asks for. `_destroy` counts through the class that calls it.
"""
import re
import sys
from pathlib import Path

from symbols import INCLUDE, declared

ROOT = INCLUDE.parents[1]


def test_text():
    files = [path for end in ("*.c", "*.cpp", "*.h") for path in (ROOT / "tests").rglob(end)]
    return "\n".join(path.read_text() for path in files if "build" not in path.parts)


def complaints():
    tests, classes = test_text(), (INCLUDE / "chorus.hpp").read_text()
    for name in sorted(declared()):
        if name.endswith("_destroy"):
            owner = f"Handle<{name.removesuffix('_destroy')}, {name}>"
            if owner not in classes and name != "chorus_error_destroy":
                yield f"{name}: no class of chorus.hpp derives from {owner}"
        elif not re.search(rf"\b{name}\b", tests):
            yield f"{name}: no test below tests/ names it"


def main():
    found = list(complaints())
    print("\n".join(found) or f"{len(declared())} functions: all are named in tests, all objects are classes")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
