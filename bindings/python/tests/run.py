# SPDX-License-Identifier: Apache-2.0
"""run.py [--peers] [PYTEST …]: pytest over this folder; what is missing is said in CTest's word for skipping. --peers: with the torch and
transformers of .venv-peers, which has no pytest of its own."""
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main(arguments):
    missing = [name for name in ("pytest", "hypothesis", "numpy", "safetensors") if importlib.util.find_spec(name) is None]
    if missing:
        print(f"SKIPPED: needs {', '.join(missing)} (./dev setup installs them into .venv)")
        return 0
    import pytest
    if arguments[:1] == ["--peers"]:
        python = Path(os.environ.get("CHORUS_PEERS_PYTHON", HERE.parents[2] / ".venv-peers/bin/python3"))
        if not python.exists():
            print(f"SKIPPED: needs torch and transformers: no {python} (./dev peers makes it)")
            return 0
        folder = str(Path(pytest.__file__).parents[1])
        start = f"import runpy, sys; sys.path.append({folder!r}); sys.argv = {[__file__, *arguments[1:]]!r}; " \
                f"runpy.run_path({__file__!r}, run_name='__main__')"
        return subprocess.run([python, "-P", "-c", start], env=dict(os.environ, TOKENIZERS_PARALLELISM="false")).returncode
    project = str(HERE.parent / "pyproject.toml")
    return pytest.main(["-q", "-p", "no:cacheprovider", "--rootdir", str(HERE.parent), "-c", project, str(HERE), *arguments])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
