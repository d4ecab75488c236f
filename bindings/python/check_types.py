# SPDX-License-Identifier: Apache-2.0
"""check_types.py FOLDER: mypy, strictly, over the package in FOLDER as built."""
import subprocess
import sys
import tempfile
from pathlib import Path

try:
    import mypy  # noqa: F401
except ImportError:
    print("SKIPPED: needs mypy (./dev setup installs it into .venv)")
    sys.exit(0)

USER = """
import chorus
combined: chorus.Combined = chorus.combine([[0.0, 1.0]], [1.0], "linear", sample=True)
plan: chorus.Plan = chorus.merge({"merge_method": "linear"}, "out", progress=lambda told: told.bytes_done > 0)
routing: chorus.Routing = chorus.Router(8, 2, preset="mixtral").route([[0.0] * 8])
"""

with tempfile.TemporaryDirectory() as scratch:
    (Path(scratch) / "user.py").write_text(USER)
    command = [sys.executable, "-m", "mypy", "--config-file", str(Path(__file__).parent / "pyproject.toml"),
               "--cache-dir", scratch, str(Path(sys.argv[1]) / "chorus"), str(Path(scratch) / "user.py")]
    sys.exit(subprocess.run(command, cwd=sys.argv[1]).returncode)
