# SPDX-License-Identifier: Apache-2.0
"""run.py --library FOLDER --target FOLDER: cargo test of the crates, linked with the library in FOLDER."""
import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--library", required=True)
    parser.add_argument("--target", required=True)
    arguments = parser.parse_args()
    for tool, package in (("cargo", "cargo"), (os.environ.get("BINDGEN", "bindgen"), "bindgen and libclang1-14")):
        if shutil.which(tool) is None:
            print(f"SKIPPED: no {tool} (Debian: {package}; ./dev setup installs it)")
            return 0
    environment = dict(os.environ, CHORUS_LIB_DIR=arguments.library, CARGO_TARGET_DIR=arguments.target, CARGO_NET_OFFLINE="true")
    environment["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, [arguments.library, os.environ.get("LD_LIBRARY_PATH")]))
    return subprocess.run(["cargo", "test", "--quiet", "--manifest-path", HERE / "Cargo.toml"], env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
