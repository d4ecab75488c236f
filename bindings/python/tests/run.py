# SPDX-License-Identifier: Apache-2.0
"""Runs pytest over this folder; without it, says so in CTest's word for skipping."""
import sys
from pathlib import Path

try:
    import hypothesis  # noqa: F401
    import numpy  # noqa: F401
    import pytest
    import safetensors  # noqa: F401
except ImportError as missing:
    print(f"SKIPPED: {missing} (./dev setup installs it into .venv)")
    sys.exit(0)

sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "--rootdir", str(Path(__file__).parents[1]), "-c",
                      str(Path(__file__).parents[1] / "pyproject.toml"), str(Path(__file__).parent), *sys.argv[1:]]))
