# SPDX-License-Identifier: Apache-2.0
"""run.py --build FOLDER --source FOLDER [GOAL]: `mvn verify` (or another goal) with the native libraries of a build; offline where Maven has
what it needs, else it fetches that first."""
import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
UNREACHABLE = re.compile(r"Could not transfer artifact|Unknown host|could not be resolved|Could not resolve dependencies|Network is unreachable")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", type=Path, required=True)
    parser.add_argument("--source", required=True)
    parser.add_argument("goal", nargs="*", default=["verify"])
    arguments = parser.parse_args()
    for tool, package in (("mvn", "maven"), ("javac", "default-jdk-headless")):
        if shutil.which(tool) is None:
            print(f"SKIPPED: no {tool} (Debian: {package}; ./dev setup installs it)")
            return 0
    command = ["mvn", "-B", "-f", HERE / "pom.xml", f"-Dchorus.build={arguments.build.resolve()}", f"-Dchorus.source={arguments.source}"]
    for flags in (["-o"], []):
        done = subprocess.run([*command, *flags, *arguments.goal], capture_output=True, text=True)
        if done.returncode == 0 or not UNREACHABLE.search(done.stdout):
            break
    print("\n".join(line for line in done.stdout.splitlines() if re.search(r"Tests run|ERROR|BUILD|Building jar", line)))
    if done.returncode != 0 and UNREACHABLE.search(done.stdout):
        print("SKIPPED: Maven cannot fetch its plugins or JUnit")
        return 0
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
