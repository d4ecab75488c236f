#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""symbols.py LIBCHORUS PLUGIN…: what the built files export.

libchorus exports exactly the functions that the headers of the umbrella chorus.h declare with CHORUS_API; a plugin exports
chorus_plugin_query alone and needs no library of ours.
"""
import re
import subprocess
import sys
from pathlib import Path

INCLUDE = Path(__file__).resolve().parents[2] / "include" / "chorus"
VERSION_NODE = re.compile(r"CHORUS_\d+")  # `nm` lists the version script's node as an absolute symbol


def lines_of(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


def exported(path):
    """{name: nm's letter} of the dynamic symbols that `path` defines."""
    out = {}
    for line in lines_of("nm", "-D", "--defined-only", path):
        letter, name = line.split()[-2:]
        if not (letter == "A" and VERSION_NODE.fullmatch(name)):
            out[name.split("@")[0]] = letter
    return out


def declared():
    names = set()
    for header in re.findall(r'#include "(\w+\.h)"', (INCLUDE / "chorus.h").read_text()):
        header = INCLUDE / header
        text = re.sub(r"/\*.*?\*/", " ", header.read_text(), flags=re.S)
        names |= set(re.findall(r"CHORUS_API [^;]*?\b(chorus_\w+)\s*\(", text))
    return names


def complaints_about_library(path):
    symbols, wanted = exported(path), declared()
    for name in sorted(set(symbols) - wanted):
        yield f"{path}: exports {name}, which chorus.h does not declare"
    for name in sorted(wanted - set(symbols)):
        yield f"{path}: does not export {name}, which chorus.h declares"
    for name, letter in sorted(symbols.items()):
        if letter not in "T":
            yield f"{path}: {name} is exported as '{letter}'; only functions are"


def complaints_about_plugin(path):
    symbols = exported(path)
    if symbols != {"chorus_plugin_query": "T"}:
        yield f"{path}: exports {sorted(symbols)}; a plugin exports chorus_plugin_query alone"
    for line in lines_of("readelf", "-d", path):
        if "NEEDED" in line and "libchorus" in line:
            yield f"{path}: links libchorus; a plugin links nothing of it"


def main():
    library, *plugins = sys.argv[1:]
    complaints = list(complaints_about_library(library))
    for plugin in plugins:
        complaints += complaints_about_plugin(plugin)
    print("\n".join(complaints) or f"{len(declared())} functions exported; {len(plugins)} plugins export one symbol each")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
