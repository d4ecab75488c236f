#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The architecture's arrows, read from the #include lines, and what library code must not do.

abi -> objects -> {checkpoint, vocabulary} -> runtime -> reference. The objects never include each other; reference and
the plugins see of Chorus only plugin.h (or plugin.hpp over it), types.h and exact_math.h; the bindings only public headers. Library and plugin
code never prints, aborts or exits, and installs no signal handler.
"""
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OBJECTS = ("combine", "merge", "route", "sparse", "pipeline")
FILES = ("checkpoint", "vocabulary")
BACKEND_HEADERS = {"chorus/plugin.h", "chorus/plugin.hpp", "chorus/plugin_combine.hpp", "chorus/plugin_merge.hpp",
                   "chorus/plugin_route.hpp", "chorus/plugin_route_lists.hpp", "chorus/plugin_experts.hpp",
                   "chorus/plugin_sparse.hpp", "chorus/types.h", "chorus/exact_math.h"}
FORBIDDEN = re.compile(r"\bstd::(?:cout|cerr|clog)\b|(?<![\w:.>])(?:std::|::)?"
                       r"(printf|fprintf|vprintf|vfprintf|puts|fputs|putchar|perror|abort|exit|_exit|quick_exit|terminate|"
                       r"signal|sigaction|assert)\s*\(")
SUFFIXES = {".h", ".hpp", ".c", ".cc", ".cpp", ".cu", ".cuh"}


def allowed_folders(folder):
    """Folders of lib/ that a file of lib/`folder` may include from."""
    below = {
        "abi": {"abi", *OBJECTS, *FILES, "runtime"},
        "runtime": {"runtime"},
        "reference": {"reference"},
    }
    for name in OBJECTS:
        below[name] = {name, *FILES, "runtime"}
    for name in FILES:
        below[name] = {name, "runtime"}
    return below[folder]


def without_comments(text):
    text = re.sub(r'"(?:\\.|[^"\\\n])*"', lambda m: m.group() if "/" in m.group() or ".h" in m.group() else '""', text)
    return re.sub(r"//[^\n]*|/\*.*?\*/", " ", text, flags=re.S)


def includes_of(path):
    return re.findall(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', path.read_text(), flags=re.M)


def sources_below(folder):
    return [p for p in sorted((ROOT / folder).rglob("*")) if p.suffix in SUFFIXES]


def is_ours(include):
    return include.startswith("chorus/") or (ROOT / "lib" / include).exists()


def complaints_about_library():
    for path in sources_below("lib"):
        folder = path.relative_to(ROOT / "lib").parts[0]
        for include in includes_of(path):
            if folder == "reference" and include.startswith("chorus/"):
                if include not in BACKEND_HEADERS:
                    yield f"{path}: includes {include}; a backend sees {sorted(BACKEND_HEADERS)} alone"
            elif (ROOT / "lib" / include).exists() and include.split("/")[0] not in allowed_folders(folder):
                yield f"{path}: includes {include}; {folder} may include from {sorted(allowed_folders(folder))}"


def complaints_about_plugins():
    for path in sources_below("plugins"):
        home = ROOT / "plugins" / path.relative_to(ROOT / "plugins").parts[0]
        for include in includes_of(path):
            if is_ours(include) and include not in BACKEND_HEADERS and not (home / include).exists():
                yield f"{path}: includes {include}; a plugin sees {sorted(BACKEND_HEADERS)} alone"


def complaints_about_bindings():
    for path in sources_below("bindings") + sources_below("docs/examples"):
        for include in includes_of(path):
            if not include.startswith("chorus/") and (ROOT / "lib" / include).exists() \
                    and not (path.parent / include).exists():
                yield f"{path}: includes {include} of lib/; bindings and examples see public headers alone"


def complaints_about_conduct():
    for path in sources_below("lib") + sources_below("plugins"):
        for number, line in enumerate(without_comments(path.read_text()).splitlines(), 1):
            found = FORBIDDEN.search(line)
            if found:
                yield f"{path}: '{found.group().strip('( ')}' in library code: {line.strip()}"


def main():
    complaints = [*complaints_about_library(), *complaints_about_plugins(), *complaints_about_bindings(),
                  *complaints_about_conduct()]
    print("\n".join(complaints) or "all arrows go one way")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
