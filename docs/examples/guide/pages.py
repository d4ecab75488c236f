#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks README.md and docs/guide.md: each block of C or YAML names the example it was taken from and equals lines of it, and every
link to a file of the tree leads somewhere.

    <!-- docs/examples/guide/combine.c -->
    ```c
    …
    ```
"""
import pathlib
import re
import sys
import textwrap

BLOCK = re.compile(r"(?:<!-- (?P<file>\S+) -->\n)?```(?P<kind>c|yaml)\n(?P<code>.*?)```", re.DOTALL)
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")


def lines(text: str) -> str:
    return "\n".join(line.strip() for line in textwrap.dedent(text).strip().split("\n"))


def main() -> int:
    root = pathlib.Path(sys.argv[1])
    failed = blocks = 0
    for page in ("README.md", "docs/guide.md"):
        text = (root / page).read_text()
        for block in BLOCK.finditer(text):
            blocks += 1
            file = block["file"]
            if file is None or lines(block["code"]) not in lines((root / file).read_text()):
                failed += 1
                print(f"FAIL {page}: this block is not in {file or 'any example: put its path above it'}\n{block['code']}")
        for link in LINK.findall(text):
            if not ((root / page).parent / link).exists():
                failed += 1
                print(f"FAIL {page}: link to {link}, which does not exist")
    print(f"{blocks} blocks, {failed} failures")
    return 1 if failed or blocks == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
