#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Every public header compiles alone, twice included, in every language it promises, without a warning."""
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

INCLUDE = Path(__file__).resolve().parents[2] / "include"
WARNINGS = ["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-Wundef", "-Wconversion"]
C_STANDARDS = ["c99", "c11", "c17"]
CXX_STANDARDS = ["c++11", "c++20"]
# Comfort for authors of backends, who build with us.
CXX20_ONLY = {"plugin.hpp", "plugin_combine.hpp", "plugin_merge.hpp", "plugin_route.hpp", "plugin_route_lists.hpp",
              "plugin_experts.hpp", "plugin_sparse.hpp"}


def compile_alone(header, standard, folder):
    """None, or what the compiler said."""
    is_cxx = standard.startswith("c++")
    source = Path(folder, f"{header.name}-{standard}".replace(".", "_") + (".cpp" if is_cxx else ".c"))
    include = f'#include "chorus/{header.name}"\n'
    source.write_text(include * 2 + "int main(void) { return 0; }\n")
    compiler = os.environ.get("CXX", "c++") if is_cxx else os.environ.get("CC", "cc")
    done = subprocess.run([compiler, f"-std={standard}", *WARNINGS, "-fsyntax-only", f"-I{INCLUDE}", source],
                          capture_output=True, text=True)
    return None if done.returncode == 0 else f"{header.name} as {standard}:\n{done.stderr}"


def main():
    jobs = []
    for header in sorted(INCLUDE.glob("chorus/*.h*")):
        standards = CXX_STANDARDS if header.suffix == ".hpp" else C_STANDARDS + CXX_STANDARDS
        if header.name in CXX20_ONLY:
            standards = ["c++20"]
        jobs += [(header, standard) for standard in standards]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(os.cpu_count()) as pool:
        failures = [f for f in pool.map(lambda job: compile_alone(*job, folder), jobs) if f]
    print("\n".join(failures) or f"{len(jobs)} compilations without a warning")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
