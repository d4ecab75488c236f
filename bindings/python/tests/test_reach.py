# SPDX-License-Identifier: Apache-2.0
"""Every public function and constant of the headers is in chorus._core, documented and in its stub."""
import os
import re
import sys
from pathlib import Path

import pytest

from chorus import _core
from conftest import ROOT

sys.path.insert(0, str(ROOT / "bindings" / "generate"))
import headers  # noqa: E402

API = headers.read()


def declared_by_grep():
    """The function names once more, read in another way than the generator's."""
    names = set()
    for header in re.findall(r'#include "(\w+\.h)"', (ROOT / "include/chorus/chorus.h").read_text()):
        text = re.sub(r"/\*.*?\*/", " ", (ROOT / "include/chorus" / header).read_text(), flags=re.S)
        names |= set(re.findall(r"CHORUS_API [^;]*?\b(chorus_\w+)\s*\(", text))
    return names


def test_every_function():
    assert len(declared_by_grep()) > 190
    assert not [name for name in sorted(declared_by_grep()) if not callable(getattr(_core, name, None))]


def test_every_constant():
    assert not [c.name for c in API.constants if re.match(r"-?\d", c.value) and getattr(_core, c.name, None) is None]
    assert _core.CHORUS_BF16 == 0x1004 and _core.CHORUS_OP_COMBINE_ROWS == "combine.rows"


def test_contracts_are_docstrings():
    assert "overlap" in _core.chorus_router_route.__doc__
    missing = [f.name for f in API.functions if f.doc and f.doc.split("\n")[0] not in (getattr(_core, f.name).__doc__ or "")]
    assert not missing


def test_stub_matches():
    stub = (Path(_core.__file__).parent / "_core.pyi").read_text()
    stubbed = set(re.findall(r"^def (\w+)", stub, flags=re.M))
    found = {name for name in dir(_core) if callable(getattr(_core, name)) and not name.startswith(("_", "SWIG", "Swig"))}
    assert stubbed == found


def test_public_layer_tells_the_contract():
    import chorus
    assert "unknown rule" in chorus.Combiner.__init__.__doc__
    assert "CHORUS_CANCELLED" in chorus.Merger.run.__doc__


@pytest.mark.skipif("CHORUS_WHEEL" not in os.environ, reason="only of the installed wheel")
def test_is_the_wheel():
    assert _core.__file__.startswith(os.environ["CHORUS_WHEEL"])
