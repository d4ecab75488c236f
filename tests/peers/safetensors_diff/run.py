#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""run.py PROGRAM FOLDER: build the judge in FOLDER with cargo, then run the differential test with it.

Without cargo, or where its crates cannot be had, it says why and skips. Once fetched, no network is needed.
"""
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
COUNT, LONG_COUNT = 100_000, 1_000_000


def cargo(*arguments, folder):
    environment = dict(os.environ, CARGO_TARGET_DIR=str(folder))
    return subprocess.run(["cargo", *arguments, "--locked", "--manifest-path", HERE / "Cargo.toml"], env=environment,
                          capture_output=True, text=True)


def main():
    program, folder = sys.argv[1], Path(sys.argv[2])
    if shutil.which("cargo") is None:
        print("SKIPPED: cargo is not installed, so the Rust crate cannot be built")
        return 0
    fetched = cargo("fetch", "--offline", folder=folder)
    if fetched.returncode != 0:
        fetched = cargo("fetch", folder=folder)
    if fetched.returncode != 0:
        print("SKIPPED: the crate safetensors and what it needs cannot be fetched:\n" + fetched.stderr)
        return 0
    built = cargo("build", "--release", "--offline", folder=folder)
    if built.returncode != 0:
        print(built.stderr)
        return 1
    count = LONG_COUNT if os.environ.get("CHORUS_TEST_LONG") == "1" else COUNT
    seed = os.environ.get("CHORUS_TEST_SEED", "1")
    return subprocess.run([program, folder / "release" / "libsafetensors_judge.so", str(count), seed]).returncode


if __name__ == "__main__":
    sys.exit(main())
