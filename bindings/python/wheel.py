# SPDX-License-Identifier: Apache-2.0
"""wheel.py --build BUILD --out FOLDER [--test]: the wheel, with libchorus, its plugins, and the libraries they need inside.

Installs BUILD into a scratch prefix, lets scikit-build-core make the wheel, and auditwheel put the system's libraries into it. With
--test it is installed beside nothing but numpy, and its README and tests run.
"""
import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent


def run(*command, **options):
    print("+", *command, flush=True)
    return subprocess.run([str(c) for c in command], check=True, **options)


def build(arguments, scratch):
    prefix, raw = scratch / "prefix", scratch / "raw"
    run(arguments.cmake, "--install", arguments.build, "--prefix", prefix, stdout=subprocess.DEVNULL)
    tools = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    run(sys.executable, "-m", "pip", "wheel", "-q", "--disable-pip-version-check", "--no-deps", "--no-build-isolation", "--no-index",
        "-w", raw, HERE, "-C", f"cmake.define.CHORUS_PREFIX={prefix}", "-C", f"build-dir={scratch / 'cmake'}",
        env=dict(os.environ, PATH=tools))
    arguments.out.mkdir(parents=True, exist_ok=True)
    run(sys.executable, "-m", "auditwheel", "repair", "-w", arguments.out, next(raw.glob("*.whl")),
        env=dict(os.environ, PATH=tools, LD_LIBRARY_PATH=str(next(prefix.rglob("chorus-plugins")))))
    return max(arguments.out.glob("chorus-*.whl"), key=lambda path: path.stat().st_mtime)


def test(wheel, scratch):
    installed = scratch / "site-packages"
    run(sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps", "--no-index", "--target",
        installed, wheel)
    environment = dict(os.environ, PYTHONPATH=str(installed), CHORUS_WHEEL=str(installed))
    environment.pop("LD_LIBRARY_PATH", None)
    code = "\n".join(re.findall(r"```python\n(.*?)```", (HERE / "README.md").read_text(), flags=re.S))
    check = "\nassert 'cpu' in [device['name'] for device in chorus.default_context().devices()]"
    run(sys.executable, "-c", code + check, cwd=scratch, env=environment)
    run(sys.executable, HERE / "tests" / "run.py", "-k", "wheel or linear or formulas or experts", cwd=scratch, env=environment)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", required=True)
    parser.add_argument("--cmake", default="cmake")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--test", action="store_true")
    arguments = parser.parse_args()
    try:
        import auditwheel  # noqa: F401
        import scikit_build_core  # noqa: F401
    except ImportError as missing:
        print(f"SKIPPED: {missing} (./dev setup installs it into .venv)")
        return
    with tempfile.TemporaryDirectory() as scratch:
        wheel = build(arguments, Path(scratch))
        print(wheel, wheel.stat().st_size, "bytes")
        if arguments.test:
            test(wheel, Path(scratch))


if __name__ == "__main__":
    main()
