#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""An installed Chorus works from where it was moved to: find_package, pkg-config, and the program itself."""
import argparse
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

CONSUMER = Path(__file__).resolve().parent / "consumer"


def run(*command, **options):
    print("+", *command, flush=True)
    return subprocess.run([str(c) for c in command], check=True, text=True, **options)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--build", "--cmake", "--cc"):
        parser.add_argument(name, required=True)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        first, moved = Path(scratch, "first"), Path(scratch, "moved")
        run(arguments.cmake, "--install", arguments.build, "--prefix", first, stdout=subprocess.DEVNULL)
        shutil.move(first, moved)
        libraries = next(moved.glob("lib*/**/libchorus.so")).parent

        run(arguments.cmake, "-S", CONSUMER, "-B", Path(scratch, "build"), f"-DCMAKE_PREFIX_PATH={moved}",
            stdout=subprocess.DEVNULL)
        run(arguments.cmake, "--build", Path(scratch, "build"), stdout=subprocess.DEVNULL)
        run(Path(scratch, "build", "consumer"))

        environment = dict(os.environ, PKG_CONFIG_PATH=str(libraries / "pkgconfig"))
        flags = run("pkg-config", "--cflags", "--libs", "chorus", env=environment, capture_output=True).stdout.split()
        binary = Path(scratch, "by-pkg-config")
        run(arguments.cc, CONSUMER / "consumer.c", "-o", binary, *flags)
        run(binary, env=dict(environment, LD_LIBRARY_PATH=str(libraries)))

        run(moved / "bin" / "chorus", "version")


if __name__ == "__main__":
    main()
