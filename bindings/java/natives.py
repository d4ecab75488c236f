# SPDX-License-Identifier: Apache-2.0
"""natives.py FOLDER --libraries FILE… --plugins FILE…: what the jar carries: libchorus and the JNI library under their SONAMEs, the plugins in
the folder beside them, the libraries of Debian that they need, and `index`, which lists them; `!`: loaded by Native.java, in this order.
"""
import argparse
import re
import shutil
import subprocess
from pathlib import Path

OF_DEBIAN = re.compile(r"^lib(tbb|hwy|gomp)\b")  # not everywhere; libc and libstdc++ are


def soname(path):
    told = subprocess.run(["readelf", "-d", path], check=True, capture_output=True, text=True).stdout
    found = re.search(r"\(SONAME\).*\[(.+)\]", told)
    return found[1] if found else Path(path).name


def needed(path):
    """{name: file} of the libraries of Debian that `path` needs."""
    told = subprocess.run(["ldd", path], check=True, capture_output=True, text=True).stdout
    return {name: Path(file) for name, file in re.findall(r"^\s*(\S+) => (/\S+)", told, flags=re.M) if OF_DEBIAN.match(name)}


def copy(source, to):
    if not to.exists() or to.stat().st_mtime < source.stat().st_mtime:
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, to)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--libraries", nargs="+", type=Path)
    parser.add_argument("--plugins", nargs="*", type=Path)
    arguments = parser.parse_args()
    lines = []
    for path in [*arguments.libraries, *arguments.plugins]:
        for name, file in needed(path).items():
            copy(file.resolve(), arguments.folder / name)
            if f"{name}!" not in lines:
                lines.append(f"{name}!")
        if path in arguments.libraries:
            name = "libchorus-java.so" if "java" in path.name else soname(path)
            lines.append(f"{name}!")
        else:
            name = f"chorus-plugins/{path.name}"
            lines.append(name)
        copy(path, arguments.folder / name)
    (arguments.folder / "index").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
